"""CandidateRecord: what is on disk of a candidate, but its weights."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from autoprune.codec import Format, describe_value, from_plain, parse, stored, to_plain
from autoprune.errors import StorageError, error_message
from autoprune.measure.measurement import Measurement
from autoprune.plan.plan import PruningPlan

RECORD_VERSION = 3
#: Name of its file.
RECORD_FILE = "candidate.json"
#: Where a trial came from.
ORIGINS = ("dense", "uniform", "solved", "enqueued", "sampled", "polished")
#: Fields that records did not have from the beginning; what they say then is their default.
_OPTIONAL = ("dropped", "parameters", "warm_start", "samples_shared")
#: What a study is compared with: measured on the test split at the end, whether it is on the front or not.
BASELINES = ("dense", "uniform")


@stored(
    Format(
        what="a candidate",
        version=RECORD_VERSION,
        optional=_OPTIONAL,
        since={"rungs": 3, "fidelity": 3},
        apart=("test", "removed"),
        any_number=("rungs",),
    )
)
@dataclass(frozen=True, slots=True, kw_only=True)
class CandidateRecord:
    """A finished candidate.

    number: its trial in the Optuna study. origin: one of ORIGINS.
    plan: what was asked for. kept: channels that stay, in indices of the dense model. dropped: blocks that went.
    search: its measurement on the search split. test: on the test split, None until the final front.
    parent: trial whose weights it started from, None for the dense model.
    samples_forward, samples_trained: work for this trial alone. samples_shared: work that it uses with others and that
        is done once, a teacher's outputs for the train split; 0 in records that charged it to the first trial.
    lineage_trained: samples trained with along its line of parents, its own included.
    seconds: time by phase. note: "" or what went wrong.
    rungs: (share of the fine-tune's steps done, quality on part of the search split), as they were passed.
    fidelity: share of the fine-tune's steps that were done, < 1 for a candidate that was stopped early.
    removed: its weights were removed as nobody would need them.
    parameters: what its trial chose from the space, empty where that was not stored. warm_start: "" or the key of the
        warm start that it was. A journal of trials that is lost is made again from both.
    """

    number: int
    origin: str
    plan: PruningPlan
    kept: Mapping[str, tuple[int, ...]]
    search: Measurement
    dropped: tuple[str, ...] = ()
    test: Measurement | None = None
    parent: int | None = None
    samples_forward: int = 0
    samples_trained: int = 0
    samples_shared: int = 0
    lineage_trained: int = 0
    seconds: Mapping[str, float] = field(default_factory=dict)
    note: str = ""
    rungs: tuple[tuple[float, float], ...] = ()
    fidelity: float = 1.0
    removed: bool = False
    parameters: Mapping[str, bool | int | float | str] = field(default_factory=dict)
    warm_start: str = ""

    @classmethod
    def proposed(
        cls, costs: Measurement, kept: Mapping[str, tuple[int, ...]] | None = None, dropped: tuple[str, ...] = ()
    ) -> CandidateRecord:
        """What is known of a candidate before it is trained, to compare its costs with those of others."""
        plan = PruningPlan(groups={})
        return cls(number=-1, origin="sampled", plan=plan, kept=kept or {}, dropped=dropped, search=costs)

    @property
    def selectable(self) -> bool:
        """Trained to the end and still there: what a front may hold and a person may choose."""
        return not self.stopped and not self.removed

    @property
    def stopped(self) -> bool:
        """Stopped before its training was over: measured as it is, but kept out of the front and of lineages."""
        return self.fidelity < 1.0

    @property
    def widths(self) -> dict[str, int]:
        """Group name -> channels that stay."""
        return {name: len(indices) for name, indices in self.kept.items()}

    @property
    def architecture(self) -> tuple[object, ...]:
        """Widths and blocks and what follows from them, as a key: who shares it differs in weights alone."""
        return (self.search.multiply_adds, self.search.parameters, *self.dropped, *sorted(self.widths.items()))

    @property
    def best_known(self) -> Measurement:
        """The test measurement where there is one, else the search measurement: for showing, never for deciding."""
        return self.test if self.test is not None else self.search

    def to_json(self) -> str:
        """JSON without the test measurement and whether the weights were removed, which are files of their own."""
        return json.dumps(to_plain(self), indent=1)

    @classmethod
    def from_json(
        cls, text: str | bytes, test: Measurement | None = None, removed: bool = False, *, where: str = RECORD_FILE
    ) -> CandidateRecord:
        """Read a record.

        where: what holds the text, for the message. Raises StorageError for text that is no record of this or an
        earlier version.
        """
        record = replace(from_plain(cls, parse(text, where), where), test=test, removed=removed)
        faults = _faults(record)
        if faults:
            raise StorageError(error_message(where, "hold a candidate", f"one whose {'; '.join(faults)}"))
        return record


def samples_processed(records: Iterable[CandidateRecord]) -> int:
    """Count the samples that these candidates took; work that they share counts once."""
    known = list(records)
    own = sum(record.samples_forward + record.samples_trained for record in known)
    return own + max((record.samples_shared for record in known), default=0)


def _faults(record: CandidateRecord) -> list[str]:
    """What cannot be, although each field has its type."""
    work = ("number", "samples_forward", "samples_trained", "samples_shared", "lineage_trained")
    found = [error_message(name, "be >= 0", getattr(record, name)) for name in work if getattr(record, name) < 0]
    if record.origin not in ORIGINS:
        found.append(error_message("origin", f"be one of {', '.join(ORIGINS)}", describe_value(record.origin)))
    if not 0 <= record.fidelity <= 1:
        found.append(error_message("fidelity", "lie in [0, 1]", record.fidelity))
    if record.parent is not None and record.parent < 0:
        found.append(error_message("parent", "be >= 0 or null", record.parent))
    for name, indices in record.kept.items():
        if not indices or indices[0] < 0 or any(a >= b for a, b in itertools.pairwise(indices)):
            found.append(
                error_message(f"kept[{name!r}]", "be one or more rising indices >= 0", describe_value(indices))
            )
    return [one.removesuffix(".") for one in found]
