"""What connectors do where their platform has nothing to offer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from activation.domain.delivery import Delivery, MatchReport, PlatformSize
from activation.domain.platform import ConnectorSpec
from activation.errors import PlatformError
from activation.ports import Account


class Defaults:
    """The part of the `Connector` protocol that most platforms leave empty."""

    spec: ConnectorSpec

    def finish(self, account: Account, delivery: Delivery) -> None:
        """The platform does not ask for an end."""

    def clear(self, account: Account, delivery: Delivery) -> str | None:
        """The engine asks only where the spec says `Replacement.AS_OF`."""
        raise PlatformError(f"{self.spec.title} cannot clear an audience.", reason="unsupported")

    def match_results(
        self, account: Account, delivery: Delivery, receipts: Sequence[str]
    ) -> MatchReport:
        """The platform reports no matches."""
        return MatchReport(final=True)

    def size(self, account: Account, delivery: Delivery) -> PlatformSize | None:
        """The platform does not count."""
        return None

    def listing(self, account: Account, delivery: Delivery) -> Iterator[tuple[str, str]]:
        """The engine asks only where the spec says `lists_members`."""
        raise PlatformError(f"{self.spec.title} lists no members.", reason="unsupported")
