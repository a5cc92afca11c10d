"""Group dual averaging: an optimiser that never shrinks what it remembers, only what it shows.

The optimiser keeps plain SGD's running sum ``v`` and shows the network ``w``, the group soft threshold of ``v``;
the gradient is taken at ``w``. Over channel units ``g`` with sizes ``kappa_g``, in step ``n``::

    (1)  v_n = v_{n-1} - lr_n grad f(w_{n-1}),  v_0 = w_0
    (2)  G_n = G_{n-1} + c lr_n^{mu + 1/2} (n^mu - (n-1)^mu),  G_0 = 0
    (3)  w_n[g] = max(0, 1 - kappa_g G_n / |v_n[g]|) v_n[g],   w_n = v_n outside all units

With one weight per unit and ``kappa = 1`` this is generalised regularised dual averaging (Chao, Cheng: "A
generalization of regularized dual averaging and its dynamics", 2019, arXiv 1909.10072); the incremental form of
(2) is theirs too and is what keeps the threshold from falling when the learning rate does. A gradient step on
the shrunk weights would shrink them again and again, until the loss pushes back as hard as the penalty. Here
only the growth of the threshold pushes, and that dies out because ``mu < 1``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from methods.network.units import Slot, Spread

KappaMode = Literal["init_norm", "sqrt_size", "one"]

FLOOR = 0.05
"""What is left at least of a unit that may not become zero."""


def threshold_increment(lr: float, n: int, mu: float) -> float:
    """Return how much the threshold grows in a step, for ``c = 1`` (equation 2).

    Args:
        lr: Learning rate of the step.
        n: Number of the step, from 1.
        mu: Exponent of the growth; between 1/2 and 1 the threshold outgrows the noise of SGD, and its own
            growth dies out.

    Returns:
        The increment; with a constant learning rate the increments up to ``n`` add up to ``lr^(mu+1/2) n^mu``.
    """
    return float(lr ** (mu + 0.5) * (n**mu - (n - 1) ** mu))


def shrinkage(norms: Tensor, thresholds: Tensor | float) -> Tensor:
    """Return the factors of the group soft threshold (equation 3).

    Args:
        norms: Norm of each group, any shape.
        thresholds: Threshold of each group.

    Returns:
        ``max(0, 1 - threshold / norm)``: 0 for groups within the threshold, 1 where the threshold is 0; never
        NaN, also not for a group of zeros.
    """
    # A quotient of equal numbers need not be 1: it may be computed as a product with a reciprocal.
    return (1 - thresholds / norms.clamp_min(torch.finfo(norms.dtype).tiny)).masked_fill(norms <= thresholds, 0.0)


def soft_threshold(values: list[Tensor], thresholds: list[float] | list[Tensor]) -> list[Tensor]:
    """Shrink every number by itself (equation 3 for groups of one).

    Args:
        values: Tensors of any shapes.
        thresholds: What is taken from the size of each number, by tensor: numbers, or tensors without dimensions.

    Returns:
        ``sign(v) max(0, |v| - threshold)``.
    """
    shrunk = torch._foreach_abs(values)
    torch._foreach_sub_(shrunk, thresholds)
    torch._foreach_clamp_min_(shrunk, 0.0)
    signs: Sequence[Tensor] = torch._foreach_sign(values)
    torch._foreach_mul_(shrunk, list(signs))
    return list(shrunk)


def kappas(norms: Tensor, sizes: Tensor, valid: Tensor, mode: KappaMode) -> Tensor:
    """Return what the threshold of each unit is proportional to.

    Whatever the mode, the scale is such that a threshold of 1 takes half of the units of the network as it is.

    Args:
        norms: Norm of each unit, ``[groups, widest]``.
        sizes: Number of weights of each unit, ``[groups, widest]``.
        valid: Which entries are units.
        mode: ``"init_norm"`` compares a unit with the median norm of its group, so that every layer begins to
            lose units at the same threshold; ``"sqrt_size"`` compares root mean squares over the whole network
            (the noise in a norm grows with the root of the size, too); ``"one"`` compares bare norms.

    Returns:
        ``kappa``, ``[groups, widest]``, positive.
    """
    if mode == "init_norm":
        own = norms.masked_fill(~valid, torch.nan)
        median = own.nanmedian(dim=1, keepdim=True).values
        usual = torch.where(median > 0, median, own.nanmean(dim=1, keepdim=True))
        return torch.where(usual > 0, usual, 1.0).expand_as(norms).clone()
    sizes = sizes.clamp_min(1).to(norms.dtype).sqrt() if mode == "sqrt_size" else torch.ones_like(norms)
    scale = (norms / sizes)[valid].median()
    return sizes * torch.where(scale > 0, scale, 1.0)


def adaptive_weights(norms: Tensor, valid: Tensor, exponent: float) -> Tensor:
    """Return how much sooner small units of a group are to vanish than by their norms alone.

    The norms of a trained layer hardly differ, and a soft threshold that takes the smaller half leaves little of the
    larger one. Weights that fall with the norm keep the order and spread the thresholds at which units vanish.

    Args:
        norms: Norm of each unit, ``[groups, widest]``.
        valid: Which entries are units.
        exponent: ``a``; 0 changes nothing.

    Returns:
        ``(median of the group / norm)^a``, ``[groups, widest]``, between ``0.01^a`` and ``100^a`` (H. Zou, "The
        Adaptive Lasso and Its Oracle Properties", JASA 2006, section 3).
    """
    median = norms.masked_fill(~valid, torch.nan).nanmedian(dim=1, keepdim=True).values
    relative = torch.where(median > 0, norms / median, 1.0).clamp(0.01, 100.0)
    return relative.pow(-exponent)


class UnitNorms:
    """Norms of all units in one table.

    Args:
        slots: The tensors whose slices make up the units.
        shape: Shape of the table, ``(groups, widest)``.
    """

    def __init__(self, slots: Sequence[Slot], shape: torch.Size) -> None:
        self.slots = list(slots)
        self.shape = shape
        # For each entry of the table, which of all slices are its own, padded with the index of a zero.
        # A gather, not a scatter: sums in the same order every time, also on a GPU.
        owners = torch.cat([slot.units for slot in self.slots]).tolist()
        rows: list[list[int]] = [[] for _ in range(shape.numel() + 1)]
        for row, unit in enumerate(owners):
            rows[unit].append(row)
        rows.pop()  # slices of no unit
        most = max(1, *(len(own) for own in rows))
        padded = [own + [len(owners)] * (most - len(own)) for own in rows]
        self._rows = torch.tensor(padded, device=self.slots[0].parameter.device)

    def sum_squares(self, values: Sequence[Tensor]) -> Tensor:
        """Add up squares by unit.

        Args:
            values: One tensor for each slot, shaped like its parameter.

        Returns:
            Squared norm of each unit, ``[groups, widest]``; 0 where there is no unit.
        """
        norms = [_slice_norms(value, slot.dim) for value, slot in zip(values, self.slots, strict=True)]
        return self._gather(torch.cat(norms).square())

    def sizes(self) -> Tensor:
        """Count the weights of each unit.

        Returns:
            ``[groups, widest]``, as floating-point numbers; 0 where there is no unit.
        """
        counts = [
            torch.full_like(slot.units, slot.parameter.numel() // max(1, len(slot.units)), dtype=torch.double)
            for slot in self.slots
        ]
        return self._gather(torch.cat(counts))

    def _gather(self, slices: Tensor) -> Tensor:
        return torch.cat([slices, slices.new_zeros(1)])[self._rows].sum(1).view(self.shape)


def _slice_norms(value: Tensor, dim: int) -> Tensor:
    """Norm of each slice along one dimension."""
    if value.ndim == 1:
        return value
    norms: Tensor = torch.linalg.vector_norm(value, dim=[d for d in range(value.ndim) if d != dim])
    return norms


class GroupDualAveraging(torch.optim.Optimizer):
    """Equations (1) to (3) for a whole network.

    All that changes is in the state dictionary: ``v`` of every parameter, and in the one parameter group ``n``,
    ``threshold`` (``G``), ``scale`` (``c``), ``kappa``, ``factors`` (what (3) leaves of each unit), ``hold``, and
    ``level``, the median of the groups' own thresholds where these rule in place of ``G`` (0 where ``G`` does).

    Args:
        parameters: All parameters of the network.
        slots: The tensors whose slices make up the units.
        kappa: Weight of each unit's penalty, ``[groups, widest]``, positive.
        valid: Which entries of the table are units.
        lr: Learning rate.
        mu: Exponent of the growth of the threshold.
        scale: ``c``; 0 is plain SGD.
        momentum: Momentum of the gradients in (1); not part of the published recursion.
        prox_every: Equation (3) is evaluated every so many steps; in between the factors stay as they are.
        min_keep: How many units may not vanish, by group (``[groups]``) or for all: those with the largest
            ``|v| / kappa``.
        sticky: Whether a unit that vanished stays away: what reads it (``consumers``) is made blind to it.
        consumers: Weights that read the units, by input channel.
        elementwise: Parameters whose numbers are shrunk one by one, each with its ``kappa``.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        slots: Sequence[Slot],
        kappa: Tensor,
        valid: Tensor,
        *,
        lr: float,
        mu: float,
        scale: float = 0.0,
        momentum: float = 0.0,
        prox_every: int = 1,
        min_keep: Sequence[int] | int = 0,
        sticky: bool = False,
        consumers: Sequence[Slot] = (),
        elementwise: Sequence[tuple[nn.Parameter, float]] = (),
    ) -> None:
        constants = {"mu": mu, "momentum": momentum, "prox_every": prox_every, "sticky": sticky}
        changing = {"lr": lr, "scale": scale, "n": 0, "threshold": 0.0, "hold": False}
        tables = {"kappa": kappa, "factors": valid.to(kappa.dtype), "level": kappa.new_zeros(())}
        super().__init__(parameters, constants | changing | tables)
        self.norms = UnitNorms(slots, valid.shape)
        self.valid = valid
        least = [min_keep] * len(valid) if isinstance(min_keep, int) else list(min_keep)
        self.least = torch.tensor(least, device=valid.device)[:, None] if any(least) else None
        """How many units of each group may not vanish, ``[groups, 1]``; None if all may."""
        self.dead_squared = torch.zeros_like(kappa)
        """Squared norm of what was cut out of each unit's ``v`` in the middle of training."""
        self.levels: Callable[[Tensor], Tensor] | None = None
        """Thresholds by group, ``[groups, 1]``, of the :meth:`ratios`, in place of ``threshold``. A unit that vanished
        may then come back, ``sticky`` or not. Not part of the state: its user sets it before every step."""
        self._shown = Spread(slots, default=1.0)
        self._seen = Spread(consumers, default=1.0) if sticky and consumers else None
        self._elementwise: list[Tensor] = [parameter for parameter, _ in elementwise]
        self.element_kappas = [size for _, size in elementwise]
        self._spread()

    @property
    def threshold(self) -> float:
        """``G``, in units of ``kappa``."""
        return float(self.param_groups[0]["threshold"])

    @property
    def kappa(self) -> Tensor:
        """Weight of each unit's penalty, ``[groups, widest]``."""
        kappa: Tensor = self.param_groups[0]["kappa"]
        return kappa

    @property
    def factors(self) -> Tensor:
        """What (3) leaves of each unit, ``[groups, widest]``; 0 for units that vanished."""
        factors: Tensor = self.param_groups[0]["factors"]
        return factors

    @property
    def alive(self) -> Tensor:
        """Which units are not zero, ``[groups, widest]``."""
        return self.factors > 0

    @torch.no_grad()
    def ratios(self) -> Tensor:
        """Return the threshold at which each unit would vanish now.

        Returns:
            ``|v| / kappa``, ``[groups, widest]``.
        """
        return self.compute_squared_norms().sqrt() / self.kappa

    @torch.no_grad()
    def compute_squared_norms(self) -> Tensor:
        """Return the squared norm of each unit's ``v``.

        Returns:
            ``[groups, widest]``.
        """
        return self.norms.sum_squares([self.dual(slot.parameter) for slot in self.norms.slots]) + self.dead_squared

    def set_factors(self, factors: Tensor) -> None:
        """Set what is left of each unit until (3) is evaluated again.

        Args:
            factors: ``[groups, widest]``; 0 for units that vanished.
        """
        self.param_groups[0]["factors"] = factors
        self._spread()

    def dual(self, parameter: Tensor) -> Tensor:
        """Return ``v`` of a parameter; ``v_0`` is the parameter itself.

        Args:
            parameter: One of the network.

        Returns:
            ``v``, of the parameter's shape; not a copy.
        """
        state = self.state[parameter]
        if "dual" not in state:
            state["dual"] = parameter.detach().clone()
        dual: Tensor = state["dual"]
        return dual

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from a state.

        Args:
            state_dict: What ``state_dict`` returned.
        """
        super().load_state_dict(state_dict)
        self._spread()

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Take one step.

        Args:
            closure: Must be None; there is no line search.

        Raises:
            ValueError: If there is a closure.
        """
        if closure is not None:
            raise ValueError("group dual averaging takes no closure")
        group = self.param_groups[0]
        moved = [parameter for parameter in group["params"] if parameter.grad is not None]
        duals = [self.dual(parameter) for parameter in moved]
        if self._seen is not None:  # what a weight remembers of an input that is gone stays as it is
            self._silence_inputs([parameter.grad for parameter in self._seen.parameters])
        torch._foreach_add_(duals, self._directions(moved, group["momentum"]), alpha=-group["lr"])  # (1)
        group["n"] += 1
        group["threshold"] += group["scale"] * threshold_increment(group["lr"], group["n"], group["mu"])  # (2)
        if group["n"] % group["prox_every"] == 0:
            self._shrink()
        self._show()

    @torch.no_grad()
    def settle(self, threshold: float, alive: Tensor) -> None:
        """Set the threshold, and which units live; from now on none vanishes and none comes back.

        Args:
            threshold: ``G``; it stops growing.
            alive: Which units are not zero, ``[groups, widest]``.
        """
        group = self.param_groups[0]
        group["threshold"], group["scale"], group["hold"] = threshold, 0.0, True
        group["factors"] = (alive & self.valid).to(self.kappa.dtype)
        self._shrink()
        self._show()

    def _directions(self, moved: Sequence[nn.Parameter], momentum: float) -> list[Tensor]:
        """Gradients, or their running sums with momentum."""
        gradients = [parameter.grad for parameter in moved if parameter.grad is not None]
        if momentum == 0:
            return gradients
        for parameter in moved:
            if "momentum" not in self.state[parameter]:
                self.state[parameter]["momentum"] = torch.zeros_like(parameter)
        sums = [self.state[parameter]["momentum"] for parameter in moved]
        torch._foreach_mul_(sums, momentum)
        torch._foreach_add_(sums, gradients)
        return sums

    def _shrink(self) -> None:
        """Find what is left of each unit (equation 3), and who may not vanish."""
        group = self.param_groups[0]
        ratios = self.ratios()
        threshold = group["threshold"] if self.levels is None else self.levels(ratios)
        # Numbers that are shrunk one by one are in no group: theirs is the usual one of the groups.
        group["level"] = self.kappa.new_zeros(()) if self.levels is None else threshold.median().to(self.kappa)
        factors = shrinkage(ratios, threshold)  # kappa G / |v| = G / (|v| / kappa)
        candidates = self.alive if group["hold"] or (group["sticky"] and self.levels is None) else self.valid
        if group["hold"]:
            factors = factors.clamp_min(FLOOR)
        elif self.least is not None:
            spared = find_largest(ratios.masked_fill(~candidates, -1.0), self.least)
            factors = torch.where(spared, factors.clamp_min(FLOOR), factors)
        self.set_factors(factors.masked_fill(~candidates, 0.0))

    def _spread(self) -> None:
        """Bring the factors to the slices of the tensors."""
        self._shown.refresh(self.factors)
        if self._seen is not None:
            self._seen.refresh(self.alive)

    def _show(self) -> None:
        """Write the shrunk weights into the network."""
        parameters = self.param_groups[0]["params"]
        torch._foreach_copy_(parameters, [self.dual(parameter) for parameter in parameters])
        torch._foreach_mul_(self._shown.parameters, self._shown.factors)
        if self._elementwise:
            usual = self.threshold + self.param_groups[0]["level"]  # one of them is 0
            thresholds = [size * usual for size in self.element_kappas]
            torch._foreach_copy_(self._elementwise, soft_threshold(self._elementwise, thresholds))
        if self._seen is not None:
            self._silence_inputs(self._seen.parameters)

    def _silence_inputs(self, tensors: Sequence[Tensor | None]) -> None:
        """Silence the inputs that come from units that vanished, in weights or gradients."""
        assert self._seen is not None
        both = [(t, seen) for t, seen in zip(tensors, self._seen.factors, strict=True) if t is not None]
        if both:
            torch._foreach_mul_([tensor for tensor, _ in both], [seen for _, seen in both])


def find_largest(table: Tensor, counts: Tensor) -> Tensor:
    """Find the largest entries of each row.

    Args:
        table: ``[rows, columns]``.
        counts: How many of each row, ``[rows, 1]``; more than there are stands for all of them.

    Returns:
        A mask; equal entries at the edge are all taken.
    """
    falling = table.sort(dim=1, descending=True).values
    least = falling.gather(1, (counts - 1).clamp(0, table.shape[1] - 1))
    return (table >= least) & (counts > 0)
