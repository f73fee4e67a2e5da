"""What an installation must do, step by step, with made-up people: the checks of acceptance.

Each check says what is expected and finds out what is there, in the same words. What the checks
make, they take away again, whatever happens.
"""

from __future__ import annotations

import base64
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import Any, Literal

from activation.adapters.clock import SystemClock
from activation.cli.acceptance_door import Door, WrongError, fields, require, said
from activation.domain.entity import timestamp

ADMIN, VIEWER, FORGER = "admin", "viewer", "forger"
DROP = "drop"
PERSON = "acceptance-one@example.com"
FILE = f"email\n{PERSON}\nacceptance-two@example.com\n{PERSON.upper()}\nno address\n"
IMPORTED = "completed: 4 received, 2 accepted, 1 duplicate, 1 rejected"
JOB_FINAL = ("completed", "failed", "cancelled")
FINAL = (*JOB_FINAL, "partial")
SOON = timedelta(seconds=3)
PAGE = 200
NOBODY = "01900000-0000-7000-8000-000000000000"

State = Literal["ok", "failed", "skipped"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a check expected and what it saw."""

    check: str
    expected: str
    seen: str
    state: State


@dataclass(frozen=True, slots=True)
class Check:
    """Something to try; `needs` names what an earlier check must have made."""

    name: str
    expected: str
    attempt: Callable[[], str]
    needs: str | None = None


@dataclass
class Acceptance:
    """The checks of one API; `sink` is an address for webhooks, DROP, or None: nothing is sent.

    `functions` are (name, first route) of all HTTP functions.
    """

    door: Door
    functions: tuple[tuple[str, str, str], ...]
    sink: str | None
    report: Callable[[Outcome], None]
    soon: timedelta = SOON
    name: str = field(default_factory=lambda: f"Acceptance {secrets.token_hex(8)}")
    made: dict[str, list[str]] = field(default_factory=dict)
    """Addresses of what was made, by kind."""

    def run(self) -> list[Outcome]:
        """Try everything in turn, and clean up."""
        found: list[Outcome] = []
        try:
            found += map(self._tried, (*self.doors(), *self.audience(), *self.distribution()))
        finally:
            found += map(self._tried, list(self.cleanup()))
        return found

    def _tried(self, check: Check) -> Outcome:
        outcome = self._outcome(check)
        self.report(outcome)
        return outcome

    def _outcome(self, check: Check) -> Outcome:
        import httpx

        if check.needs == "sink" and self.sink is None:
            return Outcome(check.name, check.expected, "no --sink was named", "skipped")
        if check.needs not in (None, "sink") and not self.made.get(str(check.needs)):
            return Outcome(check.name, check.expected, f"there is no {check.needs}", "failed")
        try:
            seen = check.attempt()
        except WrongError as error:
            seen = error.message
        except httpx.HTTPError as error:
            seen = f"no answer ({type(error).__name__})"
        except (KeyError, TypeError, IndexError) as error:
            seen = f"an answer of another shape ({error!r})"
        return Outcome(
            check.name, check.expected, seen, "ok" if seen == check.expected else "failed"
        )

    # the doors ----------------------------------------------------------------------------------

    def doors(self) -> Iterator[Check]:
        """Who comes in, and what a refusal looks like."""
        yield Check("health", "200 ok", partial(self.door.plain, "/health"))
        yield Check("readiness", "200 ready", partial(self.door.plain, "/ready"))
        for name, route, answer in self.functions:
            nobody = partial(self._said, None, "GET", route)
            yield Check(f"{name}: no token", "401 UNAUTHENTICATED", nobody)
            known = partial(self._said, ADMIN, "GET", route)
            yield Check(f"{name}: with a token", answer, known)
        forged = partial(self._said, FORGER, "GET", "/audiences")
        yield Check("forged token", "401 UNAUTHENTICATED", forged)
        unknown = partial(self._said, ADMIN, "GET", f"/audiences/{NOBODY}")
        yield Check("unknown audience", "404 NOT_FOUND", unknown)
        unread = partial(self._said, ADMIN, "POST", "/audiences", content=b"{", headers=JSON)
        yield Check("body that is no JSON", "400 MALFORMED_JSON", unread)
        misspelt = partial(self._created, ADMIN, {**self._draft, "nmae": "x"})
        yield Check("unknown field", "422 VALIDATION_ERROR", misspelt)
        written = partial(self._created, VIEWER, self._draft)
        yield Check("viewer who writes", "403 FORBIDDEN", written)

    @property
    def _draft(self) -> dict[str, Any]:
        return {"name": self.name, "type": "first_party"}

    def _said(self, who: str | None, method: str, path: str, **arguments: Any) -> str:
        return said(self.door.ask(who, method, path, **arguments))

    def _created(self, who: str, body: dict[str, Any], **headers: str) -> str:
        """What is said to a new audience; one that should not have come to be is kept in mind."""
        response = self.door.ask(who, "POST", "/audiences", json=body, headers=headers)
        if response.status_code != 201:
            return said(response)
        path = f"/audiences/{fields(response)['audience_id']}"
        if path in self.made.setdefault("audience", []):
            return "201, the same one"
        self.made["audience"].append(path)
        return f"201, {fields(response)['size']} members"

    # an audience --------------------------------------------------------------------------------

    def audience(self) -> Iterator[Check]:
        """A small file becomes members, and every step a version."""
        key = secrets.token_hex(16)
        again = partial(self._created, ADMIN, self._draft, **{"Idempotency-Key": key})
        yield Check("audience", "201, 0 members", again)
        yield Check("the same request again", "201, the same one", again, "audience")
        yield Check("import", IMPORTED, self._import, "audience")
        yield Check("members", "2 members, no address in clear", self._members, "audience")
        yield Check("rejects", "1 row, no value of it", self._rejects, "import")
        yield Check("versions", "0, then 2 members", self._versions, "audience")
        yield Check("job", "completed", self._job, "audience")

    @property
    def _audience(self) -> str:
        return self.made["audience"][-1]

    def _import(self) -> str:
        path = f"{self._audience}/imports"
        headers = {"Content-Type": "text/csv"}
        response = self.door.ask(ADMIN, "POST", path, content=FILE.encode(), headers=headers)
        address = f"{path}/{require(response, 202)['import_id']}"
        self.made["import"] = [address]
        job = self.door.until(address, JOB_FINAL)
        names = ("received", "accepted", "duplicate", "rejected")
        return f"{job['status']}: " + ", ".join(f"{job['counts'][name]} {name}" for name in names)

    def _members(self) -> str:
        size = self.door.got(self._audience)["size"]
        response = self.door.ask(ADMIN, "GET", f"{self._audience}/members")
        found = len(require(response, 200)["data"])
        told = "an" if PERSON in response.text.lower() else "no"
        counted = f"{size} members" if size == found else f"{size} members, {found} of them listed"
        return f"{counted}, {told} address in clear"

    def _rejects(self) -> str:
        response = self.door.ask(ADMIN, "GET", f"{self.made['import'][0]}/rejects")
        if response.status_code != 200:
            raise WrongError(said(response))
        rows = len(response.text.splitlines()) - 1
        return f"{rows} row, {'a' if 'no address' in response.text else 'no'} value of it"

    def _versions(self) -> str:
        found = self.door.got(f"{self._audience}/versions")["data"]
        sizes = [str(version["size"]) for version in reversed(found)]
        return f"{sizes[0]}, then {sizes[-1]} members"

    def _job(self) -> str:
        job = require(self.door.ask(ADMIN, "POST", f"{self._audience}/compact"), 202)
        return str(self.door.until(f"/jobs/{job['job_id']}", JOB_FINAL)["status"])

    # a distribution -----------------------------------------------------------------------------

    def distribution(self) -> Iterator[Check]:
        """The audience goes to an account of ours, now and by the clock."""
        sealed = "201, no secret in the answer"
        yield Check("platform", sealed, self._platform, "sink")
        yield Check("plan", "2 to add, 0 to remove", partial(self._plan, "initial"), "sink")
        sent = "completed: 2 planned, 2 sent, 0 rejected, 0 pending"
        yield Check("distribution", sent, partial(self._distribute, "initial"), "sink")
        nothing = "0 to add, 0 to remove"
        yield Check("plan of changes", nothing, partial(self._plan, "incremental"), "sink")
        nothing = "completed: 0 planned, 0 sent, 0 rejected, 0 pending"
        yield Check("distribution by the clock", nothing, self._scheduled, "sink")

    def _platform(self) -> str:
        secret = "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()
        account: dict[str, Any] = {"platform_type": "file_drop", "credentials": {}}
        if self.sink != DROP:
            config = {"config": {"url": self.sink}}
            credentials = {"signing_secret": secret}
            account = {"platform_type": "webhook", "credentials": credentials, "settings": config}
        response = self.door.ask(ADMIN, "POST", "/platforms", json={"name": self.name, **account})
        made = require(response, 201)
        self.made["platform"] = [f"/platforms/{made['platform_id']}"]
        return f"201, {'a' if secret in response.text else 'no'} secret in the answer"

    def _asked(self, kind: str, **more: str) -> dict[str, Any]:
        if not {"audience", "platform"} <= self.made.keys():
            raise WrongError("there is no audience or no platform")
        ids = {f"{one}_id": self.made[one][-1].split("/")[-1] for one in ("audience", "platform")}
        return {"distribution_type": kind, **ids, **more}

    def _plan(self, kind: str) -> str:
        response = self.door.ask(ADMIN, "POST", "/distributions/plan", json=self._asked(kind))
        plan = require(response, 200)
        return f"{plan['adds']} to add, {plan['removes']} to remove"

    def _distribute(self, kind: str, **more: str) -> str:
        response = self.door.ask(ADMIN, "POST", "/distributions", json=self._asked(kind, **more))
        path = f"/distributions/{require(response, 202)['distribution_id']}"
        self.made.setdefault("distribution", []).append(path)
        job = self.door.until(path, FINAL)
        names = ("planned", "sent", "rejected", "pending")
        counts = ", ".join(f"{job['progress'][name]} {name}" for name in names)
        return f"{job['status']}: {counts}"

    def _scheduled(self) -> str:
        at = timestamp(SystemClock().now() + self.soon)
        return self._distribute("incremental", scheduled_at=at)

    # what was made ------------------------------------------------------------------------------

    def cleanup(self) -> Iterator[Check]:
        """Take away what was made, and see that it is gone."""
        for path in self.made.get("distribution", []):
            yield Check("distribution is over", "over", partial(self._over, path))
        for kind in ("platform", "audience"):
            yield Check(f"no {kind} is left", "none", partial(self._all_gone, kind))

    def _over(self, path: str) -> str:
        if self.door.got(path)["status"] not in FINAL:
            body = {"status": "cancelled"}
            require(self.door.ask(ADMIN, "PUT", f"{path}/status", json=body), 200)
        return "over"

    def _all_gone(self, kind: str) -> str:
        """What stays of what was made, also of what no answer told us of."""
        known = self.made.get(kind, [])
        listed = self.door.got(f"/{kind}s?limit={PAGE}")["data"]
        ours = [f"/{kind}s/{one[f'{kind}_id']}" for one in listed if one["name"] == self.name]
        stays = [found for path in {*known, *ours} if (found := self._stays(path))]
        return "; ".join(stays) or "none"

    def _stays(self, path: str) -> str | None:
        deleted = self.door.ask(ADMIN, "DELETE", path)
        left = self.door.ask(ADMIN, "GET", path)
        if (deleted.status_code, said(left)) == (204, "404 NOT_FOUND"):
            return None
        return f"{path} stays: DELETE {said(deleted)}, GET {said(left)}"


JSON = {"Content-Type": "application/json"}
