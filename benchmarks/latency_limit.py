"""Time anew, in another process, the model that a study with a limit of latency chooses.

    python -m benchmarks.latency_limit [--networks resnet14,mobilenet,vit] [--share 0.75] [--trials 20] [--steps 300]

For each network of benchmarks/against a study script is written and run by the command line, with --limit
max_latency_ms=X and --limit max_drop=0.01, where X is SHARE of the dense model's latency in ONNX Runtime on one thread
with 16 images. `autoprune choose` picks a candidate, which another process rebuilds and times in turn with the dense
model.

What is done is kept under benchmarks/out, so that an interrupted run goes on where it was; latencies in doubt, as on a
busy machine, are measured again.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import torch
import typer

import autoprune
from autoprune.codec import to_plain
from autoprune.measure.latency.comparer import LatencyComparer
from autoprune.records.atomic import write_atomically
from autoprune.records.measurement import Latency
from autoprune.records.profile import LatencyProfile
from benchmarks.against.__main__ import task as whole_task
from benchmarks.against.networks import FOLDER
from benchmarks.latency_front import IMAGES
from benchmarks.reporting import print_machine, print_table
from studies.fashion_mnist.data import datasets

_SCRIPT = """
import autoprune
from benchmarks import latency_limit

def task():
    return latency_limit.task({network!r})

settings = autoprune.StudySettings(
    objectives=("quality", "latency_ms"),
    structure=autoprune.StructureSettings(round_to="device"),
    recovery=autoprune.RecoverySettings(steps={steps}),
    search=autoprune.SearchSettings(cost="latency_ms", min_budget=0.1),
    measure=autoprune.MeasureSettings(latency_backend="onnxruntime", latency_when="front"),
)
"""


def task(network: str) -> autoprune.Task:
    """Fashion-MNIST with that network, timed with few images, and with enough search samples to tell a point."""
    found = whole_task(network)
    assert isinstance(found.example_inputs, torch.Tensor)
    return replace(found, example_inputs=found.example_inputs[:IMAGES], search=datasets()["search"])


def main(  # one option each
    networks: str = "resnet14,mobilenet,vit",
    share: float = 0.75,
    trials: int = 20,
    steps: int = 300,
    again: Annotated[Path | None, typer.Option(hidden=True)] = None,
    candidate: Annotated[int, typer.Option(hidden=True)] = 0,
) -> None:
    """Run the studies, and print the table; with --again time one candidate of a run folder."""
    torch.set_num_threads(1)
    if again is not None:
        print(json.dumps(to_plain(_timed(networks, again, candidate))))
        return
    print_machine()
    rows = []
    for network in networks.split(","):
        folder = FOLDER / f"latency_limit-{network}-{share}-{trials}-{steps}"
        folder.mkdir(parents=True, exist_ok=True)
        rows.append([network, *_row(network, folder, (share, trials, steps))])
        print(rows[-1], flush=True)
    columns = (
        *("network", "limit, ms", "chosen", "accuracy, search", "of dense", "latency in the study, ms"),
        *("in another process, ms", "keeps the limit", "doubts"),
    )
    print_table(f"limit of {share:.0%} of the dense latency and of one point", columns, rows)


def _row(network: str, folder: Path, how: tuple[float, int, int]) -> list[str]:
    share, trials, steps = how
    script, out = folder / "study.py", folder / "run"
    script.write_text(_SCRIPT.format(network=network, steps=steps))
    given = folder / "limit.txt"
    if not given.exists():
        write_atomically(given, f"{share * _dense(network).latency_ms}\n".encode())
    limit = float(given.read_text())
    for _ in range(2):  # a second run measures again what is in doubt
        _run("autoprune", "run", script, "--out", out, "--trials", trials, *_limits(limit))
        told = _run("autoprune", "choose", out, may_fail=True)
        if told:
            break
    front = autoprune.Run.open(out).front()
    if not told:  # the command has printed why, such as that all latencies are in doubt on a busy machine
        in_doubt = sum(bool(one.search.latencies["default"].doubts) for one in front.complete)
        return [f"{limit:.3f}", "none", *[""] * 5, f"{in_doubt} of {len(front.complete)} candidates"]
    chosen = int(told)
    record, dense = front.get(chosen), front.dense
    assert dense is not None
    answer = json.loads(_run("benchmarks.latency_limit", "--networks", network, "--again", out, "--candidate", chosen))
    latency = record.search.latencies["default"]
    shown = front.value(record, "latency_ms")
    return [
        f"{limit:.3f}",
        str(chosen),
        f"{record.search.quality:.4f}",
        f"{dense.search.quality:.4f}",
        f"{shown:.3f} (ratio {latency.ratio:.3f})",
        f"{answer['latency_ms']:.3f} ({answer['low_ms']:.3f} to {answer['high_ms']:.3f})",
        "yes" if answer["low_ms"] <= limit else "no",
        f"{len(latency.doubts)} and {len(answer['doubts'])}",
    ]


def _limits(limit: float) -> list[object]:
    return ["--limit", f"max_latency_ms={limit}", "--limit", "max_drop=0.01"]


def _comparer(prepared: autoprune.PreparedTask) -> LatencyComparer:
    return LatencyComparer(
        prepared.dense, prepared.example_inputs, LatencyProfile(name="default", backend="onnxruntime")
    )


def _dense(network: str) -> Latency:
    prepared = autoprune.prepare(task(network))
    return _comparer(prepared).compare(prepared.dense)


def _timed(network: str, out: Path, number: int) -> Latency:
    prepared = autoprune.prepare(task(network))
    study = autoprune.Study.open(out, prepared)
    return _comparer(prepared).compare(study.rebuild(number))


def _run(module: str, *arguments: object, may_fail: bool = False) -> str:
    """Return what a module prints; nothing where it may fail and does."""
    words = [sys.executable, "-m", module, *map(str, arguments)]
    done = subprocess.run(words, check=not may_fail, stdout=subprocess.PIPE, text=True)
    return done.stdout if done.returncode == 0 else ""


if __name__ == "__main__":
    typer.run(main)
