"""Evidence packs: true, complete, free of people, and useless once a byte is changed."""

from __future__ import annotations

import base64
import hashlib
import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import orjson
import pytest

from activation import __version__
from activation.app import App
from activation.documents import Collection
from activation.domain.audience import AudienceChanges
from activation.domain.caller import Caller
from activation.domain.distribution import Distribution, DistributionType
from activation.domain.entity import new_id, timestamp
from activation.domain.exchange import Exchange
from activation.domain.identifier import IdentifierType
from activation.domain.member_change import MemberReference
from activation.errors import ConflictError, NotFoundError, StorageUnavailableError
from activation.members.delivery import Selection, Stored, freeze
from activation.members.set_digest import SetDigest
from activation.observability import LOGGER
from activation.ports import Batch, BlobKey, Query, Write
from activation.services.evidence import SECTIONS, EvidenceService
from activation.services.evidence_check import checked
from activation.services.evidence_form import canonical, signed
from activation.services.exchanges import ExchangeLogs
from activation.services.list_digests import ListDigests, Reading, digest_key
from activation.services.stages import stages_of
from activation.twins.faults import Fault
from tests.api.test_local import Lines
from tests.services.deliveries import ADDRESSES, PEOPLE, SECRETS, Deliveries, delivering
from tests.services.forger import Forger
from tests.services.support import inputs
from tests.working import work

DIGESTS = [hashlib.sha256(address.encode()).hexdigest() for address in ADDRESSES]


@pytest.fixture
def world(app: App, ann: Caller) -> Iterator[Deliveries]:
    with delivering(app, ann) as found:
        yield found


def packed(world: Deliveries, job: Distribution) -> bytes:
    pack = world.app.evidence.pack(world.ann, job.distribution_id)
    assert isinstance(pack, bytes)
    return pack


def sections(pack: bytes) -> dict[str, Any]:
    found: dict[str, Any] = orjson.loads(pack)["sections"]
    return found


def set_digest(identifiers: list[str]) -> str:
    """The digest as docs/evidence.md tells outsiders to compute it."""
    total = 0
    for text in identifiers:
        total += int.from_bytes(hashlib.shake_128(text.encode()).digest(512), "big")
    return hashlib.sha256((total % 2**4096).to_bytes(512, "big")).hexdigest()


# what is in it ------------------------------------------------------------------------------------


@pytest.mark.parametrize("platform", ["google_ads", "facebook"])
def test_a_pack_tells_what_happened(world: Deliveries, platform: str) -> None:
    job = world.matched(platform)
    pack = packed(world, job)
    assert checked(pack).valid
    header, found = orjson.loads(pack)["header"], sections(pack)
    assert (header["distribution_id"], header["organization_id"]) == (job.distribution_id, "acme")
    assert (header["software_version"], header["issued_to"]) == (__version__, "ann")
    assert found.keys() == SECTIONS.keys()
    assert found["counts"] == job.progress.model_dump(mode="json")
    assert job.plan is not None
    assert found["plan"] == job.plan.model_dump(mode="json")
    assert found["matches"] == job.match_results.model_dump(mode="json")
    [batch] = found["batches"]
    assert (batch["rows"], batch["sent"], batch["state"]) == (PEOPLE, PEOPLE, "done")
    assert batch["key"] == f"{job.distribution_id}:000001"
    assert job.completed_at is not None
    assert found["times"]["completed_at"] == timestamp(job.completed_at)
    assert found["distribution"]["platform_type"] == platform
    assert found["approvals"]["requested_by"] == "ann"
    assert [act["action"] for act in found["approvals"]["acts"]] == ["api:distribution:create"]
    assert found["answers"][-1]["outcome"] == "OK"


@pytest.mark.parametrize("platform", ["google_ads", "facebook"])
def test_the_digest_is_that_of_the_people(world: Deliveries, platform: str) -> None:
    found = sections(packed(world, world.delivered(platform)))
    [digest] = found["members"]["digests"]
    assert digest["digest"] == set_digest([f"email:{one}" for one in reversed(DIGESTS)])
    assert (digest["operation"], digest["identifiers"]) == ("add", PEOPLE)
    assert digest["digest"] != set_digest([f"email:{one}" for one in DIGESTS[1:]])
    form = "google" if platform == "google_ads" else "plain"
    assert found["members"]["identifier_forms"]["email"] == form


