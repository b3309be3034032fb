"""What cannot work gives one clear message and exit code 2, and nothing is written."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from autoprune.errors import ConfigurationError
from autoprune.task.trained import assert_trained
from tests.end_to_end.script import Outcome, command, write
from tests.folders import files
from tests.tasks import image_task

#: A line put into task() of the script -> what the message must hold.
TASKS = {
    "model on another device": (
        "arguments['model'] = arguments['model'].to('meta')",
        ["the model must lie on the task's device 'cpu'", "parameters on meta", "model.to(device)"],
    ),
    "untrained model": ("arguments['model'] = model()", ["the dense model's accuracy must", "Train the model first"]),
    "unknown metric": (
        "arguments['metrics'] = ('acuracy',); arguments['quality'] = 'acuracy'",
        ["a metric must be one of", "accuracy", "got 'acuracy'. Did you mean 'accuracy'?"],
    ),
    "quality that is no metric": (
        "arguments['quality'] = 'f1'",
        ["quality must be one of the metrics accuracy, recall, but got 'f1'"],
    ),
    "metric of another kind": ("arguments['metrics'] = ('accuracy', 'mse')", ["metric 'mse' must suit multiclass"]),
    "metric that has to be fitted first": (
        "arguments['metrics'] = {'accuracy': unfitted()}",
        ["metric 'accuracy' must be finite after one batch, but got nan", "needs other input first"],
    ),
    "empty train": (
        "arguments['train'] = (torch.empty(0, 1, 8, 8), torch.empty(0, dtype=torch.int64))",
        ["train: a split must hold at least one batch, but got none"],
    ),
    "empty test": ("arguments['test'] = []", ["test: a split must hold at least one batch, but got none"]),
    "empty search": ("arguments['search'] = []", ["search: a split must hold at least one batch, but got none"]),
    "device that is not there": ("arguments['device'] = 'cuda:99'", ["device must", "cuda:99"]),
    "model that does not fit its inputs": (
        "arguments['example_inputs'] = torch.zeros(2, 3, 8, 8)",
        ["the model on example_inputs must run, but got RuntimeError"],
    ),
    "task that raises": ("raise OSError('no such disk')", ["no such disk", "task()"]),
    "task that leaves": ("raise SystemExit(0)", ["task() in", "must run, but got SystemExit: 0"]),
    "loss that leaves": (
        "arguments['loss'] = lambda outputs, targets: exit()",
        ["loss on train must run, but got SystemExit"],
    ),
    "task that gives something else": ("return 3", ["task() in", "must return an autoprune.Task, but got int"]),
}
#: A whole script -> what the message must hold.
SCRIPTS = {
    "without task": ("import autoprune\n", ["must define task() -> autoprune.Task, but got no function task"]),
    "with a task that is none": ("task = 3\n", ["must define task() -> autoprune.Task"]),
    "that raises": ("1 / 0\n", ["must import, but got ZeroDivisionError"]),
    "that leaves": ("raise SystemExit('no [/x] arguments')\n", ["must import, but got SystemExit: no [/x] arguments"]),
    "that does not parse": ("def task(:\n", ["must import, but got SyntaxError"]),
    "with settings of another kind": (
        "settings = {'trials': 3}\ndef task():\n    return None\n",
        ["settings in", "must be an autoprune.StudySettings, but got dict"],
    ),
    "with settings that cannot work": (
        "import autoprune\nsettings = autoprune.StudySettings(trials=0)\n",
        ["trials must be an integer >= 1, but got 0"],
    ),
}
NUMBERS = {
    ("--trials", "0"): "--trials must be >= 1, but got 0.",
    ("--trials", "-3"): "--trials must be >= 1, but got -3.",
    ("--seconds", "-1"): "--seconds must be > 0, but got -1.0.",
    ("--seconds", "0"): "--seconds must be > 0, but got 0.0.",
    ("--seconds", "nan"): "seconds must be > 0, or None, but got nan.",
    ("--seed", "-1"): "--seed must be >= 0, but got -1.",
}


def refused(answer: Outcome, *parts: str) -> None:
    """Exit code 2 and one message on standard error that holds all the parts."""
    assert answer.code == 2, answer.text
    assert answer.out == ""
    assert "Traceback" not in answer.err
    for part in parts:
        assert part in answer.sentence, answer.sentence


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A script and its run folder, two trials in."""
    folder = tmp_path_factory.mktemp("finished")
    script = write(folder)
    assert command("run", script, "--out", folder / "out", "--trials", 2).code == 0
    return script, folder / "out"


