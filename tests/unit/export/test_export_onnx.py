"""ONNX files are only written with outputs that equal the model's."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import autoprune
from autoprune.errors import ConfigurationError, UserCodeError
from autoprune.export import onnx
from autoprune.export.exportable import Exportable
from autoprune.export.onnx import export_onnx_model
from autoprune.measure.latency import onnx_file
from autoprune.plan.recovery import RecoveryPlan
from autoprune.trial.candidate import evaluate_plan
from autoprune.trial.context import TrialContext
from tests.tasks import flat_task


@pytest.fixture(scope="module")
def exportable() -> Exportable:
    context = TrialContext.of(flat_task())
    return Exportable.of_candidate(
        evaluate_plan(context, autoprune.PruningPlan(recovery=RecoveryPlan(steps=0))), context
    )


class Gamma(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.lgamma(x)


def test_a_model_that_does_not_export_names_the_operator(exportable: Exportable, tmp_path: Path) -> None:
    with pytest.raises(
        UserCodeError, match=r"not written as ONNX: it does not export to ONNX \(operator prims\.lgamma"
    ):
        export_onnx_model(replace(exportable, model=Gamma()), tmp_path / "m.onnx")
    assert not list(tmp_path.iterdir())


def test_a_file_with_other_outputs_is_not_written(
    exportable: Exportable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        onnx, "onnx_outputs", lambda file, arrays: [1.1 * one for one in onnx_file.onnx_outputs(file, arrays)]
    )
    with pytest.raises(UserCodeError, match=r"its output 0 differs from PyTorch's by 0\.1 of the largest value"):
        export_onnx_model(exportable, tmp_path / "m.onnx")
    assert not list(tmp_path.iterdir())


def test_large_weights_lie_beside_the_file(
    exportable: Exportable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_file, "_LARGE_BYTES", 100)
    written = export_onnx_model(exportable, tmp_path / "deep" / "m.onnx")
    assert [path.name for path in written] == ["m.onnx", "m.onnx.data"]
    assert all(path.is_file() for path in written)
    assert exportable.model is not None
    inputs = exportable.example_inputs
    assert isinstance(inputs, Tensor)
    with torch.no_grad():
        read = torch.from_numpy(onnx_file.onnx_outputs(written[0], [inputs.numpy()])[0])
        assert torch.allclose(read, exportable.model(inputs), atol=1e-4)


def test_missing_packages_are_named(exportable: Exportable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigurationError, match=r"pip install 'autoprune\[onnx\]'"):
        export_onnx_model(exportable, tmp_path / "m.onnx")


def test_without_onnx_runtime_the_reference_compares(
    exportable: Exportable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = onnx_file.importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "onnxruntime" else plain(name))
    assert export_onnx_model(exportable, tmp_path / "m.onnx") == (tmp_path / "m.onnx",)
