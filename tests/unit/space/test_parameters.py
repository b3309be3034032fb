"""Parameters other than widths: from parameters to plans and back."""

from __future__ import annotations

import functools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from autoprune.errors import ConfigurationError, UnknownNameError
from autoprune.plan.allocation import BlockPlan, GroupPlan, RankingPlan
from autoprune.plan.maskable import maskable
from autoprune.plan.plan import PruningPlan
from autoprune.plan.recovery import DistillationPlan, MaxNormPlan, ReconstructionPlan, RecoveryPlan, SchedulePlan
from autoprune.plan.weights import WeightPlan
from autoprune.proof.discover import prove
from autoprune.search.space.build import build_plan
from autoprune.search.space.encode import clip_to, defaults, distributions, parameters_of
from autoprune.search.space.parameter import ParameterValue
from autoprune.search.space.parameters import PARAMETERS
from autoprune.search.space.setting_groups import RecoverySettings, ScheduleSettings
from autoprune.search.space.settings import SpaceSettings, field_types
from autoprune.search.space.space import build_space
from autoprune.structure.groups import GROUP_KINDS
from autoprune.structure.topology import Topology
from autoprune.trace.trace import trace
from tests.settings import PATHS, space_of
from tests.zoo.convolutional import ResNet, mlp

ALL_KINDS = (*GROUP_KINDS, "blocks", "weights")
QUICK = hypothesis_settings(max_examples=40, deadline=None, derandomize=True)
#: Every field with choices has several.
RICH: dict[str, object] = {
    "kinds": ALL_KINDS,
    "modes": ("ratio", "count", "threshold", "ranking"),
    "criteria": ("l2", "taylor", "bn_scale"),
    "block_criteria": ("block_influence", "random"),
    "patterns": ("none", "unstructured", "2:4", "block-4x4"),
    "spreads": ("layer", "erk", "global"),
    "weight_criteria": ("l1", "movement"),
    "optimizers": ("sgd", "adamw"),
    "schedulers": ("one_cycle", "cosine"),
    "names": ("one_shot", "cubic", "learning_rate"),
    "updates": (2, 4, 8),
    "regrowth": (0.0, 0.3),
    "learning_rate": (0.01, 0.1),
    "averaging": (0.0,),
    "distillation": (0.0, 0.5),
    "reconstruction": (0, 256),
    "max_norm": (0.0, 1.0),
}


@functools.cache
def residual() -> Topology:
    model, inputs = ResNet(widths=(8, 12, 16), depth=1).eval(), torch.randn(2, 1, 8, 8)
    return prove(model, trace(model, inputs), inputs)


@functools.cache
def perceptron() -> Topology:
    model, inputs = mlp().eval(), torch.randn(4, 20)
    return prove(model, trace(model, inputs), inputs)


def space(**changes: object) -> SpaceSettings:
    return space_of(**{**RICH, **changes})  # type: ignore[arg-type]


def ratios(topology: Topology) -> dict[str, float]:
    return dict.fromkeys(topology.widths, 0.5)


def decoded(settings: SpaceSettings, topology: Topology, point: dict[str, ParameterValue]) -> PruningPlan:
    return build_plan(settings, topology, point, (ratios(topology), 0.4), 3)


def points(space: dict[str, BaseDistribution]) -> st.SearchStrategy[dict[str, ParameterValue]]:
    """Any point of a space."""
    drawn: dict[str, st.SearchStrategy[ParameterValue]] = {}
    for name, found in space.items():
        if isinstance(found, CategoricalDistribution):
            drawn[name] = st.sampled_from(found.choices)
        elif isinstance(found, IntDistribution):
            drawn[name] = st.integers(found.low, found.high)
        else:
            assert isinstance(found, FloatDistribution)
            drawn[name] = st.floats(found.low, found.high)
    return st.fixed_dictionaries(drawn)


def unseen(point: dict[str, ParameterValue]) -> set[str]:
    """Parameters that the plan of a point does not show, since another one has left them without an effect."""
    hidden: set[str] = set()
    if point.get("blocks") == 0:
        hidden.add("block_criterion")
    if point["amount"] != "threshold":
        hidden.add("threshold")
    if point["pattern"] == "none":
        hidden |= {"spread", "weight_criterion"}
    if point["pattern"] in ("none", "2:4"):
        hidden |= {name for name in point if name.partition("/")[0] == "sparsity"}
    return hidden


# ---- there and back


