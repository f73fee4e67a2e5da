"""A desk from which audiences go to the twins of this process, without sockets."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import stamina

from activation.adapters.connectors.registry import ConnectorRegistry
from activation.app import App
from activation.domain.caller import Caller
from activation.domain.distribution import (
    Distribution,
    DistributionDraft,
    DistributionType,
    Plan,
    PlanDraft,
)
from activation.domain.identifier import IdentifierType, key_digest
from activation.domain.ledger import Ledger
from activation.domain.member import MemberInput
from activation.domain.member_change import MemberReference
from activation.domain.platform import ConnectorSpec, Platform, PlatformDraft, PlatformType
from activation.ports import Connector
from activation.twins.catalog import OFFERS
from activation.twins.direct import DirectTransport
from activation.twins.members import member_key
from activation.twins.wsgi import Twin
from tests.services.support import audience_of
from tests.working import work


class Adjusted(ConnectorRegistry):
    """The connectors, with changed limits."""

    changes: Mapping[str, Any]

    def spec_for(self, platform_type: PlatformType, config: Mapping[str, Any]) -> ConnectorSpec:
        return self.adjusted(super().spec_for(platform_type, config))

    def connector(self, platform_type: PlatformType, config: Mapping[str, Any]) -> Connector:
        connector = super().connector(platform_type, config)
        connector.spec = self.adjusted(connector.spec)
        return connector

    def adjusted(self, spec: ConnectorSpec) -> ConnectorSpec:
        """The spec with other limits, but no more lanes than the platform takes."""
        lanes = min(self.changes.get("lanes", spec.lanes), spec.lanes)
        return replace(spec, **{**self.changes, "lanes": lanes})


@dataclass(frozen=True)
class Desk:
    """An App, and accounts at twins by name."""

    app: App
    caller: Caller
    twins: Mapping[str, Any]
    transport: DirectTransport

    def account(self, name: str, **settings: Any) -> str:
        """A new account at a twin; its id."""
        body = OFFERS[name].account(name, self.transport.url_of(name))
        body["settings"] = {**body["settings"], **settings}
        draft = PlatformDraft.model_validate({"name": f"{name} twin", **body})
        return self.app.platforms.create(self.caller, draft).entity.platform_id

    def audience(self, members: Iterable[MemberInput]) -> str:
        """A new active audience; its id."""
        count = self.app.audiences.count(self.caller, {})
        audience = audience_of(self.app, self.caller, f"Buyers {count}")
        self.add(audience.audience_id, members)
        self.app.audiences.set_status(self.caller, audience.audience_id, "active")
        return audience.audience_id

    def add(self, audience_id: str, members: Iterable[MemberInput]) -> None:
        assert self.app.members.add(self.caller, audience_id, list(members)).rejected == 0

    def remove(self, audience_id: str, members: Iterable[MemberInput]) -> None:
        gone = [
            MemberReference(
                identifier_type=member.identifier_type, identifier_value=member.identifier_value
            )
            for member in members
        ]
        self.app.members.remove(self.caller, audience_id, gone)

    def plan(self, audience_id: str, platform_id: str, kind: str = "initial") -> Plan:
        draft = PlanDraft(
            audience_id=audience_id,
            platform_id=platform_id,
            distribution_type=DistributionType(kind),
        )
        return self.app.distributions.plan(self.caller, draft)

    def request(self, audience_id: str, platform_id: str, kind: str = "initial") -> Distribution:
        draft = DistributionDraft(
            audience_id=audience_id,
            platform_id=platform_id,
            distribution_type=DistributionType(kind),
        )
        return self.app.distributions.create(self.caller, draft).entity

    def run(self, distribution: Distribution) -> Distribution:
        """Do what is due, as the bus and the clock's job would."""
        work(self.app, distribution.distribution_id)
        return self.current(distribution)

    def sent(self, audience_id: str, platform_id: str, kind: str = "initial") -> Distribution:
        return self.run(self.request(audience_id, platform_id, kind))

    def current(self, distribution: Distribution) -> Distribution:
        return self.app.distributions.get(self.caller, distribution.distribution_id).entity

    def rejects(self, distribution: Distribution) -> list[tuple[int, int, str]]:
        """The reject file: batch, row, reason."""
        text = b"".join(self.app.distributions.rejects(self.caller, distribution.distribution_id))
        rows = csv.DictReader(text.decode().splitlines())
        return [(int(row["batch"]), int(row["row"]), row["reason"]) for row in rows if row["row"]]

    def ledger(self, audience_id: str, platform_id: str) -> Ledger:
        return self.app.ledgers.get(self.caller, audience_id, platform_id).entity

    def platform(self, platform_id: str) -> Platform:
        return self.app.platforms.get(self.caller, platform_id).entity


@contextmanager
def desk(app: App, caller: Caller, twins: Mapping[str, Twin], **limits: Any) -> Iterator[Desk]:
    """A desk with these twins, and connectors of other `limits`; no retry waits for real."""
    transport = DirectTransport(twins)
    connectors = Adjusted(app.clock, transport=transport, allow_private_hosts=True)
    connectors.changes = limits
    app.__dict__["connectors"] = connectors
    with stamina.set_testing(True, attempts=2, cap=True):
        yield Desk(app, caller, twins, transport)


def emails(*numbers: int) -> list[MemberInput]:
    """Members by number."""
    return [
        MemberInput(identifier_type=IdentifierType.EMAIL, identifier_value=f"p{n}@example.com")
        for n in numbers
    ]


def devices(*numbers: int) -> list[MemberInput]:
    """Devices by number."""
    return [
        MemberInput(
            identifier_type=IdentifierType.MAID,
            identifier_value=f"00000000-0000-4000-8000-{n:012d}",
        )
        for n in numbers
    ]


def keys(members: Iterable[MemberInput]) -> set[bytes]:
    """What a twin holds of members whose plain form is what is sent."""
    return {
        member_key(
            str(m.identifier_type),
            key_digest(m.identifier_value).hex()
            if m.identifier_type is IdentifierType.EMAIL
            else m.identifier_value,
        )
        for m in members
    }