def test_additions_and_removals_have_digests_of_their_own(world: Deliveries) -> None:
    app, ann = world.app, world.ann
    world.delivered("google_ads")
    leaving = [
        MemberReference(identifier_type=IdentifierType.EMAIL, identifier_value=address)
        for address in ADDRESSES[:10]
    ]
    app.members.remove(ann, world.audience_id, leaving)
    app.members.add(ann, world.audience_id, inputs(5, start=PEOPLE))
    job = world.delivered("google_ads", distribution_type="incremental")
    members = sections(packed(world, job))["members"]
    assert [one["operation"] for one in members["lists"]] == ["remove", "add"]
    removed, added = members["digests"]
    new = [hashlib.sha256(f"p{PEOPLE + n}@example.com".encode()).hexdigest() for n in range(5)]
    assert (removed["operation"], removed["identifiers"]) == ("remove", 10)
    assert removed["digest"] == set_digest([f"email:{one}" for one in DIGESTS[:10]])
    assert added["digest"] == set_digest([f"email:{one}" for one in new])
    assert members["wanted"]["size"] == PEOPLE - 5
    assert members["wanted"]["parts"][0]["sha256"]


def test_parts_of_the_manifest_are_named_with_their_checksums(world: Deliveries) -> None:
    job = world.delivered("facebook")
    members = sections(packed(world, job))["members"]
    manifest = world.app.members.manifests.get("acme", job.manifest_id or "").entity
    assert members["manifest_id"] == manifest.manifest_id
    assert {(p["path"], p["sha256"]) for p in members["parts"]} == {
        (part.path, part.sha256) for part in manifest.parts
    }
    assert members["parts"]


def test_the_definition_is_that_of_the_version_that_was_sent(world: Deliveries) -> None:
    rules = [{"variable_id": "country", "operator": "EQ", "value": "DE"}]
    world.app.audiences.update(
        world.ann, world.audience_id, AudienceChanges.model_validate({"rules": rules})
    )
    job = world.delivered("facebook")
    world.app.audiences.update(world.ann, world.audience_id, AudienceChanges(name="Renamed"))
    definition = sections(packed(world, job))["definition"]
    assert (definition["name"], definition["version"]) == ("Buyers", job.audience_version)
    assert definition["kept"]
    assert definition["rules"][0]["value"] == "DE"
    assert definition["changed_by"] == "ann"


def test_rejected_rows_are_counted_by_reason(world: Deliveries) -> None:
    world.refuse_rows([3, 7])
    job = world.delivered("google_ads")
    found = sections(packed(world, job))
    assert found["counts"]["rejected_by_reason"] == {"INVALID_FORMAT": 2}
    [batch] = found["batches"]
    assert (batch["sent"], batch["rejected"]) == (PEOPLE - 2, 2)
    assert batch["rejected_by_reason"] == {"INVALID_FORMAT": 2}
    [sent] = found["consent"]["rows_sent"]
    assert (sent["ad_user_data"], sent["rows"]) == (None, PEOPLE - 2)
    assert found["consent"]["identifiers_withheld"] == {}


def test_audit_entries_are_in_order_and_can_be_checked(world: Deliveries) -> None:
    job = world.matched("facebook")
    packed(world, job)
    entries = sections(packed(world, job))["audit"]
    actions = [one["entry"]["action"] for one in entries]
    assert actions[0] == "api:distribution:create"
    assert actions[-1] == "api:distribution:evidence"
    assert "function:distribution:completed" in actions
    ids = [one["entry"]["entry_id"] for one in entries]
    assert ids == sorted(ids)
    for one in entries:
        assert hashlib.sha256(canonical(one["entry"])).hexdigest() == one["sha256"]
        assert one["entry"]["target"] == f"distributions/{job.distribution_id}"


def test_who_takes_a_pack_is_in_the_audit_log(world: Deliveries) -> None:
    job = world.delivered("facebook")
    pack = packed(world, job)
    target = {"target": f"distributions/{job.distribution_id}"}
    newest = world.app.documents.query(Query("acme", "audit", target, limit=1))[0].data
    assert (newest["action"], newest["actor"]) == ("api:distribution:evidence", "ann")
    assert newest["details"] == {"sha256": hashlib.sha256(pack).hexdigest()}


def test_a_pack_holds_no_member_and_no_secret(world: Deliveries) -> None:
    world.refuse_rows([0])
    pack = packed(world, world.delivered("google_ads")).decode()
    assert [one for one in (*ADDRESSES, *DIGESTS, *SECRETS) if one in pack] == []


