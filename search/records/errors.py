"""What went wrong while running, as opposed to what the user wrote (``spaces.InputError``)."""

from __future__ import annotations


class RunError(RuntimeError):
    """Something that a run depends on failed; the message says what. The command line exits with code 1."""


class StoreWarning(UserWarning):
    """Something in a run store cannot be used and was passed over; the message names it and the cure."""
