"""Preparation: models and the dense model, made ready to be called under one latency profile."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn

from autoprune.errors import RESUME_ADVICE, ConfigurationError, UserCodeError, error_message
from autoprune.measure.latency.backend import Backend, BackendError, Prepared
from autoprune.measure.latency.backends import FALLBACK, LATENCY_BACKENDS, backend_of
from autoprune.measure.latency.eager import eager_call
from autoprune.measure.latency.inputs import check_inputs, profile_inputs, tensors_of
from autoprune.measure.latency.onnx_file import check_outputs
from autoprune.measure.latency.timing import Pair
from autoprune.records.profile import LatencyProfile
from autoprune.task.clone import clone_with
from autoprune.task.data import Inputs, eval_mode


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """A model and the dense model, prepared by the same backend.

    Attributes:
        pairs: Both, on inputs of each size.
        backend: Name of the backend.
        fallback: Why it is another one than the profile's, as a sentence; "" where it is not.
        doubts: Reasons not to trust a comparison, in sentences.
    """

    pairs: Sequence[Pair]
    backend: str
    fallback: str
    doubts: tuple[str, ...]

    @property
    def runs_by(self) -> Backend:
        """The backend."""
        return LATENCY_BACKENDS[self.backend]


class Preparation:
    """Models and one dense model under one profile. The backend prepares the dense model once.

    Args:
        dense: Model to compare with.
        inputs: Example inputs, from which those of the profile are made.
        profile: Runtime, threads and inputs.

    Raises:
        UnknownNameError: There is no such backend.
        ConfigurationError: The backend cannot run here.
    """

    def __init__(self, dense: nn.Module, inputs: Inputs, profile: LatencyProfile) -> None:
        self.profile = profile
        self._backend = backend_of(profile)
        self._dense = _converted(dense, profile)
        self._inputs = profile_inputs(inputs, profile)
        self._prepared: dict[str, list[Prepared]] = {}
        weakref.finalize(self, _close, self._prepared)
        self._refused = ""

    @property
    def sizes(self) -> list[int]:
        """Sizes of the inputs, for a profile that has several."""
        return [one.size for one in self._inputs if one.size is not None]

    def check(self) -> None:
        """Prepare the dense model and call it once. Later comparisons use that preparation.

        Raises:
            ConfigurationError: The dense model does not run under the profile.
        """
        with eval_mode(self._dense), _torch_threads(self.profile.threads):
            self._prepare_dense()

    @contextmanager
    def ready(self, model: nn.Module, what: str) -> Iterator[Ready]:
        """Prepare a model beside the dense model.

        Args:
            model: Model to compare.
            what: Name of what is measured, for the message.

        Yields:
            Both, in evaluation mode; files and memory of the model are freed afterwards.

        Raises:
            ConfigurationError: The dense model does not run on inputs of the profile.
            UserCodeError: The device or command of the profile failed, or what is measured cannot be read.
        """
        model = _converted(model, self.profile)
        with eval_mode(model), eval_mode(self._dense), _torch_threads(self.profile.threads):
            try:
                prepared, ready = self._beside(model, self._prepare_dense())
                try:
                    yield ready
                finally:
                    for one in prepared:
                        one.close()
            except BackendError as error:
                text = f"The {what} in the profile {self.profile.name} could not be measured: {error}. {RESUME_ADVICE}"
                raise UserCodeError(text) from error

    def close(self) -> None:
        """Delete what the backend has made for the dense model; so does the end of the preparation."""
        _close(self._prepared)

    def _beside(self, model: nn.Module, backend: str) -> tuple[list[Prepared], Ready]:
        """Prepare a model by the backend of the dense model, or both by the one that stands in for it."""
        fallback, doubts = self._refused, tuple[str, ...]()
        try:
            prepared = self._prepare(model, backend)
        except BackendError as error:
            if not LATENCY_BACKENDS[backend].falls_back:
                raise
            fallback = f"{backend} does not run this model: {error}."
            doubts = (f"The ratio is that of {FALLBACK}, since {backend} runs the dense model but not this one.",)
            backend = FALLBACK
            prepared = self._prepare(model, backend)
        pairs = [
            Pair(weight=one.weight, model=own.load, reference=other.load)
            for one, own, other in zip(self._inputs, prepared, self._dense_by(backend), strict=True)
        ]
        return prepared, Ready(pairs=pairs, backend=backend, fallback=fallback, doubts=doubts)

    def _prepare_dense(self) -> str:
        """Prepare the dense model once; return the backend that runs it."""
        if not self._prepared:
            check_inputs(self._dense, self._inputs, self.profile)
            try:
                self._dense_by(self._backend)
            except BackendError as error:
                if not LATENCY_BACKENDS[self._backend].falls_back:
                    wants = "be one under which the dense model runs"
                    raise ConfigurationError(
                        error_message(f"the latency profile {self.profile.name}", wants, error)
                    ) from error
                self._refused = f"{self._backend} does not run the dense model: {error}."
                self._backend = FALLBACK
                self._dense_by(FALLBACK)
        return self._backend

    def _dense_by(self, backend: str) -> list[Prepared]:
        if backend not in self._prepared:
            self._prepared[backend] = self._prepare(self._dense, backend)
        return self._prepared[backend]

    def _prepare(self, model: nn.Module, backend: str) -> list[Prepared]:
        """Prepare a model for inputs of each size, and compare its outputs with PyTorch's."""
        chosen, prepared = LATENCY_BACKENDS[backend], []
        try:
            for one in self._inputs:
                prepared.append(chosen.prepare(model, one.inputs, self.profile))
                if not (chosen.exact or prepared[-1].compared):
                    check_outputs(tensors_of(eager_call(model, one.inputs)()), prepared[-1].outputs())
        except BaseException:
            for done in prepared:
                done.close()
            raise
        return prepared


def _close(every: dict[str, list[Prepared]]) -> None:
    for prepared in every.values():
        for one in prepared:
            one.close()
    every.clear()


def _converted(model: nn.Module, profile: LatencyProfile) -> nn.Module:
    """Copy a model in the profile's number type, where it has another one."""
    if profile.dtype is None:
        return model
    kind: torch.dtype = getattr(torch, profile.dtype)
    if all(part.dtype == kind for part in (*model.parameters(), *model.buffers()) if part.is_floating_point()):
        return model
    return clone_with(model).to(kind)


@contextmanager
def _torch_threads(threads: int) -> Iterator[None]:
    """Compute with a number of torch threads inside."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
