"""How a study searches: validation, and the way to disk and back."""

from __future__ import annotations

import json

import pytest

from autoprune.errors import ConfigurationError, UnknownNameError
from autoprune.records.profile import LatencyProfile
from autoprune.search.settings import MeasureSettings, StudySettings, with_fields
from autoprune.search.space.earlier_settings import MOVED
from autoprune.search.space.parameter import value_at
from autoprune.search.space.settings import SpaceSettings, field_types
from tests.settings import flat, space_of, study_of

WRONG: list[tuple[dict[str, object], str]] = [
    ({"trials": 0}, "trials must be an integer >= 1, but got 0"),
    ({"trials": True}, "trials must be an integer >= 1, but got True"),
    ({"trials": 2.5}, "trials must be an integer >= 1, but got 2.5"),
    ({"seed": -1}, "seed must be an integer >= 0"),
    ({"uniform_points": -1}, "uniform_points must be an integer >= 0"),
    ({"solved_points": -1}, "solved_points must be an integer >= 0"),
    ({"latency_rounds": -1}, "latency_rounds must be an integer >= 0"),
    ({"threads": 0}, "threads must be an integer >= 1"),
    ({"seconds": 0}, "seconds must be > 0, or None, but got 0"),
    ({"seconds": float("nan")}, "seconds must be > 0"),
    ({"seconds": "60"}, "seconds must be > 0"),
    ({"objectives": ("quality",)}, "objectives must be 'quality' and one or more different others"),
    ({"objectives": ("parameters", "size_bytes")}, "objectives must be 'quality'"),
    ({"objectives": ("quality", "parameters", "parameters")}, "objectives must be 'quality'"),
    ({"rung_samples": 0}, "rung_samples must be an integer >= 1"),
    ({"rungs": (0.5, 0.25)}, "rungs must be shares in \\[0, 1\\), each above the one before"),
    ({"rungs": (0.5, 0.5)}, "rungs must be shares"),
    ({"rungs": (0.5, 1.0)}, "rungs must be a tuple"),
    ({"rungs": (-0.1,)}, "rungs must be a tuple"),
    ({"rungs": (False, 0.5)}, "rungs must be a tuple"),
    ({"rungs": ("0.5",)}, "rungs must be a tuple"),
    ({"rungs": 0.5}, "rungs must be a tuple"),
    ({"latency_rounds": 0}, "latency_rounds must be >= 1 when latency_ms is an objective"),
]


@pytest.mark.parametrize(("changes", "message"), WRONG, ids=[str(changes) for changes, _ in WRONG])
def test_wrong_values_say_what_was_expected(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        study_of(**changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"sampler": "cma"},
            "one of auto, evolution, gp, nsga2, nsga3, qmc, random, tpe, but got 'cma'",
        ),
        ({"sampler": "TPE"}, "search.sampler must be one of"),
        ({"early_stopping": "median"}, "search.early_stopping must be one of audit, front, none, pareto_rank"),
    ],
)
def test_unknown_names_list_the_known(changes: dict[str, object], message: str) -> None:
    with pytest.raises(UnknownNameError) as caught:
        study_of(**changes)  # type: ignore[arg-type]
    assert message in str(caught.value)


@pytest.mark.parametrize("names", [("a", "a"), ("default",)], ids=str)
def test_latency_profiles_have_names_of_their_own(names: tuple[str, ...]) -> None:
    with pytest.raises(ConfigurationError, match=r"measure.profiles must have different names, other than 'default'"):
        MeasureSettings(profiles=tuple(LatencyProfile(name=name) for name in names))


def test_latency_profiles_there_and_back() -> None:
    profile = LatencyProfile(name="long", backend="eager", sizes=((16, 0.5), (64, 0.5)))
    found = StudySettings(measure=MeasureSettings(profiles=(profile,)), objectives=("quality", "latency_ms[long]"))
    assert StudySettings.from_dict(json.loads(json.dumps(found.to_dict()))) == found


def test_all_faults_come_in_one_error() -> None:
    with pytest.raises(ConfigurationError) as caught:
        study_of(trials=0, seconds=-1.0, samples=0, seed=-1)
    message = str(caught.value)
    assert message.startswith("4 faults in the settings:")
    assert all(name in message for name in ("trials", "seconds", "samples", "seed"))
    with pytest.raises(ConfigurationError, match="2 faults in the settings of measurements:"):
        MeasureSettings(latency_rounds=-1, threads=0)


