"""The Google twin: its quick way is as strict as its slow one, and removeAll refuses too."""

from __future__ import annotations

import tracemalloc
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from activation.adapters.clock import MovableClock
from activation.ports import Connector
from activation.twins.google_ads import GoogleAdsTwin
from activation.twins.google_lists import UserList
from activation.twins.google_members import MAX_MEMBERS, strict_members, usual_members
from activation.twins.google_shapes import INGEST
from activation.twins.members import member_key, member_keys
from activation.twins.server import RunningTwins
from activation.twins.shapes import problem
from activation.twins.wsgi import Refused
from tests.connectors.support import ADD, digest, google_account

DIGEST = digest("jane@example.com")
SAID = {"adUserData": "CONSENT_GRANTED", "adPersonalization": 2}

good_members = st.lists(
    st.lists(
        st.dictionaries(
            st.sampled_from(["emailAddress", "phoneNumber"]),
            st.sampled_from([DIGEST, digest("b"), digest("c")]),
            min_size=1,
            max_size=1,
        ),
        min_size=1,
        max_size=10,
    ),
    min_size=1,
    max_size=5,
)


def body_of(people: Any) -> dict[str, Any]:
    """A request with usual members."""
    members = [{"userData": {"userIdentifiers": person}} for person in people]
    return {"encoding": "HEX", "consent": SAID, "audienceMembers": members}


@given(good_members)
def test_the_quick_way_takes_all_usual_members(people: list[list[dict[str, str]]]) -> None:
    body = body_of(people)
    quick, slow = usual_members(body), strict_members(body)
    assert problem(body, INGEST) is None
    assert quick is not None
    assert sorted(quick.keys) == sorted(slow.keys)
    assert (quick.data_field, quick.records) == (slow.data_field, slow.records)
    assert quick.consents == slow.consents == {"granted/denied": len(people)}


USERS = ("audienceMembers", 1, "userData")
SECOND = (*USERS, "userIdentifiers", 1)
MAIL = (*SECOND, "emailAddress")
ODD: list[tuple[tuple[Any, ...], Any]] = [
    ((), {}),
    ((), []),
    ((), None),
    (("encoding",), None),
    (("encoding",), "BASE64"),
    (("encoding",), 2),
    (("encoding",), 3),
    (("audienceMembers",), None),
    (("audienceMembers",), {}),
    (("audienceMembers",), []),
    (("audienceMembers",), DIGEST),
    (("audienceMembers", 1), None),
    (("audienceMembers", 1), {}),
    (("audienceMembers", 1), DIGEST),
    (("audienceMembers", 1, "consent"), {"adUserData": "CONSENT_DENIED"}),
    (("audienceMembers", 1, "color"), 1),
    (("audienceMembers", 1, "mobileData"), {"mobileIds": []}),
    (USERS, None),
    (USERS, []),
    (USERS, {}),
    ((*USERS, "color"), 1),
    ((*USERS, "userIdentifiers"), None),
    ((*USERS, "userIdentifiers"), {}),
    ((*USERS, "userIdentifiers"), DIGEST),
    ((*USERS, "userIdentifiers"), []),
    ((*USERS, "userIdentifiers"), [{"emailAddress": DIGEST}] * 11),
    (SECOND, None),
    (SECOND, {}),
    (SECOND, []),
    (SECOND, DIGEST),
    ((*SECOND, "phoneNumber"), DIGEST),
    ((*SECOND, "color"), DIGEST),
    (SECOND, {"address": {"regionCode": "US"}}),
    (SECOND, {"color": DIGEST}),
    (MAIL, None),
    (MAIL, 7),
    (MAIL, [DIGEST]),
    (MAIL, ""),
    (MAIL, DIGEST.upper()),
    (MAIL, DIGEST[:63]),
    (MAIL, DIGEST + "0"),
    (MAIL, DIGEST * 2),
    (MAIL, DIGEST[:63] + "g"),
    (MAIL, DIGEST[:63] + "\n"),
    (MAIL, " " + DIGEST[1:]),
    (MAIL, "\u0663" + DIGEST[1:]),
    (MAIL, "jane@example.com"),
]


@pytest.mark.parametrize(("place", "value"), ODD)
def test_the_quick_way_leaves_everything_odd_to_the_slow_one(
    place: tuple[Any, ...], value: Any
) -> None:
    body = {"": body_of([[{"emailAddress": DIGEST}] * 2] * 3)}
    spot: Any = body
    for step in ("", *place)[:-1]:
        spot = spot[step]
    spot[("", *place)[-1]] = value
    assert usual_members(body[""]) is None


