"""Training: the loop, evaluation, cutting and fine-tuning, paths between networks."""
