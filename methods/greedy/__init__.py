"""Greedy forward selection."""
