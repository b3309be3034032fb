"""A compressed file gives back what was written, bit for bit, is as long as it says, and is refused when damaged."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load, save
from torch import Tensor, nn

from autoprune.errors import StorageError
from autoprune.records.atomic import write_atomically
from autoprune.task.checkpoint import read_weights, serialize, serialize_smallest
from autoprune.task.sparse_file import METADATA_KEY, decode, serialize_sparse

QUICK = settings(
    max_examples=60, deadline=None, derandomize=True, phases=(Phase.explicit, Phase.generate, Phase.shrink)
)
FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
DTYPES = (*FLOATS, torch.int8, torch.uint8, torch.int16, torch.int32, torch.int64, torch.bool)
SHARES = (0.0, 0.02, 0.5, 0.9, 0.99, 1.0)


def sparse(shape: tuple[int, ...], share: float, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    """A tensor with that share of zeros at random places."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.randint(1, 120, shape, generator=generator)
    count = math.prod(shape)
    values.view(-1)[torch.randperm(count, generator=generator)[: round(share * count)]] = 0
    return values.to(dtype)


def bits(tensor: Tensor) -> bytes:
    return tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes() if tensor.numel() else b""


def same(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> bool:
    """Alike in names, dtypes, shapes and every bit."""
    return a.keys() == b.keys() and all(
        a[name].dtype == b[name].dtype and a[name].shape == b[name].shape and bits(a[name]) == bits(b[name])
        for name in a
    )


def header(data: bytes) -> dict[str, str]:
    found = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    metadata: dict[str, str] = found.get("__metadata__", {})
    return metadata


def encodings(data: bytes) -> dict[str, str]:
    """Name -> how it is encoded, of those that are."""
    return {name: entry[0] for name, entry in json.loads(header(data)[METADATA_KEY])["tensors"].items()}


def back(data: bytes) -> dict[str, Tensor]:
    return decode(load(data), header(data))


# ---- there and back


@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_dtype_comes_back(dtype: torch.dtype, share: float) -> None:
    tensors = {"w": sparse((40, 25), share, dtype), "bias": sparse((7,), share, dtype)}
    data = serialize_sparse(tensors)
    assert same(back(data), tensors)
    assert ("w" in encodings(data)) == (share >= 0.5), "it is the compressed form that was read back"


@QUICK
@given(
    shape=st.lists(st.integers(0, 12), max_size=4).map(tuple),
    share=st.floats(0.0, 1.0),
    dtype=st.sampled_from(DTYPES),
    seed=st.integers(0, 99),
)
def test_any_shape_comes_back(shape: tuple[int, ...], share: float, dtype: torch.dtype, seed: int) -> None:
    tensors = {"w": sparse(shape, share, dtype, seed)}
    assert same(back(serialize_sparse(tensors)), tensors)
    assert same(back(serialize_smallest(tensors)), tensors)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_bits_that_equal_nothing_come_back(dtype: torch.dtype) -> None:
    """Minus zero is not zero here; two kinds of what is not a number stay apart; so do denormals and infinities."""
    w = sparse((1000,), 0.9, dtype)
    whole = {4: torch.int32, 2: torch.int16, 8: torch.int64}[w.element_size()]
    w[:4] = torch.tensor([-0.0, math.inf, -math.inf, math.nan], dtype=dtype)
    w.view(whole)[4:6] = torch.tensor([-1, 1], dtype=whole)
    data = serialize_sparse({"w": w})
    found = back(data)["w"]
    assert encodings(data) == {"w": "gaps-uint8"}
    assert bits(found) == bits(w)
    assert found[0] == 0
    assert torch.signbit(found[0])
    assert found[3].isnan()
    assert found[4].isnan()


@pytest.mark.parametrize("entries", [2000, 10**6])
def test_all_zeros(entries: int) -> None:
    w = torch.zeros(entries)
    data = serialize_sparse({"w": w})
    assert encodings(data) == {"w": "gaps-uint8"}
    assert len(data) < 300, "nothing but the header"
    assert same(back(data), {"w": w})


@pytest.mark.parametrize(
    ("places", "encoding"),
    [
        ([255, 511, 767], "gaps-uint8"),
        ([256], "gaps-uint16"),
        ([0, 1, 65_537], "gaps-uint16"),
        ([65_536], "gaps-uint32"),
        ([0, 65_537, 65_538], "gaps-uint32"),
    ],
)
def test_gaps_are_as_wide_as_the_widest(places: list[int], encoding: str) -> None:
    w = torch.zeros(max(places) + 1)
    w[places] = 1.0
    data = serialize_sparse({"w": w})
    assert encodings(data) == {"w": encoding}
    assert same(back(data), {"w": w})


def test_names_layouts_and_shared_memory() -> None:
    base = sparse((30, 40), 0.8)
    tied = nn.Parameter(sparse((20, 50), 0.9))
    tensors = {
        "turned": base.t(),
        "front": base[:15],
        "back": base[15:],
        "a.b'\"ü": sparse((500,), 0.9),
        "tied": tied,
        "again": tied,
        "number": torch.tensor(0),
        "empty": torch.empty(0, 3),
        "complex": torch.complex(base, base),
        "dense": torch.ones(50),
    }
    data = serialize_sparse(tensors)
    assert same(back(data), {name: tensor.detach() for name, tensor in tensors.items()})
    assert set(encodings(data)) == {"turned", "front", "back", "a.b'\"ü", "tied", "again", "complex"}


def test_a_file_without_anything() -> None:
    assert back(serialize_sparse({})) == {}


def test_the_order_of_names_changes_nothing() -> None:
    tensors = {name: sparse((300,), 0.9, seed=number) for number, name in enumerate("cab")}
    assert serialize_sparse(tensors) == serialize_sparse(dict(sorted(tensors.items())))


def test_a_file_is_read_back_from_disk(tmp_path: Path) -> None:
    tensors = {"w": sparse((100, 100), 0.9), "bias": torch.randn(100)}
    path = tmp_path / "w.safetensors"
    for written in (serialize, serialize_sparse, serialize_smallest):
        write_atomically(path, written(tensors))
        assert same(read_weights(path), tensors), written
    with safe_open(path, framework="pt") as file:
        assert METADATA_KEY in file.metadata()


# ---- how long it is


def length(share: float, dtype: torch.dtype, entries: int = 100_000) -> float:
    """Length of the file of one tensor, as a share of the tensor's bytes."""
    w = sparse((entries,), share, dtype)
    return len(serialize_sparse({"w": w})) / (entries * w.element_size())


@pytest.mark.parametrize(("dtype", "least"), [(torch.float32, 1 / 32), (torch.bfloat16, 1 / 16), (torch.bool, 1 / 8)])
def test_from_what_share_of_zeros_on_it_is_smaller(dtype: torch.dtype, least: float) -> None:
    """As the module says: from one bit for each entry on, and the header."""
    assert length(least - 0.002, dtype) > 1
    assert length(least + 0.004, dtype) < 1


@pytest.mark.parametrize("share", [0.25, 0.5, 0.75, 0.85, 0.9, 0.95])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.int8], ids=str)
def test_the_length_is_what_the_module_says(dtype: torch.dtype, share: float) -> None:
    item = torch.zeros(0, dtype=dtype).element_size()
    expected = min(1 - share + 1 / (8 * item), (1 - share) * (1 + 1 / item))
    assert length(share, dtype) == pytest.approx(expected, abs=0.003)


