"""One trial, from a point to an outcome."""
