"""Settings that are checked beyond their type."""

from __future__ import annotations

import pytest

from activation.errors import ValidationError
from activation.settings import from_environment


@pytest.mark.parametrize("url", ["redis://127.0.0.1:6379/0", "rediss://:secret@cache.example"])
def test_an_address_of_redis_is_taken(url: str) -> None:
    assert from_environment({"ACTIVATION_REDIS_URL": url}).redis_url == url


@pytest.mark.parametrize("url", ["http://cache:6379", "cache:6379", "redis://", "redis://c:port"])
def test_any_other_address_is_refused_at_the_start(url: str) -> None:
    with pytest.raises(ValidationError) as caught:
        from_environment({"ACTIVATION_REDIS_URL": url})
    assert caught.value.field == "redis_url"


def test_keys_of_the_issuer_come_over_tls() -> None:
    url = "http://issuer.example/jwks"
    with pytest.raises(ValidationError) as caught:
        from_environment({"ACTIVATION_JWKS_URL": url})
    assert caught.value.field == "jwks_url"
    allowed = {"ACTIVATION_JWKS_URL": url, "ACTIVATION_ALLOW_PRIVATE_HOSTS": "true"}
    assert from_environment(allowed).jwks_url == url


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("retention_max_share", "20"),
        ("retention_max_share", "nan"),
        ("max_reject_ratio", "50"),
        ("max_reject_ratio", "-0.1"),
        ("version_days", "-1"),
        ("backup_days", "0"),
        ("lease_seconds", "0"),
        ("work_seconds", "inf"),
        ("segmented_threshold", "99999"),
    ],
)
def test_a_number_that_would_switch_something_off_is_refused(name: str, value: str) -> None:
    with pytest.raises(ValidationError) as caught:
        from_environment({f"ACTIVATION_{name.upper()}": value})
    assert caught.value.field == name


@pytest.mark.parametrize("value", ["0", "1", "0.25"])
def test_a_share_is_from_none_to_all(value: str) -> None:
    assert from_environment({"ACTIVATION_RETENTION_MAX_SHARE": value}).retention_max_share >= 0


@pytest.mark.parametrize(
    ("name", "least"),
    [("event_days", 32), ("membership_days", 2), ("realtime_stream_seconds", 10)],
)
def test_what_others_rely_on_is_kept_long_enough(name: str, least: int) -> None:
    variable = f"ACTIVATION_{name.upper()}"
    assert getattr(from_environment({variable: str(least)}), name) == least
    for days in (least - 1, 0, -1):
        with pytest.raises(ValidationError) as caught:
            from_environment({variable: str(days)})
        assert caught.value.field == name
