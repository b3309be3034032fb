"""What a proof compares: a model that is cut with the same one silenced, on inputs that hide nothing."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from autoprune.criteria.kept import KeptChannels
from autoprune.errors import TraceError, describe_exception
from autoprune.surgery.cut import cut
from autoprune.surgery.influence import Axes, Part, check_own_weights, gradients, moving, without_gradient
from autoprune.surgery.mask import masked, sharing
from autoprune.task.clone import clone_with, renew_kept
from autoprune.task.data import Inputs, call
from autoprune.trace.operators import raised_from
from autoprune.trace.reasons import DIFFERS, NOT_RUNNING, NOT_TRAINING, OTHER_PATH, OTHER_SHAPE, Kind, Reason
from autoprune.trace.topology import Topology
from autoprune.trace.tracer import Tracer, copied, plain_operators, watch
from autoprune.trace.values import fresh, map_tensors, outputs_in, tensors_in

#: Samples that a proof runs on: an odd number, in which a size written in code does not go by chance.
_FEW = 3
#: They count as computed alike, alone and in their batch, up to this share of their size.
_SAME = 1e-4
#: Outputs of masks that are held: those of a proof's three draws.
_HELD = 3


@dataclass(frozen=True, slots=True)
class Evidence:
    """The copy of a model that proofs run on, its inputs, a trace of both, its outputs, and what may differ.

    model: never runs itself, as models keep things of a call; copies that share its parameters do.
    trains: it runs in training mode, where it may take other ways.
    silenced: outputs of masks that were computed last, by what they keep; they do not depend on what modules note
        beside their weights, so that one serves every change that is tried. `forget` them with another topology.
    values: name of a parameter -> its value in `model`, which is masked in place.
    slopes: where gradients of the outputs are other than zero, see `influence.gradients`.
    """

    model: nn.Module
    inputs: Inputs
    traced: Tracer
    dense: list[Tensor]
    tolerance: _Tolerance
    trains: bool
    values: Callable[[str], Tensor]
    slopes: Mapping[str, Axes]
    silenced: OrderedDict[object, list[Tensor]] = field(default_factory=OrderedDict)

    @classmethod
    def of(cls, model: nn.Module, example_inputs: Inputs) -> Evidence:
        """In float64 and with weights and inputs that hide nothing, as far as the model runs with them."""
        error: Exception = RuntimeError()  # that of the last attempt
        for dtype in (torch.float64, None):
            for stir_weights, stir_inputs in ((True, True), (True, False), (False, False)):
                try:
                    made = cls._of(model, example_inputs, dtype, stir_weights=stir_weights, stir_inputs=stir_inputs)
                except Exception as found:  # user code runs in here
                    error = found
                    continue
                check_own_weights(made.model, made.inputs, made.dense)
                return made
        raise TraceError(
            f"the model must run on example_inputs more than once, but got {describe_exception(error)}"
        ) from error

    @classmethod
    def _of(
        cls,
        model: nn.Module,
        example_inputs: Inputs,
        dtype: torch.dtype | None,
        *,
        stir_weights: bool,
        stir_inputs: bool,
    ) -> Evidence:
        scratch = copied(model)
        if dtype is not None:
            scratch = scratch.to(dtype)
        _stir_statistics(scratch)
        stirred = _stir_weights(scratch) if stir_weights else {}
        renew_kept(scratch)
        original = dict(model.named_parameters())
        inputs = map_tensors(example_inputs, partial(_stirred, dtype=dtype, noise=stir_inputs))
        return cls._on(
            scratch,
            inputs,
            lambda name: stirred.get(name, original[name]),
            finite=stir_weights or stir_inputs,
        )

    @classmethod
    def _on(cls, scratch: nn.Module, inputs: Inputs, values: Callable[[str], Tensor], *, finite: bool) -> Evidence:
        inputs, dense = _few(scratch, inputs)
        if finite and not all(bool(torch.isfinite(tensor).all()) for tensor in dense):
            raise ValueError("outputs that are not finite")
        return cls(
            model=scratch,
            inputs=inputs,
            traced=watch(sharing(scratch), inputs),
            dense=dense,
            tolerance=_Tolerance.of(_precisions(scratch, inputs)),
            trains=_trains(scratch, inputs),
            values=values,
            slopes=gradients(scratch, inputs),
        )

    def redrawn(self, seed: int) -> Evidence | None:
        """The same with other weights of the same size, None where the model does not run with them.

        What is silent by chance, behind a ReLU on a few samples, speaks with these.
        """
        generator = torch.Generator().manual_seed(4 + seed)
        parameters = {name: parameter.ndim for name, parameter in self.model.named_parameters()}

        def other(name: str, tensor: Tensor) -> Tensor | None:
            if name not in parameters or not tensor.is_floating_point():
                return None
            drawn = torch.randn(tensor.shape, generator=generator, dtype=torch.float64).to(tensor)
            return tensor + drawn if parameters[name] < 2 else tensor * drawn.sign()

        try:
            scratch = clone_with(self.model, other)
            drawn = {name: parameter.detach().clone() for name, parameter in scratch.named_parameters()}
            return self._on(scratch, self.inputs, drawn.__getitem__, finite=True)
        except Exception:  # user code runs in here
            return None

    def difference(self, topology: Topology, chosen: KeptChannels, *, in_training: bool = False) -> Reason | None:
        """None when cut and mask agree, else what went wrong. in_training: try training mode as well."""
        try:
            smaller = self._cut(topology, chosen)
            outputs = _outputs(smaller, self.inputs)
        except Exception as error:  # any failure of the cut model means the same: do not offer the group
            return _raised(NOT_RUNNING, error)
        try:
            expected = self._silenced_outputs(topology, chosen)
        except Exception as error:  # where values decide on the path, say
            return _raised(OTHER_PATH, error)
        if len(outputs) != len(expected) or any(a.shape != b.shape for a, b in zip(outputs, expected, strict=True)):
            return Reason(kind=OTHER_SHAPE)
        worst, effect = _distance(outputs, expected), _distance(expected, self.dense)
        if not self.tolerance.allows(worst, effect):
            how = f"by {worst:.2g} of their size" if math.isfinite(worst) else "to some that are not finite"
            return Reason(kind=DIFFERS, detail=how)
        return self._fault_in_training(smaller) if in_training else None

    def runs(self, topology: Topology, chosen: KeptChannels) -> str | None:
        """None when a cut gives outputs of the number, shapes and types of the model's, else what the model does."""
        try:
            outputs = _outputs(self._cut(topology, chosen), self.inputs)
        except Exception as error:  # user code runs in here
            return f"does not run without it ({_short(error)})"
        if [(tensor.shape, tensor.dtype) for tensor in outputs] != [(one.shape, one.dtype) for one in self.dense]:
            return "gives outputs of another number, shape or type without it"
        return None

    def silent(self, topology: Topology, cuts: Mapping[Part, Iterable[KeptChannels]]) -> list[Part]:
        """Parts none of whose cuts changes the outputs, beyond rounding. cuts: by part."""
        suspects = without_gradient(self.slopes, topology)
        return [
            part
            for part, choices in cuts.items()
            if part in suspects
            and all(self._effect(self._cut(topology, one)) <= self.tolerance.noise for one in choices)
        ]

    def _effect(self, smaller: nn.Module) -> float:
        outputs = _outputs(smaller, self.inputs)
        return _distance(outputs, self.dense) if len(outputs) == len(self.dense) else math.inf

    def moving(self, topology: Topology, chosen: KeptChannels) -> set[str]:
        """Names of the parameters on which the outputs of that cut depend."""
        return moving(gradients(self._cut(topology, chosen), self.inputs))

    def forget(self) -> None:
        """Drop what was computed for another topology."""
        self.silenced.clear()

    def _cut(self, topology: Topology, chosen: KeptChannels) -> nn.Module:
        """A cut that is only looked at."""
        return cut(self.model, topology, chosen, share=True)

    def _silenced_outputs(self, topology: Topology, chosen: KeptChannels) -> list[Tensor]:
        key = (tuple(chosen.groups.items()), chosen.dropped)
        if key not in self.silenced:
            while len(self.silenced) >= _HELD:
                self.silenced.popitem(last=False)
            with masked(self.model, topology, chosen, self.values, self.traced) as silenced:
                self.silenced[key] = _outputs(silenced, self.inputs)
        return self.silenced[key]

    def _fault_in_training(self, smaller: nn.Module) -> Reason | None:
        if self.trains:
            try:
                with torch.no_grad(), plain_operators(smaller):
                    call(smaller.train(), fresh(self.inputs))
            except Exception as error:
                return _raised(NOT_TRAINING, error)
        return None


