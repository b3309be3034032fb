"""The mode in which a loss is defined: found by outputs, without a trace, and whatever training does at random."""

from __future__ import annotations

import random
from collections import namedtuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from autoprune.task.data import Batch, call
from autoprune.task.modes import EVAL_MODE, LossMode, Objective, Outputs, find_loss_mode, in_mode_of, seeded


class Net(nn.Module):
    """Features with a norm and a dropout, and a head."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.5))
        self.head = nn.Linear(16, 4)
        self.register_buffer("calls", torch.zeros(()))
        with torch.no_grad():
            self.body[1].running_mean.normal_()

    def forward(self, x: Tensor) -> object:
        return self.out(self.head(self.between(self.body(x))))

    def between(self, x: Tensor) -> Tensor:
        return x

    def out(self, x: Tensor) -> object:
        return x


class LogSoftmax(Net):
    def out(self, x: Tensor) -> object:
        return x.log_softmax(1)


class FunctionalDropout(Net):
    def between(self, x: Tensor) -> Tensor:
        return functional.dropout(x, 0.5, self.training)


class AlwaysDropout(Net):
    """Monte Carlo dropout: in both modes."""

    def between(self, x: Tensor) -> Tensor:
        return functional.dropout(x, 0.5, True)


class FunctionalNorm(Net):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.randn(16))
        self.register_buffer("var", torch.rand(16) + 0.5)

    def between(self, x: Tensor) -> Tensor:
        return functional.batch_norm(x, self.mean, self.var, training=self.training)


class Noise(Net):
    def between(self, x: Tensor) -> Tensor:
        return x + 0.3 * torch.randn_like(x) if self.training else x


class Layer(nn.Module):
    """Left out by chance in training, by Python's generator."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(16, 16)

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = x if self.training and random.random() < 0.3 else x + self.linear(x)
        return output


class DropPath(nn.Module):
    """Stochastic depth as libraries have it: a leaf that draws for each sample, here by numpy."""

    def forward(self, x: Tensor) -> Tensor:
        keep = torch.from_numpy(np.random.rand(len(x), 1) > 0.2)
        return x * keep / 0.8 if self.training else x


class LayerDrop(Net):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(*(Layer() for _ in range(4)), DropPath())

    def between(self, x: Tensor) -> Tensor:
        output: Tensor = self.layers(x)
        return output


class FrozenBody(Net):
    def train(self, mode: bool = True) -> FrozenBody:
        super().train(mode)
        self.body.eval()
        return self


class Encoder(Net):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.3, batch_first=True)
        self.spectral = torch.nn.utils.parametrizations.spectral_norm(nn.Linear(16, 16))

    def between(self, x: Tensor) -> Tensor:
        output: Tensor = self.spectral(self.layer(x.unsqueeze(1)).squeeze(1))
        return output


class Attention(Net):
    """Dropout inside of a call that is no module's."""

    def between(self, x: Tensor) -> Tensor:
        q = x.unsqueeze(1)
        seen = functional.scaled_dot_product_attention(q, q, q, dropout_p=0.5 if self.training else 0.0)
        return torch.dropout(seen.squeeze(1), 0.5, self.training)


class SoftmaxInEval(Net):
    def out(self, x: Tensor) -> object:
        return x if self.training else x.softmax(1)


class SoftmaxAndNoise(Noise, SoftmaxInEval):
    pass


class SoftmaxAndLayerDrop(LayerDrop, SoftmaxInEval):
    pass


class Head(nn.Linear):
    """A layer with a mode of its own, below a model without one."""

    def forward(self, x: Tensor) -> Tensor:
        logits = super().forward(x)
        return logits if self.training else logits.sigmoid()


class SigmoidInHead(Net):
    def __init__(self) -> None:
        super().__init__()
        self.head = Head(16, 4)


Both = namedtuple("Both", ["logits", "aux"])


class Auxiliary(Net):
    def out(self, x: Tensor) -> object:
        self.calls += self.training
        return Both(x, 2 * x) if self.training else x


class DictInTraining(Net):
    def out(self, x: Tensor) -> object:
        return {"out": x} if self.training else x


class Classes(Net):
    def out(self, x: Tensor) -> object:
        return x if self.training else x.argmax(1)


SAME = [
    *(Net, LogSoftmax, FunctionalDropout, AlwaysDropout, FunctionalNorm, Noise, LayerDrop, FrozenBody, Encoder),
    Attention,
]
OTHERS = [SoftmaxInEval, SoftmaxAndNoise, SoftmaxAndLayerDrop, SigmoidInHead, Auxiliary, DictInTraining, Classes]


