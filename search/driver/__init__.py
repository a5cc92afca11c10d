"""The driver of a sweep: prepare, run, finish."""
