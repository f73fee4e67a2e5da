"""HTTP: platform accounts and webhooks: seals secrets, cannot open them."""

import flask
import functions_framework

from activation.api import edge

edge.adopt_framework()


@functions_framework.http
def platforms_http(request: flask.Request) -> flask.Response:
    """Answer a request."""
    return edge.serve("platforms", request)