def batch() -> Batch:
    return Batch(inputs=torch.randn(16, 8, generator=torch.Generator().manual_seed(3)), targets=None, size=16)


def outputs(model: nn.Module, mode: LossMode, seed: int = 0) -> Outputs:
    with torch.no_grad(), mode.on(model, seed):
        return Outputs.of(call(model, batch().inputs))


@pytest.mark.parametrize("kind", SAME)
def test_what_training_does_by_chance_or_by_batch_is_no_other_meaning(kind: type[Net]) -> None:
    assert find_loss_mode(kind(), batch()) == EVAL_MODE


@pytest.mark.parametrize("kind", OTHERS)
def test_another_meaning_in_training_is_found(kind: type[Net]) -> None:
    model = kind().eval()
    mode = find_loss_mode(model, batch())
    assert mode.trains
    with torch.no_grad():
        features = model.head.weight @ model.body(batch().inputs).T  # in eval mode: without noise
    found = outputs(model, mode)
    first = found.tensors[0]
    if kind in (SoftmaxInEval, Auxiliary, DictInTraining, Classes, SigmoidInHead):
        torch.testing.assert_close(first, features.T + model.head.bias)
    assert (found.same(outputs(model, mode, seed=9))) == (kind is not SoftmaxAndNoise)


def test_classes_that_draw_in_training_are_at_rest_where_the_model_means_something_else() -> None:
    assert find_loss_mode(SoftmaxAndLayerDrop(), batch()).random == {Layer, DropPath}
    assert find_loss_mode(SoftmaxInEval(), batch()).random == frozenset()


@pytest.mark.parametrize("kind", [*SAME, *OTHERS])
@pytest.mark.parametrize("trains", [False, True])
def test_nothing_is_left_behind(kind: type[Net], trains: bool) -> None:
    model = kind().train(trains)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    states = (torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist())
    find_loss_mode(model, batch())
    outputs(model, LossMode(trains=True))
    assert modes == [module.training for module in model.modules()]
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert torch.equal(states[0], torch.get_rng_state())
    assert states[1:] == (random.getstate(), np.random.get_state()[1].tolist())


def test_a_model_that_is_not_trained_is_in_eval_mode() -> None:
    assert find_loss_mode(SoftmaxInEval().requires_grad_(False), batch()) == EVAL_MODE


def test_a_plain_loss_is_defined_in_eval_mode_and_an_objective_says_where() -> None:
    model = SoftmaxInEval()

    def inside(loss: object) -> bool:
        with in_mode_of(loss, model):  # type: ignore[arg-type]
            return model.training

    assert not inside(functional.cross_entropy)
    assert not inside(Objective(functional.cross_entropy, EVAL_MODE))
    assert inside(Objective(functional.cross_entropy, LossMode(trains=True)))
    logits, targets = torch.randn(5, 4), torch.arange(5) % 4
    objective = Objective(functional.cross_entropy, EVAL_MODE)
    assert torch.equal(objective(logits, targets), functional.cross_entropy(logits, targets))


def test_outputs_are_compared_by_structure_and_values() -> None:
    x = torch.ones(3)
    assert Outputs.of({"a": [x, 1]}).same(Outputs.of({"a": [x + 1e-6, 1]}))
    assert not Outputs.of({"a": x}).same(Outputs.of({"b": x}))
    assert not Outputs.of((x, None)).same(Outputs.of((x, x)))
    assert not Outputs.of([x]).same(Outputs.of((x,)))
    assert not Outputs.of(x).same(Outputs.of(x + 0.1))
    assert Outputs.of(torch.tensor([float("nan"), 1.0])).same(Outputs.of(torch.tensor([float("nan"), 1.0])))
    assert not Outputs.of(torch.tensor([float("inf"), 1.0])).same(Outputs.of(torch.tensor([0.0, 1.0])))


def test_a_seed_draws_what_torchs_draws_and_formats_no_stack(monkeypatch: pytest.MonkeyPatch) -> None:
    """As torch does for each kind of device that may come into use."""
    model = Net()
    torch.manual_seed(7)
    expected, before = torch.rand(4), torch.get_rng_state()
    monkeypatch.setattr("traceback.format_stack", lambda: pytest.fail("of every device"))
    with seeded(model, 7):
        assert torch.equal(torch.rand(4), expected)
    assert torch.equal(torch.get_rng_state(), before)
