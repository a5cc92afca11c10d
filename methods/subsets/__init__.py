"""What greedy selection stands on: choosing a subset of the units of a layer."""
