"""Whether a candidate that `choose --max-drop 0.01` picks keeps to it on samples that chose nothing.

    python -m benchmarks.chosen_drop [--repetitions 20] [--samples 360] [--trials 12]

Each repetition splits digits anew into 400 training scans, the search samples and the rest, adds noise to every scan,
four times for the test, trains a small perceptron (about 0.93), and runs a study of a few short trials.
The drop on the test samples of what is chosen is told for a confidence of 90 % and for the measured quality as it is.
As the test has noise itself, drops above the limit by more than that (one-sided, 90 %) are told apart. The last lines
compare the optimism that is told with the one that the test shows, for the best of all candidates.
"""

from __future__ import annotations

import math
import statistics
import tempfile
from typing import NamedTuple

import torch
import typer
from sklearn.datasets import load_digits
from torch import Tensor, nn

import autoprune
from autoprune.front.choice import Choice
from autoprune.measure.quality import Quality, evaluate
from autoprune.records.paired import difference_error, quantile
from autoprune.task.data import TensorSplit
from benchmarks.reporting import print_machine, print_table, spread

#: Limit of the loss of accuracy, as in `choose --max-drop 0.01`.
LIMIT = 0.01
#: Rules: name -> confidence.
RULES = {"with 90 % confidence (default)": 0.9, "by the measured accuracy (--confidence 0.5)": 0.5}


class Picked(NamedTuple):
    """A choice of one rule: its drop on the test samples, the noise of that, its share of the cost."""

    drop: float
    noise: float
    share: float
    is_dense: bool


class Repetition(NamedTuple):
    """One study: the choices of the rules, the optimism told and shown, candidates on the fronts, and paired noise."""

    picked: dict[str, Picked]
    told: float
    shown: float
    members: int
    strict: int
    correlation: float


def main(repetitions: int = 20, samples: int = 360, trials: int = 12) -> None:
    """Run the repetitions and print both rules beside each other."""
    torch.set_num_threads(1)
    print_machine()
    found = [repeat(seed, samples, trials) for seed in range(repetitions)]
    rows = []
    for rule in RULES:
        picked = [one.picked[rule] for one in found]
        kept = sum(one.drop <= LIMIT + 1e-9 for one in picked)
        clear = sum(one.drop > LIMIT + one.noise for one in picked)
        rows.append(
            [
                rule,
                f"{kept} of {len(picked)}",
                str(clear),
                spread([one.drop for one in picked], 4),
                spread([one.share for one in picked], 2),
                str(sum(one.is_dense for one in picked)),
            ]
        )
    columns = ("choice", "drop on test <= 0.01", "clearly above", "drop on test", "share of multiply-adds", "dense")
    print_table(f"max_drop {LIMIT:g} from {samples} search samples, {trials} candidates", columns, rows)
    told, shown = (statistics.fmean(values) for values in zip(*((one.told, one.shown) for one in found), strict=True))
    print(f"\noptimism of the best accuracy: told {told:.4f}, shown by the test {shown:.4f} (means)")
    members, strict = (spread(values, 0) for values in zip(*((one.members, one.strict) for one in found), strict=True))
    print(f"members of the front: {members}, of these not dominated at all: {strict}")
    paired = spread([one.correlation for one in found if math.isfinite(one.correlation)], 2)
    print(f"error of a difference to dense of candidates within {2 * LIMIT:g}, relative to dense's own: {paired}")


def repeat(seed: int, samples: int, trials: int) -> Repetition:
    """Run one study.

    Args:
        seed: Seed of the split, the dense model and the search.
        samples: Search samples.
        trials: Candidates.

    Returns:
        The choices of each rule, and what the test says of them.
    """
    parts = data(seed, samples)
    task = autoprune.prepare(
        autoprune.Task(
            model=trained(seed, *parts["train"]),
            example_inputs=parts["train"][0][:2],
            train=parts["train"],
            search=parts["search"],
            loss=nn.functional.cross_entropy,
            metrics=("accuracy",),
            quality="accuracy",
            batch_size=64,
        )
    )
    settings = autoprune.StudySettings(
        trials=trials,
        seed=seed,
        objectives=("quality", "multiply_adds"),
        recovery=autoprune.RecoverySettings(steps=60, learning_rate=0.05),
        search=autoprune.SearchSettings(min_budget=0.05, early_stopping="none"),
        measure=autoprune.MeasureSettings(latency_rounds=0),
    )
    with tempfile.TemporaryDirectory() as folder:
        study = autoprune.Study.create(task, settings, out=folder)
        front = study.run()
        split = TensorSplit(*parts["test"], batch_size=1024)
        test = {number: evaluate(task, study.rebuild(number), split) for number in _needed(front)}
    dense = front.dense
    assert dense is not None
    choices = {rule: front.choice(autoprune.Limits(max_drop=LIMIT), confidence=sure) for rule, sure in RULES.items()}
    best = front.choice(autoprune.Limits(), "quality", 0.5)
    ahead = best.record.search.quality - dense.search.quality
    shown = ahead - (test[best.record.number].value - test[dense.number].value)
    others = [one for one in front.complete if one is not dense and abs(front.gain(one)) <= 2 * LIMIT]
    ratios = [difference_error(one.search, dense.search) / dense.search.quality_error for one in others]
    return Repetition(
        picked={rule: _picked(choice, front, test) for rule, choice in choices.items()},
        told=best.optimism or 0.0,
        shown=shown,
        members=len(front.members),
        strict=len(front.strict),
        correlation=statistics.median(ratios) if ratios else math.nan,
    )


def _needed(front: autoprune.Front) -> set[int]:
    return {0, *(record.number for record in front.records if record.selectable)}


def _picked(choice: Choice, front: autoprune.Front, test: dict[int, Quality]) -> Picked:
    own, dense = test[choice.record.number], test[0]
    apart = math.dist(own.deviations, dense.deviations)
    return Picked(dense.value - own.value, quantile() * apart, front.share(choice.record), choice.record.number == 0)


def data(seed: int, samples: int) -> dict[str, tuple[Tensor, Tensor]]:
    """Split digits, and add noise to each scan.

    Args:
        seed: Seed of the split and the noise.
        samples: Search samples.

    Returns:
        Name of a split -> inputs [N, 64] and classes.
    """
    digits = load_digits()
    images = torch.tensor(digits.images, dtype=torch.float32) / 16
    targets = torch.tensor(digits.target, dtype=torch.int64)
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(images), generator=generator)
    ends = {"train": (0, 400, 1), "search": (400, 400 + samples, 1), "test": (400 + samples, len(images), 4)}
    found = {}
    for name, (start, end, times) in ends.items():
        chosen = order[start:end].repeat(times)
        noisy = images[chosen] + 0.2 * torch.randn((len(chosen), 8, 8), generator=generator)
        found[name] = (noisy.flatten(1), targets[chosen])
    return found


def trained(seed: int, images: Tensor, targets: Tensor) -> nn.Module:
    """Train a perceptron.

    Args:
        seed: Seed of the weights and the order.
        images: Inputs [N, 64].
        targets: Classes [N].

    Returns:
        The model, in eval mode.
    """
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=1e-2)
    for _ in range(60):
        for index in torch.randperm(len(images)).split(50):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(images[index]), targets[index]).backward()
            optimizer.step()
    return model.eval()


if __name__ == "__main__":
    typer.run(main)
