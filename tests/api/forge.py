"""Makes tokens, good and hostile, with keys of its own."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from dataclasses import dataclass
from functools import cache
from typing import Any

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

ISSUER = "https://issuer.example/"
AUDIENCE = "audience-activation"


@cache
def key(name: str, bits: int = 2048) -> rsa.RSAPrivateKey:
    """An RSA key that stays the same for a name."""
    assert name
    return rsa.generate_private_key(public_exponent=65537, key_size=bits)


def public_pem(private: rsa.RSAPrivateKey) -> bytes:
    return private.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def jwk(private: rsa.RSAPrivateKey, **fields: Any) -> dict[str, Any]:
    return {**json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(private.public_key())), **fields}


def jwks(*entries: dict[str, Any]) -> bytes:
    return json.dumps({"keys": entries}).encode()


def packed(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


@dataclass(frozen=True)
class Forge:
    """Tokens around one good set of claims, as of `now` (seconds)."""

    now: int

    @property
    def good(self) -> dict[str, Any]:
        return {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": "user-1",
            "org": "t1",
            "role": "editor",
            "exp": self.now + 600,
            "iat": self.now,
            "nbf": self.now - 5,
        }

    def text(self, *dropped: str, **changed: Any) -> bytes:
        claims = {**self.good, **changed}
        return json.dumps({k: v for k, v in claims.items() if k not in dropped}).encode()

    def token(
        self,
        payload: bytes | None = None,
        header: dict[str, Any] | None = None,
        signer: str = "k1",
        alg: str = "RS256",
        secret: bytes = b"",
        **changed: Any,
    ) -> str:
        head = {"alg": alg, "typ": "at+jwt", "kid": "k1", **(header or {})}
        body = self.text(**changed) if payload is None else payload
        signed = f"{packed(json.dumps(head).encode())}.{packed(body)}"
        if alg == "none":
            return signed + "."
        if alg == "HS256":
            return f"{signed}.{packed(hmac.new(secret, signed.encode(), hashlib.sha256).digest())}"
        rs256 = jwt.algorithms.get_default_algorithms()["RS256"]
        return f"{signed}.{packed(rs256.sign(signed.encode(), key(signer)))}"


def hostile(forge: Forge) -> dict[str, str]:
    """Every token that must be refused, by what is wrong with it."""
    now, good = forge.now, forge.token()
    head, payload, signature = good.split(".")
    pem, public = public_pem(key("k1")), json.dumps(jwk(key("k1"))).encode()
    text = forge.text().decode()
    two_algs = b'{"alg":"none","alg":"RS256","typ":"at+jwt","kid":"k1"}'
    return {
        "alg none": forge.token(alg="none"),
        "alg NoNe": forge.token(alg="none", header={"alg": "NoNe"}),
        "HS256 with the public PEM": forge.token(alg="HS256", secret=pem),
        "HS256 with the public JWK": forge.token(alg="HS256", secret=public),
        "signed by another key": forge.token(signer="other"),
        "embedded jwk": forge.token(signer="other", header={"jwk": jwk(key("other"))}),
        "jku header": forge.token(signer="other", header={"jku": "https://evil.example/jwks"}),
        "unknown kid": forge.token(header={"kid": "zzz"}),
        "kid traversal": forge.token(header={"kid": "../../dev/null"}),
        "kid not text": forge.token(header={"kid": 7}),
        "unknown crit": forge.token(header={"crit": ["x-unknown"], "x-unknown": 1}),
        "b64 false": forge.token(header={"b64": False, "crit": ["b64"]}),
        "expired": forge.token(exp=now - 100),
        "expired beyond the leeway": forge.token(exp=now - 31, iat=now - 600),
        "nbf in the future": forge.token(nbf=now + 3600),
        "iat in the future": forge.token(iat=now + 3600, exp=now + 4000),
        "no exp": forge.token(forge.text("exp")),
        "no iat": forge.token(forge.text("iat")),
        "no aud": forge.token(forge.text("aud")),
        "no iss": forge.token(forge.text("iss")),
        "no sub": forge.token(forge.text("sub")),
        "no org": forge.token(forge.text("org")),
        "wrong aud": forge.token(aud="other"),
        "prefix of the aud": forge.token(aud="audience"),
        "wrong iss": forge.token(iss="https://issuer.example.evil/"),
        "part of the iss": forge.token(iss="https://issuer"),
        "exp as text": forge.token(exp="never"),
        "exp true": forge.token(exp=True),
        "exp 1e400": forge.token(text.replace(str(now + 600), "1e400").encode()),
        "exp NaN": forge.token(text.replace(str(now + 600), "NaN").encode()),
        "lives 100 years": forge.token(exp=now + 3_153_600_000),
        "lives over an hour": forge.token(exp=now + 3700),
        "lives 24 hours": forge.token(exp=now + 90_000),
        "payload is a list": forge.token(b"[1]"),
        "payload is not JSON": forge.token(b"\xff\xfe"),
        "payload nests deeply": forge.token(b"[" * 5000),
        "header nests deeply": f"{packed(b'[' * 5000)}.{payload}.{signature}",
        "sub twice": forge.token((text[:-1] + ',"sub":"admin"}').encode()),
        "alg twice": f"{packed(two_algs)}.{payload}.{signature}",
        "sub not text": forge.token(sub=5),
        "sub empty": forge.token(sub=""),
        "org with a slash": forge.token(org="t1/../t2"),
        "org with a newline": forge.token(org="t1\n"),
        "unknown role": forge.token(role="root"),
        "ID token": forge.token(header={"typ": "JWT"}),
        "payload altered": f"{head}.{packed(forge.text(org='t2'))}.{signature}",
        "empty signature": f"{head}.{payload}.",
        "signature stripped": f"{head}.{payload}",
        "four parts": good + ".x",
        "one MiB": forge.token(pad="a" * 1_000_000),
        "nul byte": good + "\0",
        "not ASCII": good + "é",
        "nothing": "",
        "one dot": ".",
        "two dots": "..",
    }
