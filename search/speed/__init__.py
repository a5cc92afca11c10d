"""How long networks take, and which of equal forms is fastest."""
