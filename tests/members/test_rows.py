"""What becomes of rows: types, roles, attributes, hashes, reasons."""

from __future__ import annotations

import base64
import hashlib
import io
import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from activation.domain.identifier import Consent, IdentifierType, key_digest
from activation.domain.member_import import HashRule
from activation.errors import UploadRefusedError
from activation.members.formats import SAMPLE_ROWS
from activation.members.limits import ReadLimits
from tests.members.support import NORMAL, SMALL, Workbench, csv_file


def long_row(kind: str = "email", value: str = "ann@example.com", **cells: str) -> list[str]:
    """A row of a long file."""
    return [kind, value, *(cells.get(name, "") for name in LONG[2:])]


LONG = [
    *("identifier_type", "identifier_value", "attributes"),
    *("expires_at", "score", "consent", "segments"),
]


def ndjson(*rows: object) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def test_a_long_file_says_everything_about_a_member(bench: Workbench) -> None:
    row = long_row(
        "Email",
        "Ann@Example.com",
        attributes='{"a": {"b": [1]}}',
        expires_at="2027-01-01T01:00:00+01:00",
        score="0.5",
        consent="no",
        segments="x|y, x",
    )
    (member,) = bench.members(bench.imported(csv_file([LONG, row])))
    assert member.identifier_value == key_digest("ann@example.com").hex()
    assert member.attributes == {"a": {"b": [1]}}
    assert member.expires_at == datetime(2027, 1, 1, tzinfo=UTC)
    assert (member.score, member.consent, member.segments) == (0.5, Consent.DENIED, ("x", "y"))
    assert member.added_at == bench.clock.now()


VALUES = [
    (long_row("email", "nobody"), "invalid_email"),
    (long_row("phone", "030 12345"), "phone_needs_region"),
    (long_row("phone", "hello"), "invalid_phone"),
    (long_row("maid", "hello"), "invalid_maid"),
    (long_row("uid2", "hello"), "invalid_uid2"),
    (long_row("ramp_id", "hello"), "invalid_ramp_id"),
    (long_row("cookie_id", "two words"), "invalid_cookie_id"),
    (long_row("customer_id", "a@b.de"), "invalid_customer_id"),
    (long_row("customer_id", "k" * 255), "too_long"),
]
CELLS = [
    ("attributes", "[1]", "invalid_attributes"),
    ("attributes", "{" * 5000, "invalid_attributes"),
    ("attributes", '{"a":NaN}', "invalid_attributes"),
    ("attributes", '{"a":"c@d.ef"}', "identifier_in_attributes"),
    ("attributes", '{"a":"+4915112345"}', "identifier_in_attributes"),
    ("attributes", '{"a":"+49 (151) 12345-678"}', "identifier_in_attributes"),
    ("attributes", '{"a":"call +49\u00a0151 1234567 after 5"}', "identifier_in_attributes"),
    ("attributes", '{"+4915112345678":"mobile"}', "identifier_in_attributes"),
    ("attributes", '{"a":["0049 151/1234567"]}', "identifier_in_attributes"),
    ("attributes", '{"a":"' + "x" * 9000 + '"}', "too_long"),
    ("expires_at", "tomorrow", "invalid_timestamp"),
    ("score", "inf", "invalid_score"),
    ("consent", "perhaps", "invalid_consent"),
    ("segments", "|".join(map(str, range(101))), "invalid_segments"),
    ("segments", "vip|ann@example.com", "invalid_segments"),
    ("segments", "+49 151 1234567", "invalid_segments"),
]
FAULTS = [
    (long_row("fax", "123"), "identifier_type", "unknown_type"),
    (long_row(value=""), "", "no_identifier"),
    *((row, "identifier_value", reason) for row, reason in VALUES),
    *((long_row(**{column: cell}), column, reason) for column, cell, reason in CELLS),
]


def test_every_fault_has_its_reason_and_no_value(bench: Workbench) -> None:
    results = bench.read(csv_file([LONG, *[row for row, _, _ in FAULTS]]))
    expected = [(n, column, reason) for n, (_, column, reason) in enumerate(FAULTS, 2)]
    assert bench.rejects(results) == expected
    counts = results[0].counts
    assert counts.received == counts.rejected == sum(counts.rejected_by_reason.values())


def test_what_only_looks_like_a_number_stays_an_attribute(bench: Workbench) -> None:
    kept = {
        "a": "C++ and 2026-11-28T10:00:00+01:00",
        "b": "+12.345.67",
        "c": "A+1234567890 +5 % 00123",
        "d": "1+23456789012",
    }
    results = bench.read(csv_file([LONG, long_row(attributes=json.dumps(kept))]))
    members = bench.members(bench.merge(results).manifest)
    assert [m.attributes for m in members] == [kept]


