"""The LiveRamp connector against its twin, over SFTP on a loopback socket."""

from __future__ import annotations

import dataclasses
import io
import logging
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import paramiko
import pytest

from activation.adapters.clock import MovableClock
from activation.adapters.connectors.liveramp import MINIMUM_ROWS, file_stem
from activation.adapters.connectors.liveramp_file import batch_text
from activation.adapters.connectors.registry import ConnectorRegistry
from activation.domain.delivery import Delivery
from activation.domain.identifier import IdentifierType
from activation.domain.platform import PlatformType, Replacement
from activation.errors import PlatformAuthError, PlatformError, PlatformTransientError
from activation.ports import Account, Connector
from activation.twins.faults import Fault
from activation.twins.liveramp import LiveRampTwin
from activation.twins.liveramp_rules import Unfit, keys_of
from activation.twins.members import set_digest
from activation.twins.server import RunningTwins, serve
from tests.connectors.support import ADD, Columns, digest, digest_of, to

RAMP = "XY1005wXyWPB1SgpMUKIpzA0I3UaLEz-2lg0wFAr1PWK7FMhs"
REPLACE = dataclasses.replace(ADD, operation="replace", platform_audience_id=ADD.external_id)
FOLDER = f"/uploads/{ADD.external_id}"


@pytest.fixture
def twin(clock: MovableClock) -> LiveRampTwin:
    """LiveRamp, with one user."""
    return LiveRampTwin(clock)


@pytest.fixture
def running(twin: LiveRampTwin) -> Iterator[RunningTwins]:
    twins = serve({"liveramp": twin})
    yield twins
    twins.close()


@pytest.fixture
def liveramp(registry: ConnectorRegistry) -> Connector:
    return registry.connector(PlatformType.LIVERAMP, {})


@pytest.fixture
def account(running: RunningTwins, twin: LiveRampTwin) -> Account:
    return account_at(twin)


def account_at(twin: LiveRampTwin, **settings: Any) -> Account:
    credentials = {"username": "twin-user", "password": "twin-password"}
    return Account("platform-l", {**twin.settings(), **settings}, credentials)


def persons(count: int, start: int = 0) -> dict[str, list[str | None]]:
    """People with an e-mail, a device, or both."""
    numbers = range(start, start + count)
    return {
        "email": [digest(f"person{n}@example.com") if n % 3 else None for n in numbers],
        "maid": [
            f"38400000-8cf0-11bd-b23e-{n:012x}" if n % 2 or not n % 3 else None for n in numbers
        ],
    }


def deliver(
    liveramp: Connector, account: Account, delivery: Delivery, *batches: Columns
) -> Delivery:
    whole = dataclasses.replace(
        delivery, batches=len(batches), rows=sum(len(b["email"]) for b in batches)
    )
    for seq, batch in enumerate(batches, 1):
        liveramp.send(account, whole, seq, batch)
    liveramp.finish(account, whole)
    return whole


def test_a_file_becomes_the_audience_once_it_is_whole(
    liveramp: Connector, account: Account, twin: LiveRampTwin
) -> None:
    liveramp.check(account)
    assert liveramp.create_audience(account, REPLACE) == ADD.external_id
    assert liveramp.create_audience(account, REPLACE) == ADD.external_id
    first, second = persons(40), persons(30, start=40)
    delivery = dataclasses.replace(REPLACE, batches=2, rows=70)
    for seq, batch in ((1, first), (1, first), (2, second), (2, second), (1, first)):
        liveramp.send(account, delivery, seq, batch)
        assert [name for name in twin.entries(FOLDER) if not name.endswith(".tmp")] == []
    for _ in range(2):
        liveramp.finish(account, delivery)
        liveramp.send(account, delivery, 2, second)
    assert twin.audiences[ADD.external_id].summary()["digest"] == digest_of(first, second)
    assert list(twin.entries(FOLDER)) == [f"{file_stem(delivery)}.csv"]
    another = dataclasses.replace(REPLACE, distribution_id="another")
    deliver(liveramp, account, another, persons(25, start=60))
    held = twin.audiences[ADD.external_id].summary()
    assert held["digest"] == digest_of(persons(25, start=60))
    assert twin.state()["files"] == 2


def test_a_file_adds_where_the_account_is_set_up_so(
    registry: ConnectorRegistry, clock: MovableClock
) -> None:
    twin = LiveRampTwin(clock, update="incremental", delimiter="|")
    running = serve({"liveramp": twin})
    try:
        account = account_at(twin, update="incremental", delimiter="pipe")
        liveramp = registry.connector(PlatformType.LIVERAMP, account.settings)
        spec = liveramp.spec
        assert (spec.adds, spec.removes, spec.replacement) == (True, False, Replacement.NONE)
        liveramp.create_audience(account, ADD)
        deliver(liveramp, account, ADD, persons(30))
        later = dataclasses.replace(ADD, distribution_id="later")
        deliver(liveramp, account, later, persons(30, start=50))
        held = twin.audiences[ADD.external_id].summary()
        assert held["digest"] == digest_of(persons(30), persons(30, start=50))
    finally:
        running.close()


