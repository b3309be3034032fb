"""Cut real models of torchvision, timm and Transformers, and check each cut with a decoder of its own.

    make zoo-real
    python -m benchmarks.zoo [--models swin,bert] [--seconds 600] [--markdown]

Every model runs in a process of its own, with random weights and one torch thread, and may take so many seconds of
processor time. Results go to benchmarks/out/zoo/results.jsonl, one line each: a run that was stopped goes on where it
was, and models that are named are done again. The table is printed at the end; --markdown prints it alone.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
import warnings
from dataclasses import asdict
from pathlib import Path

import torch
import typer

from benchmarks.zoo.check import check
from benchmarks.zoo.language import TRANSFORMERS
from benchmarks.zoo.stir import stir
from benchmarks.zoo.table import Record, print_results
from benchmarks.zoo.vision import TIMM, TORCHVISION

LIBRARIES = {"torchvision": TORCHVISION, "timm": TIMM, "transformers": TRANSFORMERS}
#: "library/name" -> what makes the model and its inputs.
MODELS = {f"{library}/{name}": made for library, models in LIBRARIES.items() for name, made in models.items()}


def main(
    models: str = "",
    seconds: int = 600,
    out: Path = Path("benchmarks/out/zoo"),
    markdown: bool = False,
    one: str = "",
) -> None:
    """Check every model that has no result yet. models: names, or library/name, or a library. one: in this process."""
    if one:
        _one(one)
        return
    results = out / "results.jsonl"
    if not markdown:
        out.mkdir(parents=True, exist_ok=True)
        _run(_chosen(models, results), seconds, results)
    print_results({name: record for name, record in _known(results).items() if name in MODELS})


def _chosen(models: str, results: Path) -> list[str]:
    known = _known(results)
    if not models:
        return [name for name in MODELS if name not in known]
    wanted = models.split(",")
    unknown = [part for part in wanted if not any(_matches(name, part) for name in MODELS)]
    if unknown:
        raise SystemExit(f"{', '.join(unknown)}: no such model; there are {', '.join(MODELS)}")
    return [name for name in MODELS if any(_matches(name, part) for part in wanted)]


def _matches(name: str, part: str) -> bool:
    return part in {name, *name.split("/")}


def _known(results: Path) -> dict[str, Record]:
    """Name -> the latest result of each model, in the order of the list."""
    lines = results.read_text().splitlines() if results.exists() else []
    found: dict[str, Record] = {record["name"]: record for record in map(json.loads, lines)}
    return {name: found[name] for name in MODELS if name in found}


def _run(names: list[str], seconds: int, results: Path) -> None:
    start = time.monotonic()
    for number, name in enumerate(names):
        record = _in_process(name, seconds)
        with results.open("a") as file:
            file.write(json.dumps(record) + "\n")
        passed = time.monotonic() - start
        left = passed / (number + 1) * (len(names) - number - 1)
        print(f"[{number + 1}/{len(names)}] {name}: {_summary(record)}; about {left / 60:.0f} min left", flush=True)


def _summary(record: Record) -> str:
    if record.get("error"):
        return str(record["error"])
    wrong = record["wrong"] or record["unchecked"]
    return f"{record['seconds']:.1f} s, {record['groups']} groups, {record['whole']:.1%} stays whole {wrong or ''}"


def _in_process(name: str, seconds: int) -> Record:
    """The record of one model; what a process of its own could not do is an error in it."""

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 5))

    command = [sys.executable, "-m", "benchmarks.zoo", "--one", name]
    done = subprocess.run(command, capture_output=True, text=True, check=False, preexec_fn=limited)
    if done.returncode == 0:
        record: Record = json.loads(done.stdout.splitlines()[-1])
        return record
    if done.returncode < 0:
        return {"name": name, "error": f"was not done in {seconds} s of processor time"}
    last = (done.stderr.strip().splitlines() or ["no message"])[-1]
    return {"name": name, "error": f"fails: {last[:300]}"}


def _one(name: str) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    warnings.simplefilter("ignore")  # those of the libraries
    model, inputs = MODELS[name]()
    print(json.dumps({"name": name, **asdict(check(stir(model, inputs), inputs))}))


if __name__ == "__main__":
    typer.run(main)