def test_bytes_that_are_not_utf8_spoil_their_row_only(bench: Workbench) -> None:
    content = b"email,city\nann@example.com,K\xf6ln\nb\xf6b@example.com,x\neve@example.com,y\n"
    results = bench.read(content)
    assert bench.rejects(results) == [
        (2, "attributes", "invalid_encoding"),
        (3, "email", "invalid_encoding"),
    ]
    assert results[0].counts.accepted == 1


def test_nul_bytes_deep_in_a_file_spoil_their_row_only(bench: Workbench) -> None:
    filler = "".join(f"p{i}@example.com\n" for i in range(200))
    results = bench.read(f"email\n{filler}a\0@example.com\n".encode())
    assert bench.rejects(results) == [(202, "email", "invalid_email")]


def test_identifiers_of_a_row_are_tied_and_lone_ones_are_not(bench: Workbench) -> None:
    rows = [["email", "phone"], ["a@b.de", "+49301234567"], ["c@d.ef", ""]]
    manifest = bench.imported(csv_file(rows))
    assert manifest.linked
    tables = list(bench.store.iter_batches(manifest))
    persons = [p for table in tables for p in table.column("person").to_pylist()]
    tied = [person for person in persons if person is not None]
    assert tied == [key_digest("a@b.de")[:8]] * 2
    assert len(persons) == 3


@pytest.mark.parametrize(
    ("header", "kind"),
    [
        ("E-Mail-Adresse", "email"),
        ("Correo electrónico", "email"),
        ("EMAIL_1", "email"),
        ("Adresse e-mail", "email"),
        ("Mobile Phone", "phone"),
        ("Téléphone portable", "phone"),
        ("Handynummer", "phone"),
        ("UID2", "uid2"),
        ("RampID", "ramp_id"),
        ("Kunden-Nr.", "customer_id"),
        ("IDFA", "maid"),
    ],
)
def test_headers_are_understood_in_several_languages(
    bench: Workbench, header: str, kind: str
) -> None:
    (result,) = bench.read(csv_file([[header, "x"], ["?", "y"]]))
    assert result.detected["columns"][0]["identifier_type"] == kind


@pytest.mark.parametrize(
    ("cell", "kind"),
    [
        ("ann@example.com", "email"),
        ("+49 30 1234567", "phone"),
        ("38400000-8CF0-11BD-B23E-10B96E40000D", "maid"),
    ],
)
def test_contents_speak_where_headers_do_not(bench: Workbench, cell: str, kind: str) -> None:
    (result,) = bench.read(csv_file([["Spalte A", "B"], [cell, "y"]]))
    assert result.detected["columns"][0]["identifier_type"] == kind
    assert result.counts.accepted == 1


def test_a_column_that_was_guessed_ties_no_strangers(bench: Workbench) -> None:
    rows = [["Owner", "Email"], *(["rep@corp.example", f"p{n}@example.com"] for n in range(3))]
    (result,) = bench.read(csv_file(rows))
    (warning,) = result.warnings
    assert "'Owner' was read as email" in warning
    manifest = bench.merge([result]).manifest
    table = pa.concat_tables(bench.store.iter_batches(manifest, ["digest", "person"]))
    persons = {row["digest"].hex(): row["person"] for row in table.to_pylist()}
    customers = [key_digest(f"p{n}@example.com").hex() for n in range(3)]
    assert len({persons[digest] for digest in customers}) == 3
    declared = [{"column": "Owner", "identifier_type": "email"}]
    (told,) = bench.read(csv_file(rows), columns=declared, prefix="imports/two")
    assert told.warnings == ()


@pytest.mark.parametrize(
    "name", ["opt_out", "Email Opt-Out", "Unsubscribed", "D\u00e9sabonn\u00e9"]
)
def test_a_no_that_is_only_an_attribute_is_told_of(bench: Workbench, name: str) -> None:
    rows = [["email", name], ["ann@example.com", "1"]]
    (result,) = bench.read(csv_file(rows))
    assert f"{name!r} is kept as an attribute" in result.warnings[0]
    declared = [{"column": name, "role": "attribute"}]
    (told,) = bench.read(csv_file(rows), columns=declared, prefix="imports/two")
    assert told.warnings == ()


def test_unknown_columns_become_attributes_unless_told_otherwise(bench: Workbench) -> None:
    rows = [["email", "city", "secret"], ["ann@example.com", "Berlin", "x"]]
    columns = [{"column": "secret", "role": "ignore"}]
    (member,) = bench.members(bench.imported(csv_file(rows), columns=columns))
    assert member.attributes == {"city": "Berlin"}


