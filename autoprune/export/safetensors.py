"""safetensors weights with an architecture JSON beside them, and the way back to a model."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from autoprune.codec import Format, load_dataclass, stored, to_plain
from autoprune.criteria.kept import KeptChannels
from autoprune.errors import ConfigurationError, NotFoundError, error_message
from autoprune.front.record import CandidateRecord
from autoprune.study.folder import RunFolder
from autoprune.surgery.cut import dense_shapes, rebuild
from autoprune.surgery.prove import discover_structure
from autoprune.task.checkpoint import bytes_of, read_weights, serialize, serialize_smallest, write_atomically
from autoprune.task.data import Inputs
from autoprune.task.models import check_kind, module_of
from autoprune.trace.stored import StoredTopology
from autoprune.trace.topology import Topology

ARCHITECTURE_VERSION = 3


@stored(Format(what="an architecture", version=ARCHITECTURE_VERSION, optional=("dropped", "topology")))
@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """What loading reads of the file beside the weights.

    structure: fingerprint of the definition. kept, dropped: what the candidate has, in dense indices. topology: where
    channels lie; None in a file of an earlier version, or of a run of one.
    """

    structure: str
    kept: Mapping[str, tuple[int, ...]]
    dropped: tuple[str, ...] = ()
    topology: StoredTopology | None = None


def export_safetensors(folder: RunFolder, record: CandidateRecord, to: Path) -> tuple[Path, Path]:
    """Write `to` (weights, which any tool reads) and `to` with the ending .json (architecture); gives both paths.

    Needs neither the study script nor the model. Raises ConfigurationError for another ending,
    NotFoundError when the candidate's weights are gone, StorageError when they cannot be read.
    """
    return _export(folder, record, to, serialize)


def export_sparse(folder: RunFolder, record: CandidateRecord, to: Path) -> tuple[Path, Path]:
    """As `export_safetensors`, but weights with many zeros are compressed where that is smaller (see task.sparse_file).

    The file is as long as the candidate's `size_bytes` says. `load_safetensors` reads either; other tools find bytes in
    place of compressed weights.
    """
    return _export(folder, record, to, serialize_smallest)


def _export(
    folder: RunFolder, record: CandidateRecord, to: Path, written: Callable[[Mapping[str, Tensor]], bytes]
) -> tuple[Path, Path]:
    if to.suffix != ".safetensors":
        raise ConfigurationError(error_message("--to", "end in .safetensors", str(to)))
    source = folder.weights(record.number)
    stored, weights = folder.read_study(), folder.read_weights(record.number)
    folder.check_sound(weights, source)
    architecture = {
        "version": ARCHITECTURE_VERSION,
        "study": stored.name,
        "candidate": record.number,
        "structure": stored.structure,
        "kept": {name: list(indices) for name, indices in record.kept.items()},
        "dropped": list(record.dropped),
        "topology": to_plain(folder.read_topology()),
        "plan": record.plan.to_dict(),
        "search": record.search.to_dict(),
        "test": None if record.test is None else record.test.to_dict(),
    }
    architecture_path = to.with_suffix(".json")
    # The architecture first: weights without it could not be read back.
    write_atomically(architecture_path, json.dumps(architecture, indent=1).encode())
    write_atomically(to, written(weights))
    return to, architecture_path


def load_safetensors(dense: nn.Module | Callable[[], nn.Module], example_inputs: Inputs, path: str | Path) -> nn.Module:
    """Dense model definition -> cut to the kept channels -> load weights. Nothing is unpickled.

    dense: the model definition that was pruned, or a function that builds it; its weights do not matter.
    example_inputs: looked at only for files of autoprune 0.1, which do not say where channels lie: then the definition
    is traced and proved once more.
    path: the .safetensors file, plain or compressed, its .json beside it. Gives the model in eval mode. Raises
    NotFoundError, StorageError, ConfigurationError when the definition is another one.
    """
    path = Path(path)
    architecture = path.with_suffix(".json")
    for file in (path, architecture):
        if not file.is_file():
            raise NotFoundError(
                error_message("an exported model", "be a .safetensors file with a .json beside it", f"no {file}")
            )
    data, model = load_dataclass(Architecture, architecture), module_of(dense)
    check_kind(model)
    kept = KeptChannels(groups=data.kept, dropped=data.dropped)
    if data.topology is None:
        topology = discover_structure(model, example_inputs)
        other = "one of another structure" if topology.fingerprint() != data.structure else ""
    else:
        topology = data.topology.topology(str(architecture))
        other = _other(model, topology)
    if other:
        remedy = "Build it as the study did."
        raise ConfigurationError(error_message("the dense model", "be the definition that was pruned", other, remedy))
    return rebuild(model, topology, kept, read_weights(path, bytes_of(model.state_dict()))).eval()


def _other(model: nn.Module, topology: Topology) -> str:
    """How a definition differs in what a cut needs, in words; "" where it does not."""
    named = {**dict(model.named_buffers()), **dict(model.named_parameters())}
    own = {name: tuple(tensor.shape) for name, tensor in named.items()}
    wanted = dense_shapes(topology)
    wrong = [name for name in dict(model.named_parameters()) if name not in wanted]
    wrong += [name for name, shape in wanted.items() if own.get(name) != shape]
    if not wrong:
        return ""
    return f"one with other tensors ({', '.join(f'{name}: {own.get(name, wanted.get(name))}' for name in wrong[:3])})"
