"""Recalibration gives plain averages over batches and changes nothing else."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from autoprune.recovery.batch_norm import recalibrate
from autoprune.task.data import Batch
from tests.zoo.registry import build


def batches(*sizes: int, shape: tuple[int, ...] = (3, 5, 5)) -> list[Batch]:
    drawn = [torch.randn(size, *shape) * (number + 1) + number for number, size in enumerate(sizes)]
    return [Batch(inputs=x, targets=torch.zeros(len(x)), size=len(x)) for x in drawn]


def averages(inputs: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Mean over batches of each batch's mean and unbiased variance per channel, by hand."""
    flat = [x.movedim(1, 0).flatten(1) for x in inputs]
    return torch.stack([x.mean(1) for x in flat]).mean(0), torch.stack([x.var(1) for x in flat]).mean(0)


def test_plain_averages_over_batches() -> None:
    norm = nn.BatchNorm2d(3, momentum=0.3).eval()
    norm.running_mean.fill_(17)
    norm.running_var.fill_(99)
    data = batches(4, 6, 2)
    assert recalibrate(norm, data) == 12
    mean, variance = averages([batch.inputs for batch in data])
    torch.testing.assert_close(norm.running_mean, mean)
    torch.testing.assert_close(norm.running_var, variance)


class Renamed(nn.BatchNorm2d):
    """A subclass, as timm and others have them."""


class Plain(nn.Module):
    """A norm of somebody's own, with torch's attributes but not of its classes."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.momentum: float | None = 0.1
        self.register_buffer("running_mean", torch.zeros(features))
        self.register_buffer("running_var", torch.ones(features))

    def reset_running_stats(self) -> None:
        self.running_mean.zero_()
        self.running_var.fill_(1)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.batch_norm(
            x, self.running_mean, self.running_var, training=self.training, momentum=self.momentum or 0.0
        )


class Constant(nn.Module):
    """Statistics that are never moved, as in torchvision's FrozenBatchNorm2d."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.register_buffer("running_mean", torch.full((features,), 17.0))
        self.register_buffer("running_var", torch.full((features,), 99.0))

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.batch_norm(x, self.running_mean, self.running_var)


@pytest.mark.parametrize("momentum", [0.3, None])
@pytest.mark.parametrize(
    ("kind", "shape"),
    [
        (nn.BatchNorm1d, (3,)),
        (nn.BatchNorm1d, (3, 7)),
        (nn.BatchNorm2d, (3, 5, 4)),
        (nn.BatchNorm3d, (3, 2, 3, 4)),
        (nn.SyncBatchNorm, (3, 5, 4)),
        (Renamed, (3, 5, 4)),
        (Plain, (3, 5, 4)),
    ],
)
def test_each_kind_of_batch_norm(kind: type[nn.Module], shape: tuple[int, ...], momentum: float | None) -> None:
    norm = kind(3).eval()
    norm.momentum = momentum
    norm.running_mean.fill_(17)
    norm.running_var.fill_(float("nan"))  # what went wrong before is no part of an average
    data = batches(4, 6, 2, shape=shape)
    assert recalibrate(norm, data) == 12
    mean, variance = averages([batch.inputs for batch in data])
    torch.testing.assert_close(norm.running_mean, mean)
    torch.testing.assert_close(norm.running_var, variance)
    assert norm.momentum == momentum


@pytest.mark.parametrize("momentum", [0.3, None])
@pytest.mark.parametrize(
    ("kind", "shape"),
    [(nn.InstanceNorm1d, (3, 7)), (nn.InstanceNorm2d, (3, 5, 4)), (nn.InstanceNorm3d, (3, 2, 3, 4))],
)
def test_each_kind_of_instance_norm(
    kind: type[nn.InstanceNorm2d], shape: tuple[int, ...], momentum: float | None
) -> None:
    norm = kind(3, track_running_stats=True, momentum=momentum).eval()  # type: ignore[arg-type]
    norm.running_mean.fill_(17)
    norm.running_var.fill_(99)
    data = batches(4, 6, 2, shape=shape)
    assert recalibrate(norm, data) == 12
    flat = [batch.inputs.flatten(2) for batch in data]
    torch.testing.assert_close(norm.running_mean, torch.stack([x.mean(2).mean(0) for x in flat]).mean(0))
    torch.testing.assert_close(norm.running_var, torch.stack([x.var(2).mean(0) for x in flat]).mean(0))
    assert norm.momentum == momentum
    assert not norm.training


class Resettable(Constant):
    """As above; what is reset and then not moved would be lost."""

    def reset_running_stats(self) -> None:
        self.running_mean.zero_()


@pytest.mark.parametrize("kind", [Constant, Resettable])
def test_constant_statistics_stay(kind: type[Constant]) -> None:
    model = nn.Sequential(kind(3), nn.BatchNorm2d(3))
    recalibrate(model, batches(4))
    assert model[0].running_mean.tolist() == [17, 17, 17]
    assert model[0].running_var.tolist() == [99, 99, 99]
    assert recalibrate(nn.Sequential(kind(3)), batches(4)) == 0


def test_a_norm_whose_scale_and_shift_are_frozen_is_recalibrated() -> None:
    norm = nn.BatchNorm2d(3).requires_grad_(False)
    data = batches(4, 4)
    recalibrate(norm, data)
    torch.testing.assert_close(norm.running_mean, averages([batch.inputs for batch in data])[0])


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.unused = nn.BatchNorm2d(3), nn.BatchNorm2d(3)

    def forward(self, x: Tensor) -> Tensor:
        self.norm(x)
        return self.norm(3 * x + 1)


