"""A compressed safetensors file, in which tensors with many zeros take less space; decoding is exact bit for bit.

An encoded tensor is stored under its name as bytes (uint8 [length]): first the positions of its non-zero entries, then
these entries in order. Its encoding is in the header, under METADATA_KEY, as JSON:

    {"version": 1, "tensors": {name: [encoding, dtype, shape]}}

- "bitmap": one bit for each entry, the first in the highest bit of the first byte.
- "gaps-uint8" (-uint16, -uint32, -uint64): for each non-zero entry, the number of zeros between it and the previous
  one, in the smallest dtype that holds all of them.

A tensor that would not become smaller is stored unchanged and has no entry in the header. An entry is zero when all its
bits are: minus zero is stored like any other number, and so is NaN, with its bits. Numbers are little-endian.

Apart from the header, a tensor with the share z of zeros takes the smaller of 1 - z + 1 / (8 b) (bitmap) and
(1 - z)(1 + 1 / b) (gaps, if none is above 255) of its bytes, where b is the size of one entry in bytes. So it shrinks
from z = 1 / (8 b) on: 3.1 % for float32, 6.3 % for float16 and bfloat16, 12.5 % for bytes and bools. Gaps beat the
bitmap for z above 7 / 8. A float32 tensor is at 53 % of its bytes at z = 0.5, at 12.5 % at 0.9, at 1.25 % at 0.99.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import save
from torch import Tensor

from autoprune.errors import StorageError, error_message

VERSION = 1
METADATA_KEY = "autoprune_sparse"
#: Size of an entry -> integer dtype for its bits; tensors with wider entries are stored unchanged.
_INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
_GAPS: Mapping[str, np.dtype[np.unsignedinteger]] = {
    "gaps-uint8": np.dtype("u1"),
    "gaps-uint16": np.dtype("<u2"),
    "gaps-uint32": np.dtype("<u4"),
    "gaps-uint64": np.dtype("<u8"),
}

#: Header entry of an encoded tensor: encoding, dtype, shape.
Entry = tuple[str, str, list[int]]
Bytes = npt.NDArray[np.uint8]
Positions = npt.NDArray[np.int64]


def serialize_sparse(tensors: Mapping[str, Tensor]) -> bytes:
    """Convert tensors to the bytes of a compressed file. Tensors that share memory are written once for each name.

    Args:
        tensors: Tensors by name.

    Returns:
        The bytes.
    """
    stored: dict[str, Tensor] = {}
    entries: dict[str, Entry] = {}
    for name, tensor in separate(tensors).items():
        found = _encoded(name, tensor)
        if found is None:
            stored[name] = tensor
        else:
            entries[name], stored[name] = found
    header = json.dumps({"version": VERSION, "tensors": entries}, separators=(",", ":"), sort_keys=True)
    return save(stored, metadata={METADATA_KEY: header})


def decode(tensors: Mapping[str, Tensor], metadata: Mapping[str, str], largest: int | None = None) -> dict[str, Tensor]:
    """Restore the tensors of a compressed file; the tensors of any other safetensors file are returned unchanged.

    Args:
        tensors: The stored tensors by name.
        metadata: Metadata of the file's header.
        largest: Most bytes that the header may declare, as zeros take no space in the file; None for no limit.

    Returns:
        The tensors that were written.

    Raises:
        StorageError: The file is damaged, of a later version, or declares too many bytes.
    """
    if METADATA_KEY not in metadata:
        return dict(tensors)
    entries = _entries(metadata[METADATA_KEY])
    missing = sorted(entries.keys() - tensors.keys())
    if missing:
        raise StorageError(error_message("a compressed file", "hold every tensor that it names", f"no {missing[0]}"))
    declared = sum(_declared(name, entry) for name, entry in entries.items())
    if largest is not None and declared > largest:
        raise StorageError(error_message("a compressed file", f"declare at most {largest:,} bytes", f"{declared:,}"))
    return {name: _decoded(name, t, entries[name]) if name in entries else t for name, t in tensors.items()}


def separate(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Prepare tensors for safetensors: contiguous, on the CPU, no two in the same memory.

    Args:
        tensors: Tensors by name.

    Returns:
        The prepared tensors.
    """
    seen: set[int] = set()
    unique: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        stored = tensor.detach().cpu().contiguous()
        pointer = stored.untyped_storage().data_ptr()
        unique[name] = stored.clone() if pointer in seen else stored
        seen.add(pointer)
    return unique


