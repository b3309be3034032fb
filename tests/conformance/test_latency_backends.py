"""Every latency backend of the registry, on real models."""

from __future__ import annotations

import gc
import getpass
import math
import os
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from autoprune.errors import ConfigurationError, UserCodeError
from autoprune.measure.latency.backend import BackendError
from autoprune.measure.latency.backends import LATENCY_BACKENDS, backend_of
from autoprune.measure.latency.comparer import LatencyComparer
from autoprune.measure.latency.inputs import tensors_of
from autoprune.measure.latency.onnx_file import check_outputs, export_onnx
from autoprune.measure.latency.remote import device_times
from autoprune.measure.latency.timing import Timing
from autoprune.records.profile import LatencyProfile
from autoprune.task.data import Inputs, call
from tests.processes import is_running

ONCE = Timing(bursts=1, seconds=0.5)
#: The first compilation of a process takes half a minute.
NAMES = [pytest.param(name, marks=pytest.mark.slow) if name == "compile" else name for name in LATENCY_BACKENDS]


#: Where the compiler keeps what it has compiled, from one run to the next.
COMPILED = str(Path(tempfile.gettempdir()) / f"torchinductor_{getpass.getuser()}")


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


#: A device that gives times after other output.
PHONE = "import os, sys; assert os.path.getsize(sys.argv[1]) > 0; print('warming up'); print([2.5, 1.5, 2.0])"
IDS, MASK = torch.arange(8).view(2, 4), torch.tensor([[1.0, 1, 1, 1], [1, 1, 0, 0]])
INPUTS: dict[str, Inputs] = {"positional": (IDS, MASK), "keywords": {"mask": MASK, "ids": IDS}}


#: Type and tensors of a model and its inputs -> its ONNX file: torch's exporter takes a second for the smallest.
_FILES: dict[str, bytes] = {}


@pytest.fixture(autouse=True)
def exports(monkeypatch: pytest.MonkeyPatch) -> None:
    """The usual exporter exports each model once."""

    def export(model: nn.Module, inputs: Inputs, to: Path) -> tuple[Path, ...]:
        tensors = [*model.state_dict().values(), *tensors_of(inputs)]
        key = repr((model, [(tensor.dtype, tensor.tolist()) for tensor in tensors]))
        if key not in _FILES:
            (file,) = export_onnx(model, inputs, to)
            _FILES[key] = file.read_bytes()
        to.write_bytes(_FILES[key])
        return (to,)

    for module in ("exported", "remote"):
        monkeypatch.setattr(f"autoprune.measure.latency.{module}.export_onnx", export)


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Files of the backends go to a folder of the test, which is empty at its end; the compiler's stay elsewhere."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", os.environ.get("TORCHINDUCTOR_CACHE_DIR", COMPILED))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    yield
    if left_behind():
        gc.collect()  # a comparer that was not closed closes with its end
    assert left_behind() == []


def left_behind() -> list[str]:
    names = [path.name for path in Path(tempfile.gettempdir()).iterdir()]
    return [name for name in names if name.startswith("autoprune") and not name.endswith(".lock")]


def profile(name: str, **given: object) -> LatencyProfile:
    """A profile of a backend that can run here, else the test is skipped."""
    reason = LATENCY_BACKENDS[name].lacks()
    if reason:
        pytest.skip(reason)
    command = f"{shlex.quote(sys.executable)} -c {shlex.quote(PHONE)}" if name == "remote" else ""
    return LatencyProfile(name="test", backend=name, command=command, **given)  # type: ignore[arg-type]


@pytest.mark.parametrize("inputs", INPUTS.values(), ids=INPUTS)
@pytest.mark.parametrize("name", NAMES)
def test_outputs_are_those_of_pytorch(name: str, inputs: Inputs) -> None:
    model, chosen = Reads().eval(), profile(name)
    prepared = LATENCY_BACKENDS[name].prepare(model, inputs, chosen)
    try:
        with torch.no_grad():
            check_outputs(tensors_of(call(model, inputs)), prepared.outputs())
        for _ in range(2):
            loaded = prepared.load()
            loaded.run()
            assert (loaded.device_ms is not None) == (LATENCY_BACKENDS[name].clock == "device")
            if loaded.device_ms is not None:
                assert min(loaded.device_ms()) > 0
    finally:
        prepared.close()


