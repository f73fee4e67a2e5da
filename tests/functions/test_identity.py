"""Who may call a function in the cloud: its own Google accounts, and nobody else, by the settings
that Terraform gives it."""

from __future__ import annotations

import dataclasses

import httpx
import pytest
from werkzeug.test import Client, TestResponse

from activation.api import auth
from activation.api.doors import ENVIRON, Doors
from activation.app import App
from activation.function_manifest import function, functions
from activation.local import LocalServer, loaded
from activation.message_codec import push_body
from activation.ports import Message
from activation.settings import from_environment
from tests.api import forge
from tests.api.client import require_envelope
from tests.api.forge import Forge

ISSUER_KEYS = "https://issuer.example/jwks"
BUS, CLOCK = "bus@p.iam.gserviceaccount.com", "clock@p.iam.gserviceaccount.com"
EVENT_FUNCTIONS = [one for one in functions() if one.trigger != "http"]
ACCOUNTS = [
    f"{one.name}={BUS if one.trigger == 'topic' else CLOCK}"
    for one in EVENT_FUNCTIONS
    if one.name != "run_job"
]
ENVIRONMENT = {
    "ACTIVATION_BACKEND": "google",
    "ACTIVATION_ISSUER": forge.ISSUER,
    "ACTIVATION_JWKS_URL": ISSUER_KEYS,
    "ACTIVATION_PUSH_AUDIENCE": "https://push.example",
    "ACTIVATION_PUSH_SERVICE_ACCOUNTS": ",".join(ACCOUNTS),
}


def published(request: httpx.Request) -> httpx.Response:
    """The keys of Google, and those of the operators' issuer."""
    names = {auth.GOOGLE_KEYS_URL: "google", ISSUER_KEYS: "k1"}
    name = names[str(request.url)]
    return httpx.Response(200, content=forge.jwks(forge.jwk(forge.key(name), kid=name)))


@pytest.fixture
def doors(server: LocalServer) -> Doors:
    """The doors of the cloud, before stores of this machine."""
    cloud = App(from_environment(ENVIRONMENT), server.app.clock)
    made = Doors.of(cloud, httpx.MockTransport(published))
    return dataclasses.replace(made, app=server.app)


@pytest.fixture
def tokens(server: LocalServer) -> Forge:
    return Forge(int(server.app.clock.now().timestamp()))


def google(tokens: Forge, **changed: object) -> str:
    claims: dict[str, object] = {
        "iss": "https://accounts.google.com",
        "aud": "https://push.example",
        "email": BUS,
        "email_verified": True,
        **changed,
    }
    text = tokens.text("org", "role", "nbf", **claims)
    return tokens.token(text, header={"typ": "JWT", "kid": "google"}, signer="google")


def posted(doors: Doors, name: str, token: str) -> TestResponse:
    body = push_body(Message("t", "acme", "m-1", {"import_id": "x", "job_id": "x"}), name)
    if name == "dispatch_distribution":
        body = push_body(Message("t", "acme", "m-1", {"distribution_id": "x"}), name)
    if name == "process_events":
        body = push_body(Message("t", "acme", "m-1", {"rules": "0"}), name)
    if name == "follow_segments":
        body = push_body(Message("t", "acme", "m-1", {"shard": 1, "number": 1}), name)
    response = Client(loaded(function(name))).post(
        "/",
        json=body,
        headers={"Authorization": f"Bearer {token}"},
        environ_overrides={ENVIRON: doors},
    )
    if response.status_code >= 400:
        require_envelope(response)
    return response


@pytest.mark.parametrize("account", [BUS, CLOCK, "other@p.iam.gserviceaccount.com"])
@pytest.mark.parametrize("name", [one.name for one in EVENT_FUNCTIONS])
def test_a_function_answers_its_own_caller_only(
    name: str, account: str, doors: Doors, tokens: Forge
) -> None:
    status = posted(doors, name, google(tokens, email=account)).status_code
    assert (status in (200, 204)) is (f"{name}={account}" in ACCOUNTS)
    assert status in (200, 204, 403)


@pytest.mark.parametrize("name", [one.name for one in EVENT_FUNCTIONS])
@pytest.mark.parametrize(
    ("status", "changed"),
    [
        (401, {"aud": "https://other.example"}),
        (401, {"iss": "https://issuer.example/"}),
        (403, {"email_verified": False}),
    ],
)
def test_a_token_for_somebody_else_opens_no_function(
    status: int, changed: dict[str, object], name: str, doors: Doors, tokens: Forge
) -> None:
    assert posted(doors, name, google(tokens, **changed)).status_code == status


@pytest.mark.parametrize("name", [one.name for one in EVENT_FUNCTIONS])
def test_operators_and_services_do_not_pass_for_each_other(
    name: str, doors: Doors, tokens: Forge
) -> None:
    assert posted(doors, name, tokens.token(role="admin")).status_code == 401
    assert posted(doors, name, tokens.token(role="service")).status_code == 401
    api = Client(loaded(function("audiences")))
    for token, status in ((google(tokens), 401), (tokens.token(), 200)):
        answer = api.get(
            "/api/v1/audiences",
            headers={"Authorization": f"Bearer {token}"},
            environ_overrides={ENVIRON: doors},
        )
        assert answer.status_code == status


def test_browsers_are_told_to_stay_with_tls_in_the_cloud_only(server: LocalServer) -> None:
    cloud = Doors.of(App(from_environment(ENVIRONMENT), server.app.clock))
    for doors, told in ((cloud, "max-age=31536000; includeSubDomains"), (server._doors, None)):
        for path, status in (("/health", 200), ("/api/v1/audiences", 401), ("/nothing", 404)):
            answer = Client(loaded(function("audiences"))).get(
                path, environ_overrides={ENVIRON: doors}
            )
            assert answer.status_code == status
            assert answer.headers.get("Strict-Transport-Security") == told
