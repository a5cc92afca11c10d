"""Methods that prune while training, inside the ``Trainer`` of transformers, which is imported only when asked for."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from methods.contract.loop import LoopHooks
from spaces import InputError


def trainer_callback(hooks: LoopHooks) -> Any:
    """Make the callback by which a method acts in the loop of Hugging Face's ``Trainer``.

    It belongs into ``fit`` of a loop of one's own (:class:`methods.contract.loop.LoopTask`)::

        def fit(self, model, budget, hooks):
            arguments = TrainingArguments(max_steps=budget, ...)
            Trainer(model, arguments, train_dataset=data, callbacks=[trainer_callback(hooks)]).train()

    Gradients may be accumulated over batches: the method sees optimiser steps. It acts after gradients are clipped.

    Args:
        hooks: What ``fit`` was handed.

    Returns:
        A ``transformers.TrainerCallback`` for one call of ``Trainer.train``.

    Raises:
        InputError: If transformers is not installed.
    """
    try:
        base: Any = import_module("transformers").TrainerCallback
    except ImportError as error:
        raise InputError(
            "trainer_callback needs the package transformers; install it (pip install transformers accelerate)"
        ) from error

    class PruningCallback(base):  # type: ignore[misc]  # the base is loaded by name
        """Shows a method every optimiser step."""

        def on_train_begin(self, args: Any, state: Any, control: Any, **given: Any) -> None:
            """Say which optimiser takes the steps; accelerate wraps it."""
            optimizer = given["optimizer"]
            hooks.begin(getattr(optimizer, "optimizer", optimizer))

        def on_step_begin(self, args: Any, state: Any, control: Any, **given: Any) -> None:
            """Let the method act before the first forward pass of a step."""
            hooks.before_batch()

        def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **given: Any) -> None:
            """Let the method act on the gradients."""
            hooks.before_step()

        def on_optimizer_step(self, args: Any, state: Any, control: Any, **given: Any) -> None:
            """Let the method act on the weights."""
            hooks.after_step()

        def on_epoch_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
            """Record the epoch, with the mean loss that the trainer logged last."""
            losses = [entry["loss"] for entry in state.log_history if "loss" in entry]
            hooks.epoch_end({"loss": float(losses[-1])} if losses else {})

    return PruningCallback()
