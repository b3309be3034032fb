"""Mixtures of experts: tokens are sent to some of the experts, by their scores."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from autoprune.task.data import Inputs
from tests.zoo.transformers_hub import GROUPED, built, ids, stirred, tokens

MIXED = {**GROUPED, "num_experts_per_tok": 2}


def mixtral(implementation: str) -> nn.Module:
    """Weights of all experts in one tensor; one product of groups, one of batches, or a loop over the experts."""
    from transformers import MixtralConfig, MixtralForCausalLM

    return built(MixtralForCausalLM, MixtralConfig, **MIXED, num_local_experts=4, experts_implementation=implementation)


def qwen2_moe() -> nn.Module:
    """With an expert that every token meets, behind a gate."""
    from transformers import Qwen2MoeConfig, Qwen2MoeForCausalLM

    sizes = {"num_experts": 4, "moe_intermediate_size": 24, "shared_expert_intermediate_size": 20}
    return built(Qwen2MoeForCausalLM, Qwen2MoeConfig, **MIXED, **sizes)


class RoutedExperts(nn.Module):
    """The first two experts for every token, each called with the tokens that are sent to it."""

    def __init__(self, dim: int, hidden: int, experts: int) -> None:
        super().__init__()
        self.router = nn.Linear(dim, experts)
        self.norm = nn.LayerNorm(dim)
        self.experts = nn.ModuleList(
            nn.Sequential(nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, dim)) for _ in range(experts)
        )

    def forward(self, x: Tensor) -> Tensor:
        flat = self.norm(x).reshape(-1, x.shape[-1])
        weights, chosen = F.softmax(self.router(flat), dim=-1).topk(2)
        mixed = torch.zeros_like(flat)
        for number, expert in enumerate(self.experts):
            token, place = torch.where(chosen == number)
            mixed[token] += expert(flat[token]) * weights[token, place, None]
        return x + mixed.view_as(x)


class SummedExperts(RoutedExperts):
    """The same by a table of hits, and sums in place, as the loop of transformers."""

    def forward(self, x: Tensor) -> Tensor:
        flat = self.norm(x).reshape(-1, x.shape[-1])
        weights, chosen = F.softmax(self.router(flat), dim=-1).topk(2)
        hits = F.one_hot(chosen, len(self.experts)).permute(2, 1, 0)
        mixed = torch.zeros_like(flat)
        for number in hits.sum((1, 2)).nonzero().flatten().tolist():
            place, token = torch.where(hits[number])
            mixed.index_add_(0, token, self.experts[number](flat[token]) * weights[token, place, None])
        return x + mixed.view_as(x)


class RoutedModel(nn.Module):
    def __init__(self, dim: int = 16, layers: int = 2, kind: type[RoutedExperts] = RoutedExperts) -> None:
        super().__init__()
        self.embedding = nn.Embedding(40, dim)
        self.layers = nn.ModuleList(kind(dim, 20, 3) for _ in range(layers))
        self.head = nn.Linear(dim, 5)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embedding(tokens)
        for layer in self.layers:
            x = layer(x)
        return self.head(x.mean(1))


EXPERTS: dict[str, tuple[Callable[[], nn.Module], Callable[[], Inputs]]] = {
    "hf_mixtral": (lambda: mixtral("grouped_mm"), tokens),
    "hf_mixtral_batched": (lambda: mixtral("batched_mm"), tokens),
    "hf_mixtral_loop": (lambda: mixtral("eager"), tokens),
    "hf_qwen2_moe": (qwen2_moe, tokens),
    "routed_experts": (lambda: stirred(RoutedModel()), ids),
    "summed_experts": (lambda: stirred(RoutedModel(layers=1, kind=SummedExperts)), ids),
}
