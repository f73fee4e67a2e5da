"""Document stores whose watches misbehave, and which count what is read of them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from activation.app import App
from activation.errors import StorageUnavailableError
from activation.ports import Document, Key, Query, Watch
from activation.services.change_hub import ChangeHub


class Deaf:
    """Never tells anything."""

    def __init__(self, watch: Watch) -> None:
        watch.close()
        self._closed = threading.Event()

    def wait(self, timeout_seconds: float) -> list[Document]:
        self._closed.wait(timeout_seconds)
        return []

    def close(self) -> None:
        self._closed.set()


class Honest:
    """Tells what the watch within tells."""

    def __init__(self, watch: Watch) -> None:
        self.watch = watch

    def wait(self, timeout_seconds: float) -> list[Document]:
        return self.told(self.watch.wait(timeout_seconds))

    def told(self, found: list[Document]) -> list[Document]:
        """What it makes of that."""
        return found

    def close(self) -> None:
        self.watch.close()


class Twice(Honest):
    """Tells all that it has ever told with every new document."""

    def __init__(self, watch: Watch) -> None:
        super().__init__(watch)
        self._all: list[Document] = []

    def told(self, found: list[Document]) -> list[Document]:
        self._all += found
        return list(self._all)


class Late(Honest):
    """Tells what it should have told the time before."""

    def __init__(self, watch: Watch) -> None:
        super().__init__(watch)
        self._before: list[Document] = []

    def told(self, found: list[Document]) -> list[Document]:
        found, self._before = self._before, found
        return found


class Dying(Honest):
    """Tells what there is when it begins, and then nothing more."""

    def __init__(self, watch: Watch) -> None:
        super().__init__(watch)
        self._begun = False

    def told(self, found: list[Document]) -> list[Document]:
        self._begun, said = True, self._begun
        return [] if said else found


class Failing(Honest):
    """Fails every other time, after it has taken in what there is to tell."""

    def __init__(self, watch: Watch) -> None:
        super().__init__(watch)
        self._times = 0

    def told(self, found: list[Document]) -> list[Document]:
        self._times += 1
        if self._times % 2:
            raise StorageUnavailableError("The store does not answer.", reason="test")
        return found


class Broken(Deaf):
    """Cannot be waited for."""

    def wait(self, timeout_seconds: float) -> list[Document]:
        raise StorageUnavailableError("The store does not answer.", reason="test")


@dataclass
class Watched:
    """A document store with watches of some kind; counts what it is asked and what they tell, as
    Firestore would bill it."""

    inner: Any
    kind: Callable[[Watch], Watch] = Honest
    reads: int = 0
    told: int = 0
    numbers: dict[str, int] = field(default_factory=dict)
    """What each head was when it was told last, by the last watch."""
    failures: int = 0
    """How many of the next reads fail."""
    watches: list[Watch] = field(default_factory=list)

    def get(self, key: Key) -> Document | None:
        return self.get_many([key])[0]

    def get_many(self, keys: Sequence[Key]) -> list[Document | None]:
        if self.failures:
            self.failures -= 1
            raise StorageUnavailableError("The store does not answer.", reason="test")
        self.reads += len(keys)
        found: list[Document | None] = self.inner.get_many(keys)
        return found

    def query(self, query: Query) -> list[Document]:
        found: list[Document] = self.inner.query(query)
        self.reads += max(len(found), 1)
        return found

    def watch(self, organization_id: str, collection: str) -> Watch:
        self.numbers.clear()
        made = self.kind(Counting(self, self.inner.watch(organization_id, collection)))
        self.watches.append(made)
        return made

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def hub(self, app: App, poll_seconds: float, connections: int = 20) -> ChangeHub:
        """A feed that reads this store."""
        changes = app.segment_changes
        seen = replace(changes, told=replace(changes.told, documents=self))
        return ChangeHub(seen, app.memberships, connections, 4 * connections, poll_seconds)


class Counting(Honest):
    """Counts what the watch within tells."""

    def __init__(self, store: Watched, watch: Watch) -> None:
        super().__init__(watch)
        self._store = store

    def told(self, found: list[Document]) -> list[Document]:
        self._store.told += len(found)
        self._store.numbers.update((one.key.id, one.data["number"]) for one in found)
        return found
