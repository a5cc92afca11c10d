"""All channel units of a network in one table ``[groups, widest]``: to score, to penalise, to silence them.

Methods that act in every step of training must not loop over groups. Here the groups are the rows of one
padded table, and one gather spreads a table over all tensors that belong to the units.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from methods.network.channels import ChannelGroup
from methods.network.thinning import Sliced


class Scored(Protocol):
    """Units of several layers as a padded table ``[layers, widest]``."""

    valid: Tensor
    """Which entries are units."""

    def l1(self) -> Tensor:
        """Return the L1 norm of each unit, ``[layers, widest]``."""

    def importance(self) -> Tensor:
        """Return what units are ranked by within their row, ``[layers, widest]``: L1 norms relative to their layer."""


@dataclass(frozen=True)
class Slot:
    """One tensor of the network whose slices along one dimension belong to units.

    Attributes:
        parameter: The tensor.
        dim: The dimension of channels.
        units: For each index along it, where its unit is in the flattened table, ``[size of dim]``; the
            length of the table where no unit owns the index.
    """

    parameter: nn.Parameter
    dim: int
    units: Tensor

    @property
    def broadcast(self) -> tuple[int, ...]:
        """Shape in which one number per index meets the tensor."""
        return tuple(-1 if dim == self.dim else 1 for dim in range(self.parameter.ndim))


class Units:
    """The channel units of a network as a padded table.

    Args:
        model: The network; its parameters are referred to, not copied.
        groups: Its channel groups.

    Attributes:
        valid: Which entries of the table are units, ``[groups, widest]``.
        producers: The filters: weights of convolutions and linear layers, by output channel.
        affine: What else acts on the channels: biases of producers, norms.
        consumers: Weights that read the channels, by input channel.
    """

    def __init__(self, model: nn.Module, groups: Sequence[ChannelGroup]) -> None:
        self.groups = list(groups)
        device = next(model.parameters()).device
        sizes = torch.tensor([group.channels for group in groups], device=device)
        self.valid = torch.arange(int(sizes.max()), device=device) < sizes[:, None]
        slots = self._slots(model)
        reads = self.groups[0].structure.reads if self.groups[0].structure is not None else frozenset()
        makes = [slot for name, slot in slots if (name, slot.dim) not in reads]
        self.producers = [slot for slot in makes if slot.parameter.ndim > 1]
        self.affine = [slot for slot in makes if slot.parameter.ndim == 1]
        self.consumers = [slot for name, slot in slots if (name, slot.dim) in reads]
        self._rows = self._rows_of_units()
        self._parts, self._members, self._part_sizes = self._parts_of_layers()

    def _slots(self, model: nn.Module) -> list[tuple[str, Slot]]:
        """Find the parameters that have slices of units, each dimension once, with the unit of every position."""
        structure = self.groups[0].structure
        width, none = self.valid.shape[1], self.valid.numel()
        entries = {
            unit: row * width + place for row, group in enumerate(self.groups) for place, unit in enumerate(group.units)
        }
        parameters = dict(model.named_parameters())
        found = []
        for name, dims in structure.tensors.items() if structure is not None else ():
            for dim, classes in enumerate(dims):
                if name not in parameters or classes is None:
                    continue
                roots, places = np.unique(classes, return_inverse=True)
                owned = np.array([entries.get(root, none) for root in roots.tolist()])
                if (owned < none).any():
                    units = torch.from_numpy(owned[places.reshape(-1)]).to(self.valid.device)
                    found.append((name, Slot(parameters[name], dim, units)))
        return found

    def _rows_of_units(self) -> Tensor:
        """For each entry of the table, which of all filters are its own: ``[entries, most]``, padded."""
        owners = torch.cat([slot.units for slot in self.producers]).tolist()
        rows: list[list[int]] = [[] for _ in range(self.valid.numel() + 1)]
        for row, unit in enumerate(owners):
            rows[unit].append(row)
        rows.pop()  # filters of no unit
        most = max(len(own) for own in rows)
        padded = [own + [len(owners)] * (most - len(own)) for own in rows]
        return torch.tensor(padded, device=self.valid.device)

    def _parts_of_layers(self) -> tuple[Tensor, Tensor, Tensor]:
        """Sort all filters into parts, one for each layer and group.

        Returns:
            The part of each filter, ``[filters + 1]``; the filters of each part, ``[parts, most]``, padded; and how
            many units the group of each part has, ``[parts]``. The last part holds the filters of no unit.
        """
        width, parts = self.valid.shape[1], dict[tuple[int, int], list[int]]()
        offset = 0
        for number, slot in enumerate(self.producers):
            for place, unit in enumerate(slot.units.tolist()):
                row = unit // width if unit < self.valid.numel() else -1
                parts.setdefault((number, row), []).append(offset + place)
            offset += len(slot.units)
        own = [(row, members) for (_, row), members in parts.items() if row >= 0]
        of_filters = torch.full((offset + 1,), len(own))
        for part, (_, members) in enumerate(own):
            of_filters[members] = part
        most = max(len(members) for _, members in own)
        padded = [members + [offset] * (most - len(members)) for _, members in own]
        sizes = [self.groups[row].channels for row, _ in own]
        device = self.valid.device
        return of_filters.to(device), torch.tensor(padded, device=device), torch.tensor(sizes, device=device)

    def _norms(self) -> Tensor:
        """Sum the absolute weights of each filter: ``[filters + 1]``, float32 at least; the last one is 0."""
        norms = [
            slot.parameter.detach().abs().sum([d for d in range(slot.parameter.ndim) if d != slot.dim])
            for slot in self.producers
        ]
        together = torch.cat([*norms, norms[0].new_zeros(1)])
        return together.to(torch.promote_types(together.dtype, torch.float32))

    def _group_by_unit(self, filters: Tensor) -> Tensor:
        # A gather, not a scatter: sums in the same order every time, also on a GPU.
        return filters[self._rows].sum(1).view_as(self.valid)

    def l1(self) -> Tensor:
        """Sum the absolute weights of all filters of each unit.

        Returns:
            ``[groups, widest]``; 0 where there is no unit.
        """
        return self._group_by_unit(self._norms())

    def importance(self) -> Tensor:
        """Add up the L1 norms of a unit's filters, relative to the mean of their layer (Li et al., arXiv 1608.08710).

        Where a shortcut ties layers together, each of them has an equal say, however many weights it has.

        Returns:
            ``[groups, widest]``; its mean over the units of a group is the number of layers that produce them; 0 where
            there is no unit.
        """
        norms = self._norms()
        # sum over layers l of |F_l,u|_1 / mean over units of |F_l|_1
        means = norms[self._members].sum(1) / self._part_sizes
        scales = torch.cat([means.clamp_min(torch.finfo(means.dtype).tiny).reciprocal(), means.new_zeros(1)])
        return self._group_by_unit(norms * scales[self._parts])

    def list_kept(self, removed: Tensor) -> dict[str, list[int]]:
        """List what is left of each group.

        Args:
            removed: Which units are removed, ``[groups, widest]``.

        Returns:
            Indices of the kept units, ascending, by name of group.
        """
        alive = (self.valid & ~removed).tolist()
        return {
            group.name: [unit for unit, is_kept in enumerate(row) if is_kept]
            for group, row in zip(self.groups, alive, strict=True)
        }


class Spread:
    """One number per unit, spread over the slices of many tensors; kept on the device and refreshed in place.

    Args:
        slots: The tensors.
        default: The number for slices that no unit owns.
    """

    def __init__(self, slots: Iterable[Sliced], default: float) -> None:
        self.slots = list(slots)
        self.parameters: list[Tensor] = [slot.parameter for slot in self.slots]
        self._default = default
        self._units = torch.cat([slot.units for slot in self.slots])
        dtype = self.parameters[0].dtype
        self._values = torch.full_like(self._units, default, dtype=dtype)
        parts = self._values.split([len(slot.units) for slot in self.slots])
        self.factors = [part.view(slot.broadcast) for part, slot in zip(parts, self.slots, strict=True)]

    def refresh(self, table: Tensor) -> None:
        """Take new numbers; :attr:`factors` show them at once.

        Args:
            table: One number per unit, ``[groups, widest]``.
        """
        padded = torch.nn.functional.pad(table.flatten().to(self._values.dtype), (0, 1), value=self._default)
        torch.index_select(padded, 0, self._units, out=self._values)
