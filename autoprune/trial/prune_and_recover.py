"""Prune a parent to a plan and recover it: the pruning steps of the schedule, and the training between them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial

from torch import Tensor, nn

from autoprune.criteria.gathering import count_passes, gather_signals
from autoprune.criteria.resolve import select_channels
from autoprune.criteria.signals import Signals
from autoprune.criteria.single_weights import score_weights
from autoprune.plan.criteria import CRITERIA, WEIGHT_CRITERIA
from autoprune.plan.kept import KeptChannels
from autoprune.plan.maskable import check_pattern, maskable
from autoprune.plan.resolved import ResolvedPlan
from autoprune.plan.weights import WeightPlan, group_pattern
from autoprune.records.work import Work
from autoprune.recovery.callbacks import RecoveryCallbacks, Snapshot
from autoprune.recovery.fine_tune import FineTune
from autoprune.recovery.learning_rate import scheduler, simulate
from autoprune.recovery.schedules import PruningStep, ScheduleRunner, amount_now, check_regrowth, schedule
from autoprune.recovery.step import CutMade, PhaseTimer
from autoprune.recovery.steps import Recovery
from autoprune.recovery.teacher import Teacher
from autoprune.recovery.trial_state import TrainingState, TrialState, load_tensors
from autoprune.structure.topology import Topology
from autoprune.surgery.cut import cut, sliced
from autoprune.surgery.weight_masks import apply_masks, layer_sparsities, masks, regrow
from autoprune.task.checkpoint import model_tensors
from autoprune.task.prepare import PreparedTask


class PruneAndRecover:
    """Turns a parent into a candidate of a plan: prunes by the schedule, recovers and trains.

    Args:
        task: The user's task.
        topology: Proved groups of the dense model.
        plan: Plan of the candidate.
        start: The parent, which is not changed, and its channels.
        teacher: Outputs of the dense model; None for no distillation.
        callbacks: Callbacks during recovery; None for none.

    Attributes:
        kept: Channels of the current model, in dense indices.
    """

    def __init__(
        self,
        task: PreparedTask,
        topology: Topology,
        plan: ResolvedPlan,
        start: tuple[nn.Module, KeptChannels],
        *,
        teacher: Teacher | None = None,
        callbacks: RecoveryCallbacks | None = None,
    ) -> None:
        """start: the parent, which is not changed, and its channels."""
        model, self.kept = start
        self._recovery = Recovery(model, task, plan.recovery, teacher)
        self._state = self._recovery.state
        self._task, self._topology, self._plan = task, topology, plan
        self._callbacks = callbacks if callbacks is not None else RecoveryCallbacks()
        self._owns_model = False
        self._start_widths = {**topology.widths, **self.kept.widths}
        self._target_widths = dict(plan.widths)
        for name, width in self._target_widths.items():
            assert width <= self._start_widths[name], (
                f"{name}: {width} channels planned, {self._start_widths[name]} alive"
            )
        self._masks: dict[str, Tensor] = {}
        self._zeros = self._zeros_now()
        self._training: FineTune | None = None

    @property
    def model(self) -> nn.Module:
        """The current model."""
        return self._state.model

    @property
    def work(self) -> Work:
        """Work done so far."""
        return self._state.work

    @property
    def steps(self) -> int:
        """Optimizer steps done so far."""
        return self._state.step

    @property
    def timer(self) -> PhaseTimer:
        """Seconds by phase."""
        return self._state.timer

    def timed_by(self, timer: PhaseTimer) -> PruneAndRecover:
        """Add the seconds of each phase to a timer.

        Args:
            timer: The timer.

        Returns:
            The same object.
        """
        self._state.timer = timer
        return self

    def run(self, resume: TrialState | None = None) -> None:
        """Prune by the schedule, recover and train.

        Args:
            resume: State of this trial in an earlier process, to go on from; None to begin.

        Raises:
            DivergedError: The loss is not finite.
        """
        recovery = self._plan.recovery
        factory = scheduler(recovery.scheduler, self._task.schedulers)
        rates = simulate(factory, recovery.learning_rate, recovery.steps) if recovery.steps else []
        runner = ScheduleRunner(recovery.schedule, recovery.steps, rates)
        if self._plan.weights is not None:
            check_regrowth(recovery.schedule, recovery.steps, runner.updates)
            check_pattern(self._plan.weights, self._topology)
        self._runner = runner
        for update in runner.updates:
            if resume is None and update.step == 0 and runner.now(update, 0.0) is not None:
                self._advance(update)
        training = self._begin() if resume is None else self._go_on(resume)
        for update in runner.updates:
            if update.step >= max(self.steps, 1):  # a state is from before the pruning step at its own step
                self._train(update.step)
                due = runner.now(update, training.decay_fraction)
                if due is not None:
                    self._advance(due)
        self._train_by_rungs(recovery.steps)
        training.finish()

    def _begin(self) -> FineTune:
        if not self._owns_model:
            self._own(self.kept)
        training = self._start_training(None)
        training.set_masks(self._masks or self._initial_zero_masks())
        return training

    def _go_on(self, found: TrialState) -> FineTune:
        """Continue the fine-tune of an earlier process with the model that it had."""
        self._own(found.kept)
        load_tensors(self.model, found.model)
        training = self._start_training(found.training)
        self._runner.last_progress = found.progress
        return training

    def _own(self, kept: KeptChannels) -> None:
        """Copy the channels `kept` of the current model, which may be the parent's."""
        self._state.model = cut(self.model, self._topology, kept, parent=self.kept)
        self.kept, self._owns_model = kept, True

    def _start_training(self, resume: TrainingState | None) -> FineTune:
        on_epoch = None if self._callbacks.on_epoch is None else self._epoch_done
        training = FineTune(self._recovery, seed=self._plan.seed, on_epoch=on_epoch, resume=resume)
        training.watch_movement(self._movement_wanted())
        self._training = training
        return training

    def _train(self, until: int) -> None:
        assert self._training is not None
        with self._state.timer.phase("train"):
            self._training.run(until)

    def _train_by_rungs(self, steps: int) -> None:
        """Train to the end; `on_rung` may end the training earlier."""
        done = self.steps
        on_rung = self._callbacks.on_rung
        for step in self._callbacks.rungs if on_rung is not None else ():
            if done <= step < steps:
                self._train(step)
                if on_rung is not None and on_rung(self.model, step):
                    return
        self._train(steps)

    def _epoch_done(self, epoch: int) -> None:
        training = self._training
        assert training is not None and self._callbacks.on_epoch is not None
        self._callbacks.on_epoch(
            Snapshot(
                model=training.model,
                kept=self.kept,
                masks=training.masks,
                step=training.step,
                epoch=epoch,
                rate=training.rate,
                state=self._trial_state,
            )
        )

    def _trial_state(self) -> TrialState:
        assert self._training is not None
        return TrialState(
            training=self._training.state(),
            kept=self.kept,
            progress=self._runner.last_progress,
            model=model_tensors(self.model),
        )

    def _advance(self, update: PruningStep) -> None:
        """Take one pruning step: cut further, renew the masks, recover from both."""
        kept = self._select_channels(update.progress)
        self._state.channels_changed = kept != self.kept
        if self._state.channels_changed or not self._owns_model:
            self._cut(kept)
        if self._plan.weights is not None:
            self._mask(self._plan.weights, update)
        self._state.weights_changed = bool(self._masks)
        self._recovery.after_pruning()

    def _select_channels(self, progress: float) -> KeptChannels:
        shape = self._plan.recovery.schedule.name
        widths = {
            name: amount_now(self._start_widths[name], width, progress, shape)
            for name, width in self._target_widths.items()
        }
        criteria = [self._plan.criterion(name) for name, width in widths.items() if width < self._width(name)]
        with self._state.timer.phase("score"):
            return select_channels(self._plan, self._topology, self._signals(CRITERIA.signals_for(criteria)), widths)

    def _width(self, name: str) -> int:
        return self.kept.widths.get(name, self._topology.widths[name])

    def _cut(self, kept: KeptChannels) -> None:
        before, source = self.kept, self.model
        with self._state.timer.phase("cut"):
            smaller = cut(source, self._topology, kept, parent=before)
        self.kept, self._owns_model = kept, True
        if self._training is not None:
            self._training.replace(smaller, partial(sliced, topology=self._topology, kept=kept, parent=before))
            self._masks = dict(self._training.masks)
        self._state.model = smaller
        if self._state.channels_changed:
            silent = self._initial_zero_masks()
            self._recovery.after_cut(CutMade(source=source, topology=self._topology, before=before, kept=kept))
            apply_masks(self.model, silent)  # a step may have changed entries that were zero

    def _mask(self, plan: WeightPlan, update: PruningStep) -> None:
        if plan.target == 0 and not plan.layers:
            return
        axes = self._topology.input_axes
        with self._state.timer.phase("score"):
            signals = self._signals(WEIGHT_CRITERIA.signals_for((plan.criterion,)))
            # A layer with sparsity 0 needs no score, and some criteria have none for it.
            weights = {name: signals.weights[name] for name in self._masked_names() if plan.layers.get(name) != 0}
            # Entries that are zero are masked first: they add nothing to the outputs.
            scores = {
                name: score_weights(plan.criterion, name, signals).masked_fill(weight == 0, -1.0)
                for name, weight in weights.items()
            }
            # Layers of dropped blocks need no sparsity.
            known = self._topology.tensors
            layers = {name: s for name, s in plan.layers.items() if s and (name in weights or name not in known)}
            found = self._masks_of(scores, replace(plan, layers=layers), update.progress)
        if update.exchange and self._training is not None:
            gradients = self._training.gradients
            found = {
                name: regrow(mask, weights[name], gradients[name], update.exchange, plan.pattern, axes[name])
                if name in gradients
                else mask
                for name, mask in found.items()
            }
        self._masks = found
        if self._training is not None:
            self._training.set_masks(found)
        else:
            apply_masks(self.model, found)

    def _masks_of(self, scores: Mapping[str, Tensor], plan: WeightPlan, progress: float) -> dict[str, Tensor]:
        """Masks at one point of the schedule. Each weight or ranking starts from its own share of zeros."""
        shape = schedule(self._plan.recovery.schedule.name)
        found: dict[str, Tensor] = {}
        for names, final in _sparsity_units(scores, plan):
            if final == 0:
                continue
            zeros, entries = (sum(self._zeros[name][part] for name in names) for part in (0, 1))
            start_fraction = min(zeros / entries / final, 1.0) if entries else 1.0
            reached = (
                1.0 if progress >= 1.0 else start_fraction + (1.0 - start_fraction) * shape(progress, final) / final
            )
            unit_sparsity = None if group_pattern(plan.pattern) is not None else final
            unit_plan = replace(
                plan, sparsity=unit_sparsity, layers={}, spread="layer" if len(names) == 1 else plan.spread
            )
            unit_scores = {name: scores[name] for name in names}
            found |= masks(unit_scores, unit_plan, share=reached, axes=self._topology.input_axes)
        return {name: found[name] for name in scores if name in found}

    def _zeros_now(self) -> dict[str, tuple[int, int]]:
        """Name of a masked weight -> how many of its entries are zero, and how many may be."""
        plan = self._plan.weights
        if plan is None:
            return {}
        grouped, found = group_pattern(plan.pattern), {}
        parameters = dict(self.model.named_parameters())
        for name in self._masked_names():
            weight = parameters[name]
            columns = weight.shape[self._topology.input_axes[name]]
            whole = columns // grouped[1] * grouped[1] if grouped is not None else columns
            found[name] = (int((weight == 0).sum()), weight.numel() // columns * whole if columns else 0)
        return found

    def _initial_zero_masks(self) -> dict[str, Tensor]:
        """Masks of the entries that are zero before the first pruning step: they must not grow until then."""
        plan = self._plan.weights
        if plan is None:
            return {}
        parameters = dict(self.model.named_parameters())
        pruned = [name for name in self._masked_names() if plan.layers.get(name, plan.target) > 0]
        weights = {name: parameters[name].detach() for name in pruned}
        return {name: weight != 0 for name, weight in weights.items() if bool((weight == 0).any())}

    def _masked_names(self) -> list[str]:
        """Names of the weights that masks are laid on: weights of products in blocks that are not dropped."""
        if self._plan.weights is None:
            return []
        there = dict(self.model.named_parameters())
        return [name for name in maskable(self._topology) if name in there]

    def _signals(self, names: tuple[str, ...]) -> Signals:
        task, training = self._task, self._training
        moved = training.movement if training is not None and training.step > 0 and training.movement else None
        batches = task.calibration
        signals = gather_signals(
            self.model, names, (self._topology, self.kept), batches, task.objective, self._plan.seed, movement=moved
        )
        forward, trained = count_passes(name for name in names if moved is None or name != "movement")
        seen = sum(batch.size for batch in batches)
        self._state.work += Work(forward=seen * forward, trained=seen * trained)
        return signals

    def _movement_wanted(self) -> set[str]:
        """Names of the weights whose movement a later pruning step needs."""
        named = {name for name, group in self._plan.plan.groups.items() if group.criterion == "movement"}
        wanted = {
            member.tensor
            for group in self._topology.groups
            if group.name in named
            for member in group.members
            if member.role == "out"
        }
        by_movement = self._plan.weights is not None and self._plan.weights.criterion == "movement"
        return wanted | set(self._masked_names() if by_movement else ())


def _sparsity_units(scores: Mapping[str, Tensor], plan: WeightPlan) -> list[tuple[tuple[str, ...], float]]:
    """Names of weights that share one sparsity, with that sparsity: single weights, or all weights of one ranking.

    Raises UnknownNameError for a weight of the plan without scores.
    """
    shapes = {name: tuple(score.shape) for name, score in scores.items()}
    if plan.spread != "global" or group_pattern(plan.pattern) is not None:
        return [((name,), share) for name, share in layer_sparsities(shapes, plan).items()]
    own = layer_sparsities(shapes, replace(plan, spread="layer"))
    ranked = tuple(name for name in scores if name not in plan.layers)
    return [(ranked, plan.target), *(((name,), own[name]) for name in plan.layers)]
