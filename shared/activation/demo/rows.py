"""The lines of a made-up CRM export: people, people met before in another spelling, broken rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from activation.demo.draws import Draws
from activation.demo.people import (
    COUNTRIES,
    FIRST_NAMES,
    HOME,
    TIERS,
    UNITED_STATES,
    Kind,
    Purpose,
    digits,
    mailboxes,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

HEADER = "First Name,E-Mail,Mobile Phone,Country,City,Loyalty Tier,Lifetime Value,Last Order"
NATIONAL_SHARE = 0.16
"""Share of the home country's phone numbers that are written without country code."""

QUOTE = '"'
_SPECIAL = frozenset(',"\n')


@dataclass(frozen=True, slots=True)
class Block:
    """Some rows as arrays: whom each is about, and in which spelling."""

    draws: Draws
    rows: NDArray[np.uint64]
    """Row numbers from 0; what differs between two rows of a person is drawn from them."""
    people: NDArray[np.uint64]
    repeated: NDArray[np.bool_]
    """The person had a row before."""
    kinds: NDArray[np.int64]

    def of_kind(self, *kinds: Kind) -> NDArray[np.bool_]:
        """Which rows are about people of these kinds."""
        import numpy as np

        return np.isin(self.kinds, kinds)

    @property
    def has_email(self) -> NDArray[np.bool_]:
        """Rows whose e-mail is a good one."""
        return self.of_kind(Kind.BAD_PHONE, Kind.NO_PHONE, Kind.COMPLETE)

    @property
    def has_phone(self) -> NDArray[np.bool_]:
        """Rows whose phone number is a good one."""
        return self.of_kind(Kind.BAD_EMAIL, Kind.NO_EMAIL, Kind.COMPLETE)

    @property
    def has_tagged_mailbox(self) -> NDArray[np.bool_]:
        """Repeated rows that spell a Google mailbox without dots and with a +tag."""
        _, _, google = mailboxes(self.draws, self.people)
        tagged: NDArray[np.bool_] = self.draws.picks(self.rows, Purpose.MAIL_STYLE, 4) == 3
        return self.repeated & google & tagged

    def text(self) -> memoryview:
        """The rows as CSV."""
        import pyarrow.compute as pc

        cells = [_names(self), _emails(self), _phones(self), *_extras(self)]
        whole = pc.binary_join_element_wise(*cells, ",")
        short = pc.binary_join_element_wise(*cells[:3], ",")
        lines = pc.if_else(self.of_kind(Kind.WRONG_COLUMN_COUNT), short, whole)
        ended = pc.binary_join_element_wise(lines, "\n", "").cast("large_string")
        _, offsets, data = ended.buffers()
        length = memoryview(offsets).cast("q")[len(ended)]
        return memoryview(data)[:length]


def _names(block: Block) -> Any:
    import pyarrow as pa

    names = pa.array(quoted([name for name, _ in FIRST_NAMES]))
    picked = block.draws.picks(block.people, Purpose.NAME, len(FIRST_NAMES))
    return names.take(pa.array(picked))


def _emails(block: Block) -> Any:
    import pyarrow as pa
    import pyarrow.compute as pc

    local, domain, _ = mailboxes(block.draws, block.people)
    plain = pc.binary_join_element_wise(local, domain, "@")
    styles = block.draws.picks(block.rows, Purpose.MAIL_STYLE, 4) * block.repeated
    upper = pc.utf8_upper(plain)
    spaced = pc.binary_join_element_wise(" ", pc.utf8_capitalize(plain), " ", "")
    tag = pc.binary_join_element_wise("+shop", pc.cast(pa.array(block.rows), pa.string()), "")
    undotted = pc.binary_join_element_wise(pc.replace_substring(local, ".", ""), tag, "")
    tagged = pc.binary_join_element_wise(undotted, domain, "@")
    spelled = pc.choose(pa.array(styles), plain, upper, spaced, upper)
    spelled = pc.if_else(block.has_tagged_mailbox, tagged, spelled)
    spelled = pc.if_else(block.of_kind(Kind.BAD_EMAIL), _bad_emails(block, local, domain), spelled)
    return pc.if_else(block.of_kind(Kind.NO_EMAIL, Kind.NO_IDENTIFIER), "", spelled)


