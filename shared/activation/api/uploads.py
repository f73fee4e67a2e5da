"""Upload addresses of the embedded back-end; Google's are Cloud Storage itself."""

from __future__ import annotations

import flask

from activation.api.responses import answered
from activation.api.routes import PREFIX
from activation.domain.entity import new_id
from activation.errors import NotFoundError
from activation.ports import Message
from activation.services.imports import MEMBER_IMPORTS

ENDPOINT = "uploads.accept"


def blueprint() -> flask.Blueprint:
    """`PUT /api/v1/uploads/{token}`: the token is the right to create one object."""
    routes = flask.Blueprint("uploads", __name__, url_prefix=f"{PREFIX}/uploads")
    routes.add_url_rule("/<token>", methods=["PUT"], view_func=accept)
    return routes


def accept(token: str) -> flask.Response:
    """Store the file, then tell what a bucket would tell."""
    from activation.adapters.embedded.blobs import FileBlobs

    app = flask.g.doors.app
    if not isinstance(app.uploads, FileBlobs):
        raise NotFoundError("There is nothing at this address.", reason="not_found")
    info = app.uploads.accept(token, flask.request.stream, flask.request.mimetype)
    event = {
        "kind": "storage#object",
        "bucket": "uploads",
        "name": str(info.key),
        "size": str(info.size_bytes),
    }
    message = Message(
        MEMBER_IMPORTS,
        info.key.organization_id,
        new_id(app.clock.now()),
        event,
        trace_id=flask.g.trace_id,
    )
    app.commits.publish_new([message])
    return answered({"size_bytes": info.size_bytes}, 201)


accept.streams = True  # type: ignore[attr-defined]
