"""What the passes over a network leave behind, which labels they draw, and what they say of errors."""

from __future__ import annotations

import copy
import subprocess
import sys
from collections.abc import Iterator, Sequence
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from methods.contract.classification import draw_labels
from methods.contract.data import Batch
from methods.curvature.covariances import collect_factors
from methods.curvature.finite import origin
from methods.curvature.passes import keep_full_precision
from methods.curvature.second_moments import collect_second_moments
from spaces import InputError
from tests.methods.cases import CLASSES, IMAGE, NETS, seeded
from tests.methods.fisher_cases import classes, generator, make_orthogonal, mlp, random

# Labels


def test_drawn_labels_follow_the_softmax() -> None:
    p = torch.tensor([0.5, 0.0, 0.2, 0.3])
    drawn = draw_labels(p.expand(20000, 4), generator())
    assert drawn.bincount(minlength=4)[1] == 0
    torch.testing.assert_close(drawn.bincount(minlength=4) / 20000, p, atol=0.015, rtol=0)
    certain = torch.eye(3).repeat(50, 1)
    assert torch.equal(draw_labels(certain, generator()), certain.argmax(1))


def test_empirical_takes_the_labels_of_the_data() -> None:
    model, x, labels = mlp(), random(4, 5), classes(4)
    found = collect_factors(model, [(x, labels)], ["2"], fisher="empirical")["2"].outputs[0]
    g = model(x).softmax(1) - F.one_hot(labels, CLASSES)
    torch.testing.assert_close(found, (g.T @ g / 4).detach(), rtol=1e-12, atol=0)


def test_same_generator_same_factors_and_no_global_randomness() -> None:
    model, x, labels = mlp(), random(8, 5), classes(8)
    state = torch.get_rng_state()
    first, second, third = (
        collect_factors(model, [(x, labels)], ["0"], fisher="mc", labels=2, generator=generator(seed))["0"].outputs
        for seed in (0, 0, 1)
    )
    assert torch.equal(first, second) and not torch.equal(first, third)
    assert torch.equal(state, torch.get_rng_state())


# The network is left as it was


def test_the_network_is_left_exactly_as_it_was() -> None:
    model = seeded(NETS["projection"], trained=True)
    model.train()
    model[1].eval()  # type: ignore[index]
    first = next(model.parameters())
    first.grad = torch.ones_like(first)
    list(model.parameters())[-1].requires_grad_(False)
    before = copy.deepcopy(model)
    x, labels = random(4, *IMAGE, dtype=torch.float32), classes(4)
    names = [name for name, module in model.named_modules() if isinstance(module, nn.Conv2d)]
    with torch.no_grad():  # asked for in any mode
        collect_factors(model, [(x, labels)], names, fisher="exact", full=True)
        collect_second_moments(model, [(x, labels)], names, {}, fisher="exact")
        assert not torch.is_grad_enabled()
    for one, other in zip(model.modules(), before.modules(), strict=True):
        assert one.training == other.training
        assert not one._forward_hooks and not one._forward_pre_hooks and not one._backward_hooks
    assert all(
        torch.equal(a, b) for a, b in zip(model.state_dict().values(), before.state_dict().values(), strict=True)
    )
    for p, q in zip(model.parameters(), before.parameters(), strict=True):
        assert p.requires_grad == q.requires_grad
        assert p is not first and p.grad is None or p is first and torch.equal(cast(Tensor, p.grad), torch.ones_like(p))


def test_hooks_go_and_modes_return_even_after_an_error() -> None:
    model = seeded(NETS["vgg"]).train()

    def broken() -> Iterator[Batch]:
        yield random(2, *IMAGE, dtype=torch.float32), classes(2)
        raise RuntimeError("no more data")

    with pytest.raises(RuntimeError, match="no more data"):
        collect_factors(model, broken(), ["0.0"], fisher="exact")
    assert model.training and not any(module._forward_hooks for module in model.modules())
    assert torch.is_grad_enabled()


def test_autocast_around_changes_nothing() -> None:
    model, x, labels = seeded(NETS["vgg"]), random(4, *IMAGE, dtype=torch.float32), classes(4)
    plain = collect_factors(model, [(x, labels)], ["0.0", "7"], fisher="exact")
    with torch.autocast("cpu", torch.bfloat16):
        cast_around = collect_factors(model, [(x, labels)], ["0.0", "7"], fisher="exact")
    for name in plain:
        assert torch.equal(plain[name].inputs, cast_around[name].inputs)
        assert torch.equal(plain[name].outputs, cast_around[name].outputs)


def test_shortened_products_are_off_inside_and_as_before_outside() -> None:
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    try:
        torch.set_float32_matmul_precision("high")
        torch.backends.cudnn.allow_tf32 = True
        with keep_full_precision():
            assert torch.get_float32_matmul_precision() == "highest"
            assert not torch.backends.cuda.matmul.allow_tf32 and not torch.backends.cudnn.allow_tf32
        assert torch.get_float32_matmul_precision() == "high" and torch.backends.cudnn.allow_tf32
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]


NEWER_INTERFACE = """
import torch
from methods.curvature.passes import keep_full_precision
matmul = torch.backends.cuda.matmul
if hasattr(matmul, "fp32_precision"):
    matmul.fp32_precision = "tf32"
    with keep_full_precision():
        assert matmul.fp32_precision == "ieee"
    assert matmul.fp32_precision == "tf32"
"""


@pytest.mark.slow
def test_shortened_products_are_off_where_they_were_set_by_the_newer_interface() -> None:
    # In a process of its own, because torch cannot go back from one interface of precision to the other.
    subprocess.run([sys.executable, "-W", "error", "-c", NEWER_INTERFACE], check=True)


