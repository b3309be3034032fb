"""Masks that are laid in the middle of a fine-tune: how many entries are zero when, which, and that they stay so."""

from __future__ import annotations

import functools
import itertools
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from autoprune.errors import ConfigurationError
from autoprune.plan.kept import KeptChannels
from autoprune.plan.maskable import maskable
from autoprune.plan.plan import PruningPlan
from autoprune.plan.recovery import SCHEDULES, MaxNormPlan, RecalibrationPlan, SchedulePlan
from autoprune.plan.weights import WeightPlan
from autoprune.recovery.learning_rate import scheduler, simulate
from autoprune.recovery.schedules import SCHEDULES as SHAPES_OF
from autoprune.recovery.schedules import decay_progress, timetable
from autoprune.trial.candidate import evaluate_plan
from autoprune.trial.context import Parent, TrialContext
from tests.slow import diagonal
from tests.unit.recovery.watching import (
    SHAPES,
    Seen,
    as_parent,
    callbacks,
    convolutional,
    flat,
    plan,
    same,
    zeros_of,
)

GRADUAL = ("iterative", "cubic", "exponential")
THREE = {name: SchedulePlan(name=name, updates=3) for name in SCHEDULES}
PLANS = {
    "layer": WeightPlan(sparsity=0.75),
    "erk": WeightPlan(sparsity=0.6, spread="erk"),
    "global": WeightPlan(sparsity=0.75, spread="global"),
    "own": WeightPlan(sparsity=0.5, layers={"0.weight": 0.9, "5.weight": 0.0}),
    "own alone": WeightPlan(sparsity=0.0, layers={"0.weight": 0.9}),
    "own beside global": WeightPlan(sparsity=0.5, spread="global", layers={"2.weight": 0.875}),
    "2:4": WeightPlan(pattern="2:4"),
    "4:8": WeightPlan(pattern="4:8"),
    "blocks": WeightPlan(pattern="block-4x4", sparsity=0.75),
}


def kept_whole(weights: WeightPlan, schedule: SchedulePlan | None = None, **changes: object) -> PruningPlan:
    """Masks alone."""
    return plan(0.0, weights=weights, schedule=schedule, **changes)  # type: ignore[arg-type]


def total(zeros: dict[str, float], names: tuple[str, ...] = tuple(SHAPES)) -> float:
    """Share of the entries of these weights together that is zero."""
    sizes = {name: SHAPES[name][0] * SHAPES[name][1] for name in names}
    return sum(zeros[name] * size for name, size in sizes.items()) / sum(sizes.values())


def silenced(stage: Seen) -> dict[str, float]:
    """Share of each weight that its mask silences."""
    return {name: 1.0 - float(mask.double().mean()) for name, mask in stage.masks.items()}


def never_falls(values: list[float]) -> bool:
    return all(later >= sooner for sooner, later in itertools.pairwise(values))


def silent(weights: dict[str, Tensor], masks: dict[str, Tensor]) -> bool:
    return all(bool((weights[name][~mask] == 0).all()) for name, mask in masks.items())


# ---- how many are zero when


def test_zeros_by_hand() -> None:
    """Of 2048 entries three quarters go in three updates, before steps 0, 3 and 6."""
    shares = {
        "iterative": [512, 1024, 1536],
        "cubic": [1081, 1479, 1536],  # 1536 * 19/27 = 1080.9, 1536 * 26/27 = 1479.1
        "exponential": [758, 1235, 1536],  # 2048 * (1 - 4^(-1/3)) = 757.8, 2048 * (1 - 4^(-2/3)) = 1235.3
    }
    for name, (first, second, last) in shares.items():
        found, seen = callbacks(flat(), kept_whole(PLANS["layer"], THREE[name]))
        counts = [round(stage.zeros["0.weight"] * 2048) for stage in seen]
        assert counts == [first] * 3 + [second] * 3 + [last] * 6, name
        assert found.measurement.nonzero_parameters == found.measurement.parameters - (2048 + 512 + 64) * 3 // 4


@functools.cache
def zeros_at_once(kind: str) -> dict[str, float]:
    """Share of zeros of each matrix under a plan of PLANS, all of it before the fine-tune."""
    return zeros_of(evaluate_plan(flat(), kept_whole(PLANS[kind])).model)


