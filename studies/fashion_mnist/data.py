"""Fashion-MNIST as Debian packages it: gzipped idx files, read without any other library."""

from __future__ import annotations

import gzip
import math
import os
import struct
import zlib
from pathlib import Path

import torch
from torch import Tensor

import autoprune
from autoprune.errors import NotFoundError, StorageError, fault

#: Where Debian's package puts the files.
PACKAGED = Path("/usr/share/datasets/fashion-mnist")
#: Names another folder with the same four files.
VARIABLE = "FASHION_MNIST"
#: Part of the data -> start of its file names.
PARTS = {"train": "train", "test": "t10k"}
#: Images of the 60,000 that the dense model is not trained on.
SEARCH_SAMPLES = 6_000

Splits = dict[str, tuple[Tensor, Tensor]]


def splits(folder: Path | None = None) -> Splits:
    """train, search and test, each (images float32 [N, 1, 28, 28], classes int64 [N]); train alone scales all three.

    folder: where the four files lie; else what FASHION_MNIST names, else where Debian's package puts them. Search is
    drawn at random from the published training images, always the same ones: the last tenth of fewer than 60,000.
    Raises NotFoundError without the files, StorageError for files that are not the data.
    """
    place = _place(folder)
    images, targets = _part(place, "train")
    test_images, test_targets = _part(place, "test")
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    kept = len(order) - min(SEARCH_SAMPLES, len(order) // 10)
    train, search = order[:kept], order[kept:]
    scale = autoprune.fit_standardize(images[train])
    return {
        "train": (scale(images[train]), targets[train]),
        "search": (scale(images[search]), targets[search]),
        "test": (scale(test_images), test_targets),
    }


def read_idx(path: Path) -> Tensor:
    """The bytes of an idx file, gzipped or not: uint8 in the shape that its head tells.

    Source of the format: LeCun, Cortes, Burges, The MNIST database, 1998. Raises StorageError for another file.
    """
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        kind, axes = struct.unpack_from(">HBB", data)[1:]
        shape = struct.unpack_from(f">{axes}I", data, 4)
    except (OSError, EOFError, struct.error, zlib.error) as error:
        raise StorageError(fault(str(path), "be an idx file", f"{type(error).__name__}: {error}")) from error
    start = 4 + 4 * axes
    if data[:2] != b"\0\0" or kind != 0x08 or len(data) != start + math.prod(shape):
        raise StorageError(fault(str(path), "be an idx file of bytes", f"{len(data)} bytes that say {shape}"))
    return torch.frombuffer(bytearray(data[start:]), dtype=torch.uint8).reshape(shape)


def _place(folder: Path | None) -> Path:
    if folder is not None:
        return folder
    named = os.environ.get(VARIABLE)
    return Path(named) if named else PACKAGED


def _part(place: Path, part: str) -> tuple[Tensor, Tensor]:
    """Images in [0, 1] with an axis for their one channel, and classes."""
    images = read_idx(_file(place, f"{PARTS[part]}-images-idx3-ubyte"))
    targets = read_idx(_file(place, f"{PARTS[part]}-labels-idx1-ubyte"))
    if images.ndim != 3 or len(images) != len(targets):
        message = fault(f"{place}, {part}", "hold a class for each image", f"{images.shape} and {targets.shape}")
        raise StorageError(message)
    return images.unsqueeze(1).float() / 255, targets.long()


def _file(place: Path, name: str) -> Path:
    for path in (place / f"{name}.gz", place / name):
        if path.is_file():
            return path
    raise NotFoundError(
        fault(
            "Fashion-MNIST",
            f"lie in {place}",
            f"no {name}.gz there",
            f"On Debian: apt-get install dataset-fashion-mnist. Elsewhere name its folder in {VARIABLE}.",
        )
    )
