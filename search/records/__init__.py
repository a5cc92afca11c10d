"""Records of trials: what is stored, told and shown. No torch."""
