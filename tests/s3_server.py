"""An S3 server for the tests: moto's, on 127.0.0.1 and a free port. What it holds outlives a stop."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager

import pytest
import s3fs
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import BaseWSGIServer, WSGIRequestHandler, make_server

#: Bucket that there is from the start.
BUCKET = "weights"
#: What a client of S3 reads from the environment; one attempt, so that a server that is away is told at once.
ENVIRONMENT: Mapping[str, str] = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_MAX_ATTEMPTS": "1",
}


class _Silent(WSGIRequestHandler):
    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Requests are not printed."""


class S3Server:
    """The server, with hooks around each request.

    Attributes:
        requests: Method and path of each request so far.
        before: Called with method and path before a request is done.
        after: Called with them when it is done, and not yet answered.
    """

    def __init__(self) -> None:
        self._app = DomainDispatcherApplication(create_backend_app)
        self._server: BaseWSGIServer | None = None
        self.port = 0
        self.requests: list[tuple[str, str]] = []
        self.before: Callable[[str, str], None] = lambda method, path: None
        self.after: Callable[[str, str], None] = lambda method, path: None

    def __call__(self, environ: dict[str, object], respond: Callable[..., object]) -> Iterable[bytes]:
        request = str(environ["REQUEST_METHOD"]), str(environ["PATH_INFO"])
        self.requests.append(request)
        self.before(*request)
        answer = list(self._app(environ, respond))
        self.after(*request)
        return answer

    def start(self) -> None:
        """Listen, unless it does; after a stop on the same port again."""
        if self._server is not None:
            return
        self._server = make_server("127.0.0.1", self.port, self, threaded=True, request_handler=_Silent)
        self.port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def stop(self) -> None:
        """Refuse connections."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None


@contextmanager
def serving() -> Iterator[S3Server]:
    """Serve S3; clients of this process and its children find it by the environment."""
    server = S3Server()
    server.start()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**ENVIRONMENT, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.port}"}.items():
            patch.setenv(name, value)
        s3fs.S3FileSystem.clear_instance_cache()
        s3fs.S3FileSystem().mkdir(BUCKET)
        try:
            yield server
        finally:
            server.stop()
            s3fs.S3FileSystem.clear_instance_cache()
