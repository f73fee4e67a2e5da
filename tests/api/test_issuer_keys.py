"""The embedded issuer's keys are replaced without a token that is refused in between."""

from __future__ import annotations

import stat
import threading
from datetime import timedelta
from pathlib import Path

import jwt
import pytest

from activation.adapters.clock import MovableClock
from activation.api import auth
from activation.api.auth import TokenPolicy, TokenVerifier
from activation.api.issuer import EmbeddedIssuer
from activation.api.issuer_keys import RING_FILE, IssuerKeys, jwks
from activation.api.keys import rsa_keys
from activation.domain.caller import Role
from activation.errors import StorageUnavailableError, UnauthenticatedError
from tests.api.test_auth import bearer

POLICY = TokenPolicy(
    ("urn:activation:embedded",), "audience-activation", frozenset({"at+jwt"}), ("sub", "org")
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def issuer(folder: Path, clock: MovableClock) -> EmbeddedIssuer:
    """The process that mints tokens."""
    return EmbeddedIssuer(folder, clock)


@pytest.fixture
def verifier(folder: Path, clock: MovableClock) -> TokenVerifier:
    """Another process, which has run for long."""
    verifier = TokenVerifier(POLICY, EmbeddedIssuer(folder, clock), clock)
    accepted(verifier, EmbeddedIssuer(folder, clock).token("acme", "ann", Role.ADMIN))
    return verifier


def accepted(verifier: TokenVerifier, token: str) -> bool:
    try:
        return auth.operator(verifier, bearer(token), "t").user_id == "ann"
    except UnauthenticatedError:
        return False


def minted(issuer: EmbeddedIssuer) -> str:
    return issuer.token("acme", "ann", Role.ADMIN)


def test_a_rotation_refuses_no_token_that_has_not_ended(
    issuer: EmbeddedIssuer, verifier: TokenVerifier, clock: MovableClock
) -> None:
    """A token is minted every minute for three hours; the key is replaced after each one."""
    tokens: list[tuple[int, str]] = []
    for minute in range(180):
        if minute % 60 == 30:
            EmbeddedIssuer(issuer.folder, clock).keys.rotated()
        tokens.append((minute, minted(issuer)))
        clock.sleep(60)
        for born, token in tokens[::7]:
            assert accepted(verifier, token) is (minute + 1 - born <= 60), (minute, born)
    assert len({jwt.get_unverified_header(token)["kid"] for _, token in tokens}) == 4


def test_the_new_key_is_known_before_it_signs(
    issuer: EmbeddedIssuer, verifier: TokenVerifier, clock: MovableClock
) -> None:
    first = issuer.key_id
    new = issuer.keys.rotated(timedelta(minutes=5))
    assert verifier.keys.key(new.key_id).key_size == 2048
    assert issuer.key_id == first
    clock.sleep(301)
    assert issuer.key_id == new.key_id


def test_the_old_key_is_forgotten_after_its_last_token(
    issuer: EmbeddedIssuer, verifier: TokenVerifier, clock: MovableClock
) -> None:
    first = issuer.key_id
    issuer.keys.rotated(timedelta(0))
    clock.sleep(timedelta(minutes=61).total_seconds())
    assert verifier.keys.key(first).key_size == 2048
    clock.sleep(1)
    with pytest.raises(UnauthenticatedError):
        verifier.keys.key(first)
    issuer.keys.rotated(timedelta(0))
    assert first not in {one.key_id for one in issuer.keys.known()}
    assert len(issuer.keys.known()) == 2


def test_a_key_that_may_have_leaked_is_out_at_once_when_its_file_is_deleted(
    issuer: EmbeddedIssuer, verifier: TokenVerifier, folder: Path
) -> None:
    token = minted(issuer)
    assert accepted(verifier, token)
    for name in ("issuer-key.pem", RING_FILE):
        (folder / name).unlink(missing_ok=True)
    assert not accepted(verifier, token)
    assert accepted(verifier, minted(issuer))


def test_rotations_at_once_lose_no_key(issuer: EmbeddedIssuer, clock: MovableClock) -> None:
    made: list[str] = []

    def rotate() -> None:
        made.append(IssuerKeys(issuer.folder, clock).rotated().key_id)

    first = issuer.key_id
    threads = [threading.Thread(target=rotate) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(issuer.keys.known()) == 5
    assert {first, *made} <= {one.key_id for one in issuer.keys.known()}


def test_the_published_keys_are_public_and_good_for_any_verifier(
    issuer: EmbeddedIssuer, clock: MovableClock
) -> None:
    import orjson

    issuer.keys.rotated(timedelta(0))
    document = jwks(issuer.keys.known())
    assert [set(one) for one in document["keys"]] == [{"kty", "n", "e", "kid", "use", "alg"}] * 2
    published = rsa_keys(orjson.dumps(document))
    token = minted(issuer)
    jwt.decode(
        token,
        published[jwt.get_unverified_header(token)["kid"]],
        algorithms=["RS256"],
        audience="audience-activation",
        options={"verify_exp": False, "verify_iat": False},
    )


def test_the_ring_is_private_and_a_damaged_one_is_told(
    issuer: EmbeddedIssuer, folder: Path
) -> None:
    issuer.keys.rotated()
    ring = folder / RING_FILE
    assert stat.S_IMODE(ring.stat().st_mode) == 0o600
    for content in (b"", b"{}", b'{"keys":[]}', b'{"keys":[{"pem":"x"}]}', b'{"keys":[{"k":1}]}'):
        ring.write_bytes(content)
        with pytest.raises(StorageUnavailableError):
            issuer.token("acme", "ann", Role.ADMIN)
    ring.chmod(0o644)
    with pytest.raises(StorageUnavailableError):
        issuer.token("acme", "ann", Role.ADMIN)
