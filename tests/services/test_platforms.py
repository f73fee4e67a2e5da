"""Platforms as use cases: credentials go in sealed and never come out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from activation.app import App
from activation.domain.caller import Caller
from activation.domain.platform import HealthStatus, PlatformChanges, PlatformDraft, PlatformStatus
from activation.errors import (
    CredentialUnreadableError,
    InvalidStateError,
    NotFoundError,
    ValidationError,
)
from activation.ports import Batch, Write
from activation.services.platforms import credentials_context

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def webhook(**fields: Any) -> PlatformDraft:
    body = {
        "platform_type": "webhook",
        "name": "CRM hook",
        "credentials": {"signing_secret": SECRET, "account_id": "crm-1"},
        "settings": {"config": {"url": "http://127.0.0.1:9/hook"}},
        **fields,
    }
    return PlatformDraft.model_validate(body)


def test_credentials_are_listed_but_never_returned(app: App, ann: Caller) -> None:
    platform = app.platforms.create(ann, webhook()).entity
    shown = platform.public()
    assert shown["credentials"]["encrypted"] is True
    assert shown["credentials"]["account_id"] == "crm-1"
    assert shown["credentials"]["fields"] == ["signing_secret"]
    assert SECRET not in str(shown)
    assert SECRET not in repr(webhook())


@pytest.mark.embedded("reads every file of the store")
def test_no_byte_of_the_store_holds_the_secret(app: App, ann: Caller, tmp_path: Path) -> None:
    app.platforms.create(ann, webhook())
    found = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert found
    assert not [path for path in found if SECRET.encode() in path.read_bytes()]


def test_moved_ciphertext_does_not_open(app: App, ann: Caller) -> None:
    first = app.platforms.create(ann, webhook()).entity
    second = app.platforms.create(ann, webhook(name="Other hook")).entity
    stolen = app.platforms.secrets.get("acme", first.platform_id).entity
    target = app.platforms.secrets.get("acme", second.platform_id)
    moved = stolen.changed(platform_id=second.platform_id)
    app.documents.commit(Batch([Write(target.key, moved.stored())]))
    context = credentials_context("acme", second.platform_id, 1)
    with pytest.raises(CredentialUnreadableError):
        app.vault.open(moved.sealed, context)


def test_rotation_makes_a_new_record_version(app: App, ann: Caller) -> None:
    platform_id = app.platforms.create(ann, webhook()).entity.platform_id
    rotated = app.platforms.update(
        ann, platform_id, PlatformChanges(credentials={"signing_secret": SECRET})
    ).entity
    assert rotated.credentials.version == 2
    assert rotated.credentials.account_id is None
    sealed = app.platforms.secrets.get("acme", platform_id).entity
    assert sealed.version == 2
    assert SECRET.encode() in app.vault.open(
        sealed.sealed, credentials_context("acme", platform_id, 2)
    )


@pytest.mark.parametrize(
    "fields",
    [
        {"credentials": {}},
        {"credentials": {"signing_secret": SECRET, "surprise": "x"}},
        {"settings": {"config": {}}},
        {"settings": {"config": {"url": "http://127.0.0.1:9/hook", "surprise": 1}}},
    ],
)
def test_wrong_credentials_or_settings_name_the_field(
    app: App, ann: Caller, fields: dict[str, Any]
) -> None:
    with pytest.raises(ValidationError) as refused:
        app.platforms.create(ann, webhook(**fields))
    assert refused.value.field
    assert SECRET not in str(refused.value)
    assert app.platforms.count(ann, {}) == 0


@pytest.mark.parametrize("config", [{}, {"url": 7}, {"url": "http://127.0.0.1:9/", "surprise": 1}])
def test_settings_alone_are_checked_too(app: App, ann: Caller, config: dict[str, Any]) -> None:
    made = app.platforms.create(ann, webhook()).entity
    changes = PlatformChanges.model_validate({"settings": {"config": config}})
    with pytest.raises(ValidationError):
        app.platforms.update(ann, made.platform_id, changes)
    assert app.platforms.get(ann, made.platform_id).entity == made


def test_a_token_is_not_sent_where_only_the_settings_say(app: App, ann: Caller) -> None:
    config = {"ad_account_id": "1001", "api_url": "http://127.0.0.1:9/"}
    body = {"credentials": {"access_token": SECRET}, "settings": {"config": config}}
    made = app.platforms.create(ann, webhook(platform_type="facebook", **body)).entity
    moved = {"settings": {"config": {**config, "api_url": "http://127.0.0.2:9/"}}}
    with pytest.raises(ValidationError) as refused:
        app.platforms.update(ann, made.platform_id, PlatformChanges.model_validate(moved))
    assert refused.value.reason == "needs_credentials"
    both = PlatformChanges.model_validate({**moved, "credentials": {"access_token": SECRET}})
    after = app.platforms.update(ann, made.platform_id, both).entity
    assert after.settings.config["api_url"] == "http://127.0.0.2:9/"


def test_status_and_filters(app: App, ann: Caller) -> None:
    platform_id = app.platforms.create(ann, webhook()).entity.platform_id
    off = app.platforms.set_status(ann, platform_id, "inactive").entity
    assert off.status is PlatformStatus.INACTIVE
    assert app.platforms.list(ann, {"status": "active"}).items == []
    with pytest.raises(InvalidStateError):
        app.platforms.set_status(ann, platform_id, "inactive")
    with pytest.raises(ValidationError):
        app.platforms.set_status(ann, platform_id, "asleep")


def test_a_test_is_answered_by_the_dispatcher(app: App, ann: Caller) -> None:
    platform_id = app.platforms.create(ann, webhook()).entity.platform_id
    asked = app.platforms.test(ann, platform_id).entity
    assert asked.health is not None
    assert asked.health.status is HealthStatus.CHECKING


def test_delete_takes_the_credentials_along(app: App, ann: Caller, eve: Caller) -> None:
    platform_id = app.platforms.create(ann, webhook()).entity.platform_id
    with pytest.raises(NotFoundError):
        app.platforms.delete(eve, platform_id)
    app.platforms.delete(ann, platform_id)
    assert app.platforms.secrets.find("acme", platform_id) is None
