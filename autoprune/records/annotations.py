"""Annotations of a run by a person: the chosen candidate, and notes.

Annotations have a file of their own, beside the files of the study. An edit changes one entry under a lock, so that two
windows or processes lose none of each other's edits.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType

from autoprune.codec import Format, load_dataclass, stored, to_plain
from autoprune.errors import StorageError, error_message, raise_all
from autoprune.records.advice import advises_doctor
from autoprune.records.atomic import locked, write_atomically

ANNOTATIONS, LOCK = "annotations.json", "annotations.lock"
#: Most characters of a note.
LONGEST_NOTE = 10_000
#: Seconds to wait for another edit.
_PATIENCE = 10.0
#: What stands between two texts that were written at the same time.
BETWEEN = "\n\n"


@stored(Format(what="annotations", version=1, optional=None))
@dataclass(frozen=True, slots=True, kw_only=True)
class Annotations:
    """Notes on a run, and its chosen candidate.

    Attributes:
        chosen: Number of the candidate that was chosen; None for none.
        note: Note on the run; "" for none.
        notes: Number of a candidate -> note on it. Empty notes are left out.

    Example:
        >>> Annotations().with_note("try on the phone", 3).notes[3]
        'try on the phone'
    """

    chosen: int | None = None
    note: str = ""
    notes: Mapping[int, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        # JSON has texts in the place of numbers.
        numbers = {name: _number(name) for name in self.notes}
        faults = [
            error_message(f"notes[{str(name)[:20]!r}]", "be named by the number of a candidate", str(name)[:20])
            for name, number in numbers.items()
            if number is None
        ]
        if self.chosen is not None and self.chosen < 0:
            faults.append(error_message("chosen", "be >= 0 or null", self.chosen))
        faults += [
            error_message("a note", f"have at most {LONGEST_NOTE:,} characters", f"{len(text):,}")
            for text in (self.note, *self.notes.values())
            if len(text) > LONGEST_NOTE
        ]
        raise_all("annotations", faults)
        kept = {number: self.notes[name] for name, number in numbers.items() if number is not None and self.notes[name]}
        object.__setattr__(self, "notes", MappingProxyType(dict(sorted(kept.items()))))

    def note_on(self, number: int | None) -> str:
        """Look up a note.

        Args:
            number: Number of a candidate; None for the run.

        Returns:
            The note; "" for none.
        """
        return self.note if number is None else self.notes.get(number, "")

    def lines(self, number: int | None = None) -> list[str]:
        """Write the notes and the chosen candidate for people.

        Args:
            number: Number of a candidate; None for everything.

        Returns:
            Sentences and notes; none where nothing is noted.
        """
        if number is not None:
            return [self.notes[number]] if number in self.notes else []
        chosen = [] if self.chosen is None else [f"Chosen: candidate {self.chosen}."]
        run = [f"Note: {self.note}"] if self.note else []
        return [*chosen, *run, *(f"Note on candidate {one}: {text}" for one, text in self.notes.items())]

    def with_note(self, text: str, number: int | None = None, seen: str | None = None) -> Annotations:
        """Replace a note.

        Args:
            text: The note; "" for none.
            number: Number of a candidate; None for the run.
            seen: Note that the person saw who wrote the text. If it is another one by now, both texts are kept, this
                one below. None to replace any note.

        Returns:
            The annotations with the note.
        """
        before = self.note_on(number)
        if seen is not None and before not in (seen, text) and before:
            text = f"{before}{BETWEEN}{text}" if text else before
        if number is None:
            return replace(self, note=text)
        return replace(self, notes={**self.notes, number: text})

    def with_chosen(self, number: int | None) -> Annotations:
        """Replace the chosen candidate.

        Args:
            number: Number of the candidate; None for none.

        Returns:
            The annotations with the choice.
        """
        return replace(self, chosen=number)


def read_annotations(folder: Path) -> Annotations:
    """Read the annotations of a run.

    Args:
        folder: Run folder.

    Returns:
        The annotations; empty ones where there is no file.

    Raises:
        StorageError: The file cannot be read.
    """
    path = folder / ANNOTATIONS
    with advises_doctor(folder):
        return load_dataclass(Annotations, path) if path.exists() else Annotations()


def edit_annotations(folder: Path, change: Callable[[Annotations], Annotations]) -> Annotations:
    """Change the annotations of a run: read, change and write them while no other process does.

    Args:
        folder: Run folder.
        change: Function from the stored annotations to those to write.

    Returns:
        The annotations that were written.

    Raises:
        StorageError: The file cannot be read or written; it stays as it was. Or another process holds its lock.
    """
    path = folder / ANNOTATIONS
    if not folder.is_dir():  # a lock would make it, in place of a run that was moved
        raise StorageError(error_message("annotations", "lie in a run folder", f"{folder}, which does not exist"))
    got = f"{path}, whose lock another process has held for {_PATIENCE:g} seconds"
    busy = StorageError(error_message("annotations", "be edited by one process at a time", got))
    with locked(folder / LOCK, busy, patience=_PATIENCE):
        changed = change(read_annotations(folder))
        write_atomically(path, json.dumps(to_plain(changed), indent=1).encode())
    return changed


def _number(name: object) -> int | None:
    """Read the number of a candidate; None for another name."""
    if isinstance(name, int) and not isinstance(name, bool):
        return name if name >= 0 else None
    text = str(name)
    return int(text) if text.isascii() and text.isdigit() and len(text) < 18 and str(int(text)) == text else None
