from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import pytest
import torch
from torch import Tensor
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    IterableDataset,
    SequentialSampler,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
)

from autoprune.errors import ConfigurationError
from autoprune.task.carve import carve
from autoprune.task.data import Batch, Split, as_batch, call, endless_batches, first_batches, shorten
from autoprune.task.splits import as_split

# Each sample is its own number, so that a split can be read back.
IDS = torch.arange(100.0)
DATA = TensorDataset(IDS[:, None], IDS)


class Collate:
    """A collate function that can be told from the default."""

    def __call__(self, samples: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
        return torch.stack([x for x, _ in samples]), torch.stack([y for _, y in samples])


def forms() -> dict[str, object]:
    return {
        "tensors": (IDS[:, None], IDS),
        "tensor dataset": DATA,
        "dataset": Subset(DATA, range(100)),
        "loader": DataLoader(DATA, batch_size=8),
        "shuffled loader": DataLoader(DATA, batch_size=8, shuffle=True),
        "batches": [(IDS[start : start + 5, None], IDS[start : start + 5]) for start in range(0, 100, 5)],
    }


@pytest.fixture(params=list(forms()))
def split(request: pytest.FixtureRequest) -> Split:
    return as_split(forms()[request.param], 8)


def ids(batches: Iterator[Batch]) -> list[int]:
    found: list[int] = []
    for batch in batches:
        assert isinstance(batch.targets, Tensor)
        assert isinstance(batch.inputs, Tensor)
        assert torch.equal(batch.inputs[:, 0], batch.targets), "inputs and targets stay together"
        assert batch.size == len(batch.targets)
        found += batch.targets.int().tolist()
    return found


def test_a_pass_sees_every_sample_once_and_again_in_the_same_order(split: Split) -> None:
    assert split.samples == 100
    first = ids(split.ordered())
    assert sorted(first) == list(range(100))
    assert ids(split.ordered()) == first


def test_a_shuffled_pass_follows_its_seed(split: Split, request: pytest.FixtureRequest) -> None:
    name = request.node.callspec.params["split"]
    one, again, other = (ids(split.shuffled(seed)) for seed in (1, 1, 2))
    assert one == again
    assert len(set(one)) == len(one)
    if name == "loader":
        assert one == list(range(100)), "a loader that does not shuffle is the user's choice"
    else:
        assert one != other


def test_reading_leaves_torchs_random_state_alone(split: Split) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    ids(split.shuffled(1))
    ids(split.ordered())
    assert torch.equal(torch.rand(3), expected)


def test_carve_is_disjoint_complete_and_deterministic(split: Split) -> None:
    train, search = carve(split, 0.15, seed=3)
    kept, cut = ids(train.ordered()), ids(search.ordered())
    assert len(cut) == 15
    assert sorted(kept + cut) == list(range(100))
    assert sorted(cut) != list(range(15)), "carved at random: data is often sorted by class"
    again = carve(split, 0.15, seed=3)
    assert set(ids(again[1].ordered())) == set(cut)
    assert set(ids(carve(split, 0.15, seed=4)[1].ordered())) != set(cut)
    assert train.samples == 85
    assert search.samples == 15
    assert ids(split.ordered()) == ids(split.ordered()), "the split that was carved is as before"


def test_a_carved_loader_keeps_batch_size_and_collate() -> None:
    collate = Collate()
    train, search = carve(as_split(DataLoader(DATA, batch_size=7, collate_fn=collate), 99), 0.2, 0)
    assert next(train.ordered()).size == 7
    assert train.batches.collate_fn is collate  # type: ignore[attr-defined]
    assert search.batches.collate_fn is collate  # type: ignore[attr-defined]


def test_carving_a_loader_that_drops_short_batches_keeps_every_search_sample() -> None:
    train, search = carve(as_split(DataLoader(DATA, batch_size=8, drop_last=True), 1), 0.15, 0)
    assert len(ids(search.ordered())) == 15
    assert len(ids(train.ordered())) == 80


def test_carving_never_brings_in_what_the_loaders_sampler_leaves_out() -> None:
    """A SubsetRandomSampler is a usual way to hold samples back, often the very ones to test on."""
    loader = DataLoader(DATA, batch_size=5, sampler=SubsetRandomSampler(range(40)))
    try:
        train, search = carve(as_split(loader, 1), 0.25, 0)
    except ConfigurationError as error:
        assert "search=" in str(error)  # noqa: PT017  # to refuse, with the remedy, is right as well
    else:
        seen = ids(train.ordered()) + ids(search.ordered())
        assert sorted(seen) == list(range(40))


def test_carving_a_loader_with_its_own_batch_sampler_keeps_its_batches() -> None:
    loader = DataLoader(DATA, batch_sampler=BatchSampler(SequentialSampler(DATA), 20, drop_last=False))
    try:
        train, _ = carve(as_split(loader, 1), 0.2, 0)
    except ConfigurationError as error:
        assert "search=" in str(error)  # noqa: PT017  # to refuse, with the remedy, is right as well
    else:
        assert next(train.ordered()).size == 20


def test_carving_a_loader_whose_dataset_yields_batches() -> None:
    batched = [(IDS[start : start + 10, None], IDS[start : start + 10]) for start in range(0, 100, 10)]
    loader = DataLoader(batched, batch_size=None)  # type: ignore[arg-type]
    train, search = carve(as_split(loader, 1), 0.2, 0)
    assert sorted(ids(train.ordered()) + ids(search.ordered())) == list(range(100))


def test_a_loader_with_its_own_generator_has_one_fixed_order_too() -> None:
    split = as_split(DataLoader(DATA, batch_size=8, shuffle=True, generator=torch.Generator().manual_seed(1)), 1)
    assert ids(split.ordered()) == ids(split.ordered())


def test_a_stream_can_not_be_carved() -> None:
    class Stream(IterableDataset[tuple[Tensor, Tensor]]):
        def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
            return ((value[None], value) for value in IDS)

    split = as_split(DataLoader(Stream(), batch_size=10), 1)
    assert split.samples is None
    assert ids(split.ordered()) == list(range(100))
    with pytest.raises(ConfigurationError, match=r"cannot be divided.*Pass search"):
        carve(split, 0.2, 0)


@pytest.mark.parametrize(("total", "share", "cut"), [(10, 0.15, 2), (10, 0.001, 1), (3, 0.5, 2)])
def test_at_least_one_sample_is_cut_off(total: int, share: float, cut: int) -> None:
    train, search = carve(as_split((IDS[:total, None], IDS[:total]), 4), share, 0)
    assert search.samples == cut
    assert train.samples == total - cut


def test_nothing_left_to_train_on_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="enough samples"):
        carve(as_split((IDS[:2, None], IDS[:2]), 4), 0.9, 0)


