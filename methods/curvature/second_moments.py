"""Second moments of per-sample gradients in a Kronecker-factored eigenbasis: the eigenvalues of EK-FAC.

With the orthogonal bases ``Q_G`` and ``Q_A`` of a layer, and ``dW_b`` the gradient of the loss of sample ``b``,

    S[r, d, s] = mean over b of (sum over o, i of Q_G[o, r] dW_b[o, i, d] Q_A[i, s])^2

is the exact diagonal of the Fisher in the rotated coordinates. With identity bases it is the Fisher's diagonal itself.

Thomas George, César Laurent, Xavier Bouthillier, Nicolas Ballas, Pascal Vincent: "Fast Approximate Natural Gradient
Descent in a Kronecker-factored Eigenbasis", NeurIPS 2018, arXiv 1806.03884.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import prod

import torch
from torch import Tensor, nn

from methods.contract.data import Batch
from methods.contract.task import Task
from methods.curvature.covariances import require_finite
from methods.curvature.fisher import Fisher, gradients_of
from methods.curvature.im2col import windows
from methods.curvature.passes import WatchedLayer, run_passes, watch_layers
from spaces import InputError

CHUNK_BYTES = 4 * 2**20
"""Memory of the per-sample gradients that are squared together: about what stays in a processor's cache."""

Bases = tuple[Tensor, Tensor]
"""``Q_A [groups, I/g, I/g]`` and ``Q_G [groups, O/g, O/g]``, eigenvectors in columns."""

_Call = tuple[Tensor, Tensor]
"""Rotated input and rotated gradient of one call of a layer."""


def collect_second_moments(
    model: nn.Module,
    batches: Iterable[Batch],
    layers: Sequence[str],
    bases: Mapping[str, Bases],
    *,
    fisher: Fisher,
    labels: int = 1,
    generator: torch.Generator | None = None,
    task: Task | None = None,
) -> dict[str, Tensor]:
    """Estimate the diagonal of the Fisher in rotated coordinates.

    The calls of a shared layer, positions and tokens are summed before squaring, as they are in the gradient. The
    model is run in eval mode and left as it was found. Errors are those of
    :func:`methods.curvature.covariances.collect_factors`.

    Args:
        model: The network. The first dimension of what enters a layer is the
            batch.
        batches: Inputs and targets, on the device of the network.
        layers: Names of ``nn.Conv2d`` and ``nn.Linear`` modules.
        bases: Rotations by name of layer; layers without one are not rotated.
        fisher: ``"mc"`` draws targets from the network's own predictions, ``"exact"`` weighs all outcomes by
            them, ``"empirical"`` takes the targets of the data.
        labels: Labels drawn per input, for ``"mc"``.
        generator: Where they are drawn from.
        task: What the network is for; classification by default.

    Returns:
        ``S`` by name of layer, ``[groups, O/g, k * k, I/g]`` (of a linear layer ``[1, O, 1, I]``), float64, on the
        device of the network, squared units of loss over rotated weight.
    """
    sums = {name: _Squares(name, layer, bases.get(name)) for name, layer in watch_layers(model, layers).items()}
    if not sums:
        return {}
    seen = run_passes(model, batches, sums, gradients_of(fisher, labels, generator, task), task)
    # Spoiled gradients spoil all layers before the one where they arise.
    require_finite("inputs", {name: sums[name].read for name in seen.order})
    require_finite("output gradients", {name: sums[name].written for name in reversed(seen.order)})
    require_finite("per-sample gradients", {name: sums[name].squares for name in seen.order})
    return {name: watcher.squares / seen.samples for name, watcher in sums.items()}


