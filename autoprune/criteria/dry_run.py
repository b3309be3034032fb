"""A rehearsal: everything that a study may score is scored once, so that what cannot be is known before it runs."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace

from torch import Tensor, nn

from autoprune.criteria.blocks import block_criterion, score_block
from autoprune.criteria.calibration import Loss
from autoprune.criteria.gathering import gather_signals
from autoprune.criteria.kept import KeptChannels
from autoprune.criteria.registry import RefusalReasons, criterion, score
from autoprune.criteria.signals import SIGNALS, Signals
from autoprune.criteria.single_weights import score_weights, weight_criterion
from autoprune.errors import ConfigurationError, raise_all
from autoprune.task.data import Batch
from autoprune.trace.topology import Topology


@dataclass(frozen=True, slots=True, kw_only=True)
class CriteriaInUse:
    """Names of the criteria that a study may use.

    channels, weights, blocks: by what they score. masked: names of the weights that masks may be laid on.
    """

    channels: tuple[str, ...] = ()
    weights: tuple[str, ...] = ()
    blocks: tuple[str, ...] = ()
    masked: tuple[str, ...] = ()

    @property
    def signals(self) -> set[str]:
        """What they need beside the weights."""
        needed = [signal for name in self.channels for signal in criterion(name).signals]
        needed += [signal for name in self.weights for signal in weight_criterion(name).signals]
        needed += [signal for name in self.blocks for signal in block_criterion(name).signals]
        return set(needed)


@dataclass(frozen=True, slots=True, kw_only=True)
class Inapplicable:
    """What cannot be scored, and why: groups of channels, weights and blocks, each by criterion."""

    channels: RefusalReasons = field(default_factory=dict)
    weights: RefusalReasons = field(default_factory=dict)
    blocks: RefusalReasons = field(default_factory=dict)

    def check(self) -> None:
        """Raise ConfigurationError with the first fault of each criterion for single weights or blocks.

        What of the channels is refused is for registry.check_applicable, as groups may choose their criterion.
        """
        every = [*self.weights.values(), *self.blocks.values()]
        raise_all("the criteria", [next(iter(refused.values())) for refused in every if refused])


def dry_run(
    model: nn.Module, batches: Sequence[Batch], loss: Loss, topology: Topology, parts: CriteriaInUse
) -> Inapplicable:
    """Score every group, masked weight and block of a dense model by every criterion that is named.

    batches: a single small one is enough, on the model's device. Layers whose input cannot be watched, frozen weights,
    weights and blocks that the loss does not reach, models without second derivatives: all of them show here.
    Raises UnknownNameError for a criterion that there is not.
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
            lambda name: criterion(name).signals,
            topology.widths,
            lambda name, group, known: score(name, topology.group(group), known),
        ),
        weights=refused(parts.weights, lambda name: weight_criterion(name).signals, parts.masked, score_weights),
        blocks=refused(
            parts.blocks,
            lambda name: block_criterion(name).signals,
            (block.name for block in topology.blocks),
            lambda name, block, known: score_block(name, topology.block(block), topology, known),
        ),
    )


#: (criterion, what it scores, signals) -> scores.
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
    """Those that can be gathered, and why the others cannot."""
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
