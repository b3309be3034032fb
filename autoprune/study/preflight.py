"""Checks before a run: refuse settings and plans that would fail inside a trial."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial

import torch

from autoprune.criteria.dry_run import CriteriaInUse, dry_run
from autoprune.errors import AutopruneWarning, ConfigurationError, UnknownNameError, error_message, raise_all, user_code
from autoprune.plan.criteria import BLOCK_CRITERIA, WEIGHT_CRITERIA, applicable_criteria, check_applicable
from autoprune.plan.maskable import check_pattern, maskable
from autoprune.plan.plan import PruningPlan
from autoprune.plan.recovery import SchedulePlan
from autoprune.plan.weights import WeightPlan, group_pattern
from autoprune.plan.widths import check_block_count, check_ranking, planned_widths
from autoprune.records.objectives import ENERGY
from autoprune.recovery.learning_rate import check_scheduler, scheduler, simulate
from autoprune.recovery.schedules import check_regrowth, timetable
from autoprune.search.space.context import SpaceContext
from autoprune.search.space.setting_groups import NO_MASKS, SCORED_MODES
from autoprune.search.space.settings import SpaceSettings
from autoprune.search.space.space import reach
from autoprune.structure.absent import why_none
from autoprune.structure.groups import GROUP_KINDS
from autoprune.structure.topology import Topology
from autoprune.task.clone import clone_with
from autoprune.task.data import call
from autoprune.trial.context import TrialContext

#: Remedy in errors before a study has begun.
NOTHING_WRITTEN = "Nothing was written: mend the code and start again."


def check_space(space: SpaceSettings, context: TrialContext, *, scanned: Iterable[str]) -> None:
    """Check that the criteria fit the model and that schedulers, masks and loss work.

    Args:
        space: Settings of the space.
        context: Context of the trials.
        scanned: Criteria of the sensitivity scan.

    Raises:
        ConfigurationError: All faults in one message; a single fault is raised as its own error.
    """
    errors: dict[str, ConfigurationError] = {}
    for one in _checks(space, context, tuple(scanned)):
        try:
            one()
        except ConfigurationError as error:
            errors.setdefault(str(error), error)
    if len(errors) == 1:
        raise next(iter(errors.values()))
    raise_all("the space", tuple(errors))
    if space.recovery.lengths != (0, 0):  # computes a loss, so it comes after the cheap checks
        _check_gradient(context)


def _checks(space: SpaceSettings, context: TrialContext, scanned: tuple[str, ...]) -> Iterator[Callable[[], None]]:
    topology, names = context.topology, space.structure.criteria
    ranked = (
        (space.search.scan_criterion,)
        if space.structure.criterion_per_group and {*space.structure.modes} & {*SCORED_MODES}
        else ()
    )
    whole = tuple(dict.fromkeys((*scanned, *ranked)))
    masked = maskable(topology) if context.masks_weights and space.mask_patterns != (NO_MASKS,) else ()
    parts = CriteriaInUse(
        channels=tuple(dict.fromkeys((*names, *whole))),
        masked=tuple(masked),
        weights=space.masks.weight_criteria if masked else (),
        blocks=space.structure.block_criteria if topology.blocks else (),
    )
    task = context.task
    with user_code("The rehearsal of the criteria", NOTHING_WRITTEN):
        found = dry_run(task.dense, task.calibration[:1], task.objective, topology, parts)
    yield found.check
    yield partial(_check_distillation, space.recovery.distillation, context)
    for name in (*([] if space.structure.criterion_per_group else names), *whole):
        yield partial(check_applicable, (name,), topology, refused=found.channels)
    if space.structure.criterion_per_group:
        yield partial(check_applicable, names, topology, per_group=True)
        for name in names:
            # Each group chooses among the criteria that fit it, so each of these has to work.
            fit = tuple(group for group in topology.groups if applicable_criteria((name,), group))
            yield partial(check_applicable, (name,), replace(topology, groups=fit), refused=found.channels)
    if topology.groups and not masked and not topology.blocks:
        yield partial(_check_room, space, topology)
    lengths = lengths_within_reach(space, topology)
    paces = tuple(itertools.product(space.recovery.rates, lengths))
    for name, schedule in itertools.product(space.recovery.schedulers, space.schedule.names):
        yield partial(_check_schedules, name, SchedulePlan(name=schedule), context, paces)
    yield from _checks_of_masks(space, topology, lengths) if masked else ()


def _check_room(space: SpaceSettings, topology: Topology) -> None:
    """Check that some group can lose a channel. Widths that follow from scores are not rounded."""
    finer = SpaceContext(settings=space.changed({"structure.round_to": 1}), topology=topology).allowed_widths
    unrounded = bool({*space.structure.modes} & {*SCORED_MODES})
    allowed = finer if unrounded else SpaceContext(settings=space, topology=topology).allowed_widths
    if (allowed.base < allowed.top).any():
        return
    remedy = "Lower round_to" if (finer.base < finer.top).any() else "Raise max_ratio"
    came = f"max_ratio={space.structure.max_ratio:g}, round_to={space.structure.round_to}"
    remedy = f"{remedy}: the widest of the groups has {int(allowed.top.max())} channels."
    raise ConfigurationError(error_message("the space", "let some group lose a channel", came, remedy))


def _checks_of_masks(space: SpaceSettings, topology: Topology, lengths: Sequence[int]) -> Iterator[Callable[[], None]]:
    """Yield checks that every pattern fits some weight, and every schedule leaves room for regrowth."""
    for pattern in space.mask_patterns:
        if pattern != NO_MASKS:
            share = None if group_pattern(pattern) is not None else 0.5
            yield partial(check_pattern, WeightPlan(pattern=pattern, sparsity=share), topology)
    shares = (
        space.schedule.regrowth if space.recovery.lengths != (0, 0) else space.schedule.regrowth[:1]
    )  # untrained trials have the first share
    for name, updates, share in itertools.product(space.schedule.names, space.schedule.updates, shares):
        plan = SchedulePlan(name=name, updates=updates, end=space.schedule.end, regrowth=share)
        for steps in lengths:  # rates change amounts, not whether there is a pruning step
            yield partial(check_regrowth, plan, steps, timetable(plan, steps, None))


def _check_schedules(
    name: str, schedule: SchedulePlan, context: TrialContext, paces: Sequence[tuple[float, int]]
) -> None:
    """Check the lowest and highest rate with the shortest and longest fine-tune; stop at the first fault."""
    for rate, steps in paces:
        check_schedule(name, schedule, context, rate, steps)


def lengths_within_reach(space: SpaceSettings, topology: Topology) -> list[int]:
    """Compute how long fine-tunes of a space can be.

    Args:
        space: Settings of the space.
        topology: Structure of the dense model.

    Returns:
        The shortest fine-tune, the longest at dense cost, and the longest at any cost, in steps.
    """
    fewest, most = space.recovery.lengths
    narrowest = reach(space.changed({"structure.round_to": 1}), topology)["smallest"] if topology.groups else {}
    blocks = [block.name for block in topology.blocks]
    return sorted({fewest, most, space.lengthened(most, topology.share(narrowest, blocks))})


def check_latency(context: TrialContext) -> None:
    """Prepare the dense model for each latency profile and call it once, as the trials do.

    Args:
        context: Context of the trials, which keeps what was prepared.

    Raises:
        ConfigurationError: The dense model does not run under a profile; one message for all profiles.
    """
    with user_code("The rehearsal of the latency", NOTHING_WRITTEN):
        context.costs.check_profiles()


def check_energy(context: TrialContext) -> list[str]:
    """Check that energy can be read here, where it is an objective or limited.

    Args:
        context: Context of the trials.

    Returns:
        Why energy is left out, in one text, where it decides nothing and cannot be read; else nothing.

    Raises:
        ConfigurationError: It cannot be read, and decides.
    """
    lacks = context.costs.energy_lacks
    if context.energy is None or not lacks:
        return []
    if context.energy.decides:
        wants = "be one that can be read here, as it is an objective or limited"
        raise ConfigurationError(
            error_message("the energy", wants, "none", f"{lacks} Or leave {ENERGY} out of objectives and limits.")
        )
    return [f"Energy is left out. {lacks}"]


def check_plan(plan: PruningPlan, context: TrialContext) -> None:
    """Check that a plan fits the model and names registered criteria.

    Args:
        plan: Plan to check.
        context: Context of the trials.

    Raises:
        ConfigurationError: The plan does not fit.
    """
    topology = context.topology
    topology.check_names(plan.groups)
    if not plan.needs_scores:
        planned_widths(plan, topology)
    for name, group in plan.groups.items():
        check_applicable((group.criterion,), replace(topology, groups=(topology.group(name),)))
    if plan.ranking is not None:
        ranked = tuple(group for group in topology.groups if group.name not in plan.groups)
        check_applicable((plan.ranking.criterion,), replace(topology, groups=ranked))
        check_ranking(plan, topology)
    _check_blocks(plan, topology)
    if plan.weights is not None:
        _known("a weight criterion", plan.weights.criterion, WEIGHT_CRITERIA)
        for name in plan.weights.layers:
            _known("a masked weight", name, maskable(topology))
        check_pattern(plan.weights, topology)
    recovery = plan.recovery
    _check_distillation((recovery.distillation.weight,), context)
    # Only masks exchange weights.
    schedule = recovery.schedule if plan.weights is not None else replace(recovery.schedule, regrowth=0.0)
    check_schedule(recovery.scheduler, schedule, context, recovery.learning_rate, recovery.steps)


def task_notes(space: SpaceSettings, context: TrialContext) -> list[str]:
    """Return what a user should know before a run: frozen models, and models that differ in training mode.

    Args:
        space: Settings of the space.
        context: Context of the trials.

    Returns:
        Sentences; none for most models.
    """
    frozen = frozen_note(context) if space.recovery.lengths != (0, 0) else ""
    return [*([frozen] if frozen else []), *mode_notes(space.recovery.distillation, context)]


def absent_kind_notes(space: SpaceSettings, context: TrialContext) -> list[str]:
    """Return for each requested kind that the model lacks why it does.

    All three kinds of groups are requested by default, also for models without heads: then none of them is named.

    Args:
        space: Settings of the space.
        context: Context of the trials.

    Returns:
        Sentences.
    """
    default = set(GROUP_KINDS) <= set(space.structure.kinds)
    asked = [kind for kind in space.structure.kinds if not (default and kind in GROUP_KINDS)]
    return [why for kind in asked if (why := absent_kind_reason(kind, context))]


def absent_kind_reason(kind: str, context: TrialContext) -> str:
    """Return why the model has no structure of a kind; "" if it has.

    Args:
        kind: One of PRUNING_KINDS.
        context: Context of the trials.
    """
    return "" if kind == "weights" and context.masks_weights else why_none(kind, context.topology)


def frozen_note(context: TrialContext) -> str:
    """Return a note that no parameter can be trained; "" if one can.

    Args:
        context: Context of the trials.
    """
    if _trainable(context):
        return ""
    return (
        "Nothing is trained: no parameter of the model has requires_grad=True, so candidates are only cut and "
        "reconstructed. Call model.requires_grad_(True) first to fine-tune them."
    )


def mode_notes(weights: Iterable[float], context: TrialContext) -> list[str]:
    """Return notes on models that compute something else in training mode than in eval mode.

    Args:
        weights: Distillation weights that plans may have.
        context: Context of the trials.

    Returns:
        Sentences, the most important one first; none for most models.
    """
    comparison, told = context.teacher.comparison, []
    if comparison.fault and any(weights):
        told.append(f"Distillation is off, and fine-tunes follow the targets alone: {comparison.fault}.")
    if context.task.loss_mode.trains:
        told.append(
            "The model returns something else in training than in eval mode: losses, also those of criteria and scan, "
            "and distillation look at what it returns in training mode, with dropout off and norms as in eval mode; "
            "metrics look at eval mode."
        )
    return told


def _check_gradient(context: TrialContext) -> None:
    """Raise ConfigurationError where candidates are fine-tuned and the loss has no gradient for any weight."""
    task = context.task
    if not _trainable(context):
        return
    # In training mode, like a fine-tune: some models have no gradients in eval mode.
    scratch, batch = clone_with(task.dense).train(), task.calibration[0]
    with (
        user_code("The rehearsal of a fine-tune", NOTHING_WRITTEN),
        torch.random.fork_rng(devices=[]),
        torch.enable_grad(),
    ):
        loss = task.loss(call(scratch, batch.inputs), batch.targets)
    if not loss.requires_grad:
        remedy = "Compute it without detach(), item(), argmax and no_grad, or train nothing: RecoverySettings(steps=0)."
        raise ConfigurationError(
            error_message("the loss", "have a gradient for some weight", "a loss without gradients", remedy)
        )


def _trainable(context: TrialContext) -> list[str]:
    return [name for name, parameter in context.task.dense.named_parameters() if parameter.requires_grad]


def _check_distillation(weights: Iterable[float], context: TrialContext) -> None:
    """Raise ConfigurationError where distillation is requested and another predict=... would allow it."""
    comparison = context.teacher.comparison
    if any(weights) and comparison.remedy:
        off = "or leave distillation out: RecoverySettings(distillation=(0.0,)), RecoveryPlan()"
        raise ConfigurationError(f"Distillation does not work: {comparison.fault}. {comparison.remedy}, {off}.")


def check_schedule(name: str, schedule: SchedulePlan, context: TrialContext, peak: float, steps: int) -> None:
    """Check that a scheduler works and that the pruning schedule has steps and room for regrowth under it.

    Args:
        name: Name of the learning-rate scheduler.
        schedule: Pruning schedule.
        context: Context of the trials.
        peak: Peak learning rate, > 0.
        steps: Steps of the fine-tune, >= 0.

    Raises:
        ConfigurationError: The scheduler fails, or the schedule does not fit it.
    """
    own = context.task.schedulers
    check_scheduler(name, own, peak=peak, steps=steps)
    rates = simulate(scheduler(name, own), peak, steps)
    try:
        check_regrowth(schedule, steps, timetable(schedule, steps, rates))
    except ConfigurationError as error:
        raise ConfigurationError(f"scheduler {name!r}: {error}") from error


def _check_blocks(plan: PruningPlan, topology: Topology) -> None:
    for block in plan.dropped:
        topology.block(block)
    for kind, wanted in (("blocks", plan.blocks), ("layers", plan.layers)):
        if wanted is not None:
            _known("a block criterion", wanted.criterion, BLOCK_CRITERIA)
            check_block_count(kind, wanted.count, topology, plan.dropped)


def _known(what: str, name: str, known: Iterable[str]) -> None:
    known = tuple(known)
    if name not in known:
        raise UnknownNameError(what, name, known)


def warn_of_distillation(weights: Iterable[float], context: TrialContext) -> None:
    """Warn that distillation is requested but off.

    Args:
        weights: Weights of the distillation.
        context: Context of the trials.
    """
    weights = tuple(weights)
    if any(weights) and context.teacher.comparison.fault:
        warnings.warn(mode_notes(weights, context)[0], AutopruneWarning, stacklevel=4)
