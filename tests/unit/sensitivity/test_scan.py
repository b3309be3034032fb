"""The sensitivity scan: monotone, repeatable, honest about what it took, and readable again."""

from __future__ import annotations

import copy
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from autoprune.errors import ConfigurationError, StorageError
from autoprune.measure.cost import count_parameters
from autoprune.plan.kept import KeptChannels
from autoprune.records.sensitivity import Sensitivity
from autoprune.recovery.batch_norm import recalibrate
from autoprune.sensitivity.scan import KEEP_SHARES, plan_scan, scan
from autoprune.surgery.cut import cut
from autoprune.task.data import call
from autoprune.trial.context import TrialContext
from tests.tasks import SEEN, THREE, Counting, image_task, trained_resnet


@pytest.fixture(scope="module")
def scanned(context: TrialContext) -> Sensitivity:
    return scan(context, "l2")


def test_every_group_is_scanned_at_every_share(context: TrialContext, scanned: Sensitivity) -> None:
    assert list(scanned.added_loss) == list(context.topology.widths)
    assert scanned.keep_shares == KEEP_SHARES
    assert all(len(losses) == len(KEEP_SHARES) for losses in scanned.added_loss.values())
    assert scanned.criterion == "l2"


def test_losses_are_positive_and_never_fall_as_more_goes(scanned: Sensitivity) -> None:
    for losses in scanned.added_loss.values():
        assert losses[0] > 0, "no group is free"
        assert list(losses) == sorted(losses)


def test_a_loss_that_falls_again_is_taken_as_no_better() -> None:
    """A cut that happens to help after one that hurt: to lose more is never cheaper."""

    def wave(outputs: Tensor, targets: Tensor) -> Tensor:
        return 2 + torch.sin(6 * nn.functional.cross_entropy(outputs, targets))

    found = scan(TrialContext.of(image_task(loss=wave)), "l2")
    assert all(list(losses) == sorted(losses) for losses in found.added_loss.values())


def test_losing_nearly_everything_hurts(scanned: Sensitivity) -> None:
    """A scan that never cut anything would report the floor alone."""
    assert max(losses[-1] for losses in scanned.added_loss.values()) > 0.1


def test_the_same_scan_twice(context: TrialContext, scanned: Sensitivity) -> None:
    torch.manual_seed(123)
    assert scan(context, "l2") == scanned


def test_the_dense_model_is_not_touched(context: TrialContext) -> None:
    before = copy.deepcopy(context.task.dense.state_dict())
    scan(context, "taylor", (0.5,))
    after = context.task.dense.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert not context.task.dense.training
    assert all(parameter.grad is None for parameter in context.task.dense.parameters())


@pytest.mark.parametrize(("criterion", "trains"), [("l2", False), ("taylor", True), ("mean_activation", False)])
def test_samples_are_counted_exactly(criterion: str, trains: bool) -> None:
    context = TrialContext.of(image_task(model=Counting(trained_resnet()).eval()))
    SEEN.clear()
    found = scan(context, criterion, (0.5, 0.25))
    held = sum(batch.size for batch in context.task.calibration)
    assert found.samples_trained == (held if trains else 0)
    assert sum(SEEN) == found.samples_forward + found.samples_trained
    assert (found.work.forward, found.work.trained) == (found.samples_forward, found.samples_trained)


def test_only_training_data_is_looked_at() -> None:
    """Another search split changes nothing: it is not spent on the scan."""
    task = image_task()
    other = image_task(search=(torch.randn(60, 1, 8, 8), torch.randint(4, (60,))), train=task.train_split)
    first = scan(TrialContext.of(task), "l2", (0.5,))
    second = scan(TrialContext.of(other), "l2", (0.5,))
    assert first.added_loss == second.added_loss


def test_added_interpolates_between_what_was_measured() -> None:
    found = Sensitivity(
        keep_shares=(0.5, 0.25), added_loss={"a": (1.0, 3.0)}, criterion="l2", samples_forward=0, samples_trained=0
    )
    assert found.added("a", 1.0) == 0.0
    assert found.added("a", 0.5) == pytest.approx(1.0)
    assert found.added("a", 0.25) == pytest.approx(3.0)
    # Halfway in the logarithm of the share.
    assert found.added("a", float(np.sqrt(0.5 * 0.25))) == pytest.approx(2.0)
    # Beyond the last share the last slope goes on: 2 of loss for each halving.
    assert found.added("a", 0.125) == pytest.approx(5.0)


def test_json_round_trip(scanned: Sensitivity) -> None:
    text = scanned.to_json()
    assert Sensitivity.from_json(text) == scanned
    assert json.loads(text)["version"] == 1


