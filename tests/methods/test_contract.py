"""What every registered method must do, on every kind of network; a new method is tested by being registered."""

from __future__ import annotations

from dataclasses import replace
from importlib.metadata import EntryPoint
from importlib.util import find_spec

import pytest
import torch

import methods
from methods import load_method, method_names
from methods.contract import named
from methods.contract.method import Method, Problem, Pruned
from methods.contract.recipe import Recipe
from methods.contract.testing import MethodItself, MethodOnNetwork
from spaces import InputError, Space
from tests.methods import cases

ONCE = "projection"
"""The network on which is tested what does not depend on the network."""


def _class_for(name: str, net: str) -> type[MethodOnNetwork]:
    bases = (MethodOnNetwork, MethodItself) if net == ONCE else (MethodOnNetwork,)
    build = staticmethod(cases.NETS[net])
    return type(f"Test_{name}_{net}", bases, {"method": load_method(name), "network": build})


for _net in cases.NETS:
    for _name in method_names():
        globals()[f"Test_{_name}_{_net}"] = _class_for(_name, _net)


def test_cuda_result_lives_there() -> None:
    if not torch.cuda.is_available():
        pytest.skip("no GPU")
    for name in method_names():
        tested = _class_for(name, "zero_pad")
        problem = tested.problem()
        problem = replace(
            problem,
            model=problem.model.cuda(),
            example=torch.zeros(1, *cases.IMAGE, device="cuda"),
            train=problem.train.to("cuda"),
            validation=problem.validation.to("cuda"),
        )
        assert next(tested.build().prune(problem).model.parameters()).is_cuda


# --- the register ------------------------------------------------------------------------------------------


def test_unknown_method_names_the_nearest() -> None:
    with pytest.raises(InputError, match=r"unknown method 'incregg'; did you mean 'increg'\?.*magnitude"):
        load_method("incregg")


class Half(Method):
    """A method of somebody else's."""

    title = "half"
    source = "nobody, arXiv"

    @classmethod
    def space(cls, groups: object) -> Space:
        raise NotImplementedError

    def prune(self, problem: Problem) -> Pruned:
        raise NotImplementedError


def register(monkeypatch: pytest.MonkeyPatch, *places: tuple[str, str]) -> None:
    points = [EntryPoint(name, place, methods.GROUP) for name, place in places]

    def registered_parts(group: str) -> list[EntryPoint]:
        assert group == "paretoprune.methods"
        return points

    monkeypatch.setattr(named, "list_registered_parts", registered_parts)


def test_third_parties_register_by_entry_point(monkeypatch: pytest.MonkeyPatch) -> None:
    register(monkeypatch, ("half", "tests.methods.test_contract:Half"))
    assert "half" in method_names() and set(methods.METHODS) <= set(method_names())
    assert load_method("half") is Half


@pytest.mark.parametrize(
    ("places", "message"),
    [
        ([("half", "tests.methods.test_contract:Gone")], "method 'half' .*: unknown name in tests.*: 'Gone'"),
        ([("half", "no_such_package:Half")], "method 'half' .*: there is no module 'no_such_package'"),
        ([("half", "tests.methods.test_contract:ONCE")], "no subclass of methods.Method"),
        ([("half", "a:A"), ("half", "b:B")], "method 'half' is registered more than once: a:A, b:B"),
    ],
)
def test_broken_registrations(monkeypatch: pytest.MonkeyPatch, places: list[tuple[str, str]], message: str) -> None:
    register(monkeypatch, *places)
    with pytest.raises(InputError, match=message):
        load_method("half")


def test_taking_one_of_our_names_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    register(monkeypatch, ("increg", "tests.methods.test_contract:Half"))
    with pytest.raises(InputError, match="registered more than once: methods.increg.method:IncReg, tests"):
        load_method("increg")


def test_intruder_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = find_spec("json")
    monkeypatch.setattr(methods, "find_spec", lambda name: spec)
    with pytest.raises(ImportError, match=r"needs its own package 'spaces'.*json.*pip uninstall spaces"):
        methods._check_neighbour("spaces")
    monkeypatch.setattr(methods, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match="Python finds none"):
        methods._check_neighbour("spaces")


def test_lazy_names() -> None:
    assert methods.Problem is Problem and methods.Method is Method and methods.Recipe is Recipe
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        getattr(methods, "Nothing")  # noqa: B009  # mypy knows that it is not there


def test_importing_methods_is_cheap() -> None:
    """The command line imports this package for the names alone."""
    import subprocess
    import sys

    code = "import methods, sys; methods.method_names(); assert not {'torch', 'pydantic'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
