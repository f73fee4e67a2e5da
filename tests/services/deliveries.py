"""An audience, two accounts at twins, and distributions that are brought to their end."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from activation.app import App
from activation.domain.caller import Caller
from activation.domain.distribution import Distribution, DistributionDraft
from activation.domain.platform import PlatformDraft
from activation.twins.facebook import FacebookTwin
from activation.twins.faults import Fault
from activation.twins.google_ads import GoogleAdsTwin
from activation.twins.server import serve
from tests.services.support import add, audience_of, inputs
from tests.working import work

PEOPLE = 130
ADDRESSES = tuple(f"p{number}@example.com" for number in range(PEOPLE))
SECRETS = ("twin-token", "twin-secret", "twin-refresh", "twin-client")


@dataclass(frozen=True)
class Deliveries:
    """An App with an audience of PEOPLE e-mails and accounts at two twins."""

    app: App
    ann: Caller
    google: GoogleAdsTwin
    facebook: FacebookTwin
    audience_id: str
    platforms: Mapping[str, str]

    def request(self, platform: str, **fields: Any) -> Distribution:
        draft = DistributionDraft(
            audience_id=self.audience_id, platform_id=self.platforms[platform], **fields
        )
        return self.app.distributions.create(self.ann, draft).entity

    def run(self, job: Distribution) -> Distribution:
        work(self.app, job.distribution_id)
        return self.current(job)

    def current(self, job: Distribution) -> Distribution:
        return self.app.distributions.get(self.ann, job.distribution_id).entity

    def delivered(self, platform: str, **fields: Any) -> Distribution:
        """A distribution that was sent."""
        return self.run(self.request(platform, **fields))

    def matched(self, platform: str) -> Distribution:
        """A distribution whose match results are final."""
        job = self.delivered(platform)
        while not job.match_results.final:
            self.app.clock.sleep(7200)
            job = self.run(job)
        return job

    def refuse_rows(self, positions: Sequence[int], reason: str = "INVALID_FORMAT") -> None:
        """Have Google refuse the next batch because of some rows."""
        fields = [{"field": f"audienceMembers[{position}]"} for position in positions]
        details = [{"reason": reason}, {"fieldViolations": fields}]
        body = {"error": {"code": 400, "status": "INVALID_ARGUMENT", "details": details}}
        self.google.faults.plan(Fault("status", path="ingest", status=400, body=body))


@contextmanager
def delivering(app: App, ann: Caller) -> Iterator[Deliveries]:
    """The audience and the accounts, as long as the twins run."""
    google, facebook = GoogleAdsTwin(app.clock), FacebookTwin(app.clock, match_delay_seconds=60)
    running = serve({"google_ads": google, "facebook": facebook})
    try:
        audience_id = audience_of(app, ann, "Buyers").audience_id
        add(app, ann, audience_id, inputs(PEOPLE))
        app.audiences.set_status(ann, audience_id, "active")
        platforms = {
            "facebook": _platform(
                app,
                ann,
                "facebook",
                {"access_token": "twin-token"},
                {"ad_account_id": "1001", "api_url": running.url_of("facebook")},
            ),
            "google_ads": _platform(
                app,
                ann,
                "google_ads",
                {
                    "client_id": "twin-client",
                    "client_secret": "twin-secret",
                    "refresh_token": "twin-refresh",
                },
                {
                    "account_id": "1234567890",
                    "terms_accepted": True,
                    "api_url": running.url_of("google_ads"),
                    "token_url": running.url_of("google_ads") + "/token",
                },
            ),
        }
        yield Deliveries(app, ann, google, facebook, audience_id, platforms)
    finally:
        running.close()


def _platform(
    app: App, ann: Caller, kind: str, credentials: dict[str, str], config: dict[str, Any]
) -> str:
    body = {
        "platform_type": kind,
        "name": f"{kind} twin",
        "credentials": credentials,
        "settings": {"config": config},
    }
    return app.platforms.create(ann, PlatformDraft.model_validate(body)).entity.platform_id
