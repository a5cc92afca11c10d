"""Contract test of an objective, to be imported: what anybody's must do before a study is searched by it.

In a test file, with any network and data::

    from search.objectives.testing import check_objective

    def test_energy() -> None:
        check_objective(energy, context, dense)

Our own are tested by the same code. Plain assertions, no dependency on pytest.
"""

from __future__ import annotations

import json
import math

from search.objectives.base import MeasureContext, Objective
from search.records.outcome import DenseRow


def check_objective(objective: Objective, context: MeasureContext, dense: DenseRow) -> None:
    """Check that an objective can be measured, stored, written, limited and compared; assertions name what breaks.

    Args:
        objective: The objective.
        context: A network to measure; an objective that is not measured on a network alone does without.
        dense: A dense network with a value of the objective, or of anything else where that value is not needed.
    """
    name = objective.name
    stored = json.loads(json.dumps(objective.to_json(), allow_nan=False))
    assert Objective.from_json(stored) == objective, f"{name}: its description does not survive JSON"
    if objective.measure is not None:
        before = {key: value.clone() for key, value in context.model.state_dict().items()}
        first, second = objective.measure(context), objective.measure(context)
        assert isinstance(first, int | float) and math.isfinite(first), f"{name}: {first!r} is not a finite number"
        assert first == second, f"{name}: measured twice it gives {first} and {second}; a search would chase the noise"
        unchanged = all(value.equal(before[key]) for key, value in context.model.state_dict().items())
        assert unchanged, f"{name}: measuring changed the network"
    worst = objective.reference(dense)
    assert worst != objective.ideal, f"{name}: the worst acceptable value is the ideal one, so nothing can be gained"
    assert objective.gain(objective.ideal, dense) == 1 and objective.gain(worst, dense) == 0, f"{name}: gains are off"
    assert (worst < objective.ideal) == objective.maximise, f"{name}: its ideal lies on the side of the worse values"
    for value in (worst, (worst + objective.ideal) / 2):
        text = objective.format(value)
        assert text.strip() == text and text, f"{name}: {value} is written as {text!r}"
    if objective.relative and name in dense.metrics:
        half = objective.parse_limit("50%", dense, f"max-{name}")
        assert math.isclose(half, dense.metrics[name] / 2, abs_tol=1), f"{name}: half of dense is read as {half}"