def test_low_precision_networks_are_summed_in_float32() -> None:
    model, x = seeded(lambda: nn.Conv2d(2, 3, 1)).bfloat16(), random(64, 2, 16, 16).bfloat16()
    found = collect_factors(model, [(x, classes(64))], [""], fisher=None)[""].inputs[0]
    y = x.double().transpose(0, 1).flatten(1)
    torch.testing.assert_close(found, y @ y.T / 64, rtol=1e-5, atol=1e-3)


# Errors


@pytest.mark.parametrize("collect", ["factors", "moments"])
def test_values_that_are_not_finite_name_the_layer(collect: str) -> None:
    def run(model: nn.Module, x: Tensor) -> None:
        names = ["2", "0"]
        if collect == "factors":
            collect_factors(model, [(x, classes(3))], names, fisher="exact")
        else:
            collect_second_moments(model, [(x, classes(3))], names, {}, fisher="exact")

    spoiled = random(3, 5)
    spoiled[1, 2] = torch.inf
    with pytest.raises(InputError, match="the inputs of layer '0' are not finite"):
        run(mlp(), spoiled)  # tanh makes the answers finite
    for layer in ("0", "2"):
        model = mlp()
        with torch.no_grad():
            cast(nn.Linear, model.get_submodule(layer)).weight[0, 0] = torch.nan
        with pytest.raises(InputError, match=rf"the outputs of layer '{layer}' \(Linear\) are not finite"):
            run(model, random(3, 5))
    spoiled[1, 2] = torch.nan
    with pytest.raises(InputError, match=r"the inputs of layer '0' \(Linear\) are not finite"):
        run(mlp(), spoiled)


class Spoil(torch.autograd.Function):
    """The identity, whose gradient is infinite."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return gradients[0] / 0


class Spoiled(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, Spoil.apply(x))


def test_gradients_that_are_not_finite_name_the_layer_where_they_arise() -> None:
    model = nn.Sequential(*mlp()[:1], nn.Tanh(), nn.Linear(6, 6).double(), Spoiled(), mlp()[2])
    batches, names = [(random(3, 5), classes(3))], ["0", "2", "4"]
    with pytest.raises(InputError, match="output gradients of layer '2' are not finite"):
        collect_factors(model, batches, names, fisher="exact")
    with pytest.raises(InputError, match="output gradients of layer '2' are not finite"):
        collect_second_moments(model, batches, names, {}, fisher="exact")


class Logarithm(nn.Module):
    """Has a function between layers that no layer can be blamed for."""

    def __init__(self) -> None:
        super().__init__()
        self.before, self.behind = nn.Linear(5, 4), nn.Linear(4, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.behind(self.before(x).log()))


def test_where_values_stop_being_finite() -> None:
    x = random(8, 5)
    assert origin(mlp(), x) is None
    assert origin(seeded(Logarithm).double(), x) == "the inputs of layer 'behind' (Linear)"
    model = mlp().train()
    x[0, 0] = torch.nan
    assert origin(model, x) == "the inputs of layer '0' (Linear)"
    assert model.training and not model[0]._forward_hooks


def test_drawn_labels_survive_logits_that_are_not_finite() -> None:
    model = mlp()
    with torch.no_grad():
        cast(nn.Linear, model[2]).weight.fill_(torch.nan)
    with pytest.raises(InputError, match="the outputs of layer '2'"):
        collect_factors(model, [(random(3, 5), classes(3))], ["2"], fisher="mc", generator=generator())


class Unused(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.used = nn.Linear(5, CLASSES)
        self.unused = nn.Linear(5, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.used(x))


def collect_from(model: nn.Module, x: Tensor, names: Sequence[str], labels: Tensor | None = None) -> None:
    collect_factors(model, [(x, classes(len(x)) if labels is None else labels)], names, fisher="exact")


def test_messages() -> None:
    model = seeded(NETS["vgg"])
    images = random(3, *IMAGE, dtype=torch.float32)
    with pytest.raises(InputError, match="unknown layer '0.00'; did you mean '0.0'"):
        collect_from(model, images, ["0.00"])
    with pytest.raises(InputError, match="layer '0.1' is a BatchNorm2d: only Conv2d and Linear"):
        collect_from(model, images, ["0.1"])
    with pytest.raises(InputError, match="layer 'unused' is not used"):
        collect_from(Unused().double(), random(3, 5), ["used", "unused"])
    with pytest.raises(InputError, match="no data"):
        collect_factors(model, [], ["0.0"], fisher="exact")
    with pytest.raises(InputError, match=r"needs outputs \[batch, classes\].*not outputs \[3, 2, 4\]"):
        collect_from(nn.Linear(5, 4).double(), random(3, 2, 5), [""])
    with pytest.raises(InputError, match=r"bases of layer '7' have shapes \[\[1, 2, 2\], \[1, 4, 4\]\], not"):
        wrong = {"7": (make_orthogonal(2, 0), make_orthogonal(4, 0))}
        collect_second_moments(model, [(images, classes(3))], ["7"], wrong, fisher="exact")
    for draws, source in ((0, generator()), (1, None)):
        with pytest.raises(ValueError, match="need a generator and at least one draw"):
            collect_factors(model, [(images, classes(3))], ["0.0"], fisher="mc", labels=draws, generator=source)


def test_nothing_asked_nothing_done() -> None:
    assert collect_factors(nn.Linear(2, 2), [], [], fisher="exact") == {}
    assert collect_second_moments(nn.Linear(2, 2), [], [], {}, fisher="exact") == {}
