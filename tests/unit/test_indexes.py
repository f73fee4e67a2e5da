"""The declared indexes hold together with what is stored, and with each other."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from activation.adapters.document_rules import Term, asked_terms, changes, terms
from activation.adapters.gcp.documents import firestore_indexes
from activation.domain.distribution import Distribution
from activation.domain.entity import Entity
from activation.domain.exchange import ExchangeLog
from activation.domain.manifest import Manifest
from activation.domain.match_rate import MatchHistory
from activation.domain.member_import import MemberImport
from activation.domain.platform import Platform
from activation.domain.version import AudienceVersion
from activation.indexes import INDEXES, SWEPT, UNFILTERED, indexed_fields
from activation.ports import OUTBOX, Batch, Key, Query, Write
from tests.contracts.documents import NOON

STORED: Mapping[str, type[Entity]] = {
    "distributions": Distribution,
    "exchanges": ExchangeLog,
    "imports": MemberImport,
    "manifests": Manifest,
    "match_rates": MatchHistory,
    "platforms": Platform,
    "versions": AudienceVersion,
}
DERIVED = {"visible_to"}

values = st.text() | st.booleans() | st.integers(-(2**53), 2**53)


@pytest.mark.parametrize("collection", STORED)
def test_a_declared_field_is_stored(collection: str) -> None:
    stored = set(STORED[collection].model_fields) | DERIVED
    assert set(indexed_fields(collection)) <= stored


def test_a_collection_is_filtered_or_not() -> None:
    assert not set(UNFILTERED) & {*INDEXES, *SWEPT}
    assert OUTBOX in SWEPT


def test_a_collection_without_declaration_has_no_fields() -> None:
    assert indexed_fields("credentials") == ()


def test_no_sequential_field_is_indexed() -> None:
    """An index on one limits a Firestore collection to 500 writes a second."""
    assert not [f for fields in INDEXES.values() for f in fields if f.endswith("_at")]


def test_text_of_documents_is_never_indexed() -> None:
    overrides = firestore_indexes()["fieldOverrides"]
    switched_off = {o["collectionGroup"] for o in overrides if o["fieldPath"] == "data"}
    assert switched_off == {*INDEXES, *SWEPT, *UNFILTERED}
    assert not [o for o in overrides if o["fieldPath"] == "data" and o["indexes"]]


@given(st.lists(values), values)
def test_a_document_has_the_term_of_each_of_its_values(tags: list[object], asked: object) -> None:
    found = terms("audiences", {"tags": tags, "name": "not indexed"})
    wanted = asked_terms(Query("o", "audiences", {"tags": asked}))  # type: ignore[dict-item]
    same = [tag for tag in tags if tag == asked and type(tag) is type(asked)]
    assert set(wanted) <= found if same else not set(wanted) & found


@pytest.mark.parametrize("value", [None, 1.5, {"a": 1}, [None, [1]], []])
def test_what_cannot_be_asked_for_is_not_indexed(value: object) -> None:
    none: frozenset[Term] = frozenset()
    assert terms("audiences", {"status": value}) == none


def test_what_json_cannot_say_is_our_mistake() -> None:
    write = Write(Key("o", "audiences", "a"), {"x": object()})
    with pytest.raises(TypeError):
        changes(Batch([write]), NOON)
