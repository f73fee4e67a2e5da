"""Tokens: the hostile ones are refused, each with 401, and the good ones become callers."""

from __future__ import annotations

import dataclasses
import stat
import threading
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from pathlib import Path

import httpx
import pytest
from werkzeug.datastructures import Headers

from activation.adapters.clock import MovableClock
from activation.api import auth
from activation.api.auth import Deliverers, TokenPolicy, TokenVerifier
from activation.api.issuer import KEY_FILE, EmbeddedIssuer
from activation.api.keys import PublishedKeys, rsa_keys
from activation.domain.caller import Role
from activation.errors import (
    ActivationError,
    ForbiddenError,
    StorageUnavailableError,
    UnauthenticatedError,
    ValidationError,
)
from tests.api import forge
from tests.api.forge import Forge

OPERATORS = TokenPolicy((forge.ISSUER,), forge.AUDIENCE, frozenset({"at+jwt"}), ("sub", "org"))
GOOGLE = TokenPolicy(auth.GOOGLE_ISSUERS, "https://push.example", frozenset({"jwt"}), ("email",))


ACCOUNTS = Deliverers.parsed(
    "import_members=bus@p.iam.gserviceaccount.com, run_due=clock@p.iam.gserviceaccount.com,"
    "both@p.iam.gserviceaccount.com,"
)
CALLERS = {
    "import_members": {"bus", "both"},
    "run_due": {"clock", "both"},
    "dispatch_distribution": {"both"},
}


class KeyServer:
    """An issuer's key endpoint that counts its visitors and can go down."""

    def __init__(self, document: bytes) -> None:
        self.document, self.visits, self.up = document, 0, True
        self.asked: set[str] = set()
        self.gate: threading.Event | None = None

    def answer(self, request: httpx.Request) -> httpx.Response:
        self.visits += 1
        self.asked.add(str(request.url))
        if self.gate is not None:
            self.gate.wait(60)
        if not self.up:
            raise httpx.ConnectError("down")
        return httpx.Response(200, content=self.document)

    def keys(self, clock: MovableClock) -> PublishedKeys:
        transport = httpx.MockTransport(self.answer)
        return PublishedKeys("https://issuer.example/jwks", clock, transport)


@pytest.fixture
def server() -> KeyServer:
    return KeyServer(forge.mixed_jwks())


@pytest.fixture
def tokens(clock: MovableClock) -> Forge:
    return Forge(int(clock.now().timestamp()))


@pytest.fixture
def verifier(server: KeyServer, clock: MovableClock) -> TokenVerifier:
    return TokenVerifier(OPERATORS, server.keys(clock), clock)


def bearer(token: str) -> Headers:
    headers = Headers()
    headers["Authorization"] = f"Bearer {token}"
    return headers


def refusal(act: Callable[[], object]) -> ActivationError:
    with pytest.raises(ActivationError) as caught:
        act()
    return caught.value


class TestOperators:
    @pytest.mark.parametrize("name", sorted(forge.hostile(Forge(1_000_000_000))))
    def test_hostile_token_is_refused(
        self, name: str, tokens: Forge, verifier: TokenVerifier
    ) -> None:
        token = forge.hostile(tokens)[name]
        error = refusal(lambda: auth.operator(verifier, bearer(token), "t"))
        assert error.status == 401
        assert token not in error.message or token in ("", ".", "..")

    def test_good_token_names_the_caller(self, tokens: Forge, verifier: TokenVerifier) -> None:
        caller = auth.operator(verifier, bearer(tokens.token()), "trace-1")
        assert (caller.organization_id, caller.user_id) == ("t1", "user-1")
        assert (caller.role, caller.trace_id) == (Role.EDITOR, "trace-1")

    def test_audience_may_be_one_of_several(self, tokens: Forge, verifier: TokenVerifier) -> None:
        token = tokens.token(aud=["other", forge.AUDIENCE])
        assert auth.operator(verifier, bearer(token), "t").user_id == "user-1"

    def test_thirty_seconds_of_skew_pass(self, tokens: Forge, verifier: TokenVerifier) -> None:
        late = tokens.token(exp=tokens.now - 29, iat=tokens.now - 600)
        early = tokens.token(iat=tokens.now + 29, nbf=tokens.now + 29)
        for token in (late, early):
            assert auth.operator(verifier, bearer(token), "t").organization_id == "t1"

    def test_missing_role_makes_a_viewer(self, tokens: Forge, verifier: TokenVerifier) -> None:
        token = tokens.token(tokens.text("role"))
        assert auth.operator(verifier, bearer(token), "t").role is Role.VIEWER

    @pytest.mark.parametrize("header", ["", "Bearer", "Bearer ", "Basic dTpw", "Bearer\ttoken"])
    def test_other_authorization_is_refused(self, header: str, verifier: TokenVerifier) -> None:
        headers = Headers({"Authorization": header})
        error = refusal(lambda: auth.operator(verifier, headers, "t"))
        assert isinstance(error, UnauthenticatedError)