def _bad_emails(block: Block, local: Any, domain: Any) -> Any:
    import pyarrow as pa
    import pyarrow.compute as pc

    faults = pa.array(block.draws.picks(block.people, Purpose.FAULT, 4))
    return pc.choose(
        faults,
        pc.binary_join_element_wise(local, domain, " at "),
        pc.binary_join_element_wise(local, domain, "@@"),
        pc.binary_join_element_wise(pc.replace_substring(local, ".", " "), domain, "@"),
        pc.binary_join_element_wise(local, "localhost", "@"),
    )


def _phones(block: Block) -> Any:
    import pyarrow as pa
    import pyarrow.compute as pc

    country = block.draws.picks(block.people, Purpose.COUNTRY, len(COUNTRIES))
    calling = pa.array([c.calling_code for c in COUNTRIES]).take(pa.array(country))
    mobile = pa.array([c.mobile for c in COUNTRIES]).take(pa.array(country))
    number = digits(block.people)
    spaced = pc.binary_join_element_wise(
        pc.utf8_slice_codeunits(number, 0, 4), pc.utf8_slice_codeunits(number, 4), " "
    )
    styles = pa.array(block.draws.picks(block.rows, Purpose.PHONE_STYLE, 3))
    plus = pc.binary_join_element_wise("+", calling, "")
    spelled = pc.choose(
        styles,
        pc.binary_join_element_wise(plus, mobile, number, ""),
        pc.binary_join_element_wise(plus, mobile, spaced, " "),
        pc.binary_join_element_wise("00", calling, mobile, number, ""),
    )
    american = pc.binary_join_element_wise("+1 ", _american(number), "")
    spelled = pc.if_else((country == UNITED_STATES) & (_shares(block) < 0.7), american, spelled)
    national = pc.binary_join_element_wise("0", mobile, "/", number, "")
    spelled = pc.if_else(is_national(block), national, spelled)
    spelled = pc.if_else(block.of_kind(Kind.BAD_PHONE), _bad_phones(block), spelled)
    return pc.if_else(block.of_kind(Kind.NO_PHONE, Kind.NO_IDENTIFIER), "", spelled)


def is_national(block: Block) -> NDArray[np.bool_]:
    """Rows whose phone number only the default region completes."""
    import numpy as np

    home = np.array([country.code == HOME for country in COUNTRIES])
    country = block.draws.picks(block.people, Purpose.COUNTRY, len(COUNTRIES))
    return np.asarray(home[country] & (_shares(block) < NATIONAL_SHARE))


def _shares(block: Block) -> NDArray[np.float64]:
    return block.draws.shares(block.rows, Purpose.PHONE_STYLE)


def _american(number: Any) -> Any:
    """`(55a) bcd-efgh`: the digits behind the mobile prefix 55."""
    import pyarrow.compute as pc

    area, exchange, line = (
        pc.utf8_slice_codeunits(number, start, stop) for start, stop in ((0, 1), (1, 4), (4, 8))
    )
    return pc.binary_join_element_wise("(55", area, ") ", exchange, "-", line, "")


def _bad_phones(block: Block) -> Any:
    import pyarrow as pa

    texts = pa.array(["+49 30", "ask reception", "+0 151 555", "see notes"])
    return texts.take(pa.array(block.draws.picks(block.people, Purpose.FAULT, 4)))


def _extras(block: Block) -> list[Any]:
    """Country, city, tier, lifetime value, last order."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    def pick(purpose: Purpose, choices: int) -> NDArray[np.int64]:
        return block.draws.picks(block.people, purpose, choices)

    country = pick(Purpose.COUNTRY, len(COUNTRIES))
    cities = pa.array(quoted([city for c in COUNTRIES for city in c.cities]))
    per_country = len(COUNTRIES[0].cities)
    city = country * per_country + pick(Purpose.CITY, per_country)
    cents = pick(Purpose.VALUE, 500_000)
    euros = pc.cast(pa.array(cents // 100), pa.string())
    rest = pc.utf8_lpad(pc.cast(pa.array(cents % 100), pa.string()), 2, "0")
    days = np.datetime64("2023-01-01") + pick(Purpose.LAST_ORDER, 900).astype("timedelta64[D]")
    return [
        pa.array([c.code for c in COUNTRIES]).take(pa.array(country)),
        cities.take(pa.array(city)),
        pa.array(TIERS).take(pa.array(pick(Purpose.TIER, len(TIERS)))),
        pc.binary_join_element_wise(euros, rest, "."),
        pc.cast(pa.array(days), pa.string()),
    ]


def quoted(texts: Sequence[str]) -> list[str]:
    """Texts as CSV cells (RFC 4180)."""
    return [f'"{t.replace(QUOTE, QUOTE * 2)}"' if _SPECIAL & set(t) else t for t in texts]
