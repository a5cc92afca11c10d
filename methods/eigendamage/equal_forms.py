"""Equal forms of the chains in a network, by name: the network that was counted and fine-tuned is one of them.

Which of them has the fewest multiply-accumulates is known before anything is built (``rotation_cost``); which is
fastest depends on the machine, and is measured where a network is timed or exported. Of a chain of three layers all
four realisations are there, of a chain of two its own and the single layer.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping

from torch import nn

from methods.eigendamage.rotation import realise, segmentations


def chains(model: nn.Module) -> dict[str, nn.Sequential]:
    """Find the chains of convolutions, or of linear layers, with nothing between them.

    Args:
        model: A network.

    Returns:
        The chains of two or three layers by name; a chain that is the whole network is left out, and one that
        has several places in it.
    """
    found: dict[str, nn.Sequential] = {}
    places: dict[int, int] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        places[id(module)] = places.get(id(module), 0) + 1
        if name and isinstance(module, nn.Sequential) and len(module) in (2, 3) and _plain(module):
            found[name] = module
    return {name: chain for name, chain in found.items() if places[id(chain)] == 1}


def forms(chain: nn.Sequential) -> dict[str, nn.Module]:
    """Build all layers and chains that compute the same.

    Args:
        chain: One of :func:`chains`.

    Returns:
        By name, such as ``"2+1"`` where the first two layers are one; the chain itself (a copy) comes first.
        Neighbours whose product is no layer of their kind are not multiplied out.
    """
    found: dict[str, nn.Module] = {}
    for segments in segmentations(len(chain)):
        try:
            found["+".join(map(str, segments))] = realise(chain, segments)
        except ValueError:
            continue  # two kernels with an extent, say
    return found


def in_form(model: nn.Module, ways: Mapping[str, str]) -> nn.Module:
    """Build a network whose chains have other forms.

    Args:
        model: A network; not changed.
        ways: Names of :func:`forms` by name of chain; other chains stay as they are.

    Returns:
        A copy that computes the same.

    Raises:
        ValueError: If something is no chain, or has no such form.
    """
    other, known = copy.deepcopy(model), chains(model)
    for name, way in ways.items():
        if name not in known:
            raise ValueError(f"{name} is no chain of layers")
        found = forms(known[name])
        if way not in found:
            raise ValueError(f"{name} has no form {way!r}; known: {', '.join(found)}")
        other.set_submodule(name, found[way].train(model.training))
    return other


def _plain(chain: nn.Sequential) -> bool:
    """Whether all layers are of one kind that can be multiplied out, and only the last one has a bias."""
    kinds = {type(layer) for layer in chain}
    if kinds not in ({nn.Conv2d}, {nn.Linear}):
        return False
    return all(layer.bias is None for layer in list(chain)[:-1])
