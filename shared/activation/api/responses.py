"""Responses: JSON, records with their ETag, files."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import flask
import orjson

from activation.documents import Stored

JSON = "application/json"
CSV = "text/csv; charset=utf-8"


def answered(result: Any, status: int) -> flask.Response:
    """The response for what a view returned: a record, a list, a dictionary, a file, nothing."""
    if isinstance(result, flask.Response):
        return result
    if result is None:
        return empty()
    if isinstance(result, Iterator):
        return flask.Response(result, content_type=CSV)
    if isinstance(result, Stored):
        response = json_response(result.entity.public(), status)
        response.set_etag(result.revision)
        return response
    return json_response(result.public() if hasattr(result, "public") else result, status)


def empty(**headers: str) -> flask.Response:
    """204: done, and nothing to say."""
    response = flask.Response(status=204, headers=headers)
    response.headers.remove("Content-Type")
    return response


def json_response(value: Any, status: int) -> flask.Response:
    """A JSON body."""
    data = orjson.dumps(value)
    return flask.Response(data, status, content_type="application/json; charset=utf-8")
