"""The steps of the stream's shards as stateful functions of Apache Beam.

What has arrived and is not yet in a step waits in Beam's state; timers say when it is taken, and
when silence has to be looked at. The shard itself lies where functions find it, too.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import groupby
from typing import Any

import apache_beam as beam
from apache_beam.coders import BytesCoder, VarIntCoder
from apache_beam.transforms.timeutil import TimeDomain
from apache_beam.transforms.userstate import (
    BagStateSpec,
    ReadModifyWriteStateSpec,
    TimerSpec,
    on_timer,
)
from apache_beam.utils.timestamp import Timestamp

from activation.adapters.clock import MovableClock
from activation.app import App
from activation.segments.minutes import micros_of
from activation.services.segment_shards import MAX_STEP_EVENTS
from activation.settings import Settings
from activation.streaming.apps import AppSource
from activation.streaming.arrivals import Arrival, Refusal
from activation.streaming.stepper import ShardStepper

REFUSED = "refused"
"""Output of what cannot be counted."""
_LATER = timedelta(seconds=5)
"""When a sweep that did not get to its end goes on; and how far clocks may be apart."""
_SETTLED = timedelta(minutes=1)
"""How far the watermark has to be past an element for its step, if nothing was quicker."""


def instant(moment: Timestamp) -> datetime:
    """The instant of a timer or an element, UTC."""
    found: datetime = moment.to_utc_datetime(has_tz=True)
    return found


def moment(at: datetime) -> Timestamp:
    """An instant as Beam has it: the whole millisecond that it is over by, since runners cut off
    what is beyond."""
    return Timestamp(micros=-(-micros_of(at) // 1_000) * 1_000)


def outputs(refused: Iterable[Refusal]) -> Iterator[Any]:
    """What is refused, as the output of that name."""
    return (beam.pvalue.TaggedOutput(REFUSED, one) for one in refused)


def _address(key: str) -> tuple[str, int]:
    organization_id, _, shard = key.rpartition("/")
    return organization_id, int(shard)


@dataclass(frozen=True, slots=True)
class _Silence:
    """The timer of silence, and what it was set to."""

    armed: Any
    timer: Any

    def set(self, at: datetime) -> None:
        self.armed.write(micros_of(at))
        self.timer.set(moment(at))


class LiveSteps(beam.DoFn):
    """Steps at the time at which they are taken: as soon as `wait` has passed or a step is full.

    The timer `soon` is real time, so that nobody waits for the watermark; `settled` is the
    watermark's, which fires all timers when a job is drained.
    """

    WAITING = BagStateSpec("waiting", BytesCoder())
    ROWS = ReadModifyWriteStateSpec("rows", VarIntCoder())
    SOON = TimerSpec("soon", TimeDomain.REAL_TIME)
    SETTLED = TimerSpec("settled", TimeDomain.WATERMARK)
    ARMED = ReadModifyWriteStateSpec("armed", VarIntCoder())
    SILENCE = TimerSpec("silence", TimeDomain.REAL_TIME)

    def __init__(self, source: AppSource, wait: timedelta) -> None:
        self._source, self._wait = source, wait

    @property
    def _app(self) -> App:
        """Of the process: a runner copies this object, with all that it holds."""
        return self._source.app()

    def process(
        self,
        element: tuple[str, bytes],
        timestamp: Timestamp = beam.DoFn.TimestampParam,
        waiting: Any = beam.DoFn.StateParam(WAITING),
        rows: Any = beam.DoFn.StateParam(ROWS),
        soon: Any = beam.DoFn.TimerParam(SOON),
        settled: Any = beam.DoFn.TimerParam(SETTLED),
        armed: Any = beam.DoFn.StateParam(ARMED),
        silence: Any = beam.DoFn.TimerParam(SILENCE),
    ) -> Iterable[Any]:
        """Keep what arrived, until it is worth a step."""
        key, data = element
        before = rows.read() or 0
        after = before + max(1, len(Arrival.decoded(data).rows))
        waiting.add(data)
        rows.write(after)
        settled.set(timestamp + _SETTLED.total_seconds())
        if not before:
            soon.set(moment(self._app.clock.now() + self._wait))
        if after >= MAX_STEP_EVENTS:
            yield from self._step(key, waiting, rows, _Silence(armed, silence))

    @on_timer(SOON)
    def take_soon(
        self,
        key: str = beam.DoFn.KeyParam,
        waiting: Any = beam.DoFn.StateParam(WAITING),
        rows: Any = beam.DoFn.StateParam(ROWS),
        armed: Any = beam.DoFn.StateParam(ARMED),
        silence: Any = beam.DoFn.TimerParam(SILENCE),
    ) -> Iterable[Any]:
        """Take what waits."""
        yield from self._step(key, waiting, rows, _Silence(armed, silence))

    @on_timer(SETTLED)
    def take_settled(
        self,
        key: str = beam.DoFn.KeyParam,
        waiting: Any = beam.DoFn.StateParam(WAITING),
        rows: Any = beam.DoFn.StateParam(ROWS),
        armed: Any = beam.DoFn.StateParam(ARMED),
        silence: Any = beam.DoFn.TimerParam(SILENCE),
    ) -> Iterable[Any]:
        """Take what waits, if anything still does."""
        yield from self._step(key, waiting, rows, _Silence(armed, silence))

    @on_timer(SILENCE)
    def look(
        self,
        key: str = beam.DoFn.KeyParam,
        armed: Any = beam.DoFn.StateParam(ARMED),
        silence: Any = beam.DoFn.TimerParam(SILENCE),
    ) -> None:
        """Look at those whose windows have run out. A timer that comes before its time is that of
        a job that is drained: it ends, and others look."""
        known = armed.read()
        armed.clear()
        if known is not None and micros_of(self._app.clock.now() + _LATER) < known:
            return
        stepper, address = self._source.stepper(), _address(key)
        stepper.sweep(*address)
        self._arm(stepper, address, _Silence(armed, silence))

    def _step(self, key: str, waiting: Any, rows: Any, silence: _Silence) -> Iterator[Any]:
        arrivals = [Arrival.decoded(data) for data in waiting.read()]
        if not arrivals:
            return
        stepper, address = self._source.stepper(), _address(key)
        refused = stepper.take(arrivals)
        waiting.clear()
        rows.clear()
        self._arm(stepper, address, silence)
        yield from outputs(refused)

    def _arm(self, stepper: ShardStepper, address: tuple[str, int], silence: _Silence) -> None:
        due = stepper.next_look(*address)
        if due is not None:
            now = self._app.clock.now()
            silence.set(due if due > now else now + _LATER)


class LogSteps(beam.DoFn):
    """Steps at the times of a log: what was received at one instant is one step at that instant,
    and silence is looked at in its minute, up to the end of the log. The same log leads to the same
    steps, whatever the order in which a runner brings it."""

    WAITING = BagStateSpec("waiting", BytesCoder())
    ARMED = ReadModifyWriteStateSpec("armed", VarIntCoder())
    NEXT = TimerSpec("next", TimeDomain.WATERMARK)

    def __init__(self, settings: Settings, end: datetime) -> None:
        self._settings, self._end = settings, end

    def setup(self) -> None:
        """Open the stores, with a clock of their own: each instance is at another time."""
        self._clock = MovableClock()
        self._app = App(self._settings, self._clock)
        self._stepper = ShardStepper(self._app.event_worker)

    def teardown(self) -> None:
        """Close them."""
        self._app.close()

    def process(
        self,
        element: tuple[str, bytes],
        waiting: Any = beam.DoFn.StateParam(WAITING),
        armed: Any = beam.DoFn.StateParam(ARMED),
        next_one: Any = beam.DoFn.TimerParam(NEXT),
    ) -> None:
        """Keep what arrived, until all of its instant is here."""
        _, data = element
        waiting.add(data)
        at = moment(Arrival.decoded(data).received_at)
        before = armed.read()
        if before is None or at.micros < before:
            armed.write(at.micros)
            next_one.set(at)

    @on_timer(NEXT)
    def take(
        self,
        key: str = beam.DoFn.KeyParam,
        fired: Timestamp = beam.DoFn.TimestampParam,
        waiting: Any = beam.DoFn.StateParam(WAITING),
        armed: Any = beam.DoFn.StateParam(ARMED),
        next_one: Any = beam.DoFn.TimerParam(NEXT),
    ) -> Iterable[Any]:
        """Take what was received by now, then look at those who are due."""
        now = instant(fired)
        known = sorted(map(Arrival.decoded, waiting.read()), key=lambda one: one.order)
        come = [one for one in known if one.received_at <= now]
        stepper, address = self._stepper, _address(key)
        for at, batch in groupby(come, key=lambda one: one.order[:2]):
            self._clock.set(at[0])
            yield from outputs(stepper.take(list(batch)))
        self._clock.set(now)
        due = stepper.next_look(*address)
        if due is not None and due <= now:
            stepper.sweep(*address)
            due = stepper.next_look(*address)
        left = known[len(come) :]
        if come:
            waiting.clear()
            for one in left:
                waiting.add(one.encoded())
        ahead = [left[0].received_at] if left else []
        ahead += [due] if due is not None and due <= self._end else []
        if ahead:
            armed.write(moment(min(ahead)).micros)
            next_one.set(moment(min(ahead)))
        else:
            armed.clear()
