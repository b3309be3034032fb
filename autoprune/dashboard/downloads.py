"""Files to download from a dashboard: plan, weights and table. A client names a kind and a number, and no path."""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from autoprune.codec import open_regular
from autoprune.display import csv_text
from autoprune.errors import NotFoundError, StorageError, UnknownNameError, error_message
from autoprune.export.architecture import METADATA_KEY, Provenance, architecture_data
from autoprune.front.run import Run
from autoprune.records.candidate import find_record

#: Bytes that are sent at once.
_CHUNK = 1 << 20
#: Most bytes of a safetensors header, as its own library reads it.
_LONGEST_HEADER = 100_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Download:
    """A file to send.

    Attributes:
        name: Name that the browser stores it under: letters, digits, "-" and "." alone.
        kind: Media type.
        length: Number of bytes.
        parts: The bytes, in parts. They can be read once.
    """

    name: str
    kind: str
    length: int
    parts: Iterator[bytes]


def plan_file(run: Run, number: int) -> Download:
    """Make the plan of a candidate, which `PruningPlan.from_json` reads.

    Args:
        run: The run.
        number: Number of the candidate.

    Returns:
        The file.

    Raises:
        NotFoundError: There is no such candidate.
    """
    record = find_record(run.records, number)
    return _whole(f"candidate-{record.number:05d}-plan.json", "application/json", record.plan.to_json().encode())


def weights_file(run: Run, number: int) -> Download:
    """Make the weights of a candidate with its architecture, which `load_safetensors` reads from one file.

    The header also holds the architecture; the rest is that of the stored file. Where many weights are zero
    it may be compressed; `autoprune export` writes one that other tools read.

    Args:
        run: The run.
        number: Number of the candidate.

    Returns:
        The file.

    Raises:
        NotFoundError: There is no such candidate, or its weights were deleted.
        StorageError: The file is none of weights, lies behind a link, or its storage cannot be read.
    """
    record = find_record(run.records, number)
    stored = run.folder.weights_file(record.number)
    if not stored.is_stored:
        raise stored.missing_error()
    uploaded = stored.read_uploaded()
    origin = Provenance(
        study=run.name, candidate=record.number, plan=record.plan, search=record.search, test=record.test
    )
    topology = run.folder.read_topology()
    data = architecture_data(run.manifest.structure, record.channels, topology, origin)
    file = open_regular(_inside(run, stored.path)) if uploaded is None else io.BytesIO(uploaded)
    try:
        header, rest = _header(file, stored.place, json.dumps(data, separators=(",", ":")))
    except BaseException:
        file.close()
        raise
    return Download(
        name=f"candidate-{record.number:05d}.safetensors",
        kind="application/octet-stream",
        length=len(header) + rest,
        parts=_stream(header, file, rest),
    )


def table_file(run: Run, number: int | None = None) -> Download:
    """Make a table of all candidates, or of one, as CSV.

    Args:
        run: The run.
        number: Number of the candidate; None for all.

    Returns:
        The file.

    Raises:
        NotFoundError: There is no such candidate.
    """
    records = run.records if number is None else (find_record(run.records, number),)
    front = run.front()
    members = {record.number for record in front.members}
    rows = front.rows(run.annotations, records)
    text = csv_text([{**row, "on_front": record.number in members} for row, record in zip(rows, records, strict=True)])
    name = "candidates.csv" if number is None else f"candidate-{number:05d}.csv"
    # Spreadsheets take a file without this mark for one in a local encoding.
    return _whole(name, "text/csv; charset=utf-8", b"\xef\xbb\xbf" + text.encode())


#: Kind of a file of one candidate -> function that makes it.
CANDIDATE_FILES: Mapping[str, Callable[[Run, int], Download]] = {
    "plan": plan_file,
    "weights": weights_file,
    "table": table_file,
}


def candidate_file(run: Run, kind: str, number: object) -> Download:
    """Make a file of a candidate, by what a client asks for.

    Args:
        run: The run.
        kind: One of CANDIDATE_FILES.
        number: Number of the candidate; any other value is refused.

    Returns:
        The file.

    Raises:
        UnknownNameError: There is no such kind.
        NotFoundError: There is no such candidate, or it has no such file.
        StorageError: A file of the run cannot be read.
    """
    if kind not in CANDIDATE_FILES:
        raise UnknownNameError("the kind of a file", kind, CANDIDATE_FILES)
    text = str(number)
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise NotFoundError(error_message("a candidate", "be named by its number", repr(text[:40])))
    return CANDIDATE_FILES[kind](run, int(text))


def _inside(run: Run, path: Path) -> Path:
    """Resolve a path; refuse one that a link leads out of the run folder."""
    try:
        found = path.resolve(strict=True)
        inside = found.is_relative_to(run.folder.path.resolve(strict=True))
    except (OSError, RuntimeError):
        inside = False
    if not inside:
        raise StorageError(error_message(str(path), "be a file in the run folder", "a link to another place"))
    return found


def _header(file: BinaryIO, place: str, architecture: str) -> tuple[bytes, int]:
    """Read the header of a weights file; return one with the architecture, and the number of bytes behind it."""
    size = file.seek(0, 2)
    file.seek(0)
    length = int.from_bytes(file.read(8), "little")
    if not 2 <= length <= min(size - 8, _LONGEST_HEADER):
        raise StorageError(error_message(place, "be a .safetensors file", f"one of {size:,} bytes without a header"))
    try:
        header = json.loads(file.read(length))
        metadata = {**header.get("__metadata__", {}), METADATA_KEY: architecture}
    except (ValueError, AttributeError, TypeError, RecursionError) as error:
        raise StorageError(error_message(place, "be a .safetensors file", "one with another header")) from error
    text = json.dumps({**header, "__metadata__": metadata}, separators=(",", ":")).encode()
    # Numbers behind the header begin at a multiple of 8.
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text, size - 8 - length


def _stream(header: bytes, file: BinaryIO, rest: int) -> Iterator[bytes]:
    with file:
        yield header
        while rest > 0:
            part = file.read(min(_CHUNK, rest))
            if not part:  # the connection breaks, and no browser takes the file for whole
                raise StorageError(f"{file.name} became shorter while it was sent.")
            rest -= len(part)
            yield part


def _whole(name: str, kind: str, data: bytes) -> Download:
    return Download(name=name, kind=kind, length=len(data), parts=iter([data]))
