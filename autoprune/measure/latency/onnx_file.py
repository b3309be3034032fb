"""Export of a model as an ONNX file, and the comparison of outputs with PyTorch's."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from autoprune.errors import describe_exception
from autoprune.measure.latency.backend import BackendError, quiet
from autoprune.measure.latency.inputs import memory_bytes
from autoprune.task.data import Inputs
from autoprune.task.nested import arguments

#: Weights of more bytes lie in a file beside the model: a file of ONNX holds at most 2 GiB.
_LARGE_BYTES = 1536 * 2**20
#: Number type -> largest difference of an output, as a share of the largest output.
_TOLERANCES = {torch.float64: 1e-6, torch.float32: 1e-3, torch.float16: 2e-2, torch.bfloat16: 5e-2}
#: How torch prints an operator.
_OPERATOR = re.compile(r"OpOverload\(op='([\w.]+)'(?:, overload='(\w+)')?")


def export_onnx(model: nn.Module, inputs: Inputs, to: Path) -> tuple[Path, ...]:
    """Write a model as an ONNX file for inputs of these shapes.

    Args:
        model: Model in eval mode.
        inputs: Inputs of a call.
        to: The file. Large weights come beside it, with the ending .data.

    Returns:
        The files.

    Raises:
        BackendError: The model cannot be exported; the reason names the operator, where one is at fault.
    """
    args, kwargs = arguments(inputs)
    is_large = memory_bytes(model) > _LARGE_BYTES
    try:
        with quiet(), torch.no_grad():
            program = torch.onnx.export(model, args, kwargs=kwargs, dynamo=True, verbose=False)
            assert program is not None
            program.save(str(to), external_data=is_large)
    except Exception as error:  # the exporter runs the user's code, and raises many kinds of errors
        raise BackendError(_reason(error)) from error
    return tuple(path for path in (to, to.with_name(f"{to.name}.data")) if path.is_file())


def export_onnx_quickly(model: nn.Module, inputs: Inputs, to: Path) -> Path:
    """Write a model as an ONNX file by recording one call, for a file that is only timed.

    The exporter is torch's earlier one, which takes a tenth of the time. Other inputs may need another path through the
    model, so that the file is none to deploy.

    Args:
        model: Model in eval mode.
        inputs: Inputs of a call.
        to: The file.

    Returns:
        The file.

    Raises:
        BackendError: The model cannot be exported so.
    """
    args, kwargs = arguments(inputs)
    if memory_bytes(model) > _LARGE_BYTES:
        raise BackendError("it is too large for one file of ONNX")
    try:
        with quiet(), _plain_attention(), _without_graph_dumps(), torch.no_grad():
            torch.onnx.export(model, args, str(to), kwargs=kwargs, dynamo=False, verbose=False)
    except Exception as error:  # the exporter runs the user's code, and raises many kinds of errors
        raise BackendError(_reason(error)) from error
    return to


@contextmanager
def _plain_attention() -> Iterator[None]:
    """Keep attention from its fused kernel, which is no operator of ONNX."""
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)


@contextmanager
def _without_graph_dumps() -> Iterator[None]:
    """Keep the earlier exporter from printing the graph of a model that it does not know on standard output."""
    printing = getattr(torch._C, "_jit_onnx_log", None)
    torch._C._jit_onnx_log = lambda *_: None
    try:
        yield
    finally:
        if printing is None:
            del torch._C._jit_onnx_log
        else:
            torch._C._jit_onnx_log = printing


def _reason(error: BaseException) -> str:
    """Say in one line why a model was not exported, and name the operator."""
    chain: list[BaseException] = [error]
    while (cause := chain[-1].__cause__ or chain[-1].__context__) is not None and cause not in chain:
        chain.append(cause)
    texts = [describe_exception(one) for one in chain]
    found = next((found for text in texts for found in [_OPERATOR.search(text)] if found), None)
    operator = "" if found is None else f" (operator {'.'.join(filter(None, found.groups()))})"
    last = next((line.strip() for line in texts[-1].splitlines() if line.strip()), "")
    return f"it does not export to ONNX{operator}: {last}"[:500]


def onnx_outputs(file: Path, arrays: Sequence[NDArray[np.generic]]) -> list[NDArray[np.generic]]:
    """Run an ONNX file once on this machine: in ONNX Runtime where it is installed, else by ONNX's own reference.

    Args:
        file: The file.
        arrays: Inputs in the order of the file.

    Returns:
        The outputs.

    Raises:
        BackendError: The file does not run.
    """
    try:
        if importlib.util.find_spec("onnxruntime") is not None:
            import onnxruntime

            session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
            names = [one.name for one in session.get_inputs()]
            return list(session.run(None, dict(zip(names, arrays, strict=True))))
        from onnx.reference import ReferenceEvaluator

        reference = ReferenceEvaluator(str(file))
        return list(reference.run(None, dict(zip(reference.input_names, arrays, strict=True))))
    except Exception as error:  # both raise classes of their own that share no base
        raise BackendError(f"the ONNX file does not run: {describe_exception(error, 300)}") from error


def check_outputs(expected: Sequence[Tensor], got: Sequence[Tensor]) -> None:
    """Compare outputs of a backend with PyTorch's.

    Real numbers may differ by a share of the largest one that depends on their type (0.001 in float32); other values
    must be equal.

    Args:
        expected: Outputs of PyTorch.
        got: Outputs of the backend.

    Raises:
        BackendError: They differ.
    """
    if len(expected) != len(got):
        raise BackendError(f"its outputs are {len(got)} tensors, while PyTorch gives {len(expected)}")
    for place, (right, other) in enumerate(zip(expected, got, strict=True)):
        if right.shape != other.shape:
            raise BackendError(f"its output {place} has the shape {list(other.shape)} in place of {list(right.shape)}")
        difference, allowed = _difference(right, other.to(right.device))
        if not difference <= allowed:
            raise BackendError(f"its output {place} differs from PyTorch's by {difference:.2g} of the largest value")


def _difference(right: Tensor, other: Tensor) -> tuple[float, float]:
    """Largest difference as a share of the largest value, and the one that is allowed."""
    allowed = _TOLERANCES.get(right.dtype, 0.0)
    if right.is_complex():
        right, other = torch.view_as_real(right), torch.view_as_real(other) if other.is_complex() else other
    right, other = right.detach().double().flatten(), other.detach().double().flatten()
    same = (right == other) | (right.isnan() & other.isnan())
    if bool(same.all()):
        return 0.0, allowed
    finite = right.isfinite()
    if not bool((same | finite).all()) or not bool(other[finite].isfinite().all()):
        return float("inf"), allowed
    largest = right[finite].abs().max()
    return float((right - other)[finite].abs().max() / largest.clamp_min(1e-12)), allowed