@pytest.mark.parametrize(("share", "said"), [(0.5, 0.53), (0.9, 0.125)])
def test_the_numbers_of_the_docstring(share: float, said: float) -> None:
    assert length(share, torch.float32) == pytest.approx(said, abs=0.003)


def test_from_seven_eighths_on_gaps_are_shorter() -> None:
    for share, encoding in ((0.87, "bitmap"), (0.88, "gaps-uint8")):
        assert encodings(serialize_sparse({"w": sparse((10_000,), share)})) == {"w": encoding}


@QUICK
@given(entries=st.integers(0, 3000), share=st.floats(0.0, 1.0), dtype=st.sampled_from(DTYPES))
def test_no_tensor_is_stored_longer_than_it_is(entries: int, share: float, dtype: torch.dtype) -> None:
    tensors = {"w": sparse((entries,), share, dtype)}
    plain, data = serialize(tensors), serialize_sparse(tensors)
    assert load(data)["w"].nbytes <= tensors["w"].nbytes
    assert len(serialize_smallest(tensors)) == min(len(plain), len(data))


def test_without_zeros_the_smallest_file_is_the_plain_one() -> None:
    tensors = {"w": torch.randn(100, 10), "b": torch.zeros(10)}
    assert serialize_smallest(tensors) == serialize(tensors)
    assert METADATA_KEY not in header(serialize_smallest(tensors))


