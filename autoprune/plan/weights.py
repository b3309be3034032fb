"""Plan of weight masks: how many single weights are set to zero, in which pattern, by which criterion."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Annotated

from autoprune.codec import Format, stored
from autoprune.plan.rules import NAME, SHARE, Rule, check_fields, instance_of, one_of, or_none
from autoprune.plan.validation import FieldCheck

#: How a target sparsity is spread over layers: the same share of each layer; Erdos-Renyi-Kernel (Evci et al. 2020),
#: which takes more from wide layers; one ranking of all weights.
SPREADS = ("layer", "erk", "global")
#: Common patterns. Any N:M and any block of rows x columns is a pattern, too.
PATTERNS = ("unstructured", "2:4", "4:8", "block-4x4", "block-1x8")
_OF_GROUP = re.compile(r"([1-9]\d*):([1-9]\d*)")
_BLOCK = re.compile(r"block-([1-9]\d*)x([1-9]\d*)")


def group_pattern(pattern: str) -> tuple[int, int] | None:
    """Parse an N:M pattern, in which N of M neighbours along the input axis stay.

    Args:
        pattern: Such as "2:4".

    Returns:
        (N, M), or None for another pattern.
    """
    found = _OF_GROUP.fullmatch(pattern)
    return (int(found[1]), int(found[2])) if found is not None and int(found[1]) < int(found[2]) else None


def block_pattern(pattern: str) -> tuple[int, int] | None:
    """Parse a pattern of blocks of the weight as a matrix [outputs, inputs].

    Args:
        pattern: Such as "block-4x4".

    Returns:
        (rows, columns), or None for another pattern.
    """
    found = _BLOCK.fullmatch(pattern)
    return (int(found[1]), int(found[2])) if found is not None else None


def _is_pattern(value: object) -> bool:
    """Return whether a value names a pattern."""
    return isinstance(value, str) and (
        value == "unstructured" or group_pattern(value) is not None or block_pattern(value) is not None
    )


_PATTERN = Rule(holds=_is_pattern, wants="be unstructured, N:M with N < M, or block-RxC")


@stored(Format(what="a plan of weights", optional=None, refuses_unknown=True))
@dataclass(frozen=True, slots=True, kw_only=True)
class WeightPlan:
    """Masks of single weights. Masked weights are zero and stay zero.

    Attributes:
        pattern: "unstructured"; "N:M", such as "2:4": N of M neighbours along the input axis stay; "block-RxC": blocks
            of R outputs and C inputs are masked whole.
        sparsity: Share of all weights of the masked layers that is zero in the end, in [0, 1). For "N:M" it is 1 - N /
            M and must not be given.
        criterion: Name of a criterion that scores single weights.
        spread: How the sparsity is spread over layers, one of SPREADS.
        layers: Name of a weight -> its sparsity in [0, 1), in place of the spread's; 0 leaves the weight unmasked. For
            "N:M" only 0 is allowed.

    Example:
        >>> WeightPlan(pattern="2:4").target
        0.5
    """

    pattern: Annotated[str, _PATTERN] = "unstructured"
    sparsity: Annotated[float | None, or_none(SHARE)] = None
    criterion: Annotated[str, NAME] = "l1"
    spread: Annotated[str, one_of(SPREADS)] = "layer"
    layers: Annotated[Mapping[str, float], instance_of(Mapping)] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_fields("the plan of weights", self, "weights", more=self._checks())
        own = {name: float(share) for name, share in self.layers.items()}
        object.__setattr__(self, "layers", MappingProxyType(own))

    def _checks(self) -> Iterator[FieldCheck]:
        fixed = group_pattern(self.pattern) is not None
        wants = f"be None, as {self.pattern} fixes it" if fixed else SHARE.wants
        yield (self.sparsity is None) == fixed, "weights.sparsity", wants, self.sparsity
        for name, share in self.layers.items():
            right = SHARE.holds(share) and not (fixed and share)
            yield right, f"the sparsity of {name!r}", "be 0" if fixed else SHARE.wants, share

    @property
    def target(self) -> float:
        """Share of the weights that is zero in the end, except in layers with a sparsity in `layers`."""
        fixed = group_pattern(self.pattern)
        if fixed is not None:
            return 1.0 - fixed[0] / fixed[1]
        assert self.sparsity is not None
        return self.sparsity