def test_a_tensor_split_leaves_a_short_batch_out_only_when_it_shuffles() -> None:
    split = as_split((IDS[:, None], IDS), 30)
    assert [batch.size for batch in split.ordered()] == [30, 30, 30, 10]
    assert [batch.size for batch in split.shuffled(0)] == [30, 30, 30]
    small = as_split((IDS[:7, None], IDS[:7]), 30)
    assert [batch.size for batch in small.shuffled(0)] == [7], "fewer samples than a batch still train"


def test_a_split_is_taken_as_it_is() -> None:
    split = as_split((IDS[:, None], IDS), 30)
    assert as_split(split, 5) is split


@pytest.mark.parametrize(
    ("samples", "sizes"),
    [(1, [1]), (30, [30]), (45, [30, 15]), (100, [30, 30, 30, 10]), (999, [30, 30, 30, 10]), (0, [])],
)
def test_head_takes_no_more_than_asked(samples: int, sizes: list[int]) -> None:
    assert [batch.size for batch in first_batches(as_split((IDS[:, None], IDS), 30), samples)] == sizes
    assert ids(iter(first_batches(as_split((IDS[:, None], IDS), 30), samples))) == list(range(sum(sizes)))


def test_shorten_goes_into_dicts_and_tuples() -> None:
    batch = as_batch(({"a": IDS[:, None], "b": (IDS, "name", torch.tensor(3.0))}, IDS))
    assert batch.size == 100
    short = shorten(batch, 4)
    assert short.size == 4
    assert isinstance(short.inputs, dict)
    assert short.inputs["a"].shape == (4, 1)
    assert len(short.inputs["b"][0]) == 4
    assert short.inputs["b"][1:] == ("name", torch.tensor(3.0)), "what has no samples stays"
    assert len(IDS) == 100


def test_the_size_of_a_batch_is_told_by_targets_then_inputs() -> None:
    assert as_batch((IDS[:, None], IDS)).size == 100
    assert as_batch(((IDS[:3], IDS[:3]), None)).size == 3
    assert as_batch(({"x": IDS[:6]}, {"y": IDS[:4]})).size == 4
    assert as_batch((None, None)).size == 1


def test_lists_of_inputs_are_positional_arguments() -> None:
    assert as_batch([[IDS, IDS], IDS]).inputs == (IDS, IDS)


@pytest.mark.parametrize("pair", [IDS, (IDS,), (IDS, IDS, IDS), {"x": IDS, "y": IDS}, None, 3])
def test_a_batch_that_is_no_pair(pair: object) -> None:
    with pytest.raises(ConfigurationError, match=r"a batch must be a pair \(inputs, targets\), but got"):
        as_batch(pair)


def test_call_follows_the_form_of_the_inputs() -> None:
    def model(a: int, b: int = 0) -> tuple[int, int]:
        return a, b

    assert call(model, {"b": 2, "a": 1}) == (1, 2)  # type: ignore[arg-type]
    assert call(model, (1, 2)) == (1, 2)  # type: ignore[arg-type]
    assert call(model, IDS) == (IDS, 0)  # type: ignore[arg-type]


def test_a_batch_moves_whole() -> None:
    batch = as_batch(({"a": IDS, "b": [IDS, "name"]}, (IDS, 3))).to(torch.device("meta"))
    assert isinstance(batch.inputs, dict)
    assert batch.inputs["a"].device.type == "meta"
    assert batch.inputs["b"][0].device.type == "meta"
    assert batch.inputs["b"][1] == "name"
    assert batch.targets[0].device.type == "meta"  # type: ignore[index]
    assert batch.size == 100


def test_endless_passes_differ_and_repeat_for_the_same_seed() -> None:
    split = as_split((IDS[:, None], IDS), 50)
    first, again = (ids(batch for _, batch in islice(endless_batches(split, 7), 4)) for _ in range(2))
    assert [epoch for epoch, _ in islice(endless_batches(split, 7), 4)] == [0, 0, 1, 1]
    assert first == again
    assert sorted(first[:100]) == sorted(first[100:]) == list(range(100))
    assert first[:100] != first[100:]


def test_endless_over_nothing_is_an_error_not_a_hang() -> None:
    nothing = as_split(DataLoader(DATA, batch_size=200), 1)
    nothing.batches = []  # type: ignore[attr-defined]
    with pytest.raises(ConfigurationError, match="must hold at least one batch, but got none in a pass"):
        next(endless_batches(nothing, 0))
