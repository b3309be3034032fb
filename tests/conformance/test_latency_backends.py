"""Every latency backend of the registry, on real models."""

from __future__ import annotations

import gc
import math
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from autoprune.measure.latency.backend import BackendError
from autoprune.measure.latency.backends import LATENCY_BACKENDS, backend_of
from autoprune.measure.latency.comparer import LatencyComparer
from autoprune.measure.latency.inputs import tensors_of
from autoprune.measure.latency.onnx_file import check_outputs
from autoprune.measure.latency.timing import Timing
from autoprune.records.profile import LatencyProfile
from autoprune.task.data import Inputs, call

ONCE = Timing(bursts=1)


class Reads(nn.Module):
    """Two inputs, two outputs, a norm and a branch that is off in eval mode."""

    def __init__(self, width: int = 6) -> None:
        super().__init__()
        self.embed = nn.Embedding(10, width)
        self.norm = nn.BatchNorm1d(width)
        self.head = nn.Linear(width, 3)

    def forward(self, ids: Tensor, mask: Tensor) -> dict[str, Tensor]:
        hidden = self.embed(ids) * mask.unsqueeze(-1)
        pooled = self.norm(hidden.sum(1) / mask.sum(1, keepdim=True))
        return {"logits": self.head(nn.functional.dropout(pooled, 0.5, self.training)), "hidden": hidden}


