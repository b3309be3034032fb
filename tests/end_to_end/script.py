"""A study script of a person, written to a folder, and ways to run the command line on it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from typer.testing import CliRunner

ROOT = Path(__file__).parents[2]

# Fixtures of a module run before the one that sets this for each test.
torch.set_num_threads(1)

#: Trains a small convolutional network in the script, as studies/digits does; `{...}` are filled in by `write`.
SCRIPT = '''"""Patterns under noise: a script as a person writes it."""

import os
import time

import torch
import torchmetrics
from torch import nn

import autoprune

torch.set_num_threads(1)


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Conv2d(8, 12, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(12), nn.ReLU(),
        nn.Conv2d(12, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 4),
    )


def data(samples: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    patterns = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(99))
    targets = torch.randint(4, (samples,), generator=generator)
    return patterns[targets] + torch.randn(samples, 1, 8, 8, generator=generator), targets


def trained() -> nn.Module:
    network = model()
    images, targets = data(400, 0)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    for step in range(40):
        index = torch.arange(50) + 50 * (step % 8)
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(images[index]), targets[index]).backward()
        optimizer.step()
    return network.eval()


def loss(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    if outputs.requires_grad:
        time.sleep(float(os.environ.get("SECONDS_A_STEP", "0")))
    return nn.functional.cross_entropy(outputs, targets)


class unfitted(torchmetrics.MeanMetric):
    higher_is_better = True

    def update(self, preds: torch.Tensor, target: torch.Tensor) -> None:
        super().update(torch.tensor(1.0))

    def compute(self) -> torch.Tensor:
        return torch.tensor(float("nan"))


def task() -> autoprune.Task:
    train = data(400, 0)
    arguments = dict(
        model=trained(),
        example_inputs=train[0][:4],
        train=train,
        test=data(150, 1),
        loss=loss,
        metrics=("accuracy", "recall"),
        quality="accuracy",
        batch_size=50,
        calibration_samples=100,
    )
    {change}
    return autoprune.Task(**arguments)


settings = autoprune.StudySettings(
    trials=8,
    objectives={objectives},
    recovery=autoprune.RecoverySettings(steps=5, recalibration=(100,)),
    search=autoprune.SearchSettings(uniform_points=3, solved_points=1),
    measure=autoprune.MeasureSettings(latency_rounds={rounds}, latency_backend="eager"),
    structure=autoprune.StructureSettings(round_to=1),
)

if __name__ == "__main__":
    autoprune.main()
'''

QUICK = ("quality", "multiply_adds")
USUAL = ("quality", "size_bytes", "latency_ms")


def write(folder: Path, *, change: str = "pass", objectives: Sequence[str] = QUICK, name: str = "study.py") -> Path:
    """The script in a folder; `change` is a line that may change `arguments` of the Task."""
    rounds = 3 if "latency_ms" in objectives else 0
    text = SCRIPT.replace("{change}", change).replace("{rounds}", str(rounds))
    text = text.replace("{objectives}", repr(tuple(objectives)))
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(text)
    return path


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a command answered."""

    code: int
    out: str
    err: str

    @property
    def text(self) -> str:
        return self.out + self.err

    @property
    def sentence(self) -> str:
        """All that it said, in one line."""
        return " ".join(self.text.split())


def command(*arguments: object) -> Outcome:
    """One command of the command line, in this process; a crash is raised and not answered."""
    from autoprune.cli.app import app

    # Each command of a person is a process of its own, that has imported no study script yet.
    sys.modules.pop("autoprune_study_script", None)
    path = list(sys.path)
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    sys.path[:] = path
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Outcome(code=result.exit_code, out=result.stdout, err=result.stderr)


def environment(**changes: str) -> dict[str, str]:
    """This tree's package is the one that a process imports; no bytecode is left beside scripts."""
    return {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1", "COLUMNS": "200", **changes}


def process(arguments: Sequence[object], cwd: Path) -> Outcome:
    """A python process of its own."""
    result = subprocess.run(
        [sys.executable, *(str(argument) for argument in arguments)],
        cwd=cwd,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    return Outcome(code=result.returncode, out=result.stdout, err=result.stderr)
