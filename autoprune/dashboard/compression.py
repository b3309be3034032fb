"""Compression of responses: scripts once, everything else for each request."""

from __future__ import annotations

import functools
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
_QUICK, _SMALL = 4, 6


@functools.lru_cache(maxsize=64)  # twice the scripts of the page
def compressed_script(script: bytes) -> bytes:
    """Compress a script once in this process, by what it holds: addresses of one script can differ without end.

    Args:
        script: Content of the script.

    Returns:
        It in gzip's format.
    """
    return gzip.compress(script, _SMALL, mtime=0)


class Compressed:
    """WSGI application that compresses the responses of another one.

    Args:
        inner: The other one.
    """

    def __init__(self, inner: WSGIApplication) -> None:
        self._inner = inner

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer a request."""
        request = Request(environ)
        response = Response.from_app(self._inner, environ)
        if request.accept_encodings["gzip"] > 0 and self._is_worth_it(response):
            self._compress(response)
        return response(environ, start_response)

    @staticmethod
    def _is_worth_it(response: Response) -> bool:
        kind = response.mimetype or ""
        plain = "Content-Encoding" not in response.headers and response.status_code == 200
        return plain and kind.startswith(_SMALLER) and (response.content_length or 0) >= _LEAST

    def _compress(self, response: Response) -> None:
        if response.cache_control.max_age:
            data = compressed_script(response.data)
        else:
            data = gzip.compress(response.data, _QUICK, mtime=0)
        response.data = data
        response.headers["Content-Encoding"] = "gzip"
        response.headers["Content-Length"] = str(len(data))
        response.vary.add("Accept-Encoding")
