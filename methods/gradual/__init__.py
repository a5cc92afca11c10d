"""What methods stand on that prune while they train: penalties, probabilities, thresholds."""