@pytest.mark.parametrize(
    ("update", "operation"),
    [
        ("full_refresh", "add"),
        ("full_refresh", "remove"),
        ("incremental", "replace"),
        ("incremental", "remove"),
    ],
)
def test_what_a_file_cannot_do_is_refused_before_anything_is_sent(
    registry: ConnectorRegistry, account: Account, twin: LiveRampTwin, update: str, operation: str
) -> None:
    settings = {**account.settings, "update": update}
    liveramp = registry.connector(PlatformType.LIVERAMP, settings)
    delivery = to(ADD, ADD.external_id, operation=operation, rows=30)
    with pytest.raises(PlatformError) as caught:
        liveramp.send(dataclasses.replace(account, settings=settings), delivery, 1, persons(30))
    assert caught.value.reason == "unsupported"
    assert twin.state()["requests"] == {}


def test_ramp_ids_go_when_the_account_wants_them(
    registry: ConnectorRegistry, running: RunningTwins, twin: LiveRampTwin
) -> None:
    account = account_at(twin, ramp_ids=True)
    liveramp = registry.connector(PlatformType.LIVERAMP, account.settings)
    assert IdentifierType.RAMP_ID in liveramp.spec.identifiers
    liveramp.create_audience(account, REPLACE)
    batch = {**persons(30), "ramp_id": [RAMP, *[None] * 29]}
    deliver(liveramp, account, REPLACE, batch, persons(3, start=90))
    held = twin.audiences[ADD.external_id].summary()
    assert held["digest"] == digest_of(batch, persons(3, start=90))


def test_the_text_of_a_file() -> None:
    batch: Columns = {
        "email": ["ab", None, None],
        "maid": ["m1", "m2", None],
        "ramp_id": [None, None, 'r"'],
    }
    kinds = ["email", "maid", "ramp_id"]
    text = batch_text(batch, kinds, "|", first=True) + batch_text(
        {"maid": ["m3"]}, kinds, "|", first=False
    )
    assert text.split("\n") == [
        "audience_key|MAID|RAMPID|SHA256EMAIL",
        '"ab"|"m1"|""|"ab"',
        '"m2"|"m2"|""|""',
        '"r"""|""|"r"""|""',
        '"m3"|"m3"|""|""',
    ]


# What goes wrong on the way ---------------------------------------------------------------------

FAULTS = [
    Fault("reset", method="LIST"),
    Fault("reset", method="OPEN"),
    Fault("lost", method="WRITE"),
    Fault("truncate", method="WRITE"),
    Fault("truncate", method="WRITE", after=3),
    Fault("reset", method="WRITE", after=2),
    Fault("reset", method="RENAME"),
    Fault("lost", method="RENAME"),
    Fault("lost", method="RENAME", after=1),
    Fault("lost", method="RENAME", after=2),
    Fault("reset", method="RENAME", after=2),
]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda f: f"{f.kind}-{f.method}-{f.after}")
def test_a_connection_that_ends_costs_one_more_try(
    liveramp: Connector, account: Account, twin: LiveRampTwin, fault: Fault
) -> None:
    liveramp.create_audience(account, REPLACE)
    twin.faults.plan(fault)
    first, second = persons(700), persons(600, start=700)
    deliver(liveramp, account, REPLACE, first, second)
    assert twin.faults.pending() == []
    assert twin.audiences[ADD.external_id].summary()["digest"] == digest_of(first, second)
    assert twin.files == {}


def test_a_write_that_failed_in_the_middle_is_noticed(
    liveramp: Connector, account: Account, twin: LiveRampTwin
) -> None:
    liveramp.create_audience(account, REPLACE)
    delivery = dataclasses.replace(REPLACE, rows=3_000)
    twin.faults.plan(Fault("status", method="WRITE", after=2))
    with pytest.raises(PlatformError) as caught:
        liveramp.send(account, delivery, 1, persons(3_000))
    assert caught.value.platform_code == "SSH_FX_FAILURE"
    assert not caught.value.retryable
    liveramp.send(account, delivery, 1, persons(3_000))
    liveramp.finish(account, delivery)
    assert twin.audiences[ADD.external_id].summary()["digest"] == digest_of(persons(3_000))


