"""Fine-tune a model briefly, with pruning and recovery steps between the optimizer steps."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager

import torch
from torch import Tensor, nn

from autoprune.errors import RecoveryError
from autoprune.plan.recovery import RecoveryPlan
from autoprune.records.work import Work
from autoprune.recovery.learning_rate import Rate, scheduler
from autoprune.recovery.steps import Recovery
from autoprune.recovery.teacher import Teacher
from autoprune.recovery.trial_state import TrainingState
from autoprune.surgery.weight_masks import apply_masks
from autoprune.task.data import Batch, call, endless_batches
from autoprune.task.prepare import PreparedTask
from autoprune.task.seeding import seed_torch

#: What the names of kinds of tensors in a stored state begin with: of the optimizer, and of a recovery step.
_OPTIMIZER, _STEP = "optimizer.", "step."
#: Tensors by parameter name -> the same tensors, cut as the parameters were.
CutAlike = Callable[[Mapping[str, Tensor]], dict[str, Tensor]]


class DivergedError(RecoveryError):
    """A loss that is not finite.

    Args:
        message: The sentence for the user.
        work: Work done until then.
    """

    def __init__(self, message: str, work: Work) -> None:
        self.work = work
        super().__init__(message)


def fine_tune(
    model: nn.Module, task: PreparedTask, plan: RecoveryPlan, *, seed: int, teacher: Teacher | None = None
) -> Work:
    """Train a model in place for `plan.steps` steps on the train split, and leave it in eval mode.

    The recovery steps of the plan act on it whether there are optimizer steps or not.

    Args:
        model: The model, changed in place.
        task: The task that it is trained on.
        plan: Recovery settings.
        seed: Seed of the batches and of dropout.
        teacher: Outputs of the dense model; needed for distillation.

    Returns:
        The work done.

    Raises:
        DivergedError: The loss is not finite.
    """
    training = FineTune(Recovery(model, task, plan, teacher), seed=seed)
    training.run(plan.steps)
    training.finish()
    return training.work


class FineTune:
    """A fine-tune in progress. Between two calls of `run` the model may be replaced by a smaller one.

    Args:
        recovery: The model, which is trained in place, its task, its plan and the plan's recovery steps.
        seed: Seed of the batches and of dropout.
        on_epoch: Called with the number of finished passes over the train split after each of them.
        resume: State of an earlier process to go on from; the model is already the one of that time. None to begin.

    Attributes:
        movement: Name of a weight -> minus the sum over steps of rate * gradient * weight (Sanh et al., 2020), for the
            weights given to `watch_movement` that have been trained.
    """

    def __init__(
        self,
        recovery: Recovery,
        *,
        seed: int,
        on_epoch: Callable[[int], None] | None = None,
        resume: TrainingState | None = None,
    ) -> None:
        self.movement: dict[str, Tensor] = {}
        self._recovery, self._state = recovery, recovery.state
        self._task, self._plan, self._seed = self._state.task, self._state.plan, seed
        self._device = torch.device(self._task.device)
        self._on_epoch, self._epoch = on_epoch, 0
        self._next_batch: Batch | None = None
        self._movement_names: Collection[str] = ()
        self._random: list[Tensor] = []
        self._cuda = [self._device] if self._device.type == "cuda" else []
        if resume is None:
            recovery.before_training()
        plan, task = self._plan, self._task
        self._trains = plan.steps > 0 and any(parameter.requires_grad for parameter in self.model.parameters())
        if self._trains:
            self._rate = Rate(scheduler(plan.scheduler, task.schedulers), plan.learning_rate, plan.steps)
            self._optimizer = _optimizer(self.model, plan)
            self._scaler = torch.amp.GradScaler(self._device.type, enabled=plan.precision == "float16")
            done = 0 if resume is None else resume.epoch
            self._stream = endless_batches(task.train_split, seed, task.least_batch, done)
        if resume is not None:
            self._go_on(resume)

    @property
    def model(self) -> nn.Module:
        """The current model."""
        return self._state.model

    @property
    def step(self) -> int:
        """Optimizer steps done."""
        return self._state.step

    @property
    def work(self) -> Work:
        """Work done so far, that of the recovery steps included."""
        return self._state.work

    @property
    def masks(self) -> Mapping[str, Tensor]:
        """Name of a weight -> bool mask of its shape; entries that are False stay zero."""
        return self._state.masks

    @property
    def rate(self) -> float:
        """Learning rate of the coming step."""
        return self._rate.value if self._trains else 0.0

    @property
    def decay_fraction(self) -> float:
        """How far the learning rate has fallen from its peak, in [0, 1]."""
        return self._rate.decay_fraction if self._trains else 1.0

    @property
    def gradients(self) -> dict[str, Tensor]:
        """Gradients of the last step by parameter name, masked entries included; empty before the first step."""
        return {name: p.grad for name, p in self.model.named_parameters() if p.grad is not None}

    def watch_movement(self, names: Collection[str]) -> None:
        """Gather the movement of some parameters from the next step on.

        Args:
            names: Names of the parameters.
        """
        self._movement_names = names

    @torch.enable_grad()  # a script may have switched gradients off
    def run(self, until: int) -> None:
        """Train up to a step.

        Args:
            until: Optimizer steps that are done afterwards.

        Raises:
            DivergedError: The loss is not finite.
        """
        if not self._trains:
            self._state.step = max(self.step, until)
            return
        self.model.train()
        try:
            with self._seeded_generators():
                while self.step < until:
                    batch, self._next_batch = self._next_batch or self._next(), None
                    self._train_on(batch)
                    if self._on_epoch is not None:  # the end of a pass shows only in the next batch
                        self._next_batch = self._next()
        except _NotFiniteError as error:
            message = f"the loss must stay finite, but became {error.value:.3g} at step {self.step + 1} of "
            self._state.work += Work(forward=error.seen)
            raise DivergedError(f"{message}{self._plan.steps}", self.work) from None
        finally:
            self.model.eval()

    def replace(self, model: nn.Module, cut_alike: CutAlike) -> None:
        """Continue with a model that was cut from the current one.

        Args:
            model: The smaller model.
            cut_alike: Cuts momenta, masks, gradients and movement as the parameters were cut.
        """
        before = dict(self.model.named_parameters())
        gradients = self.gradients
        self._state.model = model
        self._state.masks = cut_alike(self.masks)
        self.movement = cut_alike(self.movement)
        if not self._trains:
            return
        after = dict(model.named_parameters())
        optimizer = _optimizer(model, self._plan)
        for key, tensors in _states(self._optimizer, before).items():
            whole = {name: tensor for name, tensor in tensors.items() if tensor.shape == before[name].shape}
            for name, tensor in {**tensors, **cut_alike(whole)}.items():
                if name in after:
                    optimizer.state[after[name]][key] = tensor
        for name, gradient in cut_alike(gradients).items():
            after[name].grad = gradient
        self._optimizer = optimizer

    def set_masks(self, masks: Mapping[str, Tensor]) -> None:
        """Set masked entries to zero, now and after every step.

        Entries that a mask no longer covers start without momentum.

        Args:
            masks: Name of a weight -> bool mask of its shape; False for zero.
        """
        before, self._state.masks = self.masks, dict(masks)
        if self._trains:
            parameters = dict(self.model.named_parameters())
            for tensors in _states(self._optimizer, parameters).values():
                for name, tensor in tensors.items():
                    if name in before and tensor.shape == before[name].shape:
                        tensor.mul_(before[name])
        apply_masks(self.model, self.masks)

    def state(self) -> TrainingState:
        """Describe everything that the training needs to go on from here. To be called by `on_epoch`.

        Returns:
            The state; its tensors are in the memory of the training.
        """
        scale = self._scaler.state_dict()
        parameters = dict(self.model.named_parameters())
        return TrainingState(
            step=self.step,
            epoch=self._epoch,
            work=self.work,
            loss_scale=scale.get("scale", 1.0),
            scaled_steps=scale.get("_growth_tracker", 0),
            tensors={
                "mask": self.masks,
                "movement": self.movement,
                # Only an exchange of weights looks at the gradients of the step before it.
                "gradient": self.gradients if self._plan.schedule.regrowth > 0 else {},
                "losses": {"": torch.tensor(self._rate.losses, dtype=torch.float64)},
                "random": {str(number): state for number, state in enumerate(self._random_now())},
                **{f"{_OPTIMIZER}{key}": named for key, named in _states(self._optimizer, parameters).items()},
                **{f"{_STEP}{name}": named for name, named in self._recovery.tensors().items()},
            },
        )

    def _go_on(self, found: TrainingState) -> None:
        """Take up a state that `state` described in an earlier process."""

        def here(named: Mapping[str, Tensor]) -> dict[str, Tensor]:
            return {name: tensor.to(self._device) for name, tensor in named.items()}

        state, self._epoch = self._state, found.epoch
        state.step, state.work, state.masks = found.step, found.work, here(found.of_kind("mask"))
        self.movement = here(found.of_kind("movement"))
        self._random = [tensor for _, tensor in sorted(found.of_kind("random").items())]
        parameters = dict(self.model.named_parameters())
        for key, named in found.below(_OPTIMIZER).items():
            for name, tensor in named.items():
                # As torch does: the number of steps stays on the CPU.
                self._optimizer.state[parameters[name]][key] = tensor if key == "step" else tensor.to(self._device)
        for name, gradient in here(found.of_kind("gradient")).items():
            parameters[name].grad = gradient
        self._rate.replay(found.step, [float(loss) for loss in found.of_kind("losses").get("", ())])
        if self._scaler.is_enabled():
            scale = {"scale": found.loss_scale, "_growth_tracker": found.scaled_steps}
            self._scaler.load_state_dict({**self._scaler.state_dict(), **scale})
        self._recovery.restore({name: here(named) for name, named in found.below(_STEP).items()})

    def finish(self) -> None:
        """Let the recovery steps finish the model, and leave it in eval mode and without gradients."""
        self.model.eval()
        self._recovery.at_end()
        if self._trains:
            self._optimizer.zero_grad(set_to_none=True)

    def _next(self) -> Batch:
        epoch, raw = next(self._stream)
        if epoch > self._epoch:
            self._epoch = epoch
            if self._on_epoch is not None:
                self._on_epoch(epoch)
        return raw.to(self._device)

    def _train_on(self, batch: Batch) -> None:
        plan, scaler = self._plan, self._scaler
        for group in self._optimizer.param_groups:
            group["lr"] = self._rate.value
        with _computed_in(plan.precision, self._device):
            outputs = call(self.model, batch.inputs)
            loss = self._recovery.on_loss(self._task.loss(outputs, batch.targets), outputs, batch)
        value = float(loss.detach())
        if not math.isfinite(value):
            raise _NotFiniteError(value, batch.size)
        self._optimizer.zero_grad(set_to_none=True)
        scaler.scale(loss).backward()
        scaler.unscale_(self._optimizer)
        self._gather_movement()
        scaler.step(self._optimizer)
        scaler.update()
        if self.masks:
            apply_masks(self.model, self.masks)
        self._rate.advance(value)
        self._state.step += 1
        self._state.work += Work(trained=batch.size)
        self._recovery.each_step()

    @torch.no_grad()
    def _gather_movement(self) -> None:
        parameters = dict(self.model.named_parameters()) if self._movement_names else {}
        for name in self._movement_names:
            weight = parameters.get(name)
            if weight is not None and weight.grad is not None and self._is_step_kept(weight.grad):
                moved = self.movement.setdefault(name, torch.zeros_like(weight))
                moved.addcmul_(weight.grad, weight, value=-self._rate.value)

    def _is_step_kept(self, gradient: Tensor) -> bool:
        """False for a gradient that overflows in float16: the scaler skips that step."""
        return not self._scaler.is_enabled() or bool(gradient.isfinite().all())

    @contextmanager
    def _seeded_generators(self) -> Iterator[None]:
        """Draw dropout and the like from the seed, and restore torch's global generators for the caller."""
        with torch.random.fork_rng(devices=self._cuda):
            if self._random:
                torch.set_rng_state(self._random[0])
                for device, state in zip(self._cuda, self._random[1:], strict=True):
                    torch.cuda.set_rng_state(state, device)
            else:
                seed_torch(self._seed, [self._device])
            try:
                yield
            finally:
                self._random = self._random_now()

    def _random_now(self) -> list[Tensor]:
        """States of torch's generators, that of the CPU first."""
        return [torch.get_rng_state(), *(torch.cuda.get_rng_state(device) for device in self._cuda)]


