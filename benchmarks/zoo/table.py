"""The table of results, as Markdown for docs/structure.md."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from benchmarks.reporting import print_table

#: One line of results: the fields of `check.Found` and the model's name; or the name and an error.
Record = dict[str, object]
#: A model is full when no more than that share of the multiply-adds is in layers whose outputs stay whole.
FULL = 0.02
#: And none when that share or more is.
NONE = 0.9


def verdict(record: Record) -> str:
    """full, part, none, wrong, not checked or fails."""
    if record.get("error"):
        return "fails"
    if record["wrong"]:
        return "wrong"
    if record["unchecked"]:
        return "not checked"
    whole = _number(record, "whole")
    return "full" if whole <= FULL else "none" if whole >= NONE or not record["groups"] else "part"


def print_results(records: Mapping[str, Record]) -> None:
    """The table, and how many there are of each verdict."""
    columns = ("model", "parameters", "groups", "blocks", "layers", "left", "whole", "seconds", "verdict", "why")
    print_table("Real models", columns, [_row(name, record) for name, record in records.items()])
    verdicts = Counter(verdict(record) for record in records.values())
    draws = sum(int(_number(record, "draws")) for record in records.values())
    said = ", ".join(f"{count} {kind}" for kind, count in verdicts.most_common())
    print(f"\n{len(records)} models, {draws} draws: {said}.")


def _row(name: str, record: Record) -> list[str]:
    if record.get("error"):
        return [name, *[""] * 7, verdict(record), str(record["error"])]
    said = verdict(record)
    return [
        name,
        f"{_number(record, 'parameters') / 1e6:.2f} M",
        str(record["groups"]),
        str(record["blocks"]),
        str(record["layers"]),
        f"{_number(record, 'left'):.0%}",
        f"{_number(record, 'whole'):.1%}",
        f"{_number(record, 'seconds'):.0f}",
        said,
        "" if said == "full" else _why(record),
    ]


def _why(record: Record) -> str:
    """What is wrong, or the layers that stay and why: those of one reason together."""
    for field in ("wrong", "unchecked"):
        found = record[field]
        if isinstance(found, list) and found:
            return "; ".join(found)
    reasons = record["reasons"]
    assert isinstance(reasons, list)
    shares: dict[str, float] = {}
    layers: dict[str, str] = {}
    for entry in reasons:
        layer, _, rest = str(entry).partition(": ")
        share, _, reason = rest.partition(", ")
        shares[reason] = shares.get(reason, 0.0) + float(share.rstrip("%"))
        layers.setdefault(reason, layer)
    ordered = sorted(shares, key=lambda reason: -shares[reason])[:3]
    return "; ".join(f"`{layers[reason]}` and the like, {shares[reason]:.0f} %: {reason}" for reason in ordered)


def _number(record: Record, field: str) -> float:
    value = record.get(field, 0)
    assert isinstance(value, int | float)
    return value
