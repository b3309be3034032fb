"""Say why a model has no group, block or layer of a kind."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from autoprune.display import first_names
from autoprune.structure.reasons import Reason, ReasonKind
from autoprune.structure.topology import Topology

#: Kind -> plural name of its parts, and the sentence for a model without any candidate.
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
#: Number of reasons in one message.
_FEW = 3
#: Beginnings of reasons that are full sentences and do not follow the name of a layer.
_SENTENCES = ("cutting it ", "the model ")


def sentence_about(names: Sequence[str], words: str) -> str:
    """Join names of modules and a reason to one sentence.

    Args:
        names: Names of modules; the last may say how many more there are.
        words: The words of the reason.

    Returns:
        The sentence, without a period.

    Example:
        >>> sentence_about(["first", "second"], "makes one channel")
        'each of first and second makes one channel'
    """
    if words.startswith(_SENTENCES):
        return f"{', '.join(names)}: {words}"
    several = f"each of {', '.join(names[:-1])} and {names[-1]}" if len(names) > 1 else names[0]
    return f"{several} {words}"


def title(kind: str) -> str:
    """Return the plural name of a kind's parts, in lower case.

    Args:
        kind: One of `StructureSettings.kinds`.

    Returns:
        The name, such as "widths of heads".
    """
    return _NOTHING[kind][0]


def why_none(kind: str, topology: Topology) -> str:
    """Explain why a model has nothing of a kind to prune, and the remedy.

    Args:
        kind: One of `StructureSettings.kinds`.
        topology: The proved topology.

    Returns:
        Sentences; "" if there is something of that kind.
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
    """Yield the modules that were candidates for the kind, each with the reason that rules it out."""
    for one in topology.ineligible:
        if one.kind == kind:
            yield one.module, one.why
    for left in topology.unprunable:
        if left.kind == kind or (kind == "channels" and not left.kind):
            yield left.group or left.module, left.why
