"""A pruned network as data: JSON beside its weights, never a pickled module.

The description lists every module that differs from the dense network's: those whose tensors are *narrower*, with
the numbers that define them, and those that were *replaced* by other layers, with what it takes to build them. To
rebuild, build the dense network as usual, replace, resize, load the weights. The description holds no code: only layers
of torch and those that are handed in are built, only attributes named in :data:`WIDTHS` are set.

A layer class of a method's own (:attr:`methods.contract.method.Method.layers`) has a method ``settings()`` whose
result, plain JSON, builds a layer of the same shapes when given as keyword arguments.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from methods.network.copying import copy_network, load_state
from methods.network.layers import CutAttention, Zeros
from methods.network.own_calls import check_table, install
from methods.network.structure import OWN_HEADS, OWN_INNER, OWN_WIDTHS, describe_sizes
from spaces import InputError, explain_unknown_name

FORMAT = 2
WITH_SIZES = 3
"""Format of a description that puts sizes in the network's code right."""

LARGEST_SIDE = 2**24
"""Longest dimension of a tensor that a description may ask for."""

LARGEST_TENSOR = 2**32
"""Most numbers in a tensor that a description may ask for."""

WIDTHS = (
    "in_channels",
    "out_channels",
    "groups",
    "in_features",
    "out_features",
    "num_features",
    "num_channels",
    "normalized_shape",
    "num_groups",
    "num_parameters",
    "embedding_dim",
    "input_size",
    "hidden_size",
    *OWN_WIDTHS,
    *OWN_INNER,
    *OWN_HEADS,
)
"""Attributes of modules that follow their tensors' shapes."""

Settings = dict[str, Any]


def describe(dense: nn.Module, pruned: nn.Module) -> dict[str, Any]:
    """Describe how a pruned network differs from the dense one.

    Args:
        dense: The network before pruning.
        pruned: The network after pruning: some modules narrower, some replaced by layers that have ``settings()``,
            ``Conv2d``, ``Linear``, ``Identity``, ``ZeroPad2d``, ``Zeros`` or a ``Sequential`` of these.

    Returns:
        A mapping that ``json.dumps`` accepts, for :func:`rebuild`.

    Raises:
        ValueError: If a module was replaced by one that cannot be described.
    """
    narrower: dict[str, Any] = {}
    replaced: dict[str, Any] = {}
    for name, before, after in _pairs(dense, pruned):
        if _is_replaced(before, after):
            if not name:
                raise ValueError(f"the whole network was replaced: {_kind(before)} by {_kind(after)}")
            replaced[name] = _spec(after, name)
        elif (_widths(before), _shapes(before)) != (_widths(after), _shapes(after)):
            narrower[name] = {"class": _kind(after), "widths": _widths(after), "shapes": _shapes(after)}
    description = {"format": FORMAT, "modules": narrower, "replaced": replaced}
    sizes = describe_sizes(pruned)
    return description | {"format": WITH_SIZES, "sizes": sizes} if sizes else description


def rebuild(
    dense: nn.Module,
    description: Mapping[str, Any],
    weights: Mapping[str, Tensor],
    layers: Sequence[type[nn.Module]] = (),
) -> nn.Module:
    """Rebuild a pruned network from the dense one's code, the description and the weights.

    Args:
        dense: The network as its builder makes it (its weights do not matter); not changed.
        description: What :func:`describe` gave, now or in an earlier version.
        weights: State dictionary of the pruned network.
        layers: Layer classes beside torch's that may be in it: those that its method declares.

    Returns:
        The pruned network in eval mode.

    Raises:
        InputError: If the description is of another format or does not fit the network, or the weights do not
            fit the description.
    """
    known = (1, FORMAT, WITH_SIZES)  # format 1 knew no replaced layers
    if description.get("format") not in known:
        said = ", ".join(map(str, known))
        raise InputError(f"architecture format {description.get('format')!r} is not supported (known: {said})")
    model = copy_network(dense)
    names = dict(model.named_modules())
    sample = next(model.parameters())
    for name, spec in description.get("replaced", {}).items():
        if name not in names:
            raise InputError(_misfit(spec["class"], name, dense))
        model.set_submodule(name, _build_layer(spec, layers).to(device=sample.device, dtype=sample.dtype))
    resized: dict[int, Tensor] = {}
    for name, change in description["modules"].items():
        module = names.get(name)
        if module is None or _kind(module) != change["class"]:
            raise InputError(_misfit(change["class"], name, dense))
        _resize(module, change, resized)
    for name, table in description.get("sizes", {}).items():
        if name not in names:
            raise InputError(_misfit("module", name, dense))
        install(model.get_submodule(name), check_table(table, name))
    try:
        load_state(model, weights)
    except RuntimeError as error:
        raise InputError(f"the weights do not fit the architecture: {str(error).splitlines()[-1].strip()}") from error
    return model.eval()


