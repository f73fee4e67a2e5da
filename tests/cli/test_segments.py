"""`activation segments` and `activation events`, on a local store."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import pytest

from activation.app import App
from activation.cli.segments import parsed_rule
from activation.local import LocalServer
from activation.ports import Batch, Query, Write
from activation.services.shard_states import DELTAS, STATES
from activation.settings import Settings
from tests.cli.conftest import Program


def events(count: int, user: str = "ann") -> str:
    """Orders of now, one a line."""
    now = datetime.now(UTC).isoformat()
    rows = [
        {"user_id": user, "event_type": "orders", "timestamp": now, "event_id": f"{user}{n}"}
        for n in range(count)
    ]
    return "".join(json.dumps(row) + "\n" for row in rows)


def test_the_whole_way_of_a_segment(program: Program, file_of: Callable[[str, str], Path]) -> None:
    said = program.ok("segments", "create", "Buyers", "--rule", "orders >= 2 in 1h")
    assert "Saved" in said
    program.ok("segments", "create", "Others", "--expression", 'NOT "Buyers"')
    path = file_of("events.ndjson", events(1_500) + events(1, "bob"))
    sent = program.json("events", "send", str(path))
    assert (sent["accepted"], sent["rejected"]) == (1_501, 0)
    program.ok("events", "send", str(path))
    listed = program.json("segments", "members", "Buyers")
    assert [one["user_id"] for one in listed] == ["ann"]
    assert "bob" in program.ok("segments", "members", "Others")
    now = datetime.now(UTC).isoformat()
    assert program.json("segments", "members", "Buyers", "--at", now) == listed
    assert program.json("segments", "members", "Buyers", "--at", "2026-01-01T00:00:00Z") == []
    [entry] = program.json("segments", "history", "Buyers")
    assert (entry["user_id"], entry["entered"]) == ("ann", True)
    assert program.json("segments", "history", "Buyers", "--from", now) == []
    assert "Buyers" in program.ok("users", "segments", "ann")
    assert program.json("users", "segments", "ann", "--at", now)["data"][0]["name"] == "Buyers"
    explained = program.ok("segments", "explain", "Buyers", "ann")
    assert "orders >= 2 in 1h" in explained
    assert "1,500" in explained
    shown = program.ok("segments", "show", "Buyers")
    assert "1 entered, 0 left" in shown
    assert "Others" in shown
    assert "used by segments: 'Others'" in program.fails(3, "segments", "delete", "Buyers")
    program.ok("segments", "status", "Others", "inactive")
    assert [one["name"] for one in program.json("segments", "list", "--inactive")] == ["Others"]
    assert program.json("segments", "members", "Others") == []
    program.ok("segments", "delete", "Others")
    assert program.ok("segments", "delete", "Buyers") == "Deleted.\n"
    assert program.json("events", "health")["status"] == "ok"


def test_a_user_is_erased(program: Program, file_of: Callable[[str, str], Path]) -> None:
    program.ok("segments", "create", "Buyers", "--rule", "orders >= 1 in 1h")
    path = file_of("events.ndjson", events(2) + events(1, "bob"))
    program.ok("events", "send", str(path))
    assert program("users", "erase", "ann").exit_code != 0, "somebody has to say yes"
    done = program.json("users", "erase", "ann", "--yes")
    assert done["result"]["stores"]["memberships"] == {"exits": 1}
    assert [one["user_id"] for one in program.json("segments", "members", "Buyers")] == ["bob"]
    assert program.json("events", "send", str(path))["accepted"] == 3
    assert [one["user_id"] for one in program.json("segments", "members", "Buyers")] == ["bob"]
    told = program.ok("users", "erase", "bob", "--yes")
    assert "memberships: exits" in told
    assert "still hold this user" not in told
    more = ["a/b", "zoë", "zoë/b", "\u795e \U0001f469\u200d\U0001f4bb?"]
    path = file_of("more.ndjson", "".join(events(1, user) for user in more))
    assert program.json("events", "send", str(path))["accepted"] == len(more)
    for user in more:
        assert program.json("users", "segments", user)["user_id"] == user
        assert program.json("segments", "explain", "Buyers", user)["member"] is True


def test_lines_that_are_no_events_are_named(program: Program) -> None:
    lines = events(1) + "\nnot json\n" + '{"user_id": "ann", "event_type": "views"}\n'
    result = program("events", "send", "-", stdin=lines)
    assert result.exit_code == 1
    assert "2 events were rejected" in result.stderr
    rows = [line.split() for line in result.stdout.splitlines()]
    assert ["4", "event_type", "enum"] in rows
    assert ["3", "-", "not_an_object"] in rows


def test_a_line_that_nobody_can_read_stops_no_other(
    program: Program, file_of: Callable[[str, str], Path]
) -> None:
    bad = [
        "NaN",
        '"\\ud800"',
        "[" * 2_000 + "]" * 2_000,
        "[" * 300 + "]" * 300,
        "[" * 99 + "]" * 99,
    ]
    row = '{"user_id": "bad", "event_type": "clicks", "attributes": {"a": %s}}\n'
    lines = "\ufeff" + "".join(row % one for one in bad) + row % '"a\\u0007b"' + events(2)
    result = program("--json", "events", "send", str(file_of("e.ndjson", lines)))
    assert result.exit_code == 1
    sent = json.loads(result.stdout)
    assert (sent["accepted"], sent["rejected"]) == (3, len(bad))
    assert [one["line"] for one in sent["first_rejected"]] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        (
            "orders >= 2 in 30m",
            {"event_type": "orders", "operator": "GTE", "value": 2, "window_minutes": 30},
        ),
        (
            "sum orders.cart.total > 99.5 in 24h",
            {
                "event_type": "orders",
                "attribute": "sum",
                "field": "cart.total",
                "operator": "GT",
                "value": 99.5,
                "window_minutes": 1440,
            },
        ),
        (
            "clicks=0 in 5",
            {"event_type": "clicks", "value": 0, "operator": "EQ", "window_minutes": 5},
        ),
        (
            "clicks neq 1 in 5m",
            {"event_type": "clicks", "value": 1, "operator": "NEQ", "window_minutes": 5},
        ),
    ],
)
def test_rules_are_read(text: str, rule: dict[str, Any]) -> None:
    assert parsed_rule(text) == {"attribute": "count", **rule}


@pytest.mark.parametrize(
    "text", ["orders", "orders > x in 5m", "orders > 1", "orders.total > 1 in 5m"]
)
def test_what_is_no_rule_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter):
        parsed_rule(text)


def test_a_segment_has_rules_or_an_expression(program: Program) -> None:
    assert "either" in program.fails(2, "segments", "create", "x")


def test_a_sum_that_is_new_has_its_past(
    program: Program, file_of: Callable[[str, str], Path]
) -> None:
    rows = [{**json.loads(line), "attributes": {"tax": 3}} for line in events(4).splitlines()]
    path = file_of("events.ndjson", "".join(json.dumps(row) + "\n" for row in rows))
    program.ok("segments", "create", "Buyers", "--rule", "orders >= 2 in 1h")
    program.ok("events", "send", str(path))
    program.ok("segments", "create", "Taxed", "--rule", "sum orders.tax >= 12 in 24h")
    assert "All of its past is there." in program.ok("segments", "backfill", "Taxed")
    state = program.json("segments", "backfill", "Taxed")
    assert (state["shards"], state["done"], state["since"]) == (1, 1, None)
    assert [one["user_id"] for one in program.json("segments", "members", "Taxed")] == ["ann"]


def turned_out(program: Program) -> None:
    """Damage the state of the one shard: nobody is in any segment."""
    app = App(Settings(data_folder=str(program.folder)))
    shard = app.segment_replay.existing("demo")[0]
    opened = app.shards.states.open("demo", shard)
    number, ranks = opened.state.number + 1, opened.state.ranks * 0
    state = replace(opened.state, number=number, ranks=ranks)
    app.documents.commit(Batch(app.shards.states.whole(opened, state)))
    app.close()


def lost(program: Program) -> None:
    """The state of the one shard is gone."""
    app = App(Settings(data_folder=str(program.folder)))
    (document,) = app.documents.query(Query("demo", STATES))
    app.documents.commit(Batch([Write(document.key, None)]))
    app.close()


def deltas(program: Program) -> int:
    """Steps that are only stored as what was added."""
    app = App(Settings(data_folder=str(program.folder)))
    found = app.documents.count(Query("demo", DELTAS))
    app.close()
    return found


def test_a_fold_stores_every_shard_whole(
    program: Program, file_of: Callable[[str, str], Path]
) -> None:
    program.ok("segments", "create", "Buyers", "--rule", "orders >= 3 in 1h")
    for count in (1, 2, 3):
        program.ok("events", "send", str(file_of(f"{count}.ndjson", events(count))))
    assert deltas(program) == 2
    assert "1 shard is stored whole." in program.ok("segments", "fold")
    assert deltas(program) == 0
    assert len(program.json("segments", "members", "Buyers")) == 1
    assert program.json("segments", "fold") == {"shards": 1}


def test_a_replay_agrees_or_names_what_differs(
    program: Program, file_of: Callable[[str, str], Path]
) -> None:
    program.ok("segments", "create", "Buyers", "--rule", "orders >= 2 in 1h")
    program.ok("events", "send", str(file_of("events.ndjson", events(3))))
    assert "shards that differ 0" in " ".join(program.ok("replay").split())
    assert program.json("replay", "--apply")[0]["differs"] is False
    turned_out(program)
    failed = program("replay", "--check")
    assert failed.exit_code == 1
    assert "1 of 1 shards differ" in failed.stderr
    assert "ann" in failed.stdout
    assert program.json("replay", "--apply")[0]["differs"] is True
    assert program.json("replay", "--from", "2026-01-01")[0]["differs"] is False


def test_a_replay_makes_a_shard_again_that_cannot_be_read(
    program: Program, file_of: Callable[[str, str], Path]
) -> None:
    program.ok("segments", "create", "Buyers", "--rule", "orders >= 2 in 1h")
    program.ok("events", "send", str(file_of("events.ndjson", events(3))))
    digest = program.json("replay")[0]["digest"]
    lost(program)
    assert program("segments", "members", "Buyers").exit_code != 0
    failed = program("replay", "--check")
    assert failed.exit_code == 1
    assert "shards that could not be read 1" in " ".join(failed.stdout.split())
    assert "ann" not in failed.stdout, "what was told of her is right"
    made = program.json("replay", "--apply")[0]
    assert (made["unreadable"], made["replayed_digest"]) == (True, digest)
    assert program.json("replay")[0]["digest"] == digest
    assert [one["user_id"] for one in program.json("segments", "members", "Buyers")] == ["ann"]


def test_an_audience_follows_a_segment(
    program: Program, file_of: Callable[[str, str], Path]
) -> None:
    program.ok("segments", "create", "Buyers", "--rule", "orders >= 1 in 24h")
    bound = ("--segment", "Buyers", "--identifier", "customer_id")
    made = program.json("audiences", "create", "Live", *bound)
    assert made["segment"]["identifier"] == "customer_id"
    program.ok("audiences", "create", "Plain")
    assert "follows the segment" in program.ok(
        "audiences", "follow", "Plain", "--segment", "Buyers", "--identifier", "phone"
    )
    hashed = ("--segment", "Buyers", "--identifier", "email", "--hash-rule", "google")
    assert program.json("audiences", "follow", "Plain", *hashed)["segment"]["hash_rule"] == "google"
    program.ok("audiences", "follow", "Plain", *bound)
    path = file_of("events.ndjson", events(1) + events(1, "bob"))
    program.ok("events", "send", str(path))
    server = LocalServer(Settings(data_folder=str(program.folder), log_level="ERROR"), port=0)
    while server.deliver():
        pass
    server.app.close()
    shown = program.ok("audiences", "show", "Live")
    assert "in step, 0 steps behind" in shown
    assert program.json("audiences", "show", "Live")["following"]["members"] == 2
    assert "audiences: 'Plain', 'Live'" in program.fails(3, "segments", "delete", "Buyers")
    assert "keeps its 2 members" in program.ok("audiences", "unfollow", "Plain")
    assert "belong together" in program.fails(2, "audiences", "create", "X", "--segment", "Buyers")
