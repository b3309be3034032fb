"""A run on the command line: what is said before, during and after it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from torch.utils.data import DataLoader, TensorDataset
from typer import Exit
from typer.testing import CliRunner

import autoprune
from autoprune.cli import following
from autoprune.cli.app import app
from autoprune.cli.output import report_errors
from autoprune.front.front import Front
from autoprune.front.run import Run
from autoprune.front.suggestion import USUAL_LIMITS
from autoprune.records.ending import Ending
from autoprune.records.limits import Limits
from autoprune.records.run_folder import RunFolder
from autoprune.study.progress import Progress, TimeEstimator
from tests.tasks import blobs, flat_task, image_task
from tests.unit.front.builders import dense, front_of, latency, measurement, problem_of, record
from tests.unit.study.small import settings, space


def trial(done: int, failed: str = "", stage: str = "trial", part: tuple[int, int] = (0, 0)) -> Progress:
    return Progress(
        stage=stage,
        done=done,
        target=9,
        front=front_of([]),
        elapsed_seconds=70.0,
        remaining_seconds=7300.0 if done else None,
        failed=failed,
        part=part,
    )


def said(steps: list[tuple[float, Progress]]) -> list[str]:
    """What is printed when each progress comes at its second."""
    printed: list[str] = []
    now = [0.0]
    lines = following.Lines(printed.append, clock=lambda: now[0])
    for second, progress in steps:
        now[0] = second
        lines(progress)
    lines.flush()
    return printed


def test_lines_come_every_few_seconds_and_the_last_one_always() -> None:
    printed = said([(number / 10, trial(number)) for number in range(1, 101)])
    assert [line.split(",")[0] for line in printed] == ["trial 1/9", "trial 51/9", "trial 100/9"]
    assert printed[0].endswith("1:10 elapsed, about 2 h 01 min left")


def test_no_older_line_follows_the_one_in_which_a_run_is_interrupted() -> None:
    printed: list[str] = []

    def say(line: str) -> None:
        printed.append(line.split(",", maxsplit=1)[0])
        if len(printed) == 2:
            raise KeyboardInterrupt

    now = [0.0]
    lines = following.Lines(say, clock=lambda: now[0])
    lines(trial(1))
    lines(trial(2))
    now[0] = 6.0
    with pytest.raises(KeyboardInterrupt):
        lines(trial(3))
    lines.flush()
    assert printed == ["trial 1/9", "trial 3/9"]


def test_failures_and_new_stages_are_printed_at_once() -> None:
    steps = [
        (0.0, trial(0, stage="scan", part=(0, 3))),
        (0.1, trial(0, stage="scan", part=(1, 3))),
        (0.2, trial(0, stage="scan", part=(3, 3))),
        (0.3, trial(1)),
        (0.4, trial(1, failed="ValueError: [/x]")),
        (0.5, trial(2)),
        (0.6, trial(2, stage="end")),
    ]
    assert [line.split(",")[0] for line in said(steps)] == [
        "sensitivity scan 0/3",
        "sensitivity scan 3/3",
        "trial 1/9",
        "a trial failed: ValueError: [/x] (traceback under failures/ in the run folder)",
        "trial 2/9",
    ]


@pytest.mark.parametrize(
    ("stage", "kept"),
    [
        ("profile", "Finished trials are kept; nothing of the device profile is: the same command begins it anew."),
        ("scan", "Finished trials are kept; nothing of the sensitivity scan is: the same command begins it anew."),
        ("trial", "Finished trials are kept; the same command continues from here."),
    ],
)
def test_an_interrupted_run_says_what_it_keeps(
    stage: str, kept: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = autoprune.Study.create(flat_task(), settings(), out=tmp_path / "run")

    @report_errors
    def command() -> None:
        with following.live(study) as on_progress:
            on_progress(trial(1))
            on_progress(trial(1, stage=stage, part=(1, 3)))
            raise KeyboardInterrupt

    with pytest.raises(Exit) as ended:
        command()
    assert ended.value.exit_code == 130
    assert f"Interrupted. {kept}\n" in capsys.readouterr().err


def test_an_interrupted_device_profile_says_that_nothing_is_kept() -> None:
    with pytest.raises(KeyboardInterrupt, match="Nothing of the device profile is kept"), following.live_profile():
        raise KeyboardInterrupt


@pytest.mark.parametrize(("doubts", "sure"), [(("The machine was busy.",), " for certain"), ((), "")])
def test_the_dense_model_is_the_choice_for_want_of_a_number_that_can_be_trusted(
    doubts: tuple[str, ...], sure: str, capsys: pytest.CaptureFixture[str]
) -> None:
    small = record(1, measurement(0.9, 500, took=latency(0.5 if doubts else 1.5, doubts=doubts)))
    problem = problem_of(limits=Limits(max_latency_share=1.0))
    following.show_next(Front.of([dense(took=latency(1.0)), small], problem), Path("run"), Path("report.html"))
    assert f"No smaller candidate meets the limits{sure}: the choice is" in capsys.readouterr().out


def test_the_time_left_rests_on_trials_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("autoprune.study.progress.time.monotonic", lambda: now[0])
    pace = TimeEstimator(settings(trials=12))
    records = [dense()]
    now[0] = 1000.0  # the scan, and the dense model
    pace.begin(records)
    assert pace.remaining(records, 0) is None
    now[0] = 1006.0
    records += [record(1, measurement(0.8, 500)), record(2, measurement(0.7, 400))]
    assert pace.remaining(records, 0) == pytest.approx(9 * 3.0)
    assert pace.elapsed == 1006.0


def test_the_time_left_knows_other_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("autoprune.study.progress.time.monotonic", lambda: now[0])
    records = [record(1, measurement(0.8, 500), samples_trained=90)]
    for limits, expected in (({"samples": 300}, 2 * 2.0), ({"seconds": 5.0}, 3.0)):
        now[0] = 0.0
        pace = TimeEstimator(settings(trials=12, **limits))
        now[0] = 2.0
        assert pace.remaining(records, 100) == pytest.approx(expected)


def study_of(records: list[object], limits: autoprune.Limits | None = None) -> Front:
    return Front.of(records, problem_of(limits=limits))  # type: ignore[arg-type]


FRONT = [
    dense(0.90, 1000),
    record(1, measurement(0.899, 700)),
    record(2, measurement(0.88, 300)),
    record(3, measurement(0.50, 100)),
]


@pytest.mark.parametrize(
    ("limits", "number"),
    [(None, 1), (autoprune.Limits(max_drop=0.03), 2), (autoprune.Limits(max_multiply_adds=150), 3)],
)
def test_the_command_to_export_names_the_candidate_that_choose_prints(
    limits: autoprune.Limits | None, number: int, capsys: pytest.CaptureFixture[str]
) -> None:
    front = study_of(FRONT, limits)
    following.show_next(front, Path("runs/mine"), Path("runs/mine/report.html"))
    printed = capsys.readouterr().out
    assert ("autoprune choose runs/mine --limit max_drop_share=0.01\n" in printed) == (limits is None)
    assert re.findall(r"--candidate (\d+)", printed) == [str(number)]
    assert front.choose(limits or USUAL_LIMITS).number == number


@pytest.mark.parametrize(
    ("name", "pasted"), [("-x", "./-x"), ("it's $x", "'it'\"'\"'s $x'"), ("-a b", "'./-a b'"), ("plain", "plain")]
)
def test_the_commands_can_be_pasted(name: str, pasted: str, capsys: pytest.CaptureFixture[str]) -> None:
    following.show_next(study_of(FRONT), Path(name), Path("report.html"))
    printed = capsys.readouterr().out
    assert f"autoprune choose {pasted} " in printed
    assert f"autoprune export {pasted} " in printed


def test_where_no_candidate_keeps_the_limits_the_commands_give_what_can_be_had(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, limits = RunFolder(tmp_path), autoprune.Limits(max_multiply_adds_share=0.5, max_drop=0.02)
    stored = {"objectives": ["quality", "multiply_adds"], "limits": dict(limits.given)}
    folder.write_study({"name": "mine", "quality": "accuracy", "higher_is_better": True, "settings": stored})
    small, good = (record(1, measurement(0.5, 300), kept={}), record(3, measurement(0.89, 800), kept={}))
    for one in (dense(), small, good):
        folder.write_candidate(one, b"")
    following.show_next(Run.open(tmp_path).front(), tmp_path, tmp_path / "report.html")
    lines = capsys.readouterr().out.splitlines()
    commands = [line.removeprefix("Choose: autoprune ") for line in lines if line.startswith("Choose: ")]
    told = [CliRunner().invoke(app, command.split()) for command in commands]
    assert [one.stdout.strip() for one in told] == ["1", "3"]


def test_a_choice_of_the_dense_model_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    front = study_of([FRONT[0], FRONT[3]])
    following.show_next(front, Path("runs/mine"), Path("report.html"))
    assert "the choice is the dense model itself" in capsys.readouterr().out


def test_why_a_run_ended_early_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    front = study_of(FRONT)
    early = Ending(reason="samples", done=4, target=9, detail="1,000")
    following.show_next(front, Path("runs/mine"), Path("report.html"), early)
    assert early.sentence in capsys.readouterr().out
    following.show_ending(Ending(reason="trials", done=9, target=9))
    following.show_ending(None)
    assert capsys.readouterr().out == ""


def test_before_work_a_run_says_what_it_will_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    chosen = settings(
        trials=12,
        polish=0.5,
        samples=10**6,
        seconds=600.0,
        limits=autoprune.Limits(max_drop=0.02),
        space=space(steps=(2, 4)),
    )
    study = autoprune.Study.create(flat_task(), chosen, out=tmp_path / "run", name="patterns")
    following.show_start(study, Path("runs/patterns"), study.settings)
    text = " ".join(capsys.readouterr().err.split())
    groups = len(study.context.topology.groups) if study.context is not None else 0
    for words in (
        "patterns: 12 trials; written to runs/patterns",
        "The task: ",
        f"First a sensitivity scan: 4 shares of each of {groups} groups on 100 samples",
        "Trials: the dense model, a chain of 1 solved allocations, a uniform sweep of 3 points; then proposals by tpe",
        "Each trial: 2 to 4 steps of 50 samples, then quality on",
        "Limits of the search: max_drop 0.02. It ends after 600 s or 1,000,000 samples at the latest.",
        "The duration is estimated after the first trials. Control-C lets running trials finish, and a",
    ):
        assert words in text
    assert not (tmp_path / "run" / "candidates").exists(), "nothing has begun"


@pytest.mark.parametrize(
    ("trials", "solved", "uniform", "said"),
    [
        (4, 8, 0, "Trials: the dense model, a chain of 3 solved allocations. "),
        (1, 8, 0, "Trials: the dense model. "),
        (9, 8, 8, "a chain of 8 solved allocations. The whole uniform sweep needs 17 trials. "),
        (12, 8, 8, "a chain of 8 solved allocations, a uniform sweep of 3 points. The whole uniform sweep needs 17"),
        (17, 8, 8, "a chain of 8 solved allocations, a uniform sweep of 8 points. "),
        (18, 8, 8, "a uniform sweep of 8 points; then proposals by tpe"),
    ],
)
def test_what_is_announced_is_what_the_trials_suffice_for(
    trials: int, solved: int, uniform: int, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = settings(trials=trials, solved_points=solved, uniform_points=uniform, space=space())
    study = autoprune.Study.create(flat_task(), chosen, out=tmp_path / "run")
    following.show_start(study, Path("run"), study.settings)
    assert said in " ".join(capsys.readouterr().err.split())


def test_a_loader_of_the_users_says_the_size_of_a_step(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images, targets = blobs(60, seed=0)
    loader = DataLoader(TensorDataset(images, targets), batch_size=12)
    task = image_task(train=loader, batch_size=50)
    study = autoprune.Study.create(task, settings(space=space(steps=3)), out=tmp_path / "run")
    following.show_start(study, Path("run"), study.settings)
    assert "Each trial: 3 steps of 12 samples" in " ".join(capsys.readouterr().err.split())


def test_a_run_that_goes_on_says_about_how_long(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    chosen = settings(trials=2, uniform_points=2, solved_points=0, space=space(scan=False))
    study = autoprune.Study.create(flat_task(test=None), chosen, out=tmp_path / "run")
    study.run()
    following.show_start(study, Path("run"), settings(trials=4, space=space(scan=False)))
    text = " ".join(capsys.readouterr().err.split())
    assert "4 trials, 2 of them finished" in text
    assert re.search(r"The remaining 2 take about \d+:\d\d, judging by the finished ones", text)
    assert "No sensitivity scan." in text


@pytest.mark.parametrize(
    ("workers", "said"),
    [
        ({}, ""),
        ({"count": 1}, "Trials run in one process of this machine; their logs lie in logs/ in the run folder."),
        ({"count": 4}, "Trials run in 4 processes of this machine; their logs lie in logs/ in the run folder."),
        ({"ray_address": "auto"}, "Trials run on the Ray cluster auto, as many at a time as it has room for."),
        ({"ray_address": "10.0.0.5:6379", "count": 8}, "Trials run on the Ray cluster 10.0.0.5:6379, 8 at a time."),
    ],
)
def test_the_start_says_where_trials_run(
    workers: dict[str, object], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = settings().changed({f"workers.{name}": value for name, value in workers.items()})
    study = autoprune.Study.create(flat_task(), chosen, out=tmp_path / "run")
    following.show_start(study, tmp_path, study.settings)
    told = " ".join(capsys.readouterr().err.split())
    assert said in told
    assert ("Trials run" in told) is bool(said)
