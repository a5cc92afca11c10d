"""Second-order information about a network from passes over data: covariances, Fisher matrices, gradients."""
