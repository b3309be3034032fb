"""Which models of the zoo a commit is tested with: a set cover of what the models show.

features.json holds what each model of the whole zoo shows: the operators that its trace sees, the reasons for which
channels stay, and the kinds of groups and blocks. The default run takes models that show all of that together, cheap
ones first; `make test-slow` takes the others. A test compares each model that is run with its row.

    python -m tests.zoo.cover          says which models are taken, and what only one of them shows
    python -m tests.zoo.cover --write  writes features.json anew, for a new model, rule or reason
"""

from __future__ import annotations

import functools
import json
import sys
import time
import warnings
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from torch import nn

from autoprune.task.data import Inputs
from tests.slow import quick

TABLE = Path(__file__).with_name("features.json")
#: Models that are always taken, and the files whose code they alone ran through, by branch coverage of the trace, the
#: surgery and the proof over the whole zoo: neither an operator nor a reason tells that.
ALWAYS: Mapping[str, str] = {
    "shufflenet_v2": "matching, union_find, shapes",
    "nfnet": "group_proof, masked_operators, union_find",
    "grouped_decoder": "products",
    "hf_wav2vec2_stable": "watch, discover: a trace of training mode",
    "wavenet": "group_proof, topology, influence",
    "condconv": "numbers, products, group_proof",
    "hf_bert_eager": "block_proof, comparison",
    "edgenext": "matching, modules, union_find",
    "detr": "union_find, products, attention",
    "detr_demo": "skip, cut, attention",
    "translator": "attention",
    "hf_phi": "numbers, watch",
    "eca": "trace",
    "resnet": "memory",
}


class Row(NamedTuple):
    """What a model shows, and the seconds of its trace."""

    shows: frozenset[str]
    seconds: float


def features(model: nn.Module, inputs: Inputs) -> frozenset[str]:
    """What the trace of a model shows: operators, reasons, kinds of groups and of blocks."""
    from autoprune.trace.trace import trace
    from autoprune.trace.watch import run

    (tracer, _), topology = run(model, inputs), trace(model, inputs)
    reasons = {entry.why.kind.name for entry in (*topology.unprunable, *topology.ineligible)}
    groups = {group.kind for group in topology.groups} | {"rescaled" for group in topology.groups if group.rescaled}
    blocks = {part for block in topology.blocks for part in ("exact", "repeated", "withholds") if getattr(block, part)}
    return frozenset(
        {step.name for step in tracer.steps}
        | {f"reason:{name}" for name in reasons}
        | {f"group:{name}" for name in groups}
        | {f"block:{name}" for name in blocks}
        | ({"statistics"} if topology.has_statistics else set())
    )


@functools.cache
def table() -> Mapping[str, Row]:
    """The rows of features.json."""
    rows = json.loads(TABLE.read_text()) if TABLE.exists() else {}
    return {name: Row(frozenset(row["shows"].split()), row["seconds"]) for name, row in rows.items()}


def shown(names: Iterable[str]) -> frozenset[str]:
    """What these models show together."""
    return frozenset[str]().union(*(table()[name].shows for name in names))


@functools.cache
def cover() -> tuple[str, ...]:
    """Models that show together what the whole zoo shows: greedily the most new in a second, less what is needless."""
    taken = [name for name in ALWAYS if name in table()]
    left = shown(table()) - shown(taken)
    while left:
        taken.append(max(table(), key=lambda name: len(table()[name].shows & left) / (1.0 + table()[name].seconds)))
        left -= table()[taken[-1]].shows
    for name in sorted(set(taken) - set(ALWAYS), key=lambda name: -table()[name].seconds):
        if table()[name].shows <= shown(set(taken) - {name}):
            taken.remove(name)
    return tuple(taken)


def models(names: Collection[str]) -> list[object]:
    """Parameters of a test: models outside the cover are slow."""
    return quick(names, set(cover()) & set(names))


def write() -> None:
    """Trace every model of the zoo, and write what it shows."""
    from tests.zoo.registry import WHOLE_ZOO, build_any

    rows = {}
    for name in WHOLE_ZOO:
        model, inputs = build_any(name)
        start = time.process_time()
        shows = features(model, inputs)
        rows[name] = {"seconds": round(time.process_time() - start, 1), "shows": " ".join(sorted(shows))}
    lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(row)}" for name, row in rows.items())
    TABLE.write_text(f"{{\n{lines}\n}}\n")


def main() -> None:
    """Print the cover."""
    warnings.simplefilter("ignore")
    if "--write" in sys.argv[1:]:
        write()
    for name in cover():
        alone = table()[name].shows - shown(set(cover()) - {name})
        print(f"{table()[name].seconds:5.1f} s  {name}: {ALWAYS.get(name) or ', '.join(sorted(alone))}")
    print(f"{len(cover())} of {len(table())} models, {sum(table()[name].seconds for name in cover()):.0f} s")


if __name__ == "__main__":
    main()