@pytest.mark.parametrize("topology", [residual, perceptron], ids=["residual", "perceptron"])
@pytest.mark.parametrize("kind", ["guided", "direct"])
@pytest.mark.parametrize("named", [False, True], ids=["counted", "named"])
@QUICK
@given(data=st.data())
def test_a_point_comes_back_from_its_plan(
    topology: functools._lru_cache_wrapper[Topology], kind: str, named: bool, data: st.DataObject
) -> None:
    norms = () if topology is perceptron else ("bn_scale",)
    chosen = space(
        space=kind, criteria=("l2", "taylor", *norms), block_criteria=() if named else RICH["block_criteria"]
    )
    found = distributions(chosen, topology())
    point = data.draw(points(found))
    plan = decoded(chosen, topology(), point)
    back = parameters_of(chosen, topology(), PruningPlan.from_json(plan.to_json()))
    assert back.keys() == found.keys()
    hidden = unseen(point)
    assert {name: value for name, value in back.items() if name not in hidden} == {
        name: value for name, value in point.items() if name not in hidden
    }
    assert decoded(chosen, topology(), clip_to(back, found)) == plan


@QUICK
@given(data=st.data())
def test_each_group_chooses_its_criterion(data: st.DataObject) -> None:
    chosen = space(criterion_per_group=True, modes=("ratio", "count"))
    found = distributions(chosen, residual())
    own = [name for name in found if name.startswith("criterion/")]
    assert own == [f"criterion/{name}" for name in sorted(residual().widths)]
    assert "criterion" not in found
    point = data.draw(points(found))
    plan = decoded(chosen, residual(), point)
    assert {f"criterion/{name}": group.criterion for name, group in plan.groups.items()} == {n: point[n] for n in own}
    back = parameters_of(chosen, residual(), plan)
    assert {name: back[name] for name in own} == {name: point[name] for name in own}


@QUICK
@given(data=st.data())
def test_the_direct_space_comes_back_whole(data: st.DataObject) -> None:
    chosen = space(space="direct", modes=("ratio",), block_criteria=(), patterns=("unstructured",))
    whole = build_space(chosen, residual(), None)
    point = data.draw(points(dict(whole.distributions)))
    plan = whole.decode(point, seed=1)
    back = whole.encode(plan)
    assert back.keys() == point.keys()
    assert {name: value for name, value in back.items() if not name.startswith("ratio/")} == {
        name: value for name, value in point.items() if not name.startswith("ratio/")
    }
    assert whole.decode(back, seed=1) == plan


@pytest.mark.parametrize("kind", ["guided", "direct"])
@QUICK
@given(data=st.data())
def test_any_point_of_a_whole_space_is_a_plan_and_back(kind: str, data: st.DataObject) -> None:
    whole = build_space(space(space=kind, scan=False), residual(), None)
    plan = whole.decode(data.draw(points(dict(whole.distributions))), seed=0)
    for name, value in whole.encode(plan).items():
        assert whole.distributions[name]._contains(whole.distributions[name].to_internal_repr(value)), (name, value)


def test_the_defaults_are_the_first_choices_and_the_middles() -> None:
    chosen = space(learning_rate=(0.01, 0.04), threshold=(0.2, 0.8), sparsity=(0.25, 0.75))
    assert defaults(chosen, residual()) == {
        "blocks": 0,
        "amount": "ratio",
        "criterion": "l2",
        "block_criterion": "block_influence",
        "pattern": "none",
        "spread": "layer",
        "weight_criterion": "l1",
        "optimizer": "sgd",
        "scheduler": "one_cycle",
        "schedule": "one_shot",
        "updates": 2,
        "regrowth": 0.0,
        "distillation": 0.0,
        "reconstruction": 0,
        "max_norm": 0.0,
        "learning_rate": pytest.approx(0.02),
        "threshold": pytest.approx(0.4),
        "sparsity": 0.5,
    }


def test_the_scale_of_a_range() -> None:
    found = distributions(space(learning_rate=(0.01, 0.04)), residual())
    logarithmic = {name for name, d in found.items() if isinstance(d, FloatDistribution) and d.log}
    assert logarithmic == {"learning_rate", "threshold"}
    assert found["sparsity"] == FloatDistribution(0.3, 0.95)
    assert found["blocks"] == IntDistribution(0, 1)


