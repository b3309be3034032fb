"""The run folder: one file that says what study it is, one folder for each candidate. Every write is atomic."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from autoprune.codec import load_dataclass, read_bytes, to_plain
from autoprune.errors import NotFoundError, StorageError, error_message
from autoprune.front.record import RECORD_FILE, CandidateRecord
from autoprune.measure.measurement import Measurement
from autoprune.sensitivity.scan import Sensitivity
from autoprune.study.ending import Ending
from autoprune.study.manifest import FOLDER_VERSION, Manifest
from autoprune.task.checkpoint import cannot_write, read_weights, serialize_smallest, sync_folder, write_atomically
from autoprune.task.soundness import join_faults, value_faults
from autoprune.trace.stored import StoredTopology
from autoprune.trace.topology import Topology

STUDY, TOPOLOGY, ENDING = "study.json", "topology.json", "ending.json"
SENSITIVITY, REPORT = "sensitivity.json", "report.html"
CANDIDATES, FAILURES, CHECKPOINTS = "candidates", "failures", "checkpoints"
RECORD, WEIGHTS, TEST = RECORD_FILE, "weights.safetensors", "test.json"
#: Digest of the weights, as `sha256sum --check` takes it.
DIGEST = "weights.sha256"
#: Empty; there once the weights were removed.
REMOVED = "weights.removed"
#: Most characters of a failure's file: error texts may be megabytes.
_LONGEST_FAILURE = 100_000


@dataclass(frozen=True, slots=True)
class RunFolder:
    """Paths and files of one run.

    path: the folder. Methods raise StorageError for files that cannot be read, do not fit, or cannot be written.
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

    def read_study(self) -> Manifest:
        """What `write_study` wrote. NotFoundError where there is no study."""
        if not self.holds_study:
            raise NotFoundError(
                error_message(
                    "a run folder",
                    f"hold {STUDY}",
                    f"{self.path} without it",
                    "Name the folder that `autoprune run` printed.",
                )
            )
        path = self.path / STUDY
        manifest = load_dataclass(Manifest, path)
        manifest.check(str(path))
        return manifest

    def write_topology(self, topology: Topology) -> None:
        """Where the channels of the dense model lie, so that an export says it and loading need not find it again."""
        data = to_plain(StoredTopology.of(topology))
        write_atomically(self.path / TOPOLOGY, json.dumps(data, separators=(",", ":")).encode())

    def read_topology(self) -> StoredTopology | None:
        """What `write_topology` wrote; None in a run of before there was such a file."""
        path = self.path / TOPOLOGY
        return load_dataclass(StoredTopology, path) if path.exists() else None

    def write_sensitivity(self, sensitivity: Sensitivity) -> None:
        """The scan, measured once per study."""
        write_atomically(self.path / SENSITIVITY, sensitivity.to_json().encode())

    def read_sensitivity(self) -> Sensitivity | None:
        """The scan, None when there is none yet."""
        path = self.path / SENSITIVITY
        if not path.exists():
            return None
        scan = Sensitivity.from_json(read_bytes(path), str(path))
        if self.holds_study:
            self.read_study().check_scan(scan, str(path))
        return scan

    def has_weights(self, number: int) -> bool:
        """False once they were removed."""
        return self.weights(number).is_file() and not (self._candidate(number) / REMOVED).is_file()

    def missing_weights_error(self, number: int) -> NotFoundError:
        """What to raise for a candidate whose weights are not there."""
        remedy = "Dominated candidates lose them, unless StudySettings.collect_garbage is False."
        if not (self._candidate(number) / REMOVED).is_file():
            remedy = "autoprune did not remove them; evaluate_plan with the candidate's plan makes it anew."
        what = f"the weights of candidate {number}"
        return NotFoundError(error_message(what, f"lie at {self.weights(number)}", "nothing there", remedy))

    def remove_weights(self, number: int) -> None:
        """Free their space. What is known of the candidate stays, and that it has lost them."""
        write_atomically(self._candidate(number) / REMOVED, b"")
        try:
            self.weights(number).unlink(missing_ok=True)
        except OSError as error:
            raise StorageError(cannot_write(self.weights(number), error)) from error

    def write_candidate(self, record: CandidateRecord, model: nn.Module) -> None:
        """Store a candidate: written beside its place, synced, renamed, so that it is there whole or not at all.

        The weights are the file whose length `measure.cost.stored_bytes` gives.
        """
        with atomic_folder(self._candidate(record.number)) as temporary:
            weights = serialize_smallest(model.state_dict())
            write_atomically(temporary / WEIGHTS, weights)
            write_atomically(temporary / DIGEST, _digest(weights))
            write_atomically(temporary / RECORD, record.to_json().encode())

    def read_weights(self, number: int) -> dict[str, Tensor]:
        """The stored weights of a candidate.

        Raises NotFoundError where they are gone, StorageError where they cannot be read or are not those that were
        stored.
        """
        path = self.weights(number)
        if not path.exists():
            raise self.missing_weights_error(number)
        manifest = self.read_study() if self.holds_study else None
        weights = read_weights(path, None if manifest is None else manifest.bytes)
        digest = path.with_name(DIGEST)
        if digest.exists() and read_bytes(digest) == _digest(read_bytes(path)):
            return weights
        self.check_sound(weights, path)
        if digest.exists():
            raise StorageError(error_message(str(path), f"hold the weights that {digest.name} tells", "another file"))
        return weights

    def check_sound(self, weights: Mapping[str, Tensor], path: Path) -> None:
        """Raise StorageError for weights that nobody can use: not finite, or with negative variances."""
        faults = value_faults(weights, self.read_study().not_finite if self.holds_study else None)
        if faults:
            raise StorageError(
                error_message(str(path), "hold weights that are finite, and variances >= 0", join_faults(faults))
            )

    def write_failure(self, number: int, text: str) -> None:
        """Write the traceback of a trial that crashed; what the user's code raised is cut in its middle when long."""
        if len(text) > _LONGEST_FAILURE:
            half = _LONGEST_FAILURE // 2
            text = f"{text[:half]}\n... ({len(text):,} characters in all) ...\n{text[-half:]}"
        write_atomically(self.path / FAILURES / f"{number:05d}.txt", text.encode(errors="backslashreplace"))

    def write_ending(self, ending: Ending) -> None:
        """Write why the run ended."""
        write_atomically(self.path / ENDING, json.dumps(to_plain(ending), indent=1).encode())

    def read_ending(self) -> Ending | None:
        """Read why the last run ended; None where none has ended yet, or one goes on."""
        path = self.path / ENDING
        return load_dataclass(Ending, path) if path.exists() else None

    def remove_ending(self) -> None:
        """Forget why the last run ended, since one begins."""
        (self.path / ENDING).unlink(missing_ok=True)

    def write_test(self, number: int, measurement: Measurement) -> None:
        """The test measurement of a member of the final front."""
        write_atomically(self._candidate(number) / TEST, json.dumps(measurement.to_dict(), indent=1).encode())

    def read_candidate(self, number: int) -> CandidateRecord | None:
        """One candidate, None when it is not there."""
        folder = self._candidate(number)
        if not folder.exists():
            return None
        path = folder / RECORD
        test = load_dataclass(Measurement, folder / TEST) if (folder / TEST).exists() else None
        record = CandidateRecord.from_json(read_bytes(path), test, (folder / REMOVED).exists(), where=str(path))
        if record.number != number:
            raise StorageError(error_message(f"number of {path}", f"be {number}, as its folder says", record.number))
        return record

    def read_candidates(self) -> list[CandidateRecord]:
        """Every stored candidate in order of its number."""
        root = self.path / CANDIDATES
        names = sorted(entry.name for entry in _entries(root) if entry.name.isascii() and entry.name.isdigit())
        for name in names:
            if name != self._candidate(int(name)).name:
                expected = f"be named {self._candidate(int(name)).name}, which there may be beside it"
                raise StorageError(error_message(f"a candidate in {root}", expected, name))
        found = [self.read_candidate(int(name)) for name in names]
        records = sorted((record for record in found if record is not None), key=lambda record: record.number)
        if self.holds_study:
            self.read_study().check_records(records, str(root))
        return records

    def trials_seen(self) -> int:
        """One more than the highest number of a trial that left anything here."""
        places = [entry for name in (CANDIDATES, FAILURES, CHECKPOINTS) for entry in _entries(self.path / name)]
        stems = [place.stem for place in places if place.stem.isascii() and place.stem.isdigit()]
        return max((int(stem) for stem in stems), default=-1) + 1

    def remove_partial_writes(self) -> None:
        """Remove what an interrupted write left behind."""
        for pattern in ("", f"{CANDIDATES}/", f"{CANDIDATES}/*/", f"{CHECKPOINTS}/*/"):
            for entry in self.path.glob(f"{pattern}.*.tmp"):
                if entry.is_dir():
                    shutil.rmtree(entry, ignore_errors=True)
                else:
                    entry.unlink(missing_ok=True)

    def _candidate(self, number: int) -> Path:
        return self.path / CANDIDATES / f"{number:05d}"


def _digest(weights: bytes) -> bytes:
    return f"{hashlib.sha256(weights).hexdigest()}  {WEIGHTS}\n".encode()


@contextlib.contextmanager
def atomic_folder(final: Path) -> Iterator[Path]:
    """A folder to write into, which is in its place whole once the block ends, and nowhere where it fails.

    Raises StorageError where it cannot be written.
    """
    temporary = final.with_name(f".{final.name}.{os.getpid()}.tmp")
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        yield temporary
        shutil.rmtree(final, ignore_errors=True)
        temporary.rename(final)
        sync_folder(final.parent)
    except OSError as error:
        raise StorageError(cannot_write(final, error)) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _entries(folder: Path) -> list[Path]:
    """What lies in a folder, nothing where there is none."""
    try:
        return [*folder.iterdir()] if folder.exists() else []
    except OSError as error:
        raise StorageError(
            error_message(str(folder), "be a folder that can be read", error.strerror or repr(error))
        ) from error
