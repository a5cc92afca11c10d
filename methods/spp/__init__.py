"""SPP: structured probabilistic pruning."""
