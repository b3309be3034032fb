"""Counters of energy: what is counted, and why one cannot be read."""

from __future__ import annotations

import itertools
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch
from torch import nn

from autoprune.measure.energy.counter import CounterError
from autoprune.measure.energy.counters import counter_of, lacks_energy
from autoprune.measure.energy.nvml import NvmlCounter
from autoprune.measure.energy.rapl import RaplCounter
from autoprune.measure.latency.host import Host
from autoprune.records.profile import LatencyProfile
from tests.unit.measure.energy.zones import ZONES, add, write_zones

NOBODY = 65534


def test_packages_are_added_and_nothing_counts_twice(tmp_path: Path) -> None:
    counter = RaplCounter(write_zones(tmp_path), _seconds())
    assert counter.lacks() == ""
    assert counter.joules() == 0.0
    for zone in ZONES:
        add(tmp_path, 1_000_000, zone)
    assert counter.joules() == pytest.approx(2.0), "two packages; parts, the platform and a second way add nothing"
    add(tmp_path, 500_000, "intel-rapl:1")
    assert counter.joules() == pytest.approx(2.5)


def test_a_counter_that_starts_again_never_goes_back(tmp_path: Path) -> None:
    counter = RaplCounter(write_zones(tmp_path, energy=9_900_000, most=10_000_000))
    assert counter.joules() == 0.0
    add(tmp_path, 300_000)
    assert int((tmp_path / "intel-rapl:0" / "energy_uj").read_text()) == 200_000
    assert counter.joules() == pytest.approx(0.3)
    add(tmp_path, 300_000, "intel-rapl:1")
    assert counter.joules() == pytest.approx(0.6)


def _seconds() -> Callable[[], float]:
    """A clock that moves by a second with each reading."""
    passed = itertools.count()
    return lambda: float(next(passed))


def test_a_counter_that_is_set_back_gives_no_number_for_that_stretch(tmp_path: Path) -> None:
    """A wrap of 262 kJ within two seconds, for each of two packages, would be a power of 130 kW."""
    counter = RaplCounter(write_zones(tmp_path, energy=200_000_000_000), _seconds())
    counter.joules()
    add(tmp_path, 50_000_000)
    before = counter.joules()
    (tmp_path / "intel-rapl:0" / "energy_uj").write_text("0\n")
    with pytest.raises(
        CounterError, match=r"jumped, as where a driver sets it back: intel-rapl:0 from 200050000000 to 0"
    ):
        counter.joules()
    add(tmp_path, 3_000_000)
    assert counter.joules() == pytest.approx(before + 3.0), "the next reading goes on from there"
    slow = RaplCounter(write_zones(tmp_path / "slow", energy=262_143_328_000), lambda: 0.0)
    slow.joules()
    add(tmp_path / "slow", 4_000_000)
    assert slow.joules() == pytest.approx(4.0), "a wrap between two updates of the counter"


def test_names_of_dies_are_packages(tmp_path: Path) -> None:
    counter = RaplCounter(write_zones(tmp_path, {"intel-rapl:0": "package-0-die-0", "intel-rapl:1": "package-0-die-1"}))
    counter.joules()
    add(tmp_path, 1e6, "intel-rapl:0")
    add(tmp_path, 1e6, "intel-rapl:1")
    assert counter.joules() == pytest.approx(2.0)


@pytest.mark.parametrize("zones", [{}, {"intel-rapl:0": "psys"}, {"intel-rapl-mmio:0": "package-0"}])
def test_a_machine_without_packages_says_so(tmp_path: Path, zones: dict[str, str]) -> None:
    lacks = RaplCounter(write_zones(tmp_path, zones)).lacks()
    assert "has no processor package: virtual machines have no such counter" in lacks
    assert "modprobe" in lacks
    assert "no processor package" in RaplCounter(tmp_path / "absent").lacks()


