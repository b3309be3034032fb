"""Why a model has nothing of a kind that can go, in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from autoprune.display import first_names
from autoprune.trace.reasons import Reason, ReasonKind
from autoprune.trace.topology import Topology

#: Kind -> what is said where nothing was found that could have been one, and what the parts are called.
_NOTHING: Mapping[str, tuple[str, str]] = {
    "channels": ("channels", "no layer was found that makes channels which another one reads"),
    "heads": ("heads", "no attention with several heads was found"),
    "head_width": ("widths of heads", "no attention with several heads was found"),
    "blocks": ("blocks", "no module was found that computes what is added to an earlier value"),
    "layers": ("layers", "no module computes products of weights"),
    "weights": (
        "single weights",
        "no parameter is in a matrix product or convolution that is understood",
    ),
}
#: Reasons that are named.
_FEW = 3
#: How the words of reasons begin that are sentences of their own, and do not follow the name of a layer.
_SENTENCES = ("cutting it ", "the model ")


def sentence_about(names: Sequence[str], words: str) -> str:
    """Say a reason of modules.

    Args:
        names: Of modules, or how many more there are.
        words: Of the reason.

    Example:
        >>> sentence_about(["first", "second"], "makes one channel")
        'each of first and second makes one channel'

    """
    if words.startswith(_SENTENCES):
        return f"{', '.join(names)}: {words}"
    several = f"each of {', '.join(names[:-1])} and {names[-1]}" if len(names) > 1 else names[0]
    return f"{several} {words}"


def title(kind: str) -> str:
    """Name the parts of a kind, in small letters."""
    return _NOTHING[kind][0]


def why_none(kind: str, topology: Topology) -> str:
    """Say why nothing of a kind can go, and what to do about it.

    Args:
        kind: Of `SpaceSettings.kinds`.
        topology: Proved.

    Returns:
        Sentences; "" where something can.

    """
    if any(group.kind == kind for group in topology.groups) or any(block.is_of(kind) for block in topology.blocks):
        return ""
    names, nothing = _NOTHING[kind]
    found: dict[str, dict[str, ReasonKind]] = {}
    for module, why in _kept(kind, topology):
        found.setdefault(why.text, {})[module] = why.kind
    told = list(found.items())[:_FEW]
    more = f"; and {len(found) - _FEW} more reasons" if len(found) > _FEW else ""
    said = "; ".join(sentence_about(first_names(list(modules), 2), text) for text, modules in told) or nothing
    remedies = dict.fromkeys(one.remedy for _, modules in told for one in modules.values())
    return " ".join((f"No {names} can go: {said}{more}.", *remedies))


def _kept(kind: str, topology: Topology) -> Iterator[tuple[str, Reason]]:
    """Modules that might have been of the kind, and why they are not."""
    for one in topology.ineligible:
        if one.kind == kind:
            yield one.module, one.why
    for left in topology.unprunable:
        if left.kind == kind or (kind == "channels" and not left.kind):
            yield left.group or left.module, left.why
