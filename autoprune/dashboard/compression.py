"""Compression of responses: scripts once, everything else for each request."""

from __future__ import annotations

import gzip
from collections.abc import Iterable
from typing import TYPE_CHECKING

from werkzeug.wrappers import Request, Response

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

#: Types that become smaller.
_SMALLER = ("text/", "application/json", "application/javascript")
#: Shortest response that is worth it.
_LEAST = 1024
#: Level for a response that is sent once, and for a script, which is kept.
_QUICK, _SMALL = 4, 9


class Compressed:
    """WSGI application that compresses the responses of another one.

    Args:
        inner: The other one.
    """

    def __init__(self, inner: WSGIApplication) -> None:
        self._inner = inner
        self._kept: dict[tuple[str, str], bytes] = {}

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer a request."""
        request = Request(environ)
        response = Response.from_app(self._inner, environ)
        if request.accept_encodings["gzip"] > 0 and self._is_worth_it(response):
            self._compress(request, response)
        return response(environ, start_response)

    @staticmethod
    def _is_worth_it(response: Response) -> bool:
        kind = response.mimetype or ""
        plain = "Content-Encoding" not in response.headers and response.status_code == 200
        return plain and kind.startswith(_SMALLER) and (response.content_length or 0) >= _LEAST

    def _compress(self, request: Request, response: Response) -> None:
        if response.cache_control.max_age:
            key = (request.full_path, response.headers.get("ETag") or str(len(response.data)))
            if key not in self._kept:
                self._kept[key] = gzip.compress(response.data, _SMALL, mtime=0)
            data = self._kept[key]
        else:
            data = gzip.compress(response.data, _QUICK, mtime=0)
        response.data = data
        response.headers["Content-Encoding"] = "gzip"
        response.headers["Content-Length"] = str(len(data))
        response.vary.add("Accept-Encoding")
