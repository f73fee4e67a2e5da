"""A message keeps its meaning on the wire, in a push request and in the outbox."""

from __future__ import annotations

import base64
from datetime import timedelta
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from activation.domain.entity import timestamp
from activation.errors import BadRequestError, MalformedJSONError
from activation.message_codec import (
    Subscription,
    decode,
    encode,
    from_push,
    message_of,
    outbox_write,
    push_body,
)
from activation.ports import Document, Message
from tests.contracts.documents import NOON

scalars = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text()
json_objects = st.dictionaries(st.text(), st.recursive(scalars, st.lists, max_leaves=5))
ids = st.uuids().map(str)
messages = st.builds(
    Message, st.text(), ids, ids, json_objects, st.none() | st.text(), st.none() | st.text()
)


@given(messages)
def test_a_message_survives_the_wire(message: Message) -> None:
    assert decode(*encode(message), message_id="unused") == message


@given(messages)
def test_a_message_survives_a_push_request(message: Message) -> None:
    body = orjson.loads(orjson.dumps(push_body(message, "import-members", attempt=2)))
    assert from_push(body) == ("import-members", message)
    assert body["deliveryAttempt"] == 2


@given(messages)
def test_a_message_survives_the_outbox(message: Message) -> None:
    write = outbox_write(message, NOON)
    assert write.data is not None
    assert write.data["due_at"] == timestamp(NOON + timedelta(seconds=30))
    assert message_of(Document(write.key, write.data, "1")) == message


def test_a_push_request_is_one_that_the_framework_takes_for_pubsubs() -> None:
    body = push_body(Message("t", "org-a", "m1", {}), "import-members")
    assert set(body) == {"message", "subscription"}
    assert set(body["message"]) == {"attributes", "data", "messageId"}


def test_a_foreign_message_has_the_id_that_the_bus_gave() -> None:
    assert decode(b'{"a": 1}', {}, "123", "user-events") == Message(
        "user-events", "", "123", {"a": 1}
    )
    body = {"message": {"data": "e30=", "messageId": "9"}, "subscription": "projects/p/s/abc"}
    assert from_push(body) == ("abc", Message("", "", "9", {}))


@pytest.mark.parametrize(
    ("told", "attributes", "expected"),
    [
        ("2026-11-21T09:00:00.123Z", {}, "2026-11-21T09:00:00.123000Z"),
        ("2026-11-21T09:00:00Z", {"published_at": NOON.isoformat()}, timestamp(NOON)),
        (None, {}, None),
        ("yesterday", {}, None),
        ("2026-11-21T09:00:00", {}, None),
        (7, {}, None),
    ],
)
def test_a_message_knows_when_the_bus_took_it_first(
    told: Any, attributes: dict[str, str], expected: str | None
) -> None:
    envelope = {"data": "e30=", "messageId": "9", "attributes": attributes, "publishTime": told}
    message = from_push({"message": envelope, "subscription": "s"})[1]
    known = message.published_at
    assert (None if known is None else timestamp(known)) == expected
    assert from_push(push_body(message, "s"))[1].published_at == known, "it is handed on"


@pytest.mark.parametrize(
    "data", [b"", b"{", b"\xff", b"[" * 100_000, b'{"a":' * 5000 + b"}" * 5000]
)
def test_data_that_is_not_json_is_malformed(data: bytes) -> None:
    with pytest.raises(MalformedJSONError):
        decode(data, {}, "1")


def test_a_list_is_taken_for_events() -> None:
    assert decode(b'[{"user_id": "ann"}]', {}, "1").data == {"events": [{"user_id": "ann"}]}


@pytest.mark.parametrize(
    ("data", "attributes"),
    [(b"1", {}), (b"null", {}), (b"{}", {"content": "text/csv"})],
)
def test_data_of_another_kind_is_refused(data: bytes, attributes: dict[str, str]) -> None:
    with pytest.raises(BadRequestError):
        decode(data, attributes, "1")


GOOD = {"data": "e30=", "messageId": "1", "attributes": {}}


@pytest.mark.parametrize(
    "body",
    [
        None,
        [],
        "text",
        {},
        {"message": None, "subscription": "s"},
        {"message": [], "subscription": "s"},
        {"message": GOOD},
        {"message": GOOD, "subscription": ""},
        {"message": GOOD, "subscription": 5},
        {"message": {**GOOD, "data": None}, "subscription": "s"},
        {"message": {**GOOD, "data": 5}, "subscription": "s"},
        {"message": {**GOOD, "data": "é"}, "subscription": "s"},
        {"message": {**GOOD, "data": "e30"}, "subscription": "s"},
        {"message": {**GOOD, "attributes": []}, "subscription": "s"},
        {"message": {**GOOD, "attributes": "x"}, "subscription": "s"},
        {"message": {**GOOD, "attributes": {"id": 5}}, "subscription": "s"},
        {"message": {**GOOD, "data": base64.b64encode(b"{").decode()}, "subscription": "s"},
    ],
)
def test_a_malformed_push_request_is_refused(body: Any) -> None:
    with pytest.raises(BadRequestError):
        from_push(body)


def test_the_back_off_doubles_up_to_its_maximum() -> None:
    policy = Subscription("s", min_backoff_seconds=10, max_backoff_seconds=600)
    waits = [policy.backoff_seconds(attempt) for attempt in (1, 2, 3, 6, 7, 100_000)]
    assert waits == [10, 20, 40, 320, 600, 600]