def _raised(kind: Kind, error: Exception) -> Reason:
    """What an error of the model says, and where it was raised."""
    return Reason(kind=kind, detail=_short(error), line=raised_from(error))


def _short(error: Exception) -> str:
    return describe_exception(error).splitlines()[0][:200]


def _trains(model: nn.Module, inputs: Inputs) -> bool:
    """Whether a copy runs in training mode, which one sample and a BatchNorm do not allow."""
    try:
        with torch.no_grad(), plain_operators(model):
            call(sharing(model).train(), fresh(inputs))
    except Exception:  # user code runs in here
        return False
    return True


class _Tolerance(NamedTuple):
    """How far a right cut may be from a mask, relative to the usual output: rounding, as sums have fewer terms.

    noise: any difference up to that is rounding. most: one up to that is rounding where silencing changes much more.
    """

    noise: float
    most: float

    @classmethod
    def of(cls, precisions: set[torch.dtype]) -> _Tolerance:
        """From the floating-point types in use, the coarsest of which counts."""
        eps = max(torch.finfo(precision).eps for precision in precisions)
        return cls(min(math.sqrt(eps), 1e-8 + 100 * eps), math.sqrt(eps))

    def allows(self, difference: float, effect: float) -> bool:
        """True for a difference that rounding explains. effect: what silencing changed."""
        return difference <= self.noise or (difference <= self.most and difference <= 0.02 * effect)


