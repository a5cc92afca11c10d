"""How each operation of ATen moves, joins and unites the classes of channels: one file per family of operations."""