def _misfit(kind: str, name: str, dense: nn.Module) -> str:
    return (
        f"the architecture describes a {kind} {name!r}, which {_kind(dense)} does not have; was it made from another "
        "network?"
    )


def _kind(module: nn.Module) -> str:
    return type(module).__name__


# --- narrower layers ---------------------------------------------------------------------------------------


def _widths(module: nn.Module) -> dict[str, Any]:
    """Read the numbers that define a module's shape."""
    found = {name: vars(module)[name] for name in WIDTHS if name in vars(module)}  # properties follow by themselves
    return {name: list(value) if isinstance(value, tuple) else value for name, value in found.items()}


def _shapes(module: nn.Module) -> dict[str, list[int]]:
    """Read the shapes of a module's own tensors."""
    own = dict(module.named_parameters(recurse=False)) | dict(module.named_buffers(recurse=False))
    return {name: list(tensor.shape) for name, tensor in own.items()}


def _resize(module: nn.Module, change: Mapping[str, Any], resized: dict[int, Tensor]) -> None:
    """Set the widths of one module and give it empty tensors of the described shapes; what is shared stays shared."""
    for attribute, value in change["widths"].items():
        if attribute not in WIDTHS or not hasattr(module, attribute):
            raise InputError(f"{attribute!r} is not a width of {change['class']}")
        _refuse_large(value, f"{attribute!r} of a {change['class']}")
        if attribute in vars(module):  # earlier versions wrote properties down too
            setattr(module, attribute, tuple(value) if isinstance(value, list) else value)
    tensors = dict(module.named_parameters(recurse=False)) | dict(module.named_buffers(recurse=False))
    for name, shape in change["shapes"].items():
        if name not in tensors:
            raise InputError(f"{change['class']} has no tensor {name!r}")
        tensor = tensors[name]
        if list(tensor.shape) == shape:
            continue
        if len(shape) != tensor.ndim or not all(isinstance(n, int) and 0 <= n <= LARGEST_SIDE for n in shape):
            raise InputError(
                f"the architecture gives {name!r} of a {change['class']} the shape {shape}; allowed are {tensor.ndim} "
                f"numbers up to {LARGEST_SIDE}"
            )
        if prod(shape) > LARGEST_TENSOR:
            raise InputError(
                f"the architecture gives {name!r} of a {change['class']} the shape {shape}, {prod(shape)} numbers; "
                f"allowed are {LARGEST_TENSOR}"
            )
        if id(tensor) not in resized:
            resized[id(tensor)] = _reshape(tensor, shape)
        if isinstance(tensor, nn.Parameter):
            setattr(module, name, resized[id(tensor)])
        else:
            module._buffers[name] = resized[id(tensor)]


def _reshape(tensor: Tensor, shape: list[int]) -> Tensor:
    """Make a tensor of another shape; of a buffer, which may be in no file, with the first of its numbers."""
    empty = torch.zeros(shape, dtype=tensor.dtype, device=tensor.device)
    if isinstance(tensor, nn.Parameter):
        return nn.Parameter(empty, tensor.requires_grad)
    if all(new <= old for new, old in zip(shape, tensor.shape, strict=True)):
        empty.copy_(tensor[tuple(slice(size) for size in shape)])
    return empty


# --- replaced layers ---------------------------------------------------------------------------------------


def _pairs(before: nn.Module, after: nn.Module, name: str = "") -> Iterator[tuple[str, nn.Module, nn.Module]]:
    """Walk two networks side by side; what was replaced is not entered."""
    yield name, before, after
    if not _is_replaced(before, after):
        for child, module in before.named_children():
            yield from _pairs(module, getattr(after, child), f"{name}.{child}" if name else child)


def _is_replaced(before: nn.Module, after: nn.Module) -> bool:
    """Whether a module is more than a narrower version of the other."""
    if type(before) is not type(after):
        return True
    if [child for child, _ in before.named_children()] != [child for child, _ in after.named_children()]:
        return True
    return _find_fixed_settings(before) != _find_fixed_settings(after)


def _find_fixed_settings(module: nn.Module) -> Settings:
    """What cutting channels never changes in a layer that can be built again; of others only their tensors' names."""
    known = _SETTINGS.get(_kind(module))
    settings = {} if known is None else known(module)
    return {key: value for key, value in settings.items() if key not in WIDTHS} | {"tensors": list(_shapes(module))}


def _spec(module: nn.Module, name: str) -> dict[str, Any]:
    """Describe a layer so that it can be built."""
    kind = _kind(module)
    if has_settings(type(module)):
        settings: Callable[[], Settings] = getattr(module, "settings")  # noqa: B009  # unknown to mypy
        return {"class": layer_name(type(module)), "settings": settings()}
    if isinstance(module, nn.Sequential):
        children = {child: _spec(layer, f"{name}.{child}") for child, layer in module.named_children()}
        return {"class": "Sequential", "children": children}
    if type(module) is not _BUILDERS.get(kind):
        raise ValueError(
            f"{name} was replaced by a {kind}, which cannot be described; it needs a method settings() "
            f"(known without one: {', '.join([*_BUILDERS, 'Sequential'])})"
        )
    return {"class": kind, "settings": _SETTINGS[kind](module)}


