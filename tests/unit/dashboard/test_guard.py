"""The guard in front of a real server: what browsers and hostile pages send, and what they get."""

from __future__ import annotations

import html
import http.client
import re
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from werkzeug.serving import WSGIRequestHandler, make_server

from autoprune.dashboard.guard import LARGEST_BODY, Access, Guard, is_loopback
from autoprune.errors import ConfigurationError

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

Headers = dict[str, str]


class Quiet(WSGIRequestHandler):
    def log(self, *_: object, **__: object) -> None:
        """Say nothing."""


class Server:
    """An application behind a guard, on a port of this machine."""

    def __init__(self, access: Access) -> None:
        self.seen: list[str] = []
        self._server = make_server(
            "127.0.0.1", 0, Guard(self._app, access, lambda: ["'sha256-x='"]), request_handler=Quiet
        )
        self.port = self._server.server_port
        self.here = f"127.0.0.1:{self.port}"
        self.thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})

    def _app(self, environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        self.seen.append(f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']}")
        start("200 OK", [("Content-Type", "text/plain"), ("X-Frame-Options", "ALLOWALL")])
        return [environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0)) or b"page"]

    def ask(
        self, method: str = "GET", path: str = "/", headers: Headers | None = None, body: bytes | None = None
    ) -> tuple[int, bytes, http.client.HTTPMessage]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        given = {"Host": self.here, **(headers or {})}
        connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        for name, value in given.items():
            connection.putheader(name, value)
        if body is not None and "Content-Length" not in given and "Transfer-Encoding" not in given:
            connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body)
        answer = connection.getresponse()
        found = answer.status, answer.read(), answer.headers
        connection.close()
        return found

    def close(self) -> None:
        self._server.shutdown()
        self.thread.join()
        self._server.server_close()


@contextmanager
def serving(access: Access) -> Iterator[Server]:
    server = Server(access)
    server.thread.start()
    try:
        yield server
    finally:
        server.close()


@pytest.fixture(scope="module")
def local() -> Iterator[Server]:
    with serving(Access.of("127.0.0.1")) as server:
        yield server


@pytest.fixture(scope="module")
def open_one() -> Iterator[Server]:
    """A server that listens to other machines, as far as its guard knows."""
    with serving(Access(host="0.0.0.0", token="secret-token")) as server:
        yield server


@pytest.mark.parametrize(
    "host", ["127.0.0.1:{port}", "localhost:{port}", "LOCALHOST:9000", "localhost.:9000", "[::1]:{port}", "127.0.0.1"]
)
def test_names_of_this_machine_are_answered(host: str, local: Server) -> None:
    """The port may be another one, which ssh forwards."""
    status, body, _ = local.ask(headers={"Host": host.format(port=local.port)})
    assert (status, body) == (200, b"page")


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:{port}", "127.0.0.1.evil.example", "localhost.evil.example:{port}", "10.0.0.1", "",
     "[::1", "127.0.0.1@evil.example", "a" * 3000, "evil.example:99999999"],
)  # fmt: skip
def test_a_name_that_somebody_made_point_here_is_refused(host: str, local: Server) -> None:
    """DNS rebinding: the browser believes that the page of evil.example asks evil.example."""
    local.seen.clear()
    status, body, _ = local.ask(headers={"Host": host.format(port=local.port)})
    assert (status, local.seen) == (421, [])
    assert body.startswith(b"This server has another name.")


def own(server: Server) -> list[Headers]:
    here = f"http://{server.here}"
    return [
        {"Sec-Fetch-Site": "same-origin", "Origin": here},
        {"Sec-Fetch-Site": "same-origin", "Origin": "null"},
        {"Sec-Fetch-Site": "same-origin"},
        {"Origin": here},
        {"Referer": f"{here}/page?a=1"},
    ]


def others(server: Server) -> list[Headers]:
    here = f"http://{server.here}"
    return [
        {},
        {"Origin": "null"},
        {"Origin": "https://evil.example"},
        {"Origin": f"http://127.0.0.1:{server.port + 1}"},
        {"Origin": f"http://127.0.0.1:{server.port}.evil.example"},
        {"Origin": "http://[::1"},
        {"Referer": "https://evil.example/"},
        {"Origin": here, "Referer": "https://evil.example/"},
        {"Sec-Fetch-Site": "same-site", "Origin": here},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "none"},
        {"Sec-Fetch-Site": "same-origin", "Origin": "https://evil.example"},
    ]


def test_only_a_page_of_this_server_may_post(local: Server) -> None:
    for headers in own(local):
        assert local.ask("POST", "/note", headers, b"text")[:2] == (200, b"text"), headers
    local.seen.clear()
    for headers in others(local):
        status, body, _ = local.ask("POST", "/note", headers, b"text")
        assert (status, body) == (403, b"This request does not come from a page of this server.\n"), headers
    assert local.seen == []


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "TRACE", "CONNECT", "post", "X"])
def test_other_methods_are_refused(method: str, local: Server) -> None:
    local.seen.clear()
    assert local.ask(method, "/", own(local)[0])[0] == 405
    assert local.seen == []


@pytest.mark.parametrize(
    "headers",
    [{"Content-Length": str(LARGEST_BODY + 1)}, {"Content-Length": "9" * 30}, {"Content-Length": "-1"},
     {"Content-Length": "1e3"}, {"Content-Length": "٣"}, {"Transfer-Encoding": "chunked"}],
)  # fmt: skip
def test_a_body_that_is_too_large_or_of_unknown_length_is_not_read(headers: Headers, local: Server) -> None:
    local.seen.clear()
    encoded = {name: value.encode().decode("latin-1") for name, value in headers.items()}
    assert local.ask("POST", "/", own(local)[0] | encoded, b"")[0] == 413
    assert local.seen == []


