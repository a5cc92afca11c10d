"""What is pruned: networks, data sets, and the trained dense network they share."""
