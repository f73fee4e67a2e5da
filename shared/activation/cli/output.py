"""What commands print: tables and lines for people, or one JSON document for machines."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import click

from activation.cli.options import options

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType, RenderResult

    from activation.cli.progress import Bar

WIDTH_WITHOUT_TERMINAL = 200
"""Wide enough that no table of ours wraps in a log."""
RIGHT = frozenset({"share", "match rate", "took"})
"""Columns of texts that are numbers to people."""
WORD = 24
"""Longer words than this may be broken where a table has no room."""


@dataclass(frozen=True, slots=True)
class Output:
    """Where a command prints. With `--json` people's lines go to standard error."""

    console: Console
    as_json: bool

    def line(self, text: RenderableType = "") -> None:
        """Print for people; `text` may hold rich markup, and what others wrote is `plain` in it."""
        self.console.print(text, highlight=False, soft_wrap=isinstance(text, str))

    def answer(self, document: Any, *shown: RenderableType) -> None:
        """The result: `document` as JSON, or `shown` for people."""
        if self.as_json:
            click.echo(json.dumps(document, ensure_ascii=False, indent=2))
            return
        for part in shown:
            self.line(part)

    @contextmanager
    def bar(self, what: str, unit: str = "rows", total: float | None = None) -> Iterator[Bar]:
        """A progress bar; without a terminal, a line now and then."""
        from activation.cli.progress import AnimatedBar, PlainBar

        animated = self.console.is_terminal and not self.console.is_dumb_terminal
        kind = AnimatedBar if animated else PlainBar
        with kind(self.console, what, unit, total) as bar:
            yield bar


def output() -> Output:
    """The output of the running command."""
    from rich.console import Console

    as_json = options().as_json
    console = Console(stderr=as_json, emoji=False)
    if not console.is_terminal:
        console = Console(stderr=as_json, emoji=False, width=WIDTH_WITHOUT_TERMINAL)
    return Output(console, as_json)


def table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> RenderableType:
    """A table; a column whose cells are numbers is right-aligned, with thousands separators."""
    from rich.text import Text

    return _Table(columns, rows) if rows else Text("  None.", style="dim")


@dataclass(frozen=True, slots=True)
class _Table:
    """Rows that are laid out when it is known how wide the console is."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]

    def __rich_console__(self, console: Console, given: ConsoleOptions) -> RenderResult:
        from rich import box
        from rich.padding import Padding
        from rich.table import Table
        from rich.text import Text

        texts = [[text_of(cell) for cell in row] for row in self.rows]
        wide, gap = self._widths(texts, given.max_width)
        shown = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, gap, 0, 0))
        for number, column in enumerate(self.columns):
            width = wide[number]
            shown.add_column(column, justify=self._side(number), overflow="fold", width=width)
        for row in texts:
            shown.add_row(*map(Text, row))
        yield Padding(shown, (0, 0, 0, 2), expand=False)

    def _side(self, number: int) -> Literal["left", "right"]:
        numeric = any(isinstance(row[number], int | float) for row in self.rows)
        return "right" if numeric or self.columns[number] in RIGHT else "left"

    def _widths(self, texts: Sequence[Sequence[str]], room: int) -> tuple[list[int], int]:
        """The width of each column, and the blanks after each but one."""
        from rich.cells import cell_len

        cells = [[head, *column] for head, *column in zip(self.columns, *texts, strict=True)]
        widest = [max(map(cell_len, column)) for column in cells]
        words = [max(cell_len(word) for text in c for word in text.split() or "-") for c in cells]
        least = [
            word if head == "id" else min(word, max(WORD, cell_len(head)))
            for head, word in zip(self.columns, words, strict=True)
        ]
        count = len(widest) - 1
        if sum(widest) + 2 + 3 * count <= room:
            return widest, 2
        return fitted(widest, least, room - 2 - 2 * count), 1


def fitted(widest: Sequence[int], least: Sequence[int], room: int) -> list[int]:
    """Widths that add up to at most `room`: the widest columns give way first, down to their
    `least`, and below only when all have come to that."""
    widths = list(widest)
    for floor in (least, [1] * len(widths)):
        while sum(widths) > room:
            spare = [n for n, width in enumerate(widths) if width > floor[n]]
            if not spare:
                break
            widths[max(spare, key=widths.__getitem__)] -= 1
    return widths


def plain(text: object) -> str:
    """A text of others in a line of ours, with no markup in it."""
    from rich.markup import escape

    return escape(str(text))


def facts(pairs: Mapping[str, Any]) -> RenderableType:
    """Names and values, one pair a line; what is None is left out."""
    from rich.text import Text

    shown = {name: text_of(value) for name, value in pairs.items() if value is not None}
    width = max(map(len, shown), default=0)
    lines = [Text.assemble((f"  {name:<{width}}  ", "dim"), shown[name]) for name in shown]
    return Text("\n").join(lines)


def text_of(value: Any) -> str:
    """A value for people: thousands separators, yes and no, a dash for nothing."""
    if value is None or value == "":
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.2f}"
    if isinstance(value, list | tuple):
        return ", ".join(text_of(item) for item in value) or "-"
    return str(value)


def percent(share: float | None) -> str | None:
    """A share as people read it, e.g. `49.9 %`."""
    return None if share is None else f"{share * 100:.1f} %"


def actor(name: str) -> str:
    """Who did something; a service of ours without its prefix."""
    return name.removeprefix("service:")


def moment(timestamp: str | None) -> str | None:
    """An instant of the API, to the minute."""
    return None if timestamp is None else timestamp[:16].replace("T", " ") + " UTC"


def duration(seconds: float | None) -> str | None:
    """Seconds as `4.2 s` or `3:07`."""
    if seconds is None:
        return None
    if seconds < 60:
        return f"{seconds} s" if isinstance(seconds, int) else f"{seconds:.1f} s"
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


def size(octets: float) -> str:
    """Bytes as `3.4 MB`."""
    for unit in ("bytes", "kB", "MB"):
        if octets < 1000:
            return f"{octets:,.0f} {unit}" if unit == "bytes" else f"{octets:,.1f} {unit}"
        octets /= 1000
    return f"{octets:,.1f} GB"
