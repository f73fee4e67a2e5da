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


def mixed_jwks() -> bytes:
    """The good key, among others that no token may be signed with."""
    return jwks(
        jwk(key("k1"), kid="k1", use="sig", alg="RS256"),
        {"kty": "EC", "crv": "P-256", "kid": "ec", **dict.fromkeys("xy", "A" * 43)},
        {"kty": "oct", "k": packed(b"secret"), "kid": "oct"},
        jwk(key("k1"), kid="twice"),
        jwk(key("other"), kid="twice"),
        jwk(key("k1"), kid="enc", use="enc"),
    )


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
        given = {"alg": alg, "typ": "at+jwt", "kid": "k1", **(header or {})}
        head = {name: value for name, value in given.items() if value is not None}
        body = self.text(**changed) if payload is None else payload
        signed = f"{packed(json.dumps(head).encode())}.{packed(body)}"
        if alg == "none":
            return signed + "."
        if alg == "HS256":
            return f"{signed}.{packed(hmac.new(secret, signed.encode(), hashlib.sha256).digest())}"
        algorithm = jwt.algorithms.get_default_algorithms()[alg]
        return f"{signed}.{packed(algorithm.sign(signed.encode(), key(signer)))}"


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
        "kid empty": forge.token(header={"kid": ""}),
        "no kid": forge.token(header={"kid": None}),
        "RS512 with the right key": forge.token(alg="RS512"),
        "PS256 with the right key": forge.token(alg="PS256"),
        "x5u header": forge.token(signer="other", header={"x5u": "https://evil.example/x"}),
        "x5c header": forge.token(signer="other", header={"x5c": ["MIIB"]}),
        "kid of an EC key": forge.token(header={"kid": "ec"}),
        "kid of a shared secret": forge.token(alg="HS256", header={"kid": "oct"}, secret=b"secret"),
        "kid of two keys": forge.token(header={"kid": "twice"}),
        "kid of a key for encryption": forge.token(header={"kid": "enc"}),
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
        "exp of 400 digits": forge.token(exp=10**400),
        "iat of 400 digits": forge.token(iat=-(10**400)),
        "exp before iat": forge.token(exp=now + 10, iat=now + 20),
        "nbf as text": forge.token(nbf="now"),
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
        "five parts": good + ".x.y",
        "signature said to be removed": f"{head}.{payload}.SIGNATURE_REMOVED_BY_GOOGLE",
        "padded parts": f"{head}=.{payload}.{signature}",
        "just too long": forge.token(pad="a" * 6000),
        "one MiB": forge.token(pad="a" * 1_000_000),
        "nul byte": good + "\0",
        "not ASCII": good + "é",
        "nothing": "",
        "one dot": ".",
        "two dots": "..",
    }
