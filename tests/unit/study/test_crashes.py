"""Crashes of one trial, however odd what was raised: stored, told, and never the end of the run."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import torch
from optuna.samplers import RandomSampler
from optuna.trial import TrialState

import autoprune
from autoprune.errors import AutopruneError
from tests.slow import slow
from tests.tasks import flat_task
from tests.unit.study.small import Switch, journal_trials, settings, space

#: Three trials: dense and two uniform, of which one crashes and one takes its place.
FEW = {"trials": 3, "uniform_points": 3, "solved_points": 0, "space": space(scan=False)}


class SilentError(Exception):
    """Its text cannot be had."""

    def __str__(self) -> str:
        raise RuntimeError("not even this")


class BailingError(Exception):
    """Asking for its text leaves the process."""

    def __str__(self) -> str:
        raise SystemExit(0)


CRASHES: dict[str, tuple[BaseException, str]] = {
    "markup": (ValueError("[/x] [bold]loud[/bold] [link=x]"), "ValueError: [/x] [bold]loud[/bold] [link=x]"),
    "surrogates": (ValueError("caf\ud800\udfff"), r"ValueError: caf\ud800\udfff"),
    "10 MB": (ValueError("x" * 10_000_000), "ValueError: xxx"),
    "escapes": (ValueError("\x1b[2J\x1b]0;title\x07gone"), "ValueError: gone"),
    "no text": (SilentError(), "SilentError: (its message cannot be read"),
    "a text that exits": (BailingError(), "BailingError: (its message cannot be read"),
    "sys.exit": (SystemExit(0), "SystemExit: 0"),
    "quit without a code": (SystemExit(), "SystemExit"),
    "another base": (asyncio.CancelledError("stop"), "CancelledError: stop"),
}


#: Others of their kind run on each commit.
ALIKE = ("surrogates", "escapes", "no text", "quit without a code")


@pytest.fixture(scope="module")
def switch() -> Switch:
    return Switch()


@pytest.fixture(scope="module")
def task(switch: Switch) -> autoprune.PreparedTask:
    return flat_task(loss=switch, test=None)


@pytest.mark.parametrize("name", [slow(name) if name in ALIKE else name for name in CRASHES])
def test_any_crash_of_a_trial_is_stored_and_the_run_goes_on(
    name: str, switch: Switch, task: autoprune.PreparedTask, tmp_path: Path
) -> None:
    error, message = CRASHES[name]
    study, said = autoprune.Study.create(task, settings(**FEW), out=tmp_path / "run"), []

    def crash_the_third(progress: autoprune.Progress) -> None:
        said.extend([progress.failed] if progress.failed else [])
        switch.error = error if progress.done == 2 and not said else None

    study.run(on_progress=crash_the_third)
    assert len(study.records) == 3
    assert len(said) == 1
    assert said[0].startswith(message)
    assert len(said[0]) <= 2000
    failed = [trial for trial in journal_trials(tmp_path / "run") if trial.state == TrialState.FAIL]
    assert [trial.user_attrs["error"] for trial in failed] == said
    stored = (tmp_path / "run" / "failures" / f"{failed[0].number:05d}.txt").read_bytes()
    assert b"Traceback" in stored
    assert len(stored) < 500_000
    stored.decode()  # whatever was raised, the file is UTF-8


def test_the_same_from_the_sampler_is_one_error(task: autoprune.PreparedTask, tmp_path: Path) -> None:
    class Leaving(RandomSampler):
        def sample_independent(self, *arguments: object) -> object:
            raise SystemExit(0)

    study = autoprune.Study.create(task, settings(**FEW), out=tmp_path / "run")
    with pytest.raises(AutopruneError, match="The sampler Leaving proposed no trial: SystemExit: 0"):
        study.run(trials=9, sampler=Leaving(seed=0))
    assert len(study.records) == 4, "the warm starts"


def test_what_a_trial_leaves_behind_in_the_process_does_not_hurt_the_next(tmp_path: Path) -> None:
    """Threads of torch, the working directory: settings of the process that the user's code may change."""
    seen: list[int] = []

    class Meddling(Switch):
        def __call__(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
            if outputs.requires_grad:
                seen.append(torch.get_num_threads())
                # After the last of three steps: two threads are slow on a machine that is busy.
                torch.set_num_threads(2 if len(seen) % 3 == 0 else 1)
            return super().__call__(outputs, targets)

    study = autoprune.Study.create(flat_task(loss=Meddling(), test=None), settings(**FEW), out=tmp_path / "run")
    before = torch.get_num_threads()
    seen.clear()
    study.run()
    assert seen == [1] * 6, "each trial begins with the number that the settings say"
    assert torch.get_num_threads() == before


def test_a_trial_that_changes_the_working_directory_moves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "start").mkdir()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "start")

    class Wandering(Switch):
        def __call__(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
            if running:
                monkeypatch.chdir(tmp_path / "elsewhere")
            return super().__call__(outputs, targets)

    loss, running = Wandering(), False
    study = autoprune.Study.create(flat_task(loss=loss, test=None), settings(**FEW), out="run")

    def crash(progress: autoprune.Progress) -> None:
        loss.error = ValueError("once") if progress.done == 2 and not progress.failed else None

    running = True
    study.run(on_progress=crash)
    assert Path.cwd() == tmp_path / "elsewhere"
    assert len(study.records) == 3
    assert list((tmp_path / "elsewhere").iterdir()) == []
    assert len(list((tmp_path / "start" / "run" / "candidates").iterdir())) == 3
    assert len(list((tmp_path / "start" / "run" / "failures").iterdir())) == 1
    study.rebuild(study.records[-1].number)
