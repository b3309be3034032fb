from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pytest

from autoprune.front.front import Front
from autoprune.front.importance import (
    MIN_TRIALS_FOR_IMPORTANCE,
    ImportanceRow,
    Importances,
    at_equal_cost,
    explained_variance,
    importances,
    memberships,
)
from autoprune.records.candidate import CandidateRecord
from tests.unit.front.builders import front_of, latency, measurement, record

Params = dict[str, float | str]
Space = Mapping[str, list[str] | list[float] | tuple[float, float]]
EQUAL = "quality at equal size_bytes"
#: Parameter -> its choices, or the ends of its range.
SPACE: Space = {
    "budget": (0.05, 1.0),
    "distillation": [0.0, 0.5],
    "schedule": ["one_shot", "cubic", "linear"],
    "criterion/a": ["l1", "l2"],
    "criterion/b": ["l1", "l2"],
    "criterion/c": ["l1", "l2"],
}
OBJECTIVES = ("quality", "size_bytes")


def add(
    trials: list[CandidateRecord],
    params: Params,
    values: Sequence[float],
    origin: str = "sampled",
    objectives: Sequence[str] = OBJECTIVES,
) -> None:
    """Append a finished trial with these values of the objectives; whole numbers but for quality and latency."""
    found = dict(zip(objectives, values, strict=True))
    quality, ratio = float(found.pop("quality")), found.pop("latency_ms", None)
    costs = {name: int(value) for name, value in found.items()}
    search = measurement(quality, took=None if ratio is None else latency(ratio), **costs)  # type: ignore[arg-type]
    trials.append(replace(record(len(trials), search, origin=origin, kept={}), parameters=params))


def front(trials: Sequence[CandidateRecord], objectives: Sequence[str] = OBJECTIVES, sign: float = 1.0) -> Front:
    return front_of(trials, objectives, higher_is_better=sign > 0)


def drawn(random: np.random.Generator, space: Space = SPACE) -> Params:
    found: Params = {}
    for name, values in space.items():
        if isinstance(values, list):
            found[name] = values[random.integers(len(values))]
        else:
            low, high = values
            found[name] = float(low * (high / low) ** random.random())
    return found


def simulated(trials: int = 48, sign: float = 1.0) -> list[CandidateRecord]:
    """The budget decides the quality, distillation and the criterion of b move it a little, the rest is noise."""
    random = np.random.default_rng(3)
    found: list[CandidateRecord] = []
    for _ in range(trials):
        params = drawn(random)
        quality = 0.9 + 0.1 * np.log(params["budget"]) + 0.03 * (params["distillation"] == 0.5)
        quality += 0.025 * (params["criterion/b"] == "l2") + 0.004 * random.normal()
        add(found, params, (sign * quality, 1e5 * float(params["budget"])))
    return found


def by_name(found: Importances) -> dict[str, ImportanceRow]:
    return {row.name: row for row in (*found.parameters, *found.members)}


@pytest.mark.parametrize("sign", [1.0, -1.0], ids=["higher is better", "lower is better"])
def test_the_budget_decides_the_quality_and_a_choice_what_is_left_at_equal_cost(sign: float) -> None:
    found = importances(front(simulated(sign=sign), sign=sign))
    assert found.targets == ("quality", "size_bytes", EQUAL)
    assert found.trials == 48
    told = {
        target: {row.name for row in (*found.parameters, *found.members) if not row.targets[target].is_noise}
        for target in found.targets
    }
    assert told["quality"] == told["size_bytes"] == {"budget"}
    assert told[EQUAL] == {"distillation", "criterion/*", "criterion/b"}
    assert [row.name for row in found.parameters][:2] == ["distillation", "criterion/*"], "sorted by the last target"
    assert found.members[0].name == "criterion/b"
    rows = by_name(found)
    # Of what the two choices add to the variance, (0.03 / 2)^2 and (0.025 / 2)^2, distillation has 59 %.
    assert rows["distillation"].targets[EQUAL].share == pytest.approx(0.59, abs=0.15)
    assert rows["budget"].targets["quality"].share > 0.7


