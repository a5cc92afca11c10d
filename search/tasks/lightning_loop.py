"""Methods that prune while training, inside Lightning's ``Trainer``; Lightning is imported when it is asked for."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from methods.contract.loop import LoopHooks
from spaces import InputError


def lightning_callback(hooks: LoopHooks) -> Any:
    """Make the callback by which a method acts in Lightning's loop.

    It belongs into ``fit`` of a loop of one's own (:class:`methods.contract.loop.LoopTask`)::

        def fit(self, model, budget, hooks):
            callback = lightning_callback(hooks)
            lightning.Trainer(max_steps=budget, callbacks=[callback], ...).fit(Module(model), loader)

    Gradients may be accumulated over batches: the method sees optimiser steps. It acts before Lightning clips
    gradients. The module must have one optimiser, and leave the steps to Lightning.

    Args:
        hooks: What ``fit`` was handed.

    Returns:
        A ``lightning.pytorch.Callback`` for one call of ``Trainer.fit``.

    Raises:
        InputError: If Lightning is not installed; in ``Trainer.fit`` also if there are several optimisers.
    """
    try:
        base: Any = import_module("lightning.pytorch").Callback
    except ImportError as error:
        raise InputError(
            "lightning_callback needs the package lightning; install it (pip install lightning)"
        ) from error

    class PruningCallback(base):  # type: ignore[misc]  # the base is loaded by name
        """Shows a method every optimiser step."""

        def __init__(self) -> None:
            self._open = False  # a step has begun
            self._stepping = False  # its gradients are complete

        def on_train_start(self, trainer: Any, module: Any) -> None:
            """Say which optimiser takes the steps."""
            optimizers = trainer.optimizers
            if len(optimizers) != 1 or not module.automatic_optimization:
                raise InputError(
                    f"the method acts in the steps of one optimiser, and {type(module).__name__} has {len(optimizers)}"
                    f"{'' if module.automatic_optimization else ' and steps itself (automatic_optimization = False)'}"
                )
            hooks.begin(optimizers[0])

        def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, batch_idx: int) -> None:
            """Let the method act before the first forward pass of a step."""
            if not self._open:
                hooks.before_batch()
                self._open = True

        def on_before_optimizer_step(self, trainer: Any, module: Any, optimizer: Any) -> None:
            """Let the method act on the gradients."""
            hooks.before_step()
            self._stepping = True

        def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
            """Let the method act on the weights, where the batch has ended in a step."""
            if self._stepping:
                hooks.after_step()
                self._open = self._stepping = False

        def on_train_epoch_end(self, trainer: Any, module: Any) -> None:
            """Record the epoch, with what the module logged."""
            logged = {str(name): float(value) for name, value in trainer.callback_metrics.items()}
            hooks.epoch_end({"loss": logged["loss"]} if "loss" in logged else {})

    return PruningCallback()
