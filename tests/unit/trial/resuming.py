"""Trials that end after every pass over the data, each time in a process that knows nothing of the one before."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook
from torch.utils.data import DataLoader, Dataset

from autoprune.plan.plan import PruningPlan
from autoprune.plan.resolved import ResolvedPlan
from autoprune.records.run_folder import RunFolder
from autoprune.recovery.callbacks import Snapshot
from autoprune.recovery.teacher import Teacher
from autoprune.recovery.trial_state import TrialState
from autoprune.study import checkpoints
from autoprune.trial.candidate import Candidate, RungPolicy, evaluate_resolved, resolve_plan
from autoprune.trial.context import Parent, TrialContext
from autoprune.trial.identity import identity_of
from tests.tasks import blobs
from tests.unit.recovery.watching import one_batch_task

#: Number of the trial in all tests.
TRIAL = 7


class DiedError(Exception):
    """In place of the end of a process."""


@contextlib.contextmanager
def optimizer_steps() -> Iterator[list[int]]:
    """A list that grows with every step of an optimizer that trains a model, and not of one that a scheduler has."""
    found: list[int] = []

    def count(optimizer: torch.optim.Optimizer, args: object, kwargs: object) -> None:
        if sum(len(group["params"]) for group in optimizer.param_groups) > 1:
            found.append(len(found))

    hook = register_optimizer_step_post_hook(count)
    try:
        yield found
    finally:
        hook.remove()


def large_loss(outputs: Tensor, targets: Tensor) -> Tensor:
    """A cross entropy whose gradients overflow in float16 until its scale has been halved a few times."""
    return 3000.0 * nn.functional.cross_entropy(outputs, targets)


class Drifting(nn.Module):
    """Draws random numbers, and counts its batches in a buffer that is not stored with its weights."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 4))
        self.register_buffer("batches", torch.zeros(1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.batches += 1
            x = nn.functional.dropout(x * (1 + 0.01 * self.batches), 0.3)
        output: Tensor = self.layers(x)
        return output


class Noisy(Dataset[tuple[Tensor, Tensor]]):
    """Blobs with other noise at each look."""

    def __len__(self) -> int:
        return 150

    def __getitem__(self, position: int) -> tuple[Tensor, Tensor]:
        images, targets = _flat_blobs()
        return images[position] + 0.1 * torch.randn(64), targets[position]


@functools.cache
def _flat_blobs() -> tuple[Tensor, Tensor]:
    images, targets = blobs()
    return images.flatten(1), targets


@functools.cache
def context_of(kind: str) -> TrialContext:
    """A context by name; the perceptron has three batches a pass, and the residual network one."""
    images, targets = _flat_blobs()
    given: dict[str, object] = {}
    if kind in ("perceptron", "drifting"):
        given["train"] = (images[:150], targets[:150])
    if kind == "loader":
        generator = torch.Generator().manual_seed(5)
        given["train"] = DataLoader(Noisy(), batch_size=50, shuffle=True, generator=generator)
    if kind in ("loader", "drifting"):
        torch.manual_seed(0)
        given |= {"model": Drifting().eval(), "require_trained": False}
    if kind == "overflowing":
        given["loss"] = large_loss
    if kind == "channels last":
        given["model"] = _channels_last()
    return TrialContext.of(one_batch_task(flat=kind not in ("convolutional", "channels last"), **given))


def _channels_last() -> nn.Module:
    model = one_batch_task(flat=False).dense
    return model.to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """A trial to interrupt.

    Attributes:
        kind: Kind of context.
        plan: Its plan.
        parent: Where it starts from; None for the dense model.
        shares: Rungs.
        stops_at: Share of the rung from which on the training is stopped.
    """

    kind: str
    plan: PruningPlan
    parent: Parent | None = None
    shares: tuple[float, ...] = ()
    stops_at: float = 2.0

    def fresh(self) -> TrialContext:
        """The context as a new process has it: nobody has asked the teacher yet."""
        context = context_of(self.kind)
        return dataclasses.replace(context, teacher=Teacher(context.task))

    def resolved(self) -> ResolvedPlan:
        """The resolved plan."""
        return resolve_plan(context_of(self.kind), self.plan)[0]

    def run(self, on_epoch: Callable[[Snapshot], None] | None, resume: TrialState | None = None) -> Candidate:
        """Run it in a new process, as it were."""
        context, rungs = self.fresh(), None
        if self.shares:
            split = context.task.search_split
            rungs = RungPolicy(shares=self.shares, split=split, stop=lambda state: state.share >= self.stops_at)
        return evaluate_resolved(context, self.resolved(), self.parent, on_epoch=on_epoch, rungs=rungs, resume=resume)

    def left(self, folder: Path) -> TrialState | None:
        """What the process before has left."""
        number = None if self.parent is None else self.parent.number
        identity = identity_of(context_of(self.kind), self.resolved(), number, self.shares)
        return checkpoints.latest_state(RunFolder(folder), TRIAL, identity)


def dying(folder: Path, epoch: int) -> Callable[[Snapshot], None]:
    """Stores a checkpoint after each pass, and dies after one."""

    def on_epoch(snapshot: Snapshot) -> None:
        checkpoints.write(RunFolder(folder), TRIAL, snapshot)
        if snapshot.epoch == epoch:
            raise DiedError

    return on_epoch


def interrupted_often(trial: Trial, folder: Path, epochs: range) -> Candidate:
    """The candidate of a trial whose process dies after each of some passes."""
    for epoch in epochs:
        state = trial.left(folder)
        assert (0 if state is None else state.training.epoch) == epoch - 1
        try:
            trial.run(dying(folder, epoch), state)
        except DiedError:
            continue
        raise AssertionError(f"epoch {epoch} never came")
    return trial.run(dying(folder, -1), trial.left(folder))


def parts(candidate: Candidate) -> dict[str, object]:
    """What has to be equal beside the weights. No test's context measures latency."""
    return {
        "kept": candidate.kept,
        "measurement": candidate.measurement,
        "work": candidate.work,
        "rungs": candidate.rungs,
        "fidelity": candidate.fidelity,
        "note": candidate.note,
        "parent": candidate.parent,
    }