def _build_layer(spec: Mapping[str, Any], layers: Sequence[type[nn.Module]]) -> nn.Module:
    """Build a layer with weights that are to be loaded."""
    kind = spec["class"]
    if kind == "Sequential":
        chain = nn.Sequential()
        for name, child in spec["children"].items():
            chain.add_module(name, _build_layer(child, layers))
        return chain
    cls: Callable[..., nn.Module] = _BUILDERS[kind] if kind in _BUILDERS else _find_class(kind, layers)
    settings = {key: tuple(value) if isinstance(value, list) else value for key, value in spec["settings"].items()}
    for key, value in spec["settings"].items():
        _refuse_large(value, f"{key!r} of a {kind}")
    numbers = 0
    try:
        if kind in _BUILDERS:  # without memory first; layers of methods may compute while they are built
            with torch.device("meta"):
                numbers = sum(tensor.numel() for tensor in cls(**settings).state_dict().values())
        if numbers <= LARGEST_TENSOR:
            return cls(**settings)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"the architecture has a {kind} that cannot be built: {error}") from error
    raise InputError(
        f"the architecture has a {kind} of {numbers} numbers ({spec['settings']}); allowed are {LARGEST_TENSOR}"
    )


def _refuse_large(value: Any, what: str) -> None:
    """Refuse numbers, alone or in lists, that no layer has: building one with them would take all memory."""
    for each in value if isinstance(value, list | tuple) else [value]:
        if isinstance(each, list | tuple):
            _refuse_large(each, what)
        elif isinstance(each, int | float) and not -LARGEST_SIDE <= each <= LARGEST_SIDE:
            raise InputError(f"the architecture gives {what} the number {each}; allowed are those up to {LARGEST_SIDE}")


def has_settings(layer: type[nn.Module]) -> bool:
    """Tell whether a layer class can be described.

    Args:
        layer: The class.

    Returns:
        Whether it has a method ``settings``.
    """
    return callable(getattr(layer, "settings", None))


def needs_layers(description: Mapping[str, Any]) -> bool:
    """Tell whether a network holds layers that have to be handed in to rebuild it.

    Args:
        description: What :func:`describe` gave.

    Returns:
        Whether a layer that was replaced is none of torch's.
    """
    return any(_is_foreign(spec) for spec in description.get("replaced", {}).values())


def _is_foreign(spec: Mapping[str, Any]) -> bool:
    if "children" in spec:
        return any(_is_foreign(child) for child in spec["children"].values())
    return spec.get("class") not in (*_BUILDERS, CutAttention.__name__)


def layer_name(layer: type[nn.Module]) -> str:
    """Name a layer class in a description.

    Args:
        layer: The class.

    Returns:
        Its bare name if it comes with this package, else ``module:Class``.
    """
    ours = layer.__module__.partition(".")[0] == __name__.partition(".")[0]
    return layer.__name__ if ours else f"{layer.__module__}:{layer.__qualname__}"


def _find_class(kind: str, layers: Sequence[type[nn.Module]]) -> type[nn.Module]:
    """Find a layer class among those that were handed in."""
    own: tuple[type[nn.Module], ...] = (CutAttention, *layers)
    known = {layer_name(layer): layer for layer in own}
    if kind not in known:
        hint = "; hand its class in as one of layers" if ":" in kind else ""
        raise InputError(
            explain_unknown_name("layer of an architecture", kind, [*_BUILDERS, "Sequential", *known]) + hint
        )
    return known[kind]


def _conv_settings(module: nn.Module) -> Settings:
    plain = ("in_channels", "out_channels", "groups", "padding_mode")
    pairs = ("kernel_size", "stride", "padding", "dilation")
    shape = {name: getattr(module, name) for name in plain}
    for name in pairs:
        value = getattr(module, name)
        shape[name] = value if isinstance(value, str) else list(value)
    return shape | {"bias": module.bias is not None}


def _linear_settings(module: nn.Module) -> Settings:
    return {
        "in_features": module.in_features,
        "out_features": module.out_features,
        "bias": module.bias is not None,
    }


def _pad_settings(module: nn.Module) -> Settings:
    padding: Any = module.padding
    return {"padding": list(padding)}


_BUILDERS: dict[str, type[nn.Module]] = {
    "Conv2d": nn.Conv2d,
    "Linear": nn.Linear,
    "Identity": nn.Identity,
    "ZeroPad2d": nn.ZeroPad2d,
    "Zeros": Zeros,
}
"""Layers that may replace others: those of torch, and nothing at all."""

_SETTINGS: dict[str, Callable[[nn.Module], Settings]] = {
    "Conv2d": _conv_settings,
    "Linear": _linear_settings,
    "Identity": lambda module: {},
    "ZeroPad2d": _pad_settings,
    "Zeros": lambda module: {},
}
