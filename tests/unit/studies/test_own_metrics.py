"""Both scripts of the study run, and the functions in them are what the records hold."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest
import torch

from autoprune.measure.memory import peak_memory
from autoprune.study.study import Study
from autoprune.task.prepare import prepare
from studies.own_metrics import functions, study


@pytest.mark.parametrize(
    ("script", "names"),
    [
        (study, {"quality", "confidence", "confident_mistakes"}),
        (functions, {"accuracy", "worst_class", "cross_entropy"}),
    ],
)
def test_the_scripts_run(script: ModuleType, names: set[str], tmp_path: Path) -> None:
    task = script.task()
    brief = script.settings.changed({"trials": 2, "recovery.steps": 2, "measure.latency_rounds": 0})
    found = Study.create(task, brief, out=tmp_path / "run")
    front = found.run()
    table = front.table()
    assert {f"search_{task.quality}", f"test_{task.quality}", "peak_memory_bytes"} <= set(table)
    assert table["peak_memory_bytes"].tolist() == [
        peak_memory(found.rebuild(number), task.example_inputs) for number in table["candidate"]
    ]
    dense = found.records[0]
    assert set(dense.search.metrics) == names
    assert dense.test is not None
    assert set(dense.test.metrics) == names


def test_the_numbers_of_the_dense_model() -> None:
    task = prepare(study.task())
    assert task.evaluate is not None
    with torch.no_grad():
        numbers = task.evaluate(task.dense)
    outputs, (images, targets) = task.dense, study.data()["search"]
    with torch.no_grad():
        right = (outputs(images).argmax(1) == targets).float().mean()
    assert float(numbers["quality"]) == pytest.approx(float(right))  # type: ignore[arg-type]
    assert right > 0.9
