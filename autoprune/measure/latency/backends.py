"""Registry of the latency backends."""

from __future__ import annotations

from collections.abc import Mapping

from autoprune.errors import ConfigurationError, UnknownNameError, error_message
from autoprune.measure.latency.backend import Backend, lacks_packages
from autoprune.measure.latency.compiled import lacks_compiler, prepare_compiled
from autoprune.measure.latency.cuda import lacks_cuda, prepare_cuda_events, prepare_cuda_graphs
from autoprune.measure.latency.eager import prepare_eager
from autoprune.measure.latency.onnx_runtime import prepare_onnx_runtime
from autoprune.measure.latency.openvino import prepare_openvino
from autoprune.measure.latency.remote import prepare_remote
from autoprune.records.profile import AUTO_BACKEND, LatencyProfile

#: Backend that takes over where another one cannot run a model.
FALLBACK = "eager"
_DEPLOYED = "onnxruntime"

LATENCY_BACKENDS: Mapping[str, Backend] = {
    FALLBACK: Backend(
        prepare=prepare_eager,
        title="plain calls of the PyTorch model",
        clock="processor",
        device="model",
        exact=True,
        between_processes=0.03,
    ),
    _DEPLOYED: Backend(
        prepare=prepare_onnx_runtime,
        title="ONNX Runtime on the CPU",
        lacks=lacks_packages("onnx", "onnx", "onnxscript", "onnxruntime"),
        clock="processor",
    ),
    "openvino": Backend(
        prepare=prepare_openvino,
        title="OpenVINO on the CPU",
        lacks=lacks_packages("openvino", "onnx", "onnxscript", "openvino"),
        clock="processor",
    ),
    "compile": Backend(
        prepare=prepare_compiled,
        title="torch.compile, as one graph",
        lacks=lacks_compiler,
        clock="processor",
        device="model",
    ),
    "cuda_events": Backend(
        prepare=prepare_cuda_events,
        title="plain calls on a GPU, timed by its events (not tested on a GPU)",
        lacks=lacks_cuda,
        clock="device",
        device="cuda",
        falls_back=False,
    ),
    "cuda_graphs": Backend(
        prepare=prepare_cuda_graphs,
        title="a CUDA graph on a GPU, timed by its events (not tested on a GPU)",
        lacks=lacks_cuda,
        clock="device",
        device="cuda",
        falls_back=False,
    ),
    "remote": Backend(
        prepare=prepare_remote,
        title="a command or function that gets an ONNX file and gives milliseconds",
        lacks=lacks_packages("onnx", "onnx", "onnxscript"),
        clock="device",
        device="elsewhere",
        falls_back=False,
    ),
}


def check_backend(name: str) -> None:
    """Check that a backend of this name can run here.

    Args:
        name: Name of the backend.

    Raises:
        UnknownNameError: For another name than those of LATENCY_BACKENDS and "auto".
        ConfigurationError: Its packages are not installed, or there is no such device.
    """
    name = LatencyProfile(name="named", backend=name, command="-" if name == "remote" else "").backend
    if name == AUTO_BACKEND:
        return
    if name not in LATENCY_BACKENDS:
        raise UnknownNameError("the latency backend", name, (*LATENCY_BACKENDS, AUTO_BACKEND))
    reason = LATENCY_BACKENDS[name].lacks()
    if reason:
        raise ConfigurationError(
            error_message(f"the latency backend {name}", "be able to run here", "one that cannot", reason)
        )


def backend_of(profile: LatencyProfile) -> str:
    """Choose the backend of a profile.

    Args:
        profile: The profile.

    Returns:
        Name of the backend; for "auto" ONNX Runtime where it is installed, else eager PyTorch.

    Raises:
        UnknownNameError: There is no such backend.
        ConfigurationError: It cannot run here.
    """
    check_backend(profile.backend)
    if profile.backend != AUTO_BACKEND:
        return profile.backend
    return FALLBACK if LATENCY_BACKENDS[_DEPLOYED].lacks() else _DEPLOYED