@pytest.mark.parametrize("text", ["", "nonsense", "[]", "null", "{}", '{"version": 1, "keep_shares": 3}'])
def test_text_that_is_no_scan(text: str) -> None:
    with pytest.raises(StorageError, match=r"a sensitivity file(: its version)? must"):
        Sensitivity.from_json(text)


def test_a_scan_of_a_later_version_is_refused(scanned: Sensitivity) -> None:
    later = json.loads(scanned.to_json()) | {"version": 99}
    with pytest.raises(StorageError, match="version"):
        Sensitivity.from_json(json.dumps(later))


def test_a_scan_can_not_be_changed(scanned: Sensitivity) -> None:
    with pytest.raises(TypeError):
        scanned.added_loss["stem.0"] = (1.0,)  # type: ignore[index]
    assert replace(scanned, criterion="l1").added_loss == scanned.added_loss


def test_a_loss_that_is_not_finite_is_a_large_one() -> None:
    """A cut that makes the loss overflow is the worst there is, not a crash and not a free group."""

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        value = nn.functional.cross_entropy(outputs, targets)
        return value if value < 0.9 else value * float("inf")

    context = TrialContext.of(image_task(model=trained_resnet(THREE), loss=loss))
    found = scan(context, "l2", (0.5, 0.1))
    worst = [losses[-1] for losses in found.added_loss.values()]
    assert all(np.isfinite(worst))
    assert max(worst) > 1e5


