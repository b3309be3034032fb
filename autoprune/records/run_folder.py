"""The run folder: one file that describes the study, one folder per candidate. Every write is atomic."""

from __future__ import annotations

import json
import os
import shutil
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from autoprune.codec import LARGEST_JSON, load_dataclass, read_bytes, to_plain
from autoprune.errors import AutopruneWarning, NotFoundError, StorageError, error_message
from autoprune.records.advice import advises_doctor
from autoprune.records.atomic import atomic_folder, is_being_written, link_or_copy, write_atomically
from autoprune.records.candidate import RECORD_FILE, CandidateRecord
from autoprune.records.device_profile import DeviceProfile
from autoprune.records.ending import Ending
from autoprune.records.energy import Energy
from autoprune.records.failure import Failure
from autoprune.records.layer_table import LayerTable
from autoprune.records.manifest import FOLDER_VERSION, Manifest
from autoprune.records.measurement import Latency, LaterLatencies, Measurement
from autoprune.records.sensitivity import Sensitivity
from autoprune.records.weights_file import REMOVED, WeightsFile
from autoprune.structure.stored import Structure
from autoprune.structure.topology import Topology

STUDY, TOPOLOGY, ENDING = "study.json", "topology.json", "ending.json"
SENSITIVITY, REPORT, DEVICE_PROFILE = "sensitivity.json", "report.html", "device_profile.json"
CANDIDATES, FAILURES, CHECKPOINTS = "candidates", "failures", "checkpoints"
RECORD, TEST, LATENCIES = RECORD_FILE, "test.json", "latencies.json"
#: Record of a checkpoint, beside its weights.
CHECKPOINT = "checkpoint.json"
#: Results of workers that are no candidates yet, see `records.results`.
RESULTS = "results"
#: Folder of what `autoprune doctor` moved aside.
LOST = "lost+found"
#: Most characters of a failure's file; error texts may be megabytes long.
_LONGEST_FAILURE = 100_000


