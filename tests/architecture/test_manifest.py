"""The function manifest is the truth about what is deployed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from werkzeug.test import Client

from activation.api.catalog import RESOURCES
from activation.api.doors import Doors
from activation.api.system import PARTS
from activation.app import App
from activation.domain.retention_run import SCHEDULES
from activation.domain.schedule import schedule
from activation.function_manifest import FOLDER, Function, functions, subscriptions, topics
from activation.local import loaded
from activation.services.event_messages import USER_EVENTS
from activation.services.imports import MEMBER_IMPORTS
from activation.services.jobs import AUDIENCE_JOBS
from activation.services.platforms import DISTRIBUTION_REQUESTS
from activation.services.segment_shards import MEMBERSHIPS
from activation.services.segment_updates import UPDATES

BY_NAME = {one.name: one for one in functions()}


def test_every_folder_is_in_the_manifest_and_the_reverse() -> None:
    folders = {path.parent.name for path in FOLDER.glob("*/main.py")}
    assert folders == set(BY_NAME)
    assert len(functions()) == len(BY_NAME)


def test_entry_points_are_unique() -> None:
    assert len({one.entry_point for one in functions()}) == len(functions())


@pytest.mark.parametrize("function", functions(), ids=lambda one: one.name)
def test_trigger_has_what_it_needs(function: Function) -> None:
    assert bool(function.routes) is (function.trigger == "http")
    assert bool(function.topic) is (function.trigger == "topic")
    scheduled = [*filter(None, [function.schedule]), *dict(function.schedules).values()]
    assert bool(scheduled) is (function.trigger == "schedule")
    assert all(schedule(text) for text in scheduled)


def test_retention_is_scheduled_as_the_code_expects() -> None:
    """A-091, A-115 to A-117."""
    expected = tuple((job.value, text) for job, text in SCHEDULES.items())
    assert BY_NAME["run_retention"].schedules == expected


@pytest.mark.parametrize("function", functions(), ids=lambda one: one.name)
def test_concurrency_above_one_has_a_whole_processor(function: Function) -> None:
    assert function.concurrency == 1 or function.cpu >= 1
    assert function.timeout_seconds <= (3600 if function.trigger == "http" else 540)
    assert function.ack_deadline_seconds >= min(function.timeout_seconds, 600) or (
        function.trigger != "topic"
    )


def test_every_topic_we_publish_to_has_a_subscriber_or_is_for_others() -> None:
    ours = {topic for topic, subscribers in subscriptions().items() if subscribers}
    assert ours == {
        *(MEMBER_IMPORTS, DISTRIBUTION_REQUESTS, AUDIENCE_JOBS, USER_EVENTS, MEMBERSHIPS)
    }
    assert topics() == (UPDATES,)
    assert not ours & set(topics())


def test_routes_of_the_manifest_are_those_of_the_code() -> None:
    for name, resources in RESOURCES.items():
        rules = {path for one in resources for path in one.blueprint.paths}
        shown = {re.sub(r"\{\w+\}", "*", path.removeprefix("/api/v1")) for path in rules}
        routes = set(BY_NAME[name].routes)
        wild = {route for route in routes if "*" in route}
        first = {"/" + path.split("/")[1] for path in shown - wild}
        assert first | wild == routes


def test_only_the_dispatcher_opens_credentials() -> None:
    held = {
        one.name: [r for r in one.roles if r.startswith("key/credentials:")] for one in functions()
    }
    assert {name: roles for name, roles in held.items() if roles} == {
        "platforms": ["key/credentials:cloudkms.cryptoKeyEncrypter"],
        "dispatch_distribution": ["key/credentials:cloudkms.cryptoKeyDecrypter"],
    }


def test_who_reads_suppression_lists_or_erases_users_can_open_their_keys() -> None:
    key = "key/suppressions:cloudkms.cryptoKey"
    held = {one.name: r.removeprefix(key) for one in functions() for r in one.roles if key in r}
    assert held == {
        "audiences": "EncrypterDecrypter",
        "distributions": "Decrypter",
        "import_members": "Decrypter",
        "dispatch_distribution": "Decrypter",
        "run_job": "EncrypterDecrypter",
        "users": "EncrypterDecrypter",
        "process_events": "Decrypter",
    }


def test_only_evidence_is_signed_and_by_a_key_that_wraps_nothing() -> None:
    holders = {one.name: role for one in functions() for role in one.roles if "signing" in role}
    assert holders == {"distributions": "key/signing:cloudkms.signerVerifier"}
    assert not [role for role in BY_NAME["distributions"].roles if "credentials" in role]


def test_no_role_is_basic_or_of_a_whole_project() -> None:
    shape = re.compile(r"(database|self|(topic|bucket|key)/[a-z-]+):[a-zA-Z.]+")
    roles = [role for one in functions() for role in one.roles]
    assert roles
    assert [role for role in roles if not shape.fullmatch(role)] == []
    assert not [role for role in roles if re.search(r"admin|owner|editor", role, re.IGNORECASE)]


@pytest.mark.parametrize("function", functions(), ids=lambda one: one.name)
def test_main_is_ten_lines_of_plain_function(function: Function) -> None:
    text = Path(function.source).read_text()
    assert len([line for line in text.splitlines() if line.strip()]) <= 12
    assert f"\ndef {function.entry_point}(request: flask.Request)" in text
    assert f'("{function.name}"' in text


@pytest.mark.parametrize("function", functions(), ids=lambda one: one.name)
def test_function_starts_under_the_framework_and_answers(function: Function) -> None:
    response = Client(loaded(function)).get("/robots.txt")
    assert response.status_code == 404
    assert response.get_json()["error"]["traceId"] == response.headers["X-Trace-Id"]


PART_OF = {
    "database": "documents",
    "bucket/uploads": "uploads",
    "bucket/members": "members",
    "bucket/backup": "backup",
    "bucket/journal": "journal",
    "bucket/events": "events",
    "key/credentials": "credentials",
    "key/suppressions": "suppressions",
}
"""Resource of a role → what readiness asks for it."""
NOT_ASKED = ("key/signing", "self")
"""A signature costs money, and a token of our own needs no other service."""


def parts_of(function: Function) -> set[str]:
    """What a function may use, by its roles."""
    resources = {role.partition(":")[0] for role in function.roles} - {*NOT_ASKED}
    return {"bus" if one.startswith("topic/") else PART_OF[one] for one in resources}


@pytest.mark.parametrize(
    "function", [one for one in functions() if one.routes], ids=lambda one: one.name
)
def test_readiness_asks_what_the_roles_cover_and_nothing_else(function: Function, app: App) -> None:
    asked: list[str] = []
    for name, part in PARTS.items():
        port = part(app)
        answers = Answering(name, asked, port)
        [attribute] = [key for key, value in app.__dict__.items() if value is port]
        app.__dict__[attribute] = answers
    doors = Doors.of(app)
    client = Client(loaded(function))
    answer = client.get("/ready", environ_overrides={"activation.doors": doors})
    assert answer.status_code == 200
    assert set(asked) == set(answer.get_json()["checked"]) == parts_of(function)


class Answering:
    """A port that notes that it was asked."""

    def __init__(self, name: str, asked: list[str], inner: Any) -> None:
        self._name, self._asked, self._inner = name, asked, inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def ping(self) -> None:
        """It answers."""
        self._asked.append(self._name)
        self._inner.ping()
