"""safetensors weights with an architecture JSON beside them, and the way back to a model."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

from torch import Tensor, nn

from autoprune.criteria.kept import KeptChannels
from autoprune.errors import ConfigurationError, NotFoundError, StorageError, fault
from autoprune.front.record import CandidateRecord
from autoprune.study.folder import RunFolder
from autoprune.surgery.cut import rebuild
from autoprune.surgery.prove import survey
from autoprune.task.checkpoint import bytes_of, read_weights, serialize, serialize_smallest, write_atomically
from autoprune.task.data import Inputs

ARCHITECTURE_VERSION = 2


def export_safetensors(folder: RunFolder, record: CandidateRecord, to: Path) -> tuple[Path, Path]:
    """Write `to` (weights, which any tool reads) and `to` with the ending .json (architecture); gives both paths.

    Needs neither the study script nor the model. Raises ConfigurationError for another ending,
    NotFoundError when the candidate's weights are gone, StorageError when they can not be read.
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
        raise ConfigurationError(fault("--to", "end in .safetensors", str(to)))
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
        "plan": record.plan.to_dict(),
        "search": record.search.to_dict(),
        "test": None if record.test is None else record.test.to_dict(),
    }
    architecture_path = to.with_suffix(".json")
    # The architecture first: weights without it could not be read back.
    write_atomically(architecture_path, json.dumps(architecture, indent=1).encode())
    write_atomically(to, written(weights))
    return to, architecture_path


def load_safetensors(dense: nn.Module, example_inputs: Inputs, path: str | Path) -> nn.Module:
    """Dense model definition -> cut to the kept channels -> load weights. Nothing is unpickled.

    dense: the model definition that was pruned, its weights do not matter.
    path: the .safetensors file, plain or compressed, its .json beside it. Gives the model in eval mode. Raises
    NotFoundError, StorageError, ConfigurationError when the definition is another one.
    """
    path = Path(path)
    architecture = path.with_suffix(".json")
    for file in (path, architecture):
        if not file.is_file():
            raise NotFoundError(
                fault("an exported model", "be a .safetensors file with a .json beside it", f"no {file}")
            )
    try:
        data = json.loads(architecture.read_text())
        if data["version"] > ARCHITECTURE_VERSION:
            raise StorageError(
                fault(
                    "the architecture's version", f"be <= {ARCHITECTURE_VERSION}", data["version"], "Upgrade autoprune."
                )
            )
        groups = {name: tuple(indices) for name, indices in data["kept"].items()}
        kept = KeptChannels(groups=groups, dropped=tuple(data.get("dropped", ())))
        structure = data["structure"]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise StorageError(
            fault(str(architecture), "hold an architecture", f"{type(error).__name__}: {error}")
        ) from error
    topology = survey(dense, example_inputs)
    if topology.fingerprint() != structure:
        raise ConfigurationError(
            fault(
                "the dense model",
                "be the definition that was pruned",
                "one of another structure",
                "Build it as the study did.",
            )
        )
    return rebuild(dense, topology, kept, read_weights(path, bytes_of(dense.state_dict()))).eval()
