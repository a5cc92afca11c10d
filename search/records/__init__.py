"""Records of trials: what is stored, reported and shown. No torch."""