@pytest.mark.parametrize("spell", ["hex", "upper", "base64"])
@pytest.mark.parametrize("rule", [HashRule.PLAIN, HashRule.GOOGLE])
def test_declared_hashes_are_kept_with_their_rule(
    bench: Workbench, spell: str, rule: HashRule
) -> None:
    digest = key_digest("ann@gmail.com")
    spellings = {
        "hex": digest.hex(),
        "upper": digest.hex().upper(),
        "base64": base64.b64encode(digest).decode(),
    }
    text = spellings[spell]
    columns = [{"column": "email", "identifier_type": "email", "hash_rule": rule}]
    manifest = bench.imported(csv_file([["email"], [text], ["nonsense"]]), columns=columns)
    (member,) = bench.members(manifest)
    assert (member.digest, member.hash_rule) == (digest.hex(), rule)


def test_a_raw_address_says_more_than_its_hash(bench: Workbench) -> None:
    digest = key_digest("ann@gmail.com").hex()
    hashed = bench.imported(
        csv_file([["email"], [digest]]),
        columns=[{"column": "email", "identifier_type": "email", "hash_rule": "plain"}],
    )
    raw = bench.read(csv_file([["email"], ["Ann@Gmail.com"]]), prefix="imports/two")
    result = bench.merge(raw, hashed, "manifest-2")
    assert (result.added, result.updated) == (0, 1)
    (member,) = bench.members(result.manifest)
    assert member.hash_rule is HashRule.RAW


def test_ndjson_keeps_types_and_takes_unknown_keys_as_attributes(bench: Workbench) -> None:
    content = (
        ndjson(
            {"email": "ann@example.com", "age": 31, "tags": ["a"], "segments": ["x,y", "z"]},
            {"phone": 15112345678, "attributes": {"deep": {"er": None}}, "later": True},
            {"email": ["a@b.de"]},
            [1],
            {"attributes": "no object", "email": "eve@example.com"},
            {"x": 1},
        )
        + b'{"email": NaN}\n\n{"email":"bob@example.com"}\n{"a":'
        + b"[" * 2000
        + b"\n"
    )
    results = bench.read(content, default_region="DE")
    assert bench.rejects(results) == [
        (3, "email", "invalid_email"),
        (4, "", "malformed_json"),
        (5, "attributes", "invalid_attributes"),
        (6, "", "no_identifier"),
        (7, "", "malformed_json"),
        (10, "", "malformed_json"),
    ]
    found = {m.digest: m for m in bench.members(bench.merge(results).manifest)}
    ann = found[key_digest("ann@example.com").hex()]
    assert ann.attributes == {"age": 31, "tags": ["a"]}
    assert ann.segments == ("x,y", "z")
    phone = found[key_digest("+4915112345678").hex()]
    assert phone.attributes == {"deep": {"er": None}, "later": True}


def late_rows() -> list[dict[str, Any]]:
    """A file whose first thousand rows say nothing but an address."""
    plain: list[dict[str, Any]] = [{"email": f"p{n}@x.de"} for n in range(SAMPLE_ROWS + 10)]
    return [
        *plain,
        {"email": "no@example.com", "consent": "denied", "optIn": "yes"},
        {"email": "ann@example.com", "customer_id": "K1", "segments": ["vip"], "LDU": True},
        {"email": "x@example.com", "consent": "perhaps"},
        {"email": "y@example.com", "phone": "nobody"},
    ]


@pytest.mark.parametrize("limits", [NORMAL, SMALL])
def test_keys_that_come_up_late_mean_what_they_say(bench: Workbench, limits: ReadLimits) -> None:
    rows = late_rows()
    results = bench.read(ndjson(*rows), limits=limits)
    last = len(rows)
    assert bench.rejects(results) == [
        (last - 1, "consent", "invalid_consent"),
        (last, "phone", "invalid_phone"),
    ]
    found = {m.digest: m for m in bench.members(bench.merge(results).manifest)}
    denied = found[key_digest("no@example.com").hex()]
    assert (denied.consent, denied.attributes) == (Consent.DENIED, {"optIn": "yes"})
    ann = found[key_digest("ann@example.com").hex()]
    assert (ann.segments, ann.limited_data_use, ann.attributes) == (("vip",), True, {})
    assert found[key_digest("K1").hex()].identifier_type is IdentifierType.CUSTOMER_ID


def test_late_keys_do_not_add_columns_without_end(bench: Workbench) -> None:
    rows = [*late_rows(), {f"phone{n}": "+4915112345678" for n in range(NORMAL.max_columns)}]
    with pytest.raises(UploadRefusedError, match="columns"):
        bench.read(ndjson(*rows))


