from __future__ import annotations

import json
import math
import re
from random import Random
from statistics import mean
from typing import cast

import numpy
import pytest
from hypothesis import assume, given

from spaces import Categorical, InputError, Integer, LogReal, Parameter, Range, Real, Value
from spaces.parameters import parameter_from_json
from tests.spaces.cases import categoricals, integers, log_reals, parameters, patient, reals, seeds, shares

REAL = Real(0, 1, default=0.5)
LOG_REAL = LogReal(1e-4, 1e-1, default=0.01)
INTEGER = Integer(1, 8, default=4)
CHOICE = Categorical(("flops", "uniform", "stage"), default="flops")


@patient
@given(parameters, seeds)
def test_what_is_sampled_is_allowed_and_has_the_right_type(parameter: Parameter, seed: int) -> None:
    value = parameter.sample(Random(seed))
    checked = parameter.check("x", value)
    assert (type(checked), checked) == (type(value), value)


@patient
@given(parameters)
def test_json_round_trip(parameter: Parameter) -> None:
    text = json.dumps(parameter.to_json(), allow_nan=False)
    again = parameter_from_json(json.loads(text))
    assert again == parameter
    assert json.dumps(again.to_json()) == text


@patient
@given(reals() | log_reals(), shares, shares, seeds)
def test_a_narrowed_range_is_a_subset(parameter: Range, one: float, two: float, seed: int) -> None:
    low, high = sorted(parameter.low * (1 - share) + parameter.high * share for share in (one, two))
    assume(parameter.low <= low and high <= parameter.high)  # rounding may leave the range
    narrow = parameter.narrow("x", {"low": low, "high": high})
    assert (narrow.low, narrow.high) == (low, high)
    assert narrow.default in (None, parameter.default)
    assert low <= narrow.sample(Random(seed)) <= high


@patient
@given(integers(), shares, shares, seeds)
def test_a_narrowed_integer_is_a_subset(parameter: Range, one: float, two: float, seed: int) -> None:
    width = parameter.high - parameter.low
    low, high = sorted(parameter.low + round(width * share) for share in (one, two))
    narrow = parameter.narrow("x", {"low": low, "high": high})
    assert (narrow.low, narrow.high, narrow.log) == (low, high, parameter.log)
    assert low <= narrow.sample(Random(seed)) <= high


@patient
@given(categoricals(), seeds)
def test_a_narrowed_categorical_is_a_subset_in_the_old_order(parameter: Categorical, seed: int) -> None:
    wanted = Random(seed).sample(parameter.choices, k=Random(seed).randint(1, len(parameter.choices)))
    narrow = parameter.narrow("x", {"choices": wanted})
    assert narrow.choices == tuple(choice for choice in parameter.choices if choice in wanted)
    assert narrow.default == (parameter.default if parameter.default in wanted else None)


def test_logarithmic_parameters_are_drawn_on_a_logarithmic_scale() -> None:
    rng = Random(1)
    assert mean(math.log10(LOG_REAL.sample(rng)) for _ in range(2000)) == pytest.approx(-2.5, abs=0.1)
    log, linear = Integer(1, 100, log=True), Integer(1, 100)
    assert mean(log.sample(rng) <= 10 for _ in range(2000)) == pytest.approx(0.57, abs=0.05)
    assert mean(linear.sample(rng) <= 10 for _ in range(2000)) == pytest.approx(0.1, abs=0.03)
    ends = Integer(1, 4, log=True)  # 1 stands for 0.5 to 1.5, half of the way from 0.5 to 4.5
    assert mean(ends.sample(rng) == 1 for _ in range(4000)) == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize(
    ("parameter", "value", "checked"),
    [
        (REAL, 1, 1.0),
        (REAL, numpy.float32(0.25), 0.25),
        (LOG_REAL, 0.1, 0.1),
        (INTEGER, numpy.int64(8), 8),
        (Categorical((2, "2", True)), "2", "2"),
        (Categorical((2, "2", True)), 2.0, 2),
        (Categorical((2, "2", True)), True, True),
    ],
)
def test_values_are_brought_into_their_type(parameter: Parameter, value: object, checked: Value) -> None:
    result = parameter.check("x", value)
    assert (type(result), result) == (type(checked), checked)


