"""A deployed function, spoken to over WSGI in this process."""

from __future__ import annotations

from typing import Any

from werkzeug.test import Client

from activation.api.doors import ENVIRON, Doors
from activation.app import App
from activation.domain.caller import Caller
from activation.function_manifest import function
from activation.local import loaded


class HTTPFunction:
    """An HTTP function on `app`, called by `caller` with a real token."""

    def __init__(self, app: App, name: str, caller: Caller) -> None:
        self._doors = Doors.of(app)
        assert self._doors.issuer is not None
        token = self._doors.issuer.token(caller.organization_id, caller.user_id, caller.role)
        self._client = Client(loaded(function(name)))
        self._path = f"/api/v1/{name}"
        self._headers = {"Authorization": f"Bearer {token}"}

    def get(self, rest: str) -> Any:
        """GET below the function's collection."""
        return self._checked("get", self._path + rest, 200)

    def create(self, name: str) -> Any:
        """POST a definition."""
        body = {"name": name, "type": "first_party", "metadata": {"notes": "n" * 400}}
        return self._checked("post", self._path, 201, json=body)

    def _checked(self, method: str, path: str, status: int, **more: Any) -> Any:
        response = getattr(self._client, method)(
            path, headers=self._headers, environ_overrides={ENVIRON: self._doors}, **more
        )
        assert response.status_code == status, response.get_data()
        return response.get_data()
