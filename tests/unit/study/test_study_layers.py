"""Studies that may drop layers of an encoder whose norms come last, beside heads and channels."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import autoprune
from autoprune.errors import AutopruneWarning, ConfigurationError, StorageError
from autoprune.measure.cost import count_multiply_adds, count_parameters
from autoprune.plan.allocation import BlockPlan
from autoprune.plan.plan import PruningPlan
from autoprune.plan.recovery import RecoveryPlan
from autoprune.report.html import write_report
from autoprune.search.space.encode import distributions, parameters_of
from autoprune.trial.candidate import evaluate_plan, resolve_plan
from autoprune.trial.context import TrialContext
from tests.slow import slow
from tests.tasks import image_task
from tests.unit.study.small import settings, space

KINDS = ("layers", "heads", "channels")


class Encoder(nn.Module):
    """Rows of an image as a sequence."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(12, 2, 16, batch_first=True, dropout=0.0)
        self.inp, self.out = nn.Linear(8, 12), nn.Linear(12, 4)
        self.encoder = nn.TransformerEncoder(layer, 3, enable_nested_tensor=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.encoder(self.inp(x.squeeze(1))).mean(1))


@functools.cache
def task() -> autoprune.PreparedTask:
    torch.manual_seed(0)
    return image_task(model=Encoder().eval(), require_trained=False)


@functools.cache
def context(*kinds: str) -> TrialContext:
    return TrialContext.of(task(), kinds=kinds or KINDS)


@pytest.mark.parametrize("criteria", [(), slow(("block_influence", "added_loss"))], ids=["each", "by number"])
def test_a_study_of_layers_heads_and_channels(criteria: tuple[str, ...], tmp_path: Path) -> None:
    chosen = settings(trials=6, uniform_points=1, seed=1, space=space(kinds=KINDS, block_criteria=criteria))
    study = autoprune.Study.create(task(), chosen, out=tmp_path / "run")
    study.run()
    assert not (study.folder.path / "failures").exists()
    without = [record for record in study.records if record.dropped]
    assert without
    for record in without:
        assert set(record.dropped) <= {f"encoder.layers.{number}" for number in range(3)}
        model = study.rebuild(record.number)
        assert record.search.parameters == count_parameters(model)
        assert record.search.multiply_adds == count_multiply_adds(model, task().example_inputs)
    again = autoprune.Study.open(study.folder.path)
    assert [record.dropped for record in again.records] == [record.dropped for record in study.records]
    assert write_report(study.stored, tmp_path / "report.html").exists()


def test_two_of_three_layers_go_by_influence_or_by_loss() -> None:
    for criterion in ("block_influence", "added_loss"):
        plan = PruningPlan(layers=BlockPlan(count=2, criterion=criterion), recovery=RecoveryPlan(steps=0))
        resolved, seen = resolve_plan(context(), plan)
        assert len(resolved.dropped) == 2
        assert resolved.plan.layers is None
        assert seen.forward > 0
        assert evaluate_plan(context(), plan).kept.dropped == resolved.dropped
    with pytest.raises(ConfigurationError, match="the count of layers must be at most 3, but got 4"):
        resolve_plan(context(), PruningPlan(layers=BlockPlan(count=4)))


def test_layers_and_blocks_are_no_choice_twice() -> None:
    every = space(kinds=("blocks", "layers"), block_criteria=("random",), learning_rate=0.1)
    topology = context("blocks", "layers").topology
    numbers = {name: drawn.high for name, drawn in distributions(every, topology).items()}
    assert numbers == {"blocks": 6, "layers": 3}, "attention and feed-forward of each layer, and each layer"
    resnet = TrialContext.of(image_task(), kinds=("blocks", "layers")).topology
    assert set(distributions(every, resnet)) == {"layers"}, "its block is a layer"
    each = distributions(space(kinds=("layers",), learning_rate=0.1), context("layers").topology)
    assert set(each) == {f"drop/encoder.layers.{number}" for number in range(3)}


def test_a_plan_names_the_whole_for_its_parts() -> None:
    topology = context("blocks", "layers").topology
    parts = ("encoder.layers.0", "encoder.layers.0.self_attn", "encoder.layers.1.linear1")
    resolved, _ = resolve_plan(context("blocks", "layers"), PruningPlan(dropped=parts))
    assert resolved.dropped == ("encoder.layers.0", "encoder.layers.1.linear1")
    known = parameters_of(space(kinds=("blocks", "layers")), topology, resolved.plan)
    assert {name for name, value in known.items() if value is True} == {
        *(f"drop/{name}" for name in parts),
        "drop/encoder.layers.0.linear1",
    }


def test_a_study_without_layers_says_why(tmp_path: Path) -> None:
    flat = image_task(
        model=nn.Sequential(nn.Flatten(), nn.Linear(64, 9), nn.ReLU(), nn.Linear(9, 4)), require_trained=False
    )
    with pytest.raises(ConfigurationError, match=r"No layers can go: each of 1 and 3 gives another shape or"):
        autoprune.Study.create(flat, settings(space=space(kinds=("layers",))), out=tmp_path / "run")
    with pytest.warns(AutopruneWarning, match="No layers can go"):
        autoprune.Study.create(flat, settings(space=space(kinds=("layers", "channels"))), out=tmp_path / "run")


def test_a_study_of_layers_alone_scans_them(tmp_path: Path) -> None:
    study = autoprune.Study.create(task(), settings(trials=4, space=space(kinds=("layers",))), out=tmp_path / "run")
    told: list[tuple[int, int]] = []
    study.run(on_progress=lambda progress: told.append(progress.part) if progress.stage == "scan" else None)
    assert told == [(done, 3) for done in range(4)]
    scanned = study.folder.read_sensitivity()
    assert scanned is not None
    assert [one.name for one in scanned.dropped] == [f"encoder.layers.{number}" for number in range(3)]
    assert scanned.added_loss == {}
    costs = {row.name: row.multiply_adds_saved for row in study.folder.read_study().blocks}
    assert {one.name: one.multiply_adds for one in scanned.dropped} == pytest.approx(costs)
    text = write_report(study.stored, tmp_path / "report.html").read_text()
    assert "Sensitivity of blocks and layers" in text
    path = study.folder.path / "sensitivity.json"
    path.write_text(path.read_text().replace("encoder.layers.0", "encoder.layers.9"))
    with pytest.raises(StorageError, match=r"dropped of .* must hold blocks of study.json, but got others, such as"):
        study.folder.read_sensitivity()
