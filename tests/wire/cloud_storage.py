"""A Cloud Storage server for the real client: the JSON API and the XML PUT of signed URLs."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

from werkzeug.wrappers import Request, Response

from tests.wire.faults import Traffic
from tests.wire.objects import Objects, RefusedError, Session, StoredObject
from tests.wire.signatures import SignedRequests

MAX_PAGE = 7
"""Objects in a page, at most: small, so that every longer listing needs several pages."""


@dataclass
class CloudStorageServer:
    """A WSGI application over the objects of one bucket."""

    objects: Objects
    signatures: SignedRequests
    traffic: Traffic = field(default_factory=Traffic)

    def __call__(self, request: Request) -> Response:
        """Answer one request, or run into a planted fault."""
        request.get_data()  # an answer before the end of the request would reset the connection
        fault = self.traffic.meet(request.method, request.full_path)
        if fault is None:
            return self._answer(request)
        if fault.cut:
            return _cut(self._answer(request))
        if fault.after:
            self._answer(request)
        return _refusal(RefusedError(fault.status, "backendError"))

    def _answer(self, request: Request) -> Response:
        try:
            return self._routed(request)
        except RefusedError as error:
            return _refusal(error)

    def _routed(self, request: Request) -> Response:
        raw = request.environ["RAW_URI"].partition("?")[0]
        parts = [unquote(part) for part in raw.strip("/").split("/")]
        match (request.method, *parts):
            case (_, "upload", "storage", "v1", "b", bucket, "o"):
                self._require_bucket(bucket)
                return self._upload(request)
            case ("GET", "storage", "v1", "b", bucket):
                self._require_bucket(bucket)
                return _json({"name": bucket, "location": "EUROPE-WEST1", "projectNumber": "1"})
            case ("GET", "storage", "v1", "b", bucket, "o"):
                self._require_bucket(bucket)
                return self._list(request.args)
            case ("GET", "download", "storage", "v1", "b", bucket, "o", name):
                self._require_bucket(bucket)
                return self._media(self.objects.find(name), request.headers.get("Range"))
            case (_, "storage", "v1", "b", bucket, "o", name, *action):
                self._require_bucket(bucket)
                return self._object(request, name, action)
            case ("PUT", bucket, *path):
                self._require_bucket(bucket)
                return self._signed_put(request, raw, "/".join(path))
        raise RefusedError(501, "notImplemented")

    def _require_bucket(self, name: str) -> None:
        if name != self.objects.bucket:
            raise RefusedError(404, "notFound")

    def _object(self, request: Request, name: str, action: list[str]) -> Response:
        match (request.method, *action):
            case ("GET",):
                return self._shown(self.objects.find(name, request.args.get("generation")))
            case ("DELETE",):
                self.objects.delete(name, request.args)
                return Response(status=204)
            case ("POST", "compose"):
                return self._compose(name, _body(request), request.args)
            case ("POST", "rewriteTo", "b", bucket, "o", target):
                self._require_bucket(bucket)
                return self._rewrite(name, target, _body(request), request.args)
        raise RefusedError(501, "notImplemented")

    def _compose(self, name: str, body: Any, conditions: Mapping[str, str]) -> Response:
        sources = [source["name"] for source in body["sourceObjects"]]
        made = self.objects.compose(name, sources, body.get("destination") or {}, conditions)
        return self._shown(made)

    def _rewrite(
        self, name: str, target: str, body: Any, conditions: Mapping[str, str]
    ) -> Response:
        """Large objects take several calls in the cloud: here, all that have a byte do."""
        found = self.objects.find(name)
        size = len(found.data)
        if size and "rewriteToken" not in conditions:
            progress = {"totalBytesRewritten": str(size // 2), "objectSize": str(size)}
            return _json({**progress, "done": False, "rewriteToken": "half-way"})
        made = self.objects.rewrite(name, target, body, conditions)
        progress = {"totalBytesRewritten": str(size), "objectSize": str(size)}
        return _json({**progress, "done": True, "resource": made.resource(self.objects.bucket)})

    def _list(self, query: Mapping[str, str]) -> Response:
        token = query.get("pageToken")
        after = base64.urlsafe_b64decode(token).decode() if token else ""
        limit = min(int(query.get("maxResults") or MAX_PAGE), MAX_PAGE)
        found, more = self.objects.listed(query.get("prefix", ""), after, limit)
        items = [each.resource(self.objects.bucket) for each in found]
        page: dict[str, Any] = {"kind": "storage#objects", "items": items}
        if more:
            last = base64.urlsafe_b64encode(found[-1].name.encode()).decode()
            page["nextPageToken"] = last
        return _json(page)

    def _upload(self, request: Request) -> Response:
        match (request.method, request.args.get("uploadType")):
            case ("POST", "multipart"):
                resource, data = _parts(request)
                name = resource.get("name") or request.args["name"]
                return self._shown(self.objects.create(name, data, resource, request.args))
            case ("POST", "resumable"):
                return self._begin(request)
            case ("PUT", _):
                return self._chunk(request)
        raise RefusedError(501, "notImplemented")

    def _begin(self, request: Request) -> Response:
        content_type = request.headers.get("X-Upload-Content-Type")
        resource = {"contentType": content_type, **_body(request)}
        name = resource.get("name") or request.args["name"]
        session_id = self.objects.begin(Session(name, resource, request.args.to_dict()))
        url = f"{request.base_url}?uploadType=resumable&upload_id={session_id}"
        return Response(status=200, headers={"Location": url})

    def _chunk(self, request: Request) -> Response:
        found = re.fullmatch(
            r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)", request.headers.get("Content-Range", "bytes */*")
        )
        if found is None:
            raise RefusedError(400, "invalid")
        start = int(found[1]) if found[1] else None
        total = None if found[2] == "*" else int(found[2])
        kept = self.objects.append(request.args["upload_id"], start, request.get_data(), total)
        if isinstance(kept, StoredObject):
            return self._shown(kept)
        return Response(status=308, headers={"Range": f"bytes=0-{kept - 1}"} if kept else {})

    def _signed_put(self, request: Request, raw_path: str, name: str) -> Response:
        """PUT to a signed URL: the signature, then what the signed headers ask for."""
        self.signatures.require(request, raw_path)
        data, headers = request.get_data(), request.headers
        least, most = map(int, headers.get("x-goog-content-length-range", "0,0").split(","))
        if not least <= len(data) <= most:
            raise RefusedError(400, "EntityTooLarge")
        expected = headers.get("x-goog-if-generation-match")
        conditions = {"ifGenerationMatch": expected} if expected is not None else {}
        resource = {"contentType": headers.get("Content-Type")}
        self.objects.create(name, data, resource, conditions)
        return Response(status=200)

    def _media(self, found: StoredObject, asked: str | None) -> Response:
        """The content or a range of it; the headers carry the checksum of the whole."""
        size = len(found.data)
        headers = {"X-Goog-Hash": f"crc32c={found.crc32c}", "Content-Type": "binary/octet-stream"}
        span = re.fullmatch(r"bytes=(\d+)-(\d*)", asked or "bytes=0-")
        if span is None:
            raise RefusedError(400, "invalid")
        start, end = int(span[1]), min(int(span[2] or size), size - 1)
        if asked and start >= size:
            raise RefusedError(416, "requestedRangeNotSatisfiable")
        if asked:
            headers["Content-Range"] = f"bytes {start}-{end}/{size}"
        data = found.data[start : end + 1]
        self.traffic.sent_bytes += len(data)
        return Response(data, 206 if asked else 200, headers)

    def _shown(self, found: StoredObject) -> Response:
        return _json(found.resource(self.objects.bucket))


def _parts(request: Request) -> tuple[dict[str, Any], bytes]:
    """Resource and content of a multipart upload."""
    found = re.search(r'boundary="?([^";]+)', request.headers["Content-Type"])
    if found is None:
        raise RefusedError(400, "invalid")
    _, first, second, _ = request.get_data().split(b"--" + found[1].encode())
    resource = json.loads(_after_headers(first))
    head = second[: second.index(b"\r\n\r\n")].decode()
    declared = re.search(r"(?i)content-type:\s*([^\r\n]+)", head)
    return {"contentType": declared[1] if declared else None, **resource}, _after_headers(second)


def _after_headers(part: bytes) -> bytes:
    return part.split(b"\r\n\r\n", 1)[1].removesuffix(b"\r\n")


def _body(request: Request) -> Any:
    return json.loads(request.get_data() or b"{}")


def _json(body: Mapping[str, Any], status: int = 200) -> Response:
    return Response(json.dumps(body), status, mimetype="application/json")


def _refusal(error: RefusedError) -> Response:
    reasons = [{"domain": "global", "reason": error.reason, "message": error.reason}]
    body = {"code": error.status, "message": error.reason, "errors": reasons}
    return _json({"error": body}, error.status)


def _cut(answer: Response) -> Response:
    """The same headers with half of the body: the connection ends in the middle."""
    data = answer.get_data()
    answer.response = iter([data[: len(data) // 2]])
    answer.headers["Content-Length"] = str(len(data))
    return answer