@pytest.mark.parametrize("headers", [{}, {"Host": "evil.example"}], ids=["an answer", "a refusal"])
def test_every_answer_tells_the_browser_what_it_may_do(headers: Headers, local: Server) -> None:
    _, _, found = local.ask(headers=headers)
    policy = dict(part.split(" ", 1) for part in found["Content-Security-Policy"].split("; "))
    assert policy["frame-ancestors"] == policy["object-src"] == policy["base-uri"] == "'none'"
    assert policy["default-src"] == policy["connect-src"] == "'self'"
    assert policy["script-src"] == "'self' 'unsafe-eval' 'sha256-x='"
    assert (found["X-Content-Type-Options"], found["Referrer-Policy"]) == ("nosniff", "no-referrer")
    assert found.get_all("X-Frame-Options") == ["DENY"], "that of the application is replaced"


# ---- for other machines


def test_without_the_token_nothing_is_answered(open_one: Server) -> None:
    open_one.seen.clear()
    tries: list[tuple[str, Headers]] = [
        ("/", {}),
        ("/?token=", {}),
        ("/?token=secret-toke", {}),
        ("/?token=secret-token%00", {}),
        ("/?token=%ff", {}),
        (f"/?{'a=1&' * 2000}token=secret-token", {}),
        ("/", {"Cookie": f"autoprune_{open_one.port}=wrong"}),
        ("/", {"Cookie": "autoprune_1=secret-token"}),
        ("/", {"Cookie": "\x01=;;;=\xff"}),
    ]
    for path, headers in tries:
        status, body, answer = open_one.ask("GET", path, headers)
        assert (status, "Set-Cookie" in answer) == (403, False), path
        assert b"secret" not in body
        assert open_one.ask("POST", path, headers | own(open_one)[0], b"x")[0] == 403
    assert open_one.seen == []


def test_the_token_is_exchanged_for_a_cookie_that_no_script_and_no_other_site_can_use(open_one: Server) -> None:
    open_one.seen.clear()
    status, body, headers = open_one.ask("GET", "/runs?token=secret-token&view=a%22b%26c")
    assert (status, open_one.seen) == (200, [])
    assert b"secret" not in body, "what is shown and stored is an address without it"
    assert headers["Set-Cookie"] == f"autoprune_{open_one.port}=secret-token; HttpOnly; SameSite=Strict; Path=/"
    assert headers["Cache-Control"] == "no-store"
    target = re.search(r'content="0;url=([^"]*)"', body.decode())
    assert target is not None
    assert html.unescape(target[1]) == "/runs?view=a%22b%26c"
    cookie = {"Cookie": f"other=1; {headers['Set-Cookie'].partition(';')[0]}"}
    assert open_one.ask("GET", html.unescape(target[1]), cookie)[:2] == (200, b"page")
    assert open_one.ask("POST", "/", cookie | own(open_one)[0], b"x")[:2] == (200, b"x")
    assert open_one.ask("POST", "/", cookie, b"x")[0] == 403, "the cookie alone is no leave to post"


@pytest.mark.parametrize(
    "path", ["//evil.example", "/\\evil.example", "/%5Cevil.example", "/%0d%0aX-Evil:%201", '/<b>"']
)
def test_the_address_after_the_token_stays_on_this_server(path: str, open_one: Server) -> None:
    status, body, headers = open_one.ask("GET", f"{path}?token=secret-token")
    target = re.search(r'content="0;url=([^"]*)"', body.decode())
    assert (status, "X-Evil" in headers) == (200, False)
    assert target is not None
    assert re.match(r"/(?![/\\])", html.unescape(target[1]))
    assert "<b>" not in body.decode()


def test_any_name_will_do_with_the_token(open_one: Server) -> None:
    """The cookie goes to the name that gave it; a page of another name does not have it."""
    cookie = {"Cookie": f"autoprune_{open_one.port}=secret-token"}
    assert open_one.ask("GET", "/", cookie | {"Host": "box.lan:8050"})[0] == 200
    assert open_one.ask("GET", "/", {"Host": "evil.example"})[0] == 403


@pytest.mark.parametrize(
    ("host", "url", "has_token"),
    [
        ("127.0.0.1", "http://127.0.0.1:80/", False),
        ("localhost", "http://localhost:80/", False),
        ("::1", "http://[::1]:80/", False),
        ("0.0.0.0", "http://localhost:80/?token=", True),
        ("::", "http://localhost:80/?token=", True),
        ("192.168.0.7", "http://192.168.0.7:80/?token=", True),
    ],
)
def test_a_server_for_other_machines_has_a_token_of_its_own(host: str, url: str, has_token: bool) -> None:
    access, other = Access.of(host), Access.of(host)
    assert access.url(80) == url + access.token
    assert bool(access.token) is has_token
    assert (len(access.token) >= 32 and access.token != other.token) or not has_token
    assert not access.token or access.token not in repr(access)
    assert is_loopback(host) is not has_token


@pytest.mark.parametrize("read_only", [False, True])
def test_read_only(read_only: bool) -> None:
    check: Callable[[], None] = Access.of("127.0.0.1", read_only=read_only).check_writable
    if not read_only:
        check()
        return
    with pytest.raises(ConfigurationError, match=r"must be made in a dashboard that allows it.*--read-only"):
        check()
