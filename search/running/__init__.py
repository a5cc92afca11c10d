"""Running trials: in which order, where, and who hears of it."""
