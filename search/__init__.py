"""Which settings are best: sweeps, fronts, reports. Scripts import from ``paretoprune``."""