def test_a_distribution_that_waits_has_no_list_yet(world: Deliveries) -> None:
    later = world.app.clock.now() + timedelta(hours=2)
    pack = packed(world, world.request("facebook", scheduled_at=later))
    found = sections(pack)
    assert checked(pack).valid
    assert (found["members"]["lists"], found["members"]["digests"]) == ([], [])
    assert found["members"]["wanted"] is None
    assert (found["batches"], found["plan"], found["answers"]) == ([], None, [])


def test_what_is_no_longer_kept_is_said_to_be_gone(world: Deliveries) -> None:
    app, job = world.app, world.delivered("facebook")
    delete_lists(world, job)
    app.platforms.delete(world.ann, job.platform_id)
    gone = [
        document.key
        for name in ("versions", "manifests", "list_digests")
        for document in app.documents.query(Query("acme", name))
    ]
    app.documents.commit(Batch([Write(key, None) for key in gone]))
    pack = packed(world, job)
    found = sections(pack)
    assert checked(pack).valid
    assert found["members"]["digests"] == []
    assert [one["sha256"] for one in found["members"]["lists"]] == [job.stages[0].sha256]
    assert (found["members"]["manifest_kept"], found["definition"]["kept"]) == (False, False)
    assert found["distribution"]["platform_type"] is None


@pytest.mark.parametrize("end", ["completed", "failed", "cancelled"])
def test_the_digest_outlives_the_list(world: Deliveries, end: str) -> None:
    """The sweep deletes a list a day after its distribution ended; nobody need have asked."""
    job = ended(world, end)
    assert job.status == end
    delete_lists(world, job)
    [digest] = sections(packed(world, job))["members"]["digests"]
    assert digest["digest"] == set_digest([f"email:{one}" for one in DIGESTS])


def delete_lists(world: Deliveries, job: Distribution) -> None:
    """Take the lists away, as the sweep does."""
    paths = [stage.path for stage in job.stages if stage.path is not None]
    assert paths
    for path in paths:
        assert world.app.member_blobs.delete(BlobKey("acme", path))


def ended(world: Deliveries, end: str) -> Distribution:
    """A distribution that came to this end after its list was made."""
    if end == "completed":
        return world.delivered("facebook")
    if end == "failed":
        refused = {"error": {"code": 10, "message": "no"}}
        world.facebook.faults.plan(Fault("status", path="/users", status=403, body=refused))
        return world.delivered("facebook")
    throttled = Fault("status", path="/users", status=429, headers={"Retry-After": "900"})
    world.facebook.faults.plan(throttled)
    job = world.delivered("facebook")
    world.app.distributions.set_status(world.ann, job.distribution_id, "cancelled")
    work(world.app)
    return world.current(job)


@pytest.fixture
def lines() -> Iterator[Lines]:
    """The log lines of a test, whoever else has switched logging on."""
    kept, level = Lines(), LOGGER.level
    LOGGER.addHandler(kept)
    LOGGER.setLevel(logging.INFO)
    yield kept
    LOGGER.removeHandler(kept)
    LOGGER.setLevel(level)


def test_a_list_that_cannot_be_read_costs_the_digest_only(world: Deliveries, lines: Lines) -> None:
    job = world.delivered("facebook")
    world.app.documents.commit(Batch([Write(digest_key(job), None)]))
    broken = ListDigests(world.app.documents, Broken(), world.app.clock)  # type: ignore[arg-type]
    broken.keep(job, 5)
    assert lines.last()["message"] == "a list was not read for its digest"
    assert world.app.documents.get(digest_key(job)) is None


class Broken:
    """A blob store that does not answer."""

    def stat(self, key: BlobKey) -> None:
        raise StorageUnavailableError(f"no answer about {key.path}")


def test_others_get_no_pack(world: Deliveries, eve: Caller) -> None:
    job = world.delivered("facebook")
    with pytest.raises(NotFoundError):
        world.app.evidence.pack(eve, job.distribution_id)


# long lists ---------------------------------------------------------------------------------------


def test_a_long_list_is_read_in_several_requests(world: Deliveries) -> None:
    app, job = world.app, cut_anew(world, world.delivered("facebook"), rows=40)
    slow = ListDigests(app.documents, app.member_blobs, app.clock, seconds=0)
    steps = [slow.of(job) for _ in range(4)]
    assert steps[:3] == [Reading(rows, PEOPLE) for rows in (40, 80, 120)]
    assert not isinstance(steps[3], Reading)
    [last] = steps[3]
    digest = SetDigest.unpacked(last.total, last.identifiers)
    assert digest.value == set_digest([f"email:{one}" for one in DIGESTS])
    assert slow.of(job) == [last], "it is not read again"


