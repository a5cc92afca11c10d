"""Kronecker factors: second moments of what enters a layer and of the gradients at its output.

K-FAC approximates the Fisher matrix of a layer's weights ``W [O, K]``, row-major, by ``G ⊗ A_full`` with

* ``A_full = 1/B sum_b sum_t u_bt u_bt^T``, the moments of im2col columns ``u``, summed over positions ``t``;
* ``G = 1/(B T) sum_b sum_t g_bt g_bt^T``, the moments of the gradients ``g`` of per-sample losses, averaged over them.

The product has the unit of the loss per squared weight. Treating kernel offsets as uncorrelated and alike leaves
``A``, the mean of the diagonal blocks of ``A_full``, one per offset: ``G ⊗ I ⊗ A``. Biases take no part.

Roger Grosse, James Martens: "A Kronecker-factored approximate Fisher matrix for convolution layers", ICML 2016,
arXiv 1602.01407 (both factors; "spatially uncorrelated activations" lead to ``A``);
Chaoqi Wang, Roger Grosse, Sanja Fidler, Guodong Zhang: "EigenDamage", ICML 2019, arXiv 1905.05934.

``A`` is computed without im2col: pixel ``p`` is read ``n(p)`` times, so that
``A = 1/(B k^2) sum_b sum_p n(p) x_bp x_bp^T`` exactly, with any padding, stride and dilation.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from methods.contract.data import Batch
from methods.contract.task import Task
from methods.curvature.fisher import Fisher, gradients_of
from methods.curvature.im2col import read_counts
from methods.curvature.im2col_covariance import Im2colCovariance
from methods.curvature.passes import WatchedLayer, run_passes, watch_layers
from spaces import InputError


@dataclass(frozen=True)
class Factors:
    """Kronecker factors of one layer, symmetric, float64, on the device of the network.

    Attributes:
        inputs: ``A``, ``[groups, I/g, I/g]``, averaged over kernel offsets; or ``A_full``,
            ``[groups, I/g * k * k, I/g * k * k]``, in the order of ``weight.flatten(1)``. Mean over samples of sums
            over positions, squared units of the input.
        outputs: ``G``, ``[groups, O/g, O/g]``; mean over samples and positions, squared units of loss over output;
            ``[groups, 0, 0]`` if no gradients were asked for.
        samples: How many samples they were estimated from.
    """

    inputs: Tensor
    outputs: Tensor
    samples: int


def collect_factors(
    model: nn.Module,
    batches: Iterable[Batch],
    layers: Sequence[str],
    *,
    fisher: Fisher | None,
    labels: int = 1,
    generator: torch.Generator | None = None,
    full: bool = False,
    task: Task | None = None,
) -> dict[str, Factors]:
    """Estimate the Kronecker factors of convolutions and linear layers.

    Every sample weighs the same, whatever batch it came in. Positions of an image, tokens of a linear layer's input
    and the calls of a shared layer are treated alike. The model is run in eval mode and left as it was found.

    An ``InputError`` says which name is unknown, which layer has no such factors or is never called, or at which
    layer activations or gradients are not finite; a ``ValueError``, that labels are to be drawn from no generator.

    Args:
        model: The network; its output is ``[batch, ...]`` where gradients are asked for.
        batches: Inputs and targets, on the device of the network.
        layers: Names of ``nn.Conv2d`` and ``nn.Linear`` modules.
        fisher: ``"mc"`` draws targets from the network's own predictions, ``"exact"`` weighs all outcomes by
            them, ``"empirical"`` takes the targets of the data, ``None`` leaves out gradients and backward passes.
        labels: Labels drawn per input, for ``"mc"``.
        generator: Where they are drawn from.
        full: Whether ``inputs`` is the covariance of whole im2col columns.
        task: What the network is for; classification by default.

    Returns:
        Factors by name of layer.
    """
    sums = {name: FactorSums(layer, full, fisher is not None) for name, layer in watch_layers(model, layers).items()}
    if not sums:
        return {}
    gradients = None if fisher is None else gradients_of(fisher, labels, generator, task)
    seen = run_passes(model, batches, sums, gradients, task)
    factors = {name: sums[name].factors(seen.samples) for name in layers}
    # What is not finite spoils the diagonal, and it alone is worth looking at.
    require_finite("inputs", {name: _diagonal(factors[name].inputs) for name in seen.order})
    require_finite("output gradients", {name: _diagonal(factors[name].outputs) for name in reversed(seen.order)})
    return factors


def _diagonal(matrices: Tensor) -> Tensor:
    return matrices.diagonal(dim1=1, dim2=2)


def gram(vectors: Tensor) -> Tensor:
    """Sum outer products, in float32 at least.

    Args:
        vectors: ``[groups, channels, vectors]``, any strides.

    Returns:
        ``[groups, channels, channels]``.
    """
    vectors = vectors.to(torch.promote_types(vectors.dtype, torch.float32))
    if vectors.shape[1] == 1:
        return vectors.square().sum(dim=2, keepdim=True)
    if len(vectors) == 1:
        return (vectors[0] @ vectors[0].T)[None]
    return vectors @ vectors.mT


def channel_vectors(layer: WatchedLayer, x: Tensor, groups: int) -> Tensor:
    """Arrange activations or gradients as vectors over channels, one per sample and position.

    Args:
        layer: The layer that they belong to.
        x: ``[batch, channels, height, width]`` of a convolution, ``[..., channels]`` of a linear layer.
        groups: Of the convolution.

    Returns:
        ``[groups, channels / groups, vectors]``; a view where the layout allows.
    """
    if isinstance(layer, nn.Linear):
        return x.reshape(-1, x.shape[-1]).T[None]
    if x.is_contiguous(memory_format=torch.channels_last):
        rows = x.permute(0, 2, 3, 1).reshape(-1, groups, x.shape[1] // groups)
        return rows.permute(1, 2, 0)
    return x.transpose(0, 1).reshape(groups, x.shape[1] // groups, -1)


def require_finite(what: str, sums: Mapping[str, Tensor]) -> None:
    """Check sums of squares, which any value that is not finite has spoiled; waits for the device.

    Args:
        what: What was summed, for the message.
        sums: By name of layer, in the order in which the values arose.

    Raises:
        InputError: If a sum is not finite; the first such layer is named.
    """
    for name, total in sums.items():
        if not total.isfinite().all():
            raise InputError(f"the {what} of layer {name!r} are not finite (or their squares overflow)")


class ChannelCovariance:
    """Running sum of ``x x^T`` over samples and over what each kernel entry reads, averaged over kernel entries.

    In float32 at least over a batch, in float64 over batches.

    Args:
        layer: The layer.
    """

    def __init__(self, layer: WatchedLayer) -> None:
        self._layer = layer
        self._groups = groups_of(layer)
        self._sum = squares(layer, layer.weight.shape[1])
        self._roots: dict[torch.Size, Tensor] = {}

    def add(self, x: Tensor) -> None:
        """Add what enters the layer in one batch.

        Args:
            x: ``[batch, channels, height, width]`` of a convolution, ``[..., channels]`` of a linear layer.
        """
        if isinstance(self._layer, nn.Conv2d):
            x = x * self._root_counts(self._layer, x)
        self._sum += gram(channel_vectors(self._layer, x, self._groups))

    def total(self) -> Tensor:
        """Return the sum.

        Returns:
            ``[groups, I/g, I/g]``, float64, symmetric.
        """
        return symmetrise(self._sum).div_(self._layer.weight[0, 0].numel())

    def _root_counts(self, layer: nn.Conv2d, x: Tensor) -> Tensor:
        """Return square roots of how often each pixel is read, ``[height, width]``."""
        size = x.shape[2:]
        if size not in self._roots:
            # On the CPU and once per size, so that no batch waits for the device.
            roots = read_counts(layer, *size).double().sqrt()
            self._roots[size] = roots.to(x.device, torch.promote_types(x.dtype, torch.float32))
        return self._roots[size]


class FactorSums:
    """Running sums of one layer, fed by ``methods.curvature.passes``.

    Args:
        layer: The layer.
        full: Whether the covariance of whole im2col columns is wanted.
        gradients: Whether gradients will come.
    """

    def __init__(self, layer: WatchedLayer, full: bool, gradients: bool) -> None:
        self._layer = layer
        self._inputs: Im2colCovariance | ChannelCovariance = ChannelCovariance(layer)
        if full and isinstance(layer, nn.Conv2d) and layer.weight[0, 0].numel() > 1:  # else both are the same
            self._inputs = Im2colCovariance(layer)
        self._outputs = squares(layer, layer.weight.shape[0] // groups_of(layer) if gradients else 0)
        self._positions = 0

    def on_call(self, x: Tensor, y: Tensor) -> None:
        """Add the second moments of a call's input at once; nothing is kept for the backward pass.

        Args:
            x: The layer's input.
            y: The layer's output.
        """
        self._positions += y.numel() // self._layer.weight.shape[0]
        self._inputs.add(x)

    def on_gradient(self, kept: object, gradient: Tensor) -> None:
        """Add the second moments of a gradient.

        Args:
            kept: Nothing.
            gradient: At the output of one call, in one backward pass.
        """
        self._outputs += gram(channel_vectors(self._layer, gradient, groups_of(self._layer)))

    def on_pass(self) -> None:
        """Have nothing left to do after a backward pass."""

    def factors(self, samples: int) -> Factors:
        """Turn the sums into means.

        Args:
            samples: How many samples there were.

        Returns:
            The factors; gradients count as many positions as were seen going forward.
        """
        return Factors(
            inputs=self._inputs.total().div_(samples),
            outputs=symmetrise(self._outputs).div_(self._positions),
            samples=samples,
        )


def groups_of(layer: WatchedLayer) -> int:
    """Count the convolution groups of a layer.

    Args:
        layer: The layer.

    Returns:
        Its groups; 1 for a linear layer.
    """
    return layer.groups if isinstance(layer, nn.Conv2d) else 1


def squares(layer: WatchedLayer, size: int) -> Tensor:
    """Make sums that nothing has been added to.

    Args:
        layer: The layer they belong to.
        size: Rows and columns.

    Returns:
        ``[groups, size, size]``, float64, on the device of the layer.
    """
    return torch.zeros(groups_of(layer), size, size, dtype=torch.float64, device=layer.weight.device)


def symmetrise(matrices: Tensor) -> Tensor:
    """Remove what rounding made of symmetry.

    Args:
        matrices: ``[..., n, n]``.

    Returns:
        The mean of each matrix and its transpose.
    """
    return (matrices + matrices.mT) / 2