# ---- damage


@pytest.fixture
def whole(tmp_path: Path) -> tuple[Path, dict[str, Tensor]]:
    tensors = {"bitmap": sparse((30, 10), 0.5), "gaps": sparse((600,), 0.97), "plain": torch.ones(3)}
    data = serialize_sparse(tensors)
    assert encodings(data) == {"bitmap": "bitmap", "gaps": "gaps-uint8"}
    path = tmp_path / "w.safetensors"
    path.write_bytes(data)
    return path, tensors


def changed(path: Path, tensors: Mapping[str, Tensor], entries: object) -> None:
    """The file again with these tensors, and that in its header."""
    text = entries if isinstance(entries, str) else json.dumps(entries)
    path.write_bytes(save(dict(tensors), metadata={METADATA_KEY: text}))


def test_a_file_cut_short_anywhere(whole: tuple[Path, dict[str, Tensor]]) -> None:
    path, _ = whole
    data = path.read_bytes()
    for length in range(0, len(data), 11):
        path.write_bytes(data[:length])
        with pytest.raises(StorageError, match=r"w\.safetensors"):
            read_weights(path)


def test_a_changed_byte_is_an_error_of_ours_or_a_changed_value(whole: tuple[Path, dict[str, Tensor]]) -> None:
    """Nothing else comes out: no other exception, and no tensor of another shape than the header says."""
    path, tensors = whole
    data, refused = path.read_bytes(), 0
    for place in range(0, len(data), 5):
        path.write_bytes(data[:place] + bytes([data[place] ^ 0x11]) + data[place + 1 :])
        try:
            found = read_weights(path)
        except StorageError:
            refused += 1
        else:
            assert all(found[name].numel() <= 10**6 for name in found.keys() & tensors.keys())
    assert refused > 50


@pytest.mark.parametrize(
    "entry",
    [
        ["bitmap", "float32", [300]],
        ["bitmap", "float32", [31, 10]],
        ["bitmap", "float32", [29, 10]],
        ["bitmap", "float16", [30, 10]],
        ["gaps-uint8", "float32", [30, 10]],
        ["gaps-uint16", "float32", [30, 10]],
        ["zip", "float32", [30, 10]],
        ["bitmap", "float33", [30, 10]],
        ["bitmap", "save", [30, 10]],
        ["bitmap", "complex128", [30, 10]],
        ["bitmap", "float32", [-30, -10]],
        ["bitmap", "float32", [30.0, 10]],
        ["bitmap", "float32", "30"],
        ["bitmap", "float32", [10**30]],
        ["gaps-uint8", "float32", [10**30]],
        ["bitmap", "float32", [2**62, 10]],
        ["bitmap", "float32"],
        ["bitmap", "float32", [30, 10], 1],
        [[], {}, [30, 10]],
        None,
        3,
    ],
    ids=json.dumps,
)
def test_a_header_that_does_not_fit(whole: tuple[Path, dict[str, Tensor]], entry: object) -> None:
    path, tensors = whole
    stored = load(path.read_bytes())["bitmap"]
    if entry == ["bitmap", "float32", [300]]:  # only the shape is another: it is what the header says
        changed(path, {"w": stored}, {"version": 1, "tensors": {"w": entry}})
        assert torch.equal(read_weights(path)["w"], tensors["bitmap"].view(300))
        return
    changed(path, {"w": stored}, {"version": 1, "tensors": {"w": entry}})
    with pytest.raises(
        StorageError, match=r"w\.safetensors: w of a compressed file must be encoded as its header says"
    ):
        read_weights(path)


@pytest.mark.parametrize(
    ("stored", "shape"),
    [
        ([3, 1, 0, 0, 0], [3]),  # a gap beyond the end
        ([1, 1, 7, 0, 0, 0, 7, 0, 0, 0], [3]),  # the second entry beyond it
        ([0, 7, 0, 0], [3]),  # an entry cut short
        ([0, 7, 0, 0, 0, 7], [3]),  # and one too long
    ],
)
def test_gaps_that_do_not_fit(tmp_path: Path, stored: list[int], shape: list[int]) -> None:
    path = tmp_path / "w.safetensors"
    entries = {"version": 1, "tensors": {"w": ["gaps-uint8", "float32", shape]}}
    changed(path, {"w": torch.tensor(stored, dtype=torch.uint8)}, entries)
    with pytest.raises(StorageError, match="w of a compressed file"):
        read_weights(path)


