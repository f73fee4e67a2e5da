"""What members say to the use of their data: read from files, kept over changes, stored small."""

from __future__ import annotations

import io
import json
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from activation.domain.consent import MEMBER_CONSENTS, MemberConsent, Vendor
from activation.domain.identifier import Consent, IdentifierType
from activation.domain.member import Member, MemberInput
from activation.errors import StorageUnavailableError
from activation.members.consents import column_of, last_said, parts_of, stricter
from activation.members.partitions import decoded, encoded
from tests.members.support import AUDIENCE, ORGANIZATION, Workbench, csv_file
from tests.unit.test_tcf import Fields

GRANTED, DENIED = Consent.GRANTED, Consent.DENIED
ALL_OF_IT = Fields().encoded()
NO_GOOGLE = Fields(purposes=(1, 7), vendors=(793, 21)).encoded()
CODES = st.none() | st.integers(0, len(MEMBER_CONSENTS) - 1)


def said(member: Member) -> tuple[Any, ...]:
    return (
        member.ad_user_data,
        member.ad_personalization,
        member.limited_data_use,
        member.denied_vendors,
    )


NOTHING = (None, None, None, ())
CELLS = [
    ({"consent": "yes"}, (GRANTED, GRANTED, None, ())),
    ({"Einwilligung": "no"}, (DENIED, DENIED, None, ())),
    ({"ad_user_data": "CONSENT_GRANTED"}, (GRANTED, None, None, ())),
    ({"Ad Personalization": "CONSENT_STATUS_DENIED"}, (None, DENIED, None, ())),
    ({"ad_user_data": "unknown", "consent": "unspecified"}, NOTHING),
    ({"limited_data_use": "true"}, (None, None, True, ())),
    ({"LDU": "LDU"}, (None, None, True, ())),
    ({"data_processing_options": '["LDU"]'}, (None, None, True, ())),
    ({"data_processing_options": "[]"}, (None, None, False, ())),
    ({"limited_data_use": ""}, NOTHING),
    ({"tcf": ALL_OF_IT}, (GRANTED, GRANTED, None, ())),
    ({"IABTCF_TCString": NO_GOOGLE}, (GRANTED, DENIED, None, (Vendor.GOOGLE,))),
    ({"consent": "yes", "ad_personalization": "no"}, (GRANTED, DENIED, None, ())),
    ({"consent": "no", "ad_user_data": "yes", "ldu": "no"}, (DENIED, DENIED, False, ())),
    ({"tcf": NO_GOOGLE, "consent": "yes"}, (GRANTED, DENIED, None, (Vendor.GOOGLE,))),
]


@pytest.mark.parametrize(("cells", "expected"), CELLS)
def test_columns_say_what_was_consented_to(
    bench: Workbench, cells: dict[str, str], expected: tuple[Any, ...]
) -> None:
    rows = [["email", *cells], ["a@b.de", *cells.values()]]
    (member,) = bench.members(bench.imported(csv_file(rows)))
    assert said(member) == expected
    assert member.consent == expected[0]
    assert member.attributes == {}


@pytest.mark.parametrize(
    ("column", "cell", "reason"),
    [
        ("ad_user_data", "perhaps", "invalid_consent"),
        ("ad_personalization", "DENIED!", "invalid_consent"),
        ("limited_data_use", "some", "invalid_consent"),
        ("tcf", ALL_OF_IT[:30], "invalid_tcf"),
        ("tcf", "granted", "invalid_tcf"),
    ],
)
def test_what_cannot_be_read_rejects_its_row(
    bench: Workbench, column: str, cell: str, reason: str
) -> None:
    rows = [["email", column], ["a@b.de", cell], ["c@d.ef", ""]]
    results = bench.read(csv_file(rows))
    assert bench.rejects(results) == [(2, column, reason)]
    (member,) = bench.members(bench.merge(results).manifest)
    assert said(member) == NOTHING


def test_a_column_may_be_told_its_role(bench: Workbench) -> None:
    rows = [["email", "x", "y"], ["a@b.de", "no", NO_GOOGLE]]
    columns = [{"column": "x", "role": "ad_user_data"}, {"column": "y", "role": "tcf"}]
    (member,) = bench.members(bench.imported(csv_file(rows), columns=columns))
    assert said(member) == (DENIED, DENIED, None, (Vendor.GOOGLE,))


def test_ndjson_says_it_with_its_own_types(bench: Workbench) -> None:
    lines = [
        {"email": "a@b.de", "ad_user_data": True, "data_processing_options": ["LDU"]},
        {"email": "b@b.de", "ad_user_data": False, "data_processing_options": []},
    ]
    content = "".join(json.dumps(line) + "\n" for line in lines).encode()
    found = {said(member) for member in bench.members(bench.imported(content))}
    assert found == {(GRANTED, None, True, ()), (DENIED, None, False, ())}


