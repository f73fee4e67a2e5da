"""The contract of the port Vault; each back-end's test file runs it unchanged."""

from __future__ import annotations

import traceback
from dataclasses import dataclass
from typing import Protocol

import pytest

from activation.errors import CredentialUnreadableError, StorageUnavailableError
from activation.ports import Vault

CONTEXT = ("platform-credentials", "org-a", "platform-1", "7")
SECRET = b'{"access_token": "s3cret-\xf0\x9f\x94\x91"}'


class Keys(Protocol):
    """What a test may do to the keys behind a vault."""

    def rotate(self) -> None: ...

    def lose_first_version(self) -> None: ...

    def break_down(self) -> None: ...


@dataclass(frozen=True)
class Bench:
    """A vault with its keys at hand."""

    vault: Vault
    keys: Keys


def parts(sealed: str) -> tuple[str, str, str]:
    """Key version, wrapped key, and what a rewrap must not touch."""
    _, _, version, wrapped, nonce, ciphertext, _ = sealed.split("$")
    return version, wrapped, nonce + ciphertext


class VaultContract:
    """Subclasses give `bench`."""

    @pytest.fixture
    def bench(self) -> Bench:
        raise NotImplementedError

    @pytest.fixture
    def vault(self, bench: Bench) -> Vault:
        return bench.vault

    @pytest.mark.parametrize("secret", [SECRET, b"", b"\x00" * 5000])
    def test_what_was_sealed_opens(self, vault: Vault, secret: bytes) -> None:
        assert vault.open(vault.seal(secret, CONTEXT), CONTEXT) == secret

    def test_another_plaintext_goes_under_the_same_data_key(self, vault: Vault) -> None:
        sealed = vault.seal(SECRET, CONTEXT)
        again = vault.reseal(sealed, b"other", CONTEXT)
        assert vault.open(again, CONTEXT) == b"other"
        assert parts(again)[:2] == parts(sealed)[:2]
        assert vault.open(vault.rewrap(again, CONTEXT), CONTEXT) == b"other"
        assert vault.reseal(sealed, b"other", CONTEXT) != again, "the nonce is another one"

    def test_what_does_not_open_cannot_be_resealed(self, vault: Vault) -> None:
        sealed = vault.seal(SECRET, CONTEXT)
        for text, context in ((sealed, ("other",)), (sealed[:-2], CONTEXT), ("", CONTEXT)):
            with pytest.raises(CredentialUnreadableError):
                vault.reseal(text, b"other", context)

    def test_a_sealed_text_says_its_format_and_key(self, vault: Vault) -> None:
        sealed = vault.seal(SECRET, CONTEXT)
        assert sealed.startswith("v1$")
        assert sealed.isascii()
        assert sealed.isprintable()
        assert " " not in sealed
        assert parts(sealed)[0] == "1"

    def test_no_two_sealed_texts_share_key_nonce_or_ciphertext(self, vault: Vault) -> None:
        first, second = (vault.seal(SECRET, CONTEXT).split("$")[3:] for _ in range(2))
        assert not set(first) & set(second)

    @pytest.mark.parametrize("position", range(len(CONTEXT)))
    def test_another_context_does_not_open(self, vault: Vault, position: int) -> None:
        sealed = vault.seal(SECRET, CONTEXT)
        for other in ("", "org-b", CONTEXT[position] + "x", CONTEXT[position][:-1]):
            context = (*CONTEXT[:position], other, *CONTEXT[position + 1 :])
            with pytest.raises(CredentialUnreadableError):
                vault.open(sealed, context)
            with pytest.raises(CredentialUnreadableError):
                vault.rewrap(sealed, context)

    @pytest.mark.parametrize(
        "context",
        [
            CONTEXT[:-1],
            (*CONTEXT, ""),
            CONTEXT[::-1],
            (":".join(CONTEXT),),
            (CONTEXT[0] + CONTEXT[1], "", *CONTEXT[2:]),
            (CONTEXT[0] + ":" + CONTEXT[1], *CONTEXT[2:]),
            (),
        ],
    )
    def test_a_context_cut_otherwise_does_not_open(
        self, vault: Vault, context: tuple[str, ...]
    ) -> None:
        with pytest.raises(CredentialUnreadableError):
            vault.open(vault.seal(SECRET, CONTEXT), context)

    def test_secrets_do_not_swap_places(self, vault: Vault) -> None:
        places = [("c", org, platform, v) for org in "ab" for platform in "pq" for v in "12"]
        sealed = {place: vault.seal("/".join(place).encode(), place) for place in places}
        for place in places:
            assert vault.open(sealed[place], place) == "/".join(place).encode()
            for other in set(places) - {place}:
                with pytest.raises(CredentialUnreadableError):
                    vault.open(sealed[other], place)

    def test_parts_do_not_swap_between_texts(self, vault: Vault) -> None:
        first, second = (vault.seal(secret, CONTEXT).split("$") for secret in (b"one", b"two"))
        for position in range(3, len(first)):
            mixed = [*first[:position], second[position], *first[position + 1 :]]
            with pytest.raises(CredentialUnreadableError):
                vault.open("$".join(mixed), CONTEXT)

    def test_a_change_of_any_byte_is_noticed(self, vault: Vault) -> None:
        sealed = vault.seal(SECRET, CONTEXT)
        for position, letter in enumerate(sealed):
            for bit in (0, 1, 6):
                changed = chr(ord(letter) ^ 1 << bit)
                with pytest.raises(CredentialUnreadableError):
                    vault.open(sealed[:position] + changed + sealed[position + 1 :], CONTEXT)

    def test_a_text_that_is_cut_or_longer_does_not_open(self, vault: Vault) -> None:
        sealed = vault.seal(SECRET, CONTEXT)
        strange = [sealed[:end] for end in range(0, len(sealed), 7)]
        strange += [sealed + end for end in ("A", "=", "$", "\n", "$A", "é")]
        for text in [*strange, "v1", "v1$$$$$$", " " + sealed, "v2" + sealed[2:]]:
            with pytest.raises(CredentialUnreadableError):
                vault.open(text, CONTEXT)

    def test_old_secrets_open_after_rotation(self, bench: Bench) -> None:
        old = bench.vault.seal(SECRET, CONTEXT)
        bench.keys.rotate()
        new = bench.vault.seal(SECRET, CONTEXT)
        assert (parts(old)[0], parts(new)[0]) == ("1", "2")
        assert bench.vault.open(old, CONTEXT) == bench.vault.open(new, CONTEXT) == SECRET

    def test_rewrap_moves_to_the_new_key_and_keeps_the_ciphertext(self, bench: Bench) -> None:
        old = bench.vault.seal(SECRET, CONTEXT)
        bench.keys.rotate()
        new = bench.vault.rewrap(old, CONTEXT)
        assert (parts(old)[0], parts(new)[0]) == ("1", "2")
        assert parts(old)[1] != parts(new)[1]
        assert parts(old)[2] == parts(new)[2]
        bench.keys.lose_first_version()
        assert bench.vault.open(new, CONTEXT) == SECRET
        for lost in (bench.vault.open, bench.vault.rewrap):
            with pytest.raises(CredentialUnreadableError):
                lost(old, CONTEXT)

    def test_without_the_key_service_nothing_is_said(self, bench: Bench) -> None:
        sealed = bench.vault.seal(SECRET, CONTEXT)
        bench.vault.ping()
        bench.keys.break_down()
        with pytest.raises(StorageUnavailableError):
            bench.vault.seal(SECRET, CONTEXT)
        for read in (bench.vault.open, bench.vault.rewrap):
            with pytest.raises(StorageUnavailableError):
                read(sealed, CONTEXT)
        with pytest.raises(StorageUnavailableError):
            bench.vault.ping()

    def test_no_text_shows_a_secret(self, vault: Vault) -> None:
        sealed = vault.seal(SECRET, CONTEXT)
        with pytest.raises(CredentialUnreadableError) as caught:
            vault.open(sealed, ("elsewhere",))
        told = "".join(traceback.format_exception(caught.value)) + repr(vault) + str(vault) + sealed
        for hidden in ("s3cret", repr(SECRET), SECRET.hex()):
            assert hidden not in told