@dataclass(frozen=True, slots=True)
class RunFolder:
    """Paths and files of one run.

    Methods raise StorageError for files that cannot be read or written, or that do not fit together.

    Attributes:
        path: The folder.
    """

    path: Path

    @property
    def holds_study(self) -> bool:
        """Return whether a study has been created here."""
        try:
            return (self.path / STUDY).is_file()
        except OSError:  # such as a name that is too long, or a folder of others
            return False

    @property
    def report(self) -> Path:
        """Return the path of the report."""
        return self.path / REPORT

    def weights(self, number: int) -> Path:
        """Return the path of a candidate's weights in the run folder; they may lie in the storage of artifacts instead.

        Args:
            number: Number of the candidate.
        """
        return self.weights_file(number).path

    def weights_file(self, number: int) -> WeightsFile:
        """Return the file of a candidate's weights, wherever it lies.

        Args:
            number: Number of the candidate.
        """
        return WeightsFile(self.path, f"{CANDIDATES}/{number:05d}", f"candidate {number}")

    def checkpoint_files(self) -> list[WeightsFile]:
        """Return the files of weights of all checkpoints, wherever they lie."""
        root = self.path / CHECKPOINTS
        found = [(trial, epoch) for trial in _numbered(root) for epoch in _numbered(root / trial)]
        return [_checkpoint_file(self.path, trial, epoch) for trial, epoch in found]

    def checkpoint_file(self, trial: int, epoch: int) -> WeightsFile:
        """Return the file of a checkpoint's weights, wherever it lies.

        Args:
            trial: Number of the trial.
            epoch: Finished passes over the train split.
        """
        return _checkpoint_file(self.path, f"{trial:05d}", f"{epoch:05d}")

    def write_study(self, data: Mapping[str, object]) -> None:
        """Write the manifest of the study.

        Args:
            data: JSON-ready manifest.
        """
        write_atomically(self.path / STUDY, json.dumps({"version": FOLDER_VERSION, **data}, indent=1).encode())

    def read_study(self) -> Manifest:
        """Read the manifest of the study.

        Raises:
            NotFoundError: The folder holds no study.
        """
        if not self.holds_study:
            raise self.missing_study_error()
        path = self.path / STUDY
        manifest = load_dataclass(Manifest, path)
        manifest.check(str(path))
        return manifest

    def missing_study_error(self) -> NotFoundError:
        """Build the error for a path without a study, which says what there is in its place."""
        remedy = "Name the folder that `autoprune run` printed."
        return NotFoundError(error_message("a run folder", f"hold {STUDY}", _without_study(self.path), remedy))

    def write_topology(self, topology: Topology) -> None:
        """Write the structure of the dense model, for exports and for loading without tracing.

        Args:
            topology: Structure of the dense model.
        """
        write_atomically(self.path / TOPOLOGY, topology.describe().to_json().encode())

    def read_topology(self) -> Structure | None:
        """Read the structure of the dense model; None in a run of a version that did not store it."""
        path = self.path / TOPOLOGY
        with advises_doctor(self.path):
            return load_dataclass(Structure, path) if path.exists() else None

    def read_layers(self) -> LayerTable | None:
        """Read the work of each layer of the dense model; None in a run of a version that did not store it."""
        structure = self.read_topology()
        if structure is None or not structure.products:
            return None
        return LayerTable.of(Topology.of(structure, str(self.path / TOPOLOGY)))

    def write_sensitivity(self, sensitivity: Sensitivity) -> None:
        """Write the scan, which is measured once per study.

        Args:
            sensitivity: Scan of the dense model.
        """
        write_atomically(self.path / SENSITIVITY, sensitivity.to_json().encode())

    def read_sensitivity(self) -> Sensitivity | None:
        """Read the scan; None before there is one."""
        path = self.path / SENSITIVITY
        if not path.exists():
            return None
        with advises_doctor(self.path):
            scan = Sensitivity.from_json(read_bytes(path, LARGEST_JSON), str(path))
            if self.holds_study:
                self.read_study().check_scan(scan, str(path))
            return scan

    def write_device_profile(self, profile: DeviceProfile) -> None:
        """Write the device profile of the study, which stays the same for its whole life.

        Args:
            profile: Latencies of cuts of the dense model.
        """
        profile.write(self.path / DEVICE_PROFILE)

    @property
    def holds_device_profile(self) -> bool:
        """Whether there is a device profile."""
        return (self.path / DEVICE_PROFILE).exists()

    def read_device_profile(self) -> DeviceProfile | None:
        """Read the device profile; None in a study without one."""
        with advises_doctor(self.path):
            return DeviceProfile.read(self.path / DEVICE_PROFILE) if self.holds_device_profile else None

    def has_weights(self, number: int) -> bool:
        """Return whether a candidate's weights are stored and not deleted.

        Args:
            number: Number of the candidate.
        """
        return self.weights_file(number).is_stored

    def remove_weights(self, number: int) -> None:
        """Delete a candidate's weights and mark them as deleted; its record stays.

        Args:
            number: Number of the candidate.
        """
        self.weights_file(number).remove()

    def write_candidate(self, record: CandidateRecord, weights: bytes | Sequence[Path] | None) -> None:
        """Store a candidate atomically: written beside its place, synced, renamed.

        Args:
            record: Record of the candidate.
            weights: Content of its file of weights, or files that a worker stored; None where another program keeps
                them.
        """
        with atomic_folder(self._candidate(record.number)) as temporary:
            if isinstance(weights, bytes):
                self.weights_file(record.number).write(weights, temporary)
            else:
                for path in weights or ():
                    link_or_copy(path, temporary / path.name)
            write_atomically(temporary / RECORD, record.to_json().encode())

    def holds_candidate(self, number: int) -> bool:
        """Tell whether a candidate is stored.

        Args:
            number: Number of the candidate.
        """
        return (self._candidate(number) / RECORD).is_file()

    def write_failure(self, number: int, text: str) -> None:
        """Write the traceback of a crashed trial; a long one is cut in the middle.

        Args:
            number: Number of the trial.
            text: Traceback.
        """
        if len(text) > _LONGEST_FAILURE:
            half = _LONGEST_FAILURE // 2
            text = f"{text[:half]}\n... ({len(text):,} characters in all) ...\n{text[-half:]}"
        write_atomically(self.path / FAILURES / f"{number:05d}.txt", text.encode(errors="backslashreplace"))

    def read_failures(self) -> list[Failure]:
        """Read the trials that crashed, in order of their number."""
        folder = self.path / FAILURES
        paths = [folder / name for name in _names(folder)]
        paths = [path for path in paths if path.stem.isascii() and path.stem.isdigit()]
        return [
            Failure(number=int(path.stem), text=read_bytes(path).decode(errors="replace"))
            for path in sorted(paths, key=lambda path: int(path.stem))
        ]

    def write_ending(self, ending: Ending) -> None:
        """Write why the run ended.

        Args:
            ending: Reason of the end.
        """
        write_atomically(self.path / ENDING, json.dumps(to_plain(ending), indent=1).encode())

    def read_ending(self) -> Ending | None:
        """Read why the last run ended; None before a run has ended, or while one is running."""
        path = self.path / ENDING
        with advises_doctor(self.path):
            return load_dataclass(Ending, path) if path.exists() else None

    def remove_ending(self) -> None:
        """Delete the last run's ending when a new run begins."""
        (self.path / ENDING).unlink(missing_ok=True)

    def write_test(self, number: int, measurement: Measurement) -> None:
        """Write a candidate's measurement on the test split.

        Args:
            number: Number of the candidate.
            measurement: Measurement on the test split.
        """
        write_atomically(self._candidate(number) / TEST, json.dumps(measurement.to_dict(), indent=1).encode())

    def write_latencies(self, number: int, latencies: Mapping[str, Latency], energy: Energy | None = None) -> None:
        """Write latencies of a candidate that were measured after its trial; they replace the earlier ones.

        Args:
            number: Number of the candidate.
            latencies: Name of a latency profile -> latency.
            energy: Energy that was measured after the trial; None without.
        """
        data = to_plain(LaterLatencies(latencies=latencies, energy=energy))
        write_atomically(self._candidate(number) / LATENCIES, json.dumps(data, indent=1).encode())

    def read_candidate(self, number: int) -> CandidateRecord | None:
        """Read one candidate; None if it is not stored.

        Args:
            number: Number of the candidate.
        """
        folder = self._candidate(number)
        if not folder.exists():
            return None
        path = folder / RECORD
        test = load_dataclass(Measurement, folder / TEST) if (folder / TEST).exists() else None
        record = CandidateRecord.from_json(
            read_bytes(path, LARGEST_JSON), test, (folder / REMOVED).exists(), where=str(path)
        )
        if record.number != number:
            raise StorageError(error_message(f"number of {path}", f"be {number}, as its folder says", record.number))
        later = _later_latencies(folder / LATENCIES, number)
        return record if later is None else record.with_latencies(later.latencies, later.energy)

    def read_candidates(self) -> list[CandidateRecord]:
        """Read every stored candidate in order of its number."""
        with advises_doctor(self.path):
            return self._candidates()

    def _candidates(self) -> list[CandidateRecord]:
        root = self.path / CANDIDATES
        numbers = [self.candidate_number(name) for name in self.candidate_names()]
        found = [self.read_candidate(number) for number in numbers]
        records = sorted((record for record in found if record is not None), key=lambda record: record.number)
        if self.holds_study:
            self.read_study().check_records(records, str(root))
        return records

    def candidate_names(self) -> list[str]:
        """List the names of the candidates' folders."""
        return _numbered(self.path / CANDIDATES)

    def candidate_number(self, name: str) -> int:
        """Read the number of a candidate.

        Args:
            name: Name of its folder.

        Raises:
            StorageError: The number is written in another way than this class writes it.
        """
        right = self._candidate(int(name[:20])).name
        if name != right:
            expected = f"be named {right}, which there may be beside it"
            raise StorageError(error_message(f"a candidate in {self.path / CANDIDATES}", expected, name))
        return int(name)

    def trials_seen(self) -> int:
        """Return one more than the highest number of a trial with any file here."""
        names = [name for folder in (CANDIDATES, FAILURES, CHECKPOINTS, RESULTS) for name in _names(self.path / folder)]
        stems = [stem for name in names if (stem := Path(name).stem).isascii() and stem.isdigit()]
        return max((int(stem) for stem in stems), default=-1) + 1

    def remove_partial_writes(self) -> None:
        """Delete the temporary files of interrupted writes."""
        for pattern in ("", f"{CANDIDATES}/", f"{CANDIDATES}/*/", f"{CHECKPOINTS}/*/", f"{RESULTS}/"):
            for entry in self.path.glob(f"{pattern}.*.tmp"):
                # Reports, annotations and results are written by other processes, too.
                if pattern in ("", f"{RESULTS}/") and is_being_written(entry):
                    continue
                if entry.is_dir():
                    shutil.rmtree(entry, ignore_errors=True)
                else:
                    entry.unlink(missing_ok=True)

    def _candidate(self, number: int) -> Path:
        return self.path / CANDIDATES / f"{number:05d}"


