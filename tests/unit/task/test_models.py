"""Which models are taken, and that a copy is a model of its own."""

from __future__ import annotations

import functools
import types
import weakref
from collections import deque
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import prune

from autoprune.errors import ConfigurationError, TaskError, TraceError
from autoprune.plan.kept import KeptChannels
from autoprune.proof.discover import discover_structure
from autoprune.structure.topology import Topology
from autoprune.surgery.cut import cut
from autoprune.task.clone import clone_with
from autoprune.task.models import without_wrapping
from autoprune.task.prepare import PreparedTask, prepare
from autoprune.task.task import Task

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning"),
]
INPUTS, TARGETS = torch.randn(40, 6, generator=torch.Generator().manual_seed(0)), torch.arange(40) % 3


def plain() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3))


def task(model: object, **changes: object) -> PreparedTask:
    data = {"train": (INPUTS[:20], TARGETS[:20]), "search": (INPUTS[20:], TARGETS[20:])}
    score = {"loss": nn.functional.cross_entropy, "metrics": ("accuracy",), "quality": "accuracy"}
    more = {"example_inputs": INPUTS[:4], "batch_size": 10, "require_trained": False}
    return prepare(Task(model=model, **data, **score, **more, **changes))  # type: ignore[arg-type]


def halves(topology: Topology) -> KeptChannels:
    return KeptChannels(groups={g.name: tuple(range(0, g.channels, 2)) for g in topology.groups})


def holding(part: nn.Module) -> nn.Module:
    model = plain()
    model[2] = part
    return model


REFUSED: dict[str, tuple[Callable[[], nn.Module], tuple[str, ...]]] = {
    "compiled": (lambda: torch.compile(plain()), ("OptimizedModule", "._orig_mod", "compile the pruned model")),
    "a compiled part": (lambda: holding(torch.compile(nn.Linear(8, 8))), ("2 in the model", "OptimizedModule")),
    "data parallel": (lambda: nn.DataParallel(plain()), ("DataParallel", ".module")),
    "a parallel part": (lambda: holding(nn.DataParallel(nn.Linear(8, 8))), ("2 in the model", ".module")),
    "averaged": (lambda: torch.optim.swa_utils.AveragedModel(plain()), ("AveragedModel", ".module")),
    "scripted": (lambda: torch.jit.script(plain()), ("ScriptModule", "script or trace the pruned model")),
    "traced": (lambda: torch.jit.trace(plain(), INPUTS[:4]), ("ScriptModule", "nn.Module that it was made of")),
    "a scripted part": (lambda: holding(torch.jit.script(nn.Linear(8, 8))), ("2 in the model", "ScriptModule")),
    "exported": (
        lambda: torch.export.export(plain(), (INPUTS[:4],)).module(),
        ("GraphModule", "nn.Module that was exported"),
    ),
    "masked": (
        lambda: holding(prune.l1_unstructured(nn.Linear(8, 8), "weight", 0.5)),
        ("2 in the model", "torch.nn.utils.prune.remove(module, 'weight')"),
    ),
    "lazy": (lambda: holding(nn.LazyLinear(8)), ("2 in the model", "Call the model once first")),
}


@pytest.mark.parametrize(("build", "words"), REFUSED.values(), ids=REFUSED)
def test_a_model_of_another_kind_is_refused_with_what_to_do(
    build: Callable[[], nn.Module], words: tuple[str, ...]
) -> None:
    with pytest.raises(TaskError) as caught:
        task(build())
    assert all(word in str(caught.value) for word in words)


def with_closure() -> nn.Module:
    model = plain()
    was = model.forward
    model.forward = lambda x: was(x) + 1
    return model


def with_compiled_forward() -> nn.Module:
    model = plain()
    model.forward = torch.compile(model.forward)
    return model


def with_hook() -> nn.Module:
    model = plain()
    model[2].register_forward_hook(lambda module, args, out: out + model[0].weight.sum())
    return model


class Child(nn.Module):
    """Looks at its parent through something that no copy follows."""

    def __init__(self, parent: nn.Module) -> None:
        super().__init__()
        self.parent = weakref.ref(parent)

    def forward(self, x: Tensor) -> Tensor:
        parent = self.parent()
        assert isinstance(parent, nn.Sequential)
        return x * parent[0].weight.mean()


def with_weak_reference() -> nn.Module:
    model = plain()
    model[3] = Child(model)
    return model


BOUND = {
    "closure": (with_closure, "forward"),
    "compiled forward": (with_compiled_forward, "forward"),
    "hook": (with_hook, "a hook of 2"),
    "weak reference": (with_weak_reference, "3.parent"),
}


@pytest.mark.parametrize(("build", "names"), BOUND.values(), ids=BOUND)
def test_a_model_whose_copy_runs_the_original_is_refused(build: Callable[[], nn.Module], names: str) -> None:
    model = build().eval()
    said = rf"a copy of the model must compute with its own weights, .*\(0\.weight.*\({names}\)"
    with pytest.raises(TaskError, match=said):
        task(model)
    with pytest.raises(TaskError, match=said):
        task(build)
    with pytest.raises(TraceError, match=said):
        discover_structure(model, INPUTS[:4])


