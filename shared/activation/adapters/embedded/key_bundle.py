"""The keys of a store, sealed by a passphrase: scrypt makes the key, AES-256-GCM seals."""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path

from activation.adapters.embedded.key_file import KeyFile
from activation.adapters.embedded.keys import LocalKeys
from activation.errors import CredentialUnreadableError, ValidationError

KEY_FILES = ("keys.json", "signing-key.pem", "issuer-key.pem", "issuer-keys.json")
"""Without the first one, neither credentials nor suppression lists can be opened."""
MIN_PASSPHRASE = 12
SCRYPT = {"n": 2**15, "r": 8, "p": 1, "maxmem": 64 * 1024 * 1024, "dklen": 32}
SALT_BYTES, NONCE_BYTES = 16, 12
PURPOSE = b"activation/store-keys/v1"


def fingerprint(folder: Path) -> str:
    """What tells the keys of a data folder from others, and lets nobody find them."""
    return LocalKeys(folder / KEY_FILES[0]).derived("backups").hex()[:16]


def found_keys(folder: Path) -> dict[str, bytes]:
    """The key files of a folder that are there."""
    contents = {name: KeyFile(folder / name).found() for name in KEY_FILES}
    return {name: content for name, content in contents.items() if content is not None}


def put_keys(folder: Path, keys: Mapping[str, bytes]) -> None:
    """Put key files into a folder, for their owner only."""
    for name in KEY_FILES:
        if name in keys:
            KeyFile(folder / name).made(keys[name])


def sealed(keys: Mapping[str, bytes], passphrase: str) -> bytes:
    """Key files that only the passphrase opens. ValidationError for one that is too short."""
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    if len(passphrase) < MIN_PASSPHRASE:
        raise ValidationError(
            f"A passphrase needs {MIN_PASSPHRASE} characters or more.", field="passphrase"
        )
    salt, nonce = os.urandom(SALT_BYTES), os.urandom(NONCE_BYTES)
    plain = json.dumps({name: base64.b64encode(key).decode() for name, key in keys.items()})
    return salt + nonce + AESGCM(_key(passphrase, salt)).encrypt(nonce, plain.encode(), PURPOSE)


def opened(bundle: bytes, passphrase: str) -> dict[str, bytes]:
    """The key files of a bundle; CredentialUnreadableError when the passphrase is another one."""
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    salt, nonce = bundle[:SALT_BYTES], bundle[SALT_BYTES : SALT_BYTES + NONCE_BYTES]
    content = bundle[SALT_BYTES + NONCE_BYTES :]
    try:
        plain = AESGCM(_key(passphrase, salt)).decrypt(nonce, content, PURPOSE)
    except InvalidTag as error:
        raise CredentialUnreadableError("The passphrase does not open the keys.") from error
    return {name: base64.b64decode(text) for name, text in json.loads(plain).items()}


def _key(passphrase: str, salt: bytes) -> bytes:
    return hashlib.scrypt(passphrase.encode(), salt=salt, **SCRYPT)