@pytest.mark.parametrize(("kind", "name"), diagonal(PLANS, SCHEDULES))
def test_in_the_end_as_sparse_as_by_one_shot(name: str, kind: str) -> None:
    weights = PLANS[kind]
    once = zeros_at_once(kind)
    found, seen = callbacks(flat(), kept_whole(weights, THREE[name]))
    last = zeros_of(found.model)
    ranked = [n for n in SHAPES if weights.spread == "global" and n not in weights.layers]
    assert {n: share for n, share in last.items() if n not in ranked} == {
        n: share for n, share in once.items() if n not in ranked
    }
    if ranked:
        assert total(last, tuple(ranked)) == total(once, tuple(ranked))
    for layer in () if ranked else SHAPES:
        assert never_falls([stage.zeros[layer] for stage in seen]), layer
    assert never_falls([total(stage.zeros) for stage in seen])
    assert all(silent(stage.weights, stage.masks) for stage in seen)
    if name in GRADUAL:
        assert 0 < total(seen[0].zeros) < total(seen[-1].zeros), "not all of it at once"


@pytest.mark.parametrize("name", SCHEDULES)
def test_every_layer_follows_the_timetable_to_its_own_end(name: str) -> None:
    weights, own = PLANS["own"], SchedulePlan(name=name, updates=5, end=1.0)
    _, seen = callbacks(flat(), kept_whole(weights, own, scheduler="linear"))
    due = {u.step: u.progress for u in timetable(own, 12, simulate(scheduler("linear"), 0.05, 12))}
    progress = 0.0
    for step in range(12):
        progress = due.get(step, progress)
        for layer, final in (("0.weight", 0.9), ("2.weight", 0.5), ("5.weight", 0.0)):
            entries = SHAPES[layer][0] * SHAPES[layer][1]
            wanted = round(entries * SHAPES_OF[name](progress, final)) if progress else 0
            assert round(seen[step].zeros[layer] * entries) == wanted, (step, layer)


@pytest.mark.parametrize("scheduled", ["cosine", "step", "one_cycle"])
def test_sparsity_grows_exactly_as_the_rate_declines(scheduled: str) -> None:
    own = SchedulePlan(name="learning_rate", updates=11)
    _, seen = callbacks(flat(), kept_whole(PLANS["layer"], own, scheduler=scheduled))
    rates = simulate(scheduler(scheduled), 0.05, 12)
    assert rates is not None
    shares = [*decay_progress(rates)[:-1], 1.0]
    assert [round(stage.zeros["0.weight"] * 2048) for stage in seen] == [round(1536 * share) for share in shares]


