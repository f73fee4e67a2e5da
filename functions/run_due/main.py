"""Every minute: due distributions, silent workers, the outbox, old idempotency keys."""

import flask
import functions_framework

from activation.api import edge, messages

edge.adopt_framework()


@functions_framework.http
def run_due_tick(request: flask.Request) -> flask.Response:
    """Do what the clock asks for."""
    return messages.tick("run_due", request, messages.run_due)
