"""Export of weights as safetensors with an architecture JSON beside them, and loading of both."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

from torch import Tensor, nn

from autoprune.codec import from_plain, load_dataclass, parse
from autoprune.errors import ConfigurationError, NotFoundError, error_message
from autoprune.export.architecture import METADATA_KEY, Architecture, Provenance, architecture_data
from autoprune.export.exportable import Exportable, check_ending
from autoprune.plan.kept import KeptChannels
from autoprune.proof.discover import discover_structure
from autoprune.records.atomic import write_atomically
from autoprune.structure.topology import Topology
from autoprune.surgery.cut import dense_shapes, rebuild
from autoprune.task.checkpoint import (
    bytes_of,
    model_tensors,
    read_metadata,
    read_weights,
    serialize,
    serialize_smallest,
)
from autoprune.task.data import Inputs
from autoprune.task.models import check_kind, module_of


def export_safetensors(exportable: Exportable, to: Path) -> tuple[Path, ...]:
    """Write a candidate's weights, which any tool reads, and its architecture.

    Args:
        exportable: Candidate to export.
        to: File for the weights, ending in .safetensors; the architecture gets the ending .json.

    Returns:
        Paths of the weights and the architecture.

    Raises:
        ConfigurationError: For another ending.
    """
    return _export(exportable, to, serialize)


def export_sparse(exportable: Exportable, to: Path) -> tuple[Path, ...]:
    """Export like `export_safetensors`, with weights of many zeros compressed where that is smaller (see
    task.sparse_file).

    The file is as long as the candidate's `size_bytes`. `load_safetensors` reads both formats; other tools find bytes
    in place of compressed weights.

    Args:
        exportable: Candidate to export.
        to: File for the weights, ending in .safetensors; the architecture gets the ending .json.

    Returns:
        Paths of the weights and the architecture.

    Raises:
        ConfigurationError: For another ending.
    """
    return _export(exportable, to, serialize_smallest)


def _export(exportable: Exportable, to: Path, written: Callable[[Mapping[str, Tensor]], bytes]) -> tuple[Path, ...]:
    check_ending(to, ".safetensors")
    origin = Provenance(
        study=exportable.name,
        candidate=exportable.number,
        plan=exportable.plan,
        search=exportable.search,
        test=exportable.test,
    )
    architecture = architecture_data(exportable.structure, exportable.kept, exportable.topology, origin)
    architecture_path = to.with_suffix(".json")
    # The architecture first: weights without it cannot be read.
    write_atomically(architecture_path, json.dumps(architecture, indent=1).encode())
    write_atomically(to, written(exportable.weights))
    return to, architecture_path


def load_safetensors(dense: nn.Module | Callable[[], nn.Module], example_inputs: Inputs, path: str | Path) -> nn.Module:
    """Load an exported candidate: cut the dense model definition to the kept channels and load the weights, without
    pickle.

    Args:
        dense: Model definition that was pruned, or a function that builds it; its weights do not matter.
        example_inputs: Used only for files of autoprune 0.1, which do not store where channels lie: then the definition
            is traced and proved again.
        path: The .safetensors file, plain or compressed, with its .json beside it; or one from a dashboard, which holds
            both.

    Returns:
        The model in eval mode.

    Raises:
        NotFoundError: When a file is missing.
        StorageError: When a file cannot be read.
        ConfigurationError: When the definition is another one.

    Example:
        >>> import torch
        >>> try:
        ...     load_safetensors(torch.nn.Linear(4, 2), torch.ones(1, 4), "missing.safetensors")
        ... except NotFoundError as error:
        ...     print(error)
        an exported model must be a .safetensors file with a .json beside it, but got no missing.safetensors.
    """
    path = Path(path)
    data, architecture = _architecture(path)
    model = module_of(dense)
    check_kind(model)
    kept = KeptChannels(groups=data.kept, dropped=data.dropped)
    if data.topology is None:
        topology = discover_structure(model, example_inputs)
        other = "one of another structure" if topology.fingerprint() != data.structure else ""
    else:
        topology = Topology.of(data.topology, str(architecture))
        other = _other(model, topology)
    if other:
        remedy = "Build it as the study did."
        raise ConfigurationError(error_message("the dense model", "be the definition that was pruned", other, remedy))
    return rebuild(model, topology, kept, read_weights(path, bytes_of(model.state_dict()))).eval()


def _architecture(path: Path) -> tuple[Architecture, Path]:
    """Read the architecture of a weights file; return it and the file that holds it."""
    beside = path.with_suffix(".json")
    inside = None if beside.is_file() or not path.is_file() else read_metadata(path).get(METADATA_KEY)
    if inside is not None:
        return from_plain(Architecture, parse(inside, str(path)), str(path)), path
    for file in (path, beside):
        if not file.is_file():
            raise NotFoundError(
                error_message("an exported model", "be a .safetensors file with a .json beside it", f"no {file}")
            )
    return load_dataclass(Architecture, beside), beside


def _other(model: nn.Module, topology: Topology) -> str:
    """Say how a definition differs in the tensors that a cut needs; "" where it does not."""
    own = {name: tuple(tensor.shape) for name, tensor in model_tensors(model).items()}
    wanted = dense_shapes(topology)
    wrong = [name for name in dict(model.named_parameters()) if name not in wanted]
    wrong += [name for name, shape in wanted.items() if own.get(name) != shape]
    if not wrong:
        return ""
    return f"one with other tensors ({', '.join(f'{name}: {own.get(name, wanted.get(name))}' for name in wrong[:3])})"
