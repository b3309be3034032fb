"""Follow channels through attention, and count its multiply-adds."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from torch import Tensor

from autoprune.structure.reasons import UNMADE
from autoprune.trace.coupling import with_copies
from autoprune.trace.graph import ChannelGraph
from autoprune.trace.rules.rule import Args, Kwargs, OperatorRule
from autoprune.trace.scales import is_kept
from autoprune.trace.values import tensors_in


def attention(graph: ChannelGraph, args: Args, kwargs: Kwargs, out: object) -> None:
    """Follow scaled dot products [B, H, S, D]: heads of query, key and value are removed together."""
    query, key, value = args[0], args[1], args[2]
    assert isinstance(query, Tensor) and isinstance(key, Tensor) and isinstance(value, Tensor)
    q, k, v = graph.axes(query), graph.axes(key), graph.axes(value)
    heads = q[-3]
    for nodes, count in ((k[-3], key.shape[-3]), (v[-3], value.shape[-3])):
        # Grouped queries: several query heads read one key and value head.
        repeated = nodes if nodes is None or count == query.shape[-3] else np.repeat(nodes, query.shape[-3] // count)
        heads = with_copies(graph, heads, repeated)
    for bias in tensors_in([*args[3:], *kwargs.values()]):
        if bias.ndim > 2 and bias.shape[-3] == query.shape[-3] > 1:
            own = graph.axes(bias)[-3]
            heads = (
                heads if own is None else graph.unify(heads, own, UNMADE)
            )  # zeros for each head follow a number of the module
    width = graph.unify(q[-1], k[-1], UNMADE)
    scale = kwargs.get("scale")
    if scale is None or not is_kept(graph, scale):
        graph.note_scale_width(width)
    result = tensors_in(out)[0]
    rows = [*query.shape[:-3], query.shape[-3], query.shape[-2], key.shape[-2]]
    for nodes, last in ((width, query.shape[-1]), (v[-1], value.shape[-1])):
        graph.contract([*([None] * (query.ndim - 3)), heads, None, None, nodes], [*rows, last], batch=heads)
    graph.put(result, [*([None] * (result.ndim - 3)), heads, None, v[-1]])


ATTENTION_RULES: Mapping[str, OperatorRule] = dict.fromkeys(
    (
        "scaled_dot_product_attention",
        "_scaled_dot_product_flash_attention_for_cpu",
        "_scaled_dot_product_flash_attention",
        "_scaled_dot_product_efficient_attention",
        "_scaled_dot_product_cudnn_attention",
    ),
    attention,
)
