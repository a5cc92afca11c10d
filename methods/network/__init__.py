"""What a network is made of and costs: coupled channels, layers, cutting, architectures as data."""
