"""What a study script and the command line say together: limits, and a sampler of the user's own."""

from __future__ import annotations

from pathlib import Path

import pytest

import autoprune
from autoprune.cli.arguments import read_limits
from autoprune.errors import ConfigurationError, UnknownNameError
from autoprune.search.settings import UNIFORM_POINTS
from autoprune.study.script import load_script, make_sampler
from tests.end_to_end.script import command, write
from tests.unit.study.small import journal_study

SAMPLER = """
import optuna


class Noted(optuna.samplers.RandomSampler):
    def sample_independent(self, study, trial, name, distribution):
        study.set_user_attr("noted", seeds[-1])
        return super().sample_independent(study, trial, name, distribution)


seeds = []


def sampler(seed):
    seeds.append(seed)
    return Noted(seed=seed)
"""


def appended(folder: Path, text: str) -> Path:
    path = write(folder)
    path.write_text(path.read_text().replace("settings = autoprune", f"{text}\n\nsettings = autoprune"))
    return path


def test_limits_on_the_command_line_hold_in_the_search_and_in_the_choice(tmp_path: Path) -> None:
    script, out = write(tmp_path), tmp_path / "out"
    answer = command(
        "run", script, "--out", out, "--trials", 8, "--limit", "max_size_share=0.5", "--limit", "max_drop=1"
    )
    assert answer.code == 0, answer.text
    study = autoprune.Study.open(out)
    assert study.settings.limits == autoprune.Limits(max_size_share=0.5, max_drop=1.0)
    dense = study.records[0].search.size_bytes
    assert all(r.search.size_bytes <= 0.5 * dense for r in study.records if r.origin == "sampled")
    number = int(command("choose", out, "--by", "quality", "--limit", "max_multiply_adds_share=0.4").out)
    front = study.front()
    assert front.get(number) == front.choose(autoprune.Limits(max_multiply_adds_share=0.4), "quality")
    none = command("choose", out, "--by", "quality", "--limit", "max_multiply_adds_share=1e-9")
    assert none.code == 2
    assert "max_multiply_adds_share 1e-09" in none.sentence


def test_wrong_limits_are_named_before_anything_runs(tmp_path: Path) -> None:
    script = write(tmp_path, change="raise RuntimeError('imported')")
    for given, message in (
        ("weight=1", "max_size_share"),
        ("max_drop", "a name and a number"),
        ("max_drop=much", "a name and a number"),
        ("max_size_share=0", "> 0"),
    ):
        answer = command("run", script, "--out", tmp_path / "out", "--limit", given)
        assert answer.code == 2
        assert message in answer.sentence
    assert not (tmp_path / "out").exists()
    with pytest.raises(ConfigurationError, match="given once"):
        read_limits(["max_drop=1", "max_drop=2"])
    with pytest.raises(UnknownNameError, match="max_latency_ms"):
        read_limits(["drop=1"])


def test_a_script_may_bring_its_sampler_made_anew_for_each_seed(tmp_path: Path) -> None:
    script = appended(tmp_path, SAMPLER)
    answer = command("run", script, "--out", tmp_path / "out", "--trials", 6, "--seeds", 2, "--seed", 4)
    assert answer.code == 0, answer.text
    for seed in (4, 5):
        study = autoprune.Study.open(tmp_path / "out" / f"seed-{seed}")
        assert journal_study(study.folder.path).user_attrs["noted"] == seed
        assert len(study.records) == 6


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sampler = 'tpe'", "sampler(seed) that returns an Optuna sampler"),
        ("def sampler(seed):\n    return 'tpe'", "return an Optuna sampler, but got str"),
        ("def sampler():\n    return None", "sampler(0) in"),
    ],
)
def test_what_is_no_sampler(text: str, message: str, tmp_path: Path) -> None:
    answer = command("run", appended(tmp_path, text), "--out", tmp_path / "out", "--trials", 2)
    assert answer.code == 2
    assert message in answer.sentence


def test_without_a_sampler_there_is_none(tmp_path: Path) -> None:
    assert make_sampler(tmp_path, None, 0) is None


def test_a_uniform_sweep_is_one_option_away(tmp_path: Path) -> None:
    script, out = write(tmp_path), tmp_path / "out"
    assert command("run", script, "--out", out, "--baseline", "uniform", "--trials", 4).code == 0
    study = autoprune.Study.open(out)
    assert study.settings.search.uniform_points == UNIFORM_POINTS == 8
    assert [record.origin for record in study.records] == ["dense", "solved", "uniform", "uniform"]
    assert [record.parent for record in study.records[2:]] == [0, 2], "no part of the baseline starts from the search"
    assert "Against the uniform sweep" in (out / "report.html").read_text()


def test_fields_of_the_settings_are_set_on_the_command_line(tmp_path: Path) -> None:
    found = load_script(write(tmp_path), {"trials": 3}, ["recovery.steps=7", "structure.kinds=channels", "trials=9"])
    assert found.settings.recovery.steps == 7
    assert found.settings.structure.kinds == ("channels",)
    assert found.settings.trials == 3, "an option of its own says more"
    refused = command("explain", write(tmp_path), "--set", "steps=7")
    assert refused.code == 2
    assert "Set recovery.steps." in refused.text


def test_a_baseline_that_there_is_not_is_named_before_anything_runs(tmp_path: Path) -> None:
    script = write(tmp_path, change="raise RuntimeError('imported')")
    answer = command("run", script, "--out", tmp_path / "out", "--baseline", "random")
    assert answer.code == 2
    assert "--baseline must be one of uniform, but got 'random'" in answer.sentence
    assert not (tmp_path / "out").exists()
