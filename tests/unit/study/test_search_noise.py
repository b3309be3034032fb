"""A search split that is too small for the limit of the loss is said before any work is done."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import autoprune
from autoprune.errors import AutopruneWarning
from autoprune.records.limits import Limits
from autoprune.study.search_noise import search_noise_note
from tests.settings import study_of


def answered(samples: int, share: float = 0.9) -> tuple[Tensor, Tensor]:
    """Scores that are right for exactly a share of the samples, and their classes."""
    targets = torch.arange(samples) % 2
    wrong = torch.arange(samples) % 10 >= round(10 * share)
    return nn.functional.one_hot(torch.where(wrong, 1 - targets, targets), 2).float(), targets


def task(samples: int, **changes: object) -> autoprune.PreparedTask:
    layer = nn.Linear(2, 2, bias=False)
    layer.weight.data = torch.eye(2)
    arguments: dict[str, object] = {
        "model": nn.Sequential(nn.Linear(2, 2), layer),
        "example_inputs": torch.zeros(2, 2),
        "train": answered(100),
        "search": answered(samples),
        "loss": nn.functional.cross_entropy,
        "metrics": ("accuracy",),
        "quality": "accuracy",
        "require_trained": False,
    }
    arguments["model"][0].weight.data = torch.eye(2)  # type: ignore[index]
    arguments["model"][0].bias.data.zero_()  # type: ignore[index]
    return autoprune.prepare(autoprune.Task(**{**arguments, **changes}))  # type: ignore[arg-type]


def test_it_says_what_the_split_tells_and_how_many_samples_would_do() -> None:
    """The accuracy is 0.9: the error is 0.3 / sqrt(n), and half of the limit is to be 1.28 errors."""
    said = search_noise_note(task(150), Limits(max_drop=0.01))
    tells = 1.2816 * 0.3 / math.sqrt(149)
    assert (
        f"150 search samples tell differences in accuracy of about {tells:.2g} (90% confidence), smaller ones" in said
    )
    assert "the limit of its loss is 0.01. Give about 6,000 search samples" in said


def test_more_samples_than_are_looked_at_count() -> None:
    said = search_noise_note(task(1000), Limits(max_drop=0.01))
    assert re.match(r"1,000 search samples tell differences in accuracy of about 0\.01[1-3] ", said)
    wanted = int(re.search(r"about ([\d,]+) search samples", said)[1].replace(",", ""))  # type: ignore[index]
    assert 4500 < wanted < 7500


@pytest.mark.parametrize(
    "limits", [Limits(), Limits(max_drop=0.05), Limits(max_size_share=0.5), Limits(min_quality=0.8)]
)
def test_nothing_is_said_where_the_split_suffices_or_no_loss_is_limited(limits: Limits) -> None:
    assert search_noise_note(task(400), limits) == ""


def test_a_share_of_the_quality_is_a_limit_too() -> None:
    assert "the limit of its loss is 0.009" in search_noise_note(task(400), Limits(max_drop_share=0.01))


def test_a_limit_of_nothing_can_not_be_told() -> None:
    assert "No number of samples tells that nothing is lost" in search_noise_note(task(400), Limits(max_drop=0.0))


def test_an_evaluation_of_the_user_has_no_known_error() -> None:
    own = task(400, search=None, metrics=(), evaluate=lambda model: {"accuracy": 0.9})
    assert search_noise_note(own, Limits(max_drop=0.01)) == ""


def test_a_study_warns_before_its_first_trial_and_explain_says_it(tmp_path: Path) -> None:
    settings = study_of(trials=1, objectives=("quality", "parameters"), limits=Limits(max_drop=0.01), latency_rounds=0)
    prepared, seen = task(400), []
    study = autoprune.Study.create(prepared, settings, out=tmp_path / "run")
    with pytest.warns(AutopruneWarning, match="400 search samples tell differences") as warned:
        study.run(on_progress=lambda progress: seen.append(len(warned)))
    assert min(seen) == 1
    assert any("400 search samples tell" in note for note in autoprune.explain(prepared, settings).notes)
    # The record of the dense model says the same.
    with pytest.warns(AutopruneWarning, match="400 search samples tell differences"):
        autoprune.Study.open(tmp_path / "run", prepared).run()