class TestKeys:
    def test_unknown_key_ids_cause_one_fetch_in_thirty_seconds(
        self, server: KeyServer, clock: MovableClock, tokens: Forge, verifier: TokenVerifier
    ) -> None:
        auth.operator(verifier, bearer(tokens.token()), "t")
        for number in range(200):
            refusal(partial(verifier.keys.key, f"made-up-{number}"))
        assert server.visits == 1
        clock.sleep(31)
        refusal(lambda: verifier.keys.key("made-up"))
        assert server.visits == 2

    def test_new_key_is_found(
        self, server: KeyServer, clock: MovableClock, verifier: TokenVerifier
    ) -> None:
        verifier.keys.key("k1")
        server.document = forge.jwks(forge.jwk(forge.key("k2"), kid="k2"))
        clock.sleep(31)
        assert verifier.keys.key("k2").key_size == 2048
        assert isinstance(refusal(lambda: verifier.keys.key("k1")), UnauthenticatedError)

    def test_rotation_refuses_no_token_of_either_key(
        self, server: KeyServer, clock: MovableClock, verifier: TokenVerifier
    ) -> None:
        """The issuer publishes the new key beside the old one, signs with it, drops the old one."""
        old, new = (forge.jwk(forge.key(name), kid=name) for name in ("k1", "k2"))
        for document, signers in (
            ([old], ["k1"]),
            ([old, new], ["k1"]),
            ([old, new], ["k1", "k2"]),
            ([new], ["k2"]),
        ):
            server.document = forge.jwks(*document)
            clock.sleep(301)
            for signer in signers:
                token = Forge(int(clock.now().timestamp())).token(
                    signer=signer, header={"kid": signer}
                )
                assert auth.operator(verifier, bearer(token), "t").user_id == "user-1"
        gone = Forge(int(clock.now().timestamp())).token()
        assert refusal(lambda: auth.operator(verifier, bearer(gone), "t")).reason == "unknown_key"

    def test_no_address_in_a_token_is_asked(
        self, server: KeyServer, tokens: Forge, verifier: TokenVerifier
    ) -> None:
        evil = "https://evil.example/jwks"
        for name in ("jku", "x5u", "jwk"):
            token = tokens.token(header={name: evil})
            assert auth.operator(verifier, bearer(token), "t").user_id == "user-1"
        assert server.asked == {"https://issuer.example/jwks"}

    def test_new_key_while_the_issuer_is_down_is_503_and_known_ones_serve(
        self, server: KeyServer, clock: MovableClock, verifier: TokenVerifier
    ) -> None:
        verifier.keys.key("k1")
        server.up = False
        clock.sleep(31)
        error = refusal(lambda: verifier.keys.key("k2"))
        assert (error.status, error.retry_after_seconds) == (503, 30)
        assert verifier.keys.key("k1").key_size == 2048
        server.up = True
        clock.sleep(31)
        assert refusal(lambda: verifier.keys.key("k2")).status == 401

    def test_slow_issuer_holds_up_nobody_whose_key_is_kept(
        self, server: KeyServer, clock: MovableClock, verifier: TokenVerifier
    ) -> None:
        verifier.keys.key("k1")
        clock.sleep(600)
        server.gate = threading.Event()
        slow = threading.Thread(target=verifier.keys.key, args=("k1",))
        slow.start()
        while server.visits < 2:
            pass
        assert verifier.keys.key("k1").key_size == 2048
        assert slow.is_alive()
        server.gate.set()
        slow.join()
        assert server.visits == 2

    def test_last_good_keys_serve_for_a_day_while_the_issuer_is_down(
        self, server: KeyServer, clock: MovableClock, verifier: TokenVerifier
    ) -> None:
        verifier.keys.key("k1")
        server.up = False
        clock.sleep(timedelta(hours=23, minutes=59).total_seconds())
        assert verifier.keys.key("k1").key_size == 2048
        clock.sleep(120)
        assert isinstance(refusal(lambda: verifier.keys.key("k1")), StorageUnavailableError)

    def test_issuer_that_was_never_reached_is_no_fault_of_the_caller(
        self, server: KeyServer, verifier: TokenVerifier
    ) -> None:
        server.up = False
        assert refusal(lambda: verifier.keys.key("k1")).status == 503

    @pytest.mark.parametrize(
        "document", [b"", b"<html>", b"[]", b'{"keys":7}', b'{"keys":[7,{}]}', b"[" * 10_000]
    )
    def test_broken_key_set_is_not_used(
        self, document: bytes, server: KeyServer, clock: MovableClock, verifier: TokenVerifier
    ) -> None:
        verifier.keys.key("k1")
        server.document = document
        clock.sleep(600)
        assert verifier.keys.key("k1").key_size == 2048

    def test_weak_and_foreign_keys_are_passed_over(self) -> None:
        document = forge.jwks(
            forge.jwk(forge.key("weak", 1024), kid="weak"),
            forge.jwk(forge.key("k1"), kid="enc", use="enc"),
            forge.jwk(forge.key("k1"), kid="ps", alg="PS256"),
            {"kty": "oct", "k": "c2VjcmV0", "kid": "hmac"},
            {"kty": "RSA", "kid": "half", "e": "AQAB"},
            forge.jwk(forge.key("k1"), kid="good"),
        )
        assert set(rsa_keys(document)) == {"good"}