class Gamma(nn.Module):
    """An operator that ONNX does not have."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        return torch.lgamma(self.linear(x).abs() + 1)


IDS, MASK = torch.arange(8).view(2, 4), torch.tensor([[1.0, 1, 1, 1], [1, 1, 0, 0]])
INPUTS: dict[str, Inputs] = {"positional": (IDS, MASK), "keywords": {"mask": MASK, "ids": IDS}}


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Files of the backends go to a folder of the test, which is empty at its end."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    yield
    gc.collect()  # a comparer that was not closed closes with its end
    left = [path.name for path in Path(tempfile.gettempdir()).iterdir() if not path.name.endswith(".lock")]
    assert [name for name in left if name.startswith("autoprune")] == []


def profile(name: str, **given: object) -> LatencyProfile:
    """A profile of a backend that can run here, else the test is skipped."""
    reason = LATENCY_BACKENDS[name].lacks()
    if reason:
        pytest.skip(reason)
    return LatencyProfile(name="test", backend=name, **given)  # type: ignore[arg-type]


@pytest.mark.parametrize("inputs", INPUTS.values(), ids=INPUTS)
@pytest.mark.parametrize("name", LATENCY_BACKENDS)
def test_outputs_are_those_of_pytorch(name: str, inputs: Inputs) -> None:
    model, chosen = Reads().eval(), profile(name)
    prepared = LATENCY_BACKENDS[name].prepare(model, inputs, chosen)
    try:
        with torch.no_grad():
            check_outputs(tensors_of(call(model, inputs)), prepared.outputs())
        for _ in range(2):
            loaded = prepared.load()
            loaded.run()
            if loaded.device_ms is not None:
                assert loaded.device_ms(2) > 0
    finally:
        prepared.close()


@pytest.mark.parametrize("name", LATENCY_BACKENDS)
def test_a_model_is_compared(name: str) -> None:
    chosen = profile(name, batch_size=3)
    model, dense = Reads().train(), Reads(9).train()
    comparer = LatencyComparer(dense, INPUTS["keywords"], chosen, ONCE)
    found = comparer.compare(model)
    comparer.close()
    assert (found.backend, found.fallback) == (name, "")
    assert 0 < found.low_ms <= found.latency_ms <= found.high_ms < math.inf
    assert 0 < found.ratio_low <= found.ratio <= found.ratio_high < math.inf
    assert found.dense_ms > 0
    assert found.bursts == 1
    assert found.clock in ("wall", LATENCY_BACKENDS[name].clock)
    assert model.training and dense.training
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("name", LATENCY_BACKENDS)
def test_every_backend_has_a_title(name: str) -> None:
    assert LATENCY_BACKENDS[name].title
    assert LATENCY_BACKENDS[name].clock in ("processor", "wall", "device")


@pytest.mark.parametrize("name", [name for name, one in LATENCY_BACKENDS.items() if one.clock == "processor"])
def test_one_thread_is_the_calling_thread(name: str) -> None:
    """Else processor time of the thread would not be that of the model."""
    chosen = profile(name)
    model = nn.Sequential(nn.Linear(256, 512), nn.ReLU(), nn.Linear(512, 256)).eval()
    found = LatencyComparer(model, torch.randn(32, 256), chosen, Timing(bursts=2)).compare(model)
    assert found.clock == "processor"


@pytest.mark.parametrize("dtype", ["float64", "bfloat16"])
def test_a_number_type_is_that_of_the_model_that_is_timed(dtype: str) -> None:
    seen: list[torch.dtype] = []
    model = nn.Linear(3, 2)
    model.register_forward_pre_hook(lambda _, args: seen.append(args[0].dtype))
    found = LatencyComparer(model, torch.randn(2, 3), profile("eager", dtype=dtype), ONCE).compare(model)
    assert set(seen) == {getattr(torch, dtype)}
    assert model.weight.dtype == torch.float32
    assert found.latency_ms > 0


def test_auto_is_what_people_deploy() -> None:
    profile("onnxruntime")
    assert backend_of(LatencyProfile(name="a")) == "onnxruntime"


def test_without_its_packages_auto_is_eager(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert backend_of(LatencyProfile(name="a")) == "eager"
    assert LATENCY_BACKENDS["onnxruntime"].lacks().endswith("pip install 'autoprune[onnx]' installs what it needs.")


def test_a_model_that_does_not_export_is_timed_by_eager_and_the_operator_is_named() -> None:
    comparer = LatencyComparer(Gamma(), torch.randn(2, 3), profile("onnxruntime"), ONCE)
    found = comparer.compare(Gamma())
    assert found.backend == "eager"
    assert (
        "onnxruntime does not run the dense model: it does not export to ONNX (operator prims.lgamma" in found.fallback
    )


def test_a_model_with_other_outputs_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """The exported model is one of other weights."""
    from autoprune.measure.latency import exported

    export, other = exported.export_onnx, nn.Linear(3, 2).eval()
    monkeypatch.setattr(exported, "export_onnx", lambda model, inputs, to: export(other, inputs, to))
    found = LatencyComparer(nn.Linear(3, 2), torch.randn(2, 3), profile("onnxruntime"), ONCE).compare(nn.Linear(3, 2))
    assert found.backend == "eager"
    assert "its output 0 differs from PyTorch's by" in found.fallback


NAN = float("nan")
OUTPUTS: dict[str, tuple[Tensor, Tensor, str]] = {
    "equal": (torch.tensor([1.0, NAN]), torch.tensor([1.0, NAN]), ""),
    "near": (torch.tensor([100.0, 1.0]), torch.tensor([100.0, 1.01]), ""),
    "coarse types may differ more": (torch.ones(2).bfloat16(), torch.tensor([1.0, 0.98]).bfloat16(), ""),
    "off": (torch.tensor([1.0, 1.0]), torch.tensor([1.0, 1.01]), "output 0 differs from PyTorch's by 0.01"),
    "not finite": (torch.tensor([1.0, 1.0]), torch.tensor([1.0, NAN]), "differs from PyTorch's by inf"),
    "finite": (torch.tensor([1.0, NAN]), torch.tensor([1.0, 1.0]), "differs from PyTorch's by inf"),
    "another class": (torch.tensor([3, 4]), torch.tensor([3, 5]), "differs"),
    "shape": (torch.ones(2, 1), torch.ones(2), r"output 0 has the shape \[2\] in place of \[2, 1\]"),
}


@pytest.mark.parametrize(("right", "other", "reason"), OUTPUTS.values(), ids=OUTPUTS)
def test_outputs_are_compared(right: Tensor, other: Tensor, reason: str) -> None:
    if not reason:
        check_outputs([right], [other])
        return
    with pytest.raises(BackendError, match=reason):
        check_outputs([right], [other])
    with pytest.raises(BackendError, match="its outputs are 0 tensors, while PyTorch gives 1"):
        check_outputs([right], [])