@pytest.mark.parametrize("name", NAMES)
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


@pytest.mark.parametrize("name", NAMES)
def test_one_thread_is_the_calling_thread(name: str) -> None:
    """Else processor time of the thread would not be that of the model."""
    chosen = profile(name)
    if LATENCY_BACKENDS[name].clock != "processor":
        return
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


def test_a_model_that_does_not_export_is_timed_by_eager_and_the_operator_is_named(
    capfd: pytest.CaptureFixture[str],
) -> None:
    comparer = LatencyComparer(Gamma(), torch.randn(2, 3), profile("onnxruntime"), ONCE)
    found = comparer.compare(Gamma())
    assert found.backend == "eager"
    assert (
        "onnxruntime does not run the dense model: it does not export to ONNX (operator prims.lgamma" in found.fallback
    )
    assert capfd.readouterr() == ("", ""), "exporters print nothing"


def test_a_model_with_other_outputs_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """The exported model is one of other weights."""
    from autoprune.measure.latency import exported

    export, other = exported.export_onnx, nn.Linear(3, 2).eval()
    quickly = exported.export_onnx_quickly
    monkeypatch.setattr(exported, "export_onnx_quickly", lambda model, inputs, to: quickly(other, inputs, to))
    assert LatencyComparer(other, torch.randn(2, 3), profile("onnxruntime"), ONCE).compare(nn.Linear(3, 2)).backend == (
        "onnxruntime"
    ), "where the quick exporter is wrong, the usual one exports"
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


# ---- a device elsewhere


def remote(command: str, model: nn.Module | None = None) -> LatencyComparer:
    chosen = LatencyProfile(name="phone", backend="remote", command=command)
    return LatencyComparer(model or nn.Linear(3, 2), torch.randn(2, 3), chosen, ONCE)


def test_a_command_gets_the_file_and_its_times_count() -> None:
    code = "import os, sys; size = os.path.getsize(sys.argv[2]); assert sys.argv[1] == '-m'; print([size * 1.0] * 3)"
    comparer = remote(f"{sys.executable} -c {shlex.quote(code)} -m {{model}} {{inputs}}", nn.Linear(3, 200))
    found = comparer.compare(nn.Linear(3, 2))
    assert (found.backend, found.clock, found.wall_ratio) == ("remote", "device", None)
    assert found.ratio == found.latency_ms / found.dense_ms < 1, "the file is smaller"


def test_a_function_gets_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_phone.py").write_text("def times(path):\n    return [float(path.stat().st_size)]\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert remote("my_phone:times", nn.Linear(3, 200)).compare(nn.Linear(3, 2)).ratio < 1


def leave(path: Path) -> list[float]:
    """A function of a device that ends the process."""
    sys.exit(3)


FAILURES = {
    "no_such_command_here": "the command no_such_command_here does not start",
    f"{sys.executable} -c 'import sys; sys.exit(3)'": "ended with 3: it printed no error",
    f"{sys.executable} -c 'raise OSError(\"no phone\")'": "ended with 1: OSError: no phone",
    f"{sys.executable} -c 'print(7)'": r"must give one or more milliseconds > 0 and below a day, not 7",
    f"{sys.executable} -c 'print([])'": r"must give one or more milliseconds > 0 and below a day, not \[\]",
    f"{sys.executable} -c 'print([0.0])'": r"must give one or more milliseconds > 0 and below a day, not \[0.0\]",
    f"{sys.executable} -c 'print([1e308, 1e308])'": r"below a day, not \[1e\+308, 1e\+308\]",
    f"{sys.executable} -c 'print([10**400])'": "below a day, not ",
    f"{sys.executable} -c 'print(\"[\" * 100_000)'": "must be a JSON list of milliseconds",
    "tests.conformance.test_latency_backends:leave": "leave failed: SystemExit",
    f"{sys.executable} -c 'print(\"done\")'": "must be a JSON list of milliseconds, not 'done'",
    f"{sys.executable} -c 'import sys; sys.stdout.buffer.write(bytes([255]))'": "must be a JSON list of milliseconds",
    f"{sys.executable} -c 'pass'": "must be a JSON list of milliseconds, not ''",
    "no_such_module:times": "no_such_module:times failed: ModuleNotFoundError",
}


