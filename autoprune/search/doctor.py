"""Doctor: find and repair what is broken in a run folder. Nothing is deleted: what is removed is moved aside."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NoReturn

from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from autoprune.codec import load_dataclass, read_bytes
from autoprune.display import shorten
from autoprune.errors import AutopruneError, LaterVersionError, StorageError
from autoprune.records.annotations import ANNOTATIONS, Annotations
from autoprune.records.artifacts import ARTIFACTS, read_artifacts
from autoprune.records.atomic import cannot_write, is_being_written, write_atomically
from autoprune.records.candidate import CandidateRecord
from autoprune.records.device_profile import DeviceProfile
from autoprune.records.ending import Ending
from autoprune.records.limits import Limits
from autoprune.records.manifest import Manifest
from autoprune.records.measurement import LaterLatencies, Measurement
from autoprune.records.run_folder import (
    CANDIDATES,
    CHECKPOINT,
    CHECKPOINTS,
    DEVICE_PROFILE,
    ENDING,
    LATENCIES,
    LOST,
    RECORD,
    RESULTS,
    SENSITIVITY,
    STUDY,
    TEST,
    TOPOLOGY,
    RunFolder,
)
from autoprune.records.sensitivity import Sensitivity
from autoprune.records.weights_file import DIGEST, REMOVED, UPLOADED, WEIGHTS
from autoprune.search.journal import JournalSource, matches_folder
from autoprune.search.settings import StudySettings
from autoprune.search.storage import JOURNAL, RUN_LOCK, exclusive, free_name, sound_lines
from autoprune.structure.stored import Structure
from autoprune.structure.topology import Topology

#: What comes after weights that are moved aside.
_MADE_AGAIN = "the record stays, and its plan makes the weights again"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A fault of a run folder.

    Attributes:
        place: File or folder, relative to the run folder.
        fault: What is wrong with it.
        repair: What is done about it; "" where nothing can be done.
        moves: Files and folders to move aside.
        to: Place in the run folder to which the one thing in `moves` is moved; None moves it aside.
        content: Content of the file to write in place; None for none.
    """

    place: str
    fault: str
    repair: str
    moves: tuple[Path, ...] = ()
    to: Path | None = None
    content: bytes | None = None


def examine(path: str | Path, *, dry_run: bool = False) -> list[Finding]:
    """Find the faults of a run folder, and repair them. No other process may run it meanwhile.

    Args:
        path: Run folder.
        dry_run: Change nothing.

    Returns:
        The faults, and what was done, or would be.

    Raises:
        NotFoundError: There is no run folder.
        StudyConflictError: Another process runs it.
        LaterVersionError: A file is of a later version; nothing is changed.
        StorageError: The folder cannot be written.
    """
    folder = RunFolder(Path(path).absolute())
    if not any((folder.path / name).exists() for name in (STUDY, CANDIDATES, JOURNAL)):
        raise folder.missing_study_error()
    found = [*_locks(folder)]
    if not dry_run:
        _mend(folder, found)
    lock = folder.path / RUN_LOCK
    guarded = not dry_run or (lock.is_file() and not lock.is_symlink())
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(exclusive(folder.path) if guarded else contextlib.nullcontext())
        except StorageError:
            if not dry_run:  # a folder that cannot be written can be looked at
                raise
        rest = [*_Examination(folder).findings()]
        if not dry_run:
            _mend(folder, rest)
    return found + rest


def _mend(folder: RunFolder, findings: Iterable[Finding]) -> None:
    """Move broken files aside, and write those that replace them."""
    for finding in findings:
        for path in finding.moves:
            aside = finding.to or free_name(folder.path / LOST / path.relative_to(folder.path))
            try:
                aside.parent.mkdir(parents=True, exist_ok=True)
                path.rename(aside)
            except OSError as error:
                raise StorageError(cannot_write(aside, error)) from error
        if finding.content is not None:
            write_atomically(folder.path / finding.place, finding.content)


def _locks(folder: RunFolder) -> Iterator[Finding]:
    """Find locks that no kernel frees: links and folders, as Optuna's own locks and other file systems leave them."""
    for path in sorted(folder.path.glob("*.lock")):
        if path.is_symlink() or not path.is_file():
            yield Finding(
                place=path.name,
                fault="is a lock that a dead process left",
                repair=f"moved to {LOST}",
                moves=(path,),
            )


