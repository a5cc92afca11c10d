"""LeNet-300-100, the fully connected network of LeCun, Bottou, Bengio, Haffner (1998, section III.C.3).

The pruning literature's network for MNIST since Han et al. (2015, arXiv 1506.02626): two hidden layers of 300 and 100
units, here with ReLU as there; 266,610 parameters at 28 px.
"""

from __future__ import annotations

from torch import Tensor, nn

from search.tasks.models.initialise import initialise_he_normal, seed_defaults

PIXELS = 28 * 28


class LeNet300(nn.Module):
    """Three linear layers.

    Args:
        classes: Number of classes.
        channels: Channels of the images, which have 28 x 28 pixels.
    """

    def __init__(self, classes: int, channels: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(channels * PIXELS, 300)
        self.fc2 = nn.Linear(300, 100)
        self.fc3 = nn.Linear(100, classes)
        self.relu = nn.ReLU()
        initialise_he_normal(self)

    def forward(self, x: Tensor) -> Tensor:
        """Classify.

        Args:
            x: Images ``[batch, channels, 28, 28]``.

        Returns:
            Logits ``[batch, classes]``.
        """
        hidden = self.relu(self.fc1(x.flatten(1)))
        return self.fc3(self.relu(self.fc2(hidden)))  # type: ignore[no-any-return]


def lenet_300_100(classes: int, channels: int = 1, seed: int = 0) -> LeNet300:
    """Build LeNet-300-100: 266,610 parameters and 0.27 M multiply–accumulates for one channel and ten classes.

    Args:
        classes: Number of classes.
        channels: Channels of the images.
        seed: Decides the initial weights.

    Returns:
        The network.
    """
    with seed_defaults(seed):
        return LeNet300(classes, channels)