@pytest.mark.parametrize(
    "settings",
    [
        StudySettings(),
        study_of(
            trials=7,
            seconds=12.5,
            objectives=("quality", "parameters"),
            sampler="nsga2",
            latency_rounds=0,
            lineage=False,
            space=space_of(
                space="direct", criteria=("l1",), learning_rate=0.02, distillation=(0.0, 0.25), optimizers=("adamw",)
            ),
        ),
        study_of(space=space_of(learning_rate=(0.001, 0.1), criterion_per_group=True, scan=False)),
    ],
    ids=["default", "direct", "rates"],
)
def test_round_trip_through_json(settings: StudySettings) -> None:
    assert StudySettings.from_dict(json.loads(json.dumps(settings.to_dict()))) == settings


@pytest.mark.parametrize("change", [{"unknown": 1}, {"search": {"unknown": 1}}, {"space": 3}])
def test_stored_settings_with_other_fields_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(ConfigurationError, match="stored settings must hold settings of a study"):
        StudySettings.from_dict(StudySettings().to_dict() | change)


@pytest.mark.parametrize("settings", [StudySettings(), study_of(steps=(5, 50), criteria=("l1", "l2"), threads=2)])
def test_flat_settings_of_earlier_are_read(settings: StudySettings) -> None:
    earlier = flat(settings.to_dict())
    assert {"space", "sampler", "threads"} <= earlier.keys()
    assert StudySettings.from_dict(json.loads(json.dumps(earlier))) == settings


@pytest.mark.parametrize(
    ("kind", "field", "now"),
    [
        (StudySettings, "sampler", "StudySettings(search=SearchSettings(sampler=...))"),
        (StudySettings, "latency_rounds", "StudySettings(measure=MeasureSettings(latency_rounds=...))"),
        (StudySettings, "space", "structure, masks, schedule, recovery and search"),
        (SpaceSettings, "kind", "SpaceSettings(search=SearchSettings(space=...))"),
        (SpaceSettings, "amounts", "SpaceSettings(structure=StructureSettings(modes=...))"),
    ],
)
def test_a_field_of_earlier_says_where_it_went(kind: type, field: str, now: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        kind(**{field: 1})
    assert now in str(caught.value)


def test_every_field_of_earlier_has_a_place() -> None:
    assert set(MOVED.values()) <= set(field_types(StudySettings))


@pytest.mark.parametrize(
    ("text", "path", "value"),
    [
        ("trials=7", "trials", 7),
        ("recovery.steps=20", "recovery.steps", 20),
        ("recovery.steps=20,200", "recovery.steps", (20, 200)),
        ("recovery.learning_rate=none", "recovery.learning_rate", None),
        ("recovery.distillation=0.5", "recovery.distillation", (0.5,)),
        ("masks.patterns=none, 2:4", "masks.patterns", ("none", "2:4")),
        ("structure.protect=stem.*", "structure.protect", ("stem.*",)),
        ("search.scan=false", "search.scan", False),
    ],
)
def test_a_field_is_set_by_text(text: str, path: str, value: object) -> None:
    assert value_at(with_fields(StudySettings(), [text]), path) == value


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("steps", "must be GROUP.FIELD=VALUE, such as recovery.steps=60, but got 'steps'"),
        ("sampler=tpe", "must have its group in front, but got 'sampler'. Set search.sampler."),
        ("limits=3", "such as --limit max_drop=0.01."),
        ("limits.max_drop=3", "limits is given by an option of its own"),
        ("measure.profiles=b32", "such as --latency-profile b32="),
        ("search.scan=maybe", "search.scan must be True or False, but got 'maybe'."),
        ("search.smpler=tpe", "Did you mean 'search.sampler'?"),
        ("recovery.steps=many", "recovery.steps must be an integer >= 0, or a tuple (low, high)"),
        ("structure.kinds=channls", "Did you mean 'channels'?"),
        ("measure.threads=0", "measure.threads must be an integer >= 1 and <= 1024, but got 0"),
        ("measure.threads=2147483648", "measure.threads must be an integer >= 1 and <= 1024, but got 2147483648"),
        (f"trials={10**20}", "trials must be an integer >= 1, but got an integer of 67 bits"),
        (f"measure.latency_seconds={10**400}", "measure.latency_seconds must be > 0, but got "),
    ],
)
def test_a_wrong_text_says_what_is_expected(text: str, message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        with_fields(StudySettings(), [text])
    assert message in str(caught.value)


def test_an_unknown_field_of_a_group_lists_that_group() -> None:
    with pytest.raises(UnknownNameError) as caught:
        with_fields(StudySettings(), ["recovery.step=3"])
    assert "recovery.weight_decay" in str(caught.value)
    assert "search.sampler" not in str(caught.value)


def test_fields_of_one_group_are_changed_together() -> None:
    """Each text alone would contradict the other field as it was."""
    both = with_fields(StudySettings(), ["measure.latency_rounds=0", "objectives=quality,multiply_adds"])
    assert (both.measure.latency_rounds, both.objectives) == (0, ("quality", "multiply_adds"))
