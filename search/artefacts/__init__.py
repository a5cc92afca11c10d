"""What leaves a study: exported networks."""
