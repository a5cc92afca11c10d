"""Latency: measured seconds of one forward pass, beside the dense network. The trial itself holds the watch.

See ``search.speed.measure`` for how it is measured.
"""

from __future__ import annotations

from search.objectives.base import Objective

LATENCY = Objective(name="latency", title="latency", direction="minimise", unit="s", style="latency")
