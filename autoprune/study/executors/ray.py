"""RayExecutor: workers of a Ray cluster, as an executor of concurrent.futures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Executor, Future
from typing import ParamSpec, Protocol, TypeVar, cast

from autoprune.errors import ConfigurationError, describe_exception, error_message

P = ParamSpec("P")
R = TypeVar("R")
#: Address with which a cluster is started on this machine for the run.
LOCAL = "local"


class _Reference(Protocol):
    """Reference to a call, as Ray returns it."""

    def future(self) -> Future[object]: ...


class _Remote(Protocol):
    """A function of Ray's."""

    def remote(self, *args: object) -> _Reference: ...


class _Ray(Protocol):
    """The functions of Ray that are called here."""

    def init(self, **options: object) -> object: ...
    def is_initialized(self) -> bool: ...
    def remote(self, **options: object) -> Callable[[Callable[..., object]], _Remote]: ...
    def cancel(self, reference: _Reference, *, force: bool) -> None: ...
    def cluster_resources(self) -> Mapping[str, float]: ...
    def shutdown(self) -> None: ...


class RayExecutor(Executor):
    """Runs calls as tasks of a Ray cluster, none of them twice by itself.

    A Ray cluster has no authentication: whoever reaches its ports runs code on it. It belongs on a private network.

    Args:
        address: "auto" for the cluster that runs on this machine, "local" to start one on 127.0.0.1, or an address.
        cpus: Processors that a call needs.
        gpus: GPUs that a call needs.
        resources: Further resources that a call needs: name -> amount.

    Raises:
        ConfigurationError: Ray is not installed, or there is no such cluster.
    """

    def __init__(self, address: str, *, cpus: float, gpus: float, resources: Mapping[str, float]) -> None:
        try:
            import ray
        except ImportError:
            remedy = "Install it with `pip install 'autoprune[ray]'`, or use --workers N."
            raise ConfigurationError(error_message("--ray", "have Ray installed", "none", remedy)) from None
        self._ray = cast("_Ray", ray)
        self._cpus, self._gpus, self._resources = cpus, gpus, dict(resources)
        self._references: dict[Future[object], _Reference] = {}
        self._started = not self._ray.is_initialized()
        if self._started:
            local = {"address": LOCAL, "include_dashboard": False, "_node_ip_address": "127.0.0.1"}
            try:
                self._ray.init(**(local if address == LOCAL else {"address": address}), log_to_driver=False)
            except Exception as error:  # Ray raises many kinds
                remedy = "Start one with `ray start --head`, or give --ray local."
                got = describe_exception(error, 300)
                raise ConfigurationError(error_message(f"--ray {address}", "reach a cluster", got, remedy)) from error

    @property
    def capacity(self) -> int:
        """Number of calls that the cluster has room for at the same time, 1 or more."""
        total = self._ray.cluster_resources()
        needed = {"CPU": self._cpus, "GPU": self._gpus, **self._resources}
        room = [int(total.get(name, 0.0) // amount) for name, amount in needed.items() if amount > 0]
        return max(1, min(room, default=1))

    def submit(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Future[R]:
        """Run a function in a worker of the cluster.

        Args:
            fn: Function.
            *args: Its arguments.
            **kwargs: None: functions are called with positional arguments.

        Returns:
            The future; its exception is one of Ray's where the worker or its machine died.

        Raises:
            TypeError: There are keyword arguments.
        """
        if kwargs:
            raise TypeError("functions are called with positional arguments alone")
        needed = {"num_cpus": self._cpus, "num_gpus": self._gpus, "resources": self._resources}
        return cast("Future[R]", self._submit(needed, fn, *args))

    def submit_where(self, resource: str, fn: Callable[..., R], *args: object) -> Future[R]:
        """Run a function where the cluster has a resource, in place of those of other calls.

        Args:
            resource: Name of the resource, of which one is taken.
            fn: Function.
            *args: Its arguments.

        Returns:
            The future.
        """
        return cast("Future[R]", self._submit({"num_cpus": 0, "resources": {resource: 1.0}}, fn, *args))

    def _submit(self, needed: Mapping[str, object], fn: Callable[..., object], *args: object) -> Future[object]:
        reference = self._ray.remote(max_retries=0, **needed)(fn).remote(*args)
        future = reference.future()
        self._references[future] = reference
        future.add_done_callback(lambda done: self._references.pop(done, None))
        return future

    def end(self, future: Future[object]) -> None:
        """End the worker that runs a call, at once.

        Args:
            future: Future that `submit` returned.
        """
        reference = self._references.get(future)
        if reference is not None:
            self._ray.cancel(reference, force=True)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Leave the cluster.

        Args:
            wait: Wait for calls that run; without, they are ended.
            cancel_futures: The same for calls that have not begun.
        """
        for future in list(self._references):
            if not wait or cancel_futures:
                self.end(future)
        if self._started:
            self._ray.shutdown()
