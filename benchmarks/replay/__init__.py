"""Searches replayed on truths that cost nothing to ask."""