@pytest.mark.parametrize("name", SCHEDULES)
def test_channels_blocks_and_weights_in_one_plan(name: str) -> None:
    weights = WeightPlan(sparsity=0.5)
    wanted = plan(0.5, context=convolutional(), dropped=("blocks.0",), weights=weights, schedule=THREE[name])
    found, seen = callbacks(convolutional(), wanted)
    assert found.kept.dropped == ("blocks.0",)
    assert found.kept.widths == {group: width // 2 for group, width in convolutional().topology.widths.items()}
    there = dict(found.model.named_parameters())
    masked = [layer for layer in maskable(convolutional().topology) if layer in there]
    assert 0 < len(masked) < len(maskable(convolutional().topology))
    for layer in masked:
        entries = there[layer].numel()
        assert int((there[layer] == 0).sum()) == round(entries / 2), layer
    assert all(silent(stage.weights, stage.masks) for stage in seen)


# ---- which


@pytest.mark.parametrize("pattern", ["2:4", "4:8"])
@pytest.mark.parametrize("regrowth", [0.0, 0.4])
def test_a_pattern_holds_at_every_update(pattern: str, regrowth: float) -> None:
    stays, of = map(int, pattern.split(":"))
    own = SchedulePlan(name="cubic", updates=4, regrowth=regrowth)
    found, seen = callbacks(flat(), kept_whole(WeightPlan(pattern=pattern), own))
    for stage in seen:
        for layer, mask in stage.masks.items():
            groups = mask.view(mask.shape[0], -1, of).sum(2)
            assert len(groups.unique()) == 1, "the same number of each group"
            assert int(groups.min()) >= stays, layer
    for layer, mask in seen[-1].masks.items():
        assert bool((mask.view(-1, of).sum(1) == stays).all())
        assert bool((found.model.get_parameter(layer)[~mask] == 0).all())


@pytest.mark.parametrize("name", GRADUAL)
def test_what_has_gone_once_stays_away_without_regrowth(name: str) -> None:
    _, seen = callbacks(flat(), kept_whole(PLANS["global"], THREE[name]))
    for before, after in itertools.pairwise(seen):
        for layer, mask in before.masks.items():
            assert not bool((after.masks[layer] & ~mask).any())


def test_movement_of_the_fine_tune_decides_on_weights() -> None:
    """One update before step six: those go that the training has moved towards zero most."""
    own = SchedulePlan(name="learning_rate", updates=1)
    found, seen = callbacks(flat(), kept_whole(WeightPlan(sparsity=0.5, criterion="movement"), own))
    moved, before = torch.zeros(SHAPES["0.weight"]), flat().task.dense[0].weight.detach()
    rates = simulate(scheduler("one_cycle"), 0.05, 12)
    assert rates is not None
    for step in range(6):
        model = nn.Sequential(*flat().task.dense)
        batch = next(flat().task.train_split.shuffled(step))
        given = {n: w.clone().requires_grad_() for n, w in (weights_before(seen, step)).items()}
        outputs = torch.func.functional_call(model.train(), given, batch.inputs)
        (slope,) = torch.autograd.grad(nn.functional.cross_entropy(outputs, batch.targets), given["0.weight"])
        moved -= rates[step] * slope * before
        before = seen[step].weights["0.weight"]
    order = moved.flatten().argsort()
    gone = (~seen[6].masks["0.weight"]).flatten().nonzero().squeeze(1)
    assert len(set(gone.tolist()) ^ set(order[:1024].tolist())) <= 4, "but for what rounding decides"
    assert found.work.trained == 12 * 50


def weights_before(seen: list[Seen], step: int) -> dict[str, Tensor]:
    """All parameters before a step."""
    if step:
        return seen[step - 1].weights
    return {name: parameter.detach() for name, parameter in flat().task.dense.named_parameters()}


# ---- regrowth


@pytest.mark.parametrize("weights", [PLANS["layer"], PLANS["2:4"], PLANS["blocks"]], ids=["layer", "2:4", "blocks"])
def test_an_exchange_leaves_the_number_of_zeros(weights: WeightPlan) -> None:
    own = SchedulePlan(name="one_shot", updates=4, regrowth=0.4)
    found, seen = callbacks(flat(), kept_whole(weights, own))
    once = zeros_of(evaluate_plan(flat(), kept_whole(weights)).model)
    # What comes back and has no gradient from then on is zero as well.
    assert silenced(seen[-1]) == once
    assert silent(dict(found.model.named_parameters()), seen[-1].masks)
    dues = [update.step for update in timetable(own, 12, None)]
    assert dues == [0, 2, 4, 6]
    for layer in SHAPES:
        pairs = [(seen[step - 1].masks[layer], seen[step].masks[layer]) for step in range(1, 12)]
        assert all(int(before.sum()) == int(after.sum()) for before, after in pairs)
        changed = {step for step, (before, after) in enumerate(pairs, 1) if not torch.equal(before, after)}
        # Of few blocks a small share is none.
        assert changed == {2, 4, 6} if weights.pattern != "block-4x4" else changed <= {2, 4, 6}
        assert changed or layer != "0.weight"


@pytest.mark.parametrize("name", ["one_shot", "cubic"])
def test_two_updates_exchange_once_and_the_number_of_zeros_is_exact(name: str) -> None:
    """The first lies before any gradient: the exchange is that of the second."""
    weights, (own, none) = PLANS["layer"], (SchedulePlan(name=name, updates=2, regrowth=r) for r in (0.4, 0.0))
    _, seen = callbacks(flat(), kept_whole(weights, own))
    _, still = callbacks(flat(), kept_whole(weights, none))
    assert silenced(seen[-1]) == silenced(still[-1]) == zeros_of(evaluate_plan(flat(), kept_whole(weights)).model)
    assert not torch.equal(seen[-1].masks["0.weight"], still[-1].masks["0.weight"])


def test_regrowth_without_an_update_that_can_exchange_is_refused() -> None:
    own = SchedulePlan(name="one_shot", updates=1, regrowth=0.4)
    with pytest.raises(ConfigurationError, match="the regrowth of masks must have an update after step 0"):
        evaluate_plan(flat(), kept_whole(PLANS["layer"], own))


@pytest.mark.parametrize("pattern", ["1:128", "block-999x999"])
def test_a_pattern_that_fits_no_weight_is_refused(pattern: str) -> None:
    plan = WeightPlan(pattern=pattern, sparsity=None if ":" in pattern else 0.5)
    with pytest.raises(ConfigurationError, match=f"the pattern '{pattern}' must fit a weight that is masked"):
        evaluate_plan(flat(), kept_whole(plan))


def test_the_entries_of_the_largest_gradients_come_back_at_zero() -> None:
    """RigL: of n that stay round(share * n) go, the smallest, for as many silent ones with the largest gradients."""
    own, step, layer = SchedulePlan(name="one_shot", updates=3, regrowth=0.4), 3, "0.weight"
    _, seen = callbacks(flat(), kept_whole(PLANS["layer"], own, learning_rate=0.01, weight_decay=0.0))
    assert [update.step for update in timetable(own, 12, None)] == [0, step, 6]
    exchange = timetable(own, 12, None)[1].exchange
    before, after = seen[step - 1], seen[step]
    slopes = gradient_at(seen, step - 1, layer)
    mask, weight = before.masks[layer], before.weights[layer]
    count = round(exchange * int(mask.sum()))
    gone = set((mask & ~after.masks[layer]).flatten().nonzero().squeeze(1).tolist())
    come = set((~mask & after.masks[layer]).flatten().nonzero().squeeze(1).tolist())
    sizes = weight.abs().masked_fill(~mask, float("inf")).flatten()
    silent_slopes = slopes.abs().masked_fill(mask, -1.0).flatten()
    assert count > 50
    assert gone == set(sizes.argsort()[:count].tolist())
    assert come == set(silent_slopes.argsort(descending=True)[:count].tolist())
    # One step of plain descent from zero: 1.9 times the gradient under Nesterov's momentum, which starts at nothing.
    rates = simulate(scheduler("one_cycle"), 0.01, 12)
    assert rates is not None
    back = (~mask & after.masks[layer]).nonzero(as_tuple=True)
    torch.testing.assert_close(
        after.weights[layer][back], -rates[step] * 1.9 * gradient_at(seen, step, layer)[back], rtol=1e-3, atol=1e-7
    )


def gradient_at(seen: list[Seen], step: int, layer: str) -> Tensor:
    """Of the loss in that step, for every entry. The step's own update is taken back: masks first, as they were."""
    weights = dict(weights_before(seen, step))
    for name, mask in seen[step].masks.items():
        weights[name] = weights[name] * mask
    given = {name: weight.clone().requires_grad_() for name, weight in weights.items()}
    batch = next(flat().task.train_split.shuffled(step))
    model = nn.Sequential(*flat().task.dense).train()
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    outputs = torch.func.functional_call(model, {**given, **buffers}, batch.inputs)
    (slope,) = torch.autograd.grad(nn.functional.cross_entropy(outputs, batch.targets), given[layer])
    return slope


@pytest.mark.parametrize("name", [*GRADUAL, "learning_rate"])
def test_exchange_on_the_way_ends_as_sparse_as_without(name: str) -> None:
    own = SchedulePlan(name=name, updates=4, regrowth=0.4)
    found, seen = callbacks(flat(), kept_whole(PLANS["layer"], own, scheduler="linear"))
    _, plain = callbacks(flat(), kept_whole(PLANS["layer"], replace(own, regrowth=0.0), scheduler="linear"))
    assert [silenced(stage) for stage in seen] == [silenced(stage) for stage in plain]
    came_back = [
        bool((after.masks[layer] & ~mask).any())
        for before, after in itertools.pairwise(seen)
        for layer, mask in before.masks.items()
    ]
    assert any(came_back)
    assert silenced(seen[-1]) == dict.fromkeys(SHAPES, 0.75)
    assert silent(dict(found.model.named_parameters()), seen[-1].masks)


def test_exchange_with_channels_that_go_on_the_way() -> None:
    own = SchedulePlan(name="cubic", updates=4, regrowth=0.4)
    found, seen = callbacks(flat(), plan(0.5, weights=PLANS["layer"], schedule=own))
    assert found.note == ""
    assert all(silent(stage.weights, stage.masks) for stage in seen)
    assert silenced(seen[-1]) == dict.fromkeys(SHAPES, 0.75)


# ---- training


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("max_norm", [0.0, 0.5])
def test_what_is_masked_stays_zero_while_the_rest_is_trained(optimizer: str, max_norm: float) -> None:
    own = SchedulePlan(name="cubic", updates=3, regrowth=0.3)
    rate = 0.05 if optimizer == "sgd" else 0.005
    wanted = kept_whole(
        PLANS["layer"],
        own,
        optimizer=optimizer,
        max_norm=MaxNormPlan(limit=max_norm),
        weight_decay=0.1,
        learning_rate=rate,
    )
    found, seen = callbacks(flat(), wanted)
    assert all(silent(stage.weights, stage.masks) for stage in seen)
    assert all(stage.masks.keys() == SHAPES.keys() for stage in seen)
    assert silent(dict(found.model.named_parameters()), seen[-1].masks)
    assert max(zeros_of(found.model).values()) < 0.8, "and hardly anything else is zero"


def test_masks_alone_without_steps_recalibrate_the_norms() -> None:
    context = convolutional()
    wanted = plan(0.0, context=context, weights=WeightPlan(sparsity=0.5), steps=0)
    found = evaluate_plan(context, wanted)
    without = evaluate_plan(
        context, replace(wanted, recovery=replace(wanted.recovery, recalibration=RecalibrationPlan()))
    )
    assert found.work.forward == without.work.forward + 50
    assert not torch.equal(found.model.blocks[0].bn1.running_mean, without.model.blocks[0].bn1.running_mean)
    assert torch.equal(without.model.stem[1].running_mean, context.task.dense.stem[1].running_mean)


# ---- from a parent that has masks


def sparse_parent(weights: WeightPlan, context: TrialContext | None = None, ratio: float = 0.0) -> Parent:
    return as_parent(evaluate_plan(context or flat(), plan(ratio, context=context, weights=weights, steps=2)))


@pytest.mark.parametrize(("spread", "name"), diagonal(["layer", "erk", "global", "own"], SCHEDULES))
def test_a_tighter_plan_begins_where_its_parent_stopped(name: str, spread: str) -> None:
    """No weight grows back on the way, not even before the first update, and what was zero is masked first."""
    if spread != "own":
        loose, tight = (WeightPlan(sparsity=sparsity, spread=spread) for sparsity in (0.5, 0.75))
    else:
        loose = WeightPlan(sparsity=0.5, layers={"0.weight": 0.75, "2.weight": 0.25})
        tight = WeightPlan(sparsity=0.6, layers={"0.weight": 0.8, "2.weight": 0.75})
    parent = sparse_parent(loose)
    found, seen = callbacks(flat(), kept_whole(tight, THREE[name]), parent)
    once = zeros_of(evaluate_plan(flat(), kept_whole(tight), parent).model)
    ends = zeros_of(found.model)
    assert total(ends) == total(once)
    assert spread == "global" or ends == once
    dead = {layer: parent.model.get_parameter(layer) == 0 for layer in SHAPES}
    for stage in seen:
        for layer, gone in dead.items():
            assert bool((stage.weights[layer][gone] == 0).all()), (stage.step, layer)
    assert never_falls([total(zeros_of(parent.model)), *(total(stage.zeros) for stage in seen)])
    if name in GRADUAL:
        assert total(zeros_of(parent.model)) < total(seen[0].zeros) < total(ends)


@pytest.mark.parametrize("pattern", ["2:4", "block-4x4"])
def test_a_parent_of_the_same_pattern(pattern: str) -> None:
    sparsity = None if pattern == "2:4" else 0.5
    weights = WeightPlan(pattern=pattern, sparsity=sparsity)
    parent = sparse_parent(weights)
    for name in SCHEDULES:
        found, seen = callbacks(flat(), kept_whole(weights, THREE[name]), parent)
        for layer in SHAPES:
            mask = parent.model.get_parameter(layer) != 0
            assert all(torch.equal(stage.weights[layer] != 0, mask) for stage in seen), (name, layer)
        assert not same(found.model, parent.model), "it was trained on"


def test_channels_that_go_from_a_sparse_parent() -> None:
    weights = WeightPlan(sparsity=0.5)
    parent = sparse_parent(weights, ratio=0.25)
    for name in SCHEDULES:
        found, seen = callbacks(flat(), plan(0.5, weights=weights, schedule=THREE[name]), parent)
        assert found.kept.widths == {"0": 16, "2": 8}
        assert zeros_of(found.model) == dict.fromkeys(SHAPES, 0.5)
        assert all(silent(stage.weights, stage.masks) for stage in seen)


def test_a_plan_without_masks_trains_all_weights_of_a_sparse_parent() -> None:
    parent = sparse_parent(WeightPlan(sparsity=0.5))
    found = evaluate_plan(flat(), plan(0.0), parent)
    assert max(zeros_of(found.model).values()) < 0.1
    assert found.kept == KeptChannels.whole(flat().topology)
