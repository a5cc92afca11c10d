"""The calls that a module's own code makes, handled one by one while its forward pass runs.

A module's forward pass is wrapped; what its code calls with sizes, or reads of them, is put right
(:class:`Resized`), compared (:class:`Learning`) or made on a part of the channels (:class:`Excluding`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from methods.network.tape import SIZED, find_calling_module, function_name
from spaces import InputError

Path = tuple[int | str, ...]
"""Where an argument is: position or name, then the place inside it."""

Table = dict[str, dict[str, list[list[Any]]]]
"""By mode (``"eval"`` or ``"train"``) and call (``"view:0"``): pairs of a path and what is to stand there."""

READS = ("shape", "size")
"""Functions that read sizes."""


def mode_of(training: bool) -> str:
    """Name a mode.

    Args:
        training: Whether it is training mode.

    Returns:
        ``"train"`` or ``"eval"``.
    """
    return "train" if training else "eval"


class OwnCalls:
    """Stands in for a module's forward pass, and handles the calls that its own code makes.

    Args:
        module: The module.
        forward: What it stands in for.
    """

    also: frozenset[str] = frozenset()
    """Functions beside those with sizes whose calls are handled."""

    def __init__(self, module: nn.Module, forward: Callable[..., Any]) -> None:
        self.module, self.forward = module, forward
        self.made: dict[str, int] = {}

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the forward pass."""
        before, self.made = self.made, {}
        try:
            with _Handling(self):
                return self.forward(*args, **kwargs)
        finally:
            self.made = before

    def handle(self, key: str, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Make one call.

        Args:
            key: Which call it is.
            func: The function.
            args: Its positional arguments.
            kwargs: Its keyword arguments.

        Returns:
            Its result.
        """
        return func(*args, **kwargs)


class _Handling(TorchFunctionMode):
    """Hands a module's own calls over."""

    def __init__(self, owner: OwnCalls) -> None:
        super().__init__()
        self._owner = owner

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = function_name(func)
        if (name not in SIZED and name not in self._owner.also) or find_calling_module(
            type(self._owner)
        ) is not self._owner:
            return func(*args, **(kwargs or {}))
        number = self._owner.made.get(name, 0)
        self._owner.made[name] = number + 1
        return self._owner.handle(f"{name}:{number}", func, args, kwargs or {})


class Resized(OwnCalls):
    """A forward pass whose sizes are put right.

    Args:
        module: The module.
        forward: Its forward pass.
        table: What stands where.
    """

    def __init__(self, module: nn.Module, forward: Callable[..., Any], table: Table) -> None:
        super().__init__(module, forward)
        self.table = table

    def handle(self, key: str, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Make one call with other sizes.

        Args:
            key: Which call it is.
            func: The function.
            args: Its positional arguments.
            kwargs: Its keyword arguments.

        Returns:
            Its result.
        """
        entries = self.table.get(mode_of(self.module.training), {}).get(key, ())
        if key.startswith(READS):
            return _tell(func(*args, **kwargs), entries)
        for path, value in entries:
            args, kwargs = _replace_argument(args, kwargs, tuple(path), value)
        return func(*args, **kwargs)


FACTORS = frozenset({
    "mul", "mul_", "multiply", "__mul__", "__rmul__", "__imul__", "div", "div_", "divide", "true_divide", "__truediv__",
    "__rtruediv__", "__itruediv__", "__rdiv__", "__div__", "pow", "__pow__", "__rpow__",
})  # fmt: skip
"""Functions whose plain numbers are factors."""


class Learning(OwnCalls):
    """A forward pass whose sizes are put right and compared with those it has by itself.

    Args:
        module: The module.
        forward: Its forward pass.
        wanted: What should stand where.
    """

    also = FACTORS

    def __init__(self, module: nn.Module, forward: Callable[..., Any], wanted: Table) -> None:
        super().__init__(module, forward)
        self.wanted = wanted
        self.found: Table = {}
        self.factors: dict[tuple[str, str], tuple[float, ...]] = {}

    def handle(self, key: str, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Make one call, and note which of its sizes do not follow.

        Args:
            key: Which call it is.
            func: The function.
            args: Its positional arguments.
            kwargs: Its keyword arguments.

        Returns:
            Its result.
        """
        mode = mode_of(self.module.training)
        if key.partition(":")[0] in FACTORS:
            self.factors[mode, key] = tuple(float(a) for a in args if type(a) in {int, float})
            return func(*args, **kwargs)
        if key.startswith(READS):
            entries = self.wanted.get(mode, {}).get(key, [])
            if entries:
                self.found.setdefault(mode, {})[key] = entries
            return _tell(func(*args, **kwargs), entries)
        wrong = [
            [list(path), value]
            for path, value in self.wanted.get(mode, {}).get(key, ())
            if not _has_argument(args, kwargs, tuple(path), value)
        ]
        for path, value in wrong:
            args, kwargs = _replace_argument(args, kwargs, tuple(path), value)
        if wrong:
            self.found.setdefault(mode, {})[key] = wrong
        return func(*args, **kwargs)


class Excluding(OwnCalls):
    """A forward pass whose sums over channels leave removed channels out, in tensors of the whole width.

    Args:
        module: The module.
        forward: Its forward pass.
        calls: By mode and call: arguments and results with the positions that take part, and sizes.
    """

    def __init__(
        self,
        module: nn.Module,
        forward: Callable[..., Any],
        calls: Mapping[str, Mapping[str, tuple[list[Any], list[Any], list[list[Any]]]]],
    ) -> None:
        super().__init__(module, forward)
        self.calls = calls

    def handle(self, key: str, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Make one call on what is left.

        Args:
            key: Which call it is.
            func: The function.
            args: Its positional arguments.
            kwargs: Its keyword arguments.

        Returns:
            Its result in the whole width, with zeros where channels are gone.
        """
        found = self.calls.get(mode_of(self.module.training), {}).get(key)
        if found is None:
            return func(*args, **kwargs)
        arguments, results, sizes = found
        for path, kept in arguments:
            tensor = _get_argument(args, kwargs, path)
            for dim, index in kept:
                tensor = tensor.index_select(dim, torch.as_tensor(index, device=tensor.device))
            args, kwargs = _replace_argument(args, kwargs, path, tensor)
        for path, value in sizes:
            args, kwargs = _replace_argument(args, kwargs, tuple(path), value)
        out = func(*args, **kwargs)
        for path, kept in results:
            tensor = _get_inside(out, path)
            for dim, index, size in kept:
                shape = list(tensor.shape)
                shape[dim] = size
                whole = tensor.new_zeros(shape)
                tensor = whole.index_copy(dim, torch.as_tensor(index, device=tensor.device), tensor)
            out = _put(out, path, tensor)
        return out


def _tell(shape: Any, entries: Sequence[Sequence[Any]]) -> Any:
    """Put other numbers into a shape, or in place of one size."""
    if isinstance(shape, int):
        return entries[0][1] if entries else shape
    told = {path[-1]: value for path, value in entries}
    return torch.Size([told.get(k, size) for k, size in enumerate(shape)]) if told else shape


def install(module: nn.Module, table: Table) -> None:
    """Put the sizes of a module right from now on.

    Args:
        module: The module; its forward pass is wrapped.
        table: What stands where; nothing to take an earlier table away.
    """
    own = module.__dict__.get("forward")
    forward = own.forward if isinstance(own, Resized) else module.forward
    if table:
        module.__dict__["forward"] = Resized(module, forward, table)
    elif isinstance(own, Resized):
        _restore(module, forward)


def _restore(module: nn.Module, forward: Callable[..., Any]) -> None:
    """Give a module back the forward pass that was wrapped."""
    if getattr(forward, "__self__", None) is module:
        del module.__dict__["forward"]
    else:
        module.__dict__["forward"] = forward


def find_table(module: nn.Module) -> Table:
    """Return the sizes that are put right in a module.

    Args:
        module: The module.

    Returns:
        What stands where.
    """
    own = module.__dict__.get("forward")
    return own.table if isinstance(own, Resized) else {}


def check_table(table: Any, name: str) -> Table:
    """Check a table that was read from a file.

    Args:
        table: What was read.
        name: Name of its module.

    Returns:
        The table.

    Raises:
        InputError: If it is none.
    """
    try:
        sound = all(
            key.partition(":")[0] in SIZED
            and key.partition(":")[2].isdigit()
            and all(isinstance(step, int | str) for step in path)
            and _is_plain_value(value)
            for calls in table.values()
            for key, entries in calls.items()
            for path, value in entries
        )
    except (AttributeError, TypeError, ValueError):
        sound = False
    if not sound:
        raise InputError(f"the sizes that the architecture gives for {name!r} cannot be read")
    found: Table = table
    return found


def _is_plain_value(value: Any) -> bool:
    return isinstance(value, int) or (isinstance(value, list) and all(isinstance(each, int) for each in value))


def _get_inside(tree: Any, path: Path) -> Any:
    for step in path:
        tree = tree[step] if isinstance(step, int) or isinstance(tree, Mapping) else getattr(tree, step)
    return tree


def _get_argument(args: tuple[Any, ...], kwargs: Mapping[str, Any], path: Path) -> Any:
    return _get_inside(kwargs if isinstance(path[0], str) else args, path)


def _put(tree: Any, path: Path, value: Any) -> Any:
    """Return a tree with another value at one place."""
    if not path:
        if isinstance(tree, slice) and isinstance(value, list):
            return slice(value[0], value[1], tree.step)
        if isinstance(tree, Tensor) and isinstance(value, list):
            return torch.tensor(value, device=tree.device, dtype=tree.dtype)
        return value
    step = path[0]
    if isinstance(tree, Mapping):
        return {**tree, step: _put(tree[str(step)], path[1:], value)}
    assert isinstance(step, int)
    parts = list(tree)
    parts[step] = _put(parts[step], path[1:], value)
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        return type(tree)(*parts)
    if isinstance(tree, tuple) and type(tree) not in {tuple, torch.Size}:
        return type(tree)(parts)
    return parts if isinstance(tree, list) else tuple(parts)


def _replace_argument(
    args: tuple[Any, ...], kwargs: dict[str, Any], path: Path, value: Any
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if isinstance(path[0], str):
        return args, _put(kwargs, path, value)
    if path[0] >= len(args):
        return args, kwargs
    return tuple(_put(args, path, value)), kwargs


def _has_argument(args: tuple[Any, ...], kwargs: Mapping[str, Any], path: Path, value: Any) -> bool:
    """Whether an argument is what it should be."""
    try:
        given = _get_argument(args, kwargs, path)
    except (LookupError, TypeError):
        return True  # given in another way, which follows by itself
    if isinstance(given, slice):
        subject = _get_inside(args, (0,))
        place = path[1] if len(path) > 1 else 0
        size = _size_at(subject, _get_inside(args, (1,)), int(place))
        start, stop, _ = given.indices(size)
        return bool([start, stop] == value)
    if isinstance(given, Tensor):
        return given.device.type != "meta" and bool(given.reshape(-1).tolist() == value)
    if isinstance(given, list):
        return bool(given == value)
    return bool(given == value or (given == -1))


def _size_at(subject: Tensor, index: Any, place: int) -> int:
    """Return the size of the dimension that one part of an index is for."""
    items = index if isinstance(index, tuple) else (index,)
    before = 0
    for item in items[:place]:
        if item is Ellipsis:
            rest = sum(1 for other in items if other is not None and other is not Ellipsis)
            before += subject.ndim - rest
        elif item is not None:
            before += item.ndim if isinstance(item, Tensor) and item.dtype == torch.bool else 1
    return int(subject.shape[before])
