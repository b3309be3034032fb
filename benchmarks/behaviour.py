"""Whether two studies with fixed seeds still give the candidates that were recorded: same channels, qualities and work.

    python -m benchmarks.behaviour [--studies digits,lineage] [--record]

For changes that are to change nothing. The studies are `studies/digits` without latency among its objectives, which
depends on the clock, and `studies/fashion_mnist/lineage.py`; one takes about a minute, the other six. Records lie in
`benchmarks/behaviour/`. Floating-point numbers, and so candidates, are the same to the last bit on one kind of machine
only: where the dense model already has other weights, that is said and nothing is compared. --record writes new
records. Exit status 1: something differs.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import tempfile
from pathlib import Path

import torch
import typer

import autoprune
from autoprune.records.candidate import CandidateRecord
from benchmarks.reporting import print_machine, print_table

RECORDS = Path(__file__).parent / "behaviour"
#: Name -> module of the study.
STUDIES = {"digits": "studies.digits.study", "lineage": "studies.fashion_mnist.lineage"}

Row = dict[str, object]


def main(studies: str = ",".join(STUDIES), record: bool = False) -> None:
    """Run studies and compare them with their records."""
    torch.set_num_threads(1)
    print_machine()
    found = {name: run(name) for name in studies.split(",")}
    if record:
        for name, rows in found.items():
            RECORDS.mkdir(exist_ok=True)
            (RECORDS / f"{name}.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
        return
    table, differ = [], False
    for name, rows in found.items():
        recorded = json.loads((RECORDS / f"{name}.json").read_text(encoding="utf-8"))
        first, count = differences(recorded, rows)
        differ = differ or count > 0
        table.append([name, str(len(recorded)), str(len(rows)), str(count), first])
    print_table("Same behaviour", ("study", "recorded candidates", "candidates", "that differ", "the first"), table)
    raise typer.Exit(code=int(differ))


def run(name: str) -> list[Row]:
    """Run a study from its beginning and describe its candidates."""
    module = importlib.import_module(STUDIES[name])
    # Latency depends on the clock.
    objectives = tuple(name if name != "latency_ms" else "multiply_adds" for name in module.settings.objectives)
    settings = module.settings.changed({"seed": 0, "objectives": objectives, "measure.latency_rounds": 0})
    with tempfile.TemporaryDirectory() as folder:
        study = autoprune.Study.create(module.task(), settings, out=Path(folder) / "run")
        study.run()
        return [described(candidate, study.folder.weights(candidate.number)) for candidate in study.records]


def described(candidate: CandidateRecord, weights: Path) -> Row:
    """List the properties of a candidate that have to stay the same."""
    kept = json.dumps({name: list(indices) for name, indices in candidate.kept.items()}, sort_keys=True)
    return {
        "number": candidate.number,
        "origin": candidate.origin,
        "parent": candidate.parent,
        "widths": candidate.widths,
        "kept": hashlib.sha256(kept.encode()).hexdigest()[:16],
        "dropped": list(candidate.dropped),
        "quality": candidate.search.quality,
        "multiply_adds": candidate.search.multiply_adds,
        "parameters": candidate.search.parameters,
        "size_bytes": candidate.search.size_bytes,
        "forward": candidate.samples_forward,
        "trained": candidate.samples_trained,
        "shared": candidate.samples_shared,
        "weights": hashlib.sha256(weights.read_bytes()).hexdigest()[:16] if weights.is_file() else "",
    }


def differences(recorded: list[Row], rows: list[Row]) -> tuple[str, int]:
    """Say what differs first, and count the candidates that differ."""
    if recorded and rows and recorded[0]["weights"] != rows[0]["weights"]:
        return "the dense model has other weights: another kind of machine, nothing compared", 0
    told, count = [], abs(len(recorded) - len(rows))
    for one, other in zip(recorded, rows, strict=False):
        fields = [name for name in one if one[name] != other.get(name)]
        count += bool(fields)
        told += [f"{one['number']}: {name} {one[name]} -> {other.get(name)}" for name in fields]
    return (told[0] if told else ""), count


if __name__ == "__main__":
    typer.run(main)
