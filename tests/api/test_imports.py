"""Imports over HTTP: a file in the body, or put at an upload address."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from io import RawIOBase
from typing import Any

import pytest

from activation.local import LocalServer
from tests.api.client import Api, code
from tests.api.conftest import MAX_BODY

CSV = {"content_type": "text/csv"}
FILE = (
    b"email,first_name\na@example.com,Ann\nb@example.com,Bob\nno address,Eve\nA@example.com,Ann\n"
)


class Rows(RawIOBase):
    """A CSV file that is made while it is read, and knows how much was asked for at once."""

    def __init__(self, rows: int) -> None:
        self.lines: Iterator[bytes] = (b"user%d@example.com\n" % n for n in range(rows))
        self.rest, self.largest_read, self.position = b"email\n", 0, 0
        self.length = len(self.rest) + sum(len(b"user%d@example.com\n" % n) for n in range(rows))

    def seek(self, offset: int, whence: int = 0) -> int:
        """Enough of seeking for a test client that asks how long the file is."""
        self.position = self.length if whence == 2 else offset
        return self.position

    def tell(self) -> int:
        return self.position

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self.largest_read = max(self.largest_read, len(buffer))
        while len(self.rest) < len(buffer):
            line = next(self.lines, b"")
            if not line:
                break
            self.rest += line
        given, self.rest = self.rest[: len(buffer)], self.rest[len(buffer) :]
        buffer[: len(given)] = given
        return len(given)


@pytest.fixture
def audience(api: Api) -> str:
    return f"/audiences/{api.audience()['audience_id']}"


def finished(api: Api, path: str) -> dict[str, Any]:
    """The import after everything that waits was delivered."""
    while api.server.deliver():
        pass
    job: dict[str, Any] = api.get(path).get_json()
    return job


def test_file_in_the_body_becomes_members(api: Api, audience: str) -> None:
    response = api.post(f"{audience}/imports?file_name=crm.csv", data=FILE, **CSV)
    assert (response.status_code, response.get_json()["status"]) == (202, "queued")
    assert api.get(audience).get_json()["status"] == "processing"
    job = finished(api, f"{audience}/imports/{response.get_json()['import_id']}")
    counts = job["counts"]
    assert job["status"] == "completed"
    assert (counts["received"], counts["accepted"], counts["duplicate"]) == (4, 2, 1)
    assert counts["rejected_by_reason"] == {"invalid_email": 1}
    assert (job["percentage"], job["file_name"]) == (100.0, "crm.csv")
    assert api.get(audience).get_json()["size"] == 2


def test_reject_file_has_rows_and_reasons_but_no_values(api: Api, audience: str) -> None:
    path = f"{audience}/imports"
    job = finished(api, f"{path}/{api.post(path, data=FILE, **CSV).get_json()['import_id']}")
    response = api.get(f"{path}/{job['import_id']}/rejects")
    lines = response.get_data(as_text=True).splitlines()
    assert response.content_type == "text/csv; charset=utf-8"
    assert lines[0] == "row,column,reason"
    assert len(lines) == 2
    assert "no address" not in lines[1]
    assert lines[1].endswith("invalid_email")


def test_file_larger_than_any_body_is_streamed(api: Api, audience: str) -> None:
    rows = Rows(20_000)
    assert rows.length > 4 * MAX_BODY
    response = api.post(f"{audience}/imports", input_stream=rows, content_length=rows.length, **CSV)
    assert response.status_code == 202
    assert rows.largest_read <= 1024 * 1024
    job = finished(api, f"{audience}/imports/{response.get_json()['import_id']}")
    assert (job["status"], job["counts"]["accepted"]) == ("completed", 20_000)
    assert job["source_bytes"] == rows.length


def test_packed_file_says_by_itself_what_it_is(api: Api, audience: str) -> None:
    data = gzip.compress(FILE)
    response = api.post(f"{audience}/imports", data=data, content_type="application/gzip")
    job = finished(api, f"{audience}/imports/{response.get_json()['import_id']}")
    assert job["counts"]["accepted"] == 2


def test_options_stand_in_the_query(api: Api, audience: str) -> None:
    columns = '[{"column":"mail","identifierType":"email"}]'
    response = api.send(
        "POST",
        f"{audience}/imports",
        query_string={"columns": columns, "delimiter": ";"},
        data=b"mail;x\na@example.com;1\n",
        **CSV,
    )
    assert response.status_code == 202, response.get_json()
    job = finished(api, f"{audience}/imports/{response.get_json()['import_id']}")
    assert job["counts"]["accepted"] == 1


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({"delimiter": ";;"}, "delimiter"),
        ({"columns": "[{}]"}, "columns[0].column"),
        ({"format": "xls"}, "format"),
        ({"max_reject_ratio": "2"}, "max_reject_ratio"),
        ({"surprise": "1"}, "surprise"),
    ],
)
def test_wrong_option_is_422(query: dict[str, str], field: str, api: Api, audience: str) -> None:
    response = api.send("POST", f"{audience}/imports", query_string=query, data=FILE, **CSV)
    assert code(response) == (422, "VALIDATION_ERROR")
    assert response.get_json()["error"]["details"]["field"] == field


def test_columns_that_are_not_json_are_400(api: Api, audience: str) -> None:
    response = api.send(
        "POST", f"{audience}/imports", query_string={"columns": "[["}, data=FILE, **CSV
    )
    assert code(response) == (400, "MALFORMED_JSON")


def test_other_content_type_is_415(api: Api, audience: str) -> None:
    response = api.post(f"{audience}/imports", data=FILE, content_type="application/msword")
    assert code(response) == (415, "UNSUPPORTED_MEDIA_TYPE")


def test_file_that_cannot_be_an_import_is_refused_and_not_kept(api: Api, audience: str) -> None:
    response = api.post(f"{audience}/imports", data=b"\x89PNG\r\n\x1a\n" + b"\0" * 100, **CSV)
    assert code(response) == (422, "UPLOAD_REFUSED")
    assert api.get(f"{audience}/imports").get_json()["total"] == 0
    assert list(api.server.app.uploads.list("acme")) == []


def test_repeated_import_is_one_import(api: Api, audience: str) -> None:
    keyed = api.with_headers(Idempotency_Key="k")
    first = keyed.post(f"{audience}/imports", data=FILE, **CSV)
    again = keyed.post(f"{audience}/imports", data=FILE, **CSV)
    assert (again.status_code, again.get_json()) == (202, first.get_json())
    assert api.get(f"{audience}/imports").get_json()["total"] == 1


class TestUploads:
    @pytest.fixture
    def prepared(self, api: Api, audience: str) -> dict[str, Any]:
        response = api.post(f"{audience}/imports", {"format": "csv"})
        assert response.status_code == 201
        answer: dict[str, Any] = response.get_json()
        return answer

    def put(self, api: Api, upload: dict[str, Any], data: bytes, **headers: str) -> Any:
        anonymous = Api(api.server, api.description, prefix="")
        given = {**upload["headers"], **headers}
        return anonymous.send(upload["method"], upload["url"], data=data, headers=given)

    def test_file_put_at_the_address_is_imported(
        self, api: Api, audience: str, prepared: dict[str, Any]
    ) -> None:
        path = f"{audience}/imports/{prepared['import']['import_id']}"
        assert prepared["import"]["status"] == "awaiting_upload"
        assert self.put(api, prepared["upload"], FILE).status_code == 201
        job = finished(api, path)
        assert (job["status"], job["counts"]["accepted"]) == ("completed", 2)

    def test_address_takes_one_file_only(self, api: Api, prepared: dict[str, Any]) -> None:
        assert self.put(api, prepared["upload"], FILE).status_code == 201
        assert code(self.put(api, prepared["upload"], b"email\n")) == (409, "CONFLICT")

    def test_altered_address_and_other_type_are_refused(
        self, api: Api, prepared: dict[str, Any]
    ) -> None:
        upload = prepared["upload"]
        altered = {**upload, "url": upload["url"][:-1] + "0"}
        if altered == upload:
            altered["url"] = upload["url"][:-1] + "1"
        assert code(self.put(api, altered, FILE)) == (403, "FORBIDDEN")
        kind = {"Content-Type": "text/html"}
        assert code(self.put(api, {**upload, "headers": kind}, FILE)) == (403, "FORBIDDEN")

    def test_address_lasts_an_hour(self, api: Api, prepared: dict[str, Any]) -> None:
        api.server.app.clock.sleep(3601)
        assert code(self.put(api, prepared["upload"], FILE)) == (403, "FORBIDDEN")

    def test_repeated_request_names_the_same_import_with_an_address_that_works(
        self, api: Api, audience: str
    ) -> None:
        keyed = api.with_headers(Idempotency_Key="k")
        first = keyed.post(f"{audience}/imports", {"format": "csv"}).get_json()
        again = keyed.post(f"{audience}/imports", {"format": "csv"})
        assert again.status_code == 201
        assert again.get_json()["import"] == first["import"]
        assert self.put(api, again.get_json()["upload"], FILE).status_code == 201

    def test_upload_that_never_came_ends_as_failed(
        self, api: Api, audience: str, prepared: dict[str, Any]
    ) -> None:
        api.server.app.clock.sleep(26 * 3600)
        api.server.tick()
        path = f"{audience}/imports/{prepared['import']['import_id']}"
        job = finished(api.as_(), path)
        assert (job["status"], job["error"]["reason"]) == ("failed", "upload_missing")


def test_cancelled_import_reaches_nobody(api: Api, audience: str) -> None:
    job = api.post(f"{audience}/imports", data=FILE, **CSV).get_json()
    path = f"{audience}/imports/{job['import_id']}"
    assert api.post(f"{path}/cancel").get_json()["status"] == "cancelled"
    assert finished(api, path)["status"] == "cancelled"
    assert api.get(audience).get_json()["size"] == 0
    assert code(api.post(f"{path}/cancel")) == (409, "INVALID_STATE")


def test_upload_over_the_limit_is_413(api: Api, audience: str, server: LocalServer) -> None:
    limit = server.app.settings.max_upload_bytes
    length = {"CONTENT_LENGTH": str(limit + 1)}
    response = api.post(f"{audience}/imports", data=b"x", environ_overrides=length, **CSV)
    assert code(response) == (413, "PAYLOAD_TOO_LARGE")
