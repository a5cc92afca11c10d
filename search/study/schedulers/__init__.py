"""Schedulers: which trials go on past a rung."""
