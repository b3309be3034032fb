"""Map each operator to the rule that follows channels through it.

An operator without a rule freezes the channels of all its arguments: an unknown operator costs coverage, never
correctness.
"""

from __future__ import annotations

from collections.abc import Mapping

from autoprune.trace.rules.attention import ATTENTION_RULES
from autoprune.trace.rules.convolutions import CONVOLUTION_RULES
from autoprune.trace.rules.creation import CREATION_RULES
from autoprune.trace.rules.elementwise import ELEMENTWISE_RULES
from autoprune.trace.rules.indexing import INDEXING_RULES
from autoprune.trace.rules.norms import NORM_RULES
from autoprune.trace.rules.products import PRODUCT_RULES
from autoprune.trace.rules.rearrange import REARRANGE_RULES
from autoprune.trace.rules.reductions import REDUCTION_RULES
from autoprune.trace.rules.reshape import RESHAPE_RULES
from autoprune.trace.rules.rule import OperatorRule
from autoprune.trace.rules.slices import SLICE_RULES
from autoprune.trace.rules.spatial import SPATIAL_RULES

#: The rules of each family. No operator is in two of them.
FAMILIES: tuple[Mapping[str, OperatorRule], ...] = (
    ATTENTION_RULES,
    CONVOLUTION_RULES,
    CREATION_RULES,
    ELEMENTWISE_RULES,
    INDEXING_RULES,
    NORM_RULES,
    PRODUCT_RULES,
    REARRANGE_RULES,
    REDUCTION_RULES,
    RESHAPE_RULES,
    SLICE_RULES,
    SPATIAL_RULES,
)
RULES: Mapping[str, OperatorRule] = {name: rule for family in FAMILIES for name, rule in family.items()}
