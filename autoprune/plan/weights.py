"""Plan of weight masks: how many single weights are set to zero, in which pattern, by which criterion."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from autoprune.codec import Format, stored
from autoprune.errors import error_message, raise_all
from autoprune.plan.validation import is_share, validate

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

    pattern: str = "unstructured"
    sparsity: float | None = None
    criterion: str = "l1"
    spread: str = "layer"
    layers: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        fixed = group_pattern(self.pattern) if isinstance(self.pattern, str) else None
        known = self.pattern == "unstructured" or fixed or block_pattern(str(self.pattern))
        validate(
            "the plan of weights",
            (
                (bool(known), "a pattern", "be unstructured, N:M with N < M, or block-RxC", self.pattern),
                (fixed is not None or is_share(self.sparsity), "a sparsity", "lie in [0, 1)", self.sparsity),
                (fixed is None or self.sparsity is None, f"the sparsity of {self.pattern}", "be None", self.sparsity),
                (isinstance(self.criterion, str), "a weight criterion", "be a name", self.criterion),
                (self.spread in SPREADS, "a spread", f"be one of {', '.join(SPREADS)}", self.spread),
                (isinstance(self.layers, Mapping), "layers", "be a mapping of weights to sparsities", self.layers),
            ),
        )
        own = self.layers
        raise_all(
            "the plan of weights",
            [
                error_message(f"the sparsity of {name!r}", "be 0" if fixed else "lie in [0, 1)", repr(share))
                for name, share in own.items()
                if not is_share(share) or (fixed and share)
            ],
        )
        object.__setattr__(self, "layers", MappingProxyType({name: float(s) for name, s in own.items()}))

    @property
    def target(self) -> float:
        """Share of the weights that is zero in the end, except in layers with a sparsity in `layers`."""
        fixed = group_pattern(self.pattern)
        if fixed is not None:
            return 1.0 - fixed[0] / fixed[1]
        assert self.sparsity is not None
        return self.sparsity
