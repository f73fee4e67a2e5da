"""Keys of the embedded back-end: one file, mode 0600, that holds every version of one key."""

from __future__ import annotations

import base64
import hmac
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from activation.adapters.embedded.disk import failures_named, locked
from activation.adapters.embedded.key_file import KeyFile, damaged
from activation.adapters.envelope import NONCE_BYTES, unreadable

KEY_BYTES = 32
VERSION_BYTES = 4


@dataclass(frozen=True, slots=True)
class LocalKeys:
    """KeyProvider on a key file, made on first use; lose the file and the secrets are lost.

    The file is read anew for each call, so a rotation by another process counts at once. Raises
    StorageUnavailableError when the file cannot be used, or others than its owner may read it.
    """

    path: Path

    @property
    def name(self) -> str:
        """The key's name in sealed texts."""
        return "local"

    def wrap(self, data_key: bytes, aad: bytes) -> tuple[bytes, str]:
        """Encrypt a data key with the newest version."""
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        keys = self._found_or_made()
        version = max(keys)
        head, nonce = version.to_bytes(VERSION_BYTES, "big"), os.urandom(NONCE_BYTES)
        wrapped = AESGCM(keys[version]).encrypt(nonce, data_key, head + aad)
        return head + nonce + wrapped, str(version)

    def unwrap(self, wrapped: bytes, aad: bytes) -> bytes:
        """Decrypt a data key with the version that wrapped it."""
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        head, rest = wrapped[:VERSION_BYTES], wrapped[VERSION_BYTES:]
        key = self._found().get(int.from_bytes(head, "big"))
        if key is None:
            raise unreadable()
        try:
            return AESGCM(key).decrypt(rest[:NONCE_BYTES], rest[NONCE_BYTES:], head + aad)
        except (InvalidTag, ValueError) as error:
            raise unreadable() from error

    def rotate(self) -> str:
        """Add a version that wraps from now on, and return it; old versions still unwrap."""
        self._found_or_made()
        with failures_named(), locked(self.path.parent):
            keys = self._found()
            version = max(keys) + 1
            self._file.replaced(_encoded({**keys, version: os.urandom(KEY_BYTES)}))
        return str(version)

    def derived(self, purpose: str) -> bytes:
        """32 bytes for another purpose, the same for as long as the file lives."""
        keys = self._found_or_made()
        return hmac.digest(keys[min(keys)], purpose.encode(), "sha256")

    def ping(self) -> None:
        """Return when the key file can be used."""
        self._found_or_made()

    def _found_or_made(self) -> Mapping[int, bytes]:
        return self._found() or self._made()

    def _found(self) -> Mapping[int, bytes]:
        """All versions; none when there is no file."""
        content = self._file.found()
        return {} if content is None else _decoded(content)

    def _made(self) -> Mapping[int, bytes]:
        self._file.made(_encoded({1: os.urandom(KEY_BYTES)}))
        return self._found()

    @property
    def _file(self) -> KeyFile:
        return KeyFile(self.path)


def _encoded(keys: Mapping[int, bytes]) -> bytes:
    text = {str(version): base64.b64encode(key).decode() for version, key in keys.items()}
    return json.dumps({"keys": text}).encode()


def _decoded(data: bytes) -> Mapping[int, bytes]:
    try:
        keys = json.loads(data)["keys"]
        return {int(version): base64.b64decode(keys[version]) for version in keys}
    except (ValueError, KeyError, TypeError) as error:
        raise damaged() from error
