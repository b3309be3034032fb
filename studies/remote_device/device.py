"""A device that is simulated: it gets an ONNX file, as a phone or board would, and answers with milliseconds."""

from __future__ import annotations

import math
import random
from pathlib import Path

import onnx

#: Channels that the device computes at once: 9 take as long as 16.
LANES = 8
#: Milliseconds of an operator, and of a million numbers of a weight.
CALL, MILLION = 0.02, 4.0


def milliseconds(file: Path) -> list[float]:
    """Time five calls. On a real device: copy the file there, run it, and return what its clock says."""
    graph = onnx.load(file).graph
    shapes = {one.name: tuple(one.dims) for one in graph.initializer}
    weights = [shapes[name] for node in graph.node for name in node.input if len(shapes.get(name, ())) > 1]
    numbers = sum(math.prod((*(-(-size // LANES) * LANES for size in one[:2]), *one[2:])) for one in weights)
    typical = CALL * len(graph.node) + MILLION * numbers / 1e6
    return [typical * random.gauss(1.0, 0.01) for _ in range(5)]
