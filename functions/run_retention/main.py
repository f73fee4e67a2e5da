"""Daily, weekly, monthly: starts the retention runs whose time has come."""

import flask
import functions_framework

from activation.api import edge, messages

edge.adopt_framework()


@functions_framework.http
def run_retention_tick(request: flask.Request) -> flask.Response:
    """Do what the clock asks for."""
    return messages.tick("run_retention", request, messages.run_retention)
