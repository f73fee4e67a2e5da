"""The sealed text and its associated data."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from activation.adapters.envelope import EnvelopeVault, Sealed, associated_data
from activation.errors import CredentialUnreadableError

TEXTS = st.lists(st.text(alphabet="a:$\x00\xe9", max_size=4), max_size=4)


@dataclass(frozen=True)
class NamedKeys:
    """A provider that does not encrypt, so that a test sees what the vault binds."""

    name: str = "keys/named"

    def wrap(self, data_key: bytes, aad: bytes) -> tuple[bytes, str]:
        return len(aad).to_bytes(2, "big") + aad + data_key, "3"

    def unwrap(self, wrapped: bytes, aad: bytes) -> bytes:
        if wrapped[2:].startswith(aad):
            return wrapped[2 + len(aad) :]
        raise CredentialUnreadableError("Not with this.")

    def ping(self) -> None:
        """Always there."""


@given(TEXTS, TEXTS)
def test_two_contexts_have_the_same_bytes_only_when_they_are_equal(
    one: list[str], other: list[str]
) -> None:
    assert (associated_data(one) == associated_data(other)) == (one == other)


def test_joining_would_let_contexts_collide() -> None:
    one, other = ("platform:a", "b"), ("platform", "a:b")
    assert ":".join(one) == ":".join(other)
    assert associated_data(one) != associated_data(other)


@given(st.binary(max_size=50), st.binary(max_size=50))
def test_a_sealed_text_is_read_as_it_was_written(wrapped: bytes, tag: bytes) -> None:
    sealed = Sealed("keys/local", "12", wrapped, b"n" * 12, b"", tag)
    assert Sealed.parsed(str(sealed)) == sealed


@given(st.text(max_size=60).filter(lambda text: text.count("$") < 3))
def test_any_other_text_is_refused(text: str) -> None:
    for strange in (text, f"v1${text}", f"v1$k$1${text}"):
        with pytest.raises(CredentialUnreadableError):
            Sealed.parsed(strange)


@pytest.mark.parametrize("last", ["AB", "A=", "A A", "+A"])
def test_one_value_has_one_spelling(last: str) -> None:
    assert Sealed.parsed("v1$k$1$AA$AA$AA$AA").tag == b"\x00"
    with pytest.raises(CredentialUnreadableError):
        Sealed.parsed(f"v1$k$1$AA$AA$AA${last}")


@pytest.mark.parametrize(("field", "value"), [(1, "keys/other"), (2, "4")])
def test_name_and_version_of_the_key_are_bound(field: int, value: str) -> None:
    vault = EnvelopeVault(NamedKeys())
    fields = vault.seal(b"secret", ["a"]).split("$")
    fields[field] = value
    with pytest.raises(CredentialUnreadableError):
        vault.open("$".join(fields), ["a"])


def test_a_secret_of_another_key_does_not_open() -> None:
    sealed = EnvelopeVault(NamedKeys("keys/one")).seal(b"secret", ["a"])
    with pytest.raises(CredentialUnreadableError):
        EnvelopeVault(NamedKeys("keys/two")).open(sealed, ["a"])


def test_the_wrapped_key_is_bound_to_the_context() -> None:
    vault = EnvelopeVault(NamedKeys())
    wrapped = Sealed.parsed(vault.seal(b"secret", ["org-a", "platform-1"])).wrapped
    assert b"\x00\x05org-a\x00\x00\x00\x0aplatform-1" in wrapped


def test_a_data_key_is_used_once() -> None:
    vault = EnvelopeVault(NamedKeys())
    wrapped = {Sealed.parsed(vault.seal(b"same", ["a"])).wrapped for _ in range(50)}
    assert len(wrapped) == 50
