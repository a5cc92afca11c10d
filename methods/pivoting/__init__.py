"""Matrix pivoting."""