def test_a_kind_is_the_sum_of_its_parameters() -> None:
    found = importances(front(simulated()))
    names = {row.name: row.members for row in found.parameters}
    assert names == {"budget": 1, "distillation": 1, "schedule": 1, "criterion/*": 3}
    assert {row.name for row in found.members} == {"criterion/a", "criterion/b", "criterion/c"}


def test_two_parameters_of_a_kind_add_up() -> None:
    """Of two that add one each, ranks are about 1/8, 1/2, 1/2 and 7/8.

    One of them moves the mean by 0.1875 to either side, of a variance of 1/12: 42 % each.
    """
    random = np.random.default_rng(0)
    study: list[CandidateRecord] = []
    for position in range(200):
        params = drawn(random)
        params |= {"criterion/a": ("l1", "l2")[position % 2], "criterion/b": ("l1", "l2")[position // 2 % 2]}
        quality = (params["criterion/a"] == "l2") + (params["criterion/b"] == "l2") + 1e-3 * random.normal()
        add(study, params, (quality, 1e5 * random.random()))
    rows = by_name(importances(front(study)))
    assert rows["criterion/a"].targets["quality"].share == pytest.approx(0.42, abs=0.03)
    assert rows["criterion/b"].targets["quality"].share == pytest.approx(0.42, abs=0.03)
    assert rows["criterion/*"].targets["quality"].share == pytest.approx(0.84, abs=0.05)


def test_a_few_failures_hide_nothing() -> None:
    random = np.random.default_rng(1)
    study: list[CandidateRecord] = []
    for position in range(48):
        params = drawn(random)
        quality = 0.9 + 0.03 * np.log(params["budget"]) + 0.03 * (params["distillation"] == 0.5)
        add(study, params, (0.1 if position % 12 == 0 else quality, 1e5 * float(params["budget"])))
    found = importances(front(study))
    assert found.parameters[0].name == "distillation"
    assert not found.parameters[0].targets[EQUAL].is_noise
    assert not by_name(found)["budget"].targets["quality"].is_noise


def test_the_interval_holds_the_share_and_a_seed_gives_the_same_again() -> None:
    study = simulated()
    found = importances(front(study), seed=1)
    for row in (*found.parameters, *found.members):
        for importance in row.targets.values():
            assert 0 <= importance.low <= importance.high <= 1
            assert 0 < importance.chance < 1
    top = found.parameters[0].targets[EQUAL]
    assert top.low < top.share < top.high
    assert importances(front(study), seed=1) == found
    assert importances(front(study), seed=2) != found
    assert len(study) == 48


def test_the_interval_is_one_standard_error_wide() -> None:
    """Halves of one study spread as whole studies do."""
    shares, widths = [], []
    for seed in range(16):
        random = np.random.default_rng(seed)
        study: list[CandidateRecord] = []
        for _ in range(60):
            params = drawn(random)
            add(study, params, ((params["distillation"] == 0.5) + random.normal(), 1e5 * random.random()))
        found = by_name(importances(front(study)))["distillation"].targets["quality"]
        shares.append(found.share)
        widths.append((found.high - found.low) / 2)
    assert float(np.mean(widths)) == pytest.approx(float(np.std(shares)), rel=0.3)


def test_chance_passes_in_one_of_twenty_studies() -> None:
    passed = 0
    for seed in range(40):
        random = np.random.default_rng(seed)
        study: list[CandidateRecord] = []
        for _ in range(MIN_TRIALS_FOR_IMPORTANCE):
            add(study, drawn(random), (random.random(), 1e5 * random.random()))
        found = importances(front(study))
        passed += any(not row.targets["quality"].is_noise for row in found.parameters)
    assert 0 < passed <= 6, "two expected of forty"


def test_only_what_the_sampler_chose_counts() -> None:
    study = simulated(MIN_TRIALS_FOR_IMPORTANCE - 1)
    random = np.random.default_rng(1)
    for origin in ("dense", "uniform", "solved", "enqueued", "polished"):
        for _ in range(5):
            add(study, drawn(random), (0.5, 1e4), origin)
    few = importances(front(study))
    assert few.trials == MIN_TRIALS_FOR_IMPORTANCE - 1
    assert few.parameters == few.members == few.targets == ()
    assert few.notes == (
        "Importances need 20 trials that the sampler chose and that were trained to the end; there are 19.",
    )
    assert few.table().empty
    add(study, drawn(random), (0.5, 1e4))
    enough = importances(front(study))
    assert enough.trials == MIN_TRIALS_FOR_IMPORTANCE
    assert len(enough.parameters) == 4
    assert enough.notes == ()


def test_trials_that_were_stopped_or_not_measured_are_passed_over() -> None:
    study = simulated(MIN_TRIALS_FOR_IMPORTANCE)
    random = np.random.default_rng(1)
    add(study, drawn(random), (0.5, 1e4))
    study[-1] = replace(study[-1], fidelity=0.3)
    add(study, drawn(random), (float("nan"), 1e4))
    assert importances(front(study)).trials == MIN_TRIALS_FOR_IMPORTANCE


def test_trials_that_were_stored_without_parameters_are_told() -> None:
    study = [replace(one, parameters={}) if one.number < 5 else one for one in simulated(30)]
    found = importances(front(study))
    assert found.trials == 25
    assert found.notes == ("5 of 30 trials were stored without their parameters, by an earlier version.",)


def test_numbers_of_few_values_are_compared_by_value_and_others_by_range() -> None:
    """Only the second of four amounts is good: parts of the range would hide that, and a range has no such values."""
    random = np.random.default_rng(0)
    study: list[CandidateRecord] = []
    for position in range(60):
        amount = position % 4
        params: Params = {"amount": amount, "rate": 0.1 + random.random()}
        quality = float(amount == 1) + 0.1 * float(params["rate"]) + 0.01 * random.normal()
        add(study, params, (quality, 1e5 * random.random()))
    rows = by_name(importances(front(study)))
    assert rows["amount"].targets["quality"].share > 0.5
    assert not rows["amount"].targets["quality"].is_noise
    assert rows["rate"].members == 1


def test_a_parameter_that_only_some_trials_have() -> None:
    random = np.random.default_rng(0)
    study: list[CandidateRecord] = []
    for position in range(60):
        params = drawn(random)
        quality = 0.5 + 0.01 * random.normal()
        if position % 2:
            params["sparsity"] = random.random()
            quality -= 0.2 * float(params["sparsity"])
        if position % 3:
            params["here"] = random.random()
        if position < 2:
            params["rare"] = random.random()
        add(study, params, (quality, 1e5 * float(params["budget"])))
    found = importances(front(study))
    assert found.parameters[0].name == "sparsity"
    assert not found.parameters[0].targets[EQUAL].is_noise
    assert by_name(found)["here"].targets[EQUAL].is_noise
    assert found.left_out == {"rare": "in 2 of 60 trials only"}


def test_whether_a_trial_has_a_parameter_is_one_of_its_values() -> None:
    """Half of the ranks below the other half: 0.25 to either side of a variance of 1/12, 75 %."""
    random = np.random.default_rng(0)
    study: list[CandidateRecord] = []
    for position in range(120):
        params = drawn(random)
        if position % 2:
            params["sparsity"] = random.random()
        add(study, params, (position % 2 + 1e-3 * random.random(), 1e5 * random.random()))
    assert by_name(importances(front(study)))["sparsity"].targets["quality"].share == pytest.approx(0.75, abs=0.03)


def test_a_parameter_with_one_value_is_left_out_and_one_with_hardly_another() -> None:
    random = np.random.default_rng(0)
    study: list[CandidateRecord] = []
    for position in range(20):
        params = drawn(random) | {"schedule": "cubic", "distillation": 0.5 if position else 0.0}
        add(study, params, (random.random(), 1e5 * float(params["budget"])))
    found = importances(front(study))
    assert found.left_out == {"schedule": "'cubic' in 20 of 20 trials", "distillation": "0.5 in 19 of 20 trials"}
    assert set(by_name(found)) == {"budget", "criterion/*", "criterion/a", "criterion/b", "criterion/c"}


def test_a_choice_for_each_trial_is_no_explanation() -> None:
    random = np.random.default_rng(0)
    study: list[CandidateRecord] = []
    for position in range(60):
        params = drawn(random) | {"rule": f"rule {position if position < 30 else 30 + position % 2}"}
        add(study, params, (random.random(), 1e5 * random.random()))
    assert by_name(importances(front(study)))["rule"].targets["quality"].is_noise


def test_no_parameter_with_two_values() -> None:
    study: list[CandidateRecord] = []
    for position in range(20):
        add(study, {"budget": 0.5}, (0.01 * position, 1e5 + position))
    found = importances(front(study))
    assert found.notes == ("No parameter has two values.",)
    assert found.parameters == found.targets == ()


def test_a_target_that_never_changes_is_named() -> None:
    random = np.random.default_rng(0)
    study: list[CandidateRecord] = []
    objectives = ("quality", "size_bytes", "parameters")
    for _ in range(20):
        add(study, drawn(random), (0.7, 1e5 * random.random(), 500.0), objectives=objectives)
    found = importances(front(study, objectives))
    assert found.targets == ("size_bytes",)
    assert found.notes == tuple(f"{name} is the same in every trial." for name in ("quality", "parameters"))
    assert {target for row in found.parameters for target in row.targets} == {"size_bytes"}


def test_equal_cost_is_that_of_the_first_cost_among_the_objectives() -> None:
    random = np.random.default_rng(0)
    study: list[CandidateRecord] = []
    objectives = ("parameters", "quality", "latency_ms")
    for _ in range(20):
        values = (1e5 * random.random(), random.random(), random.random())
        add(study, drawn(random), values, objectives=objectives)
    assert importances(front(study, objectives)).targets == (*objectives, "quality at equal parameters")


def test_the_table_has_a_row_for_each_parameter_and_each_of_a_kind() -> None:
    found = importances(front(simulated()))
    table = found.table()
    rows = (*found.parameters, *found.members)
    assert list(table["parameter"]) == [row.name for row in rows]
    assert list(table["members"]) == [row.members for row in rows]
    parts = ("share", "low", "high", "chance", "is_noise")
    assert list(table.columns)[2:] == [f"{target} {part}" for target in found.targets for part in parts]
    for position, row in enumerate(rows):
        for target in found.targets:
            cells = [table[f"{target} {part}"][position] for part in parts]
            assert cells == [getattr(row.targets[target], part) for part in parts]


def test_explained_by_hand() -> None:
    """Groups [0, 0, 1, 1], values [1, 3, 5, 7]: between 16 of 20 in all, so 1 - 0.2 * 3 / 2; [0, 1, 0, 1]: 4 of 20."""
    inside = memberships(np.array([[0, 0], [0, 1], [1, 0], [1, 1]]))
    found = explained_variance(inside, np.array([[1.0, 3.0, 5.0, 7.0], [2.0, 2.0, 8.0, 8.0], [4.0, 4.0, 4.0, 4.0]]))
    assert found == pytest.approx(np.array([[0.7, -0.2], [1.0, -0.5], [0.0, 0.0]]))
    alone = memberships(np.arange(4)[:, None])
    assert explained_variance(alone, np.array([[1.0, 3.0, 5.0, 7.0]])) == pytest.approx(np.zeros((1, 1)))


def test_a_straight_line_leaves_nothing_and_a_step_off_it_stays() -> None:
    costs = np.linspace(0.0, 3.0, 20)
    quality = 0.5 + 0.1 * costs
    assert at_equal_cost(quality, costs) == pytest.approx(np.zeros(20), abs=1e-12)
    quality[7] += 0.2
    rest = at_equal_cost(quality, costs)
    assert rest[7] == pytest.approx(0.2)
    assert np.abs(np.delete(rest, 7)).max() < 0.1


def test_trials_of_one_cost_are_compared_with_the_mean_of_the_others() -> None:
    quality = np.array([0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.7])
    rest = at_equal_cost(quality, np.ones(7))
    assert rest[6] == pytest.approx(0.7)
    assert rest[0] == pytest.approx(-0.7 / 6)