def test_the_api_says_it_in_fields(bench: Workbench) -> None:
    given_ = MemberInput(
        identifier_type=IdentifierType.EMAIL,
        identifier_value="a@b.de",
        consent=GRANTED,
        ad_personalization=DENIED,
        limited_data_use=False,
        tcf=NO_GOOGLE,
    )
    wrong = given_.model_copy(update={"tcf": "granted"})
    assert NO_GOOGLE not in repr(given_)
    run = bench.store.run_of(ORGANIZATION, AUDIENCE, [given_, wrong])
    assert run.rejects == ((1, "invalid_tcf"),)
    merged = bench.store.merge(ORGANIZATION, AUDIENCE, "m", None, [run.path or ""])
    (member,) = bench.members(merged.manifest)
    assert said(member) == (GRANTED, DENIED, False, (Vendor.GOOGLE,))


def test_a_later_file_takes_back_only_what_it_speaks_of(bench: Workbench) -> None:
    first = bench.imported(csv_file([["email", "consent"], ["a@b.de", "no"]]))
    rows = [["email", "limited_data_use"], ["a@b.de", "yes"]]
    second = bench.merge(bench.read(csv_file(rows), prefix="imports/two"), first, "m2").manifest
    (member,) = bench.members(second)
    assert said(member) == (DENIED, DENIED, True, ())
    rows = [["email", "ad_user_data"], ["a@b.de", "yes"], ["a@b.de", ""]]
    third = bench.merge(bench.read(csv_file(rows), prefix="imports/three"), second, "m3").manifest
    (member,) = bench.members(third)
    assert said(member) == (GRANTED, DENIED, True, ())


# columns against a naive way ----------------------------------------------------------------------


def column(codes: list[int | None]) -> Any:
    return pa.array(codes, pa.uint8())


def meaning(code: int | None) -> MemberConsent:
    return MemberConsent() if code is None else MEMBER_CONSENTS[code]


@given(st.lists(CODES))
def test_parts_and_codes_are_two_ways_to_say_the_same(codes: list[int | None]) -> None:
    parts = parts_of(column(codes))
    assert [tuple(row) for row in parts.tolist()] == [meaning(code).parts for code in codes]
    assert column_of(parts).to_pylist() == codes


@given(st.lists(st.tuples(CODES, CODES)))
def test_of_two_columns_the_no_counts(pairs: list[tuple[int | None, int | None]]) -> None:
    found = stricter(column([one for one, _ in pairs]), column([other for _, other in pairs]))
    for code, pair in zip(found.to_pylist(), pairs, strict=True):
        expected = tuple(map(max, zip(*(meaning(one).parts for one in pair), strict=True)))
        assert meaning(code).parts == expected


@given(st.lists(st.lists(CODES, min_size=1, max_size=4), min_size=1, max_size=5), st.randoms())
def test_of_several_rows_the_last_word_on_each_part_counts(
    members: list[list[int | None]], chance: Any
) -> None:
    flat = [code for rows in members for code in rows]
    places = list(range(len(flat)))
    chance.shuffle(places)
    shuffled: list[int | None] = [None] * len(flat)
    for place, code in zip(places, flat, strict=True):
        shuffled[place] = code
    starts = np.cumsum([0, *map(len, members[:-1])])
    found = last_said(column(shuffled), np.array(places), starts).to_pylist()
    for code, rows in zip(found, members, strict=True):
        spoken = [[row.parts[part] for row in map(meaning, rows)] for part in range(4)]
        expected = tuple(next((n for n in reversed(one) if n), 0) for one in spoken)
        assert meaning(code).parts == expected


# stored parts -------------------------------------------------------------------------------------


def one_column(codes: list[int | None]) -> Any:
    return pa.table({"consent": column(codes)})


@given(st.lists(CODES, max_size=30))
def test_every_state_is_stored_and_read_again(codes: list[int | None]) -> None:
    assert decoded(encoded(one_column(codes))).column("consent").to_pylist() == codes


def test_parts_of_the_time_of_two_words_are_read_with_their_old_meaning() -> None:
    indices = pa.array([1, None, 0, 1], pa.int8())
    words = pa.DictionaryArray.from_arrays(indices, pa.array(["granted", "denied"]))
    sink = io.BytesIO()
    parquet.write_table(pa.table({"consent": words}), sink)
    found = decoded(sink.getvalue()).column("consent").to_pylist()
    both = [MemberConsent(DENIED, DENIED), MemberConsent(), MemberConsent(GRANTED, GRANTED)]
    assert [meaning(code) for code in found] == [*both, both[0]]


def test_a_word_of_a_later_release_is_not_read_as_unknown() -> None:
    sink = io.BytesIO()
    words = pa.array(["granted", "denied_vendors=everybody"]).dictionary_encode()
    parquet.write_table(pa.table({"consent": words}), sink)
    with pytest.raises(StorageUnavailableError):
        decoded(sink.getvalue())


def test_hundreds_of_states_take_no_room_where_two_occur() -> None:
    two = encoded(one_column([0, 1, None] * 20_000)).size
    assert two < 1.1 * encoded(one_column([0, 0, None] * 20_000)).size + 200
