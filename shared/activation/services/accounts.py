"""Accounts with opened credentials: only the dispatcher's function may have them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import orjson

from activation import observability
from activation.domain.caller import service_caller
from activation.domain.platform import Platform, SealedCredentials
from activation.errors import PlatformAuthError
from activation.ports import Account, Connector, Connectors, Vault
from activation.services.access import retry_conflicts
from activation.services.platforms import PlatformService, credentials_context


@dataclass(frozen=True, slots=True)
class StoredLogin:
    """Port Login on the sealed credentials of one account, as of one version of them."""

    platforms: PlatformService
    vault: Vault
    organization_id: str
    platform_id: str
    version: int

    def latest(self) -> Mapping[str, str]:
        """The credentials as they are sealed now."""
        secret = self.platforms.secrets.find(self.organization_id, self.platform_id)
        if secret is None:
            raise PlatformAuthError("The account has been deleted.")
        return credentials_in(self.vault, secret.entity)

    def keep(self, credentials: Mapping[str, str]) -> bool:
        """Seal what the platform has made of the credentials, under their data key: whoever may
        only open secrets can do that. They keep their version, as nobody has entered others."""
        return retry_conflicts(lambda: self._kept(credentials))

    def _kept(self, credentials: Mapping[str, str]) -> bool:
        stored = self.platforms.secrets.find(self.organization_id, self.platform_id)
        if stored is None or stored.entity.version != self.version:
            return False
        context = credentials_context(self.organization_id, self.platform_id, self.version)
        sealed = self.vault.reseal(stored.entity.sealed, orjson.dumps(dict(credentials)), context)
        after = stored.entity.changed(sealed=sealed, updated_at=self.platforms.clock.now())
        caller = service_caller("dispatch_distribution", self.organization_id, "")
        self.platforms.commits.commit(
            caller,
            "function:platform:renew-login",
            [stored.replaced_by(after)],
            details={"version": self.version},
        )
        return True


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
        organization_id, platform_id = platform.organization_id, platform.platform_id
        secret = self.platforms.secrets.get(organization_id, platform_id).entity
        login = StoredLogin(
            self.platforms, self.vault, organization_id, platform_id, secret.version
        )
        config = platform.settings.config
        account = Account(platform_id, config, credentials_in(self.vault, secret), login)
        return account, self.connectors.connector(platform.platform_type, config)


def credentials_in(vault: Vault, secret: SealedCredentials) -> dict[str, str]:
    """The secret fields; CredentialUnreadableError when they do not open."""
    context = credentials_context(secret.organization_id, secret.platform_id, secret.version)
    opened: dict[str, str] = orjson.loads(vault.open(secret.sealed, context))
    return opened