def rotate_channels(x: Tensor, basis: Tensor) -> Tensor:
    """Rotate channels, group by group.

    Args:
        x: ``[batch, channels, positions]``.
        basis: ``[groups, c, c]``, new coordinates in columns.

    Returns:
        ``[batch, channels, positions]``.
    """
    batch, channels, positions = x.shape
    groups = len(basis)
    return (basis.mT @ x.reshape(batch, groups, channels // groups, positions)).reshape(batch, channels, positions)


def square_gradients(layer: WatchedLayer, calls: Sequence[_Call]) -> Tensor:
    """Sum the squares of per-sample weight gradients over a batch.

    Args:
        layer: The layer.
        calls: What entered it and the gradients at its output, for each of its calls, channels in the second
            dimension: ``[batch, channels, height, width]`` or, of a linear layer, ``[batch, channels, tokens]``.

    Returns:
        ``[groups, O/g, k * k, I/g]``.
    """
    groups = layer.groups if isinstance(layer, nn.Conv2d) else 1
    gradients = _join_calls([_split_groups(gradient, groups) for _, gradient in calls])
    squares = []
    for parts in zip(*(_read(layer, x) for x, _ in calls), strict=True):  # one kernel entry after the other
        squares.append(_sum_squares(gradients, _join_calls([_split_groups(part, groups) for part in parts])))
    return torch.stack(squares, dim=2)


def _join_calls(parts: Sequence[Tensor]) -> Tensor:
    """Put the positions of all calls in a row; a single call is not copied."""
    return parts[0] if len(parts) == 1 else torch.cat(list(parts), dim=3)


def _sum_squares(gradients: Tensor, inputs: Tensor) -> Tensor:
    """Square and sum ``gradient @ input^T`` of each sample: ``[groups, O/g, I/g]``."""
    if gradients.shape[3] == 1:  # squares of products are products of squares
        rows = gradients.squeeze(3).square().permute(1, 2, 0)
        return rows @ inputs.squeeze(3).square().transpose(0, 1)
    total = gradients.new_zeros(*gradients.shape[1:3], inputs.shape[2])
    one = prod(total.shape) * total.dtype.itemsize
    for g, x in zip(*(side.split(max(1, CHUNK_BYTES // one)) for side in (gradients, inputs)), strict=True):
        total += (g @ x.mT).square_().sum(dim=0)
    return total


def _split_groups(x: Tensor, groups: int) -> Tensor:
    """Return ``[batch, groups, channels / groups, positions]``."""
    return x.reshape(len(x), groups, x.shape[1] // groups, -1)


def _read(layer: WatchedLayer, x: Tensor) -> Iterator[Tensor]:
    """Yield what each entry of the kernel reads, ``[batch, channels, ...]``; copied when looked at, not all at once."""
    if isinstance(layer, nn.Linear):
        yield x
        return
    view = windows(layer, x)
    for row in range(view.shape[2]):
        for column in range(view.shape[3]):
            yield view[:, :, row, column]


class _Squares:
    """Running sum of one layer: in float32 at least over a batch, in float64 over batches."""

    def __init__(self, name: str, layer: WatchedLayer, bases: Bases | None) -> None:
        groups = layer.groups if isinstance(layer, nn.Conv2d) else 1
        written, read = layer.weight.shape[0] // groups, layer.weight.shape[1]
        shape = (groups, written, layer.weight[0, 0].numel(), read)
        self._layer = layer
        self._bases = None
        if bases is not None:
            expected = (groups, read, read), (groups, written, written)
            if tuple(tuple(basis.shape) for basis in bases) != expected:
                given = [list(basis.shape) for basis in bases]
                raise InputError(f"bases of layer {name!r} have shapes {given}, not {[list(e) for e in expected]}")
            dtype = torch.promote_types(layer.weight.dtype, torch.float32)
            self._bases = (bases[0].to(layer.weight.device, dtype), bases[1].to(layer.weight.device, dtype))
        self._calls: list[_Call] = []
        # Sums of all that was seen: what is not finite shows in them.
        self.read, self.written = torch.zeros(2, dtype=torch.float64, device=layer.weight.device).unbind()
        self.squares = torch.zeros(shape, dtype=torch.float64, device=layer.weight.device)

    def on_call(self, x: Tensor, y: Tensor) -> Tensor:
        self.read += x.sum(dtype=torch.float64)
        # A copy even where nothing is rotated: what comes later may change the input in place.
        return self._rotate(x, 0)

    def on_gradient(self, kept: Tensor, gradient: Tensor) -> None:
        self.written += gradient.sum(dtype=torch.float64)
        self._calls.append((kept, self._rotate(gradient, 1)))

    def on_pass(self) -> None:
        if self._calls:
            self.squares += square_gradients(self._layer, self._calls)
        self._calls.clear()

    def _rotate(self, x: Tensor, side: int) -> Tensor:
        """Bring channels into the second dimension, and into the basis."""
        if isinstance(self._layer, nn.Linear):
            x = x.reshape(len(x), -1, x.shape[-1]).mT
        x = x.to(torch.promote_types(x.dtype, torch.float32))
        if self._bases is None:
            return x.clone()
        return rotate_channels(x.flatten(2), self._bases[side]).reshape(x.shape)