def test_a_batch_of_which_nobody_is_left_is_missing_from_no_file(
    liveramp: Connector, account: Account, twin: LiveRampTwin
) -> None:
    liveramp.create_audience(account, REPLACE)
    delivery = dataclasses.replace(REPLACE, batches=4, rows=90)
    liveramp.send(account, delivery, 1, persons(30))
    liveramp.send(account, delivery, 3, persons(30, start=30))
    liveramp.finish(account, dataclasses.replace(delivery, rows=60))
    assert twin.audiences[ADD.external_id].summary()["digest"] == digest_of(persons(60))


def test_nothing_half_gets_the_name_of_a_file(
    liveramp: Connector, account: Account, twin: LiveRampTwin
) -> None:
    liveramp.create_audience(account, REPLACE)
    delivery = dataclasses.replace(REPLACE, batches=2, rows=60)
    calls: list[Callable[[], object]] = [
        lambda: liveramp.finish(account, delivery),
        lambda: liveramp.send(account, delivery, 2, persons(30)),
    ]
    for call in calls:
        with pytest.raises(PlatformError) as caught:
            call()
        assert caught.value.reason == "incomplete_drop"
    liveramp.send(account, delivery, 1, persons(30))
    with pytest.raises(PlatformError):
        liveramp.finish(account, delivery)
    short = dataclasses.replace(delivery, rows=61)
    liveramp.send(account, delivery, 2, persons(30, start=50))
    with pytest.raises(PlatformError):
        liveramp.finish(account, short)
    path = next(iter(twin.files))
    twin.files[path] += b"x"
    with pytest.raises(PlatformError):
        liveramp.finish(account, delivery)
    assert twin.taken == []


def test_too_few_rows_are_not_sent(
    liveramp: Connector, account: Account, twin: LiveRampTwin
) -> None:
    assert liveramp.spec.minimum_size == MINIMUM_ROWS == 25
    few = dataclasses.replace(REPLACE, rows=24)
    with pytest.raises(PlatformError) as caught:
        liveramp.send(account, few, 1, persons(24))
    assert caught.value.reason == "too_few_rows"
    assert twin.state()["requests"] == {}


def test_a_folder_that_may_not_be_made(
    liveramp: Connector, account: Account, twin: LiveRampTwin
) -> None:
    twin.faults.plan(Fault("status", method="MKDIR", status=403))
    with pytest.raises(PlatformError) as caught:
        liveramp.create_audience(account, REPLACE)
    assert caught.value.platform_code == "PermissionError"
    missing = dataclasses.replace(account, settings={**account.settings, "folder": "elsewhere"})
    with pytest.raises(PlatformError) as caught:
        liveramp.check(missing)
    assert caught.value.platform_code == "FileNotFoundError"
    assert not caught.value.retryable


# Who it speaks to -------------------------------------------------------------------------------


def test_only_a_host_with_the_known_key_gets_the_password(
    liveramp: Connector, account: Account, twin: LiveRampTwin
) -> None:
    others = f"SHA256:{'A' * 43}"
    pinned = dataclasses.replace(account, settings={**account.settings, "host_key": others})
    with pytest.raises(PlatformError) as caught:
        liveramp.check(pinned)
    assert caught.value.reason == "host_key"
    both = f"{others} {account.settings['host_key']}"
    liveramp.check(dataclasses.replace(account, settings={**account.settings, "host_key": both}))


def test_wrong_credentials_need_new_ones(liveramp: Connector, account: Account) -> None:
    for credentials in (
        {"username": "twin-user", "password": "wrong"},
        {"username": "stranger", "password": "twin-password"},
        {"username": "twin-user", "private_key": "no key"},
        {"username": "twin-user", "private_key": _private(paramiko.ECDSAKey.generate())},
    ):
        with pytest.raises(PlatformAuthError) as caught:
            liveramp.check(dataclasses.replace(account, credentials=credentials))
        assert "wrong" not in str(caught.value)


def test_a_private_key_is_enough(liveramp: Connector, clock: MovableClock) -> None:
    key = paramiko.ECDSAKey.generate()
    twin = LiveRampTwin(clock, key=str(key.fingerprint))
    running = serve({"liveramp": twin})
    try:
        credentials = {"username": "twin-user", "private_key": _private(key)}
        liveramp.check(dataclasses.replace(account_at(twin), credentials=credentials))
    finally:
        running.close()


def test_a_server_that_is_down_or_another_one_is_tried_again_later(
    liveramp: Connector, account: Account, running: RunningTwins
) -> None:
    running.close()
    with pytest.raises(PlatformTransientError):
        liveramp.check(account)
    unknown = dataclasses.replace(account, settings={**account.settings, "sftp_host": "nowhere."})
    with pytest.raises(PlatformTransientError):
        liveramp.check(unknown)