@pytest.fixture
def nobody() -> Iterator[None]:
    """Root may read whatever its mode says."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def locked() -> Iterator[Path]:
    """Counters with the modes that Linux has given them since 2020."""
    with tempfile.TemporaryDirectory() as folder:
        root = write_zones(Path(folder))
        root.chmod(0o755)
        for zone in ZONES:
            (root / zone / "energy_uj").chmod(0o400 if os.geteuid() == 0 else 0)
        yield root


def test_counters_that_root_alone_may_read_say_how_to_open_them(locked: Path, nobody: None) -> None:
    lacks = RaplCounter(locked).lacks()
    assert f"{locked / 'intel-rapl:0' / 'energy_uj'} may be read by root only. sudo chmod a+r" in lacks


def test_a_counter_that_vanishes_or_holds_no_number_is_an_error(tmp_path: Path) -> None:
    counter = RaplCounter(write_zones(tmp_path))
    counter.joules()
    (tmp_path / "intel-rapl:0" / "energy_uj").write_text("much\n")
    assert "cannot be read: invalid literal" in RaplCounter(tmp_path).lacks()
    (tmp_path / "intel-rapl:0" / "energy_uj").unlink()
    with pytest.raises(CounterError, match=r"cannot be read any more: .*No such file"):
        counter.joules()


def test_a_counter_that_stands_still_is_none(tmp_path: Path) -> None:
    counter = RaplCounter(write_zones(tmp_path))
    assert lacks_energy(counter, Host(sleep=lambda _: None)) == "The counter rapl stands still."
    assert lacks_energy(counter, Host(sleep=lambda _: add(tmp_path, 1))) == ""


def test_the_counter_is_that_of_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    model = nn.Linear(3, 2)
    assert isinstance(counter_of(model, LatencyProfile(name="e", backend="eager")), RaplCounter)
    assert isinstance(counter_of(model, LatencyProfile(name="o", backend="onnxruntime")), RaplCounter)
    elsewhere = counter_of(model, LatencyProfile(name="p", backend="remote", command="./time"))
    assert elsewhere is None
    assert lacks_energy(elsewhere) == "The model runs on another device, whose counters are not read."
    on_gpu = SimpleNamespace(parameters=lambda: iter([SimpleNamespace(device=torch.device("cuda", 1))]))
    monkeypatch.setattr("autoprune.measure.energy.counters.device_of", lambda _: torch.device("cuda", 1))
    assert isinstance(counter_of(on_gpu, LatencyProfile(name="e", backend="eager")), NvmlCounter)  # type: ignore[arg-type]
    assert isinstance(counter_of(model, LatencyProfile(name="o", backend="onnxruntime")), RaplCounter)


# ---- NVML, by a stand-in for the module that has the names of nvidia-ml-py


class _Nvml(ModuleType):
    """A GPU whose counter stands at `millijoules`; None for a GPU without one."""

    class NVMLError(Exception):
        pass

    def __init__(self) -> None:
        super().__init__("pynvml")
        self.millijoules: int | None = 5_000
        self.processes = 1
        self.asked: list[str] = []

    def nvmlInit(self) -> None:  # noqa: N802
        self.asked.append("init")

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:  # noqa: N802
        self.asked.append(uuid)
        return uuid

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: str) -> int:  # noqa: N802
        if self.millijoules is None:
            raise self.NVMLError("Not Supported")
        return self.millijoules

    def nvmlDeviceGetComputeRunningProcesses(self, handle: str) -> list[int]:  # noqa: N802
        return [0] * self.processes


@pytest.fixture
def nvml(monkeypatch: pytest.MonkeyPatch) -> _Nvml:
    made = _Nvml()
    monkeypatch.setitem(sys.modules, "pynvml", made)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda number: SimpleNamespace(uuid=f"1-2-{number}"))
    return made


def test_the_energy_of_a_gpu_is_that_of_the_one_that_torch_means(nvml: _Nvml) -> None:
    counter = NvmlCounter(1)
    assert counter.lacks() == ""
    assert counter.joules() == 0.0
    nvml.millijoules = 7_500
    assert counter.joules() == pytest.approx(2.5)
    assert nvml.asked == ["init", "GPU-1-2-1"]
    assert counter.others() == ""
    nvml.processes = 2
    assert counter.others().startswith("2 processes had the GPU")


def test_a_gpu_without_a_counter_and_a_missing_package_say_so(nvml: _Nvml, monkeypatch: pytest.MonkeyPatch) -> None:
    nvml.millijoules = None
    assert NvmlCounter().lacks() == (
        "NVML gives no energy: Not Supported. GPUs of NVIDIA since Volta have a counter of energy."
    )
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert "pip install 'autoprune[nvml]'" in NvmlCounter().lacks()


def test_the_names_are_those_of_the_package() -> None:
    package = pytest.importorskip("pynvml")
    names = [name for name in vars(_Nvml) if name.startswith("nvml")]
    assert all(callable(getattr(package, name)) for name in names)
    assert issubclass(package.NVMLError, Exception)