def test_how_batches_are_cut_does_not_matter(world: Deliveries) -> None:
    job = world.delivered("facebook")
    totals = set()
    for rows in (1, 64, 1000):
        sums = world.app.list_digests.of(cut_anew(world, job, rows))
        assert not isinstance(sums, Reading)
        totals.add(tuple((one.total, one.identifiers) for one in sums))
    assert len(totals) == 1


def cut_anew(world: Deliveries, job: Distribution, rows: int) -> Distribution:
    """The distribution with a list of the same people in batches of `rows`."""
    app = world.app
    manifest = app.members.manifests.get("acme", job.manifest_id or "").entity
    platform = app.platforms.records.get("acme", job.platform_id).entity
    spec = replace(app.distributions.spec_of(platform), max_rows=rows)
    place = Stored(
        store=app.store,
        organization_id="acme",
        ledger_id="anew",
        roster_id=new_id(app.clock.now()),
        folder=f"distributions/{job.distribution_id}/anew-{rows}",
        max_rows=rows,
    )
    kind = DistributionType.INITIAL
    prepared = freeze(app.store, manifest, spec, Selection(), None, kind, place)
    return job.changed(stages=stages_of(prepared, rows))


# what moves ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Restless(ExchangeLogs):
    """Logs during whose reading a worker changes the distribution, until it is `until`."""

    records: Collection[Distribution]
    until: float

    def last(self, organization_id: str, distribution_id: str) -> list[Exchange]:
        if self.clock.monotonic() < self.until:
            self.clock.sleep(1)
            stored = self.records.get(organization_id, distribution_id)
            after = stored.entity.changed(updated_at=self.clock.now())
            self.documents.commit(Batch([stored.replaced_by(after)]))
        return super().last(organization_id, distribution_id)


@pytest.mark.parametrize(("changes", "settles"), [(3, True), (99, False)])
def test_a_pack_is_of_one_moment(world: Deliveries, changes: int, settles: bool) -> None:
    app, job = world.app, world.delivered("facebook")
    until = app.clock.monotonic() + changes
    restless = Restless(app.documents, app.clock, app.distributions.records, until)
    service = EvidenceService(
        app.commits, app.distributions, restless, app.evidence.digests, app.signer, app.clock
    )
    if not settles:
        with pytest.raises(ConflictError):
            service.pack(world.ann, job.distribution_id)
        return
    pack = service.pack(world.ann, job.distribution_id)
    assert isinstance(pack, bytes)
    current = world.current(job)
    assert current.updated_at > job.updated_at
    assert sections(pack)["times"]["updated_at"] == timestamp(current.updated_at)


# tampering ----------------------------------------------------------------------------------------


@pytest.fixture
def pack(world: Deliveries) -> bytes:
    """A pack with something in every section."""
    world.refuse_rows([1])
    job = world.matched("google_ads")
    found = packed(world, job)
    empty = [name for name, section in sections(found).items() if section in ({}, [], None)]
    assert empty == ["withheld"]
    return found


