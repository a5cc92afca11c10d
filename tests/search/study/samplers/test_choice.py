from __future__ import annotations

import pytest

from search.study.samplers.choice import resolve_sampler
from search.study.space import study_space
from spaces import InputError, LayerGroup

GROUPS = [LayerGroup("conv1", 16, "8x8", 0.0), LayerGroup("conv2", 32, "4x4", 1.0)]
SINGLE = study_space(("magnitude",), GROUPS, "flops", {})
SEVERAL = study_space(("magnitude", "random"), GROUPS, "flops", {})
MODES = study_space(("magnitude",), GROUPS, "any", {})


def test_sampler_fits_the_space() -> None:
    assert [resolve_sampler("auto", space) for space in (SINGLE, SEVERAL, MODES)] == ["exact"] * 3
    assert resolve_sampler("nsga2", SINGLE) == "nsga2"
    assert [resolve_sampler("tpe", space) for space in (SINGLE, SEVERAL, MODES)] == ["tpe"] * 3


@pytest.mark.parametrize("sampler", ["gp", "nsga2"])
@pytest.mark.parametrize("space", [SEVERAL, MODES])
def test_a_sampler_that_would_be_random_search_is_refused(sampler: str, space: object) -> None:
    with pytest.raises(InputError, match=f"sampler = '{sampler}' would be random search here: .*sparsity.flops"):
        resolve_sampler(sampler, space)  # type: ignore[arg-type]