def test_a_group_is_not_scanned_below_what_it_needs() -> None:
    """Its channels are squeezed, so that one of them would lose its axis."""
    whole = TrialContext.of(image_task(model=trained_resnet(THREE)))
    groups = tuple(replace(group, min_channels=group.channels // 2) for group in whole.topology.groups)
    found = scan(replace(whole, topology=replace(whole.topology, groups=groups)), "l2", (0.5, 0.1))
    assert all(losses[0] == pytest.approx(losses[1], abs=1e-3) for losses in found.added_loss.values())


def forwards(context: TrialContext, shares: int, samples: int, criterion: str = "l2") -> int:
    """What a scan sees: the dense model once, and each cut one twice, to recalibrate and to take its loss."""
    once = 2 if criterion == "mean_activation" else 1
    return samples * (once + 2 * (shares * len(context.topology.groups) + len(context.topology.blocks)))


@pytest.mark.parametrize("criterion", ["l2", "mean_activation"])
def test_a_short_scan_takes_fewer_shares_and_then_fewer_samples(context: TrialContext, criterion: str) -> None:
    """100 calibration samples and four shares, which is more than any of these allow."""
    for shares, samples in ((3, 100), (2, 100), (2, 57), (2, 32), (1, 40), (1, 5), (1, 2)):
        found = plan_scan(context, criterion, samples=forwards(context, shares, samples, criterion))
        assert (len(found.keep_shares), found.samples) == (shares, samples)
        assert found.forward == forwards(context, shares, samples, criterion)
        assert f"{shares} of 4 shares of each group, on {samples} of 100" in found.note
        assert set(found.keep_shares) <= set(KEEP_SHARES)
        assert list(found.keep_shares) == sorted(found.keep_shares, reverse=True)


def test_a_scan_that_has_enough_is_the_whole_one(context: TrialContext, scanned: Sensitivity) -> None:
    enough = scan(context, "l2", samples=scanned.samples_forward)
    assert enough == scanned
    assert enough.note == ""
    assert plan_scan(context, "l2", samples=scanned.samples_forward - 1).note != ""


@pytest.mark.parametrize("samples", [40, 333, 1000, 2999])
def test_no_scan_sees_more_than_it_may(samples: int) -> None:
    context = TrialContext.of(image_task(model=Counting(trained_resnet()).eval()))
    SEEN.clear()
    found = scan(context, "mean_activation", samples=samples)
    assert sum(SEEN) == found.samples_forward <= samples
    assert found.samples_forward > samples / 2, "what may be seen is made use of"
    assert str(samples) in found.note.replace(",", "")
    assert list(found.added_loss) == list(context.topology.widths)
    assert Sensitivity.from_json(found.to_json()) == found


def test_a_scan_that_can_not_be_had_for_so_few(context: TrialContext) -> None:
    least = forwards(context, 1, 2)
    assert plan_scan(context, "l2", samples=least).samples == 2
    with pytest.raises(ConfigurationError, match=f"scan_samples must be >= {least}, .*got {least - 1}.*scan=False"):
        plan_scan(context, "l2", samples=least - 1)


def test_a_scan_from_before_there_were_notes_is_read(scanned: Sensitivity) -> None:
    earlier = json.loads(scanned.to_json())
    del earlier["note"]
    assert Sensitivity.from_json(json.dumps(earlier)) == scanned


def test_added_at_many_shares_at_once(scanned: Sensitivity) -> None:
    name, shares = next(iter(scanned.added_loss)), np.array([1.0, 0.8, 0.3, 0.01])
    assert scanned.curve(name, shares).tolist() == [scanned.added(name, float(share)) for share in shares]


def test_the_scan_of_ties_is_a_sum() -> None:
    scan = Sensitivity(
        keep_shares=(0.5,), added_loss={"a": (1.0,), "b": (2.0,), "c": (4.0,)}, criterion="l2", samples_forward=0,
        samples_trained=0,
    )  # fmt: skip
    assert dict(scan.summed({"a": ("a", "c"), "b": ("b",)}).added_loss) == {"a": (5.0,), "b": (2.0,)}


def deep(**changes: object) -> TrialContext:
    """A context whose blocks may go beside its channels."""
    return TrialContext.of(image_task(**changes), kinds=("channels", "blocks", "layers"))


@torch.no_grad()
def test_each_block_is_left_out_alone_with_its_loss_and_its_costs() -> None:
    """The model without it, recalibrated as a cut is; no loss is raised to a floor."""
    context = deep()
    found, task = scan(context, "l2", (0.5,)), context.task
    names = [block.name for block in context.topology.blocks]
    assert [one.name for one in found.dropped] == names == ["blocks.0"]
    model = cut(task.dense, context.topology, KeptChannels(groups={}, dropped=("blocks.0",)))
    recalibrate(model, task.calibration, task.least_batch)
    (only,) = found.dropped
    assert only.added_loss == pytest.approx(
        mean_loss(context, model) - mean_loss(context, task.dense), rel=1e-4, abs=1e-6
    )
    assert only.parameters == pytest.approx(1 - count_parameters(model) / count_parameters(task.dense))
    assert only.multiply_adds == pytest.approx(1 - context.topology.share({}, ("blocks.0",)))
    assert found.added_loss == scan(TrialContext.of(image_task(), kinds=("channels",)), "l2", (0.5,)).added_loss


def mean_loss(context: TrialContext, model: nn.Module) -> float:
    held = sum(batch.size for batch in context.task.calibration)
    losses = [
        float(context.task.objective(call(model.eval(), batch.inputs), batch.targets)) * batch.size
        for batch in context.task.calibration
    ]
    return sum(losses) / held


def test_a_block_that_does_harm_lowers_the_loss() -> None:
    torch.manual_seed(0)
    harmful = copy.deepcopy(trained_resnet(THREE))
    norm = harmful.get_submodule("blocks.0.bn2")
    with torch.no_grad():
        norm.weight.copy_(8 * torch.randn(norm.weight.shape))
    context = deep(model=harmful.eval(), require_trained=False)
    (only,) = scan(context, "l2", (0.5,)).dropped
    whole, left = scan(deep(model=trained_resnet(THREE)), "l2", (0.5,)).dropped[0].added_loss, only.added_loss
    assert left < 0 < whole


def test_samples_of_blocks_are_counted_and_kept_to() -> None:
    context = deep(model=Counting(trained_resnet()).eval())
    SEEN.clear()
    steps: list[tuple[int, int]] = []
    found = scan(context, "l2", (0.5, 0.25), on_part=lambda done, total: steps.append((done, total)))
    assert sum(SEEN) == found.samples_forward == plan_scan(context, "l2", (0.5, 0.25)).forward
    total = len(context.topology.groups) + 1
    assert steps == [(done, total) for done in range(1, total + 1)]
    limit = found.samples_forward // 2
    few = scan(context, "l2", samples=limit)
    assert few.samples_forward <= limit
    assert len(few.dropped) == 1
    with pytest.raises(ConfigurationError, match="one share of each group and each block"):
        plan_scan(context, "l2", samples=3)


def test_what_was_left_out_is_stored_and_a_scan_of_before_has_none() -> None:
    found = scan(deep(), "l2", (0.5,))
    assert Sensitivity.from_json(found.to_json()) == found
    stored = json.loads(found.to_json())
    assert stored["dropped"] == [
        {
            "name": "blocks.0",
            "added_loss": found.dropped[0].added_loss,
            "parameters": found.dropped[0].parameters,
            "multiply_adds": found.dropped[0].multiply_adds,
        }
    ]
    del stored["dropped"]
    assert Sensitivity.from_json(json.dumps(stored)) == replace(found, dropped=())
    assert found.summed({name: (name,) for name in found.added_loss}).dropped == found.dropped
