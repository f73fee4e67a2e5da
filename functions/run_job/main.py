"""Topic audience-jobs: archives, backups, retention rounds and other long work."""

import flask
import functions_framework

from activation.api import edge, messages

edge.adopt_framework()


@functions_framework.http
def run_job_event(request: flask.Request) -> flask.Response:
    """Take a message."""
    return messages.receive("run_job", request, messages.run_job)
