"""sDprun: structured directional pruning."""
