"""Accounts with opened credentials: only the dispatcher's function may have them."""

from __future__ import annotations

from dataclasses import dataclass

import orjson

from activation import observability
from activation.domain.platform import Platform
from activation.ports import Account, Connector, Connectors, Vault
from activation.services.platforms import PlatformService, credentials_context


@dataclass(frozen=True, slots=True)
class Accounts:
    """Opens credentials; they stay in memory."""

    platforms: PlatformService
    connectors: Connectors
    vault: Vault

    def opened(self, platform: Platform) -> tuple[Account, Connector]:
        """The account with its credentials, and the connector for it; from now on log lines name
        the type of platform."""
        observability.note(platform=platform.platform_type.value)
        secret = self.platforms.secrets.get(platform.organization_id, platform.platform_id).entity
        context = credentials_context(
            platform.organization_id, platform.platform_id, secret.version
        )
        credentials = orjson.loads(self.vault.open(secret.sealed, context))
        config = platform.settings.config
        account = Account(platform.platform_id, config, credentials)
        return account, self.connectors.connector(platform.platform_type, config)
