"""Guard in front of the dashboard: origin and token of requests, and headers of answers.

A page of another site can make a browser send requests to a server on this machine. It cannot choose the headers that
say where a request comes from, so these decide:

- `Host` must name this machine, as an attacker's name can be made to point to it (DNS rebinding).
- A POST must come from a page of this server, by `Sec-Fetch-Site`, `Origin` or `Referer`.
- Where the server listens to other machines, a random token in the address is exchanged for a cookie, and nothing is
  answered without it. Browsers send the cookie to the name that they got it from alone, so any name will do then.
"""

from __future__ import annotations

import hmac
import html
import ipaddress
import secrets
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from http.cookies import CookieError, SimpleCookie
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

from autoprune.errors import ConfigurationError, error_message

if TYPE_CHECKING:
    from _typeshed import OptExcInfo
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

#: Name of the token in the address.
TOKEN = "token"
#: Methods that change nothing.
_READING = ("GET", "HEAD", "OPTIONS")
#: Largest body of a request, in bytes.
LARGEST_BODY = 2_000_000
#: Policy that each answer sets. Plotly sets styles of elements, compiles programs for WebGL, and exports
#: pictures as blobs.
_POLICY = "; ".join(
    (
        "default-src 'self'",
        "script-src 'self' 'unsafe-eval'{inline}",
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data: blob:",
        "font-src 'self' data:",
        "connect-src 'self'",
        "object-src 'none'",
        "base-uri 'none'",
        "form-action 'self'",
        "frame-ancestors 'none'",
    )
)
_HEADERS = (
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
    ("X-Frame-Options", "DENY"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Permissions-Policy", "camera=(), geolocation=(), microphone=()"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """Access to a dashboard: its address, its token, and whether it can be written.

    Attributes:
        host: Address that the server is bound to.
        token: Secret that a browser must know; "" for none.
        read_only: Whether nothing may be changed.
    """

    host: str
    token: str = field(default="", repr=False)
    read_only: bool = False

    @classmethod
    def of(cls, host: str, *, read_only: bool = False) -> Access:
        """Make the access of a server; one that listens to other machines gets a new token.

        Args:
            host: Address that the server is bound to.
            read_only: Whether nothing may be changed.

        Returns:
            The access.

        Example:
            >>> bool(Access.of("127.0.0.1").token), bool(Access.of("0.0.0.0").token)
            (False, True)
        """
        return cls(host=host, token="" if is_loopback(host) else secrets.token_urlsafe(24), read_only=read_only)

    def url(self, port: int) -> str:
        """Write the address to open in a browser, with the token where there is one.

        Args:
            port: Port of the server.

        Returns:
            The address.
        """
        # A browser cannot go to the address that stands for all of this machine.
        host = "localhost" if self.host in ("", "0.0.0.0", "::") else self.host
        shown = f"[{host}]" if ":" in host else host
        return f"http://{shown}:{port}/{f'?{urlencode({TOKEN: self.token})}' if self.token else ''}"

    def knows(self, host: str) -> bool:
        """Tell whether a browser may call the server by a name.

        Args:
            host: Content of the `Host` header. Its port does not matter: it may be forwarded.

        Returns:
            True for this machine's names, and for any where there is a token.
        """
        name = _name(host)
        return bool(name) and (bool(self.token) or name == self.host.lower() or is_loopback(name))

    def check_writable(self) -> None:
        """Refuse a change where nothing may be changed.

        Raises:
            ConfigurationError: The dashboard is read-only.
        """
        if self.read_only:
            remedy = "Start it without --read-only."
            raise ConfigurationError(error_message("a change", "be made in a dashboard that allows it", "none", remedy))


class Guard:
    """Middleware that answers what must not reach the application, and adds headers to every answer.

    Args:
        app: The application.
        access: Access to the dashboard.
        scripts: Function that lists the hashes of the scripts within the page, which may run, in quotes: that is
            `Dash.csp_hashes`.
    """

    def __init__(self, app: WSGIApplication, access: Access, scripts: Callable[[], Iterable[str]] = tuple) -> None:
        self._app, self.access, self._scripts = app, access, scripts
        self._headers: tuple[tuple[str, str], ...] = ()

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer a request."""
        start = self._with_headers(start_response)
        fault = _fault(environ, self.access)
        if fault is not None:
            return _answer(start, fault[0], "text/plain", f"{fault[1]}\n")
        if not self.access.token or _is_known(environ, self.access.token):
            return self._app(environ, start)
        if not _is_same(self.access.token, (value for name, value in _query(environ) if name == TOKEN)):
            said = "This dashboard is open to those who have its address with the token, which the terminal shows."
            return _answer(start, "403 Forbidden", "text/plain", f"{said}\n")
        return self._welcome(environ, start)

    def _welcome(self, environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        """Exchange the token in the address for a cookie; then the address can be stored and shared without it.

        A page that loads the next one, and no redirection: after a click on a link in a mail, browsers send no strict
        cookie along with a redirection.
        """
        rest = urlencode([(name, value) for name, value in _query(environ) if name != TOKEN])
        path = quote(str(environ.get("PATH_INFO", "")).lstrip("/\\"), encoding="latin-1")
        target = html.escape(f"/{path}{'?' if rest else ''}{rest}")
        cookie = f"{_cookie(environ)}={self.access.token}; HttpOnly; SameSite=Strict; Path=/"
        page = f'<!doctype html><meta http-equiv="refresh" content="0;url={target}"><a href="{target}">Open</a>'
        return _answer(start, "200 OK", "text/html", page, ("Set-Cookie", cookie))

    def _with_headers(self, start_response: StartResponse) -> StartResponse:
        if not self._headers:
            inline = "".join(f" {one}" for one in self._scripts())
            self._headers = (*_HEADERS, ("Content-Security-Policy", _POLICY.format(inline=inline)))
        ours = self._headers

        def start(
            status: str, headers: list[tuple[str, str]], info: OptExcInfo | None = None, /
        ) -> Callable[[bytes], object]:
            names = {name.lower() for name, _ in ours}
            kept = [(name, value) for name, value in headers if name.lower() not in names]
            return start_response(status, [*kept, *ours], info)

        return start


def is_loopback(host: str) -> bool:
    """Tell whether an address can be reached from this machine alone.

    Args:
        host: Name or address.

    Returns:
        True for localhost and loopback addresses.
    """
    name = host.strip("[]").lower()
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _fault(environ: WSGIEnvironment, access: Access) -> tuple[str, str] | None:
    """Say why a request must not reach the application: status and sentence; None for a right one."""
    method, host = environ.get("REQUEST_METHOD"), str(environ.get("HTTP_HOST", ""))
    if not access.knows(host):
        return "421 Misdirected Request", "This server has another name. Open the address that the terminal shows."
    if _is_too_large(environ):
        return "413 Content Too Large", f"A request may have {LARGEST_BODY:,} bytes, and must say how many it has."
    if method in _READING:
        return None
    if method != "POST":
        return "405 Method Not Allowed", "This server answers GET and POST."
    if not _is_from_here(environ, host):
        return "403 Forbidden", "This request does not come from a page of this server."
    return None


def _is_from_here(environ: WSGIEnvironment, host: str) -> bool:
    """Tell whether a request comes from a page of this server.

    Browsers send `Sec-Fetch-Site` or, if they are old, `Origin` with each POST, and pages cannot change them.
    """
    site = environ.get("HTTP_SEC_FETCH_SITE")
    origins = [str(value) for name in ("HTTP_ORIGIN", "HTTP_REFERER") if (value := environ.get(name)) is not None]
    if site is not None:
        # A page that sends no referrer sends "null" for its origin from a form.
        origins = [one for one in origins if one != "null"]
        return site == "same-origin" and all(_netloc(one) == host.lower() for one in origins)
    return bool(origins) and all(_netloc(one) == host.lower() for one in origins)


def _is_too_large(environ: WSGIEnvironment) -> bool:
    """Tell whether a body is too large, or of unknown length."""
    length = str(environ.get("CONTENT_LENGTH") or "0")
    is_number = length.isascii() and length.isdigit() and len(length) < 12
    return "HTTP_TRANSFER_ENCODING" in environ or not is_number or int(length) > LARGEST_BODY


def _is_known(environ: WSGIEnvironment, token: str) -> bool:
    """Tell whether a browser has the cookie."""
    try:
        found = SimpleCookie(str(environ.get("HTTP_COOKIE", "")))
    except CookieError:
        return False
    name = _cookie(environ)
    return name in found and _is_same(token, [found[name].value])


def _is_same(token: str, given: Iterable[str]) -> bool:
    """Tell whether one of some texts is the token, in constant time."""
    return any(hmac.compare_digest(one.encode("utf-8", "replace"), token.encode()) for one in given)


def _cookie(environ: WSGIEnvironment) -> str:
    """Return the name of the cookie. Servers of one machine share their cookies, so it has the port in it."""
    return f"autoprune_{environ.get('SERVER_PORT', '')}"


def _query(environ: WSGIEnvironment) -> list[tuple[str, str]]:
    try:
        return parse_qsl(str(environ.get("QUERY_STRING", "")), keep_blank_values=True, max_num_fields=1000)
    except ValueError:
        return []


def _netloc(url: str) -> str:
    try:
        return urlsplit(url).netloc.lower()
    except ValueError:
        return ""


def _name(host: str) -> str:
    """Return the name in a `Host` header; "" for none."""
    try:
        return (urlsplit(f"//{host}").hostname or "").lower().removesuffix(".")  # the dot of a full name
    except ValueError:
        return ""


def _answer(start: StartResponse, status: str, kind: str, text: str, *more: tuple[str, str]) -> Iterable[bytes]:
    body = text.encode()
    headers = [("Content-Type", f"{kind}; charset=utf-8"), ("Content-Length", str(len(body)))]
    start(status, [*headers, ("Cache-Control", "no-store"), *more])
    return [body]
