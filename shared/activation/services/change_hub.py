"""Who may follow changes of memberships, and how many at a time."""

from __future__ import annotations

import logging
import threading
from collections import Counter

from activation import observability
from activation.domain.caller import Caller
from activation.domain.change_position import parsed
from activation.errors import RateLimitedError, StorageUnavailableError
from activation.services.change_feed import MAX_PENDING, Follower, OrganizationFeed, Wake
from activation.services.feed_targets import SegmentTarget, Target, UserTarget
from activation.services.memberships import MembershipService
from activation.services.segment_changes import SegmentChanges

RETRY_SECONDS = 30.0


class ChangeHub:
    """Opens connections to the feeds of a process: at most `limit` of an organization at a time,
    and `room` of all."""

    def __init__(
        self,
        changes: SegmentChanges,
        memberships: MembershipService,
        limit: int,
        room: int,
        poll_seconds: float,
        max_pending: int = MAX_PENDING,
    ) -> None:
        self._changes, self._memberships = changes, memberships
        self._limit, self._room = limit, room
        self._poll_seconds, self._max_pending = poll_seconds, max_pending
        self._closed = False
        self._feeds: dict[str, OrganizationFeed] = {}
        self._open: Counter[str] = Counter()
        self._lock = threading.Lock()

    def segment(self, caller: Caller, segment_id: str, after: str | None, wake: Wake) -> Follower:
        """Follow a segment, from the id `after` on or from now on.

        Raises NotFoundError for one the caller does not see, ValidationError for an id that is
        none, RateLimitedError when too many follow already. Call `leave` in the end.
        """
        return self._follow(SegmentTarget(self._memberships, caller, segment_id), after, wake)

    def user(self, caller: Caller, user_id: str, after: str | None, wake: Wake) -> Follower:
        """Follow a user; as `segment`."""
        return self._follow(UserTarget(self._memberships, caller, user_id), after, wake)

    def close(self) -> None:
        """Let everybody go: the process stops."""
        with self._lock:
            self._closed = True
            feeds = list(self._feeds.values())
        for feed in feeds:
            feed.close()

    def leave(self, follower: Follower) -> None:
        """Follow no more; may be called again."""
        follower.feed.leave(follower)
        with self._lock:
            if not follower.left:
                follower.left = True
                self._open[follower.feed.organization_id] -= 1
                self._tell()

    def _follow(self, target: Target, after: str | None, wake: Wake) -> Follower:
        target.require()
        came = None if after is None else parsed(after, target.shards)
        organization_id = target.caller.organization_id
        with self._lock:
            if self._closed:
                raise StorageUnavailableError("The server is about to stop.", reason="stopping")
            mine, all_open = self._open[organization_id], self._open.total()
            if mine >= self._limit or all_open >= self._room:
                raise RateLimitedError(
                    "Too many connections are open; close one, or come again.",
                    reason="too_many_connections",
                    retry_after_seconds=RETRY_SECONDS,
                )
            self._open[organization_id] += 1
            self._tell()
            return Follower(self._feed(organization_id), target, came, wake)

    def _feed(self, organization_id: str) -> OrganizationFeed:
        if organization_id not in self._feeds:
            feed = OrganizationFeed(
                organization_id, self._changes, self._poll_seconds, self._max_pending
            )
            self._feeds[organization_id] = feed
        return self._feeds[organization_id]

    def _tell(self) -> None:
        count = self._open.total()
        observability.event("realtime connections", level=logging.DEBUG, open=count)
