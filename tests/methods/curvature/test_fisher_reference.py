"""Factors and predicted damage against an independent implementation of curvature, ``curvlinops-for-pytorch``."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import cast

import pytest
import torch
from torch import Tensor, nn

from methods.contract.data import Batch
from methods.curvature.covariances import collect_factors
from methods.curvature.fisher import Fisher
from methods.curvature.second_moments import collect_second_moments
from tests.methods.cases import CLASSES, seeded

with warnings.catch_warnings():
    warnings.simplefilter("ignore", FutureWarning)  # a dependency of theirs compiles with torch.jit
    from curvlinops import GGNLinearOperator, KFACLinearOperator

# torch itself compiles with torch.jit for the forward-mode derivatives that the reference takes
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:FutureWarning")


def mlp() -> nn.Module:
    return nn.Sequential(
        nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 6, bias=False), nn.ReLU(inplace=True), nn.Linear(6, 4)
    )


def cnn() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(4, 3, (3, 2), stride=2, padding=(1, 0), bias=False),
        nn.Tanh(),
        nn.Flatten(),
        nn.Linear(18, CLASSES),
    )


def data(shape: tuple[int, ...], samples: int = 5) -> list[Batch]:
    """Two batches, the last one short."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn((samples, *shape), generator=generator, dtype=torch.float64)
    labels = torch.randint(CLASSES, (samples,), generator=generator)
    size = -(-samples * 3 // 5)
    return list(zip(x.split(size), labels.split(size), strict=True))


NETS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {"mlp": (mlp, (5,)), "cnn": (cnn, (2, 6, 5))}


def weights(model: nn.Module) -> dict[str, nn.Parameter]:
    """Weights of the layers that have factors, by name of layer."""
    return {
        name: cast(nn.Parameter, module.weight)
        for name, module in model.named_modules()
        if isinstance(module, nn.Conv2d | nn.Linear)
    }


def positions(model: nn.Module, x: Tensor) -> dict[str, int]:
    """Output positions of each layer."""
    found: dict[str, int] = {}
    handles = [
        module.register_forward_hook(lambda _, args, y, name=name: found.update({name: y[0, 0].numel()}))
        for name, module in model.named_modules()
    ]
    model(x)
    for handle in handles:
        handle.remove()
    return found


@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize(("fisher", "theirs"), [("exact", "type-2"), ("empirical", "empirical")])
def test_kronecker_factors_agree(net: str, fisher: Fisher, theirs: str) -> None:
    build, shape = NETS[net]
    model, batches = seeded(build).double(), data(shape)
    layers = weights(model)
    # One batch: they average over the batches they are given, we over samples.
    inputs, labels = (torch.cat(parts) for parts in zip(*batches, strict=True))
    reference = KFACLinearOperator(
        model,
        nn.CrossEntropyLoss(),
        list(layers.values()),
        [(inputs, labels)],
        fisher_type=theirs,
        kfac_approx="expand",
        check_deterministic=False,
    )
    reference.compute_kronecker_factors()
    state = reference.state_dict()
    found = collect_factors(model, batches, list(layers), fisher=fisher, full=True)
    for name, t in positions(model, inputs).items():
        if name in layers:
            # They average inputs over positions and sum gradients over them; with us it is the other way round.
            expected = t * state["input_covariances"][name], state["gradient_covariances"][name] / t
            torch.testing.assert_close(found[name].inputs[0], expected[0], rtol=1e-10, atol=1e-14)
            torch.testing.assert_close(found[name].outputs[0], expected[1], rtol=1e-10, atol=1e-16)


def quadratic(model: nn.Module, weight: nn.Parameter, batches: list[Batch], deleted: Tensor) -> float:
    """``1/2 vec(D)^T F vec(D)`` with the exact Fisher of the network for one weight."""
    operator = GGNLinearOperator(model, nn.CrossEntropyLoss(), [weight], batches, check_deterministic=False)
    return float(deleted.flatten() @ (operator @ deleted.flatten())) / 2


def make_orthogonal(size: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    q, _ = torch.linalg.qr(torch.randn(1, size, size, generator=generator, dtype=torch.float64))
    return cast(Tensor, q)


@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize("rotated", [False, True])
def test_damage_of_deleting_one_weight_in_any_basis(net: str, rotated: bool) -> None:
    build, shape = NETS[net]
    model, batches = seeded(build).double(), data(shape)
    for name, weight in weights(model).items():
        outputs, inputs = weight.shape[:2]
        q_a = make_orthogonal(inputs, 1) if rotated else torch.eye(inputs).double()[None]
        q_g = make_orthogonal(outputs, 2) if rotated else torch.eye(outputs).double()[None]
        bases = {name: (q_a, q_g)} if rotated else {}
        moments = collect_second_moments(model, batches, [name], bases, fisher="exact")[name][0]
        turned = torch.einsum("or,oid,is->rds", q_g[0], weight.detach().reshape(outputs, inputs, -1), q_a[0])
        predicted = moments * turned.square() / 2
        for r, d, s in ((0, 0, 0), (outputs - 1, turned.shape[1] - 1, inputs - 1), (1, turned.shape[1] // 2, 1)):
            entry = torch.zeros_like(turned)
            entry[r, d, s] = turned[r, d, s]
            deleted = torch.einsum("or,rds,is->oid", q_g[0], entry, q_a[0])
            assert float(predicted[r, d, s]) == pytest.approx(quadratic(model, weight, batches, deleted), rel=1e-9)


def test_damage_of_deleting_directions_where_the_factors_are_exact() -> None:
    # One sample and one position: the Fisher is the Kronecker product, so that whole rows and columns are predicted.
    model, batches = seeded(mlp).double(), data((5,), samples=1)
    layers = weights(model)
    found = collect_factors(model, batches, list(layers), fisher="exact")
    for name, weight in layers.items():
        (a, q_a), (g, q_g) = torch.linalg.eigh(found[name].inputs[0]), torch.linalg.eigh(found[name].outputs[0])
        turned = q_g.T @ weight.detach() @ q_a
        theta = g[:, None] * a * turned.square() / 2
        rows, columns = len(turned) - 1, turned.shape[1] - 1
        union = torch.zeros_like(turned)
        union[rows], union[:, columns] = turned[rows], turned[:, columns]
        damage = theta[rows].sum() + theta[:, columns].sum() - theta[rows, columns]
        assert float(damage) == pytest.approx(quadratic(model, weight, batches, q_g @ union @ q_a.T), rel=1e-9)
        assert float(damage) > 0


def test_damage_of_a_small_change_is_what_the_loss_does() -> None:
    # At labels drawn from the network itself the gradient vanishes in the mean, and the loss grows by the quadratic.
    model, batches = seeded(cnn).double(), data((2, 6, 5))
    x = torch.cat([inputs for inputs, _ in batches])
    weight = weights(model)["2"]
    before = model(x).softmax(1).detach()

    def loss() -> float:
        return float(-(before * model(x).detach().log_softmax(1)).sum(1).mean())

    change = 1e-3 * weight.detach().clone()
    start, predicted = loss(), quadratic(model, weight, batches, change)
    with torch.no_grad():
        weight.sub_(change)
    assert loss() - start == pytest.approx(predicted, rel=0.02)
