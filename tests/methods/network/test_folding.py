"""Batch norms folded into what makes their inputs, dense or of blocks."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from methods.network.folding import fold_norms
from methods.pivoting.arrangement import PivotSpec
from methods.pivoting.blocks import keep_blocks

CHANNELS = 16


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def spec(seed: int, placed: bool = False) -> PivotSpec:
    order = torch.randperm(CHANNELS, generator=torch.Generator().manual_seed(seed))
    rows = order.flip(0) if placed else torch.arange(CHANNELS)
    return PivotSpec(order.reshape(2, 8), torch.arange(2), rows)


def make_spec(seed: int) -> PivotSpec:
    rows = torch.randperm(CHANNELS, generator=torch.Generator().manual_seed(seed))
    return PivotSpec(torch.arange(CHANNELS).reshape(4, 4)[[0, 2, 1]], torch.tensor([0, 0, 1]), rows)


class Branching(nn.Module):
    """Norms that can be folded, and norms that must stay because something else reads what they read."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, CHANNELS, 3, padding=1, bias=False)
        self.first_norm = nn.BatchNorm2d(CHANNELS)
        self.blocks = keep_blocks(nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1, bias=False), spec(1, placed=True))
        self.blocks_norm = nn.BatchNorm2d(CHANNELS)
        self.shared = keep_blocks(nn.Conv2d(CHANNELS, CHANNELS, 1), make_spec(2))
        self.shared_norm = nn.BatchNorm2d(CHANNELS, affine=False)
        self.summed = keep_blocks(nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1), make_spec(3))
        self.summed_norm = nn.BatchNorm2d(CHANNELS)
        self.linear = keep_blocks(nn.Linear(CHANNELS, CHANNELS, bias=False), spec(4, placed=True))
        self.linear_norm = nn.BatchNorm1d(CHANNELS)
        self.answer = nn.Linear(CHANNELS, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first_norm(self.first(x)).relu()
        x = self.blocks_norm(self.blocks(x)).relu()
        y = self.shared(x)
        x = self.summed_norm(self.summed(self.shared_norm(y) + y)).relu().mean((2, 3))
        return self.answer(self.linear_norm(self.linear(x)).relu())  # type: ignore[no-any-return]


def branching() -> Branching:
    model = Branching().double().eval()
    with torch.no_grad():
        for seed, tensor in enumerate([*model.parameters(), *model.buffers()]):
            if tensor.is_floating_point():
                tensor.copy_(numbers(*tensor.shape, seed=seed).abs() + 0.1 if tensor.ndim == 1 else tensor)
    return model


def test_folding_keeps_the_function() -> None:
    model = branching()
    x = numbers(3, 3, 6, 6)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    still = fold_norms(model)
    torch.testing.assert_close(still(x), model(x), rtol=0, atol=1e-12)
    left = [name for name, module in still.named_modules() if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d)]
    assert left == ["shared_norm"], "what has another reader is not folded"
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


class Activated(nn.Module):
    """One activation may work in place; one may not in one of its calls; one reads what a sum needs later."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)
        self.norm = nn.BatchNorm1d(4)
        self.alone, self.shared, self.needed = nn.ReLU(), nn.ReLU(), nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        y = self.alone(self.norm(self.first(x)))
        z = self.second(self.shared(x))
        return self.shared(z + self.needed(z) + y)  # type: ignore[no-any-return]


def test_activations_work_in_place_where_nothing_else_reads() -> None:
    model = Activated().double().eval()
    still, x = fold_norms(model), numbers(5, 4)
    before = x.clone()
    torch.testing.assert_close(still(x), model(x), rtol=0, atol=1e-12)
    assert torch.equal(x, before)
    inplace = {name for name, module in still.named_modules() if getattr(module, "inplace", False)}
    assert inplace == {"alone"}
    net = fold_norms(nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.ReLU()))
    assert [getattr(net.get_submodule(name), "inplace") for name in ("1", "2")] == [True, False]  # noqa: B009


def test_what_cannot_be_followed_is_not_folded() -> None:
    class Deciding(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))

        def forward(self, x: Tensor) -> Tensor:
            return self.layers(x) if x.sum() > 0 else x

    model = Deciding().eval()
    assert [type(m) for m in fold_norms(model).modules()] == [type(m) for m in model.modules()]
