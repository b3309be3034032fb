"""Server of the dashboard: one process, loopback by default, until it is stopped."""

from __future__ import annotations

import socket
import threading
import webbrowser
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from werkzeug.serving import BaseWSGIServer, WSGIRequestHandler, make_server

from autoprune.dashboard.app import make_app
from autoprune.dashboard.compression import Compressed, compressed_script
from autoprune.dashboard.files import serve_files
from autoprune.dashboard.guard import Access, Guard
from autoprune.dashboard.live import LiveRuns
from autoprune.display import shorten
from autoprune.errors import ConfigurationError, error_message
from autoprune.report.page import plotly_script

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication


class Dashboard:
    """A dashboard that is ready to serve.

    Args:
        paths: Run folders.
        host: Address to bind.
        port: Port to bind; 0 for any free one.
        read_only: Whether nothing is written.

    Raises:
        AutopruneError: A folder holds no study that can be read.
        ConfigurationError: The server cannot listen there, as where the port is taken.
    """

    def __init__(
        self, paths: Sequence[str | Path], *, host: str = "127.0.0.1", port: int = 0, read_only: bool = False
    ) -> None:
        access = Access.of(host, read_only=read_only)
        self.runs = LiveRuns(paths)
        app = make_app(self.runs, access)
        serve_files(app, self.runs)
        self._server = _server(host, port, Guard(Compressed(app.server.wsgi_app), access, app.csp_hashes))
        self.url = access.url(self._server.server_port)
        # The largest script by far: it is ready by the time that a browser asks for it.
        threading.Thread(target=lambda: compressed_script(plotly_script().encode()), daemon=True).start()

    def serve(self, *, show: bool = False) -> None:
        """Serve until `close` is called or the process is interrupted.

        Args:
            show: Whether to open the page in the browser.
        """
        if show:
            threading.Thread(target=webbrowser.open, args=(self.url,), daemon=True).start()
        self._server.serve_forever()

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()


class QuietHandler(WSGIRequestHandler):
    """Handler that keeps connections open, and does not log each request."""

    protocol_version = "HTTP/1.1"

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Log nothing."""


def _server(host: str, port: int, app: WSGIApplication) -> BaseWSGIServer:
    _check_address(host, port)
    return make_server(host, port, app, threaded=True, request_handler=QuietHandler)


def _check_address(host: str, port: int) -> None:
    """Refuse an address that cannot be bound: werkzeug ends the process then, and deletes what lies at a path."""
    fault: object = None
    if "/" in host:
        fault = "a path"
    elif not 0 <= port < 2**16:
        fault = "a port outside [0, 65535]"
    else:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            socket.create_server((host, port), family=family).close()
        except (OSError, UnicodeError) as error:
            fault = error
    if fault is not None:
        remedy = "Name another --port, 0 for any free one, or an address of this machine by --host."
        what = f"the address {shorten(host)}, port {port},"
        raise ConfigurationError(error_message(what, "be free to listen to", fault, remedy))
