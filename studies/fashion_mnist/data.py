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
from autoprune.errors import NotFoundError, StorageError, error_message

#: Where Debian's package puts the files.
PACKAGED = Path("/usr/share/datasets/fashion-mnist")
#: The environment variable that names another folder with the same four files.
VARIABLE = "FASHION_MNIST"
#: Published images that the dense model is not trained on, of 60,000.
SEARCH_SAMPLES = 6_000

#: Name of a split -> (images float32 [N, 1, 28, 28], classes int64 [N]).
Datasets = dict[str, tuple[Tensor, Tensor]]


def datasets(folder: Path | None = None) -> Datasets:
    """train, search and test, scaled by numbers fitted on train alone.

    folder: where the four files lie; else what FASHION_MNIST names, else where Debian's package puts them. Search is
    drawn at random from the published training images, always the same ones; test is published as such.
    Raises NotFoundError without the files, StorageError for files that are not the data.
    """
    place = folder if folder is not None else Path(os.environ.get(VARIABLE) or PACKAGED)
    images, targets = _part(place, "train")
    test_images, test_targets = _part(place, "t10k")
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
        zeros, kind, axes = struct.unpack_from(">HBB", data)
        shape = struct.unpack_from(f">{axes}I", data, 4)
    except (OSError, EOFError, struct.error, zlib.error) as error:
        raise StorageError(error_message(str(path), "be an idx file", f"{type(error).__name__}: {error}")) from error
    start = 4 + 4 * axes
    if zeros != 0 or kind != 0x08 or len(data) != start + math.prod(shape):
        raise StorageError(error_message(str(path), "be an idx file of bytes", f"{len(data)} bytes that say {shape}"))
    return torch.frombuffer(bytearray(data[start:]), dtype=torch.uint8).reshape(shape)


def _part(place: Path, part: str) -> tuple[Tensor, Tensor]:
    """Images in [0, 1] with an axis for their one channel, and classes."""
    images = read_idx(_file(place, f"{part}-images-idx3-ubyte"))
    targets = read_idx(_file(place, f"{part}-labels-idx1-ubyte"))
    if images.ndim != 3 or images.shape[:1] != targets.shape:
        shapes = f"{tuple(images.shape)} and {tuple(targets.shape)}"
        raise StorageError(error_message(f"{part} in {place}", "be images [N, H, W] and a class for each", shapes))
    return images.unsqueeze(1).float() / 255, targets.long()


def _file(place: Path, name: str) -> Path:
    for path in (place / f"{name}.gz", place / name):
        if path.is_file():
            return path
    remedy = f"On Debian: apt-get install dataset-fashion-mnist. Elsewhere name the folder in {VARIABLE}."
    raise NotFoundError(error_message("the folder of Fashion-MNIST", f"hold {name}.gz", f"{place} without it", remedy))
