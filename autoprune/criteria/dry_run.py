"""Dry run of the criteria: find the groups, weights and blocks that cannot be scored before a study runs."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace

from torch import Tensor, nn

from autoprune.criteria.blocks import score_block
from autoprune.criteria.calibration import Loss
from autoprune.criteria.gathering import gather_signals
from autoprune.criteria.registry import score
from autoprune.criteria.signals import SIGNALS, Signals
from autoprune.criteria.single_weights import score_weights
from autoprune.errors import ConfigurationError, raise_all
from autoprune.plan.criteria import BLOCK_CRITERIA, CRITERIA, WEIGHT_CRITERIA, RefusalReasons
from autoprune.plan.kept import KeptChannels
from autoprune.structure.topology import Topology
from autoprune.task.data import Batch


@dataclass(frozen=True, slots=True, kw_only=True)
class CriteriaInUse:
    """Names of the criteria that a study may use.

    Attributes:
        channels: Criteria for channels.
        weights: Criteria for single weights.
        blocks: Criteria for blocks.
        masked: Names of the weights that masks may cover.
    """

    channels: tuple[str, ...] = ()
    weights: tuple[str, ...] = ()
    blocks: tuple[str, ...] = ()
    masked: tuple[str, ...] = ()

    @property
    def signals(self) -> set[str]:
        """Names of the signals that the criteria need besides the weights."""
        return {
            *CRITERIA.signals_for(self.channels),
            *WEIGHT_CRITERIA.signals_for(self.weights),
            *BLOCK_CRITERIA.signals_for(self.blocks),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Inapplicable:
    """Groups, weights and blocks that criteria cannot score, with the reasons.

    Attributes:
        channels: Criterion -> group -> reason.
        weights: Criterion -> weight -> reason.
        blocks: Criterion -> block -> reason.
    """

    channels: RefusalReasons = field(default_factory=dict)
    weights: RefusalReasons = field(default_factory=dict)
    blocks: RefusalReasons = field(default_factory=dict)

    def check(self) -> None:
        """Check that every criterion for single weights and blocks applies.

        Groups of channels are the concern of registry.check_applicable, as a group may choose its criterion.

        Raises:
            ConfigurationError: With the first fault of each criterion.
        """
        every = [*self.weights.values(), *self.blocks.values()]
        raise_all("the criteria", [next(iter(refused.values())) for refused in every if refused])


def dry_run(
    model: nn.Module, batches: Sequence[Batch], loss: Loss, topology: Topology, parts: CriteriaInUse
) -> Inapplicable:
    """Score every group, masked weight and block of a dense model by every criterion in use.

    Finds layers whose input cannot be captured, frozen weights, weights and blocks that the loss does not reach, and
    models without second derivatives.

    Args:
        model: Dense model.
        batches: Batches on the model's device; one small batch is enough.
        loss: Loss of the task.
        topology: Topology of the model.
        parts: Criteria in use.

    Returns:
        The groups, weights and blocks that cannot be scored.

    Raises:
        UnknownNameError: For an unknown criterion.
    """
    signals, failed = _signals(model, batches, loss, topology, parts.signals)

    def refused(
        names: Iterable[str], needs: Callable[[str], Collection[str]], things: Iterable[str], scored: Scored
    ) -> dict[str, dict[str, str]]:
        things = tuple(things)
        found: dict[str, dict[str, str]] = {}
        for name in names:
            for thing in things:
                missing = [failed[signal] for signal in needs(name) if signal in failed]
                why = missing[0] if missing else _why_not(scored, name, thing, signals)
                if why:
                    found.setdefault(name, {})[thing] = why
        return found

    return Inapplicable(
        channels=refused(
            parts.channels,
            lambda name: CRITERIA.find(name).signals,
            topology.widths,
            lambda name, group, known: score(name, topology.group(group), known),
        ),
        weights=refused(parts.weights, lambda name: WEIGHT_CRITERIA.find(name).signals, parts.masked, score_weights),
        blocks=refused(
            parts.blocks,
            lambda name: BLOCK_CRITERIA.find(name).signals,
            (block.name for block in topology.blocks),
            lambda name, block, known: score_block(name, topology.block(block), topology, known),
        ),
    )


#: (criterion, name of a group, weight or block, signals) -> scores.
Scored = Callable[[str, str, Signals], Tensor]


def _why_not(scored: Scored, name: str, thing: str, signals: Signals) -> str:
    try:
        scored(name, thing, signals)
    except ConfigurationError as error:
        return str(error)
    return ""


def _signals(
    model: nn.Module, batches: Sequence[Batch], loss: Loss, topology: Topology, names: Collection[str]
) -> tuple[Signals, dict[str, str]]:
    """Gather the signals that can be gathered, and the reasons why the others cannot."""
    parent = (topology, KeptChannels.whole(topology))
    signals, failed = gather_signals(model, (), parent, batches, loss, 0), {}
    for name in (signal for signal in SIGNALS if signal in names):
        try:
            found = gather_signals(model, (name,), parent, batches, loss, 0)
        except ConfigurationError as error:
            failed[name] = str(error)
        else:
            signals = replace(signals, **{name: getattr(found, name)})
    return signals, failed