def test_private_hosts_are_refused_where_they_are_not_allowed(
    clock: MovableClock, account: Account, tmp_path: Path
) -> None:
    guarded = ConnectorRegistry(clock, drop_root=tmp_path)
    liveramp = guarded.connector(PlatformType.LIVERAMP, {})
    for port in (account.settings["sftp_port"], 22):
        settings = {**account.settings, "sftp_port": port}
        with pytest.raises(PlatformError) as caught:
            liveramp.check(dataclasses.replace(account, settings=settings))
        assert caught.value.reason == "URL_NOT_ALLOWED"
    guarded.close()


def test_nothing_of_a_delivery_is_logged(
    liveramp: Connector, account: Account, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    liveramp.create_audience(account, REPLACE)
    deliver(liveramp, account, REPLACE, persons(30))
    secrets = ("twin-password", str(persons(2)["email"][1]), ADD.external_id)
    assert not [secret for secret in secrets if secret in caplog.text]


# Into the drop folder ---------------------------------------------------------------------------


def test_without_a_server_files_go_into_the_drop_folder(
    liveramp: Connector, tmp_path: Path
) -> None:
    account = Account("platform-l", {"delivery": "folder"}, {})
    liveramp.check(account)
    liveramp.create_audience(account, REPLACE)
    delivery = dataclasses.replace(REPLACE, batches=2, rows=60)
    first, second = persons(30), persons(30, start=30)
    liveramp.send(account, delivery, 1, first)
    folder = tmp_path / "drops" / "platform-l" / "uploads" / ADD.external_id
    (grown,) = folder.iterdir()
    with grown.open("ab") as file:
        file.write(b"half a batch that a crash left")
    for seq, batch in ((1, first), (2, second), (2, second)):
        liveramp.send(account, delivery, seq, batch)
    liveramp.finish(account, delivery)
    liveramp.finish(account, delivery)
    (whole,) = folder.iterdir()
    assert whole.name == f"{file_stem(delivery)}.csv"
    assert set_digest(keys_of(whole.read_bytes(), ",", 25)) == digest_of(first, second)


# The twin's own strictness ----------------------------------------------------------------------

GOOD = f'audience_key,MAID,SHA256EMAIL\n"k1","","{digest("a")}"\n"k2","","{digest("b")}"'


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (GOOD + "\n", "quotes"),
        (GOOD.replace("\n", "\r\n"), "header|column"),
        (GOOD.replace('"k2"', '"k1"'), "key of its own"),
        (GOOD.replace('"k2"', '""'), "key of its own"),
        (GOOD.replace('"k2"', "k2"), "quotes"),
        (GOOD.replace('"k2",', '"k2";'), "delimiter"),
        (GOOD.replace('"k2","",', '"k2",'), "another length"),
        (GOOD.replace(digest("b"), "jane@example.com"), "hashed"),
        (GOOD.replace(digest("b"), digest("b").upper()), "hashed"),
        (GOOD.replace(digest("b"), ""), "without an identifier"),
        (GOOD.replace("MAID,SHA256EMAIL", "SHA256EMAIL,MAID"), "header"),
        (GOOD.replace("MAID", "PHONE"), "column"),
        (GOOD.replace("audience_key", "key"), "header"),
        (GOOD.rpartition("\n")[0], "few rows"),
    ],
)
def test_the_twin_takes_no_other_file(text: str, problem: str) -> None:
    assert len(keys_of(GOOD.encode(), ",", 2)) == 2
    with pytest.raises(Unfit, match=problem):
        keys_of(text.encode(), ",", 2)


def test_the_twin_lets_nobody_read_or_write_a_final_name(
    running: RunningTwins, twin: LiveRampTwin
) -> None:
    with _client(twin) as client:
        client.mkdir("uploads/a")
        with client.open("uploads/a/x.tmp", "wb") as file:
            file.write(b"bad")
        with pytest.raises(OSError, match="Failure"):
            client.rename("uploads/a/x.tmp", "uploads/a/x.csv")
        for path, mode in (("uploads/a/y.csv", "wb"), ("uploads/a/x.tmp", "rb"), ("x.tmp", "wb")):
            with pytest.raises(PermissionError):
                client.open(path, mode)
        with pytest.raises(PermissionError):
            client.mkdir("elsewhere")
    assert twin.taken == []


def _private(key: Any) -> str:
    text = io.StringIO()
    key.write_private_key(text)
    return text.getvalue()


@contextmanager
def _client(twin: LiveRampTwin) -> Iterator[Any]:
    settings = twin.settings()
    transport = paramiko.Transport((settings["sftp_host"], settings["sftp_port"]))
    transport.connect(username="twin-user", password="twin-password")
    with closing(transport):
        yield paramiko.SFTPClient.from_transport(transport)
