"""A Ray cluster of one node on 127.0.0.1 alone, for tests."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tests.end_to_end.script import environment
from tests.processes import children_of, command_line

# Ray uses the loopback address alone, as it does on Windows; it reads this when it is imported.
os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
os.environ["RAY_AUTH_MODE"] = "disabled"  # nobody else reaches it

#: Ports of a node, each of which gets a free one.
PORTS = (
    "port",
    "node-manager-port",
    "object-manager-port",
    "dashboard-agent-listen-port",
    "dashboard-agent-grpc-port",
    "metrics-export-port",
    "runtime-env-agent-port",
)


def free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(closing(socket.socket())) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]


#: A node is not taken for dead because the machine is busy.
PATIENCE = {"RAY_health_check_timeout_ms": "60000"}


@dataclass(frozen=True, slots=True)
class Cluster:
    """A cluster of one node.

    Attributes:
        address: Its address.
        folder: Its folder of temporary files, which the command lines of its processes name.
    """

    address: str
    folder: str

    def processes(self, name: str = "") -> list[int]:
        """The processes of the cluster, by a part of their command lines."""
        everywhere = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
        lines = {process: command_line(process) for process in everywhere if process != os.getpid()}
        return [one for one, line in lines.items() if self.folder.encode() in line and name.encode() in line]

    def raylets(self) -> list[int]:
        return self.processes("raylet/raylet")

    def heads(self) -> list[int]:
        return self.processes("gcs/gcs_server")

    def workers(self) -> Sequence[int]:
        """Worker processes, busy or idle: children of the node's process, whose command lines tell what they do."""
        names = (b"ray::IDLE", b"ray::run_unit")
        started = [child for raylet in self.raylets() for child in children_of(raylet)]
        return [child for child in started if command_line(child).startswith(names)]

    def end(self) -> None:
        for process in (*self.processes(), *self.workers()):
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)


@contextmanager
def ray_cluster(cpus: int = 2, resources: str = "{}") -> Iterator[Cluster]:
    """Start a cluster on 127.0.0.1, all ports of it included, without a dashboard."""
    given = [f"--{name}={port}" for name, port in zip(PORTS, free_ports(len(PORTS)), strict=True)]
    with tempfile.TemporaryDirectory(prefix="ray", ignore_cleanup_errors=True) as folder:
        start = [
            *("start", "--head", "--node-ip-address=127.0.0.1", *given),
            *(f"--num-cpus={cpus}", f"--resources={resources}", "--object-store-memory=100000000"),
            *("--include-dashboard=false", "--disable-usage-stats", f"--temp-dir={folder}"),
        ]
        command = [sys.executable, "-m", "ray.scripts.scripts", *start]
        cluster = Cluster(f"127.0.0.1:{given[0].partition('=')[2]}", folder)
        try:
            subprocess.run(command, check=True, env=environment(**PATIENCE), capture_output=True)
            yield cluster
        finally:
            cluster.end()
