"""How far a run is, and which of its trials crashed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from autoprune.front.run_state import duration_text, state_of
from autoprune.records.ending import Ending
from autoprune.records.failure import Failure
from autoprune.records.run_folder import RunFolder
from autoprune.records.sensitivity import Sensitivity
from tests.unit.front.builders import dense, measurement, record, run_of

SCAN = Sensitivity(
    keep_shares=(0.5,), added_loss={}, criterion="l2", samples_forward=1, samples_trained=0, seconds=30.0
)


def test_the_time_left_rests_on_trials_alone(tmp_path: Path) -> None:
    """Neither on the scan nor on the dense model, which trains nothing."""
    halfway = replace(record(2, measurement(0.7, 200)), seconds={"fine_tune": 3.0}, fidelity=0.5)
    records = [replace(dense(), seconds={"evaluate": 100.0}), record(1, measurement(0.8, 300)), halfway]
    run = run_of(tmp_path, records)
    run = replace(run, manifest=replace(run.manifest, settings={**run.manifest.settings, "trials": 9}))
    run.folder.write_sensitivity(SCAN)
    run.folder.write_failure(3, "Traceback:\n  File 'a.py', line 1\nValueError: no")
    state = state_of(run)
    assert (state.target, state.finished, state.stopped, state.failed, state.left) == (9, 3, 1, 1, 6)
    assert (state.scan_seconds, state.spent_seconds) == (30.0, 103.5)
    assert state.trial_seconds == pytest.approx((0.5 + 3.0) / 2)
    assert state.remaining_seconds == pytest.approx(6 * 1.75)
    more = replace(run, manifest=replace(run.manifest, settings={**run.manifest.settings, "trials": 2}))
    assert (state_of(more).target, state_of(more).remaining_seconds) == (None, None), "a later run was asked for more"
    run.folder.write_ending(Ending(reason="seconds", done=3, target=12, detail="5 s"))
    ended = state_of(run)
    assert (ended.target, ended.remaining_seconds) == (12, None)


def test_a_trial_that_was_finished_later_did_not_fail(tmp_path: Path) -> None:
    run = run_of(tmp_path, [dense(), record(1, measurement(0.8, 300))])
    assert run.failures == []
    for number in (12, 1, 3):
        run.folder.write_failure(number, f"trial {number}")
    assert [failure.number for failure in run.failures] == [3, 12]
    assert [failure.number for failure in RunFolder(tmp_path).read_failures()] == [1, 3, 12]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Traceback (most recent call last):\n  File 'a', line 1, in f\n    g()\nValueError: no\n", "ValueError: no"),
        ("Traceback:\n  File 'a', line 1\n    g()\n    ^^^\nE: one\n  two\nthree", "E: one two three"),
        ("it was given up", "it was given up"),
        ("", ""),
    ],
)
def test_the_message_of_a_failure_has_no_places_in_the_code(text: str, message: str) -> None:
    assert Failure(number=1, text=text).message == message


def test_durations_are_written_for_people() -> None:
    assert [duration_text(seconds) for seconds in (5.4, 185.0, 7500.0)] == ["0:05", "3:05", "2 h 05 min"]