@pytest.mark.parametrize("case", TASKS)
def test_a_task_that_can_not_work(case: str, tmp_path: Path) -> None:
    change, parts = TASKS[case]
    script = write(tmp_path, change=change)
    refused(command("run", script, "--out", tmp_path / "out"), *parts)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("case", SCRIPTS)
def test_a_script_that_can_not_work(case: str, tmp_path: Path) -> None:
    text, parts = SCRIPTS[case]
    (tmp_path / "study.py").write_text(text)
    for name, extra in (("run", ["--out", tmp_path / "out"]), ("explain", [])):
        refused(command(name, tmp_path / "study.py", *extra), *parts)
    assert list(files(tmp_path)) == ["study.py"]
    assert not (tmp_path / "out").exists()


class Guess(nn.Module):
    """Answers that depend on the image and have nothing to do with its class."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.direction = nn.Parameter(1e4 * torch.randn(64, 4, generator=torch.Generator().manual_seed(seed)))

    def forward(self, x: Tensor) -> Tensor:
        return torch.sin(x.flatten(1) @ self.direction)


def test_a_model_that_guesses_rarely_gets_through() -> None:
    """Half of all models that know nothing are a little better than chance on a few samples; luck is no training."""
    refusals = 0
    for seed in range(20):
        guessing = image_task(model=Guess(seed).eval(), test=None)
        try:
            assert_trained(guessing)
        except ConfigurationError:
            refusals += 1
    assert refusals >= 17


@pytest.mark.parametrize("option", NUMBERS, ids=" ".join)
def test_numbers_that_make_no_sense(option: tuple[str, str], tmp_path: Path) -> None:
    script = write(tmp_path, change="raise AssertionError('the script must not even be asked')")
    refused(command("run", script, "--out", tmp_path / "out", *option), NUMBERS[option])
    assert not (tmp_path / "out").exists()


def test_all_faults_of_the_command_line_at_once(tmp_path: Path) -> None:
    script = write(tmp_path)
    answer = command("run", script, "--out", tmp_path / "out", "--trials", 0, "--seconds", -1, "--seed", -1)
    refused(answer, "3 faults in the command line:", "--trials", "--seconds", "--seed")


def test_all_faults_of_a_task_at_once(tmp_path: Path) -> None:
    change = "arguments['train'] = []; arguments['test'] = []; arguments['batch_size'] = 0"
    answer = command("run", write(tmp_path, change=change), "--out", tmp_path / "out")
    refused(answer, "3 faults in the task:", "train: ", "test: ", "batch_size must be an integer >= 1")


@pytest.mark.parametrize("kind", ["missing", "folder", "no python"])
def test_a_script_that_is_not_there(kind: str, tmp_path: Path) -> None:
    script = tmp_path / "study.py"
    if kind == "folder":
        script.mkdir()
    elif kind == "no python":
        script = tmp_path / "study.txt"
        script.write_text("task = None\n")
    refused(command("run", script, "--out", tmp_path / "out"), "a study script must be a Python file", str(script.name))
    refused(command("explain", script), "a study script must be a Python file")
    assert not (tmp_path / "out").exists()


def test_the_folder_of_a_study_script_names_the_script(tmp_path: Path) -> None:
    script = tmp_path / "study.py"
    script.write_text("", encoding="utf-8")
    refused(command("explain", tmp_path), "a study script must be a Python file", f"Did you mean {script}?")


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        ("arguments['quality'] = 'recall'", "quality"),
        ("arguments['metrics'] = ('accuracy',)", "metrics"),
        ("arguments['model'] = nn.Sequential(trained(), nn.ReLU(), nn.Linear(4, 4))", "structure"),
        ("arguments['model'][0].weight.data.mul_(1.01)", "weights"),
    ],
    ids=["quality", "metrics", "structure", "weights"],
)
def test_out_with_another_study(change: str, difference: str, finished: tuple[Path, Path], tmp_path: Path) -> None:
    _, out = finished
    before = files(out)
    script = write(tmp_path, change=f"{change}; arguments['require_trained'] = False")
    answer = command("run", script, "--out", out)
    refused(answer, "the output folder must be new or hold this very study", difference, "Name another --out")
    assert files(out) == before


def test_out_with_another_seed(finished: tuple[Path, Path]) -> None:
    script, out = finished
    before = files(out)
    refused(command("run", script, "--out", out, "--seed", 1), "other seed", str(out))
    assert files(out) == before


def test_out_with_foreign_files(tmp_path: Path) -> None:
    out = tmp_path / "documents"
    out.mkdir()
    (out / "letter.txt").write_text("dear")
    refused(command("run", write(tmp_path), "--out", out), "be new, empty or hold this study", str(out))
    assert files(out) == {"letter.txt": b"dear"}


def test_out_that_is_a_file(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.write_text("dear")
    refused(command("run", write(tmp_path), "--out", out), "the output folder must be a folder", str(out))
    assert out.read_text() == "dear"


def test_an_empty_out_is_fine(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    assert command("run", write(tmp_path), "--out", tmp_path / "out", "--trials", 1).code == 0


@pytest.mark.parametrize("name", ["front", "choose", "report", "export"])
def test_no_study_in_the_folder(name: str, tmp_path: Path) -> None:
    extra = ["--candidate", "0", "--to", tmp_path / "m.safetensors"] if name == "export" else []
    for folder in (tmp_path / "nowhere", tmp_path):
        before = files(tmp_path)
        refused(command(name, folder, *extra), "a run folder must hold study.json", str(folder))
        assert files(tmp_path) == before
    assert not (tmp_path / "nowhere").exists()


def test_an_unknown_candidate(finished: tuple[Path, Path], tmp_path: Path) -> None:
    answer = command("export", finished[1], "--candidate", 99, "--to", tmp_path / "m.safetensors")
    refused(answer, "a candidate must be a finished trial (front: ", "but got 99")
    assert not files(tmp_path)


def test_an_unknown_format(finished: tuple[Path, Path], tmp_path: Path) -> None:
    answer = command("export", finished[1], "--candidate", 0, "--format", "onx", "--to", tmp_path / "m.onnx")
    refused(answer, "--format must be one of onnx, safetensors, sparse, torch_export, but got 'onx'")
    # Said before the folder is looked at.
    answer = command("export", tmp_path / "nothing", "--candidate", 0, "--format", "spars", "--to", tmp_path / "m")
    refused(answer, "but got 'spars'. Did you mean 'sparse'?")
    assert not files(tmp_path)


def test_another_ending(finished: tuple[Path, Path], tmp_path: Path) -> None:
    answer = command("export", finished[1], "--candidate", 0, "--to", tmp_path / "m.bin")
    refused(answer, "--to must end in .safetensors, but got")
    assert not files(tmp_path)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("study.json", "{"),
        ("study.json", '{"version": 99}'),
        ("study.json", '{"version": 1}'),
        ("study.json", "[]"),
        ("candidates/00001/candidate.json", "{"),
        ("candidates/00001/candidate.json", "{}"),
        ("candidates/00001/candidate.json", "[]"),
        ("candidates/00001/test.json", "{"),
        ("candidates/00001/test.json", "{}"),
    ],
)
def test_a_file_of_the_run_that_is_broken(name: str, text: str, finished: tuple[Path, Path], tmp_path: Path) -> None:
    """Exit code 2, and a message that names the file."""
    out = tmp_path / "out"
    shutil.copytree(finished[1], out)
    (out / name).write_text(text)
    answer = command("front", out)
    assert answer.code == 2, answer.text
    assert "Traceback" not in answer.err
    assert name.rpartition("/")[2] in answer.sentence or "version" in answer.sentence
    assert answer.out == ""


def test_a_front_without_candidates(finished: tuple[Path, Path], tmp_path: Path) -> None:
    """A run that was stopped in its scan."""
    out = tmp_path / "out"
    shutil.copytree(finished[1], out)
    shutil.rmtree(out / "candidates")
    assert command("front", out).code == 0
    assert json.loads(command("front", out, "--json").out) == []
    refused(command("choose", out), "the front must hold a candidate, but got none")
    refused(command("choose", out, "--knee"), "the front must hold a candidate, but got none")
    assert command("report", out).code == 0


@pytest.mark.parametrize("out", ["/proc/here", "x" * 300], ids=["read-only", "too long"])
def test_an_out_that_can_not_be_written(out: str, tmp_path: Path) -> None:
    answer = command("run", write(tmp_path), "--out", out)
    assert answer.code == 2, answer.text
    assert "Traceback" not in answer.err
    assert "written" in answer.sentence
