"""EigenDamage: rotate every layer into the eigenbasis of its Fisher matrix, drop directions there, rotate back.

Deleting a weight costs the loss what a quadratic form with the Fisher matrix says, if that matrix is known. Its
diagonal alone (OBD) is a poor stand-in, for the weights of a filter act together; but in the eigenbasis of its
Kronecker-factored approximation it is diagonal, and there OBD is as good as OBS. What is dropped are directions, that
is, combinations of channels, the cheapest of the whole network first. Each layer becomes a 1x1 layer, a small core and
a 1x1 layer; widths between layers stay, so nothing is coupled.

Chaoqi Wang, Roger Grosse, Sanja Fidler, Guodong Zhang: "EigenDamage: Structured Pruning in the Kronecker-Factored
Eigenbasis", ICML 2019, arXiv 1905.05934; its Algorithm 1::

    A, G       covariances of inputs and of output gradients (true Fisher)        methods.curvature.covariances
    Q_A, Q_G   their eigenvectors;  W' = Q_G^T W Q_A                              methods.eigendamage.kronecker
    Theta[r,s] = 1/2 lambda_G[r] lambda_A[s] sum_d W'[r,d,s]^2
    row r costs sum_s Theta[r,s], column s costs sum_r Theta[r,s];
    those up to a threshold over all layers go                                    methods.eigendamage.directions
    W -> Q_G core Q_A^T, three layers                                             methods.eigendamage.rotation
    fine-tune; again from the start, on the cores (iterative version)

``variant`` also offers EK-FAC variances in place of the products of eigenvalues, and the paper's four baselines in
weight space (``methods.eigendamage.surgeon``), which prune coupled channels. What differs from the paper and its code:

* The threshold follows from the wanted FLOPs, counted on the network as it will be built. The authors' ratio of
  directions is there too (``sparsity.mode = "uniform"``, ``selection = "global"``).
* The bias stays outside the rotation; the released code rotates it as a constant channel, wrong at padded borders.
* Grouped convolutions are rotated group by group; depthwise ones are left alone.
* Neighbouring parts are multiplied out where that is cheaper (``realise="cheapest"``), always so for 1x1 and linear
  layers, and no layer is rewritten that would not get smaller and cheaper.
* Damages compete per multiply-accumulate that goes with a direction (``score_norm="none"`` is the paper's way): for
  given FLOPs that predicts less damage, and spares the small late layers.
* Averages are running means, so that damages are increases of the loss.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import ClassVar, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import nn

from methods.contract.loop import require_batches
from methods.contract.method import Method, Preview, Problem, Pruned, Record
from methods.contract.recipe import derive_seed
from methods.contract.session import TrialAnalyses
from methods.curvature.fisher import Fisher
from methods.curvature.fisher_sampling import Sampling
from methods.eigendamage.allotment import Round, Selection, Side, choose, explain_unreachable, scale_rankings
from methods.eigendamage.directions import Ranking, choose_least, limit_ranking
from methods.eigendamage.eigenspace import (
    Eigenspace,
    ScoreNorm,
    analyse,
    flops_of,
    list_rotations,
)
from methods.eigendamage.filter_surgery import Surgeon, Surgery, Update
from methods.eigendamage.rank_damage import Ranks, choose_by_damage, list_ranks, measure_rank_damages
from methods.eigendamage.results import count_removed, layer_results
from methods.eigendamage.rewriting_plan import Plan, plan
from methods.eigendamage.rotation_cost import Forms, Realise
from methods.eigendamage.unit_damage import Operation, is_scorable, operate, producers, unit_rankings
from methods.training.damage import keep_by_damage
from methods.training.one_shot import cut_and_finetune, cut_metrics, draw_seed
from methods.training.trainer import Trainer, recalibrate
from spaces import (
    ByDamage,
    Categorical,
    Condition,
    FlopsTarget,
    InputError,
    Integer,
    LayerGroup,
    LogReal,
    Parameter,
    Real,
    Space,
    Sparsity,
    Value,
    sparsity_space,
)
from spaces.budget import Curve

Variant = Literal["eigendamage", "eigendamage_ek", "c_obd", "c_obs", "kron_obd", "kron_obs"]

MEASURED = {"eigendamage": False, "eigendamage_ek": True}
"""Variants that rotate, and whether they measure variances in the eigenbasis."""

SURGERY: tuple[Surgery, ...] = ("c_obd", "c_obs", "kron_obd", "kron_obs")
"""Variants in weight space."""


class EigenDamage(Method):
    """Prune directions in the Kronecker-factored eigenbasis, or coupled channels by the same Fisher matrix.

    Attributes:
        sparsity: How much is kept. With a FLOPs target a threshold follows, and by damage the numbers of directions at
            which measured damages of layers add up to least; ratios are shares of directions (of channels, in weight
            space), and both sides of a layer follow the ratios of their channel groups.
        variant: ``"eigendamage"``; ``"eigendamage_ek"`` with variances measured in the eigenbasis; or in weight space
            ``"c_obd"``, ``"c_obs"``, ``"kron_obd"``, ``"kron_obs"``.
        selection: One threshold for the damages of all layers (``"global"``), or the same share of every layer
            (``"per_layer"``); with ratios by stage or layer there is no threshold.
        ratio_limit: Largest share that goes on one side of one layer.
        score_norm: What damages are divided by before layers compete: nothing (the authors), the damage of the whole
            layer, the multiply-accumulates or parameters that go with the direction, or (``"marginal"``) what is lost
            by the multiply-accumulates that are saved when it is the next to go; in weight space that is ``"per_mac"``.
        fisher_type: Targets drawn from the network's own predictions (``"mc"``; of a classifier labels from its
            softmax), all outcomes weighted by them (``"exact"``), or the data's targets (``"empirical"``).
        fisher_samples: Training examples looked at, at most all of them once.
        mc_labels: Labels drawn for each.
        fisher_seed: Decides which examples and labels, and where decompositions begin; not the trial's, so that
            trials share the analysis.
        damping: Added to eigenvalues before they are inverted, in units of their mean (OBS variants).
        obs_update: Whether the other filters are corrected for each removed weight or filter alone (the authors)
            or for all at once.
        prune_first: Whether the first layer is rewritten.
        prune_last: Whether the last layer is rewritten.
        rounds: How often covariances are collected and directions removed; the FLOPs fall geometrically.
        between_share: Share of the budget spent on training between rounds.
        rotation_trainable: Whether the 1x1 layers are fine-tuned.
        realise: Always three layers, or the equal chain with the fewest multiply-accumulates.
        separable: Whether cores with a kernel become depthwise, which is not exact.
        cp_rank_frac: Channels of a depthwise core, as a share of the smaller number of directions.
        als_iters: Sweeps of the decomposition.
        round_to: Kept numbers are multiples of this.
    """

    title: ClassVar[str] = "directions of least damage in the Kronecker-factored eigenbasis"
    source: ClassVar[str] = "Wang, Grosse, Fidler, Zhang, 2019, arXiv 1905.05934"
    presets: ClassVar[Mapping[str, Mapping[str, Value]]] = {
        "paper": {
            "variant": "eigendamage",
            "selection": "global",
            "score_norm": "none",
            "realise": "three_layer",
            "fisher_type": "mc",
        },
    }
    flops_parameter: ClassVar[str | None] = "sparsity.flops"
    rounds_widths: ClassVar[bool] = True
    by_damage: ClassVar[Mapping[str, Value]] = {"sparsity.mode": "damage"}
    exact_with: ClassVar[Mapping[str, Value]] = {"rounds": 1}
    predicts_damage: ClassVar[bool] = True

    sparsity: Sparsity
    variant: Variant = "eigendamage"
    selection: Selection = "per_layer"
    ratio_limit: float = Field(default=0.95, ge=0, lt=1)
    score_norm: ScoreNorm = "per_mac"
    fisher_type: Fisher = "mc"
    fisher_samples: int = Field(default=2048, ge=1)
    mc_labels: int = Field(default=1, ge=1)
    fisher_seed: int = Field(default=0, ge=0)
    damping: float = Field(default=1e-3, gt=0)
    obs_update: Update = "joint"
    prune_first: bool = True
    prune_last: bool = False
    rounds: int = Field(default=1, ge=1)
    between_share: float = Field(default=0.5, ge=0, lt=1)
    rotation_trainable: bool = True
    realise: Realise = "cheapest"
    separable: bool = False
    cp_rank_frac: float = Field(default=1.0, gt=0, le=1)
    als_iters: int = Field(default=50, ge=1)
    round_to: int = Field(default=1, ge=1)

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        """Check what one field alone cannot show.

        Returns:
            The method.

        Raises:
            ValueError: If fields contradict each other.
        """
        if self.variant not in MEASURED and (self.rounds > 1 or self.separable):
            raise ValueError(
                f"rounds and separable need a variant that rotates, one of {sorted(MEASURED)}, not {self.variant!r}"
            )
        if isinstance(self.sparsity, ByDamage) and self.selection == "global":
            raise ValueError("selection 'global' lets predicted damages compete; sparsity.mode 'damage' measures them")
        return self

    @classmethod
    def space(cls, groups: Sequence[LayerGroup]) -> Space:
        """Return the search space.

        Numbers of samples and labels are choices, not ranges: all trials with the same share one analysis.

        Args:
            groups: The prunable channel groups.

        Returns:
            The space.
        """
        own: dict[str, Parameter] = {
            "variant": Categorical((*MEASURED, *SURGERY), default="eigendamage"),
            "selection": Categorical(("global", "per_layer"), default="per_layer"),
            "score_norm": Categorical(("none", "layer_sum", "per_mac", "per_param", "marginal"), default="per_mac"),
            "ratio_limit": Real(0.5, 0.97, default=0.95),
            "fisher_type": Categorical(("mc", "exact", "empirical"), default="mc"),
            "fisher_samples": Categorical((512, 2048, 8192, 32768), default=2048),
            "mc_labels": Categorical((1, 4, 16), default=1),
            "damping": LogReal(1e-8, 1e-1, default=1e-3),
            "obs_update": Categorical(("independent", "joint"), default="joint"),
            "prune_first": Categorical((True, False), default=True),
            "prune_last": Categorical((True, False), default=False),
            "rounds": Integer(1, 12, default=1),
            "rotation_trainable": Categorical((True, False), default=True),
            "realise": Categorical(("three_layer", "cheapest"), default="cheapest"),
            "separable": Categorical((True, False), default=False),
            "cp_rank_frac": Real(0.25, 1.0, default=1.0),
            "als_iters": Integer(10, 200, log=True, default=50),
        }
        surgery, rotating = Condition("variant", ("c_obs", "kron_obs")), Condition("variant", tuple(MEASURED))
        conditions = {
            "selection": Condition("sparsity.mode", ("flops", "uniform")),
            "score_norm": Condition("selection", ("global",)),
            # A limit can put a FLOPs target out of reach; there it keeps its default.
            "ratio_limit": Condition("sparsity.mode", ("uniform", "stage", "layer")),
            "mc_labels": Condition("fisher_type", ("mc",)),
            "damping": surgery,
            "obs_update": surgery,
            "cp_rank_frac": Condition("separable", (True,)),
            "als_iters": Condition("separable", (True,)),
        }
        turned = ("prune_first", "prune_last", "rounds", "rotation_trainable", "realise", "separable")
        joint = sparsity_space(groups, damage=True)
        return Space(
            dict(joint) | own,
            {name: each for name in joint if (each := joint.condition(name))}
            | conditions
            | dict.fromkeys(turned, rotating),
        )

    def check(self, problem: Problem) -> None:
        """Refuse a network in which nothing can be rewritten, and a target that is out of reach.

        Args:
            problem: The network, the data and the budget.
        """
        require_batches(problem.task, "eigendamage", "for the Fisher matrix")
        if self.variant in MEASURED:
            self._plan(problem)

    def prune(self, problem: Problem) -> Pruned:
        """Analyse, choose, rewrite or cut, and fine-tune.

        Args:
            problem: The network, the data and the budget.

        Returns:
            The smaller network. ``extra`` holds ``predicted_damage`` (an increase of the loss), ``accuracy_cut``,
            ``flops_share``, ``ratio_reached`` (the share of directions or channels that is gone, whatever was wanted
            and prevented), ``layers_left_dense`` with one ``left_dense[NAME]`` for each, and of every rewritten
            layer ``rank_in[NAME]`` and ``rank_out[NAME]``.
        """
        return self._prune_directions(problem) if self.variant in MEASURED else self._prune_channels(problem)

    @property
    def has_costly_preview(self) -> bool:
        """It needs the analysis of the dense network."""
        return True

    def preview(self, problem: Problem) -> Preview:
        """Say what a decision comes to before anything is trained: next to free where the analysis is known.

        Args:
            problem: The network, the data and known analyses; nothing is drawn from its generator.

        Returns:
            Cost and predicted damage; with several rounds, in which ranks move, as if all went in the first.
        """
        if self.variant in MEASURED:
            job = self._plan(problem)
            space = self._eigenspace(problem, job, problem.model, Round(), seed=0)
            choice = self._choice(problem, job, space, Round(), self._curves(problem, job, space))
            kept = space.describe_choice(choice)
            built = space.rewrite(kept, self.als_iters, self._start_of_separation())
            harm = sum(each.damage for each in kept.values()) + built.separation_damage
            return Preview(space.flops(choice), sum(p.numel() for p in built.model.parameters()), harm)
        operation = self._operation(problem)
        kept_units = {name: len(units) for name, units in operation.kept.items()}
        return replace(problem.preview(kept_units), damage=operation.damage)

    def _sampling(self, problem: Problem, seed: int) -> Sampling:
        labels, samples, batch_size = self.mc_labels, self.fisher_samples, problem.recipe.batch_size
        return Sampling.from_split(problem.train, self.fisher_type, labels, samples, batch_size, seed)

    def _ratios(self, problem: Problem) -> dict[str, float]:
        """Return the share to be removed from each channel group, where the sparsity decides by group."""
        groups = problem.groups
        if isinstance(self.sparsity, FlopsTarget):
            return {group.name: 0.0 for group in groups}
        if isinstance(self.sparsity, ByDamage):
            keep = keep_by_damage(problem, self.sparsity, groups, 1)
        else:
            keep = self.sparsity.keep([group.layer for group in groups], len)
        return {group.name: 1 - keep[group.name] / group.channels for group in groups}

    # --- directions --------------------------------------------------------------------------------------------

    def _prune_directions(self, problem: Problem) -> Pruned:
        job, seed = self._plan(problem), draw_seed(problem.generator)
        model, harm, history, curves = problem.model, 0.0, list[Record](), dict[str, Curve]()
        between = int(self.between_share * problem.steps) // max(1, self.rounds - 1)
        for number in range(1, self.rounds):
            present, own = Round(number, self.rounds), derive_seed(seed, number)
            space = self._eigenspace(problem, job, model, present, derive_seed(own, 0))
            curves = curves or self._curves(problem, job, space)
            kept = space.describe_choice(self._choice(problem, job, space, present, curves), final=False)
            harm += sum(each.damage for each in kept.values())
            model = space.rewrite_in_three_parts(kept)
            _reestimate(problem, model, derive_seed(own, 1))
            fixed = list_rotations(model, list(job.shapes))
            history = self._train_after_round(problem, model, fixed, between, derive_seed(own, 2), history, present)
        last, own = Round(self.rounds, self.rounds), derive_seed(seed, self.rounds)
        space = self._eigenspace(problem, job, model, last, derive_seed(own, 0))
        choice = self._choice(problem, job, space, last, curves or self._curves(problem, job, space))
        kept = space.describe_choice(choice)
        harm += sum(each.damage for each in kept.values())
        built = space.rewrite(kept, self.als_iters, self._start_of_separation())
        harm += built.separation_damage
        _reestimate(problem, built.model, derive_seed(own, 1))
        before = cut_metrics(built.model, problem)
        left = problem.steps - between * (self.rounds - 1)
        history = self._train_after_round(
            problem, built.model, built.rotations, left, derive_seed(own, 2), history, last
        )
        results = {
            "predicted_damage": harm,
            **before,
            "flops_share": space.flops(choice) / job.dense,
            "ratio_reached": count_removed(job, kept),
        }
        return Pruned(
            model=built.model,
            kept={group.name: list(range(group.channels)) for group in job.groups},
            history=history,
            steps=problem.steps,
            extra=results | layer_results(job, kept, built),
        )

    def _plan(self, problem: Problem) -> Plan:
        """Find the layers to rewrite, and make sure at once that a target can be reached.

        Args:
            problem: The network.

        Returns:
            The plan.

        Raises:
            InputError: If there is nothing to rewrite, or the target cannot be reached.
        """
        job = plan(problem, self.prune_first, self.prune_last)
        if isinstance(self.sparsity, FlopsTarget | ByDamage):
            sides = job.sides(problem.model, {group.name: 0.0 for group in job.groups})
            steps = [shape.step(self.round_to) for shape in job.shapes.values() for _ in ("in", "out")]
            anything = [
                Ranking((1.0,) * side.size, limit_ranking(side.size, self.ratio_limit), step)
                for side, step in zip(sides, steps, strict=True)
            ]
            narrowest = choose_least(scale_rankings(0.0, self.selection, anything, sides))
            smallest = flops_of(job.shapes, narrowest, self._forms, job.rest)
            if smallest > self.sparsity.flops * job.dense:
                raise InputError(explain_unreachable(self.sparsity.flops, smallest, job.dense))
        return job

    @property
    def _surgery(self) -> Surgery:
        assert self.variant in SURGERY
        return self.variant

    @property
    def _forms(self) -> Forms:
        return Forms(self.realise, self.cp_rank_frac if self.separable else None)

    def _start_of_separation(self) -> torch.Generator:
        """Draw where decompositions begin; the same for all trials, so that what was previewed is what comes."""
        return torch.Generator().manual_seed(derive_seed(self.fisher_seed, 3))

    def _eigenspace(self, problem: Problem, job: Plan, model: nn.Module, present: Round, seed: int) -> Eigenspace:
        """Analyse the dense network, for all trials at once, or what earlier rounds made of it."""
        first = present.number == 1
        analysis = analyse(
            model,
            problem.train,
            list(job.analysed if first else job.shapes),
            self._sampling(problem, self.fisher_seed if first else seed),
            MEASURED[self.variant],
            problem.analyses if first else TrialAnalyses(problem.session, f"round {present.number}"),
            problem.progress,
            problem.task,
        )
        return Eigenspace(model, job.shapes, analysis, self._forms, job.rest)

    def _curves(self, problem: Problem, job: Plan, space: Eigenspace) -> dict[str, Curve]:
        """Measure what fewer directions do to each layer of the dense network, where the sparsity goes by damage."""
        if not isinstance(self.sparsity, ByDamage):
            return {}
        forms = self._forms
        settings = {
            **self._sampling(problem, self.fisher_seed).settings(),
            "measured": MEASURED[self.variant],
            "realise": forms.realise,
            "rank_share": forms.rank_share,
            "sweeps": self.als_iters if self.separable else None,
        }

        def rewrite(name: str, columns: int, rows: int) -> nn.Module | None:
            whole = [(shape.columns, shape.rows) for shape in job.shapes.values()]
            whole[list(job.shapes).index(name)] = columns, rows
            kept = space.describe_choice([number for pair in whole for number in pair])[name]
            if kept.form.segments is None:
                return None
            return space.rewrite({name: kept}, self.als_iters, self._start_of_separation()).model

        return measure_rank_damages(problem, self._ranks(problem, job), settings, rewrite)

    def _ranks(self, problem: Problem, job: Plan) -> dict[str, Ranks]:
        return list_ranks(job, problem, self.ratio_limit, self.round_to)

    def _choice(
        self, problem: Problem, job: Plan, space: Eigenspace, present: Round, curves: Mapping[str, Curve]
    ) -> list[int]:
        if isinstance(self.sparsity, ByDamage):
            return choose_by_damage(self.sparsity, space, job, self._ranks(problem, job), curves, present)
        limit = 1 - present.share(1 - self.ratio_limit)
        rankings = space.rankings(limit, self.score_norm, self.round_to)
        sides = job.sides(problem.model, self._ratios(problem))
        return choose(self.sparsity, self.selection, rankings, sides, space.flops, job.dense, present)

    def _train_after_round(
        self,
        problem: Problem,
        model: nn.Module,
        rotations: Sequence[nn.Parameter],
        steps: int,
        seed: int,
        history: Sequence[Record],
        present: Round,
    ) -> list[Record]:
        """Train in place after a round, and return the longer history."""
        trainable = self.rotation_trainable
        epochs, used = (int(history[-1]["epoch"]), int(history[-1]["step"])) if history else (0, 0)
        for weight in rotations:
            weight.requires_grad_(trainable)
        trainer = Trainer(
            model,
            problem.train,
            problem.recipe,
            steps,
            seed,
            validation=problem.validation,
            teacher=problem.model,
            report=problem.report,
            epochs_before=epochs,
            steps_before=used,
            task=problem.task,
            comparable=present.last,
        )
        records = problem.session.train("finetune" if present.last else f"round {present.number}", trainer)
        for weight in rotations:
            weight.requires_grad_(True)
        return [*history, *records]

    # --- channels ----------------------------------------------------------------------------------------------

    def _prune_channels(self, problem: Problem) -> Pruned:
        done = self._operation(problem)
        units = sum(len(left) for left in done.kept.values()), sum(group.channels for group in done.groups)
        results = {
            "predicted_damage": done.damage,
            "flops_share": done.flops / done.dense,
            "ratio_reached": 1 - units[0] / units[1],
        }
        dense = {f"left_dense[{name}]": 1.0 for name in done.whole}
        extra = results | {"layers_left_dense": float(len(dense))} | dense
        return cut_and_finetune(problem, done.groups, done.kept, model=done.model, extra=extra)

    def _operation(self, problem: Problem) -> Operation:
        """Choose the units to remove, and correct the filters that stay."""
        groups, cost = problem.groups, problem.cost
        able = [group for group in groups if is_scorable(problem.model, group)]
        surgeon = Surgeon(self._surgery, self.damping, self.obs_update)
        filters = surgeon.filters(problem, producers(problem), self._sampling(problem, self.fisher_seed))
        orders, rankings = unit_rankings(
            problem.model, able, filters, cost, self.score_norm, self.ratio_limit, self.round_to
        )
        ratios = self._ratios(problem)
        sides = [Side(group.channels, group.depth, ratios[group.name]) for group in able]

        def flops(choice: Sequence[int]) -> int:
            return cost.flops({group.name: count for group, count in zip(able, choice, strict=True)})

        choice = choose(self.sparsity, self.selection, rankings, sides, flops, cost.dense, Round())
        kept = {group.name: list(range(group.channels)) for group in groups}
        for group, order, count in zip(able, orders, choice, strict=True):
            kept[group.name] = sorted(order[:count])
        model, harm = operate(problem.model, groups, kept, filters)
        whole = [group.name for group in groups if group not in able]
        return Operation(groups, kept, model, harm, flops(choice), cost.dense, whole)


def _reestimate(problem: Problem, model: nn.Module, seed: int) -> None:
    """Estimate batch norm again, as often as the recipe says."""
    recalibrate(model, problem.train, problem.recipe.recalibrate, problem.recipe.batch_size, seed)
