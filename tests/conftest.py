"""Settings for all tests: one thread per process (two processes share two cores), no deadlines."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

from hypothesis import settings

# A busy machine is no failure; timing belongs in benchmarks/.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")
