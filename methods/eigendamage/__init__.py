"""EigenDamage: pruning in the Kronecker-factored eigenbasis."""
