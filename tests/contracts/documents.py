"""The contract of the port DocumentStore; each back-end's test file runs it unchanged."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from activation.adapters.clock import MovableClock
from activation.domain.entity import first_id, new_id, timestamp
from activation.errors import ConflictError, PayloadTooLargeError
from activation.message_codec import message_of
from activation.ports import (
    ABSENT,
    OUTBOX,
    Batch,
    Document,
    DocumentStore,
    Key,
    Message,
    Query,
    Write,
)

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
ORG, OTHER = "org-a", "org-b"

AWKWARD: dict[str, Any] = {
    "nested lists": [[1, [2, []]], []],
    "": "empty name",
    "__reserved__": {"a.b": 1, "`": None, "~*/[]": True},
    "text": 'Zoë \u0000 \U0001f600 "quoted"',
    "numbers": [0, -1, 2**53, 2**63 - 1, 0.5, -1e300],
    "deep": {"a": {"b": {"c": {"d": {"e": {"f": [{"g": [{"h": {"i": {"j": 1}}}]}]}}}}}},
}


def audience(id: str, organization_id: str = ORG) -> Key:  # noqa: A002
    return Key(organization_id, "audiences", id)


def put(store: DocumentStore, key: Key, expected: str | None = None, **data: object) -> str:
    return store.commit(Batch([Write(key, data, expected)]))[0]


def ids(documents: Sequence[Document]) -> list[str]:
    return [document.key.id for document in documents]


def found(store: DocumentStore, organization_id: str = ORG, **equal: str | bool | int) -> list[str]:
    return ids(store.query(Query(organization_id, "audiences", equal)))


def read(store: DocumentStore, key: Key) -> Document:
    document = store.get(key)
    assert document is not None
    return document


def together(count: int, work: Callable[[int], object]) -> list[object]:
    """Run `work` in `count` threads that start at one moment; results or exceptions."""
    gate = threading.Barrier(count)

    def run(number: int) -> object:
        gate.wait(timeout=60)
        try:
            return work(number)
        except ConflictError as error:
            return error

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(run, range(count)))


class DocumentStoreContract:
    """What every DocumentStore promises. A subclass gives the fixture `store`."""

    @pytest.fixture
    def clock(self) -> MovableClock:
        return MovableClock(NOON)

    @pytest.fixture
    def store(self, clock: MovableClock) -> DocumentStore:
        raise NotImplementedError

    def test_the_organizations_are_those_that_have_a_document(self, store: DocumentStore) -> None:
        assert store.organizations() == []
        put(store, audience("a1", OTHER))
        put(store, Key(ORG, "platforms", "p1"))
        put(store, audience("a2", ORG))
        assert store.organizations() == [ORG, OTHER]
        store.commit(Batch([Write(audience("a1", OTHER), None)]))
        assert store.organizations() == [ORG]

    # One document -----------------------------------------------------------------------------

    def test_a_document_comes_back_as_it_was_put(self, store: DocumentStore) -> None:
        revision = put(store, audience("a1"), name="Spring", size=3)
        expected = Document(audience("a1"), {"name": "Spring", "size": 3}, revision)
        assert store.get(audience("a1")) == expected

    def test_any_json_object_comes_back_as_it_was_put(self, store: DocumentStore) -> None:
        store.commit(Batch([Write(audience("a1"), AWKWARD)]))
        assert read(store, audience("a1")).data == AWKWARD

    def test_an_unknown_document_is_none(self, store: DocumentStore) -> None:
        assert store.get(audience("a1")) is None

    def test_a_put_replaces_the_whole_document(self, store: DocumentStore) -> None:
        put(store, audience("a1"), name="Spring", status="draft")
        put(store, audience("a1"), size=1)
        assert read(store, audience("a1")).data == {"size": 1}
        assert found(store, status="draft") == []

    def test_a_deleted_document_is_gone(self, store: DocumentStore) -> None:
        put(store, audience("a1"), status="active")
        assert store.commit(Batch([Write(audience("a1"), None)])) == [ABSENT]
        assert store.get(audience("a1")) is None
        assert found(store, status="active") == []
        assert store.commit(Batch([Write(audience("a1"), None)])) == [ABSENT]

    def test_many_documents_are_read_in_the_order_asked_for(self, store: DocumentStore) -> None:
        put(store, audience("a1"), n=1)
        put(store, audience("a2"), n=2)
        got = store.get_many([audience("a2"), audience("no"), audience("a1"), audience("a2")])
        assert [document and document.data["n"] for document in got] == [2, None, 1, 2]
        assert store.get_many([]) == []

    # Preconditions ----------------------------------------------------------------------------

    def test_absent_is_expected_once(self, store: DocumentStore) -> None:
        put(store, audience("a1"), ABSENT, n=1)
        with pytest.raises(ConflictError):
            put(store, audience("a1"), ABSENT, n=2)
        assert read(store, audience("a1")).data == {"n": 1}

    def test_a_revision_is_expected_once(self, store: DocumentStore) -> None:
        first = put(store, audience("a1"), n=1)
        second = put(store, audience("a1"), first, n=2)
        with pytest.raises(ConflictError):
            put(store, audience("a1"), first, n=3)
        assert read(store, audience("a1")) == Document(audience("a1"), {"n": 2}, second)

    def test_a_put_of_the_same_data_is_a_new_revision(self, store: DocumentStore) -> None:
        first = put(store, audience("a1"), n=1)
        put(store, audience("a1"), first, n=1)
        with pytest.raises(ConflictError):
            put(store, audience("a1"), first, n=1)

    def test_a_batch_can_ask_that_a_document_stays_absent(self, store: DocumentStore) -> None:
        batch = Batch([Write(audience("a1"), None, ABSENT), Write(audience("a2"), {})])
        assert store.commit(batch)[0] == ABSENT
        put(store, audience("a1"), n=1)
        with pytest.raises(ConflictError):
            store.commit(batch)
        assert read(store, audience("a1")).data == {"n": 1}

    def test_a_delete_checks_its_revision(self, store: DocumentStore) -> None:
        first = put(store, audience("a1"), n=1)
        second = put(store, audience("a1"), n=2)
        with pytest.raises(ConflictError):
            store.commit(Batch([Write(audience("a1"), None, first)]))
        store.commit(Batch([Write(audience("a1"), None, second)]))
        assert store.get(audience("a1")) is None

    def test_a_revision_of_a_missing_document_conflicts(self, store: DocumentStore) -> None:
        gone = put(store, audience("a1"), n=1)
        store.commit(Batch([Write(audience("a1"), None)]))
        for write in (Write(audience("a1"), {}, gone), Write(audience("a1"), None, gone)):
            with pytest.raises(ConflictError):
                store.commit(Batch([write]))
        assert store.get(audience("a1")) is None

    def test_a_revision_of_another_store_conflicts(self, store: DocumentStore) -> None:
        put(store, audience("a1"), n=1)
        for foreign in ("999999999", "2001-01-01T00:00:00.000000Z", "etag"):
            with pytest.raises(ConflictError):
                put(store, audience("a1"), foreign, n=2)

    def test_a_revision_is_never_used_again(self, store: DocumentStore) -> None:
        seen = set()
        for _ in range(5):
            seen.add(put(store, audience("a1"), n=1))
            store.commit(Batch([Write(audience("a1"), None)]))
        assert len(seen) == 5

    # One commit -------------------------------------------------------------------------------

    def test_one_failing_precondition_undoes_the_whole_batch(self, store: DocumentStore) -> None:
        put(store, audience("a2"), n=1)
        put(store, audience("a3"), n=1, status="draft")
        message = Message("member-imports", ORG, "m1", {})
        writes = [
            Write(audience("a1"), {"n": 1}),
            Write(audience("a3"), None),
            Write(audience("a2"), {"n": 2}, ABSENT),
        ]
        with pytest.raises(ConflictError):
            store.commit(Batch(writes, [message]))
        assert store.get(audience("a1")) is None
        assert found(store, status="draft") == ["a3"]
        assert store.get(Key(ORG, OUTBOX, "m1")) is None

    def test_revisions_come_in_the_order_of_the_writes(self, store: DocumentStore) -> None:
        keys = [audience(f"a{n}") for n in range(5)]
        batch = Batch([Write(key, {}) for key in keys], [Message("t", ORG, "m1", {})])
        revisions = store.commit(batch)
        assert [read(store, key).revision for key in keys] == revisions

    def test_a_key_is_touched_once(self, store: DocumentStore) -> None:
        with pytest.raises(ValueError, match="at most once"):
            store.commit(Batch([Write(audience("a1"), {}), Write(audience("a1"), None)]))
        assert store.get(audience("a1")) is None

    def test_a_batch_of_many_documents_is_one_commit(self, store: DocumentStore) -> None:
        keys = [audience(f"a{n:04d}") for n in range(1200)]
        store.commit(Batch([Write(key, {"status": "active"}) for key in keys]))
        assert store.count(Query(ORG, "audiences", {"status": "active"})) == 1200
        with pytest.raises(ConflictError):
            store.commit(Batch([Write(key, {}, ABSENT) for key in [*keys, audience("b")]]))
        assert store.get(audience("b")) is None

    def test_too_much_is_refused_whole(self, store: DocumentStore) -> None:
        one = Write(audience("a0"), {"text": "x" * 1_000_001})
        many = [Write(audience(f"a{n}"), {"text": "x" * 900_000}) for n in range(12)]
        for writes in ([one], many):
            with pytest.raises(PayloadTooLargeError):
                store.commit(Batch(writes))
        assert store.get(audience("a0")) is None

    def test_nothing_to_do_is_no_error(self, store: DocumentStore) -> None:
        assert store.commit(Batch()) == []

    # Concurrency ------------------------------------------------------------------------------

    def test_of_eight_creators_one_wins(self, store: DocumentStore) -> None:
        results = together(8, lambda n: put(store, audience("a1"), ABSENT, winner=n))
        winners = [n for n, result in enumerate(results) if isinstance(result, str)]
        assert [read(store, audience("a1")).data["winner"]] == winners

    def test_of_eight_updates_of_one_revision_one_wins(self, store: DocumentStore) -> None:
        revision = put(store, audience("a1"), claimed=False)
        results = together(8, lambda _: put(store, audience("a1"), revision, claimed=True))
        assert sum(isinstance(result, str) for result in results) == 1

    def test_concurrent_increments_lose_nothing(self, store: DocumentStore) -> None:
        put(store, audience("a1"), n=0)

        def increment(_: int) -> None:
            for _ in range(5):
                while True:
                    before = read(store, audience("a1"))
                    try:
                        put(store, audience("a1"), before.revision, n=before.data["n"] + 1)
                        break
                    except ConflictError:
                        continue

        together(4, increment)
        assert read(store, audience("a1")).data["n"] == 20

    # Tenants ----------------------------------------------------------------------------------

    def test_another_organization_sees_nothing(self, store: DocumentStore) -> None:
        put(store, audience("a1"), status="active", tags=["x"])
        assert store.get(audience("a1", OTHER)) is None
        assert store.get_many([audience("a1", OTHER)]) == [None]
        for equal in ({}, {"status": "active"}, {"tags": "x"}):
            query = Query(OTHER, "audiences", equal)
            assert store.query(query) == []
            assert store.count(query) == 0

    def test_organizations_have_the_same_ids_apart(self, store: DocumentStore) -> None:
        put(store, audience("a1"), status="active")
        put(store, audience("a1", OTHER), status="draft")
        store.commit(Batch([Write(audience("a1", OTHER), None)]))
        assert found(store, status="active") == ["a1"]

    # Queries ----------------------------------------------------------------------------------

    def test_the_newest_id_comes_first(self, store: DocumentStore) -> None:
        made = [new_id(NOON + timedelta(milliseconds=n)) for n in range(6)]
        for id_ in [*made[3:], *made[:3]]:
            put(store, audience(id_), status="active")
        assert found(store) == made[::-1]
        assert found(store, status="active") == made[::-1]

    def test_filters_combine(self, store: DocumentStore) -> None:
        put(store, audience("a1"), status="active", data_type="x", visible_to=["u1", "u2"])
        put(store, audience("a2"), status="active", data_type="y", visible_to=["u2"])
        put(store, audience("a3"), status="draft", data_type="x", visible_to=["u1"])
        assert found(store, status="active") == ["a2", "a1"]
        assert found(store, status="active", visible_to="u1") == ["a1"]
        assert found(store, data_type="x", visible_to="u1") == ["a3", "a1"]
        assert found(store, status="draft", data_type="x", visible_to="u2") == []
        assert store.count(Query(ORG, "audiences", {"data_type": "x", "visible_to": "u1"})) == 2

    def test_any_text_can_be_a_list_element(self, store: DocumentStore) -> None:
        tags = ["a.b", "__x__", "", "`~*/[]", "Zoë 😀", "x" * 2000, "A", "a"]
        put(store, audience("a1"), tags=tags)
        put(store, audience("a2"), tags=["b"])
        for tag in tags:
            assert found(store, tags=tag) == ["a1"]
        assert found(store, tags="Z") == []

    def test_values_of_different_kinds_are_different(self, store: DocumentStore) -> None:
        put(store, audience("a1"), status=True)
        put(store, audience("a2"), status=1)
        put(store, audience("a3"), status="1")
        put(store, audience("a4"), status=None)
        assert found(store, status=True) == ["a1"]
        assert found(store, status=1) == ["a2"]
        assert found(store, status="1") == ["a3"]

    def test_an_update_moves_the_document_in_the_index(self, store: DocumentStore) -> None:
        put(store, audience("a1"), status="draft", tags=["old", "kept"])
        put(store, audience("a1"), status="active", tags=["kept", "new"])
        assert found(store, status="draft") == found(store, tags="old") == []
        assert found(store, status="active") == found(store, tags="new") == ["a1"]
        assert found(store, tags="kept") == ["a1"]

    def test_an_undeclared_field_is_our_mistake(self, store: DocumentStore) -> None:
        for collection, field in (("audiences", "updated_at"), ("unheard-of", "status")):
            query = Query(ORG, collection, {field: "x"})
            with pytest.raises(ValueError, match="no index"):
                store.query(query)
            with pytest.raises(ValueError, match="no index"):
                store.count(query)

    def test_pages_follow_each_other_while_documents_are_added(self, store: DocumentStore) -> None:
        made = [f"a{n:02d}" for n in range(10, 30)]
        store.commit(Batch([Write(audience(id_), {"status": "active"}) for id_ in made]))
        query = Query(ORG, "audiences", {"status": "active"}, limit=6)
        seen: list[str] = []
        while page := ids(store.query(query)):
            seen += page
            put(store, audience(f"b{len(seen)}"), status="active")
            put(store, audience(f"a{len(seen) % 10:02d}x"), status="draft")
            query = replace(query, after=page[-1])
        assert seen == made[::-1]

    def test_since_keeps_what_is_not_older(self, store: DocumentStore) -> None:
        made = [new_id(NOON + timedelta(minutes=n)) for n in range(5)]
        store.commit(Batch([Write(audience(id_), {"status": "x"}) for id_ in made]))
        for equal in ({}, {"status": "x"}):
            query = Query(ORG, "audiences", equal, since=first_id(NOON + timedelta(minutes=3)))
            assert ids(store.query(query)) == [made[4], made[3]]
            assert ids(store.query(replace(query, after=made[4]))) == [made[3]]
            assert store.count(query) == 2

    def test_count_ignores_the_page(self, store: DocumentStore) -> None:
        store.commit(Batch([Write(audience(f"a{n}"), {"status": "x"}) for n in range(7)]))
        query = Query(ORG, "audiences", {"status": "x"}, after="a2", limit=2)
        assert ids(store.query(query)) == ["a1", "a0"]
        assert store.count(query) == 7
        assert store.count(Query(ORG, "audiences")) == 7

    # Due --------------------------------------------------------------------------------------

    def test_due_spans_organizations_oldest_first(self, store: DocumentStore) -> None:
        for minutes, org in ((5, ORG), (1, OTHER), (9, OTHER), (3, ORG)):
            due_at = timestamp(NOON + timedelta(minutes=minutes))
            put(store, Key(org, "imports", f"i{minutes}"), due_at=due_at)
        put(store, Key(ORG, "imports", "never"), due_at=None)
        put(store, Key(ORG, "imports", "none"), status="queued")
        until = NOON + timedelta(minutes=5)
        due = store.due("imports", until, 10)
        assert [(d.key.organization_id, d.key.id) for d in due] == [
            (OTHER, "i1"),
            (ORG, "i3"),
            (ORG, "i5"),
        ]
        assert ids(store.due("imports", until, 2)) == ["i1", "i3"]
        assert store.due("distributions", until, 10) == []

    def test_what_is_put_off_or_done_is_not_due(self, store: DocumentStore) -> None:
        early, late = timestamp(NOON), timestamp(NOON + timedelta(hours=1))
        for id_ in ("i1", "i2", "i3"):
            put(store, Key(ORG, "imports", id_), due_at=early)
        put(store, Key(ORG, "imports", "i1"), due_at=late)
        put(store, Key(ORG, "imports", "i2"), due_at=None)
        store.commit(Batch([Write(Key(ORG, "imports", "i3"), None)]))
        assert store.due("imports", NOON, 10) == []

    def test_only_swept_collections_may_be_due(self, store: DocumentStore) -> None:
        with pytest.raises(ValueError, match="SWEPT"):
            put(store, audience("a1"), due_at=timestamp(NOON))
        with pytest.raises(ValueError, match="SWEPT"):
            store.due("audiences", NOON, 1)
        with pytest.raises(ValueError, match="timestamp"):
            put(store, Key(ORG, "imports", "i1"), due_at="2026-03-01")
        assert store.get(audience("a1")) is None

    def test_a_due_document_can_be_claimed_once(self, store: DocumentStore) -> None:
        put(store, Key(ORG, "imports", "i1"), due_at=timestamp(NOON))
        (due,) = store.due("imports", NOON, 10)
        assert store.get(due.key) == due
        put(store, due.key, due.revision, due_at=timestamp(NOON + timedelta(minutes=1)))
        with pytest.raises(ConflictError):
            put(store, due.key, due.revision, due_at=None)

    # Outbox -----------------------------------------------------------------------------------

    def test_messages_are_kept_in_the_same_commit(
        self, store: DocumentStore, clock: MovableClock
    ) -> None:
        messages = [
            Message("member-imports", ORG, "m1", {"import_id": "i1"}, "a1", "trace"),
            Message("audience-changed", OTHER, "m2", {"list": [[1]]}),
        ]
        revisions = store.commit(Batch([Write(audience("a1"), {})], messages))
        assert len(revisions) == 1
        kept = [store.get(Key(m.organization_id, OUTBOX, m.id)) for m in messages]
        assert [message_of(document) for document in kept if document] == messages

    def test_a_message_nobody_published_becomes_due(
        self, store: DocumentStore, clock: MovableClock
    ) -> None:
        store.commit(Batch(messages=[Message("member-imports", ORG, "m1", {})]))
        assert store.due(OUTBOX, clock.now() + timedelta(seconds=29), 10) == []
        clock.sleep(30)
        due = store.due(OUTBOX, clock.now(), 10)
        assert ids(due) == ["m1"]
        store.commit(Batch([Write(due[0].key, None)]))
        assert store.due(OUTBOX, clock.now(), 10) == []

    def test_a_store_that_answers_can_be_pinged(self, store: DocumentStore) -> None:
        store.ping()
