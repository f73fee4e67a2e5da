"""HTTP: distributions: plan, request, list, cancel, retry."""

import flask
import functions_framework

from activation.api import edge

edge.adopt_framework()


@functions_framework.http
def distributions_http(request: flask.Request) -> flask.Response:
    """Answer a request."""
    return edge.serve("distributions", request)
