"""What EigenDamage stands on: directions in the Kronecker-factored eigenbasis, and layers rewritten into them."""
