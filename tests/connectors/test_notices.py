"""Reports to the operator's own address: signed, under one id, and only to a public host."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import orjson
import pytest
import standardwebhooks
from werkzeug.wrappers import Request, Response

from activation.adapters.clock import MovableClock
from activation.adapters.connectors.notices import WebhookNotifier
from activation.app import App
from activation.domain.retention_run import RunDraft, RunStatus
from activation.errors import PlatformError, PlatformTransientError, ValidationError
from activation.settings import Settings
from tests.conftest import caller_of
from tests.connectors.support import WEBHOOK_SECRET
from tests.wire.http import served


@dataclass
class Receiver:
    """Keeps what it got; answers with the given status codes, then 204."""

    statuses: list[int] = field(default_factory=list)
    taken: list[tuple[dict[str, str], bytes]] = field(default_factory=list)

    def __call__(self, request: Request) -> Response:
        if self.statuses:
            return Response(status=self.statuses.pop(0))
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.taken.append((headers, request.get_data()))
        return Response(status=204)


@pytest.fixture
def receiver() -> Receiver:
    return Receiver()


@pytest.fixture
def address(receiver: Receiver) -> Iterator[str]:
    with served(receiver) as url:
        yield f"{url}/reports"


def test_a_report_is_signed_as_the_scheme_says(
    receiver: Receiver, address: str, clock: MovableClock
) -> None:
    notifier = WebhookNotifier(clock, address, WEBHOOK_SECRET, allow_private_hosts=True)
    notifier.send("run-1", {"type": "retention.completed", "data": {"run_id": "run-1"}})
    notifier.close()
    [(headers, body)] = receiver.taken
    expected = standardwebhooks.Webhook(WEBHOOK_SECRET).sign("run-1", clock.now(), body.decode())
    assert headers["webhook-signature"] == expected
    assert (headers["webhook-id"], orjson.loads(body)["data"]) == ("run-1", {"run_id": "run-1"})


@pytest.mark.parametrize(
    ("status", "kind"), [(400, PlatformError), (410, PlatformError), (503, PlatformTransientError)]
)
def test_a_refusal_says_whether_to_come_back(
    status: int, kind: type[PlatformError], receiver: Receiver, address: str, clock: MovableClock
) -> None:
    receiver.statuses = [status] * 10
    notifier = WebhookNotifier(clock, address, WEBHOOK_SECRET, allow_private_hosts=True)
    with pytest.raises(kind) as refused:
        notifier.send("run-1", {})
    notifier.close()
    assert type(refused.value) is kind


def test_private_hosts_are_not_called(clock: MovableClock, address: str) -> None:
    notifier = WebhookNotifier(clock, address, WEBHOOK_SECRET)
    with pytest.raises(PlatformError):
        notifier.send("run-1", {})


@pytest.mark.parametrize("secret", ["", "whsec_", "whsec_not base64"])
def test_a_secret_that_is_none_is_refused(secret: str, clock: MovableClock) -> None:
    with pytest.raises(ValidationError, match="RETENTION_WEBHOOK_SECRET"):
        WebhookNotifier(clock, "https://example.com", secret)


def test_a_run_tells_the_address_of_the_settings(
    receiver: Receiver, address: str, tmp_path: Path, clock: MovableClock
) -> None:
    settings = Settings(
        data_folder=str(tmp_path / "data"),
        allow_private_hosts=True,
        retention_webhook_url=address,
        retention_webhook_secret=WEBHOOK_SECRET,
    )
    assert WEBHOOK_SECRET not in repr(settings)
    app, ann = App(settings, clock), caller_of()
    run_id = app.retention.start(ann, RunDraft()).entity.run_id
    app.job_worker.run("acme", run_id, "t")
    app.job_worker.run("acme", run_id, "t")
    done = app.retention.get(ann, run_id).entity
    app.close()
    assert (done.status, done.delivery) == (RunStatus.COMPLETED, "delivered")
    [(headers, body)] = receiver.taken
    told = orjson.loads(body)["data"]
    assert (headers["webhook-id"], told["run_id"], told["organization_id"]) == (
        run_id,
        run_id,
        "acme",
    )
