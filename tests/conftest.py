"""Settings for all tests: one thread per process (two processes share two cores), no deadlines."""

from __future__ import annotations

import os
import signal

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

from hypothesis import settings

# A background job of a script (``pytest &``) inherits interrupts as ignored, and so would every process that a test
# starts and interrupts. What the tests are about is a terminal.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# A busy machine is no failure; timing belongs in benchmarks/.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")
