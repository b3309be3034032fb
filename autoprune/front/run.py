"""Run: the files of a study, to look at without its task, torch or Optuna."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from autoprune.codec import Format, from_plain, stored
from autoprune.front.front import Front
from autoprune.front.importance import Importances, importances
from autoprune.records.annotations import Annotations, edit_annotations, read_annotations
from autoprune.records.candidate import CandidateRecord, find_record, work_of
from autoprune.records.ending import Ending
from autoprune.records.failure import Failure
from autoprune.records.limits import Limits
from autoprune.records.manifest import Manifest
from autoprune.records.objectives import ENERGY
from autoprune.records.problem import Problem
from autoprune.records.profile import LatencyProfile
from autoprune.records.run_folder import STUDY, RunFolder
from autoprune.records.sensitivity import Sensitivity
from autoprune.records.work import Work


@stored(Format(what="the settings of measurements", optional=None))
@dataclass(frozen=True, slots=True, kw_only=True)
class _WantedMeasurements:
    """Part of the stored settings that says what is measured."""

    profiles: tuple[LatencyProfile, ...] = ()
    energy: bool = False


@stored(Format(what="settings of a study", optional=("limits", "measure")))
@dataclass(frozen=True, slots=True, kw_only=True)
class _Wanted:
    """Part of the stored settings that a front follows from; the rest is the search's."""

    objectives: tuple[str, ...]
    limits: Limits = field(default_factory=Limits)
    measure: _WantedMeasurements = field(default_factory=_WantedMeasurements)


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A run folder as it was when it was opened. A study is a run and its task.

    Attributes:
        folder: Run folder.
        manifest: Description of the study.
        records: Finished candidates in order of their number.

    Example:
        >>> import tempfile
        >>> folder = RunFolder(Path(tempfile.mkdtemp()))  # `autoprune run` writes such a folder
        >>> settings = {"objectives": ["quality", "size_bytes"]}
        >>> folder.write_study({"name": "mine", "quality": "f1", "higher_is_better": True, "settings": settings})
        >>> Run.open(folder.path).front().members
        ()
    """

    folder: RunFolder
    manifest: Manifest
    records: tuple[CandidateRecord, ...] = ()

    @classmethod
    def open(cls, out: str | Path) -> Run:
        """Read a run folder. A study that runs meanwhile is not disturbed.

        Args:
            out: Run folder.

        Returns:
            The run with its finished candidates.

        Raises:
            NotFoundError: `out` holds no study.
            StorageError: A file of the run cannot be read, or does not fit the others.
        """
        folder = RunFolder(Path(out).absolute())
        return cls(folder=folder, manifest=folder.read_study(), records=tuple(folder.read_candidates()))

    @property
    def name(self) -> str:
        """Name of the study for people."""
        return self.manifest.name

    @property
    def problem(self) -> Problem:
        """Objectives, limits and metrics of the study."""
        manifest = self.manifest
        wanted = from_plain(_Wanted, manifest.settings, f"settings of {self.folder.path / STUDY}")
        found = manifest.problem(wanted.objectives, wanted.limits, [one.name for one in wanted.measure.profiles])
        return replace(found, unmeasured={ENERGY: self._why_no_energy()}) if wanted.measure.energy else found

    def _why_no_energy(self) -> str:
        ending = self.ending
        why = ending.energy_lacks if ending is not None and ending.energy_lacks else "`autoprune run` says why."
        return f"measure.energy=true was set, but the machine showed no counter of energy: {why}"

    def front(self, before: Front | None = None) -> Front:
        """Find the non-dominated candidates.

        Args:
            before: Front of the same study at an earlier moment, whose numbers are taken over; None for none.

        Returns:
            The front over the objectives of the study, with its limits.

        Raises:
            StorageError: The stored settings have no such objectives or limits.
            UnknownNameError: An objective or limit is not known.
        """
        return Front.of(self.records, self.problem, before)

    def importances(self) -> Importances:
        """Work out how much each sampled parameter mattered.

        Returns:
            Importances for each objective; notes say why there are none.
        """
        return importances(self.front())

    def sensitivity(self) -> Sensitivity | None:
        """Read the scan.

        Returns:
            The scan of the dense model; None without one.
        """
        return self.folder.read_sensitivity()

    def samples(self) -> Work:
        """Add up the work done so far.

        Returns:
            Samples of the sensitivity scan and of all candidates; what candidates share counts once.
        """
        scanned = self.sensitivity()
        return (scanned.work if scanned is not None else Work()) + work_of(self.records)

    @property
    def annotations(self) -> Annotations:
        """Notes on the run, and its chosen candidate, read anew each time.

        Raises:
            StorageError: The file cannot be read.
        """
        return read_annotations(self.folder.path)

    def annotate(self, note: str, number: int | None = None, seen: str | None = None) -> Annotations:
        """Write a note into the run folder. A study that runs meanwhile is not disturbed.

        Args:
            note: The note; "" removes it.
            number: Number of the candidate that it is on; None for the run.
            seen: Note that the person saw who wrote this one. If there is another one by now, both are kept. None to
                replace any note.

        Returns:
            The annotations with the note.

        Raises:
            NotFoundError: There is no such candidate.
            ConfigurationError: The note is too long.
            StorageError: The annotations cannot be read or written.
        """
        self._check_number(number)
        return edit_annotations(self.folder.path, lambda found: found.with_note(note, number, seen))

    def mark(self, number: int | None) -> Annotations:
        """Mark a candidate as the chosen one, in the run folder. Its weights are not deleted by a later run.

        Args:
            number: Number of the candidate; None for none.

        Returns:
            The annotations with the choice.

        Raises:
            NotFoundError: There is no such candidate.
            StorageError: The annotations cannot be read or written.
        """
        self._check_number(number)
        return edit_annotations(self.folder.path, lambda found: found.with_chosen(number))

    def _check_number(self, number: int | None) -> None:
        if number is not None:
            find_record(self.records, number)

    @property
    def failures(self) -> list[Failure]:
        """Trials that crashed, in order of their number. A trial that was finished later is none of them."""
        finished = {record.number for record in self.records}
        return [failure for failure in self.folder.read_failures() if failure.number not in finished]

    @property
    def ending(self) -> Ending | None:
        """Why the last run ended; None before a run has ended."""
        return self.folder.read_ending()
