"""Mixed examples: two inputs in one, and the loss shared out between their targets.

mixup: H. Zhang, M. Cisse, Y. N. Dauphin, D. Lopez-Paz, ICLR 2018, arXiv 1710.09412. CutMix: S. Yun and others, ICCV
2019, arXiv 1905.04899.
"""

from __future__ import annotations

from random import Random

import torch
from torch import Tensor


def mix_inputs(inputs: Tensor, mixup: float, cutmix: float, seed: int) -> tuple[Tensor, Tensor, float]:
    """Mix every example of a batch with another one; nothing waits for the device.

    Args:
        inputs: ``[batch, ...]``; for CutMix images, ``[batch, channels, height, width]``.
        mixup: ``a`` of ``Beta(a, a)``, from which the share is drawn; 0 for none.
        cutmix: The same for rectangles; with both, a coin says which is done.
        seed: Decides everything.

    Returns:
        The mixed inputs; which example each was mixed with, ``[batch]``; and the share of its own target.
    """
    rng = Random(seed)
    order = torch.randperm(len(inputs), generator=torch.Generator().manual_seed(rng.getrandbits(62)))
    order = order.to(inputs.device, non_blocking=True)
    cuts = cutmix > 0 and inputs.ndim == 4 and (mixup == 0 or rng.random() < 0.5)
    share = rng.betavariate(cutmix, cutmix) if cuts else rng.betavariate(mixup, mixup) if mixup > 0 else 1.0
    if not cuts:
        return inputs.lerp(inputs[order], 1 - share), order, share
    height, width = inputs.shape[2:]
    side = (1 - share) ** 0.5
    rows, columns = round(height * side), round(width * side)
    top, left = rng.randint(0, height - rows), rng.randint(0, width - columns)
    mixed = inputs.clone()
    box = (slice(None), slice(None), slice(top, top + rows), slice(left, left + columns))
    mixed[box] = inputs[order][box]
    return mixed, order, 1 - rows * columns / (height * width)
