"""Compression of responses: scripts once, everything else for each request."""

from __future__ import annotations

import gzip
import hashlib
from collections import OrderedDict
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
#: Largest number of scripts that are kept: twice those of the page.
_KEPT = 64


class Compressed:
    """WSGI application that compresses the responses of another one.

    Args:
        inner: The other one.
    """

    def __init__(self, inner: WSGIApplication) -> None:
        self._inner = inner
        self._kept: OrderedDict[bytes, bytes] = OrderedDict()

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

    def prepare(self, script: bytes) -> None:
        """Compress a script before it is asked for.

        Args:
            script: Content of the script.
        """
        self._kept_script(script)

    def _compress(self, response: Response) -> None:
        if response.cache_control.max_age:
            data = self._kept_script(response.data)
        else:
            data = gzip.compress(response.data, _QUICK, mtime=0)
        response.data = data
        response.headers["Content-Encoding"] = "gzip"
        response.headers["Content-Length"] = str(len(data))
        response.vary.add("Accept-Encoding")

    def _kept_script(self, script: bytes) -> bytes:
        """Compress a script, by what it holds: addresses of one script can differ without end."""
        key = hashlib.sha256(script).digest()
        data = self._kept.get(key)
        if data is None:
            data = self._kept[key] = gzip.compress(script, _SMALL, mtime=0)
        while len(self._kept) > _KEPT:
            self._kept.popitem(last=False)
        return data
