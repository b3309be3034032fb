"""Bodies of requests for a view: Dash reads them without a check, so they are checked before."""

from __future__ import annotations

from dash import Dash
from flask import Response, request

#: Path of the requests for a view.
_PATH = "/_dash-update-component"
#: Answer to a body that the page does not send.
_WRONG = "This is no request of this page. Load the page again: the server may have another version."


def check_bodies(app: Dash) -> None:
    """Answer a request for a view that the page does not have with one sentence.

    Args:
        app: The application.
    """

    def check() -> Response | None:
        if request.path != _PATH or request.method != "POST":
            return None
        if _is_right(request.get_json(silent=True), app):
            return None
        return Response(_WRONG, status=400, mimetype="text/plain")

    app.server.before_request(check)


def _is_right(body: object, app: Dash) -> bool:
    """Tell whether a body is one that the page sends: its output is one of a view, with the inputs of that view."""
    if not isinstance(body, dict):
        return False
    output = body.get("output")
    known = app.callback_map.get(output) if isinstance(output, str) else None
    if known is None:
        return False
    parts = (("inputs", known["inputs"]), ("state", known["state"]))
    if not all(_are_of(body.get(name, []), wanted) for name, wanted in parts):
        return False
    changed = body.get("changedPropIds", [])
    return (
        _are_outputs(body.get("outputs")) and isinstance(changed, list) and all(isinstance(one, str) for one in changed)
    )


def _are_of(given: object, wanted: list[dict[str, str]]) -> bool:
    """Tell whether values are given for these properties, in their order."""
    if not isinstance(given, list) or len(given) != len(wanted):
        return False
    return all(isinstance(one, dict) and _named(one) == _named(own) for one, own in zip(given, wanted, strict=True))


def _named(one: dict[str, object] | dict[str, str]) -> tuple[object, object]:
    return one.get("id"), one.get("property")


def _are_outputs(given: object) -> bool:
    entries = given if isinstance(given, list) else [given]
    return all(isinstance(one, dict) and {"id", "property"} <= one.keys() for one in entries)