def test_parquet_columns_keep_their_types(bench: Workbench) -> None:
    table = pa.table(
        {
            "email": ["ann@example.com", None],
            "customer_id": pa.array([7, 8]),
            "score": [0.25, None],
            "expires_at": pa.array([datetime(2027, 1, 1, tzinfo=UTC), None]),
            "segments": [["a", "b"], None],
            "age": pa.array([31, None]),
            "ratio": [float("nan"), 0.5],
            "nested": [{"x": 1}, None],
        }
    )
    sink = io.BytesIO()
    parquet.write_table(table, sink)
    results = bench.read(sink.getvalue())
    assert [r.counts.accepted for r in results] == [3]
    found = {m.identifier_value: m for m in bench.members(bench.merge(results).manifest)}
    seven = found["7"]
    assert seven.attributes == {"age": 31, "nested": {"x": 1}}
    assert (seven.score, seven.segments) == (0.25, ("a", "b"))
    assert seven.expires_at == datetime(2027, 1, 1, tzinfo=UTC)
    assert found["8"].attributes == {"ratio": 0.5}
    assert found["8"].identifier_type is IdentifierType.CUSTOMER_ID


def test_whole_numbers_that_became_floats_are_read_as_whole_numbers(bench: Workbench) -> None:
    lost = float(1 << 53)
    ids = pa.table({"customer_id": [12345.0, None, float("nan"), lost]})
    assert _values(bench, _parquet(ids)) == (
        ["12345"],
        ["no_identifier"] * 2 + ["invalid_encoding"],
    )
    single = pa.table({"customer_id": pa.array([12345.0, float(1 << 24)], pa.float32())})
    assert _values(bench, _parquet(single)) == (["12345"], ["invalid_encoding"])
    lines = b'{"customer_id":12345.0}\n{"customer_id":12345678901234567890123}\n'
    assert _values(bench, lines) == (["12345"], ["invalid_encoding"])


def test_phones_that_became_floats_are_the_same_phones(bench: Workbench) -> None:
    phones = pa.table({"phone": [4915112345678.0, 15112345678.0]})
    for content in (_parquet(phones), b"phone,n\n4915112345678.0,1\n15112345678.0,2\n"):
        results = bench.read(content, default_region="DE")
        members = bench.members(bench.merge(results).manifest)
        assert [m.digest for m in members] == [key_digest("+4915112345678").hex()]


def test_parquet_types_of_other_systems_are_read(bench: Workbench) -> None:
    moment = pa.array([1_798_761_600_000_000_001], pa.timestamp("ns", "UTC"))
    table = pa.table(
        {
            "customer_id": pa.array([Decimal(12345)], pa.decimal128(38, 0)),
            "ramp_id": pa.array([b"x" * 20]),
            "score": pa.array([Decimal("1.50")], pa.decimal128(5, 2)),
            "expires_at": moment,
            "seen": moment,
            "attributes": [{"city": "Ulm"}],
        }
    )
    members = bench.members(bench.merge(bench.read(_parquet(table))).manifest)
    assert {m.identifier_value for m in members} == {"12345", "x" * 20}
    assert {m.score for m in members} == {1.5}
    assert {m.expires_at for m in members} == {datetime(2027, 1, 1, tzinfo=UTC)}
    assert members[0].attributes == {"city": "Ulm", "seen": "2027-01-01T00:00:00+00:00"}


def _parquet(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    parquet.write_table(table, sink)
    return sink.getvalue()


def _values(bench: Workbench, content: bytes) -> tuple[list[str | None], list[str]]:
    results = bench.read(content, max_reject_ratio=1)
    members = bench.members(bench.merge(results).manifest)
    return [m.identifier_value for m in members], [why for _, _, why in bench.rejects(results)]


CANARY = key_digest("ann@example.com")
HOW_HASHED = {
    "right": (CANARY.hex(), ""),
    "upper-case": (CANARY.hex().upper(), ""),
    "twice": (hashlib.sha256(CANARY.hex().encode()).hexdigest(), "hashed twice: hash"),
    "twice, upper": (hashlib.sha256(CANARY.hex().upper().encode()).hexdigest(), "upper-case"),
    "twice, bytes": (hashlib.sha256(CANARY).hexdigest(), "raw digest"),
    "unnormalised": (hashlib.sha256(b"Ann@Example.com").hexdigest(), "None of the canaries"),
}


@pytest.mark.parametrize("how", HOW_HASHED)
def test_canaries_tell_how_hashes_were_made(bench: Workbench, how: str) -> None:
    hashed, word = HOW_HASHED[how]
    filler = [[hashlib.sha256(b"%d" % i).hexdigest()] for i in range(500)]
    content = csv_file([["email"], [hashed], *filler])
    results = bench.read(
        content,
        canaries=[CANARY.hex()],
        columns=[{"column": "email", "identifier_type": "email", "hash_rule": "plain"}],
    )
    warnings = [warning for result in results for warning in result.warnings]
    assert bool(warnings) == bool(word)
    assert word in "".join(warnings)
