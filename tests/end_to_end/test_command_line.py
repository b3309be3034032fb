"""The command line on a study script, as a person uses it."""

from __future__ import annotations

import csv
import io
import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import autoprune
from autoprune.export.formats import EXPORT_FORMATS
from autoprune.measure.latency.onnx_file import onnx_outputs
from tests.end_to_end.script import QUICK, ROOT, USUAL, Outcome, command, environment, process, write
from tests.folders import files
from tests.settings import space_of, study_of
from tests.unit.study.small import comparable


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Outcome]:
    """The script, its run folder after eight trials, and what `run` said."""
    folder = tmp_path_factory.mktemp("patterns")
    script = write(folder, objectives=USUAL)
    out = folder / "runs" / "patterns"
    return script, out, command("run", script, "--out", out)


@pytest.fixture
def out(ran: tuple[Path, Path, Outcome]) -> Path:
    return ran[1]


def front(out: Path) -> autoprune.Front:
    return autoprune.Study.open(out).front()


def test_run_ends_with_the_front_and_says_where_to_go(ran: tuple[Path, Path, Outcome]) -> None:
    _, out, answer = ran
    assert answer.code == 0
    assert len(autoprune.Study.open(out).records) == 8
    for column in ("candidate", "origin", "accuracy (search)", "accuracy (test)", "parameters", "bytes"):
        assert column in answer.out
    for column in ("multiply-adds", "multiply-adds / dense", "latency (ms)", "latency / dense"):
        assert column in answer.out
    members = front(out).members
    rows = [line.split("│")[1].strip() for line in answer.out.splitlines() if line.startswith("│")]
    dense = front(out).dense
    assert dense is not None
    expected = [str(record.number) for record in members]
    assert rows == (expected if dense in members else [str(dense.number), *expected])
    assert f"Report: {out / 'report.html'}" in answer.out
    assert f"autoprune choose {out} --limit max_drop_share=0.01" in answer.out
    assert f"autoprune export {out} --candidate " in answer.out


def test_run_shows_how_far_it_is(ran: tuple[Path, Path, Outcome]) -> None:
    _, _, answer = ran
    assert "sensitivity scan" in answer.err
    assert all(f"trial {number}/8" in answer.err for number in (1, 8)), "the first one, one every few seconds, the last"
    assert "test split" in answer.err


def test_the_commands_that_run_prints_work(ran: tuple[Path, Path, Outcome], tmp_path: Path) -> None:
    lines = [line for line in ran[2].out.splitlines() if line.startswith(("Choose: ", "Export: "))]
    choose, export = (line.split("autoprune ")[1].split() for line in lines)
    assert command(*choose).code == 0
    export[-1] = str(tmp_path / "model.safetensors")
    assert command(*export).code == 0


def test_run_again_loses_nothing_and_goes_on(tmp_path: Path) -> None:
    script, out = write(tmp_path), tmp_path / "out"
    assert command("run", script, "--out", out, "--trials", 4).code == 0
    before = {name: data for name, data in files(out).items() if name.startswith("candidates")}
    # Nothing to do: the same front again.
    again = command("run", script, "--out", out, "--trials", 4)
    assert again.code == 0
    assert {name: data for name, data in files(out).items() if name.startswith("candidates")} == before
    more = command("run", script, "--out", out, "--trials", 6)
    assert more.code == 0
    after = files(out)
    assert all(after[name] == data for name, data in before.items())
    numbers = [record.number for record in autoprune.Study.open(out).records]
    assert len(numbers) == 6, "numbers in between are of proposals that were answered from the record"
    assert numbers[:4] == [0, 1, 2, 3]
    assert "trial 6/6" in more.err
    assert not any(f"trial {number}/6" in more.err for number in range(1, 4))


def test_fewer_trials_than_there_are_is_no_error(ran: tuple[Path, Path, Outcome]) -> None:
    script, out, _ = ran

    def stored() -> dict[str, bytes]:
        found = files(out / "candidates")
        # Latencies that the machine was too busy for are measured again.
        return {name: content for name, content in found.items() if not name.endswith("latencies.json")}

    before = stored()
    assert command("run", script, "--out", out, "--trials", 3).code == 0
    assert stored() == before


def test_front_as_json(out: Path) -> None:
    answer = command("front", out, "--json")
    assert answer.code == 0
    rows, members = json.loads(answer.out), front(out).members
    assert [row["candidate"] for row in rows] == [record.number for record in members]
    for row, record in zip(rows, members, strict=True):
        assert row["search_accuracy"] == pytest.approx(record.search.quality, abs=1e-6)
        assert record.test is not None
        assert row["test_accuracy"] == pytest.approx(record.test.quality, abs=1e-6)
        assert row["parameters"] == record.search.parameters
        assert row["size_bytes"] == record.search.size_bytes
        assert row["multiply_adds"] == record.search.multiply_adds
        assert record.search.latency is not None
        ratio = 1.0 if record.origin == "dense" else record.search.latency.ratio
        assert row["latency_ratio"] == pytest.approx(ratio, rel=1e-6)


