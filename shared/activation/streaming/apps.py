"""The App of a worker of the stream: one a process, however many threads take steps in it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

from activation.adapters.clock import SystemClock
from activation.app import App
from activation.ports import Clock
from activation.settings import Settings
from activation.streaming.stepper import ShardStepper

_lock = threading.Lock()
_apps: dict[AppSource, App] = {}
_steppers: dict[AppSource, ShardStepper] = {}


@dataclass(frozen=True, slots=True)
class AppSource:
    """Which App: it travels to the workers, the App does not."""

    settings: Settings
    clock: Callable[[], Clock] = SystemClock

    def app(self) -> App:
        """The process's App of these settings."""
        with _lock:
            if self not in _apps:
                _apps[self] = App(self.settings, self.clock())
            return _apps[self]

    def stepper(self) -> ShardStepper:
        """What takes steps in that App."""
        app = self.app()
        with _lock:
            if self not in _steppers:
                _steppers[self] = ShardStepper(app.event_worker)
            return _steppers[self]
