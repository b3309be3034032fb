from __future__ import annotations

import dataclasses
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoprune.errors import ConfigurationError, UnknownNameError
from autoprune.plan.allocation import GroupPlan
from autoprune.plan.plan import PLAN_VERSION, PruningPlan
from autoprune.plan.recovery import (
    OPTIMIZERS,
    AveragingPlan,
    DistillationPlan,
    RecalibrationPlan,
    ReconstructionPlan,
    RecoveryPlan,
)
from autoprune.plan.weights import WeightPlan

positive = st.floats(1e-12, 1e6)
group_plans = st.builds(
    GroupPlan, ratio=st.floats(0, 1, exclude_max=True), criterion=st.sampled_from(["l1", "l2"]) | st.text(min_size=1)
)
recovery_plans = st.builds(
    RecoveryPlan,
    steps=st.integers(0, 10**6),
    optimizer=st.sampled_from(OPTIMIZERS),
    learning_rate=positive,
    weight_decay=st.floats(0, 10),
    distillation=st.builds(DistillationPlan, weight=st.floats(0, 1), temperature=positive),
    recalibration=st.builds(RecalibrationPlan, samples=st.integers(0, 10**6)),
)
plans = st.builds(
    PruningPlan,
    groups=st.dictionaries(st.text(), group_plans, max_size=5),
    recovery=recovery_plans,
    seed=st.integers(0, 2**63),
)


@settings(deadline=None, derandomize=True, max_examples=60)
@given(plan=plans)
def test_a_plan_survives_json(plan: PruningPlan) -> None:
    again = PruningPlan.from_json(plan.to_json())
    assert again == plan
    assert again.to_json() == plan.to_json()
    assert PruningPlan.from_dict(json.loads(json.dumps(plan.to_dict()))) == plan


def test_the_order_of_groups_does_not_matter() -> None:
    one, other = GroupPlan(ratio=0.1), GroupPlan(ratio=0.2)
    forth, back = PruningPlan(groups={"a": one, "b": other}), PruningPlan(groups={"b": other, "a": one})
    assert forth == back
    assert forth.to_json() == back.to_json()


def test_a_plan_without_recovery_and_seed_takes_the_defaults() -> None:
    plan = PruningPlan.from_dict({"version": 1, "groups": {"a": {"ratio": 0.5}}})
    assert plan == PruningPlan(groups={"a": GroupPlan(ratio=0.5, criterion="l2")}, recovery=RecoveryPlan(), seed=0)


@pytest.mark.parametrize(
    ("part", "name"),
    [
        (GroupPlan(ratio=0.5), "ratio"),
        (RecoveryPlan(), "steps"),
        (PruningPlan(groups={}), "seed"),
        (PruningPlan(groups={}), "groups"),
    ],
)
def test_fields_can_not_be_set(part: object, name: str) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(part, name, 1)


def test_groups_are_a_copy_that_can_not_be_written_to() -> None:
    given_groups = {"a": GroupPlan(ratio=0.5)}
    plan = PruningPlan(groups=given_groups)
    given_groups["b"] = GroupPlan(ratio=0.1)
    assert set(plan.groups) == {"a"}
    with pytest.raises(TypeError):
        plan.groups["b"] = GroupPlan(ratio=0.1)  # type: ignore[index]


def test_replace_gives_a_changed_copy() -> None:
    plan = PruningPlan(groups={"a": GroupPlan(ratio=0.5)}, seed=3)
    assert dataclasses.replace(plan, seed=4).groups == plan.groups
    assert plan.seed == 3


@pytest.mark.parametrize("ratio", [-0.1, 1.0, 1.5, float("nan"), float("inf"), "0.5", None])
def test_a_ratio_outside_the_unit_interval_is_refused(ratio: object) -> None:
    with pytest.raises(ConfigurationError, match=r"ratio must lie in \[0, 1\), but got"):
        GroupPlan(ratio=ratio)  # type: ignore[arg-type]


