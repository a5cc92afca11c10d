"""Semantic segmentation: a fully convolutional network with an auxiliary output, and small made images.

Each image shows a disc, a square and a striped background; the network says for every pixel what it belongs to.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn
from torchvision.models._utils import IntermediateLayerGetter
from torchvision.models.resnet import BasicBlock
from torchvision.models.segmentation.fcn import FCN, FCNHead

SIDE, CLASSES, IGNORED = 32, 3, 255


def network(num_classes: int) -> nn.Module:
    """Build torchvision's fully convolutional network on a small residual body (``fcn_resnet50`` in small).

    Args:
        num_classes: Classes of a pixel.

    Returns:
        A network that returns a dict: ``out`` and ``aux``, logits ``[batch, classes, height, width]`` each.
    """
    stem = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU())
    body = OrderedDict(
        stem=stem, layer1=BasicBlock(16, 16), layer2=_make_halving_block(16, 32), layer3=_make_halving_block(32, 64)
    )
    backbone = IntermediateLayerGetter(nn.Sequential(body), {"layer2": "aux", "layer3": "out"})
    return FCN(backbone, FCNHead(64, num_classes), FCNHead(32, num_classes))


def _make_halving_block(inputs: int, outputs: int) -> BasicBlock:
    """A residual block that halves height and width."""
    shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, 2, bias=False), nn.BatchNorm2d(outputs))
    return BasicBlock(inputs, outputs, stride=2, downsample=shortcut)


def data() -> tuple[Tensor, Tensor]:
    """Draw images with their labels.

    Returns:
        Images ``[240, 3, 32, 32]`` (uint8) and labels ``[240, 32, 32]``: 0 background, 1 disc, 2 square; a frame of one
        pixel around the image does not count (255).
    """
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 90, (240, 3, SIDE, SIDE), generator=generator)
    labels = torch.zeros(240, SIDE, SIDE, dtype=torch.int64)
    rows, columns = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
    for image, label in zip(images, labels, strict=True):
        image += 40 * ((rows + columns) // 3 % 2)
        y, x, v, u = torch.randint(6, SIDE - 6, (4,), generator=generator).tolist()
        radius, half = torch.randint(4, 8, (2,), generator=generator).tolist()
        disc = (rows - y) ** 2 + (columns - x) ** 2 <= radius**2
        square = ((rows - v).abs() <= half) & ((columns - u).abs() <= half)
        for shape, channel, kind in ((disc, 0, 1), (square, 2, 2)):
            image[channel][shape] += 110
            label[shape] = kind
    labels[:, [0, -1]] = IGNORED
    labels[:, :, [0, -1]] = IGNORED
    return images.to(torch.uint8), labels