class Pipe(nn.Module):
    """Calls its layers through an object, a bound method or a partial of its own."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.net = plain()
        self.how: object = {
            "object": types.SimpleNamespace(run=self.net),
            "method": types.SimpleNamespace(run=self.plainly),
            "partial": types.SimpleNamespace(run=functools.partial(Pipe.plainly, self)),
            "list": types.SimpleNamespace(run=[self.net].__getitem__(0)),
        }[how]

    def plainly(self, x: Tensor) -> Tensor:
        return self.net(x)

    def forward(self, x: Tensor) -> Tensor:
        return self.how.run(x)


def with_method() -> nn.Module:
    model = plain()
    model.forward = types.MethodType(nn.Sequential.forward, model)
    return model


def with_partial() -> nn.Module:
    model = plain()
    model.forward = functools.partial(nn.Sequential.forward, model)
    return model


def compiled_in_place() -> nn.Module:
    model = plain()
    model.compile()
    return model


REBOUND: dict[str, Callable[[], nn.Module]] = {
    **{how: functools.partial(Pipe, how) for how in ("object", "method", "partial", "list")},
    "forward as a method": with_method,
    "forward as a partial": with_partial,
    "compiled in place": compiled_in_place,
    "fx": lambda: torch.fx.symbolic_trace(plain()),
    "a scripted activation": lambda: nn.Sequential(plain(), torch.jit.script(nn.ReLU()), nn.Linear(3, 3)),
}


@pytest.mark.parametrize("build", REBOUND.values(), ids=REBOUND)
def test_what_can_be_bound_to_the_copy_is(build: Callable[[], nn.Module]) -> None:
    found = task(build())
    topology = discover_structure(found.dense, found.example_inputs)
    assert sorted(topology.widths.values())[-2:] == [8, 8]
    smaller = cut(found.dense, topology, halves(topology))
    with torch.no_grad():
        before = smaller(INPUTS)
        for parameter in found.dense.parameters():
            parameter.fill_(torch.nan)
        assert torch.equal(smaller(INPUTS), before)
        for parameter in smaller.parameters():
            parameter.add_(1)
        assert not torch.equal(smaller(INPUTS), before)


# ---- what models keep on themselves


class Keeps(nn.Module):
    """Keeps an activation of its last call."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.net, self.how = plain(), how
        self.last: object = None
        self.many: list[Tensor] = []
        self.queue: deque[Tensor] = deque(maxlen=2)
        self.by_name: dict[str, object] = {}
        self.register_buffer("held", torch.zeros(1), persistent=how == "stored buffer")

    def forward(self, x: Tensor) -> Tensor:
        x = self.net[:2](x)
        if self.how == "attribute":
            self.last = x
        elif self.how == "list":
            self.many.append(x)
        elif self.how == "deque":
            self.queue.append(x)
        elif self.how == "nested":
            self.by_name["x"] = (types.SimpleNamespace(x=[x]),)
        else:
            self.held = x
        return self.net[2:](x)


@pytest.mark.parametrize("how", ["attribute", "list", "deque", "nested", "buffer", "stored buffer"])
def test_a_model_that_keeps_an_activation_is_copied_and_cut(how: str) -> None:
    model = Keeps(how)
    model(INPUTS[:7])
    found = task(model)
    topology = discover_structure(found.dense, found.example_inputs)
    assert topology.widths == {"net.0": 8, "net.2": 8}
    found.dense(INPUTS[:5])
    smaller = cut(found.dense, topology, halves(topology)).train()
    smaller(INPUTS).sum().backward()
    assert all(parameter.grad is None for parameter in (*model.parameters(), *found.dense.parameters()))


class Cached(nn.Module):
    """Looks its biases up once for eval mode, as LeViT does in timm ("lazily") and in its authors' code ("at once")."""

    def __init__(self, when: str) -> None:
        super().__init__()
        self.inp, self.out, self.when = nn.Linear(6, 8), nn.Linear(8, 3), when
        self.table, self.kept = nn.Parameter(torch.randn(2, 8)), {}

    def train(self, mode: bool = True) -> nn.Module:
        super().train(mode)
        self.kept = {} if mode or (self.when == "lazily" and not self.kept) else self.kept
        if not mode and self.when == "at once":
            self.kept = {"": self.table.detach().sum(0)}
        return self

    def bias(self) -> Tensor:
        if self.training:
            return self.table.sum(0)
        if not self.kept:
            self.kept[""] = self.table.sum(0)
        return self.kept[""]

    def forward(self, x: Tensor) -> Tensor:
        return self.out(torch.relu(self.inp(x) + self.bias()))


