"""`activation keys`: which keys there are, and how they are replaced."""

from __future__ import annotations

import dataclasses
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import click

from activation.cli.group import Failure
from activation.cli.options import Group
from activation.cli.output import facts, moment, output, table
from activation.cli.stores import opened
from activation.errors import NotFoundError

if TYPE_CHECKING:
    from datetime import datetime

    from activation.api.issuer_keys import Pair
    from activation.app import App
    from activation.services.key_rotation import Rewrapped

WHY = "keys are replaced where they lie."
EPILOG = """\b
Examples:
  activation keys list
  activation keys rotate issuer
  activation keys rotate credentials
  activation keys rotate suppressions --list acme
  activation keys rewrap --json

Secrets of webhooks: activation webhooks rotate. docs/identity.md tells what each rotation does, and
what is done with the keys of Google Cloud.
"""


@click.group(cls=Group, epilog=EPILOG)
def keys() -> None:
    """Show and replace keys."""


@keys.command("list")
def list_keys() -> None:
    """Show which keys are in use; never a key."""
    with opened(WHY) as app:
        report = _report(app)
    output().answer(report, table(("what", "key"), [(name, key) for name, key in report.items()]))


@keys.command("jwks")
def jwks() -> None:
    """Print the public keys of the embedded issuer, as others read them (JWKS)."""
    import json

    from activation.api.issuer_keys import jwks as published

    with opened(WHY) as app:
        found = published(_issuer(app).keys.known())
    click.echo(json.dumps(found, indent=2))


@keys.command("rewrap")
def rewrap() -> None:
    """Wrap all that is sealed by the newest version of its key; goes on where it was stopped."""
    with opened(WHY) as app:
        done = _rewrapped(app)
    _told(done)


@keys.group(cls=Group)
def rotate() -> None:
    """Replace a key by a new one."""


@rotate.command("issuer")
@click.option(
    "--after",
    type=click.IntRange(0, 1440),
    default=5,
    show_default=True,
    metavar="MINUTES",
    help="The new key is known at once, and signs after this.",
)
def rotate_issuer(after: int) -> None:
    """Replace the key that signs tokens of the embedded issuer."""
    with opened(WHY) as app:
        issuer_keys = _issuer(app).keys
        made = issuer_keys.rotated(timedelta(minutes=after))
        known = issuer_keys.known()
    answer = {"key_id": made.key_id, "known": [_shown(one) for one in known]}
    lines = [f"New key [bold]{made.key_id}[/bold] signs from {moment(_instant(made.signs_from))}."]
    output().answer(answer, *lines, *_ends(known))


def _ends(known: list[Pair]) -> list[str]:
    return [
        f"Tokens of {one.key_id} are taken until {moment(_instant(one.known_until))}."
        for one in known
        if one.known_until is not None
    ]


@rotate.command("credentials")
def rotate_credentials() -> None:
    """Make a new version of the key that wraps credentials, and wrap everything by it."""
    with opened(WHY) as app:
        _require_embedded(app, "Cloud KMS makes versions itself; then: activation keys rewrap")
        app.local_keys.rotate()
        done = _rewrapped(app)
    _told(done)


@rotate.command("signing")
def rotate_signing() -> None:
    """Replace the key that signs evidence; the old public key is kept beside it."""
    from activation.adapters.embedded.signing import LocalSigner

    with opened(WHY) as app:
        _require_embedded(app, "make a version in Cloud KMS and set ACTIVATION_SIGNING_KEY to it")
        assert isinstance(app.signer, LocalSigner)
        old = app.signer.key_id
        kept = app.signer.rotate()
        answer = {"key_id": app.signer.key_id, "old_key_id": old, "old_public_key": str(kept)}
    output().answer(
        answer,
        facts({"key": answer["key_id"], "old key": old, "old public key": str(kept)}),
        "Packs that were signed before are checked with the old public key.",
    )


@rotate.command("suppressions")
@click.option(
    "--list",
    "names",
    multiple=True,
    metavar="ORGANIZATION",
    help="Whose list, may be given several times. Default: all, that of the installation too.",
)
def rotate_suppressions(names: tuple[str, ...]) -> None:
    """Put one more key on the entries of suppression lists; all of them stay in force."""
    with opened(WHY) as app:
        rotation = app.key_rotation
        wanted = list(names) or rotation.organizations_with_lists()
        done = [_rekeyed(app, name) for name in wanted]
    rows = [(one["organization_id"], one["size"], one["epoch"]) for one in done]
    output().answer(done, table(("list", "identifiers", "epoch"), rows))


def _rekeyed(app: App, name: str) -> dict[str, Any]:
    after = app.key_rotation.rekey_suppressions(name)
    if after is None:
        raise NotFoundError(f"There is no suppression list of {name!r}.", reason="not_found")
    return {"organization_id": name, "size": after.size, "epoch": after.epoch}


def _rewrapped(app: App) -> list[Rewrapped]:
    with output().bar("Wrapping anew", "records") as bar:
        return app.key_rotation.rewrap(bar.show)


def _told(done: list[Rewrapped]) -> None:
    """Show the counts; raises Failure when something does not open."""
    columns = ("what", "key version", "seen", "wrapped anew", "current", "gone", "unreadable")
    rows = [
        (one.kind, one.key_version, one.seen, one.rewrapped, one.current, one.gone, one.unreadable)
        for one in done
    ]
    answer = [dataclasses.asdict(one) for one in done]
    output().answer(answer, table(columns, rows))
    if any(one.unreadable for one in done):
        raise Failure("Something does not open: destroy no old version.", "unreadable")


def _report(app: App) -> dict[str, Any]:
    if app.settings.backend != "embedded":
        return {
            "credentials": app.settings.kms_key,
            "suppressions": app.settings.suppression_kms_key,
            "signing": app.settings.signing_key,
            "issuer": app.settings.jwks_url,
        }
    newest = app.vault.key_version(app.vault.seal(b"", ("keys", "list")))
    return {
        "issuer": [_shown(one) for one in _issuer(app).keys.known()],
        "credentials": f"local, version {newest}",
        "signing": app.signer.key_id,
    }


def _issuer(app: App) -> Any:
    from activation.api.issuer import EmbeddedIssuer

    _require_embedded(app, "its tokens come from your own issuer, which rotates its keys itself")
    return EmbeddedIssuer.of(app.settings, app.clock)


def _require_embedded(app: App, instead: str) -> None:
    if app.settings.backend != "embedded":
        raise click.UsageError(f"This is for the embedded back-end: {instead}.")


def _shown(pair: Pair) -> dict[str, Any]:
    until = _instant(pair.known_until)
    return {"key_id": pair.key_id, "signs_from": _instant(pair.signs_from), "known_until": until}


def _instant(moment_of: datetime | None) -> str | None:
    from activation.domain.entity import timestamp

    return None if moment_of is None else timestamp(moment_of)