@pytest.mark.parametrize(
    ("parameter", "value", "message"),
    [
        (REAL, 1.5, "parameter 'x' = 1.5 is not allowed; give a number from 0.0 to 1.0"),
        (REAL, True, "parameter 'x' = True is not allowed; give a number"),
        (REAL, math.nan, "parameter 'x' = nan is not allowed"),
        (REAL, "0.5", "parameter 'x' = '0.5' is not allowed; give a number"),
        (REAL, 10**400, "is not allowed; give a number from 0.0 to 1.0"),
        (LOG_REAL, math.inf, "parameter 'x' = inf is not allowed; give a number from 0.0001 to 0.1"),
        (Real(3, 3), 2, "parameter 'x' = 2 is not allowed; give 3.0"),
        (INTEGER, 9, "parameter 'x' = 9 is not allowed; give a whole number from 1 to 8"),
        (INTEGER, 3.0, "parameter 'x' = 3.0 is not allowed; give a whole number"),
        (INTEGER, True, "parameter 'x' = True is not allowed; give a whole number"),
        (CHOICE, "flop", "parameter 'x' = 'flop' is not allowed; did you mean 'flops'? (give one of 'flops', "),
        (CHOICE, 1, "parameter 'x' = 1 is not allowed (give one of 'flops', 'uniform', 'stage')"),
        (Categorical((8, 16, 32)), 15, "parameter 'x' = 15 is not allowed; did you mean 16?"),
        (Categorical((8, 16)), math.nan, "parameter 'x' = nan is not allowed (give one of 8, 16)"),
        (Categorical((8, 16)), 10**400, "is not allowed (give one of 8, 16)"),
        (Categorical((1, 2)), True, "parameter 'x' = True is not allowed (give one of 1, 2)"),
        (Categorical((True, False)), 1, "parameter 'x' = 1 is not allowed (give one of True, False)"),
        (Categorical(("l1",)), None, "parameter 'x' = None is not allowed (give 'l1')"),
    ],
)
def test_what_a_user_is_told_about_a_value(parameter: Parameter, value: object, message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        parameter.check("x", value)


@pytest.mark.parametrize(
    ("parameter", "bounds", "message"),
    [
        (REAL, {}, "bounds of parameter 'x' are empty; give low or high or value"),
        (REAL, {"lo": 0.1}, "unknown bound of parameter 'x': 'lo'; did you mean 'low'?"),
        (REAL, {"choices": [0.5]}, "unknown bound of parameter 'x': 'choices'"),
        (REAL, {"low": -1}, "low of parameter 'x' = -1 is not allowed; give a number from 0.0 to 1.0"),
        (REAL, {"high": 2}, "high of parameter 'x' = 2 is not allowed; give a number from 0.0 to 1.0"),
        (REAL, {"low": 0.6, "high": 0.4}, "parameter 'x': low = 0.6 is above high = 0.4"),
        (REAL, {"value": 0.5, "low": 0}, "parameter 'x': give either value or low, not both"),
        (LOG_REAL, {"value": 1}, "parameter 'x' = 1 is not allowed; give a number from 0.0001 to 0.1"),
        (INTEGER, {"low": 1.5}, "low of parameter 'x' = 1.5 is not allowed; give a whole number from 1 to 8"),
        (CHOICE, {"low": 1}, "unknown bound of parameter 'x': 'low'"),
        (CHOICE, {"choices": []}, "choices of parameter 'x' are empty; give one of 'flops'"),
        (CHOICE, {"choices": "flops"}, "choices of parameter 'x' must be a list, not 'flops'"),
        (CHOICE, {"choices": 3}, "choices of parameter 'x' must be a list, not 3"),
        (CHOICE, {"choices": ["stages"]}, "did you mean 'stage'?"),
    ],
)
def test_what_a_user_is_told_about_bounds(parameter: Parameter, bounds: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        parameter.narrow("x", bounds)


def test_fixing_and_defaults() -> None:
    assert REAL.narrow("x", {"value": 0.5}) == Real(0.5, 0.5, default=0.5)
    assert REAL.narrow("x", {"value": 1}) == Real(1, 1)
    assert LOG_REAL.narrow("x", {"high": 0.001}) == LogReal(1e-4, 1e-3)
    assert INTEGER.narrow("x", {"low": 3}) == Integer(3, 8, default=4)
    assert CHOICE.narrow("x", {"value": "stage"}) == Categorical(("stage",))
    assert [each.only for each in (REAL, LOG_REAL, INTEGER, CHOICE)] == [None] * 4
    assert [Real(2, 2).only, LogReal(2, 2).only, Integer(2, 2).only] == [2, 2, 2]
    assert Categorical((False,)).only is False


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Real(1, 0), "low = 1.0 is above high = 0.0"),
        (lambda: Real(0, math.inf), "high of a range must be a finite number, not inf"),
        (lambda: Real(0, True), "high of a range must be a finite number, not True"),
        (lambda: Real(0, 1, default=2), "default 2.0 is outside 0.0 to 1.0"),
        (lambda: LogReal(0, 1), "must start above 0, not at 0.0"),
        (lambda: Integer(0, 4, log=True), "must start at 1 or above, not at 0"),
        (lambda: Integer(1, cast(int, 2.5)), r"needs integers, not \(1, 2.5\)"),
        (lambda: Integer(1, 8, default=9), "default 9 is outside 1 to 8"),
        (lambda: Categorical(()), "at least one choice"),
        (lambda: Categorical((1, True)), "choice True equals another one"),
        (lambda: Categorical((math.nan,)), "not nan"),
        (lambda: Categorical((cast(str, None),)), "not None"),
        (lambda: Categorical((1, 2), default=True), r"default True is not among the choices \(1, 2\)"),
    ],
)
def test_parameters_that_cannot_be(build: object, message: str) -> None:
    assert callable(build)
    with pytest.raises(ValueError, match=message) as caught:
        build()
    assert not isinstance(caught.value, InputError)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"kind": "reel", "default": None}, "unknown kind of parameter 'reel'; did you mean 'real'"),
        ({"kind": "real", "default": None}, "does not describe a parameter: 'low'"),
        ({**REAL.to_json(), "low": "a"}, "low of a range must be a finite number, not 'a'"),
        ({**CHOICE.to_json(), "choices": None}, "does not describe a parameter"),
    ],
)
def test_json_that_describes_no_parameter(data: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        parameter_from_json(data)
