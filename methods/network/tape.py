"""One forward pass of a network, written down: every operation on tensors, and every call that takes sizes.

The network runs as it is, on real numbers, under two of torch's modes. Below autograd, each operation of ATen is
noted with what it read and made; whatever the network is written in, only these few hundred operations remain.
Above, the calls that the network's own code makes with sizes in them (``view``, slices, ``pad``) are noted with the
numbers that were passed. No activation outlives the pass: the tape holds shapes.
"""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map
from torch.utils.weak import WeakIdKeyDictionary

from methods.contract.inputs import Inputs, call
from methods.network.layers import ZeroPadShortcut
from spaces import InputError
from spaces.errors import shorten_error

LARGEST_TABLE = 4_000_000
"""Index tables with more entries are not read."""

LEAVES = (nn.MultiheadAttention, nn.RNNBase, ZeroPadShortcut)
"""Modules that are one operation on the tape."""


@dataclass(eq=False)
class Value:
    """A tensor of the pass.

    Attributes:
        shape: Its shape.
        tensor: Name of the parameter or buffer that it is; None for what was computed.
        root: The tensor whose memory it views; itself if it views none.
        data: Of a root: whether it depends on the network's input.
        numbers: Integers or truth values that do not depend on the input, where they were used as an index.
    """

    shape: tuple[int, ...]
    tensor: str | None = None
    root: Value = None  # type: ignore[assignment]  # set at once below
    data: bool = False
    numbers: NDArray[Any] | None = None

    def __post_init__(self) -> None:
        if self.root is None:
            self.root = self

    @property
    def from_input(self) -> bool:
        """Whether its numbers depend on the network's input."""
        return self.root.data


@dataclass(eq=False)
class Call:
    """A call with sizes among its arguments, made by a module's own code.

    Attributes:
        module: Name of the module.
        training: Its mode at that time.
        ordinal: How many calls of this function its forward pass had made before.
        function: Name of the function, such as ``"view"``.
        args: Positional arguments, with values in place of tensors.
        kwargs: Keyword arguments, likewise.
        output: What it gave, likewise.
        ops: The operations that it came down to.
    """

    module: str
    training: bool
    ordinal: int
    function: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    output: Any = None
    ops: list[Op] = field(default_factory=list)


@dataclass(eq=False)
class Op:
    """One operation.

    Attributes:
        name: Its name, such as ``"convolution"`` or ``"leaf"``.
        target: ATen's overload, or the module of a leaf.
        args: Positional arguments, with values in place of tensors.
        kwargs: Keyword arguments, likewise.
        outputs: The tensors that it gave.
        module: Name of the innermost module that ran.
        call: The call that it came from, if there is one.
    """

    name: str
    target: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    outputs: list[Value]
    module: str
    call: Call | None


@dataclass(eq=False)
class ModuleCall:
    """One run of a module.

    Attributes:
        name: Name of the module.
        module: The module.
        inputs: The tensors among its positional arguments.
        outputs: The tensors that it gave.
    """

    name: str
    module: nn.Module
    inputs: list[Value]
    outputs: list[Value] = field(default_factory=list)


@dataclass(eq=False)
class Tape:
    """What one forward pass did.

    Attributes:
        ops: The operations in order.
        calls: The calls with sizes.
        modules: The runs of modules, in order of their start.
        tensors: The values of parameters and buffers that were used, by name.
        inputs: The network's inputs.
        outputs: The tensors that the network gave.
        training: Whether it ran in training mode.
    """

    ops: list[Op]
    calls: list[Call]
    modules: list[ModuleCall]
    tensors: dict[str, Value]
    inputs: list[Value]
    outputs: list[Value]
    training: bool


def tensor_names(model: nn.Module) -> dict[int, str]:
    """Name every parameter and buffer once, however many names it has.

    Args:
        model: The network.

    Returns:
        Its first name, by ``id``.
    """
    names: dict[int, str] = {}
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        names.setdefault(id(tensor), name)
    return names


def record(model: nn.Module, example: Inputs, training: bool, seconds: float) -> Tape:
    """Run a network once and write the pass down.

    Args:
        model: A network that may be changed: batch norms learn in training mode.
        example: Its inputs.
        training: In which mode it runs.
        seconds: Longest time of the processor that the pass may take.

    Returns:
        The tape.

    Raises:
        InputError: If the network does not run on these inputs, or takes longer.
    """
    recorder = _Recorder(model, seconds)
    model.train(training)
    kept = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # one operation for a whole layer of a transformer says nothing
    try:
        with (
            torch.no_grad(),
            warnings.catch_warnings(),
            torch.random.fork_rng(devices=[]),
            recorder.record_modules(model),
        ):
            warnings.simplefilter("ignore")
            inputs = [recorder.enter(leaf) for leaf in tree_flatten(example)[0] if isinstance(leaf, Tensor)]
            answer = call(model, example)
    except _TooSlow as error:
        raise InputError(
            f"{type(model).__name__} was followed for {seconds:g} seconds and is not at its end (in {error}); give a "
            "smaller example"
        ) from error
    except Exception as error:  # a network may fail in any way
        raise InputError(
            f"{type(model).__name__} cannot be traced with an input of shape {_shapes(example)}: {shorten_error(error)}"
        ) from error
    finally:
        torch.backends.mha.set_fastpath_enabled(kept)
    outputs = [recorder.value(leaf) for leaf in tree_flatten(_unpack_answer(answer))[0] if isinstance(leaf, Tensor)]
    return Tape(recorder.ops, recorder.calls, recorder.modules, recorder.tensors, inputs, outputs, training)


