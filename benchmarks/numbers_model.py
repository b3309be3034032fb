"""A model made of numbers alone, with which the search is timed: no torch, no training, and records like real ones.

A chain of convolutions whose widths grow from 16 to 512. Narrowing a group by a factor costs quality in proportion to
the factor's logarithm; a few groups matter most. A cut also does damage that training mends: a trial inherits what is
left of its parent's, adds its own cut's, and halves it. Records hold what those of a study of classification hold:
200 deviations of the quality, which candidates have in common for the larger part, and a latency with its interval.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from autoprune.records.measurement import DEFAULT_PROFILE, Latency, Measurement
from autoprune.records.problem import DEFAULT_OBJECTIVES, Problem
from autoprune.records.sensitivity import Sensitivity
from autoprune.records.work import Work
from autoprune.search.proposal import Proposal, Result
from autoprune.search.search import Search
from autoprune.search.settings import StudySettings
from autoprune.search.state import Model, costs_of_widths
from autoprune.structure.topology import Topology
from autoprune.structure.written import Group, Layer, structure_of_layers

#: Shares of the channels at which the scan cuts; folds of the samples; error of the quality; steps of a trial.
_SHARES, _FOLDS, _ERROR, _STEPS = (0.75, 0.5, 0.25, 0.125), 200, 0.004, 100
#: Damage of a cut, before any training, relative to what the narrower model loses for good; share that training mends.
_DAMAGE, _MENDED = 3.0, 0.5
#: Time of a layer that computes nothing, as a share of the dense model's time over all layers.
_FIXED = 0.3


@dataclass(slots=True)
class NumbersModel:
    """A model of numbers and the trials that ran on it.

    Attributes:
        groups: Number of groups.
        scanned: Whether there is a scan.
        objectives: Objectives of the study.
        seed: Seed of the harms and of the noise.
        damage: Number of a candidate -> damage that is left of it.
    """

    groups: int = 40
    scanned: bool = True
    objectives: tuple[str, ...] = DEFAULT_OBJECTIVES
    seed: int = 0
    topology: Topology = field(init=False)
    problem: Problem = field(init=False)
    _harm: dict[str, float] = field(init=False)
    damage: dict[int, float] = field(init=False, default_factory=dict)
    _common: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        rng = np.random.default_rng(self.seed)
        names = [f"layer{number}" for number in range(self.groups)]
        stages = [min(5, 6 * number // self.groups) for number in range(self.groups)]
        groups = [Group(name=name, channels=16 << stage) for name, stage in zip(names, stages, strict=True)]
        layers = [
            Layer(name=name, groups=(before, name), weights=9, positions=4096 >> (2 * stage))
            for name, before, stage in zip(names[1:], names[:-1], stages[1:], strict=True)
        ]
        layers += [Layer(name="stem", groups=(names[0],), weights=27, positions=4096)]
        layers += [Layer(name="head", groups=(names[-1],), weights=10)]
        self.topology = Topology.of(structure_of_layers(groups, layers))
        self.problem = Problem(objectives=self.objectives, metric="accuracy", higher_is_better=True)
        harm = rng.lognormal(0.0, 1.0, self.groups)
        self._harm = dict(zip(names, (0.15 * harm / harm.sum()).tolist(), strict=True))
        self._common = rng.normal(0.0, _ERROR / math.sqrt(_FOLDS), _FOLDS)

    @property
    def model(self) -> Model:
        """The model, as a search takes it."""
        return Model(topology=self.topology, problem=self.problem, sensitivity=self._scan() if self.scanned else None)

    def settings(self, sampler: str, trials: int, seed: int = 0) -> StudySettings:
        """The settings of a study of its kind: the defaults, for so many trials."""
        plain = StudySettings(trials=trials, seed=seed, objectives=self.objectives)
        return plain.changed(
            {
                "search.sampler": sampler,
                "search.scan": self.scanned,
                "recovery.optimizers": ("sgd",),
                "recovery.steps": _STEPS,
            }
        )

    def result(self, search: Search, proposal: Proposal) -> Result:
        """Run a trial to its end, or to the rung at which the search stops it."""
        lost = self._lost(proposal.plan.widths)
        parent = next((one for one in search.records if one.number == proposal.start_from), None)
        inherited = 0.0 if parent is None else self.damage[parent.number]
        before = 0.0 if parent is None else self._lost(parent.widths)
        damage, fidelity = inherited + _DAMAGE * max(lost - before, 0.0), 1.0
        rungs = []
        for share in proposal.rungs:
            rungs.append((share, self._quality(proposal, lost + damage * _MENDED**share)))
            if search.should_stop(proposal, *rungs[-1]):
                fidelity = max(share, 0.01)
                break
        self.damage[proposal.number] = damage * _MENDED**fidelity
        steps = proposal.plan.recovery.steps
        return Result(
            measurement=self._measured(proposal, lost + self.damage[proposal.number]),
            rungs=tuple(rungs),
            fidelity=fidelity,
            work=Work(trained=round(128 * steps * fidelity), forward=512 * (1 + len(rungs))),
            seconds={"cut": 0.1, "train": 0.05 * steps * fidelity, "evaluate": 0.5, "latency": 2.0, "store": 0.1},
        )

    def _lost(self, widths: Mapping[str, int]) -> float:
        return sum(harm * math.log(self.topology.widths[name] / widths[name]) for name, harm in self._harm.items())

    def _quality(self, proposal: Proposal, lost: float) -> float:
        noise = np.random.default_rng([self.seed, proposal.number, round(1e6 * lost)])
        return 0.92 - lost + float(noise.normal(0.0, _ERROR / 3))

    def _measured(self, proposal: Proposal, lost: float) -> Measurement:
        """The measurement of a trained model."""
        costs, whole = costs_of_widths(proposal.plan, self.topology), self.topology.cost({}).multiply_adds
        noise = np.random.default_rng([self.seed, proposal.number])
        own = noise.normal(0.0, _ERROR / 3 / math.sqrt(_FOLDS), _FOLDS)
        ratio = (_FIXED + (1 - _FIXED) * costs.multiply_adds / whole) * math.exp(noise.normal(0.0, 0.005))
        latency = Latency(
            latency_ms=10 * ratio,
            low_ms=9.9 * ratio,
            high_ms=10.1 * ratio,
            dense_ms=10.0,
            ratio=ratio,
            ratio_low=0.99 * ratio,
            ratio_high=1.01 * ratio,
            backend="none",
            rounds=30,
        )
        deviations = tuple((self._common + own).tolist())
        return Measurement(
            split="search",
            quality=self._quality(proposal, lost),
            quality_error=math.hypot(*deviations),
            metrics={"accuracy": 0.92 - lost},
            parameters=costs.parameters,
            multiply_adds=costs.multiply_adds,
            size_bytes=costs.size_bytes,
            latencies={DEFAULT_PROFILE: latency},
            deviations=deviations,
        )

    def _scan(self) -> Sensitivity:
        added = {name: tuple(harm * math.log(1 / share) for share in _SHARES) for name, harm in self._harm.items()}
        return Sensitivity(keep_shares=_SHARES, added_loss=added, criterion="l2", samples_forward=0, samples_trained=0)