def test_the_edges_of_ratio() -> None:
    assert GroupPlan(ratio=0).ratio == 0
    assert GroupPlan(ratio=0.999999).ratio < 1


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("steps", -1, "steps must be an integer >= 0, but got -1"),
        ("steps", 1.5, "steps must be an integer >= 0"),
        ("steps", True, "steps must be an integer >= 0"),
        ("optimizer", "adam", "optimizer must be one of adamw, sgd, but got 'adam'"),
        ("learning_rate", 0, "learning_rate must be > 0"),
        ("learning_rate", float("inf"), "learning_rate must be > 0"),
        ("learning_rate", "0.1", "learning_rate must be > 0, but got '0.1'"),
        ("weight_decay", -1e-9, "weight_decay must be >= 0"),
        ("weight_decay", float("nan"), "weight_decay must be >= 0"),
        ("averaging", 0.5, "averaging must be an AveragingPlan, but got 0.5"),
    ],
)
def test_a_bad_recovery_number_is_named(field: str, value: object, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        RecoveryPlan(**{field: value})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("kind", "field", "value", "message"),
    [
        (DistillationPlan, "weight", 1.1, r"distillation\.weight must lie in \[0, 1\]"),
        (DistillationPlan, "temperature", 0, r"distillation\.temperature must be > 0"),
        (RecalibrationPlan, "samples", -1, r"recalibration\.samples must be an integer >= 0"),
        (ReconstructionPlan, "samples", 1.5, r"reconstruction\.samples must be an integer >= 0"),
        (AveragingPlan, "share", 1, r"averaging\.share must lie in \[0, 1\)"),
    ],
)
def test_a_bad_number_of_a_recovery_step_is_named(kind: type, field: str, value: object, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        kind(**{field: value})


def test_every_fault_of_a_recovery_plan_is_in_one_error() -> None:
    with pytest.raises(ConfigurationError, match="3 faults in the recovery plan") as error:
        RecoveryPlan(steps=-1, optimizer="adam", learning_rate=0)
    for part in ("steps", "optimizer", "learning_rate"):
        assert part in str(error.value)


@pytest.mark.parametrize("seed", [-1, 1.5, "0", None, True])
def test_a_bad_seed_is_refused(seed: object) -> None:
    with pytest.raises(ConfigurationError, match="seed must be an integer >= 0, but got"):
        PruningPlan(groups={}, seed=seed)  # type: ignore[arg-type]


def test_groups_must_be_group_plans() -> None:
    with pytest.raises(ConfigurationError, match="'a'"):
        PruningPlan(groups={"a": 0.5})  # type: ignore[dict-item]


def test_a_later_version_is_refused_with_the_remedy() -> None:
    with pytest.raises(
        ConfigurationError, match=f"version must be 1 to {PLAN_VERSION}, but got {PLAN_VERSION + 98}.*Upgrade"
    ):
        PruningPlan.from_dict({"version": PLAN_VERSION + 98, "groups": {}})


@pytest.mark.parametrize("version", [None, 0, -1, "1", 1.0, True])
def test_a_version_that_never_was_is_not_called_a_later_one(version: object) -> None:
    with pytest.raises(ConfigurationError, match="version must be") as error:
        PruningPlan.from_dict({"version": version, "groups": {}})
    assert "later" not in str(error.value)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "not json",
        "[]",
        "null",
        "{}",
        '{"version": 1}',
        '{"version": 1, "groups": []}',
        '{"version": 1, "groups": {"a": 0.5}}',
        '{"version": 1, "groups": {"a": {"ratio": "half"}}}',
        '{"version": 1, "groups": {"a": {"share": 0.5}}}',
        '{"version": 1, "groups": {"a": {"ratio": NaN}}}',
        '{"version": 1, "groups": {}, "recovery": {"epochs": 3}}',
        '{"version": 1, "groups": {}, "recovery": 3}',
        '{"version": 1, "groups": {}, "seed": "x"}',
        '{"version": 3, "groups": {}, "dropped": "blocks.0"}',
        '{"version": 3, "groups": {}, "dropped": {"blocks.0": 1}}',
        '{"version": 3, "groups": {}, "dropped": [1]}',
    ],
)
def test_what_is_no_plan_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="must"):
        PruningPlan.from_json(text)


@pytest.mark.parametrize("name", ["weight", "block", "group"])
def test_an_unknown_field_lists_the_known(name: str) -> None:
    with pytest.raises(UnknownNameError, match=f"Did you mean '{name}s'") as error:
        PruningPlan.from_dict({"version": PLAN_VERSION, "groups": {}, name: None})
    assert all(field.name in str(error.value) for field in dataclasses.fields(PruningPlan))


@pytest.mark.parametrize("layers", [[1], None, "head", 0.5])
def test_layers_of_weights_must_be_a_mapping(layers: object) -> None:
    data = {"version": 3, "groups": {}, "weights": {"sparsity": 0.5, "layers": layers}}
    with pytest.raises(ConfigurationError, match=r"weights.layers must be an object, but got"):
        PruningPlan.from_dict(data)


def test_the_message_names_the_group_at_fault() -> None:
    with pytest.raises(ConfigurationError, match=r"blocks\.1\.conv"):
        PruningPlan.from_dict({"version": 1, "groups": {"head": {"ratio": 0.1}, "blocks.1.conv": {"ratio": 1.5}}})


def test_a_plan_needs_neither_torch_nor_optuna() -> None:
    import subprocess
    import sys

    code = "import sys, autoprune.plan.plan; sys.exit(any(name in sys.modules for name in ('torch', 'optuna')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, r"weights.sparsity must lie in \[0, 1\), but got None"),
        ({"sparsity": 1.0}, r"weights.sparsity must lie in \[0, 1\)"),
        ({"pattern": "4:2", "sparsity": 0.5}, r"weights.pattern must be unstructured, N:M .* but got '4:2'"),
        ({"pattern": "2:4", "sparsity": 0.5}, "weights.sparsity must be None, as 2:4 fixes it, but got 0.5"),
        ({"pattern": "2:4", "layers": {"a": 0.5}}, "sparsity of 'a' must be 0, but got 0.5"),
        ({"sparsity": 0.5, "layers": {"a": 1.5}}, "sparsity of 'a' must lie in"),
        ({"sparsity": 0.5, "spread": "row"}, "weights.spread must be one of erk, global, layer, but got 'row'"),
        ({"sparsity": 0.5, "criterion": 3}, "weights.criterion must be a name, but got 3"),
        ({"sparsity": 2, "layers": 3, "pattern": None}, "3 faults in the plan of weights"),
    ],
)
def test_masks_that_make_no_sense(given: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        WeightPlan(**given)  # type: ignore[arg-type]
