"""The services of platforms and distributions, built when first used."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from activation.services.distributions import DistributionService
from activation.services.ledgers import LedgerService
from activation.services.platforms import PlatformService
from activation.wiring.audiences import Audiences

if TYPE_CHECKING:
    from activation.services.accounts import Accounts
    from activation.services.dispatch import Dispatcher
    from activation.services.evidence import EvidenceService
    from activation.services.exchanges import ExchangeLogs
    from activation.services.lanes import LaneWorker
    from activation.services.list_digests import ListDigests
    from activation.services.match_rates import MatchRates
    from activation.services.matching import Matching
    from activation.services.reauth import Reauth
    from activation.services.reconciling import Reconciler, ReconcileService
    from activation.services.refreshing import Refreshing
    from activation.services.webhook_deliveries import WebhookDeliveryService
    from activation.services.webhook_sender import WebhookSender
    from activation.services.webhooks import WebhookService


class Distributions(Audiences):
    """Services of platforms, distributions and what is told of them."""

    @cached_property
    def platforms(self) -> PlatformService:
        """Platforms."""
        return PlatformService(
            self.documents, self.commits, self.vault, self.connectors, self.clock
        )

    @cached_property
    def webhooks(self) -> WebhookService:
        """Webhooks."""
        from activation.services.webhooks import WebhookService

        return WebhookService(self.documents, self.commits, self.vault, self.hooks, self.clock)

    @cached_property
    def webhook_deliveries(self) -> WebhookDeliveryService:
        """What was sent to webhooks."""
        from activation.services.webhook_deliveries import WebhookDeliveryService

        return WebhookDeliveryService(self.documents, self.commits, self.webhooks, self.clock)

    @cached_property
    def webhook_sender(self) -> WebhookSender:
        """The worker behind webhooks."""
        from activation.services.webhook_sender import WebhookSender

        return WebhookSender(self.webhook_deliveries, self.hooks, self.vault, self.clock)

    @cached_property
    def distributions(self) -> DistributionService:
        """Distributions."""
        return DistributionService(
            self.documents,
            self.commits,
            self.audiences,
            self.platforms,
            self.ledgers,
            self.connectors,
            self.store,
            self.clock,
            self.suppressions,
        )

    @cached_property
    def ledgers(self) -> LedgerService:
        """What platforms have accepted."""
        return LedgerService(self.documents, self.commits, self.clock)

    @cached_property
    def accounts(self) -> Accounts:
        """Accounts with opened credentials; only the dispatcher's function may ask for them."""
        from activation.services.accounts import Accounts

        return Accounts(self.platforms, self.connectors, self.vault)

    @cached_property
    def matching(self) -> Matching:
        """Match results and health."""
        from activation.services.matching import Matching

        return Matching(
            self.distributions,
            self.platforms,
            self.audiences,
            self.commits,
            self.match_rates,
            self.clock,
            self.settings.match_poll_seconds,
        )

    @cached_property
    def reauth(self) -> Reauth:
        """What waits for new credentials."""
        from activation.services.reauth import Reauth

        return Reauth(self.distributions, self.matching, self.clock)

    @cached_property
    def dispatcher(self) -> Dispatcher:
        """The worker behind distributions."""
        from activation.services.dispatch import Dispatcher
        from activation.services.settling import Settling

        lease_seconds = self.settings.lease_seconds
        return Dispatcher(
            self.distributions,
            self.platforms,
            self.accounts,
            self.matching,
            Settling(self.distributions, self.matching, self.clock, lease_seconds),
            self.reauth,
            self.exchanges,
            self.list_digests,
            self.clock,
            lease_seconds,
        )

    @cached_property
    def refreshing(self) -> Refreshing:
        """Distributions by the clock."""
        from activation.services.refreshing import Refreshing

        return Refreshing(self.distributions, self.platforms, self.organizations, self.clock)

    @cached_property
    def reconciliations(self) -> ReconcileService:
        """Comparisons of ledgers with platforms."""
        from activation.services.reconciling import ReconcileService

        return ReconcileService(self.distributions, self.clock)

    @cached_property
    def reconciler(self) -> Reconciler:
        """The worker behind them."""
        from activation.services.reconciling import Reconciler

        return Reconciler(self.distributions, self.accounts, self.clock)

    @cached_property
    def lane_worker(self) -> LaneWorker:
        """The worker behind lanes."""
        from activation.services.lanes import LaneWorker
        from activation.services.sending import Sender
        from activation.services.traffic import Traffic

        return LaneWorker(
            self.distributions,
            self.accounts,
            Traffic(self.documents, self.clock, self.settings.lanes_per_organization),
            Sender(self.suppressions),
            self.reauth,
            self.exchanges,
            self.clock,
            self.settings.lease_seconds,
            self.settings.work_seconds,
        )

    @cached_property
    def match_rates(self) -> MatchRates:
        """Match rates over time."""
        from activation.services.match_rates import MatchRates

        return MatchRates(
            self.documents,
            self.platforms,
            self.audiences,
            self.clock,
            self.settings.match_rate_fall,
        )

    @cached_property
    def exchanges(self) -> ExchangeLogs:
        """The last requests to platforms and their answers."""
        from activation.services.exchanges import ExchangeLogs

        return ExchangeLogs(self.documents, self.clock)

    @cached_property
    def list_digests(self) -> ListDigests:
        """Digests of delivery lists."""
        from activation.services.list_digests import ListDigests

        return ListDigests(self.documents, self.member_blobs, self.clock)

    @cached_property
    def evidence(self) -> EvidenceService:
        """Evidence packs of distributions."""
        from activation.services.evidence import EvidenceService

        return EvidenceService(
            self.commits,
            self.distributions,
            self.exchanges,
            self.list_digests,
            self.signer,
            self.clock,
        )