def _encoded(name: str, tensor: Tensor) -> tuple[Entry, Tensor] | None:
    """The smallest encoding of a tensor and its entry in the header; None if the plain tensor is smaller."""
    item = tensor.element_size()
    if item not in _INTEGERS or tensor.numel() == 0:
        return None
    bits = tensor.view(_INTEGERS[item]).numpy().reshape(-1)
    zeros = bits.size - int(np.count_nonzero(bits))
    if zeros * item <= min(bits.size / 8, bits.size - zeros):
        return None  # the positions of the other entries take more
    positions = np.flatnonzero(bits)
    gaps = np.diff(positions, prepend=-1) - 1
    kind = next(kind for kind, dtype in _GAPS.items() if gaps.max(initial=0) <= np.iinfo(dtype).max)
    sizes = {"bitmap": math.ceil(bits.size / 8), kind: positions.size * _GAPS[kind].itemsize}
    encoding = min(sizes, key=lambda known: sizes[known])
    entry = (encoding, str(tensor.dtype).removeprefix("torch."), list(tensor.shape))
    said = len(json.dumps(json.dumps({name: entry}, separators=(",", ":"))))  # quoted once more in the header
    if sizes[encoding] + positions.size * item + said >= bits.size * item:
        return None
    where = np.packbits(bits != 0) if encoding == "bitmap" else gaps.astype(_GAPS[encoding])
    values = bits[positions].astype(bits.dtype.newbyteorder("<"), copy=False)
    return entry, _tensor(where.tobytes() + values.tobytes())


def _tensor(data: bytes) -> Tensor:
    return torch.frombuffer(bytearray(data), dtype=torch.uint8) if data else torch.empty(0, dtype=torch.uint8)


def _entries(header: str) -> dict[str, Entry]:
    try:
        data = json.loads(header)
        version, entries = data["version"], dict(data["tensors"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise StorageError(
            error_message("the header of a compressed file", "say how it is encoded", repr(error))
        ) from error
    if not isinstance(version, int) or version > VERSION:
        raise StorageError(
            error_message("the version of a compressed file", f"be <= {VERSION}", repr(version), "Upgrade autoprune.")
        )
    return entries


def _declared(name: str, entry: Sequence[object]) -> int:
    """Bytes of a tensor by its header, computed before any tensor is made."""
    try:
        _, dtype, shape = entry
        return math.prod(_sizes(shape)) * _dtype(dtype).itemsize
    except (ValueError, TypeError) as error:
        raise StorageError(
            error_message(f"{name} of a compressed file", "be encoded as its header says", f"{error!r}")
        ) from error


def _dtype(name: object) -> torch.dtype:
    found = getattr(torch, str(name), None)
    if not isinstance(found, torch.dtype) or found.itemsize not in _INTEGERS:
        raise ValueError(f"dtype {str(name)[:40]!r}")
    return found


def _sizes(shape: object) -> list[int]:
    if not isinstance(shape, list) or not all(type(size) is int and size >= 0 for size in shape):
        raise ValueError(f"shape {str(shape)[:40]}")
    return shape


def _decoded(name: str, stored: Tensor, entry: Sequence[object]) -> Tensor:
    try:
        encoding, dtype, shape = entry
        return _read(stored, str(encoding), _dtype(dtype), _sizes(shape))
    except (ValueError, TypeError, KeyError, RuntimeError, MemoryError) as error:
        raise StorageError(
            error_message(f"{name} of a compressed file", "be encoded as its header says", f"{error!r}")
        ) from error


def _read(stored: Tensor, encoding: str, dtype: torch.dtype, shape: list[int]) -> Tensor:
    """Decode one tensor. Raises ValueError and the like if its bytes contradict the header."""
    if stored.dtype != torch.uint8:
        raise ValueError(f"{dtype} in {stored.dtype}")
    entries, data, item = math.prod(shape), stored.numpy().reshape(-1), dtype.itemsize
    if encoding == "bitmap":
        positions, values = _from_bitmap(data, entries)
    else:
        positions, values = _from_gaps(data, entries, _GAPS[encoding], item)
    if values.size != positions.size * item:
        raise ValueError(f"{values.size} bytes for {positions.size} entries of {dtype}")
    flat = np.zeros(entries, dtype=f"<i{item}")
    flat[positions] = np.frombuffer(values.tobytes(), dtype=flat.dtype)
    return torch.from_numpy(flat.astype(f"=i{item}", copy=False)).view(dtype).view(shape)


def _from_bitmap(data: Bytes, entries: int) -> tuple[Positions, Bytes]:
    """Positions of the non-zero entries, and their bytes."""
    length = math.ceil(entries / 8)
    bits = np.unpackbits(data[:length])
    if bits.size < entries or bits[entries:].any():
        raise ValueError(f"{bits.size} bits for {entries} entries")
    return np.flatnonzero(bits), data[length:]


def _from_gaps(data: Bytes, entries: int, dtype: np.dtype[np.unsignedinteger], item: int) -> tuple[Positions, Bytes]:
    """Positions of the non-zero entries, and their bytes."""
    length = data.size // (dtype.itemsize + item) * dtype.itemsize
    gaps = np.frombuffer(data[:length].tobytes(), dtype=dtype)
    if gaps.size and int(gaps.max()) >= entries:
        raise ValueError(f"a gap of {gaps.max()} in {entries} entries")
    positions = np.cumsum(gaps.astype(np.int64) + 1) - 1
    if positions.size and int(positions[-1]) >= entries:
        raise ValueError(f"an entry at {positions[-1]} of {entries}")
    return positions, data[length:]
