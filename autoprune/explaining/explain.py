"""Explain what can be pruned of a model, and what a study searches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from autoprune.errors import AutopruneError
from autoprune.explaining.explanation import Explanation
from autoprune.explaining.parts import Axis, Part, Reach, Section, Stays, Weights
from autoprune.plan.maskable import maskable, unmaskable, weights_for_pattern
from autoprune.plan.weights import WeightPlan, group_pattern
from autoprune.plan.widths import prunable_blocks
from autoprune.search.identity import layers_of, unprunable_rows
from autoprune.search.settings import StudySettings
from autoprune.search.space.optimizers import describe_training
from autoprune.search.space.setting_groups import NO_MASKS
from autoprune.search.space.settings import SpaceSettings
from autoprune.search.space.space import reach
from autoprune.structure.absent import why_none
from autoprune.structure.blocks import DroppableBlock
from autoprune.structure.cost import Cost
from autoprune.structure.groups import GROUP_KINDS, Member
from autoprune.structure.topology import Topology
from autoprune.structure.unprunable import IneligibleModule
from autoprune.study.identity import problem_of
from autoprune.study.preflight import check_space, task_notes
from autoprune.study.search_noise import search_noise_note
from autoprune.task.prepare import prepare
from autoprune.task.task import Task
from autoprune.trial.context import TrialContext


@dataclass(frozen=True, slots=True)
class _Model:
    """The topology of a model, the part that is searched, and the costs of its parts."""

    topology: Topology
    settings: SpaceSettings
    searched: Topology
    whole: Cost = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "whole", self.topology.cost({}))

    def part(self, name: str, left: Cost) -> Part:
        """Return a part, given the cost of the model without it."""
        parameters, multiply_adds = self.whole.shares_gone(left)
        return Part(
            name=name,
            saved=Cost(
                parameters=self.whole.parameters - left.parameters,
                multiply_adds=self.whole.multiply_adds - left.multiply_adds,
                size_bytes=self.whole.size_bytes - left.size_bytes,
            ),
            parameters=parameters,
            multiply_adds=multiply_adds,
        )


def explain(task: Task, space: SpaceSettings | None = None) -> Explanation:
    """Explain what can be pruned of a task's model, what a study searches of that, and what is left alone and why.

    Args:
        task: Model, data and metrics.
        space: Settings of the search space; the default ones if None.

    Returns:
        The content of `autoprune explain`; `print` shows it.

    Raises:
        TaskError: If the task has faults.
        TraceError: If the model cannot be copied or run.
        ConfigurationError: For a pattern of `protect` that matches nothing, or for objectives and limits that the task
            does not have.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> import autoprune
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
        >>> x, y = torch.randn(80, 4), torch.arange(80) % 2
        >>> task = autoprune.Task(
        ...     model=model,
        ...     example_inputs=x[:4],
        ...     train=(x[:60], y[:60]),
        ...     test=(x[60:], y[60:]),
        ...     loss=nn.functional.cross_entropy,
        ...     metrics=("accuracy",),
        ...     quality="accuracy",
        ... )
        >>> found = autoprune.explain(task)
        >>> [part.name for section in found.sections for part in section.parts]
        ['0']
    """
    settings = SpaceSettings() if space is None else space
    prepared = prepare(task)
    noise = ""
    if isinstance(settings, StudySettings):
        problem_of(prepared, settings)
        noise = search_noise_note(prepared, settings.limits)
    context = TrialContext.of(prepared, protect=settings.structure.protect)
    found = explain_topology(context.topology, settings, context.task.prediction.kind)
    notes = (*found.notes, *task_notes(settings, context), *_refusal(settings, context), *([noise] if noise else []))
    return replace(found, task=context.task.summary(), notes=notes)


def _refusal(settings: SpaceSettings, context: TrialContext) -> list[str]:
    """Say why a study would not begin with these settings; nothing where it would."""
    kinds = settings.structure.kinds
    masks = context.masks_weights and "weights" in kinds
    searched = replace(context, topology=context.topology.only(kinds), masks_weights=masks)
    if not (searched.topology.groups or searched.topology.blocks or masks):
        return ["A study with these settings is refused: it finds nothing to prune."]
    try:
        check_space(settings, searched, scanned=settings.scanned)
    except AutopruneError as error:
        return [f"A study with these settings is refused: {error}"]
    return []


def explain_topology(topology: Topology, settings: SpaceSettings, prediction: str = "") -> Explanation:
    """Explain a model without a task.

    Args:
        topology: The proved topology, with all kinds of parts.
        settings: Settings of the search space.
        prediction: Kind of prediction, as in `Prediction.kind`; may decide on the optimizer.

    Returns:
        The explanation.
    """
    model = _Model(topology, settings, topology.only(settings.structure.kinds))
    return Explanation(
        model=model.whole,
        space=settings,
        sections=(*_group_sections(model), *_whole_sections(model)),
        weights=_weights(topology),
        left_alone=tuple(unprunable_rows(topology)),
        reach=tuple(_reach(model)),
        notes=(describe_training(settings, topology, prediction), *_misfits(topology, settings)),
    )


def _group_sections(model: _Model) -> Iterator[Section]:
    """Yield the sections of channels, heads and head widths."""
    fewest = reach(model.settings, model.searched)["smallest"] if model.searched.groups else {}
    for kind in GROUP_KINDS:
        parts = []
        for group in model.topology.groups:
            if group.kind == kind:
                half = model.topology.cost({group.name: group.half})
                part = replace(model.part(group.name, half), channels=group.channels, fewest=fewest.get(group.name))
                members = tuple(_axis(member) for member in group.members)
                parts.append(replace(part, layers=tuple(layers_of(group)), members=members))
        yield _section(model, kind, parts, goes="half of each")


def _axis(member: Member) -> Axis:
    return Axis(tensor=member.tensor, axis=member.axis, role=member.role, positions=member.index.shape[1])


def _whole_sections(model: _Model) -> Iterator[Section]:
    """Yield the sections of blocks and layers; if both are searched, a block that is a layer is listed as a layer."""
    both = {"blocks", "layers"} <= {*model.settings.structure.kinds}
    for kind in ("blocks", "layers"):
        searched = kind in model.settings.structure.kinds
        chosen = prunable_blocks(model.searched) if searched else prunable_blocks(model.topology, kind=kind)
        own = [block for block in model.topology.blocks if block.is_of(kind)]
        listed = [block for block in own if not (both and kind == "blocks" and block.repeated)]
        parts = [
            replace(model.part(block.name, model.topology.cost({}, dropped=(block.name,))), exact=block.exact)
            for block in listed
            if block.name in chosen
        ]
        together = tuple(block.name for block in listed if block.name not in chosen)
        found = _section(model, kind, parts, goes="each", together=together)
        yield replace(found, none=_why_no_choice(kind, own, together) if own and not parts else found.none)


def _why_no_choice(kind: str, own: Sequence[DroppableBlock], together: Sequence[str]) -> str:
    """Explain why there is no choice although there are blocks or layers."""
    if together:
        return f"No separate choice, as they only combine blocks: {', '.join(together)}."
    return f"All {kind} are layers, too: {', '.join(block.name for block in own)}."


def _section(model: _Model, kind: str, parts: Sequence[Part], *, goes: str, together: tuple[str, ...] = ()) -> Section:
    return Section(
        kind=kind,
        searched=kind in model.settings.structure.kinds,
        goes=goes,
        parts=tuple(parts),
        together=together,
        none=why_none(kind, model.topology),
        stay=tuple(_stays(one) for one in model.topology.ineligible if one.kind == kind),
    )


def _stays(one: IneligibleModule) -> Stays:
    why = one.why
    return Stays(
        module=one.module,
        kind=why.kind.name,
        why=why.words,
        remedy=why.kind.remedy,
        docs=why.kind.anchor,
        operator=why.operator,
        at=why.module,
        line=why.line,
    )


def _weights(topology: Topology) -> tuple[Weights, ...]:
    alike: dict[str, list[str]] = {"": list(maskable(topology))}
    for name, reason in unmaskable(topology).items():
        alike.setdefault(f"it {reason}", []).append(name)
    return tuple(
        Weights(tensors=tuple(names), parameters=_only(topology, names).cost({}).parameters, why=why)
        for why, names in alike.items()
        if names
    )


def _only(topology: Topology, names: Sequence[str]) -> Topology:
    """Return the topology with these tensors alone, to count their parameters."""
    tensors = {name: topology.tensors[name] for name in names}
    return replace(topology, tensors=tensors, products=(), contractions=())


def _reach(model: _Model) -> Iterator[Reach]:
    topology, settings = model.searched, model.settings
    blocks = [block.name for block in topology.blocks]
    widths: Mapping[str, Mapping[str, int]] = reach(settings, topology) if topology.groups else {}
    if blocks and not topology.groups:
        widths = {"smallest": {}, "largest": {}}
    dense = float(getattr(model.whole, settings.search.structure_cost))
    masked, zeros = _only(topology, maskable(topology)), _most_zeros(settings)
    for name, chosen in widths.items():
        dropped = blocks if name == "smallest" else []
        cost = topology.cost(chosen, dropped)
        nonzero = cost.parameters - round(zeros * masked.cost(chosen, dropped).parameters)
        share = getattr(cost, settings.search.structure_cost) / max(dense, 1.0)
        yield Reach(name=name, cost=cost, share=share, nonzero=nonzero if zeros else None)


def _most_zeros(settings: SpaceSettings) -> float:
    """Return the largest sparsity of the masks in the space; 0 without masks."""
    return max(
        (
            WeightPlan(pattern=pattern, sparsity=None if group_pattern(pattern) else settings.masks.sparsity[1]).target
            for pattern in settings.mask_patterns
            if pattern != NO_MASKS
        ),
        default=0.0,
    )


def _misfits(topology: Topology, settings: SpaceSettings) -> list[str]:
    """Say which patterns of the space leave some weights dense."""
    among = len(maskable(topology))
    fit = {
        pattern: len(weights_for_pattern(pattern, topology))
        for pattern in settings.mask_patterns
        if pattern != NO_MASKS
    }
    return [
        f"{pattern} masks something of {count} of these {among} tensors: "
        f"{'N:M needs M inputs' if group_pattern(pattern) else 'one block of each always stays'}."
        for pattern, count in fit.items()
        if count < among
    ]
