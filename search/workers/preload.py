"""What trials need, imported by a process of Ray's before it has work, so that its first trial finds it done."""

from __future__ import annotations

from search.records.collector import import_for_good

with import_for_good():
    import torch._dynamo as optimisers_need  # the first one would import it, which takes as long as torch itself

    import search.workers.ray_workers as trials_need

__all__ = ["optimisers_need", "trials_need"]