@pytest.mark.parametrize("when", ["lazily", "at once"])
@pytest.mark.parametrize("graph", [True, False])
def test_what_is_computed_for_eval_mode_is_made_anew_in_copies(when: str, graph: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Cached(when).eval()
    with torch.set_grad_enabled(graph):
        model(INPUTS[:4])
    doubled = {name: 2 * tensor for name, tensor in model.state_dict().items()}
    torch.save(doubled, tmp_path / "doubled.pt")
    found = task(model, checkpoint=tmp_path / "doubled.pt")
    other = clone_with(model, lambda _, tensor: 2 * tensor)
    wanted = Cached(when)
    wanted.load_state_dict(doubled)
    with torch.no_grad():
        assert torch.equal(other(INPUTS), wanted.eval()(INPUTS))
        assert torch.equal(found.dense(INPUTS), wanted(INPUTS))
        assert not torch.equal(model(INPUTS), wanted(INPUTS))
        topology = discover_structure(found.dense, found.example_inputs)
        if when == "lazily":  # the other fills it before a forward is watched
            assert topology.widths == {"inp": 8}
            smaller = cut(found.dense, topology, halves(topology))
            fresh = Cached(when).eval()
            fresh.inp, fresh.out, fresh.table = smaller.inp, smaller.out, smaller.table
            assert torch.equal(smaller(INPUTS), fresh(INPUTS))


def test_a_class_that_leaves_out_a_lock_is_copied_as_it_says() -> None:
    class Locked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net, self.lock = plain(), iter(())  # an iterator is as little copyable as a lock

        def __getstate__(self) -> dict[str, object]:
            return {name: value for name, value in vars(self).items() if name != "lock"}

        def forward(self, x: Tensor) -> Tensor:
            return self.net(x)

    model = Locked()
    model.lock = (x for x in ())
    assert discover_structure(task(model).dense, INPUTS[:4]).widths == {"net.0": 8, "net.2": 8}
    other = plain()
    other.lock = (x for x in ())
    with pytest.raises(TaskError, match=r"copyable with copy\.deepcopy, but got TypeError.*__getstate__"):
        task(other)


def test_old_weight_norm_is_cut() -> None:
    model = plain()
    for number in (0, 2):
        nn.utils.weight_norm(model[number])
    model(INPUTS)
    found = task(model)
    topology = discover_structure(found.dense, found.example_inputs)
    assert topology.widths == {"0": 8, "2": 8}
    smaller = cut(found.dense, topology, halves(topology)).train()
    smaller(INPUTS).sum().backward()
    assert smaller[0].weight.shape == (4, 6)
    assert smaller[2].weight_v.grad.shape == (4, 4)


# ---- norms that refuse one sample


class Among(nn.Module):
    """Normalises over the batch, by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.rand(8) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        if len(x) < 2:
            raise ValueError("one sample has no spread")
        return (x - x.mean(0)) / (x.std(0) + 0.1) * self.scale


def test_a_norm_that_refuses_one_sample_never_meets_one() -> None:
    found = task(holding(nn.Sequential(nn.Linear(8, 8), Among())))
    topology = discover_structure(found.dense, found.example_inputs)
    assert topology.widths == {"0": 8, "2.0": 8}
    assert not [entry for entry in topology.unprunable if "sample" in entry.reason]


# ---- keys of wrappers


def prefixed(prefix: str) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in plain().state_dict().items()}


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module.", "averaged"])
def test_the_checkpoint_of_a_wrapper_is_loaded(prefix: str, tmp_path: Path) -> None:
    weights = prefixed(prefix)
    if prefix == "averaged":
        weights = {"n_averaged": torch.tensor(3), **prefixed("module.")}
    torch.save(weights, tmp_path / "wrapped.pt")
    with torch.no_grad():
        zeros = plain()
        for parameter in zeros.parameters():
            parameter.zero_()
    loaded = task(zeros, checkpoint=tmp_path / "wrapped.pt").dense.state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in plain().state_dict().items())


def test_a_wrapper_within_is_left_out_and_a_part_of_that_name_is_not() -> None:
    weights = {"a._orig_mod.weight": torch.ones(1), "b.bias": torch.ones(1)}
    assert without_wrapping(weights, {"a.weight", "b.bias"}).keys() == {"a.weight", "b.bias"}
    parts = {"module.module.weight": torch.ones(1), "module.bias": torch.ones(1)}
    assert without_wrapping(parts, {"module.weight", "bias"}).keys() == {"module.weight", "bias"}
    assert without_wrapping(parts, {"weight", "bias"}).keys() == {"weight", "bias"}
    assert without_wrapping(parts, {"other"}) is parts


def test_another_prefix_is_named(tmp_path: Path) -> None:
    torch.save(prefixed("encoder."), tmp_path / "other.pt")
    with pytest.raises(ConfigurationError, match=r"Every key begins with 'encoder\.'"):
        task(plain(), checkpoint=tmp_path / "other.pt")