def test_front_as_csv(out: Path) -> None:
    answer = command("front", out, "--csv")
    assert answer.code == 0
    rows = list(csv.DictReader(io.StringIO(answer.out)))
    assert [int(row["candidate"]) for row in rows] == [record.number for record in front(out).members]
    assert [int(row["size_bytes"]) for row in rows] == [record.search.size_bytes for record in front(out).members]


def test_front_as_a_table(out: Path) -> None:
    answer = command("front", out)
    assert answer.code == 0
    for record in front(out).members:
        assert f"{record.search.parameters:,}" in answer.out
        assert f"{record.search.quality:.4f}" in answer.out


def test_front_in_two_formats_at_once(out: Path) -> None:
    answer = command("front", out, "--json", "--csv")
    assert answer.code == 2
    assert "the format must be --json or --csv, but got both." in answer.sentence


def test_choose_prints_the_number_alone(out: Path) -> None:
    """So that a script can use it; the row goes to standard error."""
    answer = command("choose", out)
    assert answer.code == 0
    cheapest = min(front(out).members, key=lambda record: (record.search.multiply_adds, -record.search.quality))
    assert answer.out == f"{cheapest.number}\n"
    assert f"{cheapest.search.parameters:,}" in answer.err


def test_choose_keeps_to_its_limits(out: Path) -> None:
    members, found = front(out).members, front(out)
    size = sorted(record.search.size_bytes for record in members)[len(members) // 2]
    chosen = int(command("choose", out, "--max-size-bytes", size, "--by", "quality").out)
    inside = [record for record in members if record.search.size_bytes <= size]
    assert found.get(chosen).search.quality == max(record.search.quality for record in inside)

    drop = 0.3
    chosen = int(command("choose", out, "--max-drop", drop, "--by", "size_bytes").out)
    inside = [record for record in members if -found.gain(record) <= drop]
    assert found.get(chosen).search.size_bytes == min(record.search.size_bytes for record in inside)

    slow = max(found.value(record, "latency_ms") for record in members)
    # Of 0.5, as on a busy machine all latencies are in doubt.
    assert command("choose", out, "--max-latency-ms", slow * 1.001, "--confidence", 0.5).code == 0


def test_choose_the_knee(out: Path) -> None:
    answer = command("choose", out, "--knee")
    assert answer.code == 0
    assert int(answer.out) == front(out).knee().number
    assert "The runner-up is candidate " in answer.err
    both = command("choose", out, "--knee", "--max-drop", 0.1)
    assert both.code == 2
    assert "a choice must be by limits or by --knee, but got both." in both.sentence


def test_choose_when_none_is_within(out: Path) -> None:
    answer = command("choose", out, "--max-size-bytes", 1)
    assert answer.code == 2
    assert answer.out == ""
    assert "a candidate must keep to max_size_bytes 1, but got none; the nearest is candidate" in answer.sentence
    smallest = min(front(out).members, key=lambda record: record.search.size_bytes)
    assert f"candidate {smallest.number} " in answer.sentence


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--max-drop", "-1"], "max_drop must be >= 0, but got -1.0."),
        (["--max-size-bytes", "0"], "max_size_bytes must be > 0, but got 0.0."),
        (["--by", "speed"], "--by must be one of"),
    ],
)
def test_choose_by_what_makes_no_sense(arguments: list[str], message: str, out: Path) -> None:
    answer = command("choose", out, *arguments)
    assert answer.code == 2
    assert answer.out == ""
    assert message in answer.sentence


def test_report_is_one_file_that_fetches_nothing(out: Path, tmp_path: Path) -> None:
    to = tmp_path / "deep" / "my report.html"
    answer = command("report", out, "--to", to)
    assert answer.code == 0
    assert answer.out.strip() == str(to)
    page = to.read_text()
    assert not re.search(r"<(script|link|img|iframe)[^>]+(src|href)\s*=\s*[\"']?(https?:)?//", page)
    assert page.count('data-figure="') >= 4
    for record in front(out).members:
        assert f"candidate {record.number}" in page
    again = command("report", out)
    assert again.out.strip() == str(out / "report.html")
    assert (out / "report.html").is_file()


