"""A model made of numbers alone: what a search policy needs of one, without torch and without training."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

import numpy as np

from autoprune.front.front import Front
from autoprune.plan.plan import PruningPlan
from autoprune.records.candidate import CandidateRecord
from autoprune.records.measurement import Measurement
from autoprune.records.problem import Problem
from autoprune.records.sensitivity import Sensitivity
from autoprune.records.work import Work
from autoprune.search.proposal import Failure, Outcome, Proposal, Result
from autoprune.search.search import Search
from autoprune.search.settings import StudySettings
from autoprune.search.state import Model, costs_of_widths
from autoprune.structure.groups import ChannelGroup, Member
from autoprune.structure.products import Product, TensorInfo
from autoprune.structure.topology import Topology
from tests.settings import space_of, study_of

#: Width of each group, and how much it hurts to narrow it.
WIDTHS, HARM = (16, 24, 32, 24, 16, 8), (0.02, 0.01, 0.004, 0.03, 0.002, 0.05)
PROBLEM = Problem(objectives=("quality", "multiply_adds"), metric="accuracy", higher_is_better=True)
SHARES = (0.75, 0.5, 0.25, 0.125)


def topology() -> Topology:
    """A chain of layers; group i is written by layer i and read by layer i + 1."""
    groups, tensors = [], {"0.weight": TensorInfo(shape=(WIDTHS[0], 4), item_bytes=4, is_parameter=True)}
    for number, width in enumerate(WIDTHS):
        following = WIDTHS[number + 1] if number + 1 < len(WIDTHS) else 10
        tensors[f"{number + 1}.weight"] = TensorInfo(shape=(following, width), item_bytes=4, is_parameter=True)
        index = np.arange(width)[:, None]
        members = (
            Member(tensor=f"{number}.weight", axis=0, index=index, role="out"),
            Member(tensor=f"{number + 1}.weight", axis=1, index=index, role="in"),
        )
        groups.append(ChannelGroup(name=str(number), channels=width, members=members))
    products = tuple(Product(weight=name, positions=100) for name in tensors)
    return Topology(groups=tuple(groups), unprunable=(), products=products, tensors=tensors)


def sensitivity() -> Sensitivity:
    harm = {str(number): tuple(weight * math.log(1 / share) for share in SHARES) for number, weight in enumerate(HARM)}
    return Sensitivity(keep_shares=SHARES, added_loss=harm, criterion="l2", samples_forward=100, samples_trained=0)


def settings(**changes: object) -> StudySettings:
    space = space_of(kinds=("channels",), criteria=("l2", "l1"), distillation=(0.0,), steps=100)
    chosen = {"trials": 300, "objectives": PROBLEM.objectives, "latency_rounds": 0, "space": space, "solved_points": 4}
    return study_of(**{**chosen, **changes})  # type: ignore[arg-type]


def front_of(records: Sequence[CandidateRecord]) -> Front:
    return Front.of(records, PROBLEM)


def model() -> Model:
    return Model(topology=topology(), problem=PROBLEM, sensitivity=sensitivity())


def measured(plan: PruningPlan, widths: dict[str, int], number: int, share: float = 1.0) -> Measurement:
    """Quality falls with every group that is narrowed, rises with training, and is noisy."""
    noise = random.Random(f"{plan.seed} {number} {share}")
    lost = sum(
        weight * math.log(WIDTHS[group] / widths.get(str(group), WIDTHS[group])) for group, weight in enumerate(HARM)
    )
    better = 0.02 * (1 - math.exp(-3 * share)) + (0.005 if "l1" in plan.to_json() else 0.0)
    return Measurement(
        split="search",
        quality=0.9 - lost + better + noise.gauss(0.0, 0.003),
        quality_error=0.003,
        metrics={},
        parameters=0,
        multiply_adds=0,
        size_bytes=0,
    )


def run_trial(search: Search, proposal: Proposal, failing: float = 0.0) -> Outcome:
    """The outcome follows from the proposal alone, but for the decision to stop early."""
    luck = random.Random(proposal.number)
    if proposal.origin != "dense" and luck.random() < failing:
        return Failure("out of luck")
    plan, widths = proposal.plan.asked, dict(proposal.plan.widths)
    costs, rungs, fidelity = costs_of_widths(proposal.plan, search.state.model.topology), [], 1.0
    for share in proposal.rungs:
        quality = measured(plan, widths, proposal.number, share).quality
        rungs.append((share, quality))
        if search.should_stop(proposal, share, quality):
            fidelity = max(share, 0.01)
            break
    found = measured(plan, widths, proposal.number, fidelity)
    measurement = Measurement(
        split="search",
        quality=found.quality,
        quality_error=found.quality_error,
        metrics={},
        parameters=costs.parameters,
        multiply_adds=costs.multiply_adds,
        size_bytes=costs.size_bytes,
    )
    trained = round(100 * fidelity)
    return Result(measurement=measurement, rungs=tuple(rungs), fidelity=fidelity, work=Work(trained=trained))


def asked(search: Search) -> Proposal:
    proposal = search.ask()
    assert proposal is not None
    return proposal


def run(search: Search, proposals: int, *, out: int = 1, failing: float = 0.0, seed: int = 0) -> list[Proposal]:
    """Ask and tell, with as many proposals out at once, which end in any order."""
    order, asked, waiting = random.Random(seed), [], []
    while len(asked) < proposals or waiting:
        while len(waiting) < out and len(asked) < proposals:
            proposal = search.ask()
            if proposal is None:
                break
            asked.append(proposal)
            waiting.append(proposal)
        if not waiting:
            break
        done = waiting.pop(order.randrange(len(waiting)))
        search.tell(done, run_trial(search, done, failing))
    return asked
