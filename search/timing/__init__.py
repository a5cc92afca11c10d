"""How long a network takes: targets, interleaved measurements, records of them, and profiles layer by layer."""
