"""RandAugment: a few random changes of position, colour and contrast, for whole batches where the data lie.

E. D. Cubuk, B. Zoph, J. Shlens, Q. V. Le, 2020, arXiv 1909.13719, by torchvision's implementation. That one makes the
same changes to all images it is handed, so a batch is handed over in small pieces.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from methods.contract.inputs import Inputs, Target, map_tensors
from search.tasks.data.splits import Augment
from spaces import InputError


class RandAugmented:
    """RandAugment with two operations of magnitude 9 of 30, torchvision's defaults.

    Args:
        piece: Images that are changed in the same way.
    """

    def __init__(self, piece: int = 8) -> None:
        self.piece = piece

    def __call__(self, inputs: Inputs, targets: Target, generator: torch.Generator) -> tuple[Inputs, Target]:
        """Change a batch.

        Args:
            inputs: Images ``[batch, 1 or 3, height, width]``, uint8 (or a tuple or dict with such tensors).
            targets: Their targets.
            generator: A CPU generator.

        Returns:
            Images and targets.
        """
        from torchvision.transforms import v2

        change = v2.RandAugment()
        seed = int(torch.randint(2**62, (), generator=generator))

        def pieces(images: Tensor) -> Tensor:
            if images.ndim != 4:
                return images
            if images.dtype != torch.uint8 or images.shape[1] not in (1, 3):
                raise InputError(
                    f"augment: randaugment changes grey or coloured images as they are stored, uint8 "
                    f"[examples, 1 or 3, height, width]; these are {str(images.dtype).removeprefix('torch.')} "
                    f"{list(images.shape)}"
                )
            return torch.cat([change(piece) for piece in images.split(self.piece)])

        with torch.random.fork_rng(devices=[]):  # torchvision draws from the global generator
            torch.manual_seed(seed)
            return map_tensors(inputs, pieces), targets

    def __repr__(self) -> str:
        return "RandAugmented()"


class InTurn:
    """Augmentations one after the other.

    Args:
        parts: The first one first.
    """

    def __init__(self, parts: Sequence[Augment]) -> None:
        self.parts = tuple(parts)

    def __call__(self, inputs: Inputs, targets: Target, generator: torch.Generator) -> tuple[Inputs, Target]:
        """Change a batch.

        Args:
            inputs: A batch.
            targets: Its targets.
            generator: A CPU generator.

        Returns:
            Inputs and targets.
        """
        for part in self.parts:
            inputs, targets = part(inputs, targets, generator)
        return inputs, targets

    def __repr__(self) -> str:
        return f"InTurn({list(self.parts)!r})"
