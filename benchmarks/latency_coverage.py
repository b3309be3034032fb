"""How often the interval of a latency says where another measurement falls, on a quiet machine and on a busy one.

    python -m benchmarks.latency_coverage [--pairs 100] [--load idle|one|both]   # at most 12 minutes
    python -m benchmarks.latency_coverage --repetitions 20                       # at most 12 minutes

First form: pairs of a dense model and a narrower one are measured twice, in separate processes, by eager PyTorch and by
ONNX Runtime. Printed is how often the second ratio lies in the first interval, and how often the first was not to be
trusted. `one` and `both` load one or both cores with endless loops. Each measurement is kept as a line of
benchmarks/out/latency_coverage-LOAD.jsonl. Second form: the ratio of one pair is measured
again and again in four processes under each load.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from statistics import median

import torch
import typer
from torch import Tensor, nn

from autoprune.measure.latency.comparer import LatencyComparer
from autoprune.measure.latency.timing import Timing
from autoprune.records.atomic import write_atomically
from autoprune.records.profile import LatencyProfile
from benchmarks.against.networks import FOLDER
from benchmarks.reporting import print_machine, print_table, spread

_BACKENDS = ("eager", "onnxruntime")
_LOADS = {"idle": 0, "one": 1, "both": 2}
#: Pairs that one process measures.
_PAIRS = 5
#: Longest measurement: the default on a quiet machine, brief on a busy one, where the interval stays wide.
_SECONDS = {"idle": 5.0, "one": 2.0, "both": 1.0}


class Depthwise(nn.Module):
    """An inverted residual block as in MobileNetV2."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        wide = 4 * channels
        self.body = nn.Sequential(
            nn.Conv2d(channels, wide, 1),
            nn.ReLU6(),
            nn.Conv2d(wide, wide, 3, padding=1, groups=wide),
            nn.ReLU6(),
            nn.Conv2d(wide, channels, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> the same."""
        return x + self.body(x)  # type: ignore[no-any-return]  # a module's call has no type


class Attention(nn.Module):
    """A layer of a transformer with heads of 16 channels."""

    def __init__(self, heads: int, width: int = 64) -> None:
        super().__init__()
        self.heads = heads
        self.norm, self.qkv, self.out = nn.LayerNorm(width), nn.Linear(width, 48 * heads), nn.Linear(16 * heads, width)
        self.mlp = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 64 * heads), nn.GELU(), nn.Linear(64 * heads, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        """[N, L, C] -> the same."""
        q, k, v = self.qkv(self.norm(x)).view(len(x), -1, 3, self.heads, 16).permute(2, 0, 3, 1, 4)
        mixed = nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        x = x + self.out(mixed)
        return x + self.mlp(x)  # type: ignore[no-any-return]  # a module's call has no type


def _convolutions(share: float) -> tuple[nn.Module, Tensor]:
    width = round(32 * share)
    layers = [nn.Conv2d(3, width, 3, padding=1), nn.ReLU()]
    layers += [layer for _ in range(3) for layer in (nn.Conv2d(width, width, 3, padding=1), nn.ReLU())]
    return nn.Sequential(*layers), torch.randn(1, 3, 32, 32)


def _mobile(share: float) -> tuple[nn.Module, Tensor]:
    width = round(32 * share)
    return nn.Sequential(nn.Conv2d(3, width, 3, padding=1), *(Depthwise(width) for _ in range(3))), torch.randn(
        1, 3, 16, 16
    )


def _transformer(share: float) -> tuple[nn.Module, Tensor]:
    return nn.Sequential(*(Attention(max(round(8 * share), 1)) for _ in range(3))), torch.randn(1, 64, 64)


def _perceptron(share: float) -> tuple[nn.Module, Tensor]:
    width = round(512 * share)
    return nn.Sequential(nn.Linear(256, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 64)), (
        torch.randn(16, 256)
    )


_NETWORKS = {
    "convolutions": _convolutions,
    "mobile": _mobile,
    "transformer": _transformer,
    "perceptron": _perceptron,
}


@dataclass(frozen=True, slots=True)
class Job:
    """Job of one process: narrower models of one network against the dense one."""

    backend: str
    network: str
    shares: tuple[float, ...]
    seconds: float


@dataclass(frozen=True, slots=True)
class Found:
    """One measured ratio."""

    backend: str
    network: str
    share: float
    ratio: float
    low: float
    high: float
    dense_ms: float
    trusted: bool
    doubts: tuple[str, ...]
    bursts: int
    seconds: float

    def covers(self, other: Found) -> bool:
        """Whether another ratio lies in this interval."""
        return self.low <= other.ratio <= self.high


def measure(job: Job) -> Iterator[Found]:
    """Measure in this process."""
    torch.manual_seed(0)
    build = _NETWORKS[job.network]
    dense, inputs = build(1.0)
    profile = LatencyProfile(name="coverage", backend=job.backend)
    comparer = LatencyComparer(dense, inputs, profile, Timing(seconds=job.seconds))
    for share in job.shares:
        start = time.perf_counter()
        found = comparer.compare(build(share)[0])
        assert found.backend == job.backend, found.fallback
        yield Found(
            backend=job.backend,
            network=job.network,
            share=share,
            ratio=found.ratio,
            low=found.ratio_low,
            high=found.ratio_high,
            dense_ms=found.dense_ms,
            trusted=found.trusted,
            doubts=found.doubts,
            bursts=found.bursts,
            seconds=time.perf_counter() - start,
        )


def _in_process(job: Job) -> list[Found]:
    """Measure in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.latency_coverage", "--job", json.dumps(asdict(job))]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    return [Found(**json.loads(line)) for line in lines if line.startswith("{")]


@contextmanager
def _loaded(cores: int) -> Iterator[None]:
    """Load cores with endless loops inside."""
    burners = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(cores)]
    for core, burner in enumerate(burners):
        os.sched_setaffinity(burner.pid, {(os.cpu_count() or 1) - 1 - core})
    try:
        yield
    finally:
        for burner in burners:
            burner.kill()
            burner.wait()


def _coverage(pairs: int, load: str) -> None:
    shares = [0.25 + 0.7 * ((0.618034 * number) % 1) for number in range(pairs)]
    kinds = [(backend, network) for network in _NETWORKS for backend in _BACKENDS]
    jobs = [
        Job(*kinds[place % len(kinds)], tuple(shares[start : start + _PAIRS]), _SECONDS[load])
        for place, start in enumerate(range(0, pairs, _PAIRS))
    ]
    with _loaded(_LOADS[load]):
        first, second = ([found for job in jobs for found in _in_process(job)] for _ in range(2))
    lines = "".join(json.dumps(asdict(found)) + "\n" for found in (*first, *second))
    write_atomically(FOLDER / f"latency_coverage-{load}.jsonl", lines.encode())
    rows = []
    for backend in (*_BACKENDS, "both"):
        both = [(a, b) for a, b in zip(first, second, strict=True) if backend in (a.backend, "both")]
        trusted = [(a, b) for a, b in both if a.trusted]
        covered = sum(a.covers(b) for a, b in both)
        apart = [100 * abs(math.log(b.ratio / a.ratio)) for a, b in both]
        rows.append(
            [
                backend,
                f"{sum(a.covers(b) or not a.trusted for a, b in both)} of {len(both)}",
                f"{covered} of {len(both)}",
                f"{sum(a.covers(b) for a, b in trusted)} of {len(trusted)}",
                spread(apart, 2),
                spread([100 * (a.high / a.low - 1) / 2 for a, _ in both], 2),
                spread([a.seconds for a, _ in both], 1),
            ]
        )
    columns = [
        "backend",
        "covered or not trusted",
        "covered",
        "covered where trusted",
        "apart, %",
        "half width, %",
        "seconds",
    ]
    print_table(f"The second ratio in the first interval, {load}", columns, rows)
    _print_doubts(first)
    logs = [math.log(b.ratio / a.ratio) for a, b in zip(first, second, strict=True) if a.trusted and b.trusted]
    if len(logs) > 1:
        deviation = math.sqrt(sum(value**2 for value in logs) / (2 * len(logs)))
        print(f"\nStandard deviation of one logarithm, all noise together: {deviation:.4f}")


def _repeated(repetitions: int) -> None:
    rows = []
    for network in ("convolutions", "transformer"):
        for backend in _BACKENDS:
            calm = 0.0
            for load, cores in _LOADS.items():
                job = Job(backend, network, (0.5,) * math.ceil(repetitions / 4), _SECONDS[load])
                with _loaded(cores):
                    found = [one for _ in range(4) for one in _in_process(job)]
                ratios = sorted(one.ratio for one in found)
                middle, quarter = median(ratios), len(ratios) // 4
                calm = calm or middle
                spread_ = 100 * (ratios[-1 - quarter] - ratios[quarter]) / middle
                moved = f"{100 * abs(middle / calm - 1):.2f}"
                trusted = f"{sum(one.trusted for one in found)} of {len(found)}"
                rows.append([network, backend, load, f"{middle:.4f}", f"{spread_:.2f}", moved, trusted])
    columns = ["network", "backend", "load", "median ratio", "IQR, %", "median moved, %", "trusted"]
    print_table(f"The same pair {repetitions} times, in four processes", columns, rows)


def _print_doubts(found: Sequence[Found]) -> None:
    counted: Mapping[str, int] = {}
    for doubt in (doubt.split(" ")[0:2] for one in found for doubt in one.doubts):
        counted = {**counted, " ".join(doubt): counted.get(" ".join(doubt), 0) + 1}
    print(
        "\nDoubts of the first measurements:", ", ".join(f"{name} ... ({n})" for name, n in counted.items()) or "none"
    )


def main(pairs: int = 100, load: str = "idle", repetitions: int = 0, job: str = "") -> None:
    """Measure, and print tables."""
    torch.set_num_threads(1)
    if job:
        given = json.loads(job)
        for found in measure(Job(**{**given, "shares": tuple(given["shares"])})):
            print(json.dumps(asdict(found)), flush=True)
        return
    print_machine()
    start = time.perf_counter()
    if repetitions:
        _repeated(repetitions)
    else:
        _coverage(pairs, load)
    print(f"\n{time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    typer.run(main)
