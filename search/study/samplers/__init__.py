"""Who proposes points: the port for samplers, ours, and Optuna's own behind it."""
