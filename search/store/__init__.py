"""What is on disk: studies, weights, analyses."""
