"""What matrix pivoting stands on: orders of channels, blocks, and layers that run blocks."""