def test_every_parameter_reaches_the_plan() -> None:
    """By hand, one plan of each kind of amount and of mask."""
    point: dict[str, ParameterValue] = {
        **defaults(space(), residual()),
        "blocks": 1,
        "block_criterion": "random",
        "amount": "threshold",
        "threshold": 0.7,
        "criterion": "taylor",
        "pattern": "block-4x4",
        "sparsity": 0.6,
        "spread": "global",
        "weight_criterion": "movement",
        "optimizer": "adamw",
        "scheduler": "cosine",
        "schedule": "cubic",
        "updates": 8,
        "regrowth": 0.3,
        "distillation": 0.5,
        "reconstruction": 256,
        "max_norm": 1.0,
        "learning_rate": 0.03,
    }
    chosen = space(end=0.5, max_norm_per="layer", precision="bfloat16", weight_decay=0.0, steps=7)
    wanted = PruningPlan(
        ranking=RankingPlan(threshold=0.7, criterion="taylor", cap=0.95),
        blocks=BlockPlan(count=1, criterion="random"),
        weights=WeightPlan(pattern="block-4x4", sparsity=0.6, criterion="movement", spread="global"),
        recovery=RecoveryPlan(
            steps=7,
            optimizer="adamw",
            learning_rate=0.03,
            scheduler="cosine",
            weight_decay=0.0,
            distillation=DistillationPlan(weight=0.5),
            reconstruction=ReconstructionPlan(samples=256),
            max_norm=MaxNormPlan(limit=1.0, per="layer"),
            schedule=SchedulePlan(name="cubic", updates=8, end=0.5, regrowth=0.3),
            precision="bfloat16",
        ),
        seed=3,
    )
    assert decoded(chosen, residual(), point) == wanted
    ranked = decoded(chosen, residual(), {**point, "amount": "ranking", "pattern": "2:4"})
    assert ranked.ranking == RankingPlan(budget=0.4, criterion="taylor", cap=0.95)
    assert ranked.weights == WeightPlan(pattern="2:4", criterion="movement", spread="global")
    assert ranked.groups == {}
    counted = decoded(chosen, residual(), {**point, "amount": "count", "pattern": "none", "blocks": 0})
    assert counted.groups == {n: GroupPlan(count=w // 2, criterion="taylor") for n, w in residual().widths.items()}
    assert (counted.ranking, counted.blocks, counted.weights) == (None, None, None)


def test_the_direct_space_has_a_sparsity_for_each_weight() -> None:
    chosen = space(space="direct")
    names = [f"sparsity/{name}" for name in maskable(residual())]
    found = distributions(chosen, residual())
    assert [name for name in found if name.startswith("sparsity")] == names
    shares = {name: 0.3 + 0.05 * number for number, name in enumerate(names)}
    plan = decoded(chosen, residual(), {**defaults(chosen, residual()), "pattern": "unstructured", **shares})
    assert plan.weights is not None
    assert dict(plan.weights.layers) == {name.removeprefix("sparsity/"): share for name, share in shares.items()}
    other = PruningPlan(weights=WeightPlan(sparsity=0.8))
    back = parameters_of(chosen, residual(), other)
    assert {back[name] for name in names} == {0.8}, "a plan with one sparsity for all has it in each"


def test_every_row_of_the_table_is_a_parameter_of_some_space() -> None:
    """Else the tests of points and plans above would not see it."""
    several = {"averaging": (0.0, 0.5), "recalibration": (0, 50), "steps": (5, 20)}
    layers = (*ALL_KINDS, "layers")
    spaces = [space(kinds=kinds, **several) for kinds in (layers, ALL_KINDS)]
    spaces.append(space(kinds=layers, **several, block_criteria=()))
    found = {name.partition("/")[0] for chosen in spaces for name in distributions(chosen, residual())}
    assert found | {"layers"} == set(PARAMETERS)


# ---- what is no parameter


@pytest.mark.parametrize(
    ("field", "parameter", "choices"),
    [
        ("modes", "amount", ("ratio", "count")),
        ("criteria", "criterion", ("l2", "l1")),
        ("patterns", "pattern", ("none", "2:4")),
        ("spreads", "spread", ("layer", "erk")),
        ("weight_criteria", "weight_criterion", ("l1", "snip")),
        ("block_criteria", "block_criterion", ("block_influence", "random")),
        ("optimizers", "optimizer", ("sgd", "adamw")),
        ("schedulers", "scheduler", ("cosine", "linear")),
        ("names", "schedule", ("cubic", "iterative")),
        ("updates", "updates", (3, 4)),
        ("regrowth", "regrowth", (0.1, 0.2)),
        ("distillation", "distillation", (0.0, 0.5)),
        ("reconstruction", "reconstruction", (0, 64)),
        ("max_norm", "max_norm", (0.0, 2.0)),
    ],
)
def test_one_choice_is_no_parameter(field: str, parameter: str, choices: tuple[ParameterValue, ...]) -> None:
    several, one = space(**{field: choices}), space(**{field: choices[1:]})
    assert distributions(several, residual())[parameter] == CategoricalDistribution(choices)
    assert parameter not in distributions(one, residual())
    # What is no parameter is in the plan all the same.
    whole = decoded(several, residual(), {**defaults(several, residual()), parameter: choices[1], "blocks": 1})
    assert decoded(one, residual(), {**defaults(one, residual()), "blocks": 1}) == whole


@pytest.mark.parametrize(
    ("field", "parameter", "value"),
    [
        ("learning_rate", "learning_rate", 0.02),
        ("sparsity", "sparsity", (0.6, 0.6)),
        ("threshold", "threshold", (1, 1)),
    ],
)
def test_a_range_of_one_value_is_no_parameter(field: str, parameter: str, value: object) -> None:
    assert parameter in distributions(space(), residual())
    one = space(**{field: value}, modes=("threshold",), patterns=("unstructured",))
    assert parameter not in distributions(one, residual())
    plan = decoded(one, residual(), defaults(one, residual()))
    assert plan.weights is not None
    assert plan.ranking is not None
    shown = {
        "learning_rate": plan.recovery.learning_rate,
        "sparsity": plan.weights.target,
        "threshold": plan.ranking.threshold,
    }
    assert shown[parameter] == pytest.approx(value if isinstance(value, float) else value[0])  # type: ignore[index]


def test_without_steps_nothing_of_training_is_a_parameter() -> None:
    training = {"optimizer", "scheduler", "learning_rate", "schedule", "updates", "regrowth", "distillation"}
    assert training <= distributions(space(), residual()).keys()
    still = space(steps=0)
    assert training.isdisjoint(distributions(still, residual()))
    plan = decoded(still, residual(), defaults(space(), residual()))
    assert (plan.recovery.steps, plan.recovery.schedule.name) == (0, "one_shot")


@pytest.mark.parametrize(
    ("changes", "gone"),
    [
        (
            {"kinds": GROUP_KINDS},
            {"pattern", "spread", "weight_criterion", "sparsity", "regrowth", "blocks", "block_criterion"},
        ),
        ({"kinds": ("channels", "weights")}, {"blocks", "block_criterion"}),
        ({"kinds": ("channels", "blocks")}, {"pattern", "spread", "weight_criterion", "sparsity", "regrowth"}),
        ({"block_criteria": ()}, {"blocks", "block_criterion"}),
        ({"modes": ("ratio", "ranking")}, {"threshold"}),
        ({"patterns": ("none", "2:4", "4:8")}, {"sparsity", "spread"}),
        ({"patterns": ("none",)}, {"pattern", "spread", "weight_criterion", "sparsity", "regrowth"}),
        ({"names": ("one_shot",), "regrowth": (0.0,)}, {"schedule", "updates", "regrowth"}),
        ({"names": ("one_shot",), "regrowth": (0.3,)}, {"schedule", "regrowth"}),
        ({"names": ("cubic",), "regrowth": (0.0,)}, {"schedule", "regrowth"}),
        ({"space": "direct"}, {"spread", "sparsity"}),
    ],
)
def test_a_choice_that_decides_nothing_is_no_parameter(changes: dict[str, object], gone: set[str]) -> None:
    whole = distributions(space(), residual()).keys()
    found = distributions(space(**changes), residual()).keys()
    assert whole - found == gone


def test_a_model_without_blocks_has_no_parameters_of_blocks() -> None:
    found = distributions(space(criteria=("l2", "l1")), perceptron())
    assert {"blocks", "block_criterion"}.isdisjoint(found)
    assert not [name for name in distributions(space(block_criteria=()), perceptron()) if name.startswith("drop/")]


def test_where_only_weights_go_there_are_no_parameters_of_channels() -> None:
    weights = residual().only(("weights",))
    chosen = space(kinds=("weights",), criterion_per_group=False)
    found = distributions(chosen, weights)
    assert {"criterion", "amount", "threshold", "reconstruction", "blocks", "block_criterion"}.isdisjoint(found)
    for amounts in (("ratio",), ("threshold",), ("ranking",)):
        one = space(kinds=("weights",), modes=amounts)
        plan = decoded(one, weights, defaults(one, weights))
        assert not plan.needs_scores
        assert plan.groups == {}


def test_where_only_blocks_go_a_cut_may_still_be_reconstructed() -> None:
    blocks = residual().only(("blocks",))
    found = distributions(space(kinds=("blocks",)), blocks)
    assert {"blocks", "block_criterion", "reconstruction"} <= found.keys()
    assert {"criterion", "amount", "threshold", "pattern"}.isdisjoint(found)


# ---- moved inside


def test_a_plan_from_outside_is_moved_to_the_edge() -> None:
    chosen = space(learning_rate=(0.01, 0.1), sparsity=(0.3, 0.9), updates=(2, 4))
    plan = PruningPlan(
        groups={"stem.0": GroupPlan(ratio=0.5, criterion="fpgm")},
        weights=WeightPlan(sparsity=0.1, criterion="wanda", spread="erk"),
        blocks=BlockPlan(count=7),
        recovery=RecoveryPlan(learning_rate=9.0, scheduler="mine", schedule=SchedulePlan(name="cubic", updates=99)),
    )
    found = clip_to(parameters_of(chosen, residual(), plan), distributions(chosen, residual()))
    moved = {"learning_rate": 0.1, "sparsity": 0.3, "blocks": 1, "criterion": "l2", "scheduler": "one_cycle"}
    moved |= {"updates": 2, "weight_criterion": "l1", "schedule": "cubic", "spread": "erk", "pattern": "unstructured"}
    assert {name: found[name] for name in moved} == moved


# ---- names


@pytest.mark.parametrize(
    ("field", "name", "known"),
    [
        ("space", "guidd", ("guided", "direct")),
        ("cost", "flops", ("multiply_adds", "parameters", "size_bytes")),
        ("kinds", "channel", ALL_KINDS),
        ("modes", "ratios", RICH["modes"]),
        ("criteria", "l3", ("l1", "l2", "taylor", "movement")),
        ("scan_criterion", "l3", ("l1", "l2")),
        ("block_criteria", "influence", ("block_influence", "random")),
        ("patterns", "unstructurd", ("none", "unstructured", "2:4")),
        ("patterns", "4:2", ("none", "unstructured", "2:4")),
        ("patterns", "block-4", ("none", "unstructured", "block-4x4")),
        ("spreads", "uniform", ("layer", "erk", "global")),
        ("weight_criteria", "l2", ("l1", "movement", "wanda")),
        ("optimizers", "adam", ("sgd", "adamw")),
        ("names", "linear", ("one_shot", "cubic", "learning_rate")),
        ("precision", "float8", ("float32", "bfloat16", "float16")),
        ("max_norm_per", "filter", ("channel", "layer")),
    ],
)
def test_an_unknown_name_lists_the_known(field: str, name: str, known: tuple[str, ...]) -> None:
    single = field_types(SpaceSettings)[PATHS[field]] is str
    with pytest.raises(UnknownNameError, match=rf"{PATHS[field]} must be one of .*but got {name!r}") as error:
        space(**{field: name if single else (name,)})
    assert all(one in str(error.value) for one in known)


CHOICES = [path for path, kind in field_types(SpaceSettings).items() if str(kind).endswith(", ...]")]


@pytest.mark.parametrize("path", CHOICES)
def test_a_single_choice_has_to_be_a_tuple(path: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"{path} must be a tuple, such as \(x,\)"):
        SpaceSettings().changed({path: "x"})


def test_all_faulty_numbers_of_a_group_are_named_at_once() -> None:
    with pytest.raises(ConfigurationError) as error:
        RecoverySettings(
            reconstruction=(-1,), max_norm=(-1.0,), distillation=(2.0,), learning_rate=(math.nan, 1.0), steps=-1
        )
    text = str(error.value)
    assert "5 faults in the settings of the recovery:" in text
    for field in ("reconstruction", "max_norm", "distillation", "learning_rate", "steps"):
        assert f"- recovery.{field} must" in text
    with pytest.raises(ConfigurationError) as error:
        ScheduleSettings(updates=(0,), regrowth=(1.0,), end=0.0)
    assert "3 faults in the settings of schedules:" in str(error.value)
    for changes in ({"sparsity": (0.9, 0.1)}, {"threshold": (0.0, 1.0)}, {"round_to": 0}):
        with pytest.raises(ConfigurationError, match=rf"\.{next(iter(changes))} must"):
            space(**changes)
    with pytest.raises(ConfigurationError, match="patterns must name one beside 'none' where only weights may go"):
        space(kinds=("weights",), patterns=("none",))
