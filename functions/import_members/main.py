"""Topic member-imports: a file becomes members."""

import flask
import functions_framework

from activation.api import edge, messages

edge.adopt_framework()


@functions_framework.http
def import_members_event(request: flask.Request) -> flask.Response:
    """Take a message."""
    return messages.receive("import_members", request, messages.import_members)