class _Precisions(TorchDispatchMode):
    """The floating-point types of every result of a forward: a model in float64 may well cast inside."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        self.found: set[torch.dtype] = set()

    def __torch_dispatch__(
        self,
        func: torch._ops.OpOverload,
        types: object,
        args: tuple[object, ...] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        del types
        out = func(*args, **(kwargs or {}))
        # Constants may be coarse without harm; what is computed from several values may not.
        self.found.update(tensor.dtype for tensor in tensors_in(out) if tensor.is_floating_point() and tensor.ndim > 1)
        return out


def _few(model: nn.Module, inputs: Inputs) -> tuple[Inputs, list[Tensor]]:
    """Three samples of the inputs, where these give what they give among all, and the outputs.

    A proof runs the model some dozens of times; the rest of a batch would show nothing more.
    """
    everything = _outputs(sharing(model), inputs)
    sizes = {len(tensor) if tensor.ndim else 0 for tensor in tensors_in(inputs)}
    if len(sizes) != 1 or min(sizes) <= _FEW or any(tensor.ndim == 0 for tensor in everything):
        return inputs, everything
    fewer = map_tensors(inputs, lambda tensor: tensor[:_FEW])
    try:
        outputs = _outputs(sharing(model), fewer)
    except Exception:  # user code runs in here
        return inputs, everything
    alone = [tensor[:_FEW] for tensor in everything]
    same = [a.shape for a in alone] == [b.shape for b in outputs] and _distance(outputs, alone) < _SAME
    return (fewer, outputs) if same else (inputs, everything)


def _outputs(model: nn.Module, inputs: Inputs) -> list[Tensor]:
    given = fresh(inputs)
    with torch.no_grad(), plain_operators(model):
        return outputs_in(call(model, given))


def _precisions(model: nn.Module, inputs: Inputs) -> set[torch.dtype]:
    """The floating-point types in use in a forward."""
    with _Precisions() as seen:
        _outputs(sharing(model), inputs)
    return seen.found or {torch.float32}


def _distance(outputs: list[Tensor], expected: list[Tensor]) -> float:
    """Largest difference of a value, relative to its size and to the usual one; infinite where one is not finite."""
    worst = 0.0
    for a, b in zip(outputs, expected, strict=True):
        if a.shape != b.shape:
            return math.inf
        differ = (a != b) & ~(a.isnan() & b.isnan())
        if not bool(differ.any()):
            continue
        got, wanted = a[differ].double(), b[differ].double()
        sizes = b[torch.isfinite(b) & (b != 0)].double().abs()
        # A usual size, not the largest: scores that were masked with -1e9 would hide any other difference.
        usual = float(sizes.quantile(0.25)) if 0 < sizes.numel() < 2**24 else float(sizes.mean()) if len(sizes) else 0.0
        usual = max(usual, float(wanted[torch.isfinite(wanted)].abs().median()) if len(wanted) else 0.0, 1e-12)
        distance = float(((got - wanted).abs() / (wanted.abs() + usual)).max())
        worst = max(worst, distance if math.isfinite(distance) else math.inf)
    return worst


@torch.no_grad()
def _stir_statistics(model: nn.Module) -> None:
    """Norms get statistics of their own for every channel: fresh ones hide channels in a wrong order."""
    generator = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._NormBase) and module.running_mean is not None:
            noise = torch.rand(module.running_mean.shape, generator=generator, dtype=torch.float64)
            module.running_mean += noise.to(module.running_mean)


@torch.no_grad()
def _stir_weights(model: nn.Module) -> dict[str, Tensor]:
    """Parameters that are the same everywhere, or next to zero, get values: a branch scaled by zero hides anything.

    Gives copies of these.
    """
    stirred: dict[str, Tensor] = {}
    generator = torch.Generator().manual_seed(1)
    for name, parameter in model.named_parameters():
        if parameter.is_floating_point() and parameter.numel():
            values = parameter.double()
            if float(values.abs().max()) < 1e-3 or (values.numel() > 1 and float(values.std()) < 1e-6):
                noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
                parameter.add_((noise * 0.1).to(parameter))
                stirred[name] = parameter.detach().clone()
    return stirred


def _stirred(tensor: Tensor, *, dtype: torch.dtype | None, noise: bool) -> Tensor:
    """An input in the precision of the proof, with noise of its own size: images of zeros would hide anything."""
    if not tensor.is_floating_point():
        return tensor
    tensor = tensor.to(dtype) if dtype is not None else tensor
    finite = tensor[torch.isfinite(tensor)].double()
    if not noise or finite.numel() == 0:
        return tensor
    spread = float(finite.std()) if finite.numel() > 1 else 0.0
    drawn = torch.randn(tensor.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    return tensor.add((drawn * (spread or 1.0)).to(tensor))