class TestServices:
    def google(self, tokens: Forge, **changed: object) -> str:
        claims: dict[str, object] = {
            "iss": "https://accounts.google.com",
            "aud": "https://push.example",
            "email": "bus@p.iam.gserviceaccount.com",
            "email_verified": True,
            **changed,
        }
        return tokens.token(tokens.text("org", "role", "nbf", **claims), header={"typ": "JWT"})

    @pytest.fixture
    def verifier(self, server: KeyServer, clock: MovableClock) -> TokenVerifier:
        return TokenVerifier(GOOGLE, server.keys(clock), clock)

    def let_in(self, verifier: TokenVerifier, token: str, function: str = "import_members") -> None:
        auth.service(verifier, ACCOUNTS, function, bearer(token))

    @pytest.mark.parametrize("function", sorted(CALLERS))
    @pytest.mark.parametrize("account", ["bus", "clock", "both"])
    def test_each_function_has_its_own_callers(
        self, account: str, function: str, verifier: TokenVerifier, tokens: Forge
    ) -> None:
        token = self.google(tokens, email=f"{account}@p.iam.gserviceaccount.com")
        if account in CALLERS[function]:
            self.let_in(verifier, token, function)
        else:
            assert refusal(lambda: self.let_in(verifier, token, function)).status == 403

    @pytest.mark.parametrize(
        ("status", "changed"),
        [
            (401, {"aud": "https://other.example"}),
            (401, {"aud": ""}),
            (401, {"iss": "https://accounts.google.com.evil"}),
            (401, {"iss": "http://accounts.google.com"}),
            (401, {"email": ""}),
            (401, {"email": ["bus@p.iam.gserviceaccount.com"]}),
            (401, {"exp": 1}),
            (403, {"email": "other@p.iam.gserviceaccount.com"}),
            (403, {"email": "BUS@p.iam.gserviceaccount.com"}),
            (403, {"email": "import_members=bus@p.iam.gserviceaccount.com"}),
            (403, {"email": "*"}),
            (403, {"email_verified": False}),
            (403, {"email_verified": "true"}),
            (403, {"email_verified": None}),
        ],
    )
    def test_other_google_tokens_stay_out(
        self, status: int, changed: dict[str, object], verifier: TokenVerifier, tokens: Forge
    ) -> None:
        token = self.google(tokens, **changed)
        assert refusal(lambda: self.let_in(verifier, token)).status == status

    def test_token_of_another_key_stays_out(self, verifier: TokenVerifier, tokens: Forge) -> None:
        head, payload, _ = self.google(tokens).split(".")
        signature = tokens.token(signer="other").split(".")[2]
        token = f"{head}.{payload}.{signature}"
        assert refusal(lambda: self.let_in(verifier, token)).reason == "signature"

    def test_removed_signature_counts_only_behind_a_platform_that_checks(
        self, verifier: TokenVerifier, tokens: Forge
    ) -> None:
        def removed(**changed: object) -> str:
            return self.google(tokens, **changed).rpartition(".")[0] + "." + auth.REMOVED_SIGNATURE

        behind = dataclasses.replace(verifier, signatures_removed=True)
        assert refusal(lambda: self.let_in(verifier, removed())).reason == "signature"
        self.let_in(behind, removed())
        self.let_in(behind, self.google(tokens))
        assert refusal(lambda: self.let_in(behind, removed(aud="x"))).status == 401
        assert refusal(lambda: self.let_in(behind, removed(email="x@y"))).status == 403
        forged = self.google(tokens)[:-4] + "AAAA"
        assert refusal(lambda: self.let_in(behind, forged)).reason == "signature"

    def test_without_settings_nobody_comes_in(self, server: KeyServer, clock: MovableClock) -> None:
        tokens = Forge(int(clock.now().timestamp()))
        nobody = Deliverers.parsed("")
        open_policy = dataclasses.replace(GOOGLE, audience="")
        unset = TokenVerifier(open_policy, server.keys(clock), clock)
        for verifier, token in (
            (TokenVerifier(GOOGLE, server.keys(clock), clock), self.google(tokens)),
            (unset, self.google(tokens, aud="")),
        ):
            error = refusal(partial(auth.service, verifier, nobody, "run_due", bearer(token)))
            assert error.status in (401, 403)

    def test_operators_token_does_not_deliver_messages(
        self, verifier: TokenVerifier, tokens: Forge
    ) -> None:
        assert refusal(lambda: self.let_in(verifier, tokens.token())).status == 401