def test_a_norm_that_is_called_twice_has_the_average_over_all_calls() -> None:
    model = Twice()
    data = batches(4, 6)
    recalibrate(model, data)
    seen = [values for batch in data for values in (batch.inputs, 3 * batch.inputs + 1)]
    torch.testing.assert_close(model.norm.running_mean, averages(seen)[0])
    torch.testing.assert_close(model.norm.running_var, averages(seen)[1])


def test_a_norm_that_no_batch_reaches_keeps_what_it_has() -> None:
    model = Twice()
    model.unused.running_mean.fill_(17)
    recalibrate(model, batches(4))
    assert model.unused.running_mean.tolist() == [17, 17, 17]


class WithDropout(nn.BatchNorm1d):
    def __init__(self, features: int) -> None:
        super().__init__(features)
        self.drop = nn.Dropout(0.9)

    def forward(self, x: Tensor) -> Tensor:
        return self.drop(super().forward(x))


def test_a_dropout_inside_a_norm_is_off() -> None:
    model = nn.Sequential(WithDropout(4), nn.BatchNorm1d(4))
    recalibrate(model, batches(50, shape=(4,)))
    torch.testing.assert_close(model[1].running_var, torch.ones(4), rtol=0.03, atol=0)


def test_every_norm_is_fed_what_the_norms_before_it_make_in_training() -> None:
    model = nn.Sequential(nn.BatchNorm2d(3), nn.ReLU(), nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).eval()
    data = batches(4, 4)
    recalibrate(model, data)
    reference = copy.deepcopy(model).train()
    with torch.no_grad():
        mean, variance = averages([reference[2](reference[1](reference[0](batch.inputs))) for batch in data])
    torch.testing.assert_close(model[3].running_mean, mean)
    torch.testing.assert_close(model[3].running_var, variance)


@pytest.mark.parametrize("training", [True, False])
def test_modes_momentum_and_weights_are_restored(training: bool) -> None:
    model = nn.Sequential(
        nn.BatchNorm2d(3, momentum=0.3), nn.Dropout(0.5), nn.BatchNorm2d(3, momentum=None), nn.Conv2d(3, 2, 1)
    )
    model.train(training)
    model[1].train(not training)
    weights = copy.deepcopy(dict(model.named_parameters()))
    modes = [module.training for module in model.modules()]
    data = batches(4, 4)
    state = torch.get_rng_state()
    recalibrate(model, data)
    assert [module.training for module in model.modules()] == modes
    assert (model[0].momentum, model[2].momentum) == (0.3, None)
    assert all(torch.equal(weights[name], parameter) for name, parameter in model.named_parameters())
    assert torch.equal(state, torch.get_rng_state()), "dropout drew nothing: it is off"
    assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())


def test_all_is_restored_when_the_model_raises() -> None:
    model = nn.Sequential(nn.BatchNorm2d(3, momentum=0.3)).eval()
    with pytest.raises(ValueError, match="expected 4D"):
        recalibrate(model, batches(4, shape=(3,)))
    assert not model[0].training
    assert model[0].momentum == 0.3
    assert not model[0]._forward_pre_hooks


def test_dropout_before_a_norm_is_off() -> None:
    norm = nn.BatchNorm1d(4)
    data = batches(50, 50, shape=(4,))
    recalibrate(nn.Sequential(nn.Dropout(0.9), norm).train(), data)
    torch.testing.assert_close(norm.running_mean, averages([batch.inputs for batch in data])[0])


def test_a_batch_of_one_is_left_out() -> None:
    norm = nn.BatchNorm2d(3)
    data = batches(4, 1, 4)
    assert recalibrate(norm, data) == 8
    torch.testing.assert_close(norm.running_mean, averages([data[0].inputs, data[2].inputs])[0])


@pytest.mark.parametrize("sizes", [(), (1,), (1, 1)])
def test_without_a_usable_batch_the_statistics_stay(sizes: tuple[int, ...]) -> None:
    norm = nn.BatchNorm2d(3)
    norm.running_mean.fill_(17)
    assert recalibrate(norm, batches(*sizes)) == 0
    assert norm.running_mean.tolist() == [17, 17, 17]


def test_a_model_without_such_norms_is_not_even_run() -> None:
    def refuse(module: nn.Module, args: object) -> None:
        raise AssertionError("was run")

    for layer in (nn.Conv2d(3, 2, 1), nn.BatchNorm2d(3, track_running_stats=False), nn.GroupNorm(1, 3)):
        model = nn.Sequential(layer)
        model.register_forward_pre_hook(refuse)
        assert recalibrate(model, batches(4)) == 0


def test_batches_may_be_a_generator() -> None:
    norm = nn.BatchNorm2d(3)
    assert recalibrate(norm, iter(batches(4, 4))) == 8


def test_twice_gives_the_same() -> None:
    model, _ = build("resnet")
    data = batches(4, 4, shape=(1, 8, 8))
    recalibrate(model, data)
    first = copy.deepcopy(model.state_dict())
    recalibrate(model, data)
    assert all(torch.equal(first[key], value) for key, value in model.state_dict().items())
