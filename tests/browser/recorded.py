"""A recorded study, made up from plain records: the network of tests/golden, candidates whose quality follows their
cost, and everything that a dashboard shows. No training, and no torch.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from safetensors.numpy import save

from autoprune.plan.allocation import GroupPlan
from autoprune.plan.plan import PruningPlan
from autoprune.records.candidate import CandidateRecord
from autoprune.records.ending import Ending
from autoprune.records.measurement import DEFAULT_PROFILE, Latency, Measurement
from autoprune.records.origins import Origin
from autoprune.records.run_folder import RunFolder

_STUDY = Path(__file__).parents[1] / "golden" / "runs" / "v3"
#: Milliseconds of the dense model, and folds of the search split.
_DENSE_MS, _FOLDS = 4.2, 20
#: Candidates at the start: origins in their order; the rest is sampled, and the last ones are polished.
_FIRST = ("dense", "uniform", "uniform", "uniform", "uniform", "solved", "solved", "solved", "enqueued")


class Recorded:
    """A run folder that candidates are added to.

    Args:
        path: Folder to write.
        seed: Seed of the candidates.
        name: Name of the study.
    """

    def __init__(self, path: Path, seed: int = 0, name: str = "digits") -> None:
        self.folder = RunFolder(path)
        path.mkdir(parents=True)
        study = json.loads((_STUDY / "study.json").read_text())
        study["name"] = name
        study["settings"]["objectives"] = ["quality", "size_bytes", "latency_ms"]
        (path / "study.json").write_text(json.dumps(study))
        for name_of_file in ("sensitivity.json", "topology.json"):
            shutil.copy(_STUDY / name_of_file, path / name_of_file)
        self.channels = {row["name"]: row["channels"] for row in study["groups"]}
        table = self.folder.read_study().costs
        assert table is not None
        self._table = table
        self._random = np.random.default_rng(seed)
        self._luck = self._random.normal(size=_FOLDS)
        self.records: list[CandidateRecord] = []

    def add(self, count: int = 1, *, polished: bool = False) -> None:
        """Write further candidates, as a study does."""
        for _ in range(count):
            record = self._record(len(self.records), polished=polished)
            weights = {name: np.zeros(width, np.float32) for name, width in record.widths.items()}
            self.folder.write_candidate(record, save(weights))
            self.records.append(record)

    def test(self) -> None:
        """Measure the front on the test split, and end the study."""
        members = {0, *sorted(range(len(self.records)), key=lambda n: -self._value(self.records[n]))[:8]}
        for number in members:
            record = self.records[number]
            search = record.search
            quality = search.quality - (0.0 if number == 0 else 0.004) + 0.003 * self._random.normal()
            test = Measurement.from_dict({**search.to_dict(), "split": "test", "quality": quality, "deviations": []})
            self.folder.write_test(number, test)
        self.folder.write_ending(Ending(reason="trials", done=len(self.records), target=len(self.records)))

    @staticmethod
    def _value(record: CandidateRecord) -> float:
        return record.search.quality - 0.02 * math.log(record.search.multiply_adds)

    def _record(self, number: int, *, polished: bool) -> CandidateRecord:
        random = self._random
        origin = Origin("polished") if polished else Origin(_FIRST[number] if number < len(_FIRST) else "sampled")
        parent = None if number == 0 else 0 if not polished else self._best()
        widths = self._widths(origin, number, parent)
        shares = {name: width / self.channels[name] for name, width in widths.items()}
        cost = self._cost(widths)
        share = cost["multiply_adds"] / self._cost(self.channels)["multiply_adds"]
        skill = {"dense": 0.008, "uniform": -0.012, "solved": 0.004, "polished": 0.008}.get(str(origin), 0.0)
        quality = 0.972 + skill - 0.0024 / share**0.9 + 0.004 * (random.normal() if number else 0.0)
        stopped = origin is Origin.SAMPLED and number % 7 == 5
        if stopped:
            quality -= 0.12
        names = list(self.channels)
        return CandidateRecord(
            number=number,
            origin=origin,
            plan=PruningPlan(
                groups={
                    name: GroupPlan(ratio=round(1 - shares[name], 3), criterion=("l2", "taylor")[number % 2])
                    for name in names
                }
            )
            if number
            else PruningPlan(),
            kept={name: tuple(range(width)) for name, width in widths.items()},
            search=self._measurement(float(np.clip(quality, 0.3, 1.0)), share, cost),
            parent=parent,
            samples_forward=1350,
            samples_trained=0 if number == 0 else int(40_000 * (0.25 if stopped else 1.0)),
            lineage_trained=0 if number == 0 else 40_000 * (2 if polished else 1),
            seconds={"train": 3.0 + random.random(), "evaluate": 0.2, "latency": 0.4} if number else {"evaluate": 0.2},
            note="the loss is not finite at step 12" if number == 17 else "",
            rungs=self._rungs(quality, stopped) if number > 4 and not polished else (),
            fidelity=0.25 if stopped else 1.0,
            parameters={
                "budget": share,
                "steps": int(100 + 20 * (number % 5)),
                "criterion": ("l2", "taylor")[number % 2],
            }
            if origin is Origin.SAMPLED
            else {},
        )

    def _best(self) -> int:
        return max((one for one in self.records[1:] if not one.stopped), key=self._value).number

    def _rungs(self, quality: float, stopped: bool) -> tuple[tuple[float, float], ...]:
        first = quality - 0.06 + 0.01 * self._random.normal()
        return ((0.25, first),) if stopped else ((0.25, first), (0.5, quality - 0.02 + 0.005 * self._random.normal()))

    def _widths(self, origin: Origin, number: int, parent: int | None) -> dict[str, int]:
        if origin is Origin.DENSE:
            return dict(self.channels)
        if origin is Origin.POLISHED and parent is not None:
            return dict(self.records[parent].widths)
        budget = {1: 0.85, 2: 0.65, 3: 0.45, 4: 0.3}.get(number, float(self._random.uniform(0.2, 0.95)))
        spread = 0.0 if origin is Origin.UNIFORM else 0.25
        factors = np.clip(budget * self._random.lognormal(0.0, spread, len(self.channels)), 0.1, 1.0)
        return {
            name: max(1, round(factor * count))
            for (name, count), factor in zip(self.channels.items(), factors, strict=True)
        }

    def _cost(self, widths: Mapping[str, int]) -> dict[str, int]:
        """Costs of such widths, by the table of the study."""
        table = self._table
        gone = [1 - widths[name] / count for name, count in zip(table.names, table.channels, strict=True)]
        lengths = [
            axis.whole - sum(positions * gone[group] for group, positions in axis.single) for axis in table.lengths
        ]
        names = ("parameters", "multiply_adds", "size_bytes")
        terms = [(term, math.prod(lengths[number] for number in term.lengths)) for term in table.terms]
        return {name: int(sum(getattr(term, name) * size for term, size in terms)) for name in names}

    def _measurement(self, quality: float, share: float, cost: Mapping[str, int]) -> Measurement:
        error = 0.005
        own = 0.8 * self._luck + 0.6 * self._random.normal(size=_FOLDS)
        own = own - own.mean()
        deviations = error * own / np.sqrt((own**2).sum())
        ratio = 1.0 if share == 1 else 0.18 + 0.82 * share**0.8 * float(self._random.lognormal(0.0, 0.02))
        wide = 0.012 + 0.01 * float(self._random.random())
        return Measurement(
            split="search",
            quality=quality,
            quality_error=float(np.sqrt((deviations**2).sum())),
            metrics={"accuracy": quality, "recall": quality - 0.002 + 0.001 * float(self._random.normal())},
            parameters=cost["parameters"],
            multiply_adds=cost["multiply_adds"],
            size_bytes=cost["size_bytes"] + 4_000,
            latencies={
                DEFAULT_PROFILE: Latency(
                    latency_ms=_DENSE_MS * ratio,
                    low_ms=_DENSE_MS * ratio * (1 - wide),
                    high_ms=_DENSE_MS * ratio * (1 + wide),
                    dense_ms=_DENSE_MS,
                    ratio=ratio,
                    ratio_low=ratio * (1 - wide),
                    ratio_high=ratio * (1 + wide),
                    backend="onnxruntime",
                    rounds=60,
                    bursts=3,
                )
            },
            deviations=tuple(float(value) for value in deviations),
        )


def recorded_run(path: Path, count: int = 40, seed: int = 0, name: str = "digits") -> Recorded:
    """A finished study of that many candidates."""
    run = Recorded(path, seed, name)
    run.add(count - 3)
    run.add(3, polished=True)
    run.test()
    return run