@pytest.mark.parametrize("sizes", [(63, 65), (65, 63), (0, 128)])
def test_two_wrong_lengths_do_not_make_a_right_one(sizes: tuple[int, int]) -> None:
    text = DIGEST * 2
    people = [[{"emailAddress": text[: sizes[0]]}], [{"emailAddress": text[sizes[0] :]}]]
    assert usual_members(body_of(people)) is None


@pytest.mark.parametrize("count", [MAX_MEMBERS, MAX_MEMBERS + 1])
def test_ten_thousand_members_are_the_most(count: int) -> None:
    member = {"userData": {"userIdentifiers": [{"emailAddress": DIGEST}]}}
    body = {"encoding": "HEX", "audienceMembers": [member] * count}
    if count == MAX_MEMBERS:
        quick = usual_members(body)
        assert quick is not None
        assert quick.records == count
    else:
        assert usual_members(body) is None
        with pytest.raises(Refused):
            strict_members(body)


def test_keys_are_the_same_one_by_one_and_together() -> None:
    texts = ["", DIGEST, "é", "a:b"]
    assert member_keys("email", texts) == [member_key("email", text) for text in texts]


def test_a_member_of_its_own_mind_overrides_the_request() -> None:
    jane = {"userData": {"userIdentifiers": [{"emailAddress": DIGEST}]}}
    body = {
        "encoding": "HEX",
        "consent": {"adUserData": "CONSENT_GRANTED"},
        "audienceMembers": [jane, {**jane, "consent": {"adUserData": "CONSENT_DENIED"}}, jane],
    }
    assert usual_members(body) is None
    assert strict_members(body).consents == {
        "granted/unspecified": 2,
        "denied/unspecified": 1,
    }


def test_times_cost_little_memory() -> None:
    count, moment = 100_000, datetime(2026, 11, 21, tzinfo=UTC)
    tracemalloc.start()
    held = UserList("1", "Large")
    for start in range(0, count, 1_000):
        moment += timedelta(seconds=1)
        held.add((member_key("email", str(n)) for n in range(start, start + 1_000)), moment)
    used, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(held.keys) == count
    assert used / count < 150


# removeAll over the wire -------------------------------------------------------------------------


@pytest.fixture
def list_id(google: Connector, running: RunningTwins, google_twin: GoogleAdsTwin) -> str:
    made = google.create_audience(google_account(running), ADD)
    google_twin.lists[made].add([b"one", b"two"], google_twin.clock.now())
    return made


@pytest.mark.parametrize(
    ("fields", "reason", "left"),
    [
        ({}, None, 0),
        ({"validateOnly": True}, None, 2),
        ({"removeAsOfTime": "2020-01-01T00:00:00Z"}, None, 2),
        ({"removeAsOfTime": "2020-01-01T00:00:00.123456789Z"}, None, 2),
        ({"removeAsOfTime": "2100-01-01T00:00:00Z"}, "INVALID_REMOVE_AS_OF_TIME", 2),
        ({"removeAsOfTime": "2020-01-01"}, "INVALID_ARGUMENT", 2),
        ({"removeAsOfTime": "2020-01-01T00:00:00+01:00"}, "INVALID_ARGUMENT", 2),
        ({"removeAsOfTime": 1}, "INVALID_ARGUMENT", 2),
        ({"audienceMembers": []}, "INVALID_ARGUMENT", 2),
        ({"termsOfService": {}}, "INVALID_ARGUMENT", 2),
        ({"destinations": []}, "TOO_MANY_DESTINATIONS", 2),
    ],
)
def test_remove_all_refuses_with_its_own_reasons(
    running: RunningTwins,
    google_twin: GoogleAdsTwin,
    clock: MovableClock,
    list_id: str,
    fields: dict[str, Any],
    reason: str | None,
    left: int,
) -> None:
    clock.sleep(1)
    owner = {"accountType": "GOOGLE_ADS", "accountId": "1234567890"}
    destination = {"operatingAccount": owner, "productDestinationId": list_id}
    answer = httpx.post(
        f"{running.url_of('google_ads')}/v1/audienceMembers:removeAll",
        json={"destinations": [destination], **fields},
        headers={"Authorization": f"Bearer {google_twin.tokens.issue()}"},
    )
    assert answer.status_code == (400 if reason else 200)
    if reason:
        assert answer.json()["error"]["details"][0]["reason"] == reason
    assert len(google_twin.lists[list_id].keys) == left
