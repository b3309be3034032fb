"""Prove groups: find those that pass, repair others, and withdraw the rest."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace

from autoprune.plan.kept import KeptChannels
from autoprune.proof.block_proof import block_faults, with_blocks, without_depth
from autoprune.proof.comparison import EquivalenceCheck
from autoprune.proof.draws import DRAWS, Draw, draw_channels, independent_sets, layer_of, two_channels
from autoprune.proof.forwards import OutOfTime
from autoprune.proof.influence import NO_EFFECT_REASON, Cuts, Part, influential_parameters, matrices
from autoprune.proof.repairs import Repair, candidate_repairs, repair_key
from autoprune.structure.groups import Attribute, ChannelGroup
from autoprune.structure.reasons import PROOF_TIME, Reason
from autoprune.structure.topology import Topology

#: Number of other weights that are tried if a cut changes nothing.
REDRAWS = 3


@dataclass(frozen=True, slots=True)
class Lessons:
    """Results of a proof that help another one, by names of layers without their numbers.

    Attributes:
        repairs: Repair -> layers of the groups that it made right.
        reasons: Layer -> reason for which its groups were withdrawn.
        min_channels: Layer -> fewest channels, where that is more than one.
        tied: Layers of modules that were traced with tied channels.
        in_training: Whether training mode was traced as well.
    """

    repairs: Mapping[Repair, set[str]] = field(default_factory=dict)
    reasons: Mapping[str, Reason] = field(default_factory=dict)
    min_channels: Mapping[str, int] = field(default_factory=dict)
    tied: frozenset[str] = frozenset()
    in_training: bool = False


@dataclass(slots=True)
class Proof:
    """A proof of groups in progress.

    Attributes:
        topology: The topology, with the repairs so far.
        check: Compares cuts with masks.
        seed: Seed of the draws.
        lessons: Results of an earlier proof.
        reasons: Groups withdrawn so far, with the reasons.
        learned: Repair -> layers of the groups that it made right.
        settled: Groups that were repaired by name, not as likes of another group.
        passed: (groups with their repairs, draw, all together) that passed.
        apart: Number of draws for sets of groups; 1 if an earlier proof passed all draws with like layers.
        guesses: Guessed numbers of each group; none is used until the group turns out to need it.
        draws: Kept channels of every group; the first `apart` draws are for sets of groups, the last for all groups
            together.
        sets: Names of all groups; groups that share something are in different sets.
    """

    topology: Topology
    check: EquivalenceCheck
    seed: int
    lessons: Lessons = field(default_factory=Lessons)
    reasons: dict[str, Reason] = field(default_factory=dict)
    learned: dict[Repair, set[str]] = field(default_factory=dict)
    settled: set[str] = field(default_factory=set)
    passed: set[object] = field(default_factory=set)
    apart: int = len(DRAWS) - 1
    guesses: dict[str, tuple[Attribute, ...]] = field(init=False)
    draws: tuple[Draw, ...] = field(init=False)
    sets: list[list[str]] = field(init=False)

    def __post_init__(self) -> None:
        groups = self.topology.groups
        self.draws = tuple(
            {
                group.name: draw_channels(group, DRAWS[(number + draw) % len(DRAWS)], self.seed + number)
                for number, group in enumerate(groups)
            }
            for draw in range(len(DRAWS))
        )
        # Guessed numbers of modules are left unchanged until a group turns out to need them.
        self.guesses = {group.name: tuple(a for a in group.attributes if not a.certain) for group in groups}
        certain = [replace(g, attributes=tuple(a for a in g.attributes if a.certain)) for g in groups]
        self.sets = independent_sets(self.topology)
        self.topology = replace(self.topology, groups=tuple(self._taught(group) for group in certain))

    def _taught(self, group: ChannelGroup) -> ChannelGroup:
        """Apply the lessons of an earlier proof to a group."""
        layer = layer_of(group.name)
        if layer in self.lessons.reasons:
            self.reasons[group.name] = self._explained(group, self.lessons.reasons[layer])
            return group
        least = min(self.lessons.min_channels.get(layer, group.min_channels), two_channels(group))
        group = replace(group, min_channels=max(group.min_channels, least))
        for repair, layers in self.lessons.repairs.items():
            changed = repair(group, self.guesses[group.name]) if layer in layers else None
            if changed is not None:
                self.learned.setdefault(repair, set()).add(layer)
                return changed
        return group

    def passes_at_once(self) -> bool:
        """Tell whether all groups pass the first draw.

        Returns:
            True if no repair is needed for it.
        """
        return all(self.fault(self._left(names), draws=self.draws[:1]) is None for names in self.sets)

    def learn(self) -> Topology:
        """Prove only as much as teaches another proof.

        Returns:
            The topology without the groups that failed.
        """
        whole = self.apart
        with suppress(OutOfTime):
            for self.apart in range(1, whole + 1):  # what helps with one draw mostly helps with all
                for names in self.sets:
                    self.settle(names)
            self.settle_together()
            self._settle_narrow_at_once()
        return self.topology.without(self.reasons)

    def run(self) -> Topology:
        """Prove all groups and blocks.

        Returns:
            The topology without those that failed or were not proved in time.
        """
        try:
            self.check.slopes()  # first: they tell which groups may not stay unproved if time runs out
            for names in self.sets:
                self.settle(names)
                self._settle_unheard(names)
            self.settle_together()
        except OutOfTime:
            self.reasons |= dict.fromkeys(self._left(self.topology.widths), Reason(kind=PROOF_TIME))
            return without_depth(self.topology.without(self.reasons))
        try:
            self._settle_narrow_at_once()
        except OutOfTime:
            for group in self.topology.groups:
                self._adopt(replace(group, min_channels=two_channels(group)))
        return self._finished(self.topology.without(self.reasons))

    def taught(self) -> Lessons:
        """Return the lessons of the proof.

        Returns:
            The lessons.
        """
        groups = [group for group in self.topology.groups if group.name not in self.reasons]
        offered = {layer_of(group.name) for group in groups}
        reasons = {layer_of(name): replace(reason, note="") for name, reason in self.reasons.items()}
        return Lessons(
            repairs=self.learned,
            reasons={layer: reason for layer, reason in reasons.items() if layer not in offered},
            min_channels={layer_of(group.name): group.min_channels for group in groups if group.min_channels > 1},
        )

    def fault(
        self, names: Sequence[str], topology: Topology | None = None, *, draws: Sequence[Draw] = ()
    ) -> Reason | None:
        """Cut some groups together and compare with the mask.

        Args:
            names: The groups.
            topology: The topology to try; None for the proof's.
            draws: The draws to try; those for sets of groups by default.

        Returns:
            The reason of the first failure; None if all draws pass.
        """
        for draw in (draws or self.draws[: self.apart]) if names else ():
            together = draw is self.draws[-1]
            key = repair_key(topology or self.topology, names), self.draws.index(draw), together
            if key in self.passed:
                continue
            kept = KeptChannels(groups={name: draw[name] for name in names})
            if together:
                reason = self.check.difference(topology or self.topology, kept, in_training=True)
            else:
                reason = self.check.first_difference(topology or self.topology, kept)
            if reason is not None:
                return reason
            self.passed.add(key)
        return None

    def settle(self, names: Sequence[str]) -> None:
        """Find the failing groups of a set one by one: repair or withdraw each.

        Args:
            names: The groups.
        """
        left = self._left(names)
        while (reason := self.fault(left)) is not None:
            name, sound, reason = self._culprit(left, reason, self.draws[: self.apart])
            alone = self.fault([name])
            if not self._repaired(name, [] if alone is not None else sound, self.draws[: self.apart]):
                self.reasons[name] = self._explained(self.topology.group(name), alone or _together(reason, sound))
                self._settle_likes(name, left)
            left = self._left(left)

    def _settle_unheard(self, names: Sequence[str]) -> None:
        """Prove groups again, fewer at once, where cutting all of them leaves dead units: these hide wrong groups."""
        left = self._unheard(self._left(names))
        halves = (left[: len(left) // 2], left[len(left) // 2 :])
        for part in halves if len(names) > 1 else ():
            self.settle(part)
            self._settle_unheard(part)

    def _unheard(self, names: Sequence[str]) -> list[str]:
        """Return the groups with weights that affect the dense outputs, and in no draw those of the cut."""
        if len(names) < 2:
            return list(names)
        dense = influential_parameters(self.check.slopes())
        weights = {name: matrices(self.topology.group(name)) & dense for name in names}
        for draw in self.draws[: self.apart]:
            if not any(weights.values()):
                break
            kept = KeptChannels(groups={name: draw[name] for name in names})
            heard = self.check.influential_parameters(self.topology, kept, set[str]().union(*weights.values()))
            weights = {name: left - heard for name, left in weights.items()}
        return [name for name, left in weights.items() if left]

    def _settle_likes(self, name: str, names: Sequence[str]) -> None:
        """Withdraw the failing likes of a group: no repair helped that one."""
        for like in self._left(names):
            reason = self.fault([like]) if layer_of(like) == layer_of(name) else None
            if reason is not None:
                self.reasons[like] = self._explained(self.topology.group(like), reason)

    def settle_together(self) -> None:
        """Repair or withdraw the groups that only fail with all others together."""
        draws, left = self.draws[-1:], self._left(self.topology.widths)
        while (reason := self.fault(left, draws=draws)) is not None:
            name, sound, reason = self._culprit(left, reason, draws)
            if not self._repaired(name, sound, draws):
                self.reasons[name] = self._explained(self.topology.group(name), _together(reason, sound))
            left = self._left(left)

    def _culprit(self, names: Sequence[str], reason: Reason, draws: Sequence[Draw]) -> tuple[str, list[str], Reason]:
        """Find the first group that fails with those before it. names: groups that fail together."""
        right, wrong = 0, len(names)
        while wrong - right > 1:
            middle = (right + wrong) // 2
            found = self.fault(names[:middle], draws=draws)
            if found is None:
                right = middle
            else:
                wrong, reason = middle, found
        return names[right], list(names[:right]), reason

    def _explained(self, group: ChannelGroup, reason: Reason) -> Reason:
        note = "; ".join(filter(None, (reason.note, f"it {group.hint}" if group.hint else "")))
        return replace(reason, note=note)

    def _repaired(self, name: str, others: Sequence[str], draws: Sequence[Draw]) -> bool:
        """Look for a repair of a group; repairs of other groups are tried first."""
        known = sorted(self.learned, key=lambda repair: layer_of(name) not in self.learned[repair])
        names = [*others, name]
        for number, repair in enumerate([*known, *candidate_repairs(self.topology.group(name), self.guesses[name])]):
            changed = self._works(repair, names, draws)
            if changed is None:
                continue
            if number >= len(known):
                repair, changed = self._least(repair, names, draws) or (repair, changed)
            self._adopt(changed)
            self.settled.add(name)
            self.learned.setdefault(repair, set()).add(layer_of(name))
            self._spread(repair, name)
            return True
        return False

    def _spread(self, repair: Repair, name: str) -> None:
        """Apply a repair to the likes of a group; their own proof follows."""
        for like in self._left(self.topology.widths):
            if like not in self.settled and layer_of(like) == layer_of(name):
                changed = repair(self.topology.group(like), self.guesses[like])
                if changed is not None:
                    self._adopt(changed)

    def _least(self, repair: Repair, names: Sequence[str], draws: Sequence[Draw]) -> tuple[Repair, ChannelGroup] | None:
        """Drop the numbers that a repair does not need, as they only look like widths; None if all are needed."""
        least = self._narrowed(repair, names, draws)
        changed = None if least == repair else self._works(least, names, draws)
        return None if changed is None else (least, changed)

    def _narrowed(self, repair: Repair, names: Sequence[str], draws: Sequence[Draw]) -> Repair:
        """Drop every number that the first draw does not need."""
        for smaller in repair.smaller():
            if (smaller.numbers or smaller.scales) and self._works(smaller, names, draws[:1]) is not None:
                return self._narrowed(smaller, names, draws)
        return repair

    def _works(self, repair: Repair, names: Sequence[str], draws: Sequence[Draw]) -> ChannelGroup | None:
        """Return the last group with the repair, None if the repair changes nothing or the groups fail."""
        changed = repair(self.topology.group(names[-1]), self.guesses[names[-1]])
        if changed is None or self.fault(names, _with(self.topology, changed), draws=draws) is not None:
            return None
        return changed

    def _adopt(self, changed: ChannelGroup) -> None:
        self.topology = _with(self.topology, changed)

    def _settle_narrow_at_once(self) -> None:
        """Find the groups that need more than one channel: a single one would be squeezed or broadcast."""
        if self._narrow_fault(self._left(self.topology.widths)) is not None:
            for names in self.sets:
                self._settle_narrow(self._left(names))

    def _narrow_fault(self, names: Sequence[str]) -> Reason | None:
        if not names:
            return None
        one = {name: self.draws[1][name][: self.topology.group(name).min_channels] for name in names}
        return self.check.first_difference(self.topology, KeptChannels(groups=one))

    def _settle_narrow(self, names: Sequence[str]) -> None:
        reason = self._narrow_fault(names)
        if reason is None:
            return
        if len(names) > 1:
            middle = len(names) // 2
            self._settle_narrow(names[:middle])
            self._settle_narrow(names[middle:])
            return
        group = self.topology.group(names[0])
        if group.channels < 3 or group.min_channels > 1:
            self.reasons[group.name] = self._explained(group, reason)
        else:
            self._adopt(replace(group, min_channels=2))

    def _finished(self, topology: Topology) -> Topology:
        """Return the topology with the proved blocks, without parts that have no effect."""
        try:
            return self._with_effect(with_blocks(topology, self.check))
        except OutOfTime:
            suspects = self.check.suspects(topology)
            unseen = dict.fromkeys((name for kind, name in suspects if kind == "group"), Reason(kind=PROOF_TIME))
            self.reasons |= unseen
            return without_depth(topology.without(unseen))

    def _with_effect(self, topology: Topology) -> Topology:
        """Withdraw the groups and blocks whose cut changes nothing: a wrong one would pass as well.

        A part without effect with these weights is proved with others, if it has an effect there.
        """
        cuts = {
            ("group", group.name): [KeptChannels(groups={group.name: draw[group.name]}) for draw in self.draws]
            for group in topology.groups
        } | {("block", block.name): [KeptChannels(groups={}, dropped=(block.name,))] for block in topology.blocks}
        gone = dict.fromkeys(self.check.silent(topology, cuts), NO_EFFECT_REASON)
        for draw in range(REDRAWS):
            silent = {part: cuts[part] for part, reason in gone.items() if reason == NO_EFFECT_REASON}
            other = self.check.redrawn(draw) if silent else None
            if other is not None:
                found = _faults(other, topology, silent)
                gone = {part: found.get(part, gone[part]) for part in gone if part in found or part not in silent}
        withdrawn = {name: reason for (kind, name), reason in gone.items() if kind == "group"}
        self.reasons |= withdrawn
        silent_blocks = {name: reason for (kind, name), reason in gone.items() if kind == "block"}
        return topology.without(withdrawn).without_blocks(silent_blocks)

    def _left(self, names: Iterable[str]) -> list[str]:
        return [name for name in names if name not in self.reasons]


def _faults(check: EquivalenceCheck, topology: Topology, cuts: Cuts) -> dict[Part, Reason]:
    """Return the failing parts: their cuts change nothing, or differ from their masks."""
    found = dict.fromkeys(check.silent(topology, cuts), NO_EFFECT_REASON)
    heard = [part for part in cuts if part not in found]
    for part in (part for part in heard if part[0] == "group"):
        for chosen in cuts[part]:
            reason = check.difference(topology, chosen)
            if reason is not None:
                found[part] = reason
    blocks = [block for block in topology.blocks if ("block", block.name) in heard]
    return found | {("block", name): reason for name, reason in block_faults(topology, blocks, check).items()}


def _together(reason: Reason, others: Sequence[str]) -> Reason:
    return replace(reason, note="together with other groups") if others else reason


def _with(topology: Topology, changed: ChannelGroup) -> Topology:
    groups = tuple(changed if group.name == changed.name else group for group in topology.groups)
    return replace(topology, groups=groups)