def test_a_gap_too_wide_for_any_place(tmp_path: Path) -> None:
    path, entries = tmp_path / "w.safetensors", {"version": 1, "tensors": {"w": ["gaps-uint64", "int8", [3]]}}
    changed(path, {"w": torch.tensor([1, 0, 0, 0, 0, 0, 0, 0, 5], dtype=torch.uint8)}, entries)
    assert read_weights(path)["w"].tolist() == [0, 5, 0]
    changed(path, {"w": torch.tensor([255] * 8 + [5], dtype=torch.uint8)}, entries)
    with pytest.raises(StorageError, match="a gap of 18446744073709551615 in 3 entries"):
        read_weights(path)


@pytest.mark.parametrize("shape", [[10**15], [2**62], [10**30]])
def test_more_entries_than_there_can_be(tmp_path: Path, shape: list[int]) -> None:
    path, entries = tmp_path / "w.safetensors", {"version": 1, "tensors": {"w": ["gaps-uint8", "float32", shape]}}
    changed(path, {"w": torch.empty(0, dtype=torch.uint8)}, entries)
    with pytest.raises(StorageError, match="w of a compressed file"):
        read_weights(path)


def test_bits_behind_the_last_entry(tmp_path: Path) -> None:
    path, entries = tmp_path / "w.safetensors", {"version": 1, "tensors": {"w": ["bitmap", "int8", [3]]}}
    changed(path, {"w": torch.tensor([0b01000000, 5], dtype=torch.uint8)}, entries)
    assert read_weights(path)["w"].tolist() == [0, 5, 0]
    changed(path, {"w": torch.tensor([0b01010000, 5, 6], dtype=torch.uint8)}, entries)
    with pytest.raises(StorageError, match="8 bits for 3 entries"):
        read_weights(path)


@pytest.mark.parametrize("dtype", [torch.int8, torch.float32])
@pytest.mark.parametrize("encoding", ["bitmap", "gaps-uint8"])
def test_bytes_of_another_type(tmp_path: Path, dtype: torch.dtype, encoding: str) -> None:
    path = tmp_path / "w.safetensors"
    changed(path, {"w": torch.zeros(2, dtype=dtype)}, {"version": 1, "tensors": {"w": [encoding, "int8", [3]]}})
    with pytest.raises(StorageError, match="w of a compressed file"):
        read_weights(path)


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "{}", '{"version": 1}', '{"version": 1, "tensors": 3}'])
def test_a_header_that_is_none(whole: tuple[Path, dict[str, Tensor]], text: str) -> None:
    path, _ = whole
    changed(path, {"w": torch.ones(3)}, text)
    with pytest.raises(StorageError, match="the header of a compressed file must say how it is encoded"):
        read_weights(path)


def test_a_tensor_that_is_not_there(whole: tuple[Path, dict[str, Tensor]]) -> None:
    path, _ = whole
    changed(path, {"v": torch.ones(3)}, {"version": 1, "tensors": {"w": ["bitmap", "int8", [3]]}})
    with pytest.raises(StorageError, match="must hold every tensor that it names, but got no w"):
        read_weights(path)


@pytest.mark.parametrize("version", [2, "1", None])
def test_a_later_version(whole: tuple[Path, dict[str, Tensor]], version: object) -> None:
    path, _ = whole
    changed(path, {"w": torch.ones(3)}, {"version": version, "tensors": {}})
    with pytest.raises(StorageError, match="the version of a compressed file must be <= 1"):
        read_weights(path)


def test_a_plain_file_stays_as_it_is(tmp_path: Path) -> None:
    """Also one with bytes, and with a header of somebody else's."""
    path, tensors = tmp_path / "w.safetensors", {"w": torch.arange(9, dtype=torch.uint8), "v": torch.zeros(3)}
    path.write_bytes(save(tensors, metadata={"format": "pt"}))
    assert same(read_weights(path), tensors)