def _later_latencies(path: Path, number: int) -> LaterLatencies | None:
    """Read latencies that were measured after a trial; None from a file that cannot be read, with a warning."""
    try:
        return load_dataclass(LaterLatencies, path) if path.exists() else None
    except StorageError as error:
        text = (
            f"{error} The latency of candidate {number} is that of its trial instead, which was in doubt; the next "
            "`autoprune run` measures it again and replaces the file."
        )
        warnings.warn(text, AutopruneWarning, stacklevel=2)
        return None


def _checkpoint_file(run: Path, trial: str, epoch: str) -> WeightsFile:
    return WeightsFile(run, f"{CHECKPOINTS}/{trial}/{epoch}", f"the checkpoint {int(epoch)} of trial {int(trial)}")


def _numbered(folder: Path) -> list[str]:
    """Return the names in a folder that are numbers."""
    return sorted(name for name in _names(folder) if name.isascii() and name.isdigit())


def _without_study(path: Path) -> str:
    """Say what there is in the place of a run folder."""
    try:
        if not path.exists():
            return f"{path}, which does not exist"
        return f"{path} without it" if path.is_dir() else f"{path}, which is no folder"
    except OSError as error:
        return f"{path}, which cannot be read ({error.strerror or repr(error)})"


def _names(folder: Path) -> list[str]:
    """Return the names in a folder; none if it does not exist."""
    try:
        return os.listdir(folder) if folder.exists() else []  # noqa: PTH208  # no path object for each of thousands
    except OSError as error:
        raise StorageError(
            error_message(str(folder), "be a folder that can be read", error.strerror or repr(error))
        ) from error
