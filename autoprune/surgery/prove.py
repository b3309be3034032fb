"""The proof gate: a group is offered only if a cut and a mask of it compute the same on the example inputs."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import nn

from autoprune.criteria.kept import KeptChannels
from autoprune.surgery.depth import with_blocks
from autoprune.surgery.evidence import Evidence
from autoprune.surgery.influence import NOTHING, Part, matrices, moving
from autoprune.surgery.remedies import Change, changes
from autoprune.task.data import Inputs
from autoprune.trace.reasons import PROOF_TIME, Reason
from autoprune.trace.topology import Attribute, ChannelGroup, Topology
from autoprune.trace.trace import trace

#: Other weights that are tried where a cut changes nothing.
REDRAWS = 3
#: Seconds of processor time after which what is not yet proved is withdrawn.
PROOF_SECONDS = 300.0


def prove(
    model: nn.Module, topology: Topology, example_inputs: Inputs, *, seed: int = 0, seconds: float = PROOF_SECONDS
) -> Topology:
    """The topology with every group and block withdrawn that a cut would break.

    Three draws: every group loses a random half, then a random number, then all but one of its channels stay (widths
    that have to stay equal to each other pass the first and fail the others); one channel alone is tried last. Groups
    that share positions, such as heads and head width, or a number of a module, can be right together and wrong alone,
    so they are drawn apart first. Many groups are drawn at once, and halved where that differs or crashes: a few
    forwards prove a sound model, and some log2(groups) more find each unsound group. A group that fails may become
    right by a change (`surgery.remedies`). What is compared, and on what, is said in `surgery.evidence`.

    seconds: processor time; what is not proved by then is withdrawn, so that a proof always ends.
    """
    if not topology.groups and not topology.blocks:
        return topology
    return _proved(topology, Evidence.of(model, example_inputs), seed, time.process_time() + seconds)[0]


def survey(model: nn.Module, example_inputs: Inputs, *, seed: int = 0, seconds: float = PROOF_SECONDS) -> Topology:
    """Trace and prove a model; what every study starts from.

    Attention that takes its width from its input (`B, N, C = x.shape`) only runs when both shrink alike. Where heads
    could not be proved for that, the model is traced once more with the two tied, and that topology is given if it
    reaches much smaller models. Raises TraceError when the model cannot be copied or run.
    """
    topology = trace(model, example_inputs)
    if not topology.groups and not topology.blocks:
        return topology
    bench, deadline = Evidence.of(model, example_inputs), time.process_time() + seconds
    found, reasons = _proved(topology, bench, seed, deadline)
    tied = frozenset(module for name in reasons for module in topology.group(name).reshaped)
    if not tied:
        return found
    again, _ = _proved(trace(model, example_inputs, tied=tied), bench, seed, deadline)
    # Tied groups are fewer, so they have to reach much farther.
    return again if _half(again) < 0.7 * _half(found) else found


def _half(topology: Topology) -> int:
    """Multiply-adds with every group halved."""
    return topology.cost({group.name: group.channels // 2 for group in topology.groups}).multiply_adds


def _proved(topology: Topology, bench: Evidence, seed: int, deadline: float) -> tuple[Topology, dict[str, Reason]]:
    """The topology with what is wrong withdrawn, and the reasons by group."""
    proof = _Proof(topology, bench, seed, deadline)
    for names in _apart(topology):
        proof.settle(names)
        proof.settle_unheard(names)
    proof.settle_together()
    for names in _apart(proof.topology):
        proof.settle_narrow([name for name in names if name not in proof.reasons])
    offered = with_blocks(proof.topology.without(proof.reasons), bench, lambda: proof.expired)
    return proof.with_effect(offered), proof.reasons


def _apart(topology: Topology) -> list[list[str]]:
    """Group names in sets, no two of a set on the same position of an axis or in the same number of a module."""
    shared: dict[str, set[str]] = {name: set() for name in topology.widths}
    numbers = [attribute.runs for group in topology.groups for attribute in group.attributes]
    together = [{name for run in runs for name in run.groups} for runs in numbers]
    together += [set(run.groups) for runs in topology.runs.values() for run in runs]
    for names in together:
        for name in names & shared.keys():
            shared[name] |= names - {name}
    sets: list[list[str]] = []
    for name in topology.widths:
        free = next((names for names in sets if not shared[name].intersection(names)), None)
        if free is None:
            sets.append([name])
        else:
            free.append(name)
    return sets


@dataclass(slots=True)
class _Proof:
    """One proof under way.

    reasons: groups that are withdrawn so far, and why. deadline: in processor time.
    learned: changes that made a group right -> the layers of these groups, see `_layer`.
    """

    topology: Topology
    bench: Evidence
    seed: int
    deadline: float
    reasons: dict[str, Reason] = field(default_factory=dict)
    learned: dict[Change, set[str]] = field(default_factory=dict)
    guesses: dict[str, tuple[Attribute, ...]] = field(init=False)
    draws: tuple[dict[str, tuple[int, ...]], ...] = field(init=False)

    def __post_init__(self) -> None:
        self.bench.forget()
        groups = self.topology.groups
        self.draws = tuple(
            {group.name: _keep(group, draw, self.seed + number) for number, group in enumerate(groups)}
            for draw in ("half", "any", "all but one")
        )
        # Numbers of modules that were guessed are left as they are until a group turns out to need them.
        self.guesses = {group.name: tuple(a for a in group.attributes if not a.certain) for group in groups}
        certain = [replace(g, attributes=tuple(a for a in g.attributes if a.certain)) for g in groups]
        self.topology = replace(self.topology, groups=tuple(certain))

    @property
    def expired(self) -> bool:
        """True once the time for proving is over."""
        return time.process_time() > self.deadline

    def fault(
        self,
        names: Sequence[str],
        topology: Topology | None = None,
        *,
        in_training: bool = False,
        draws: Sequence[Mapping[str, tuple[int, ...]]] = (),
    ) -> Reason | None:
        """Why these groups cannot be cut together, None when they can. draws: some of them; all when not given."""
        for draw in draws or self.draws:
            if self.expired:
                return Reason(kind=PROOF_TIME)
            kept = KeptChannels(groups={name: draw[name] for name in names})
            last = in_training and draw is self.draws[-1]
            reason = self.bench.difference(topology or self.topology, kept, in_training=last)
            if reason is not None:
                return reason
        return None

    def settle(self, names: Sequence[str]) -> None:
        """Find the groups of these that are wrong; together first, then half by half."""
        reason = self.fault(names) if names else None
        if reason is None:
            return
        if len(names) == 1:
            if not self._remedied(names[0]):
                self.reasons[names[0]] = self._explained(names[0], reason)
            return
        if self._alike(names):
            return
        middle = len(names) // 2
        self.settle(names[:middle])
        self.settle(names[middle:])

    def _alike(self, names: Sequence[str]) -> bool:
        """What helped one layer mostly helps its likes: change all groups of a set at once, if that makes it right."""
        topology = self.topology
        for name in names:
            changes_of_name = (change(topology.group(name), self.guesses[name]) for change in self._learned_for(name))
            changed = next(filter(None, changes_of_name), None)
            if changed is not None:
                topology = _with(topology, changed)
        if topology is self.topology or self.fault(names, topology) is not None:
            return False
        self.topology = topology
        return True

    def settle_unheard(self, names: Sequence[str]) -> None:
        """Prove again, fewer at once, those of some groups that the outputs say nothing of once all are cut.

        Behind units that are dead in a much smaller model a wrong group would pass with the others.
        """
        left = self._unheard([name for name in names if name not in self.reasons])
        halves = (left[: len(left) // 2], left[len(left) // 2 :])
        for part in halves if len(names) > 1 else ():
            self.settle(part)
            self.settle_unheard(part)

    def _unheard(self, names: Sequence[str]) -> list[str]:
        """Groups with weights that matter in the dense model, and in no draw of all of these groups."""
        if len(names) < 2:
            return list(names)
        dense = moving(self.bench.slopes)
        weights = {name: matrices(self.topology.group(name)) & dense for name in names}
        for draw in self.draws:
            if not any(weights.values()) or self.expired:
                break
            heard = self.bench.moving(self.topology, KeptChannels(groups={name: draw[name] for name in names}))
            weights = {name: left - heard for name, left in weights.items()}
        return [name for name, left in weights.items() if left]

    def settle_together(self) -> None:
        """What is right apart has to be right together; one by one, a group that is not is withdrawn."""
        left = [name for name in self.topology.widths if name not in self.reasons]
        if not left or self.fault(left, in_training=True) is None:
            return
        sound: list[str] = []
        for name in left:
            reason = self.fault([*sound, name], in_training=True)
            if reason is None or self._remedied(name, sound):
                sound.append(name)
            else:
                self.reasons[name] = self._explained(name, replace(reason, note="together with other groups"))

    def _explained(self, name: str, reason: Reason) -> Reason:
        hint = self.topology.group(name).hint
        note = "; ".join(filter(None, (reason.note, f"it {hint}" if hint else "")))
        return replace(reason, note=note)

    def _remedied(self, name: str, others: Sequence[str] = ()) -> bool:
        """Look for a change to a group that makes it right; what helped another group is tried first."""
        known = self._learned_for(name)
        for number, change in enumerate([*known, *changes(self.topology.group(name), self.guesses[name])]):
            if self.expired:
                return False
            if self._try(change, name, others):
                found = change if number < len(known) else self._least(change, name, others)
                self.learned.setdefault(found, set()).add(_layer(name))
                return True
        return False

    def _learned_for(self, name: str) -> list[Change]:
        """What helped other groups, the same layer of other blocks first."""
        return sorted(self.learned, key=lambda change: _layer(name) not in self.learned[change])

    def _least(self, change: Change, name: str, others: Sequence[str]) -> Change:
        """A number that is not needed only looks like a width: leave it."""
        least = self._narrowed(change, name, others)
        if least == change or self._try(least, name, others):
            return least
        self._try(change, name, others)
        return change

    def _narrowed(self, change: Change, name: str, others: Sequence[str]) -> Change:
        """The change without every number that the first draw does not need."""
        for smaller in change.smaller():
            candidate = self._changed(smaller, name) if smaller.numbers or smaller.scale else None
            if candidate is not None and self.fault([*others, name], candidate, draws=self.draws[:1]) is None:
                return self._narrowed(smaller, name, others)
        return change

    def _try(self, change: Change, name: str, others: Sequence[str]) -> bool:
        """Put the changed group into the topology if it is right."""
        candidate = self._changed(change, name)
        if candidate is None or self.fault([*others, name], candidate) is not None:
            return False
        self.topology = candidate
        return True

    def _changed(self, change: Change, name: str) -> Topology | None:
        """The topology with the change to that group, None where there is nothing to change."""
        changed = change(self.topology.group(name), self.guesses[name])
        return None if changed is None else _with(self.topology, changed)

    def settle_narrow(self, names: Sequence[str]) -> None:
        """Find the groups that need more than one channel: something is squeezed, or spread out over them."""
        if not names:
            return
        if self.expired:
            for group in (self.topology.group(name) for name in names):
                self.topology = _with(self.topology, replace(group, least=_two(group)))
            return
        one = KeptChannels(groups={name: self.draws[1][name][: self.topology.group(name).least] for name in names})
        reason = self.bench.difference(self.topology, one)
        if reason is None:
            return
        if len(names) > 1:
            middle = len(names) // 2
            self.settle_narrow(names[:middle])
            self.settle_narrow(names[middle:])
            return
        group = self.topology.group(names[0])
        if group.channels < 3 or group.least > 1:
            self.reasons[group.name] = self._explained(group.name, reason)
        else:
            self.topology = _with(self.topology, replace(group, least=2))

    def with_effect(self, topology: Topology) -> Topology:
        """The topology without the groups and blocks whose cut changes nothing: a wrong one would pass as well.

        What changes nothing with these weights is proved with others, if it does something there.
        """
        cuts = {
            ("group", group.name): [KeptChannels(groups={group.name: draw[group.name]}) for draw in self.draws]
            for group in topology.groups
        } | {("block", block.name): [KeptChannels(groups={}, dropped=(block.name,))] for block in topology.blocks}
        gone = dict.fromkeys(self.bench.silent(topology, cuts), NOTHING)
        for draw in range(REDRAWS):
            silent = {part: cuts[part] for part, reason in gone.items() if reason == NOTHING}
            other = self.bench.redrawn(draw) if silent else None
            if other is not None:
                found = _faults(other, topology, silent)
                gone = {part: found.get(part, gone[part]) for part in gone if part in found or part not in silent}
        withdrawn = {name: reason for (kind, name), reason in gone.items() if kind == "group"}
        self.reasons |= withdrawn
        left = tuple(block for block in topology.blocks if ("block", block.name) not in gone)
        return replace(topology.without(withdrawn), blocks=left)


def _layer(name: str) -> str:
    """The name without the numbers in it: the same for the same layer of all blocks."""
    return re.sub(r"\d+", "#", name)


def _faults(bench: Evidence, topology: Topology, cuts: Mapping[Part, Sequence[KeptChannels]]) -> dict[Part, Reason]:
    """What is wrong with each part, if anything is: that its cuts change nothing, or more than they should."""
    found = dict.fromkeys(bench.silent(topology, cuts), NOTHING)
    for part in [part for part in cuts if part not in found]:
        for chosen in cuts[part]:
            reason = bench.difference(topology, chosen)
            if reason is not None:
                found[part] = reason
    return found


def _with(topology: Topology, changed: ChannelGroup) -> Topology:
    groups = tuple(changed if group.name == changed.name else group for group in topology.groups)
    return replace(topology, groups=groups)


def _two(group: ChannelGroup) -> int:
    """Two channels, or as many as the group needs; one where two would be all."""
    return max(min(2, group.channels - 1), group.least)


def _keep(group: ChannelGroup, draw: str, seed: int) -> tuple[int, ...]:
    """Random channels of a group; at least two where it has more, since one is a case of its own, and never all."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(group.channels, generator=generator)
    least = _two(group)
    count = {"half": group.channels // 2, "all but one": group.channels - 1}.get(draw)
    if count is None:
        count = int(torch.randint(least, group.channels, (1,), generator=generator))
    return tuple(order[: max(least, count)].tolist())
