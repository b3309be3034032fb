"""The run folder: one file that says what study it is, one folder for each candidate. Every write is atomic."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from autoprune.errors import NotFoundError, StorageError, fault
from autoprune.front.record import CandidateRecord
from autoprune.measure.measurement import Measurement
from autoprune.sensitivity.scan import Sensitivity
from autoprune.task.checkpoint import serialize_smallest, sync_folder, write_atomically

FOLDER_VERSION = 1
STUDY, SENSITIVITY, REPORT = "study.json", "sensitivity.json", "report.html"
CANDIDATES, FAILURES = "candidates", "failures"
RECORD, WEIGHTS, TEST = "candidate.json", "weights.safetensors", "test.json"
#: Empty; there once the weights were removed.
REMOVED = "weights.removed"


@dataclass(frozen=True, slots=True)
class RunFolder:
    """Paths and files of one run.

    path: the folder. Methods raise StorageError for files that can not be read.
    """

    path: Path

    @property
    def holds_study(self) -> bool:
        """True when a study has been created here."""
        return (self.path / STUDY).is_file()

    @property
    def report(self) -> Path:
        """Where the report goes."""
        return self.path / REPORT

    def weights(self, number: int) -> Path:
        """The weights of a candidate."""
        return self._candidate(number) / WEIGHTS

    def write_study(self, data: Mapping[str, object]) -> None:
        """What study this is."""
        write_atomically(self.path / STUDY, json.dumps({"version": FOLDER_VERSION, **data}, indent=1).encode())

    def read_study(self) -> dict[str, object]:
        """What `write_study` wrote. NotFoundError where there is no study."""
        if not self.holds_study:
            raise NotFoundError(
                fault(
                    "a run folder",
                    f"hold {STUDY}",
                    f"{self.path} without it",
                    "Name the folder that `autoprune run` printed.",
                )
            )
        data = _read_json(self.path / STUDY)
        version = data.get("version")
        if not isinstance(version, int) or version > FOLDER_VERSION:
            remedy = "Upgrade autoprune." if isinstance(version, int) else ""
            raise StorageError(fault("a run folder's version", f"be <= {FOLDER_VERSION}", repr(version), remedy))
        return data

    def write_sensitivity(self, sensitivity: Sensitivity) -> None:
        """The scan, measured once per study."""
        write_atomically(self.path / SENSITIVITY, sensitivity.to_json().encode())

    def read_sensitivity(self) -> Sensitivity | None:
        """The scan, None when there is none yet."""
        path = self.path / SENSITIVITY
        return Sensitivity.from_json(path.read_text()) if path.is_file() else None

    def has_weights(self, number: int) -> bool:
        """False once they were removed."""
        return self.weights(number).is_file() and not (self._candidate(number) / REMOVED).is_file()

    def no_weights(self, number: int) -> NotFoundError:
        """What to raise for a candidate whose weights are not there."""
        remedy = "Dominated candidates lose them, unless StudySettings.collect_garbage is False."
        if not (self._candidate(number) / REMOVED).is_file():
            remedy = "autoprune did not remove them; evaluate_plan with the candidate's plan makes it anew."
        what = f"the weights of candidate {number}"
        return NotFoundError(fault(what, f"lie at {self.weights(number)}", "nothing there", remedy))

    def remove_weights(self, number: int) -> None:
        """Free their space. What is known of the candidate stays, and that it has lost them."""
        write_atomically(self._candidate(number) / REMOVED, b"")
        self.weights(number).unlink(missing_ok=True)

    def write_candidate(self, record: CandidateRecord, model: nn.Module) -> None:
        """Store a candidate: written beside its place, synced, renamed, so that it is there whole or not at all.

        The weights are the file whose length `measure.cost.stored_bytes` gives.
        """
        final = self._candidate(record.number)
        temporary = final.with_name(f".{final.name}.{os.getpid()}.tmp")
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        write_atomically(temporary / WEIGHTS, serialize_smallest(model.state_dict()))
        write_atomically(temporary / RECORD, record.to_json().encode())
        shutil.rmtree(final, ignore_errors=True)
        temporary.rename(final)
        sync_folder(final.parent)

    def write_failure(self, number: int, text: str) -> None:
        """The traceback of a trial that crashed."""
        write_atomically(self.path / FAILURES / f"{number:05d}.txt", text.encode())

    def write_test(self, number: int, measurement: Measurement) -> None:
        """The test measurement of a member of the final front."""
        write_atomically(self._candidate(number) / TEST, json.dumps(measurement.to_dict(), indent=1).encode())

    def read_candidate(self, number: int) -> CandidateRecord | None:
        """One candidate, None when it is not there."""
        folder = self._candidate(number)
        if not (folder / RECORD).is_file():
            return None
        try:
            test = Measurement.from_dict(_read_json(folder / TEST)) if (folder / TEST).is_file() else None
        except (TypeError, KeyError) as error:
            raise StorageError(fault(str(folder / TEST), "hold a measurement", repr(error))) from error
        try:
            return CandidateRecord.from_json((folder / RECORD).read_text(), test, (folder / REMOVED).is_file())
        except StorageError as error:
            raise StorageError(f"{folder / RECORD}: {error}") from error

    def read_candidates(self) -> list[CandidateRecord]:
        """Every stored candidate in order of its number."""
        root = self.path / CANDIDATES
        names = sorted(entry.name for entry in root.iterdir() if entry.name.isdigit()) if root.is_dir() else []
        found = [self.read_candidate(int(name)) for name in names]
        return [record for record in found if record is not None]

    def sweep(self) -> None:
        """Remove what an interrupted write left behind."""
        for pattern in ("", f"{CANDIDATES}/", f"{CANDIDATES}/*/", "checkpoints/*/"):
            for entry in self.path.glob(f"{pattern}.*.tmp"):
                if entry.is_dir():
                    shutil.rmtree(entry, ignore_errors=True)
                else:
                    entry.unlink(missing_ok=True)

    def _candidate(self, number: int) -> Path:
        return self.path / CANDIDATES / f"{number:05d}"


def _read_json(path: Path) -> dict[str, object]:
    try:
        data = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise StorageError(fault(str(path), "be JSON", f"{type(error).__name__}: {error}")) from error
    if not isinstance(data, dict):
        raise StorageError(fault(str(path), "hold a JSON object", type(data).__name__))
    return data
