"""The tuner: every layer of a network in the equal form that is measured to be fastest on a machine.

Layers that list equal forms (:class:`methods.contract.forms.EqualForms`) and chains of plain layers
(:mod:`methods.network.chains`) are decided one after the other, each on the inputs that the layers before it, run as
decided, give it. Then whole networks are compared, in every memory layout that is allowed: as built, with the forms
that were fastest one by one, and with plain layers only. What runs is never slower than the network as built, nor than
its plain twin. All times come from one watch, in turns (:mod:`search.speed.interleaved`).

Where a compiler sees whole networks it rearranges layers itself; it is offered the layer as it is and forms of plain
``torch.nn`` layers.

A decision is plain data: names of forms by name of layer. It belongs to a machine, a batch size and a precision, not
to the network.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from methods.contract.forms import EqualForms, FormsWithTail
from methods.contract.inputs import Inputs, call, get_first_tensor, take
from methods.network.chains import chains, forms
from methods.network.cost import count
from methods.network.folding import fold_norms
from methods.network.tails import tails
from search.speed.conditions import Conditions
from search.speed.interleaved import Effort, Run, Watch, time_in_turns

EFFORT = Effort(seconds=0.2, block=2e-3, least_rounds=5, most_rounds=15)
"""How long the forms of one layer are timed, in turns; the shortest time of each counts."""

FAR = 4.0
"""A form that takes so many times longer than the best at first sight is not timed again."""

BUILT, CHOSEN, PLAIN = "as_built", "chosen", "plain"

Prepare = Callable[[nn.Module, Tensor], Run]
"""Makes one forward pass of a layer on its input."""


@dataclass(frozen=True)
class Choice:
    """How one layer runs.

    Attributes:
        built: Name of the form that the network has.
        chosen: Name of the form that is fastest.
        seconds: Shortest time of each form, by name; with what follows a layer where a form runs that, too.
    """

    built: str
    chosen: str
    seconds: dict[str, float]


@dataclass(frozen=True)
class Decision:
    """How a network runs.

    Attributes:
        channels_last: Whether images go through it with channels last in memory.
        ways: Name of the form of each layer that does not run as it was built.
        layers: Times of all forms of each layer, in the layout that was chosen.
        networks: Shortest time of the whole network by what was compared: ``"as_built"``, ``"chosen"`` and
            ``"plain"``, with ``"_nhwc"`` for channels last.
    """

    channels_last: bool
    ways: dict[str, str]
    layers: dict[str, Choice]
    networks: dict[str, float]

    def to_json(self) -> dict[str, Any]:
        """Return the decision and the measurements in JSON's types.

        Returns:
            A mapping; times in seconds. ``channels_last`` and ``ways`` of it are what :func:`run_as_decided` needs.
        """
        return asdict(self)


class AsDecided(nn.Module):
    """A network whose layers run as decided: for inference only.

    Args:
        network: The network.
        channels_last: Whether images go through it with channels last in memory.
    """

    def __init__(self, network: nn.Module, channels_last: bool) -> None:
        super().__init__()
        self.network = network.to(memory_format=torch.channels_last) if channels_last else network
        self.channels_last = channels_last

    def forward(self, x: Tensor) -> Any:
        """Run.

        Args:
            x: Inputs in any memory format.

        Returns:
            What the network answers.
        """
        if self.channels_last:
            x = x.contiguous(memory_format=torch.channels_last)
        return self.network(x)


def find_tunable_layers(network: nn.Module) -> dict[str, nn.Module]:
    """Find the layers of a network that have equal forms.

    Args:
        network: A network.

    Returns:
        Layers by name, none inside another, each with one place in the network; none where it was decided how they
        run.
    """
    if isinstance(network, AsDecided):
        return {}
    found: dict[str, nn.Module] = dict(chains(network))
    places: dict[int, int] = {}
    for name, module in network.named_modules(remove_duplicate=False):
        places[id(module)] = places.get(id(module), 0) + 1
        if name and _lists_forms(module):
            found[name] = module
    names = [name for name, module in found.items() if places[id(module)] == 1]
    return {
        name: found[name]
        for name, _ in network.named_modules()
        if name in names and not any(name.startswith(f"{other}.") for other in names)
    }


def equal_forms(layer: nn.Module, tail: Sequence[nn.Module] = ()) -> dict[str, nn.Module]:
    """Build the forms of a layer.

    Args:
        layer: One of :func:`find_tunable_layers`.
        tail: What follows it, for forms that run that, too.

    Returns:
        By name, in eval mode; the layer as it is comes first.
    """
    if isinstance(layer, FormsWithTail):
        found = layer.equal_forms() | layer.forms_with_tail(tail)
    elif isinstance(layer, EqualForms):
        found = layer.equal_forms()
    else:
        assert isinstance(layer, nn.Sequential)
        found = forms(layer)
    return {name: form.eval() for name, form in found.items()}


def run_as_decided(network: nn.Module, ways: Mapping[str, str], channels_last: bool = False) -> AsDecided:
    """Build a network that runs as decided.

    Args:
        network: A network; not changed.
        ways: Name of a form by name of layer; other layers stay as they are.
        channels_last: Whether images go through it with channels last in memory.

    Returns:
        A copy in eval mode, for inference only.

    Raises:
        ValueError: If something has no equal forms, or not this one.
    """
    quick = copy.deepcopy(network).eval()
    known = find_tunable_layers(quick)
    behind = tails(quick) if any(isinstance(known.get(name), FormsWithTail) for name in ways) else {}
    for name, way in ways.items():
        if name not in known:
            raise ValueError(f"{name} is no layer with equal forms")
        layer = known[name]
        alone = equal_forms(layer)
        if isinstance(layer, FormsWithTail) and way in layer.forms_with_tail(()):
            tail = _take_modules(quick, behind.get(name, ()))
            quick.set_submodule(name, equal_forms(layer, tail)[way])
        elif way in alone:
            quick.set_submodule(name, alone[way])
        else:
            raise ValueError(f"{name} has no form {way!r}; known: {', '.join(equal_forms(layer))}")
    return AsDecided(quick, channels_last)


def decide_layers(
    network: nn.Module, inputs: Inputs, prepare: Prepare, watch: Watch, channels_last: bool = False, plain: bool = False
) -> dict[str, Choice]:
    """Find out in which form each layer of a network runs fastest.

    Args:
        network: A network, in eval mode; not changed.
        inputs: Its inputs.
        prepare: Makes a forward pass of one form.
        watch: Tells the time.
        channels_last: Whether images go through it with channels last in memory.
        plain: Whether only the layer as it is, and forms of ``torch.nn`` layers alone, may run.

    Returns:
        Choices by name of layer; layers that are alike, on inputs that are alike, are measured once.
    """
    whole = run_as_decided(network, {}, channels_last)
    known: dict[str, Choice] = {}
    layers = {}
    found = find_tunable_layers(whole.network)
    behind = tails(whole.network) if any(isinstance(layer, FormsWithTail) for layer in found.values()) else {}
    for name, layer in found.items():
        tail = _take_modules(whole.network, behind.get(name, ())) if isinstance(layer, FormsWithTail) else ()
        layers[name] = _Deciding(layer, tail, partial(time_forms, prepare=prepare, watch=watch, plain=plain), known)
        whole.network.set_submodule(name, layers[name])
    with torch.no_grad():
        call(whole, inputs) if channels_last else call(whole.network, inputs)
    return {name: layer.choice for name, layer in layers.items() if layer.choice is not None}


def time_forms(
    layer: nn.Module, tail: Sequence[nn.Module], x: Tensor, prepare: Prepare, watch: Watch, plain: bool = False
) -> Choice:
    """Time the forms of one layer.

    Args:
        layer: A layer with equal forms.
        tail: What follows it, and is timed with it.
        x: Its input.
        prepare: Makes a forward pass of one form.
        watch: Tells the time.
        plain: Whether only the layer as it is, and forms of ``torch.nn`` layers alone, may run.

    Returns:
        Times and the fastest.
    """
    found = equal_forms(layer, tail)
    built = next(iter(found))
    candidates: dict[str, nn.Module] = {}
    for name, form in found.items():
        if plain and name != built and not _is_plain(form):
            continue
        alone = form if _takes_tail(layer, name) or not tail else nn.Sequential(form, *copy.deepcopy(tuple(tail)))
        candidates[name] = _lay_out(alone.eval().requires_grad_(False), x)
    runs = {name: prepare(form, x) for name, form in candidates.items()}
    seconds = dict(zip(runs, _time_shortest(watch, list(runs.values())), strict=True))
    chosen = min(seconds, key=lambda name: seconds[name])  # of equals the first: the layer as it is
    return Choice(built, chosen, seconds)


def tune(
    network: nn.Module,
    inputs: Inputs,
    one: Prepare,
    whole: Callable[[nn.Module], Run],
    watch: Watch,
    layouts: Sequence[bool] = (False,),
    plain: bool = False,
) -> tuple[nn.Module, Run, Decision]:
    """Find out how a network runs fastest.

    Args:
        network: A network, in eval mode; not changed.
        inputs: A batch of inputs like those that it will run with.
        one: Makes a forward pass of one form of one layer.
        whole: Makes a forward pass of a network.
        watch: Tells the time.
        layouts: Whether the network may run with channels last, with channels first, or either.
        plain: Whether a compiler sees whole networks, and is offered plain layers only.

    Returns:
        The network as it runs fastest, for inference only (the network itself where nothing is to be decided, or it
        is fastest as built), a forward pass of it, and the decision.
    """
    if not find_tunable_layers(network) and tuple(layouts) == (False,):
        return network, whole(network), Decision(False, {}, {}, {})
    decided, plans = {}, dict[str, tuple[bool, dict[str, str]]]()
    for last in layouts:
        decided[last] = decide_layers(network, inputs, one, watch, last, plain)
        suffix = "_nhwc" if last else ""
        plans[BUILT + suffix] = last, {}
        plans[CHOSEN + suffix] = last, _list_changes(decided[last])
        plans[PLAIN + suffix] = last, _list_plain_ways(network)
    candidates: dict[str, nn.Module] = {}
    for name, plan in plans.items():
        if plan not in [plans[other] for other in candidates]:
            built = plan == (False, {})
            candidates[name] = (
                network if built else _lay_out(run_as_decided(network, plan[1], plan[0]), inputs, plan[0])
            )
    runs = {name: whole(candidate) for name, candidate in candidates.items()}
    if len(runs) == 1:
        ((name, run),) = runs.items()
        return candidates[name], run, Decision(plans[name][0], plans[name][1], decided[plans[name][0]], {})
    seconds = dict(zip(runs, _time_shortest(watch, list(runs.values())), strict=True))
    best = min(seconds, key=lambda name: seconds[name])  # of equals the first: the network as built
    return candidates[best], runs[best], Decision(*plans[best], decided[plans[best][0]], seconds)


def run_eagerly(module: nn.Module, inputs: Inputs) -> Run:
    """Make a forward pass of a module as it is.

    Args:
        module: The module.
        inputs: Its inputs.

    Returns:
        The pass.
    """
    return torch.inference_mode()(partial(call, module, inputs))


def deployment(network: nn.Module, inputs: Inputs, watch: Watch, setting: Conditions) -> dict[str, Any] | None:
    """Decide how an exported network runs on this machine, as plain data.

    Args:
        network: The network, in eval mode; not changed.
        inputs: A batch of its inputs.
        watch: Tells the time.
        setting: Under which conditions it is decided.

    Returns:
        Decision, measurements and conditions in JSON's types, for :func:`deploy`; ``flops``, multiply-accumulates for
        one input as it runs; and ``gathers``, how often layers that count this bring channels into order. ``None`` if
        no layer has equal forms.
    """
    still = fold_norms(network)
    if not find_tunable_layers(still):
        return None
    first = get_first_tensor(inputs)
    layouts = (False, True) if first.ndim == 4 else (False,)
    quick, _, decision = tune(still, inputs, run_eagerly, partial(run_eagerly, inputs=inputs), watch, layouts)
    return {
        "device": first.device.type,
        "precision": str(first.dtype).removeprefix("torch."),
        "batch_size": setting.batch_size,
        "threads": setting.threads,
        "gathers": sum(int(getattr(module, "gathers", 0)) for module in network.modules()),
        "flops": count(quick, take(inputs, slice(0, 1))).flops,
        **decision.to_json(),
    }


def deploy(network: nn.Module, *decisions: Mapping[str, Any] | None) -> nn.Module:
    """Make a network that is only run: batch norms folded, layers as decided.

    Args:
        network: The network; not changed.
        *decisions: What :func:`deployment` gave; ``None`` for a network without equal forms. Exports of earlier
            versions have two, for chains and for layers of blocks.

    Returns:
        A copy in eval mode.
    """
    still, given = fold_norms(network), [decision for decision in decisions if decision is not None]
    ways = {name: way for decision in given for name, way in decision["ways"].items()}
    channels_last = any(decision.get("channels_last", False) for decision in given)
    return run_as_decided(still, ways, channels_last) if ways or channels_last else still


class _Deciding(nn.Module):
    """A layer that decides how it runs when it first sees an input.

    Args:
        layer: The layer.
        tail: What follows it; run with it.
        choose: Times the forms.
        known: Choices by layer and input, shared by the layers of a network.
    """

    def __init__(
        self, layer: nn.Module, tail: Sequence[nn.Module], choose: Callable[..., Choice], known: dict[str, Choice]
    ) -> None:
        super().__init__()
        self.layer, self.tail = layer, nn.Sequential(*tail)
        self.choice: Choice | None = None
        self._choose, self._known = choose, known

    def forward(self, *args: Any) -> Any:
        """Decide, and run as decided."""
        if len(args) != 1 or not isinstance(args[0], Tensor):
            return self.tail(self.layer(*args))  # only layers of one tensor are tuned
        (x,) = args
        key = _describe_workload(self.layer, self.tail, x)
        if key not in self._known:
            self._known[key] = self._choose(self.layer, tuple(self.tail), x)
        self.choice = self._known[key]
        answer = equal_forms(self.layer, tuple(self.tail))[self.choice.chosen](x)
        return answer if _takes_tail(self.layer, self.choice.chosen) else self.tail(answer)


def _time_shortest(watch: Watch, runs: list[Run]) -> list[float]:
    """Time some runs in turns; those that are far slower than the best once."""
    for run in runs:
        watch.seconds(run, 1)  # the first run may compile, allocate and choose kernels
    best = [watch.seconds(run, 1) for run in runs]
    close = [place for place, seconds in enumerate(best) if seconds <= FAR * min(best)]
    for place, seconds in zip(close, time_in_turns(watch, [runs[place] for place in close], EFFORT), strict=True):
        best[place] = min(seconds)
    return best


def _describe_workload(layer: nn.Module, tail: nn.Module, x: Tensor) -> str:
    """Say all that the speed of a layer follows from."""
    settings: object = getattr(layer, "settings", dict)()
    shapes = [tuple(tensor.shape) for tensor in layer.state_dict().values()]
    return repr((layer, settings, shapes, tail, tuple(x.shape), x.dtype, x.stride(), x.device))


def _lists_forms(module: nn.Module) -> bool:
    return isinstance(module, EqualForms)


def _takes_tail(layer: nn.Module, way: str) -> bool:
    return isinstance(layer, FormsWithTail) and way in layer.forms_with_tail(())


def _is_plain(form: nn.Module) -> bool:
    return all(type(module).__module__.startswith("torch.nn.") for module in form.modules())


def _list_plain_ways(network: nn.Module) -> dict[str, str]:
    """Name the first plain form of every layer that is not plain and has one."""
    ways: dict[str, str] = {}
    for name, layer in find_tunable_layers(network).items():
        if not _is_plain(layer):
            plain = [way for way, form in equal_forms(layer).items() if _is_plain(form)]
            ways |= {name: plain[0]} if plain else {}
    return ways


def _take_modules(network: nn.Module, names: Sequence[str]) -> tuple[nn.Module, ...]:
    """Take modules out of a network: what runs them now is the layer before them."""
    modules = tuple(network.get_submodule(name) for name in names)
    for name in names:
        network.set_submodule(name, nn.Identity())
    return tuple(module for module in modules if not isinstance(module, nn.Identity))


def _lay_out(module: nn.Module, inputs: Inputs, channels_last: bool = False) -> nn.Module:
    """Give the weights the layout that images have in memory."""
    image = get_first_tensor(inputs)
    images_last = channels_last or (image.ndim == 4 and not image.is_contiguous())
    return module.to(memory_format=torch.channels_last) if images_last else module


def _list_changes(found: Mapping[str, Choice]) -> dict[str, str]:
    return {name: choice.chosen for name, choice in found.items() if choice.chosen != choice.built}