@pytest.mark.parametrize("kind", EXPORT_FORMATS)
def test_export_gives_a_model_that_needs_no_study(kind: str, ran: tuple[Path, Path, Outcome], tmp_path: Path) -> None:
    script, out, _ = ran
    number, chosen = int(command("choose", out, "--knee").out), EXPORT_FORMATS[kind]
    to = tmp_path / f"model{chosen.ending}"
    options = ["--script", script] if chosen.needs_model else []
    answer = command("export", out, "--candidate", number, "--format", kind, "--to", to, *options)
    assert answer.code == 0
    written = [to] if chosen.needs_model else [to, to.with_suffix(".json")]
    assert answer.out.split() == [str(path) for path in written]
    namespace: dict[str, object] = {"__name__": "a_product"}
    exec(compile(script.read_text(), str(script), "exec"), namespace)
    make_model, make_data, make_task = (namespace[name] for name in ("model", "data", "task"))
    assert callable(make_model)
    assert callable(make_data)
    assert callable(make_task)
    images, _ = make_data(30, 3)
    images = images[: len(make_task().example_inputs)]
    torch.manual_seed(5)
    rebuilt = autoprune.Study.open(out, make_task()).rebuild(number)
    with torch.no_grad():
        if kind == "onnx":
            read = torch.from_numpy(onnx_outputs(to, [images.numpy()])[0])
            assert torch.allclose(read, rebuilt(images), atol=1e-4)
            return
        loaded = (
            torch.export.load(to).module()
            if kind == "torch_export"
            else autoprune.load_safetensors(make_model(), images[:4], to)
        )
        assert torch.equal(loaded(images), rebuilt(images))


def test_a_format_with_the_whole_model_asks_for_the_script(ran: tuple[Path, Path, Outcome], tmp_path: Path) -> None:
    answer = command("export", ran[1], "--candidate", 0, "--format", "torch_export", "--to", tmp_path / "m.pt2")
    assert answer.code != 0
    assert "--format torch_export must come with the study script, but got none" in answer.sentence


def test_explain_says_what_can_be_pruned_and_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = write(tmp_path / "patterns")
    monkeypatch.chdir(tmp_path)
    before = files(tmp_path)
    answer = command("explain", script)
    assert answer.code == 0
    assert re.match(r"The task: \d classes, logits; accuracy.* over labels 0 to \d", answer.out), answer.out
    for group in ("0", "3", "6"):
        assert re.search(rf" {group} *$", answer.out, re.MULTILINE), f"group {group}"
    assert "is part of the model's output" in answer.sentence
    assert "trained with sgd at a learning rate of 0.015; sgd suits a model that has BatchNorm" in answer.sentence
    for label in ("smallest", "middle", "largest", "100.0%"):
        assert label in answer.out
    assert files(tmp_path) == before
    assert not (tmp_path / "runs").exists()


