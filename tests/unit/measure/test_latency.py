"""Latency by a clock that the test sets: no assertion here depends on the machine."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from autoprune.errors import UnknownNameError
from autoprune.measure import latency
from autoprune.measure.latency import LATENCY_BACKENDS, LatencyReference, median, median_interval
from autoprune.task.data import Inputs

#: Ranks (from 1) of the 95 % interval of a median, as in the usual tables of the sign test.
TABLE = {
    6: (1, 6),
    8: (1, 8),
    9: (2, 8),
    10: (2, 9),
    11: (2, 10),
    12: (3, 10),
    15: (4, 12),
    20: (6, 15),
    25: (8, 18),
    30: (10, 21),
    50: (18, 33),
}


@pytest.mark.parametrize(("count", "ranks"), TABLE.items())
def test_the_interval_of_the_median(count: int, ranks: tuple[int, int]) -> None:
    values = [float(rank) for rank in range(1, count + 1)]
    assert median_interval(values[::-1]) == ranks


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5])
def test_of_few_values_the_interval_is_all_of_them(count: int) -> None:
    assert median_interval(list(range(count))) == (0, count - 1)


def test_the_interval_covers_the_median_as_often_as_it_says() -> None:
    draws = torch.rand(2000, 31, generator=torch.Generator().manual_seed(0)).tolist()
    covered = sum(low <= 0.5 <= high for low, high in map(median_interval, draws))
    assert 0.95 <= covered / 2000 < 0.985


@pytest.mark.parametrize(
    ("values", "middle"), [([3.0], 3), ([4.0, 1.0], 2.5), ([9.0, 1.0, 2.0], 2), ([1, 2, 3, 100], 2.5)]
)
def test_median(values: list[float], middle: float) -> None:
    assert median(values) == middle


class Timed(nn.Module):
    """A model that takes `ms` by the clock of the test."""

    def __init__(self, ms: float) -> None:
        super().__init__()
        self.ms = ms


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> list[Timed]:
    """Every call in order. Each is slower than the one before it, as on a machine that heats up."""
    now, calls = [0.0], []

    def prepare(model: nn.Module, inputs: Inputs) -> Callable[[], None]:
        assert isinstance(model, Timed)
        assert not model.training

        def run() -> None:
            calls.append(model)
            now[0] += model.ms / 1000

        return run

    monkeypatch.setattr(latency, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    monkeypatch.setattr(latency, "LATENCY_BACKENDS", {"fake": prepare})
    return calls


def test_medians_and_ratio(log: list[Timed]) -> None:
    model, dense = Timed(3.0), Timed(12.0)
    found = LatencyReference(dense, torch.zeros(1), backend="fake").compare(model, rounds=7)
    assert found.latency_ms == pytest.approx(3.0)
    assert found.dense_ms == pytest.approx(12.0)
    assert found.ratio == pytest.approx(0.25)
    assert (found.low_ms, found.high_ms) == (pytest.approx(3.0), pytest.approx(3.0))
    assert (found.ratio_low, found.ratio_high) == (pytest.approx(0.25), pytest.approx(0.25))
    assert (found.backend, found.rounds) == ("fake", 7)


def test_both_are_timed_in_turn_and_either_goes_first(log: list[Timed]) -> None:
    model, dense = Timed(3.0), Timed(12.0)
    LatencyReference(dense, torch.zeros(1), backend="fake").compare(model, rounds=4)
    names = "".join("m" if call is model else "d" for call in log)
    assert names.endswith("mddmmddm")


def test_a_quick_model_is_called_more_often(log: list[Timed]) -> None:
    model, dense = Timed(0.1), Timed(12.0)
    found = LatencyReference(dense, torch.zeros(1), backend="fake").compare(model, rounds=5)
    assert found.latency_ms == pytest.approx(0.1)
    assert log.count(model) >= 5 * 10, "ten calls make the millisecond that the clock is trusted with"


def test_the_interval_spans_what_was_seen(log: list[Timed]) -> None:
    model, dense = Timed(2.0), Timed(10.0)
    model.register_buffer("unused", torch.zeros(1))
    times = iter([2.0] * 4 + [1.0, 5.0, 2.0, 2.0, 3.0, 2.0])

    class Uneven(Timed):
        @property
        def ms(self) -> float:
            return next(times, 2.0)

        @ms.setter
        def ms(self, value: float) -> None:
            pass

    found = LatencyReference(dense, torch.zeros(1), backend="fake").compare(Uneven(2.0), rounds=6)
    assert found.latency_ms == pytest.approx(2.0)
    assert (found.low_ms, found.high_ms) == (pytest.approx(1.0), pytest.approx(5.0))
    assert (found.ratio_low, found.ratio_high) == (pytest.approx(0.1), pytest.approx(0.5))


@pytest.mark.parametrize("modes", [(True, False), (False, True), (True, True)])
def test_modes_are_restored(log: list[Timed], modes: tuple[bool, bool]) -> None:
    model, dense = Timed(1.0).train(modes[0]), Timed(1.0).train(modes[1])
    LatencyReference(dense, torch.zeros(1), backend="fake").compare(model, rounds=1)
    assert (model.training, dense.training) == modes


def test_modes_are_restored_module_by_module_after_an_error() -> None:
    class Fails(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm1d(3)

        def forward(self, x: Tensor) -> Tensor:
            raise RuntimeError("no forward")

    model, dense = Fails().train(), nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)).train()
    model.norm.eval()
    dense[1].eval()
    with pytest.raises(RuntimeError, match="no forward"):
        LatencyReference(dense, torch.zeros(2, 3)).compare(model)
    assert (model.training, model.norm.training) == (True, False)
    assert (dense.training, dense[0].training, dense[1].training) == (True, True, False)


def test_an_unknown_backend_lists_the_known() -> None:
    with pytest.raises(UnknownNameError, match=r"the latency backend must be one of torch.*but got 'abacus'"):
        LatencyReference(nn.Identity(), torch.zeros(1), backend="abacus").compare(nn.Identity())


@pytest.mark.parametrize("backend", LATENCY_BACKENDS)
@pytest.mark.parametrize("inputs", [torch.zeros(2, 3), (torch.zeros(2, 3),), {"input": torch.zeros(2, 3)}], ids=type)
def test_every_backend_runs_a_real_model(backend: str, inputs: Inputs) -> None:
    model = nn.Linear(3, 2).train()
    found = LatencyReference(nn.Linear(3, 2), inputs, backend=backend).compare(model, rounds=2)
    assert 0 < found.low_ms <= found.latency_ms <= found.high_ms
    assert 0 < found.ratio_low <= found.ratio <= found.ratio_high
    assert model.training
    assert all(parameter.grad is None for parameter in model.parameters())


def test_the_reference_is_prepared_once(monkeypatch: pytest.MonkeyPatch) -> None:
    prepared: list[nn.Module] = []

    def prepare(module: nn.Module, inputs: object) -> Callable[[], None]:
        prepared.append(module)
        return lambda: None

    monkeypatch.setattr(latency, "LATENCY_BACKENDS", {"fake": prepare})
    dense, models = nn.Identity(), [nn.Identity() for _ in range(3)]
    reference = LatencyReference(dense, torch.zeros(1), backend="fake")
    for model in models:
        reference.compare(model, rounds=1)
    assert [prepared.count(module) for module in (dense, *models)] == [1, 1, 1, 1]
