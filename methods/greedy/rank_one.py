"""What a reader computes after a step of the mask: a rank-one update, because it is linear in the mask."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from methods.greedy.readers import Reader

_CONVOLUTIONS: dict[type[nn.Module], Callable[..., Tensor]] = {
    nn.Conv1d: F.conv1d,
    nn.Conv2d: F.conv2d,
    nn.Conv3d: F.conv3d,
}


class Linearised:
    """One reader as a linear function of the mask, for inputs that do not depend on it.

    Args:
        module: A convolution or linear layer.
        reader: How it reads the channels of the group.
    """

    def __init__(self, module: nn.Module, reader: Reader) -> None:
        self._module: Any = module
        self._reader = reader
        self._groups = getattr(module, "groups", 1)

    def compute_parts(self, inputs: Tensor, mask: Tensor) -> tuple[Tensor, Tensor | None]:
        """Compute what the channels of the group add to the output under a mask, and what the others do.

        Args:
            inputs: What the module reads, without a mask, ``[batch, ...]``.
            mask: ``[units]``.

        Returns:
            The two parts, ``[batch, ...]`` each, without the bias; the second one is None if there are no others.
        """
        mask = mask.to(inputs.device, inputs.dtype)
        shared = self._reader.index.numel() < self._reader.channels
        others = self._output(inputs, torch.zeros_like(mask), 1) if shared else None
        return self._output(inputs, mask, 0), others

    def run_candidates(
        self, present: tuple[Tensor, Tensor | None], inputs: Tensor, candidates: Tensor, keep: Tensor, add: Tensor
    ) -> Tensor:
        """Compute the output under ``keep mask + add e_c`` for each candidate ``c``.

        Args:
            present: What :meth:`compute_parts` gave for the mask.
            inputs: What the module reads, without a mask, ``[batch, ...]``.
            candidates: ``[candidates]``.
            keep: ``[candidates]``.
            add: ``[candidates]``.

        Returns:
            ``[candidates * batch, ...]``, the batch for one candidate in a row.
        """
        parts = self.contributions(inputs, self._reader.index[candidates.cpu()].to(inputs.device))
        shape = (-1, *[1] * (parts.ndim - 1))
        keep, add = (tensor.to(inputs.device, inputs.dtype).view(shape) for tensor in (keep, add))
        own, others = present
        parts.mul_(add).addcmul_(keep, own)
        if others is not None:
            parts += others
        if self._module.bias is not None:
            behind = 0 if isinstance(self._module, nn.Linear) else parts.ndim - 3
            parts += self._module.bias.view(-1, *[1] * behind)
        return parts.flatten(0, 1)

    def contributions(self, inputs: Tensor, channels: Tensor) -> Tensor:
        """Compute what some units add to the output, each read once.

        Args:
            inputs: What the module reads, ``[batch, ...]``.
            channels: Input channels of each unit, ``[candidates, multiplicity]``, ascending in each row.

        Returns:
            ``[candidates, batch, ...]``, without the bias.
        """
        weight = self._module.weight
        count, multiplicity = channels.shape
        # A grouped convolution reads the same positions in each of its groups.
        positions = channels[:, : multiplicity // self._groups] % weight.shape[1]
        own = weight[:, positions].movedim(1, 0)  # [candidates, O, multiplicity / groups, ...]
        if isinstance(self._module, nn.Linear):
            return torch.einsum("b...cm,com->cb...o", inputs[..., channels], own)
        read = inputs[:, channels.flatten()]
        parts = self._convolve(read, own.flatten(0, 1), count * self._groups)
        return parts.reshape(len(parts), count, -1, *parts.shape[2:]).transpose(0, 1).contiguous()

    def _output(self, inputs: Tensor, mask: Tensor, others: float) -> Tensor:
        """Return the output under a mask, without the bias; channels of other groups are read ``others`` times."""
        read = self._reader.mask_inputs(inputs[None], self._reader.factors(mask[None], others))
        if isinstance(self._module, nn.Linear):
            return F.linear(read, self._module.weight)
        return self._convolve(read, self._module.weight, self._groups)

    def _convolve(self, inputs: Tensor, weight: Tensor, groups: int) -> Tensor:
        module, padding = self._module, self._module.padding
        if module.padding_mode != "zeros":
            inputs = F.pad(inputs, module._reversed_padding_repeated_twice, mode=module.padding_mode)
            padding = 0
        convolution = _CONVOLUTIONS[type(module)]
        return convolution(inputs, weight, None, module.stride, padding, module.dilation, groups)
