"""HTTP: which segments a user is in, and why."""

import flask
import functions_framework

from activation.api import edge

edge.adopt_framework()


@functions_framework.http
def users_http(request: flask.Request) -> flask.Response:
    """Answer a request."""
    return edge.serve("users", request)
