"""Formats in which a candidate can be exported."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from autoprune.export.safetensors import export_safetensors, export_sparse
from autoprune.records.candidate import CandidateRecord
from autoprune.records.run_folder import RunFolder

#: (run folder, candidate, file to write) -> the files that were written.
ExportFunction = Callable[[RunFolder, CandidateRecord, Path], tuple[Path, ...]]

#: Formats of `export --format`; `load_safetensors` reads all of them.
EXPORT_FORMATS: Mapping[str, ExportFunction] = {"safetensors": export_safetensors, "sparse": export_sparse}