@pytest.mark.parametrize(("command", "message"), FAILURES.items(), ids=map(str, range(len(FAILURES))))
def test_a_device_that_fails_says_why(command: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(BackendError, match=message):
        device_times(command, tmp_path / "model.onnx", tmp_path / "inputs.npz")()


def test_a_device_that_takes_too_long(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("autoprune.measure.latency.remote._SECONDS", 0.01)
    command = f"{sys.executable} -c 'import time; time.sleep(60)'"
    with pytest.raises(BackendError, match="took more than 0 seconds"):
        device_times(command, tmp_path / "model.onnx", tmp_path / "inputs.npz")()


def test_what_a_command_has_started_ends_with_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A script that waits for a phone has started another program, which would go on for ever."""
    told = tmp_path / "started"

    def communicate(process: subprocess.Popen[str], timeout: float) -> None:
        while not (told.exists() and told.read_text().endswith("\n")):
            time.sleep(0.01)
        raise subprocess.TimeoutExpired(process.args, timeout)

    monkeypatch.setattr(subprocess.Popen, "communicate", communicate)
    command = f"sh -c 'sleep 1000 & echo $! > {told}; wait'"
    with pytest.raises(BackendError, match="the command sh took more than 600 seconds"):
        device_times(command, tmp_path / "model.onnx", tmp_path / "inputs.npz")()
    started = int(told.read_text())
    while is_running(started):  # for ever where it goes on, which the test's own time limit ends
        time.sleep(0.01)


def test_a_device_that_fails_at_once_is_an_error_of_the_profile() -> None:
    with pytest.raises(ConfigurationError, match=r"profile phone must .* but got the command nothing does not start"):
        remote("nothing").compare(nn.Linear(3, 2))


def test_a_device_that_goes_away_ends_the_run_with_a_reason(tmp_path: Path) -> None:
    (tmp_path / "phone").touch()
    comparer = remote(f"{sys.executable} -c 'import os; os.stat(\"{tmp_path / 'phone'}\"); print([1.0])'")
    assert comparer.compare(nn.Linear(3, 2)).ratio == 1
    (tmp_path / "phone").unlink()
    with pytest.raises(UserCodeError, match=r"profile phone could not be measured.*FileNotFoundError.*are kept"):
        comparer.compare(nn.Linear(3, 2))


@pytest.mark.slow
def test_many_models_are_compiled_each_for_itself() -> None:
    """More than torch keeps for one piece of code, after which it would run them uncompiled or refuse."""
    chosen = profile("compile")
    for width in range(2, 2 + torch._dynamo.config.recompile_limit + 2):
        prepared = LATENCY_BACKENDS["compile"].prepare(nn.Linear(3, width).eval(), torch.randn(2, 3), chosen)
        assert prepared.outputs()[0].shape == (2, width)


@pytest.mark.slow
def test_a_model_of_several_graphs_is_not_compiled() -> None:
    class Breaks(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            torch._dynamo.graph_break()
            return x + 1

    found = LatencyComparer(Breaks(), torch.randn(2, 3), profile("compile"), ONCE).compare(Breaks())
    assert found.backend == "eager"
    assert "compile does not run the dense model: torch.compile does not take it as one graph" in found.fallback
