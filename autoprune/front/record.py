"""CandidateRecord: what is on disk of a candidate, but its weights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from autoprune.errors import StorageError, fault
from autoprune.measure.measurement import Measurement
from autoprune.plan.plan import PruningPlan

RECORD_VERSION = 3
#: Where a trial came from.
ORIGINS = ("dense", "uniform", "solved", "enqueued", "sampled", "polished")


@dataclass(frozen=True, slots=True, kw_only=True)
class CandidateRecord:
    """A finished candidate.

    number: its trial in the Optuna study. origin: one of ORIGINS.
    plan: what was asked for. kept: channels that stay, in indices of the dense model. dropped: blocks that went.
    search: its measurement on the search split. test: on the test split, None until the final front.
    parent: trial whose weights it started from, None for the dense model.
    samples_forward, samples_trained: work for this trial alone.
    lineage_trained: samples trained with along its line of parents, its own included.
    seconds: time by phase. note: "" or what went wrong.
    rungs: (share of the fine-tune's steps done, quality on part of the search split), as they were passed.
    fidelity: share of the fine-tune's steps that were done, < 1 for a candidate that was stopped early.
    removed: its weights were removed as nobody would need them.
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
    lineage_trained: int = 0
    seconds: Mapping[str, float] = field(default_factory=dict)
    note: str = ""
    rungs: tuple[tuple[float, float], ...] = ()
    fidelity: float = 1.0
    removed: bool = False

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
        return json.dumps(
            {
                "version": RECORD_VERSION,
                "number": self.number,
                "origin": self.origin,
                "plan": self.plan.to_dict(),
                "kept": {name: list(indices) for name, indices in self.kept.items()},
                "dropped": list(self.dropped),
                "search": self.search.to_dict(),
                "parent": self.parent,
                "samples_forward": self.samples_forward,
                "samples_trained": self.samples_trained,
                "lineage_trained": self.lineage_trained,
                "seconds": dict(self.seconds),
                "note": self.note,
                "rungs": [list(rung) for rung in self.rungs],
                "fidelity": self.fidelity,
            },
            indent=1,
        )

    @classmethod
    def from_json(cls, text: str, test: Measurement | None = None, removed: bool = False) -> CandidateRecord:
        """Raises StorageError for text that is no record of this or an earlier version."""
        try:
            data = json.loads(text)
            if data["version"] > RECORD_VERSION:
                raise StorageError(
                    fault("a candidate's version", f"be <= {RECORD_VERSION}", data["version"], "Upgrade autoprune.")
                )
            before_rungs = data["version"] < 3
            return cls(
                number=data["number"],
                origin=data["origin"],
                plan=PruningPlan.from_dict(data["plan"]),
                kept={name: tuple(indices) for name, indices in data["kept"].items()},
                dropped=tuple(data.get("dropped", ())),
                search=Measurement.from_dict(data["search"]),
                test=test,
                parent=data["parent"],
                samples_forward=data["samples_forward"],
                samples_trained=data["samples_trained"],
                lineage_trained=data["lineage_trained"],
                seconds=data["seconds"],
                note=data["note"],
                rungs=() if before_rungs else tuple((share, quality) for share, quality in data["rungs"]),
                fidelity=1.0 if before_rungs else data["fidelity"],
                removed=removed,
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise StorageError(
                fault("candidate.json", "hold a candidate", f"{type(error).__name__}: {error}")
            ) from error
