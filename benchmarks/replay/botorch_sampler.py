"""BoTorch as a sampler of the port, for races: a process on the quality, the cost known, noisy expected improvement.

Points of all methods are one vector (one-hot method, octaves of FLOPs asked for, the method's slots in columns of its
own), the quality is a ``SingleTaskGP`` with known binomial noise, the cost a deterministic model of the candidate's
column, and the acquisition ``qLogNoisyExpectedHypervolumeImprovement`` on a pool of candidates like ours. A fit takes
seconds on one core, so that BoTorch is no dependency; ``pip install botorch`` runs it here.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
import torch

from search.study.samplers.base import Aim, CostOf, Tried
from search.study.samplers.slots import Floats, Slots
from search.study.samplers.surrogate import FLOOR
from search.study.space import METHOD, select_own_space
from spaces import Categorical, Space, Value

CANDIDATES = 60
"""Candidates of each method."""

START = 4
"""Trials that must be known before the process is fitted."""


class BoTorchSampler:
    """Proposes by BoTorch.

    Args:
        aim: What is searched for.
        seed: Decides the candidates.
    """

    def __init__(self, aim: Aim, seed: int) -> None:
        self._aim, self._seed = aim, seed
        dense = next(axis.dense for axis in aim.axes if axis.name == "flops")
        assert dense is not None
        self._dense = dense

    def observe(self, trial: Tried) -> None:
        """Learn from the history alone."""

    def propose(self, history: Sequence[Tried], space: Space, cost: CostOf, n: int) -> list[dict[str, Value]]:
        """Propose points."""
        rng = np.random.default_rng((self._seed, len(history)))
        parameter = space[METHOD]
        assert isinstance(parameter, Categorical)
        slots = {str(method): Slots(select_own_space(space, str(method))) for method in parameter.choices}
        pool: list[tuple[str, Floats]] = []
        for method, own in slots.items():
            drawn = rng.random((CANDIDATES, len(own)))
            start = drawn if own.default is None else np.tile(own.default, (CANDIDATES, 1))
            units = np.where(rng.random(drawn.shape) < rng.choice([0.1, 1.0], (CANDIDATES, 1)), drawn, start)
            for slot, name in enumerate(own.names):
                if "flops" in name or name == "sparsity.tilt":
                    units[:, slot] = drawn[:, slot]
            pool += [(method, unit) for unit in own.canonicalise(units)]
        complete = [trial for trial in history if trial.state == "complete"]
        chosen = int(rng.integers(len(pool)))
        if len(complete) >= START:
            chosen = self._choose_best(pool, history, complete, slots)
        method, unit = pool[chosen]
        point = slots[method].decode(unit)
        return [{METHOD: method, **{f"{method}.{name}": value for name, value in point.items()}}]

    def _choose_best(
        self,
        pool: list[tuple[str, Floats]],
        history: Sequence[Tried],
        complete: Sequence[Tried],
        slots: dict[str, Slots],
    ) -> int:
        from botorch.acquisition.multi_objective.logei import qLogNoisyExpectedHypervolumeImprovement
        from botorch.fit import fit_gpytorch_mll
        from botorch.models import ModelListGP, SingleTaskGP
        from botorch.models.deterministic import GenericDeterministicModel
        from botorch.models.model import ModelList
        from gpytorch.mlls import ExactMarginalLogLikelihood

        warnings.simplefilter("ignore")
        torch.manual_seed(self._seed)
        methods = list(slots)
        width = max(len(own) for own in slots.values())

        def vector(method: str, unit: Floats, saving: float) -> Floats:
            padded = np.full(width * len(methods), 0.5)
            at = width * methods.index(method)
            padded[at : at + len(unit)] = unit
            return np.concatenate([np.eye(len(methods))[methods.index(method)], [saving / 4.3], padded])

        def find_share(method: str, unit: Floats) -> float:
            target = next((name for name in slots[method].names if name.endswith("flops")), None)
            return 1.5 if target is None else float(-np.log2(slots[method].values(target, unit[None])[0]))

        def encode_trial(trial: Tried) -> Floats:
            unit = slots[trial.method].canonicalise(slots[trial.method].encode(trial.point)[None])[0]
            reached = trial.metrics.get("flops")
            saving = find_share(trial.method, unit) if reached is None else float(-np.log2(reached / self._dense))
            return vector(trial.method, unit, saving)

        x = torch.tensor(np.array([encode_trial(trial) for trial in complete]))
        error = np.array([1 - trial.metrics["accuracy"] for trial in complete])
        y = -torch.tensor(np.log(error + FLOOR))[:, None]
        examples = self._aim.quality.examples or 359
        noise = torch.tensor(((1 - error) / (examples * (error + FLOOR))).clip(1e-3, 0.6))[:, None]
        quality = SingleTaskGP(x, (y - y.mean()) / y.std(), noise / y.std() ** 2)
        fit_gpytorch_mll(ExactMarginalLogLikelihood(quality.likelihood, quality))
        column = len(methods)
        model = ModelList(ModelListGP(quality), GenericDeterministicModel(lambda at: at[..., column : column + 1]))
        worst = float((-np.log(1 - (self._aim.quality.dense or 1.0) + self._aim.drop + FLOOR) - y.mean()) / y.std())
        running = [trial for trial in history if trial.state == "running"]
        acquisition = qLogNoisyExpectedHypervolumeImprovement(
            model,
            torch.tensor([worst, 0.0], dtype=torch.double),
            x,
            X_pending=torch.tensor(np.array([encode_trial(trial) for trial in running])) if running else None,
            prune_baseline=True,
        )
        vectors = np.array([vector(method, unit, find_share(method, unit)) for method, unit in pool])
        with torch.no_grad():
            values = torch.cat([acquisition(part[:, None]) for part in torch.tensor(vectors).split(60)])
        return int(values.argmax())
