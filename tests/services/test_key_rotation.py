"""Keys at rest are replaced while everything that they guard stays readable and in force."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from activation.adapters.embedded.signing import LocalSigner
from activation.app import App
from activation.domain.caller import Caller
from activation.domain.platform import Platform, PlatformDraft
from activation.domain.suppression import GLOBAL, SuppressionReason
from activation.domain.webhook import WebhookDraft
from activation.errors import StorageUnavailableError
from activation.members.suppression_rows import KEY_BYTES, keyed
from activation.ports import Batch, Key, Query
from activation.services.key_rotation import Rewrapped
from activation.services.suppression_lists import KeptLists
from tests.conftest import caller_of
from tests.connectors.support import WEBHOOK_SECRET
from tests.services.test_suppressions import EMAIL, is_hit, reference, sha256, suppress

pytestmark = pytest.mark.embedded(reason="rotates the key file")


def platform(app: App, caller: Caller, name: str) -> Platform:
    draft = PlatformDraft.model_validate(
        {
            "platform_type": "webhook",
            "name": name,
            "credentials": {"signing_secret": WEBHOOK_SECRET},
            "settings": {"config": {"url": "http://127.0.0.1:9/in"}},
        }
    )
    return app.platforms.create(caller, draft).entity


@pytest.fixture
def platforms(app: App, ann: Caller, eve: Caller) -> list[Platform]:
    """Accounts of two organizations, a webhook with two secrets, and lists."""
    made = [platform(app, one, f"P{n}") for one in (ann, eve) for n in range(3)]
    hook = app.webhooks.create(ann, WebhookDraft.model_validate({"url": "http://127.0.0.1:9/in"}))
    app.webhooks.rotate(ann, hook[0].entity.webhook_id)
    suppress(app, ann, "a@b.de")
    suppress(app, caller_of(GLOBAL, "cli:operator"), "g@b.de")
    return made


def counts(done: list[Rewrapped]) -> dict[str, tuple[int, int, int, int]]:
    return {one.kind: (one.seen, one.rewrapped, one.current, one.unreadable) for one in done}


def require_readable(app: App, platforms: list[Platform]) -> None:
    for one in platforms:
        account, _ = app.dispatcher.accounts.opened(one)
        assert account.credentials == {"signing_secret": WEBHOOK_SECRET}
    assert is_hit(app, "acme", "a@b.de")
    assert is_hit(app, "evil-corp", "g@b.de")


def versions(app: App, organization_id: str = "acme") -> set[str]:
    found = app.documents.query(Query(organization_id, "credentials"))
    return {app.vault.key_version(one.data["sealed"]) for one in found}


def test_everything_is_wrapped_by_the_newest_version(app: App, platforms: list[Platform]) -> None:
    assert versions(app) == {"1"}
    pseudonym = app.erasure_marks.pseudonym("acme", "bob")
    app.local_keys.rotate()
    done = app.key_rotation.rewrap()
    assert {one.key_version for one in done} == {"2"}
    assert counts(done) == {
        "credentials": (6, 6, 0, 0),
        "webhook_secrets": (1, 1, 0, 0),
        "suppression_keys": (2, 2, 0, 0),
        "erasure_keys": (1, 1, 0, 0),
    }
    app.erasure_marks._keys.clear()
    assert app.erasure_marks.pseudonym("acme", "bob") == pseudonym
    assert versions(app) == versions(app, "evil-corp") == {"2"}
    require_readable(app, platforms)
    [secrets] = app.documents.query(Query("acme", "webhook_secrets"))
    [old] = secrets.data["old"]
    assert app.vault.key_version(secrets.data["sealed"]) == "2"
    assert app.vault.key_version(old["sealed"]) == "2"


def test_a_second_run_finds_nothing_to_do(app: App, platforms: list[Platform]) -> None:
    app.local_keys.rotate()
    app.key_rotation.rewrap()
    before = app.documents.query(Query("acme", "credentials"))
    assert counts(app.key_rotation.rewrap())["credentials"] == (6, 0, 6, 0)
    assert app.documents.query(Query("acme", "credentials")) == before


def test_a_run_that_was_stopped_goes_on(app: App, platforms: list[Platform]) -> None:
    app.local_keys.rotate()

    def stop(seen: int) -> None:
        if seen == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        app.key_rotation.rewrap(stop)
    assert counts(app.key_rotation.rewrap())["credentials"] == (6, 2, 4, 0)
    require_readable(app, platforms)


def test_what_does_not_open_is_counted_and_named_and_stays(
    app: App, ann: Caller, platforms: list[Platform]
) -> None:
    key = Key("acme", "credentials", platforms[0].platform_id)
    stored = app.platforms.secrets.get("acme", platforms[0].platform_id)
    other = app.platforms.secrets.get("acme", platforms[1].platform_id).entity.sealed
    moved = stored.entity.changed(sealed=other)
    app.documents.commit(Batch([stored.replaced_by(moved)]))
    app.local_keys.rotate()
    done = app.key_rotation.rewrap()[0]
    assert (done.rewrapped, done.unreadable) == (5, 1)
    assert done.unreadable_ids == [f"acme/{platforms[0].platform_id}"]
    found = app.documents.get(key)
    assert found is not None
    assert found.data["sealed"] == other


def test_credentials_that_are_entered_meanwhile_are_not_overwritten(
    app: App, ann: Caller, platforms: list[Platform]
) -> None:
    """Between our read and our commit their owner enters others."""
    app.local_keys.rotate()
    vault, rotation = app.vault, app.key_rotation

    class Slow:
        def __getattr__(self, name: str) -> object:
            return getattr(vault, name)

        def rewrap(self, sealed: str, context: tuple[str, ...]) -> str:
            if context[2] == platforms[0].platform_id and not entered:
                entered.append(1)
                app.platforms.delete(ann, platforms[0].platform_id)
            return vault.rewrap(sealed, context)

    entered: list[int] = []
    done = replace(rotation, vault=Slow()).rewrap()[0]  # type: ignore[arg-type]
    assert (done.seen, done.gone, done.rewrapped) == (6, 1, 5)
    assert app.documents.get(Key("acme", "credentials", platforms[0].platform_id)) is None


def test_the_audit_log_tells_of_each_and_holds_no_secret(
    app: App, platforms: list[Platform]
) -> None:
    app.local_keys.rotate()
    app.key_rotation.rewrap()
    entries = [one.data for one in app.documents.query(Query("acme", "audit", limit=200))]
    told = [one for one in entries if one["action"] == "keys:rewrap"]
    assert len(told) == 5
    assert {one["details"]["key_version"] for one in told} == {"2"}
    assert "v1$" not in str(told)


# suppression lists ----------------------------------------------------------------------------


def fresh(app: App) -> None:
    """As another process, which has nothing in memory."""
    lists = replace(app.suppressions.lists, kept=KeptLists())
    app.__dict__["suppressions"] = replace(app.suppressions, lists=lists)


def test_a_list_under_another_key_says_the_same(app: App, ann: Caller) -> None:
    """Plus-addresses and points share forms, removals and stronger reasons have their say."""
    suppress(app, ann, "a.b@gmail.com", "ab@gmail.com", "c@d.ef", reason="opt_out")
    suppress(app, ann, "c@d.ef", reason="erasure")
    suppress(app, ann, "gone@b.de")
    app.suppressions.remove(ann, reference("gone@b.de"))
    status = app.suppressions.status(ann)
    before = app.suppressions.lists.heads("acme")[0].entity
    for rotation in range(1, 4):
        after = app.key_rotation.rekey_suppressions("acme")
        assert after is not None
        assert (after.size, after.by_reason) == (before.size, before.by_reason)
        assert len(app.suppressions.lists.key_of(after)) == (1 + rotation) * KEY_BYTES
        fresh(app)
        for address in ("a.b@gmail.com", "AB@gmail.com", "c@d.ef"):
            assert app.suppressions.check(ann, reference(address)).suppressed
        for address in ("gone@b.de", "d@d.ef"):
            assert not app.suppressions.check(ann, reference(address)).suppressed
        (finding,) = app.suppressions.check(ann, reference("c@d.ef")).findings
        assert finding.reason is SuppressionReason.ERASURE
    assert app.suppressions.status(ann).size == status.size
    assert app.suppressions.status(ann).epoch != status.epoch


def test_a_list_goes_on_under_another_key(app: App, ann: Caller) -> None:
    suppress(app, ann, "a.b@gmail.com", "ab@gmail.com", "c@d.ef")
    app.key_rotation.rekey_suppressions("acme")
    again = suppress(app, ann, "c@d.ef", "new@d.ef")
    assert (again.added, again.duplicate, again.size) == (1, 1, 4)
    assert app.suppressions.remove(ann, reference("a.b@gmail.com")).removed
    assert app.suppressions.check(ann, reference("a.b@gmail.com")).suppressed, "as ab@gmail.com"
    assert app.suppressions.remove(ann, reference("ab@gmail.com")).removed
    assert not app.suppressions.check(ann, reference("a.b@gmail.com")).suppressed
    fresh(app)
    assert is_hit(app, "acme", "new@d.ef")
    assert not is_hit(app, "acme", "a.b@gmail.com")


def test_the_old_key_finds_nothing_any_more(app: App, ann: Caller) -> None:
    """Whoever has stolen it cannot try identifiers on the list that there is now."""
    suppress(app, ann, "a@b.de")
    lists = app.suppressions.lists
    stolen = lists.key_of(lists.heads("acme")[0].entity)
    digest = bytes.fromhex(sha256("a@b.de"))

    def stored() -> set[tuple[int, ...]]:
        head = lists.heads("acme")[0].entity
        rows = [lists.parts.rows("acme", part) for part in head.parts]
        return {tuple(form) for table in rows for form in table.forms.tolist()}

    form = tuple(keyed(stolen, EMAIL, [digest])[0].tolist())
    assert form in stored()
    app.key_rotation.rekey_suppressions("acme")
    assert form not in stored()
    assert is_hit(app, "acme", "a@b.de")


def test_additions_while_a_list_gets_another_key(app: App, ann: Caller) -> None:
    """Whatever was acknowledged is in force afterwards, and nothing counts twice."""
    suppress(app, ann, *(f"p{n}@b.de" for n in range(50)))
    failures: list[BaseException] = []

    def run(act: Callable[[int], object]) -> None:
        try:
            for number in range(8):
                act(number)
        except Exception as error:  # noqa: BLE001 - the test tells
            failures.append(error)

    def add(number: int) -> None:
        suppress(app, ann, f"q{number}@b.de")

    acts = [add, lambda _n: app.key_rotation.rekey_suppressions("acme")]
    threads = [threading.Thread(target=run, args=(act,)) for act in acts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    fresh(app)
    everybody = [*(f"p{n}@b.de" for n in range(50)), *(f"q{n}@b.de" for n in range(8))]
    hits = app.suppressions.view("acme").hits({EMAIL: [sha256(one) for one in everybody]})
    assert hits == [*range(58)]
    assert app.suppressions.status(ann).size == 58


def test_another_process_that_is_faster_is_not_overwritten(
    app: App, ann: Caller, tmp_path: Path
) -> None:
    suppress(app, ann, "a@b.de")
    other = App(app.settings, app.clock)
    lists, done = app.suppressions.lists, list[int]()

    class Sealing:
        def __getattr__(self, name: str) -> object:
            return getattr(lists.vault, name)

        def seal(self, plaintext: bytes, context: tuple[str, ...]) -> str:
            if not done:
                done.append(1)
                suppress(other, ann, "faster@b.de")
            return lists.vault.seal(plaintext, context)

    slow = replace(lists, vault=Sealing())  # type: ignore[arg-type]
    after = replace(app.key_rotation, lists=slow).rekey_suppressions("acme")
    other.close()
    assert after is not None
    assert after.size == 2
    fresh(app)
    assert is_hit(app, "acme", "faster@b.de")


def test_who_has_no_list_gets_none(app: App) -> None:
    assert app.key_rotation.rekey_suppressions("acme") is None
    assert app.key_rotation.organizations_with_lists() == []


def test_a_list_that_cannot_be_read_stays_as_it_is(app: App, ann: Caller) -> None:
    suppress(app, ann, "a@b.de")
    head = app.suppressions.lists.heads("acme")[0]
    damaged = head.entity.changed(parts=(head.entity.parts[0].model_copy(update={"path": "x"}),))
    app.documents.commit(Batch([head.replaced_by(damaged)]))
    fresh(app)
    with pytest.raises(StorageUnavailableError):
        app.key_rotation.rekey_suppressions("acme")
    assert app.suppressions.lists.heads("acme")[0].entity == damaged


# evidence -------------------------------------------------------------------------------------


def test_old_evidence_is_checked_with_the_kept_public_key(tmp_path: Path) -> None:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    def verifies(pem: bytes, signature: bytes) -> bool:
        key = load_pem_public_key(pem)
        assert isinstance(key, ec.EllipticCurvePublicKey)
        try:
            key.verify(signature, b"pack", ec.ECDSA(SHA256()))
        except InvalidSignature:
            return False
        return True

    signer = LocalSigner(tmp_path / "signing-key.pem")
    old, signature = signer.key_id, signer.sign(b"pack")
    kept = signer.rotate()
    assert signer.key_id != old
    assert old.rpartition("/")[2] in kept.name
    assert verifies(kept.read_bytes(), signature)
    assert not verifies(signer.public_key().encode(), signature)
    assert verifies(signer.public_key().encode(), signer.sign(b"pack"))
    assert signer.rotate() != kept