class _TooSlow(Exception):
    """The pass took too long."""


def _unpack_answer(answer: Any) -> Any:
    """Unpack an answer that is an object with fields, such as a dataclass or an ordered mapping of one's own."""
    if isinstance(answer, Mapping):
        return {key: _unpack_answer(part) for key, part in answer.items()}
    if isinstance(answer, tuple | list):
        return [_unpack_answer(part) for part in answer]
    return answer if isinstance(answer, Tensor) or not hasattr(answer, "__dict__") else _unpack_answer(vars(answer))


def _shapes(example: Any) -> Any:
    if isinstance(example, Tensor):
        return tuple(example.shape)
    return [tuple(leaf.shape) for leaf in tree_flatten(example)[0] if isinstance(leaf, Tensor)]


class _Recorder(TorchDispatchMode):
    """Notes operations; see the module."""

    def __init__(self, model: nn.Module, seconds: float) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.ops: list[Op] = []
        self.calls: list[Call] = []
        self.modules: list[ModuleCall] = []
        self.tensors: dict[str, Value] = {}
        self.call: Call | None = None
        self.inside: list[str] = [""]
        self._values: Any = WeakIdKeyDictionary()
        self._names = tensor_names(model)
        self._sources = [*model.parameters(), *model.buffers()]  # kept alive: they are named by id
        self._leaf = 0
        self._until = time.thread_time() + seconds  # a machine that is busy, or asleep, is not the network's fault

    def enter(self, tensor: Tensor) -> Value:
        """Note an input of the network."""
        value = self.value(tensor)
        value.root.data = True
        return value

    def value(self, tensor: Tensor, root: Value | None = None) -> Value:
        """Find the value of a tensor, or make one."""
        known: Value | None = self._values.get(tensor)
        if known is None:
            name = self._names.get(id(tensor))
            known = Value(tuple(tensor.shape), name)
            known.root = root or known
            self._values[tensor] = known
            if name is not None:
                self.tensors[name] = known
        elif known.tensor is not None:
            self.tensors[known.tensor] = known
        return known

    def values(self, tree: Any) -> Any:
        """Put values in place of tensors."""
        return tree_map(lambda leaf: self.value(leaf) if isinstance(leaf, Tensor) else leaf, tree)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if time.thread_time() > self._until:
            raise _TooSlow(self.inside[-1] or "the network itself")
        out = func(*args, **(kwargs or {}))
        if self._leaf:
            return out
        noted, named = self.values(args), self.values(kwargs or {})
        read = [leaf for leaf in tree_flatten((noted, named))[0] if isinstance(leaf, Value)]
        if func.overloadpacket.__name__ in INDEXING:
            for tensor in tree_flatten((args, kwargs or {}))[0]:
                if isinstance(tensor, Tensor) and not tensor.is_floating_point() and tensor.numel() <= LARGEST_TABLE:
                    value = self.value(tensor)
                    if not value.from_input:
                        value.numbers = tensor.detach().cpu().numpy().copy()
        views = any(each.alias_info is not None for each in func._schema.returns)
        root = read[0].root if views and read else None
        outputs = [self.value(leaf, root) for leaf in tree_flatten(out)[0] if isinstance(leaf, Tensor)]
        if any(value.from_input for value in read):
            for value in outputs:
                value.root.data = True
        op = Op(func.overloadpacket.__name__, func, noted, named, outputs, self.inside[-1], self.call)
        self.ops.append(op)
        if self.call is not None:
            self.call.ops.append(op)
        return out

    @contextmanager
    def record_modules(self, model: nn.Module) -> Generator[None]:
        """Note what happens inside, module by module."""
        wrapped = []
        for name, module in model.named_modules():
            wrapped.append((module, module.__dict__.get("forward")))
            module.__dict__["forward"] = _Followed(self, name, module, module.forward)
        try:
            with _Calls(self), self:
                yield
        finally:
            for module, before in wrapped:
                del module.__dict__["forward"]
                if before is not None:
                    module.__dict__["forward"] = before

    def run_module(self, name: str, module: nn.Module, run: Callable[[], Any], args: Any, kwargs: Any) -> Any:
        """Run the forward pass of one module."""
        if self._leaf:
            return run()
        leaf = isinstance(module, LEAVES)
        noted, named = self.values(args), self.values(kwargs)
        inputs = [part for part in tree_flatten((noted, named))[0] if isinstance(part, Value)]
        entry = ModuleCall(name, module, inputs)
        self.modules.append(entry)
        self.inside.append(name)
        self._leaf += leaf
        outer, self.call = self.call, None
        try:
            out = run()
        finally:
            self.inside.pop()
            self._leaf -= leaf
            self.call = outer
        entry.outputs = [self.value(part) for part in tree_flatten(_unpack_answer(out))[0] if isinstance(part, Tensor)]
        if leaf:
            for value in entry.outputs:
                value.root.data = True
            self.ops.append(Op("leaf", module, noted, named, entry.outputs, name, None))
            for tensor in [*module.parameters(), *module.buffers()]:
                self.value(tensor)
        return out


