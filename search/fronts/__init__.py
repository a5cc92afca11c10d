"""Pareto fronts, dominance, limits."""
