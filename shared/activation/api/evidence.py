"""What a distribution did, for people who have to prove it or to repair it."""

from __future__ import annotations

from typing import Any

import flask
from pydantic import BaseModel

from activation.api.paths import DistributionPath
from activation.api.responses import JSON, json_response
from activation.api.routes import Ask, Resource
from activation.domain.caller import Role
from activation.domain.exchange import KEPT, Exchange
from activation.services.list_digests import Reading

evidence = Resource("evidence", "Signed packs of evidence, and the traffic with platforms, masked.")

ONE = "/distributions/<distribution_id>"


class SignerAnswer(BaseModel):
    """Which key signed."""

    algorithm: str
    key_id: str
    public_key_sha256: str


class HeaderAnswer(BaseModel):
    """What is signed: what the pack is about, and the digest of each section."""

    format: str
    organization_id: str
    distribution_id: str
    status: str
    issued_at: str
    issued_to: str
    software_version: str
    sections: dict[str, str]
    signer: SignerAnswer


class SignatureAnswer(BaseModel):
    """The signature over the header's canonical bytes: DER in base64, and the key, PEM."""

    algorithm: str
    key_id: str
    public_key: str
    value: str


class EvidenceAnswer(BaseModel):
    """An evidence pack (docs/evidence.md)."""

    header: HeaderAnswer
    sections: dict[str, Any]
    signature: SignatureAnswer


class ReadingAnswer(BaseModel):
    """The list is long and still being read; ask again."""

    status: str
    rows_read: int
    rows: int


class EvidenceKeyAnswer(SignerAnswer):
    """The public key of packs, PEM."""

    public_key: str


class ExchangesAnswer(BaseModel):
    """The last exchanges with the platform, oldest first; at most `kept` are."""

    data: list[Exchange]
    kept: int


@evidence.route(
    "GET",
    f"{ONE}/evidence",
    role=Role.VIEWER,
    answer=EvidenceAnswer,
    also={202: ReadingAnswer},
)
def get_evidence(ask: Ask, path: DistributionPath) -> flask.Response:
    """Hand out the signed evidence of a distribution; 202 while its list is still being read."""
    pack = ask.app.evidence.pack(ask.caller, path.distribution_id)
    if isinstance(pack, Reading):
        response = json_response(pack.public(), 202)
        response.headers["Retry-After"] = "1"
        return response
    name = f"evidence-{path.distribution_id}.json"
    disposition = {"Content-Disposition": f'attachment; filename="{name}"'}
    return flask.Response(pack, 200, disposition, content_type=f"{JSON}; charset=utf-8")


@evidence.route("GET", "/distributions/evidence-key", role=Role.VIEWER, answer=EvidenceKeyAnswer)
def get_evidence_key(ask: Ask) -> dict[str, Any]:
    """Show the public key that evidence is signed with; keep it apart from the packs."""
    return ask.app.evidence.key()


@evidence.route("GET", f"{ONE}/exchanges", role=Role.VIEWER, answer=ExchangesAnswer)
def list_exchanges(ask: Ask, path: DistributionPath) -> dict[str, Any]:
    """List the last requests to the platform with its answers; all texts are masked."""
    job = ask.app.distributions.get(ask.caller, path.distribution_id).entity
    found = ask.app.exchanges.last(job.organization_id, job.distribution_id)
    return {"data": [one.model_dump(mode="json") for one in found], "kept": KEPT}