class _NotFiniteError(Exception):
    """A loss that is not finite, and the samples of its batch."""

    def __init__(self, value: float, seen: int) -> None:
        self.value, self.seen = value, seen
        super().__init__(value)


def _computed_in(precision: str, device: torch.device) -> AbstractContextManager[None]:
    """Mixed precision (Micikevicius et al., 2018): weights keep their dtype, products lose digits."""
    dtype = torch.float16 if precision == "float16" else torch.bfloat16
    return torch.autocast(device.type, dtype=dtype, enabled=precision != "float32")


def _states(optimizer: torch.optim.Optimizer, parameters: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """Name of a state, such as momentum_buffer -> name of a parameter -> its tensor."""
    found: dict[str, dict[str, Tensor]] = {}
    for name, parameter in parameters.items():
        for key, value in optimizer.state.get(parameter, {}).items():
            if isinstance(value, Tensor):
                found.setdefault(key, {})[name] = value
    return found


def _optimizer(model: nn.Module, plan: RecoveryPlan) -> torch.optim.Optimizer:
    """The optimizer of the plan, without weight decay for norms and biases."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": plan.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    if plan.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=plan.learning_rate, momentum=0.9, nesterov=True)
    return torch.optim.AdamW(groups, lr=plan.learning_rate)