def numbers(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where the numbers of a JSON value are."""
    if isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for name, item in items:
            yield from numbers(item, (*path, name))
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield path


def changed(pack: bytes, path: tuple[Any, ...], value: Any) -> bytes:
    parsed = orjson.loads(pack)
    place = parsed
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    return canonical(parsed)


def test_every_section_and_every_count_is_guarded(pack: bytes) -> None:
    parsed = orjson.loads(pack)
    places = [path for path in numbers(parsed["sections"], ("sections",)) if path]
    assert len(places) > 60
    for path in places:
        place = parsed
        for step in path:
            place = place[step]
        assert checked(changed(pack, path, place + 1)).altered == (f"section:{path[1]}",), path
    others: tuple[Any, ...] = ({}, [], None, "x", {"sent": 1})
    for name in SECTIONS:
        for other in others:
            if parsed["sections"][name] != other:
                forged = changed(pack, ("sections", name), other)
                assert checked(forged).altered == (f"section:{name}",)


def test_sections_cannot_be_taken_away_added_or_swapped(pack: bytes) -> None:
    for name in SECTIONS:
        parsed = orjson.loads(pack)
        del parsed["sections"][name]
        assert checked(canonical(parsed)).altered == (f"section:{name}",)
        del parsed["header"]["sections"][name]
        assert checked(canonical(parsed)).altered == ("signature",)
    assert checked(changed(pack, ("sections", "more"), {})).altered == ("section:more",)
    parsed = orjson.loads(pack)
    parsed["sections"]["counts"], parsed["sections"]["plan"] = (
        parsed["sections"]["plan"],
        parsed["sections"]["counts"],
    )
    assert checked(canonical(parsed)).altered == ("section:counts", "section:plan")


def test_a_section_with_a_fitting_digest_breaks_the_signature(pack: bytes) -> None:
    parsed = orjson.loads(pack)
    parsed["sections"]["counts"]["sent"] += 1
    digest = hashlib.sha256(canonical(parsed["sections"]["counts"])).hexdigest()
    parsed["header"]["sections"]["counts"] = digest
    assert checked(canonical(parsed)).altered == ("signature",)


def test_the_header_and_the_signature_are_guarded(pack: bytes) -> None:
    header = orjson.loads(pack)["header"]
    for name in header.keys() - {"sections", "signer", "format"}:
        assert checked(changed(pack, ("header", name), "other")).altered == ("signature",), name
    assert checked(changed(pack, ("header", "more"), 1)).altered == ("signature",)
    value = base64.b64decode(orjson.loads(pack)["signature"]["value"])
    for position in range(len(value)):
        flipped = bytearray(value)
        flipped[position] ^= 1
        forged = changed(pack, ("signature", "value"), base64.b64encode(flipped).decode())
        assert checked(forged).altered == ("signature",)
    for other in ("", "AAAA", "not base64!", base64.b64encode(value[:-1]).decode()):
        assert checked(changed(pack, ("signature", "value"), other)).altered == ("signature",)
    for name in ("algorithm", "key_id"):
        assert "signature" in checked(changed(pack, ("signature", name), "other")).altered
        assert "signature" in checked(changed(pack, ("header", "signer", name), "x")).altered


def test_a_cut_or_longer_file_is_noticed(pack: bytes) -> None:
    for end in range(0, len(pack), 97):
        assert checked(pack[:end]).altered == ("file",)
    assert checked(pack[:-1]).altered == ("file",)
    assert checked(pack + b"\n").valid, "an editor's last line feed is not a change"
    assert checked(pack + b" ").altered == ("form",)
    assert checked(pack + pack).altered == ("file",)


def test_other_bytes_of_the_same_content_are_noticed(pack: bytes) -> None:
    parsed = orjson.loads(pack)
    pretty = orjson.dumps(parsed, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS)
    assert checked(pretty).altered == ("form",)
    head = b'{"header":'
    assert pack.startswith(head)
    twice = b'{"sections":{"counts":{"sent":999}},' + pack[1:]
    assert checked(twice).altered == ("form",), "a reader may believe the first of two"


def test_a_pack_signed_anew_by_another_key_is_found_by_who_knows_the_key(
    world: Deliveries, pack: bytes
) -> None:
    ours = world.app.signer.public_key()
    forger = Forger(world.app.signer.key_id)
    parsed = orjson.loads(pack)
    parsed["sections"]["counts"]["sent"] = 1
    head = {k: v for k, v in parsed["header"].items() if k not in ("format", "sections", "signer")}
    forged = signed(head, parsed["sections"], forger)
    alone = checked(forged)
    assert (alone.valid, alone.trusted) == (True, False), "it is a pack, of somebody"
    assert checked(forged, ours).altered == ("key",)
    assert checked(forged, forger.public_key()).valid
    verdict = checked(pack, ours)
    assert (verdict.valid, verdict.trusted) == (True, True)
    assert checked(pack, forger.public_key()).altered == ("key",)


def test_another_key_in_the_file_is_noticed(world: Deliveries, pack: bytes) -> None:
    ours, forger = world.app.signer.public_key(), Forger("x")
    swapped = changed(pack, ("signature", "public_key"), forger.public_key())
    for given in (None, ours):
        assert "key" in checked(swapped, given).altered
    for nonsense in ("", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "x"):
        assert checked(changed(pack, ("signature", "public_key"), nonsense)).altered == ("key",)


def test_python_alone_gives_the_same_bytes(pack: bytes) -> None:
    """What docs/evidence.md promises to people without orjson."""
    parsed = json.loads(pack)
    text = json.dumps(parsed, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert text.encode() == pack
