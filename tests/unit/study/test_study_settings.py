"""How a study searches: validation, and the way to disk and back."""

from __future__ import annotations

import json

import pytest

from autoprune.errors import ConfigurationError, UnknownNameError
from autoprune.search.settings import StudySettings
from autoprune.search.space.settings import SpaceSettings

WRONG: list[tuple[dict[str, object], str]] = [
    ({"trials": 0}, "trials must be an integer >= 1, but got 0"),
    ({"trials": True}, "trials must be an integer >= 1, but got True"),
    ({"trials": 2.5}, "trials must be an integer >= 1, but got 2.5"),
    ({"seed": -1}, "seed must be an integer >= 0"),
    ({"uniform_points": -1}, "uniform_points must be an integer >= 0"),
    ({"solved_points": -1}, "solved_points must be an integer >= 0"),
    ({"latency_rounds": -1}, "latency_rounds must be an integer >= 0"),
    ({"threads": 0}, "threads must be an integer >= 1"),
    ({"seconds": 0}, "seconds must be > 0, but got 0"),
    ({"seconds": float("nan")}, "seconds must be > 0"),
    ({"seconds": "60"}, "seconds must be > 0"),
    ({"objectives": ("quality",)}, "objectives must be 'quality' and one or more different others"),
    ({"objectives": ("parameters", "size_bytes")}, "objectives must be 'quality'"),
    ({"objectives": ("quality", "parameters", "parameters")}, "objectives must be 'quality'"),
    ({"rung_samples": 0}, "rung_samples must be an integer >= 1"),
    ({"rungs": (0.5, 0.25)}, "rungs must be shares in \\[0, 1\\), each above the one before"),
    ({"rungs": (0.5, 0.5)}, "rungs must be shares"),
    ({"rungs": (0.5, 1.0)}, "rungs must be shares"),
    ({"rungs": (-0.1,)}, "rungs must be shares"),
    ({"rungs": (False, 0.5)}, "rungs must be shares"),
    ({"rungs": ("0.5",)}, "rungs must be shares"),
    ({"rungs": 0.5}, "rungs must be shares"),
    ({"latency_rounds": 0}, "latency_rounds must be >= 1 when latency_ms is an objective"),
]


@pytest.mark.parametrize(("changes", "message"), WRONG, ids=[str(changes) for changes, _ in WRONG])
def test_wrong_values_say_what_was_expected(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        StudySettings(**changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"sampler": "cma"},
            "one of auto, evolution, gp, nsga2, nsga3, qmc, random, tpe, but got 'cma'",
        ),
        ({"sampler": "TPE"}, "the sampler must be one of"),
        ({"early_stopping": "median"}, "the rule of early stopping must be one of audit, front, none, pareto_rank"),
    ],
)
def test_unknown_names_list_the_known(changes: dict[str, object], message: str) -> None:
    with pytest.raises(UnknownNameError) as caught:
        StudySettings(**changes)  # type: ignore[arg-type]
    assert message in str(caught.value)


def test_all_faults_come_in_one_error() -> None:
    with pytest.raises(ConfigurationError) as caught:
        StudySettings(trials=0, seconds=-1.0, objectives=("quality",), latency_rounds=-1)
    message = str(caught.value)
    assert message.startswith("4 faults in the settings:")
    assert all(name in message for name in ("trials", "seconds", "objectives", "latency_rounds"))


@pytest.mark.parametrize(
    "settings",
    [
        StudySettings(),
        StudySettings(
            trials=7,
            seconds=12.5,
            objectives=("quality", "parameters"),
            sampler="nsga2",
            latency_rounds=0,
            lineage=False,
            space=SpaceSettings(
                kind="direct", criteria=("l1",), learning_rate=0.02, distillation=(0.0, 0.25), optimizers=("adamw",)
            ),
        ),
        StudySettings(space=SpaceSettings(learning_rate=(0.001, 0.1), criterion_per_group=True, scan=False)),
    ],
    ids=["default", "direct", "rates"],
)
def test_round_trip_through_json(settings: StudySettings) -> None:
    assert StudySettings.from_dict(json.loads(json.dumps(settings.to_dict()))) == settings


@pytest.mark.parametrize("change", [{"unknown": 1}, {"space": {"unknown": 1}}, {"space": 3}])
def test_stored_settings_with_other_fields_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(ConfigurationError, match="stored settings must hold settings of a study"):
        StudySettings.from_dict(StudySettings().to_dict() | change)
