"""Formats in which a candidate can be exported."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from autoprune.export.exportable import Exportable
from autoprune.export.onnx import export_onnx_model
from autoprune.export.safetensors import export_safetensors, export_sparse
from autoprune.export.torch_export import export_program


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportFormat:
    """A format of `export --format`.

    Attributes:
        write: Function that writes a candidate to a file, and returns the files that were written.
        ending: Ending of the file.
        needs_model: Whether the candidate must come with its model, and not with its weights alone.
        title: Description for the help text and the docs.
    """

    write: Callable[[Exportable, Path], tuple[Path, ...]]
    ending: str
    needs_model: bool = False
    title: str


EXPORT_FORMATS: Mapping[str, ExportFormat] = {
    "safetensors": ExportFormat(
        write=export_safetensors, ending=".safetensors", title="weights that any tool reads, and the architecture"
    ),
    "sparse": ExportFormat(
        write=export_sparse,
        ending=".safetensors",
        title="the same, smaller where many weights are zero, for autoprune alone",
    ),
    "torch_export": ExportFormat(
        write=export_program,
        ending=".pt2",
        needs_model=True,
        title="the whole model, which runs without its Python classes",
    ),
    "onnx": ExportFormat(
        write=export_onnx_model,
        ending=".onnx",
        needs_model=True,
        title="the whole model for ONNX Runtime and other runtimes, with outputs equal to PyTorch's",
    ),
}
