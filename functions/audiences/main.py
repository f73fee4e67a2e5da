"""HTTP: audiences, their members, imports and versions."""

import flask
import functions_framework

from activation.api import edge

edge.adopt_framework()


@functions_framework.http
def audiences_http(request: flask.Request) -> flask.Response:
    """Answer a request."""
    return edge.serve("audiences", request)
