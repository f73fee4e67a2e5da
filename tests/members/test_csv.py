"""CSV: records are cut and numbered as a careful slow reader does it."""

from __future__ import annotations

import csv
import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from activation.members.lines import csv_ends
from activation.ports import BlobKey
from tests.examples import examples
from tests.members.support import Workbench, csv_file, tiny_limits

_PIECES = st.sampled_from(["a", '"', '""', ",", "\n", "\r\n", "\r", "é", '"x\ny"', ",", "\n", "b"])


def oracle_ends(text: bytes) -> list[int]:
    """Ends of records by the state machine of RFC 4180, a byte at a time."""
    ends: list[int] = []
    quoted = at_start = False
    at_start, position = True, 0
    while position < len(text):
        byte = text[position : position + 1]
        position += 1
        if quoted:
            if byte == b'"' and text[position : position + 1] == b'"':
                position += 1
            elif byte == b'"':
                quoted = False
        elif byte == b'"' and at_start:
            quoted, at_start = True, False
        elif byte in b"\r\n":
            if byte == b"\r" and text[position : position + 1] == b"\n":
                position += 1
            ends.append(position)
            at_start = True
        else:
            at_start = byte == b","
    return ends


@settings(max_examples=examples(300))
@given(st.lists(_PIECES, max_size=40).map("".join))
def test_records_end_where_the_state_machine_says(text: str) -> None:
    content = text.encode()
    expected = oracle_ends(content)
    if expected and content.endswith(b"\r") and expected[-1] == len(content):
        expected.pop()  # may be half of a line break
    assert csv_ends(content, ",").tolist() == expected


MESSY = [
    b"email,city\n",
    b"ann@example.com,Berlin\n",
    b"\n",
    b'bad,"two\nlines"\n',
    b"one,two,three\n",
    b"\r\n",
    b'"bob@example.com","a ""quoted"" town"\r\n',
    b'5" pipe,x\n',
    b",Rome\n",
    b"   \n",
    b"last",
]


@pytest.mark.parametrize("block_bytes", [40, 64, 100, 1_000_000])
def test_rejects_carry_the_row_a_spreadsheet_shows(bench: Workbench, block_bytes: int) -> None:
    limits = tiny_limits(block_bytes=block_bytes)
    results = bench.read(b"".join(MESSY), limits=limits, columns=[
        {"column": "email", "identifier_type": "email"}])  # fmt: skip
    assert bench.rejects(results) == [
        (4, "email", "invalid_email"),
        (5, "", "wrong_column_count"),
        (8, "email", "invalid_email"),
        (9, "", "no_identifier"),
        (11, "", "wrong_column_count"),
    ]
    assert results[-1].chunk.row == len(MESSY)
    total = [sum(getattr(r.counts, n) for r in results) for n in ("rows", "received", "accepted")]
    assert total == [7, 7, 2]


def test_a_quoted_cell_reaches_the_attributes_unchanged(bench: Workbench) -> None:
    rows = [["email", "note, long"], ["ann@example.com", 'a "b"\\\n\tc,\x7f']]
    (member,) = bench.members(bench.imported(csv_file(rows)))
    assert member.attributes == {"note, long": 'a "b"\\\n\tc,\x7f'}


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_the_delimiter_is_found(bench: Workbench, delimiter: str) -> None:
    content = csv_file([["email", "city"], ["ann@example.com", "a,b"]], delimiter)
    (result,) = bench.read(content)
    assert result.detected["delimiter"] == delimiter
    assert result.counts.accepted == 1


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_a_delimiter_within_quotes_is_none(bench: Workbench, delimiter: str) -> None:
    header = delimiter.join(('"name, title; and, more; | |"', "email"))
    (result,) = bench.read(f"{header}\nx{delimiter}ann@x.de\n".encode())
    assert result.detected["delimiter"] == delimiter


def test_a_byte_order_mark_and_a_missing_last_newline_do_no_harm(bench: Workbench) -> None:
    (result,) = bench.read(b"\xef\xbb\xbfemail\nann@example.com")
    assert result.counts.accepted == 1
    assert result.detected["columns"][0]["column"] == "email"


def test_a_header_may_follow_empty_lines(bench: Workbench) -> None:
    results = bench.read(b"\n\r\nemail,city\nann@example.com,x\nbad,y\n")
    assert bench.rejects(results) == [(5, "email", "invalid_email")]


def test_reject_files_hold_no_formula(bench: Workbench) -> None:
    rows = [["=cmd()"], ["ann@example.com"], ["bob@example.com"], ["bad"]]
    results = bench.read(csv_file(rows))
    text = io.StringIO(bench.blobs.get(BlobKey("acme", results[0].chunk.rejects or "")).decode())
    assert next(csv.reader(text)) == ["4", "'=cmd()", "invalid_email"]
