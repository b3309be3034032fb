"""Latency profiles that cannot be measured are found before any work; later latencies that cannot be read are known."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

import autoprune
from autoprune.errors import AutopruneWarning, ConfigurationError, StorageError
from autoprune.records.limits import Limits
from autoprune.records.measurement import DEFAULT_PROFILE
from autoprune.records.profile import LatencyProfile
from autoprune.records.run_folder import DEVICE_PROFILE, LATENCIES, RunFolder
from autoprune.trial import costs
from tests.tasks import flat_task
from tests.unit.front.builders import latency
from tests.unit.study.small import settings


def test_every_faulty_profile_is_named_before_anything_is_written(tmp_path: Path) -> None:
    profiles = (
        LatencyProfile(name="phone", backend="remote", command="false"),
        LatencyProfile(name="images", backend="eager", sizes=((4, 1.0),), axes=(7,)),
        LatencyProfile(name="sound", backend="eager"),
    )
    chosen = settings(trials=1, latency_rounds=1, latency_backend="eager", profiles=profiles)
    with pytest.raises(ConfigurationError) as told:
        autoprune.Study.create(flat_task(), chosen, out=tmp_path / "run")
    first, *faults = str(told.value).splitlines()
    assert first == "2 faults in the latency profiles:"
    assert (
        "the latency profile phone must be one under which the dense model runs, but got the command false" in faults[0]
    )
    assert "axes of the latency profile images must be axes of an input, but got (7,)" in faults[1]
    assert not (tmp_path / "run").exists()


class _Checked:
    """Stands in for a comparer: counts."""

    made = checked = 0

    def __init__(self, *_: object) -> None:
        _Checked.made += 1

    def check(self) -> None:
        _Checked.checked += 1

    def refer_to(self, _: object) -> None:
        pass

    def compare(self, _: object) -> object:
        return latency(1.0)


def test_what_was_prepared_is_used_and_a_study_with_trials_is_not_checked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(costs, "LatencyComparer", _Checked)
    monkeypatch.setattr(_Checked, "made", 0)
    monkeypatch.setattr(_Checked, "checked", 0)
    chosen = settings(trials=2, latency_rounds=1, objectives=("quality", "latency_ms"))
    study = autoprune.Study.create(flat_task(), chosen, out=tmp_path / "run")
    assert (_Checked.made, _Checked.checked) == (1, 1)
    study.run()
    assert (_Checked.made, _Checked.checked) == (1, 1)
    autoprune.Study.create(flat_task(), chosen, out=tmp_path / "run")
    assert _Checked.checked == 1

    # Half a file of later latencies: the record says what its trial measured.
    folder = RunFolder(tmp_path / "run")
    record = folder.read_candidates()[1]
    folder.write_latencies(1, {DEFAULT_PROFILE: latency(0.7)})
    assert _ratio(folder) == 0.7
    file = tmp_path / "run" / "candidates" / "00001" / LATENCIES
    file.write_text(file.read_text()[:40])
    with pytest.warns(
        AutopruneWarning, match=r"latencies\.json.* candidate 1 is that of its trial instead.*measures it again"
    ):
        assert folder.read_candidate(1) == record
    folder.write_latencies(1, {DEFAULT_PROFILE: latency(0.7)})
    assert _ratio(folder) == 0.7


def _ratio(folder: RunFolder) -> float:
    record = folder.read_candidate(1)
    assert record is not None
    assert record.search.latency is not None
    return record.search.latency.ratio


def test_a_device_profile_that_cannot_be_read_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / DEVICE_PROFILE).write_text('{"structure": ')
    with pytest.raises(StorageError, match=r"device_profile\.json.* Run `autoprune doctor "):
        RunFolder(tmp_path).read_device_profile()


@pytest.mark.parametrize(
    ("changes", "timed"),
    [
        ({"objectives": ("quality", "latency_ms[b2]")}, {"b2"}),
        ({"objectives": ("quality", "latency_ms", "latency_ms[b2]")}, {"default", "b2"}),
        (
            {"objectives": ("quality", "size_bytes"), "limits": Limits(max_latency_share=0.9)},
            {"default", "b2"},
        ),
    ],
)
def test_the_default_profile_is_timed_beside_others_only_where_something_asks_for_it(
    tmp_path: Path, changes: dict[str, object], timed: set[str]
) -> None:
    profiles = (LatencyProfile(name="b2", backend="eager", batch_size=2),)
    chosen = settings(trials=1, latency_rounds=1, latency_backend="eager", profiles=profiles, **changes)
    study = autoprune.Study.create(flat_task(), chosen, out=tmp_path / "run")
    front = study.run()
    assert set(front.records[0].search.latencies) == timed
    assert math.isnan(front.value(front.records[0], "latency_ms")) == ("default" not in timed)


def test_without_further_profiles_the_default_one_is_always_timed(tmp_path: Path) -> None:
    chosen = settings(trials=1, latency_rounds=1, latency_backend="eager", objectives=("quality", "size_bytes"))
    front = autoprune.Study.create(flat_task(), chosen, out=tmp_path / "run").run()
    assert set(front.records[0].search.latencies) == {"default"}