def test_a_script_run_by_itself_is_the_same_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`python study.py --trials 3` and `autoprune run study.py --trials 3`, the default run folder included.

    Also where the first one changes the working directory on import: where it began is noted before.
    """
    monkeypatch.setenv("COLUMNS", "200")
    runs = []
    (tmp_path / "elsewhere").mkdir()
    for name in ("by_itself", "by_command"):
        folder = tmp_path / name / "patterns"
        script = write(folder)
        monkeypatch.chdir(folder)
        if name == "by_itself":
            moved = f"import autoprune\n\nos.chdir({str(tmp_path / 'elsewhere')!r})\n"
            script.write_text(script.read_text().replace("import autoprune\n", moved, 1))
            answer = process(["study.py", "--trials", 3], folder)
        else:
            answer = command("run", "study.py", "--trials", 3)
        assert answer.code == 0, answer.text
        runs.append((answer, folder / "runs" / "patterns"))
    assert list((tmp_path / "elsewhere").iterdir()) == []
    first, second = (autoprune.Study.open(out) for _, out in runs)
    assert len(first.records) == 3
    assert first.name == second.name == "patterns"
    assert comparable(first.records) == comparable(second.records)
    assert runs[0][0].out == runs[1][0].out
    assert files(runs[0][1])["study.json"] == files(runs[1][1])["study.json"]


def test_the_run_folder_is_named_after_the_script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = write(tmp_path / "anywhere", name="small_patterns.py")
    monkeypatch.chdir(tmp_path)
    assert command("run", script, "--trials", 1).code == 0
    assert (tmp_path / "runs" / "small_patterns" / "study.json").is_file()


def test_time_and_seed_on_the_command_line(tmp_path: Path) -> None:
    script = write(tmp_path)
    assert command("run", script, "--out", tmp_path / "out", "--seed", 5, "--seconds", 600, "--trials", 2).code == 0
    study = autoprune.Study.open(tmp_path / "out")
    assert (study.settings.seed, study.settings.seconds, len(study.records)) == (5, 600.0, 2)


def test_a_script_without_settings_has_the_default_ones(tmp_path: Path) -> None:
    script = write(tmp_path)
    text = script.read_text()
    script.write_text(text[: text.index("settings =")] + text[text.index("if __name__") :])
    assert command("run", script, "--out", tmp_path / "out", "--trials", 1).code == 0
    settings = autoprune.Study.open(tmp_path / "out").settings
    assert settings == study_of(trials=1)


def test_help_waits_for_nothing(tmp_path: Path) -> None:
    """Neither torch nor optuna is imported to say what the commands are."""
    for arguments in (["--help"], ["run", "--help"], ["export", "--help"]):
        script = (
            "import sys\n"
            "from autoprune.cli.app import app\n"
            "try:\n"
            f"    app({arguments!r})\n"
            "except SystemExit as end:\n"
            "    assert not end.code, end.code\n"
            "heavy = {'torch', 'optuna', 'numpy', 'pandas', 'plotly', 'torchmetrics'} & set(sys.modules)\n"
            "assert not heavy, heavy\n"
        )
        result = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, check=False, env=environment(), cwd=tmp_path
        )
        assert result.returncode == 0, result.stderr
        assert "Usage" in result.stdout
    assert not list(tmp_path.iterdir())


def test_every_command_of_the_issue_is_there() -> None:
    answer = command("--help")
    for name in ("explain", "run", "front", "choose", "report", "export"):
        assert re.search(rf"\b{name}\b", answer.out)


def test_the_help_of_export_names_every_format() -> None:
    answer = command("export", "--help")
    for name in EXPORT_FORMATS:
        assert re.search(rf"\b{name}\b", answer.sentence.partition("--format")[2]), name


def test_python_use(tmp_path: Path) -> None:
    """Task, Study.create, run, front, rebuild, open, PruningPlan to and from JSON."""
    namespace: dict[str, object] = {"__name__": "mine"}
    exec(compile(write(tmp_path).read_text(), "study.py", "exec"), namespace)
    make_task, make_data = namespace["task"], namespace["data"]
    assert callable(make_task)
    assert callable(make_data)
    task = make_task()
    assert isinstance(task, autoprune.Task)
    settings = study_of(
        trials=5,
        uniform_points=2,
        solved_points=1,
        latency_rounds=0,
        objectives=QUICK,
        space=space_of(steps=2),
    )
    study = autoprune.Study.create(task, settings, out=tmp_path / "mine")
    found = study.run()
    assert isinstance(found, autoprune.Front)
    assert found == study.front() == autoprune.Study.open(tmp_path / "mine").front()
    record = found.choose(autoprune.Limits(max_drop=1.0))
    plan = record.plan
    assert autoprune.PruningPlan.from_json(plan.to_json()) == plan
    images, _ = make_data(20, 4)
    model = autoprune.Study.open(tmp_path / "mine", make_task()).rebuild(record.number)
    with torch.no_grad():
        assert torch.equal(model(images), study.rebuild(record.number)(images))
    # A saved plan runs again, as a trial of its own where it asks for other training.
    again = autoprune.PruningPlan.from_json(plan.to_json())
    study.enqueue(replace(again, recovery=replace(again.recovery, steps=plan.recovery.steps + 1)))
    study.run(trials=6)
    assert study.records[-1].widths == record.widths


def test_the_studies_of_the_repository_are_scripts() -> None:
    for script in (ROOT / "studies").glob("*/study.py"):
        text = script.read_text()
        assert "\ndef task(" in text
        assert text.rstrip().endswith('if __name__ == "__main__":\n    autoprune.main()')


def test_choose_says_with_what_confidence_and_how_lucky(out: Path) -> None:
    """All to standard error: standard output holds the number alone."""
    sure = command("choose", out, "--max-drop", 0.5)
    measured = command("choose", out, "--max-drop", 0.5, "--confidence", 0.5)
    assert sure.code == measured.code == 0
    assert "with 90% confidence" in sure.err
    assert "with 90% confidence" not in measured.err
    found = front(out)
    assert int(sure.out) == found.choose(autoprune.Limits(max_drop=0.5)).number
    assert int(measured.out) == found.choose(autoprune.Limits(max_drop=0.5), confidence=0.5).number
    best = command("choose", out, "--by", "quality")
    assert re.search(r"Chosen among \d+ candidates, it looks about 0\.\d+ better on the search split", best.err)


def test_a_confidence_that_makes_no_sense(out: Path) -> None:
    answer = command("choose", out, "--max-drop", 0.05, "--confidence", 90)
    assert answer.code == 2
    assert "the confidence must lie in [0.5, 1), but got 90" in answer.err


def test_the_mark_of_what_is_beaten_within_noise_is_printed(out: Path) -> None:
    marks = {one.number: front(out).as_good_as.get(one.number) for one in front(out).members}
    rows = json.loads(command("front", out, "--json").out)
    assert {row["candidate"]: row["as_good_as"] for row in rows} == marks