class _Followed:
    """The forward pass of one module while it is followed."""

    def __init__(self, recorder: _Recorder, name: str, module: nn.Module, forward: Callable[..., Any]) -> None:
        self.recorder, self.name, self.module, self.forward = recorder, name, module, forward
        self.made: dict[str, int] = {}

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        before, self.made = self.made, {}
        try:
            return self.recorder.run_module(self.name, self.module, lambda: self.forward(*args, **kwargs), args, kwargs)
        finally:
            self.made = before


class _Calls(TorchFunctionMode):
    """Notes calls that take sizes."""

    def __init__(self, recorder: _Recorder) -> None:
        super().__init__()
        self._recorder = recorder

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, recorder = function_name(func), self._recorder
        if name not in SIZED or recorder._leaf:
            return func(*args, **(kwargs or {}))
        owner = find_calling_module(_Followed)
        if owner is None:
            return func(*args, **(kwargs or {}))
        noted, named = recorder.values(args), recorder.values(kwargs or {})
        call = Call(owner.name, owner.module.training, owner.made.get(name, 0), name, noted, named)
        owner.made[name] = call.ordinal + 1
        recorder.calls.append(call)
        outer, recorder.call = recorder.call, call
        try:
            out = func(*args, **(kwargs or {}))
        finally:
            recorder.call = outer
        call.output = recorder.values(out)
        return out


def function_name(func: Any) -> str:
    """Name a function of torch as a network's code calls it.

    Args:
        func: The function, as torch hands it over.

    Returns:
        Its name; ``"shape"`` where the shape of a tensor is read.
    """
    name = getattr(func, "__name__", "")
    return "shape" if name == "__get__" and getattr(func, "__self__", None) is Tensor.shape else name


def find_calling_module(wrapper: type) -> Any:
    """Find the module whose own forward pass is running at the place of the call.

    Args:
        wrapper: Class of what stands in for forward passes; its instances are looked for on the stack.

    Returns:
        The innermost instance; None in a hook, or in a module that has none.
    """
    frame = sys._getframe(2)
    while frame is not None:
        code = frame.f_code
        if code is nn.Module._call_impl.__code__:
            return None
        if code.co_name == "__call__" and isinstance(found := frame.f_locals.get("self"), wrapper):
            return found
        frame = frame.f_back  # type: ignore[assignment]
    return None


SIZED = frozenset({
    "view", "reshape", "unflatten", "expand", "broadcast_to", "repeat", "__getitem__", "__setitem__", "narrow",
    "split", "split_with_sizes", "chunk", "pad", "roll", "layer_norm", "rms_norm", "group_norm", "softmax",
    "log_softmax", "mean", "sum", "max", "min", "amax", "amin", "var", "std", "var_mean", "std_mean", "norm",
    "normalize", "vector_norm", "zeros", "ones", "full", "empty", "rand", "randn", "new_zeros", "new_ones",
    "new_full", "new_empty", "zeros_like", "conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d",
    "conv_transpose3d", "linear", "matmul", "bmm", "einsum", "mm", "__matmul__", "__rmatmul__",
    "scaled_dot_product_attention", "index_select", "_weight_norm", "batch_norm", "instance_norm", "logsumexp",
    "tensor_split", "shape", "size", "prod", "baddbmm", "addmm", "mv", "dot",
})  # fmt: skip
"""Names of the functions whose calls are noted: what takes or reads sizes, and what sums over channels."""

INDEXING = frozenset({
    "index", "index_select", "embedding", "gather", "index_put", "index_put_", "take", "index_copy", "index_add",
})  # fmt: skip
"""Operations that read positions from a tensor."""


def sequence(value: Any) -> Sequence[int]:
    """Read an argument that is one number or several.

    Args:
        value: A number or a sequence of numbers.

    Returns:
        The numbers.
    """
    return [int(value)] if isinstance(value, int) else [int(each) for each in value]
