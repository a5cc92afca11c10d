"""Python's garbage collector around imports: what a process imports stays until it ends.

To look through modules again and again while more of them are imported is a fifth of the time that they take, and to
look through all of them once more when the process ends takes over a second.
"""

from __future__ import annotations

import gc
from collections.abc import Generator
from contextlib import contextmanager


@contextmanager
def pause_collector() -> Generator[None]:
    """Look for no unreachable objects while the context lasts; for parts that import much and run shortly."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@contextmanager
def import_for_good() -> Generator[None]:
    """Import without the collector, and never look again through what there is at the end of the context.

    For processes that are our own alone: what is unreachable by then stays in memory.
    """
    with pause_collector():
        yield
        keep_what_is_there()


def keep_what_is_there() -> None:
    """Never look again through the objects that there are now, not even when the process ends."""
    gc.freeze()