class _Examination:
    """An examination of one run folder."""

    def __init__(self, folder: RunFolder) -> None:
        self.folder, self.path = folder, folder.path
        self.manifest: Manifest | None = None
        self.records: dict[int, CandidateRecord] = {}

    def findings(self) -> Iterator[Finding]:
        """Yield every fault."""
        yield from self.partial_writes()
        yield from self.study()
        yield from self.single_files()
        for path in _entries(self.path / CANDIDATES):
            yield from self.candidate(path)
        yield from self.artifacts()
        yield from self.lineages()
        for path in _entries(self.path / CHECKPOINTS):
            for one in _entries(path):
                yield from self.checkpoint(one)
        yield from self.journal()

    def moved(self, path: Path, fault: str, then: str, *others: Path) -> Finding:
        """Make the finding of something that is moved aside."""
        place = str(path.relative_to(self.path))
        return Finding(place=place, fault=fault, repair=f"moved to {LOST}; {then}", moves=(path, *others))

    def partial_writes(self) -> Iterator[Finding]:
        """Find what a killed process had begun to write."""
        for path in sorted(self.path.rglob(".*.tmp")):
            outer = path.relative_to(self.path).parts[:-1]
            if is_being_written(path) or LOST in outer:
                continue
            if not any(part.startswith(".") and part.endswith(".tmp") for part in outer):
                yield self.moved(path, "was never written to its end", "nothing needs it")

    def study(self) -> Iterator[Finding]:
        """Find a broken manifest, without which nothing can be read."""
        try:
            self.manifest = self.folder.read_study()
        except LaterVersionError:
            raise
        except AutopruneError as error:
            yield Finding(place=STUDY, fault=_said(error), repair="")

    def single_files(self) -> Iterator[Finding]:
        """Find broken files of the whole run."""
        readers: Mapping[str, tuple[Callable[[Path], object], str]] = {
            TOPOLOGY: (_read_topology, "the next run writes it again"),
            SENSITIVITY: (self.read_scan, "the next run scans again"),
            DEVICE_PROFILE: (DeviceProfile.read, "the next run makes it again, or takes it from the cache"),
            ENDING: (lambda path: load_dataclass(Ending, path), "the run counts as not ended"),
            ANNOTATIONS: (lambda path: load_dataclass(Annotations, path), "copy your notes from there"),
        }
        for name, (read, then) in readers.items():
            yield from self.unreadable(self.path / name, read, then)

    def unreadable(self, path: Path, read: Callable[[Path], object], then: str) -> Iterator[Finding]:
        """Yield the finding of a file that cannot be read, if it is there."""
        if path.exists():
            try:
                read(path)
            except LaterVersionError:
                raise
            except AutopruneError as error:
                yield self.moved(path, _said(error), then)

    def read_scan(self, path: Path) -> None:
        """Read the scan, and check that it is of this model."""
        scan = Sensitivity.from_json(read_bytes(path), path.name)
        if self.manifest is not None:
            self.manifest.check_scan(scan, path.name)

    def candidate(self, path: Path) -> Iterator[Finding]:
        """Find what is broken in the folder of one candidate."""
        again = "the next run makes one more trial"
        if not (path / RECORD).is_file():
            what = "holds weights without a record" if (path / WEIGHTS).exists() else "holds no record"
            yield self.moved(path, what, again)
            return
        try:
            record = CandidateRecord.from_json(read_bytes(path / RECORD), where=RECORD)
        except LaterVersionError:
            raise
        except StorageError as error:
            yield self.moved(path, _said(error), again)
            return
        wrong = "" if self.manifest is None else self.manifest.mismatch(record)
        own = path.with_name(f"{record.number:05d}")
        if wrong or (path != own and (own.exists() or record.number in self.records)):
            yield self.moved(path, f"is no candidate of the study, but {wrong or f'another number {own.name}'}", again)
            return
        if path != own:
            place = str(path.relative_to(self.path))
            named = f"named {own.name}"
            yield Finding(place=place, fault=f"holds candidate {record.number}", repair=named, moves=(path,), to=own)
        else:
            yield from self.parts(path)
        self.records[record.number] = record

    def parts(self, path: Path) -> Iterator[Finding]:
        """Find what is broken beside the record of a candidate."""
        later = "the latency that was measured first holds again"
        yield from self.unreadable(path / TEST, lambda one: load_dataclass(Measurement, one), "it is measured again")
        yield from self.unreadable(path / LATENCIES, lambda one: load_dataclass(LaterLatencies, one), later)
        weights, number = path / WEIGHTS, int(path.name)
        if weights.exists() and (path / REMOVED).exists():
            yield self.moved(weights, "are weights that were to be deleted", "nothing needs them")
        elif weights.exists() and self.folder.weights_file(number).has_right_digest() is False:
            yield self.moved(weights, f"are not the weights that {DIGEST} tells", _MADE_AGAIN, path / DIGEST)

    def artifacts(self) -> Iterator[Finding]:
        """Find uploaded weights that the storage of artifacts does not hold, and objects there that nothing names."""
        try:
            storage = read_artifacts(self.path)
            names = set() if storage is None else storage.names()
        except LaterVersionError:
            raise
        except AutopruneError as error:
            yield Finding(place=ARTIFACTS, fault=_said(error), repair="")
            return
        files = [*map(self.folder.weights_file, self.records), *self.folder.checkpoint_files()]
        wanted = {one.name: one.path.with_name(UPLOADED) for one in files if one.is_uploaded}
        for mark in self.path.glob(f"{RESULTS}/*/{UPLOADED}"):  # of a worker, and not learned yet
            wanted.setdefault(f"{CANDIDATES}/{mark.parent.name}/{WEIGHTS}", mark)
        if wanted and not names:  # another bucket, more likely than one that lost everything
            fault = (
                "is not there, although weights are uploaded" if storage is None else "names a storage without weights"
            )
            yield Finding(place=ARTIFACTS, fault=fault, repair="")
            return
        for name in sorted(wanted.keys() - names):
            yield self.moved(wanted[name], "marks weights that the storage does not hold", _MADE_AGAIN)
        for name in sorted(names - wanted.keys()):
            assert storage is not None
            fault, kept = "is an object that nothing here names", "stays; delete it with a tool of the storage"
            yield Finding(place=storage.place(name), fault=fault, repair=kept)

    def lineages(self) -> Iterator[Finding]:
        """Find candidates whose ancestors are missing; they are whole without them."""
        parents = {number: record.parent for number, record in self.records.items()}
        for number, record in self.records.items():
            seen, parent = {number}, record.parent
            while parent is not None and parent in parents and parent not in seen:
                seen.add(parent)
                parent = parents[parent]
            if parent is None:
                continue
            parents[number] = None
            path = self.path / CANDIDATES / f"{number:05d}" / RECORD
            yield Finding(
                place=str(path.relative_to(self.path)),
                fault=f"descends from {parent}, which is not there" if parent != number else "descends from itself",
                repair=f"names no parent any more, and its samples stay; the record that was lies in {LOST}",
                moves=(path,),
                content=replace(record, parent=None).to_json().encode(),
            )

    def checkpoint(self, path: Path) -> Iterator[Finding]:
        """Find half a checkpoint."""
        there = [name for name in (CHECKPOINT, WEIGHTS, UPLOADED) if (path / name).is_file()]
        if CHECKPOINT not in there or len(there) < 2:
            yield self.moved(path, f"holds {there[0] if there else 'nothing'} alone", "the candidate stays")

    def journal(self) -> Iterator[Finding]:
        """Find torn lines in the journal of trials, and a journal that does not fit the candidates."""
        path = self.path / JOURNAL
        if not path.is_file():
            return
        data = path.read_bytes()
        rest = sound_lines(data)
        torn = len(data.splitlines()) - len(rest.splitlines())
        fault = f"has torn lines ({max(torn, 1)})" if rest != data else "does not fit the candidates"
        if not self.fits(rest):
            yield self.moved(path, fault, "the next run makes it again from the candidates")
        elif rest != data:
            repair = f"goes on without them; {LOST} holds all lines"
            yield Finding(place=JOURNAL, fault=fault, repair=repair, moves=(path,), content=rest)

    def fits(self, data: bytes) -> bool:
        """Tell whether lines of a journal hold the trials of the candidates."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / JOURNAL
            path.write_bytes(data)
            try:
                storage = JournalStorage(JournalFileBackend(str(path)))
                return self.manifest is None or matches_folder(storage, self.source(self.manifest))
            except Exception:  # Optuna replays any line, and fails in many ways
                return False

    def source(self, manifest: Manifest) -> JournalSource:
        """Return what a journal is compared with."""
        settings = StudySettings.from_dict(manifest.settings)
        return JournalSource(
            records=list(self.records.values()),
            problem=manifest.problem(settings.objectives, Limits(), settings.measure.profile_names),
            trial_count=max(self.records, default=-1) + 1,
            space=_no_space,
            excess=lambda _: {},
        )


def _no_space() -> NoReturn:
    raise AssertionError("a journal is compared, and not rebuilt")


def _read_topology(path: Path) -> None:
    Topology.of(Structure.from_json(read_bytes(path), path.name), path.name)


def _said(error: AutopruneError) -> str:
    """Return the fault of a file that an error tells."""
    return f"cannot be read: {shorten(str(error))}"


def _entries(folder: Path) -> list[Path]:
    """Return the folders of trials or epochs in a folder."""
    names = folder.iterdir() if folder.is_dir() else ()
    return sorted(path for path in names if path.name.isascii() and path.name.isdigit())
