"""Who we are at Google's OTLP endpoint: the function's own identity."""

from __future__ import annotations

from typing import Any

SCOPES = ("https://www.googleapis.com/auth/cloud-platform",)
"""The endpoint asks for this one; what the identity may do, its roles say."""


def authorized_session() -> Any:
    """A session whose requests carry the token of the default credentials."""
    import google.auth
    from google.auth.transport.requests import AuthorizedSession

    credentials, _ = google.auth.default(scopes=SCOPES)
    return AuthorizedSession(credentials)