class TestEmbeddedIssuer:
    @pytest.fixture
    def issuer(self, tmp_path: Path, clock: MovableClock) -> EmbeddedIssuer:
        return EmbeddedIssuer(tmp_path / "data", clock)

    @pytest.fixture
    def own(self, issuer: EmbeddedIssuer, clock: MovableClock) -> TokenVerifier:
        policy = TokenPolicy(
            (issuer.issuer,), issuer.audience, frozenset({"at+jwt"}), ("sub", "org")
        )
        return TokenVerifier(policy, issuer, clock)

    def test_minted_token_is_good_for_an_hour(
        self, issuer: EmbeddedIssuer, own: TokenVerifier, clock: MovableClock
    ) -> None:
        token = issuer.token("acme", "ann", Role.APPROVER)
        assert auth.operator(own, bearer(token), "t").role is Role.APPROVER
        clock.sleep(3631)
        assert refusal(lambda: auth.operator(own, bearer(token), "t")).reason == "expired"

    def test_longer_life_is_refused(self, issuer: EmbeddedIssuer) -> None:
        with pytest.raises(ValidationError):
            issuer.token("acme", "ann", Role.VIEWER, timedelta(hours=2))

    def test_service_token_opens_message_doors_only(
        self, issuer: EmbeddedIssuer, own: TokenVerifier
    ) -> None:
        service = issuer.service_token("run_due")
        auth.service(own, None, "run_due", bearer(service))
        with pytest.raises(ForbiddenError):
            auth.service(own, None, "import_members", bearer(service))
        with pytest.raises(ForbiddenError):
            auth.operator(own, bearer(service), "t")
        operator = issuer.token("acme", "ann", Role.ADMIN)
        with pytest.raises(ForbiddenError):
            auth.service(own, None, "run_due", bearer(operator))

    def test_key_file_is_private_and_made_once(self, tmp_path: Path, clock: MovableClock) -> None:
        issuers = [EmbeddedIssuer(tmp_path / "data", clock) for _ in range(4)]
        found: list[str] = []
        threads = [
            threading.Thread(target=lambda one=issuer: found.append(one.key_id))
            for issuer in issuers
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(found) == 4
        assert len(set(found)) == 1
        assert stat.S_IMODE((tmp_path / "data" / KEY_FILE).stat().st_mode) == 0o600
        assert [path.name for path in (tmp_path / "data").iterdir()] == [KEY_FILE]

    def test_token_of_another_folder_is_refused(
        self, own: TokenVerifier, tmp_path: Path, clock: MovableClock
    ) -> None:
        stranger = EmbeddedIssuer(tmp_path / "elsewhere", clock)
        token = stranger.token("acme", "ann", Role.ADMIN)
        assert refusal(lambda: auth.operator(own, bearer(token), "t")).reason == "unknown_key"
