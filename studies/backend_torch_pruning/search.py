"""Torch-Pruning prunes, autoprune searches: it asks for widths, and is told how well they do."""

import copy
from collections.abc import Mapping

import torch
import torch_pruning as tp
from torch import Tensor, nn

import autoprune
from studies.digits.study import data, dense


def groups(model: nn.Module, inputs: Tensor) -> list[autoprune.Group]:
    """Torch-Pruning's groups of coupled channels, each named after its first layer."""
    graph = tp.DependencyGraph().build_dependency(model, inputs)
    names = {module: name for name, module in model.named_modules()}
    found = graph.get_all_groups(ignored_layers=[model.head], root_module_types=[nn.Conv2d])
    return [autoprune.Group(name=names[one[0].dep.target.module], channels=len(one[0].idxs)) for one in found]


def prune(model: nn.Module, inputs: Tensor, widths: Mapping[str, int]) -> nn.Module:
    """A copy of the model in which the groups have these widths, by the L2 norm of their weights."""
    smaller, score = copy.deepcopy(model), tp.importance.GroupMagnitudeImportance(p=2)
    graph = tp.DependencyGraph().build_dependency(smaller, inputs)
    for name, width in widths.items():
        layer = smaller.get_submodule(name)
        cut, whole = graph.get_pruner_of_module(layer).prune_out_channels, list(range(layer.out_channels))  # type: ignore[arg-type]
        worst = score(graph.get_pruning_group(layer, cut, whole)).argsort()
        if width < len(whole):
            graph.get_pruning_group(layer, cut, worst[: len(whole) - width].tolist()).prune()
    return smaller


def search(out: str, model: nn.Module, trials: int = 20, steps: int = 100) -> autoprune.Front:
    """Search over the widths; each candidate is pruned from the dense model and trained for some steps."""
    (images, targets), (unseen, answers) = data()["train"], data()["search"]

    def costs(widths: Mapping[str, int], _: tuple[str, ...]) -> dict[str, float]:
        counts = tp.utils.count_ops_and_params(prune(model, images[:1], widths), images[:1])
        return dict(zip(("multiply_adds", "parameters"), counts, strict=True))

    structure = autoprune.structure_of_costs(groups(model, images[:1]), costs)
    settings = autoprune.StudySettings(trials=trials, objectives=("quality", "multiply_adds"))
    with autoprune.SearchBackend(structure, settings, out, metrics={"accuracy": True}) as backend:
        while (proposal := backend.ask()) is not None:
            smaller = prune(model, images[:1], proposal.plan.widths).train()
            optimizer = torch.optim.SGD(smaller.parameters(), lr=0.05, momentum=0.9)
            for batch in torch.randint(len(images), (steps, 64)) if proposal.origin != "dense" else ():
                optimizer.zero_grad()
                nn.functional.cross_entropy(smaller(images[batch]), targets[batch]).backward()
                optimizer.step()
            right = (smaller.eval()(unseen).argmax(1) == answers).float()
            backend.tell(proposal, quality=right.mean().item(), quality_error=right.std().item() / len(right) ** 0.5)
        return backend.front()


if __name__ == "__main__":
    print(search("runs/backend_torch_pruning", dense()).table())
