"""The services of events and segments, built when first used."""

from __future__ import annotations

from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING

from activation.wiring.distributions import Distributions

if TYPE_CHECKING:
    from activation.services.change_hub import ChangeHub
    from activation.services.change_pages import ChangePages
    from activation.services.dead_events import DeadEvents
    from activation.services.erasure_journal import ErasureJournal
    from activation.services.erasure_marks import ErasureMarks
    from activation.services.event_archive import EventArchive
    from activation.services.event_archiver import EventArchiver
    from activation.services.event_worker import EventWorker
    from activation.services.events import EventMarks, EventService
    from activation.services.follow_reports import FollowReports
    from activation.services.follow_sends import FollowSends
    from activation.services.memberships import MembershipService
    from activation.services.past_explanations import PastExplanations
    from activation.services.past_memberships import PastMemberships
    from activation.services.segment_changes import SegmentChanges
    from activation.services.segment_followers import SegmentMarking
    from activation.services.segment_following import FollowWorker
    from activation.services.segment_replay import SegmentReplay
    from activation.services.segment_shards import ShardWorker
    from activation.services.segments import SegmentService
    from activation.services.sessions import SessionService
    from activation.services.told_steps import ToldSteps
    from activation.services.user_erasures import Erase, UserErasures


STATES_SHARE = 3
"""One part in so many of a process's memory is for states of shards: who opens one, and who takes a
step, has the old and the new one beside it, and there are requests."""
BOOKS_SHARE = 8
"""The same for compiled rules: 40 MB for a version of ten thousand segments."""


class Segments(Distributions):
    """Services of events, segments, memberships and those who follow them."""

    @cached_property
    def shards(self) -> ShardWorker:
        """The evaluation of segments. Its objects lie beside the members."""
        from activation.adapters.process_memory import memory_bytes
        from activation.services.kept_states import KeptStates
        from activation.services.rule_books import BOOK_SEGMENT_BYTES, RuleBooks
        from activation.services.segment_shards import ShardWorker
        from activation.services.shard_states import ShardStates

        archive = self.event_archive
        parcels = archive.log.parcels
        memory = memory_bytes()
        segments = memory // BOOKS_SHARE // BOOK_SEGMENT_BYTES
        books = RuleBooks(self.documents, parcels, max_segments=segments)
        kept = KeptStates(max_bytes=memory // STATES_SHARE)
        states = ShardStates(
            self.documents, self.member_blobs, books, parcels, self.clock, kept=kept
        )
        return ShardWorker(
            self.documents,
            self.commits,
            books,
            states,
            parcels,
            self.clock,
            archive=archive,
            marks=self.erasure_marks,
        )

    @cached_property
    def event_archive(self) -> EventArchive:
        """Counted events of the past."""
        from activation.services.event_archive import EventArchive
        from activation.services.event_log import EventLog
        from activation.services.event_objects import EventObjects
        from activation.services.parcels import Parcels

        log = EventLog(self.documents, Parcels(self.member_blobs))
        return EventArchive(self.documents, EventObjects(self.event_blobs), log, self.clock)

    @cached_property
    def sessions(self) -> SessionService:
        """Sessions of users."""
        from activation.services.sessions import SessionService

        return SessionService(self.event_archive, self.shards.states, self.cached, self.clock)

    @cached_property
    def event_archiver(self) -> EventArchiver:
        """Brings counted events into the archive."""
        from activation.services.event_archiver import EventArchiver

        return EventArchiver(self.event_archive)

    @cached_property
    def told_steps(self) -> ToldSteps:
        """What shards have told."""
        from activation.services.told_steps import ToldSteps

        return ToldSteps(self.documents, self.shards.parcels)

    @cached_property
    def erasure_marks(self) -> ErasureMarks:
        """Who was erased."""
        from activation.services.erasure_marks import ErasureMarks

        return ErasureMarks(self.documents, self.suppression_vault, self.clock)

    @cached_property
    def erasure_journal(self) -> ErasureJournal:
        """Requests to erase users, kept apart from the store."""
        from activation.services.erasure_journal import ErasureJournal

        return ErasureJournal(self.journal_blobs, self.suppression_vault, self.clock)

    @cached_property
    def dead_events(self) -> DeadEvents:
        """Events of erased users in dead letters."""
        from activation.services.dead_events import DeadEvents

        return DeadEvents(self.bus, self.shards, self.erasure_marks, self.clock)

    @cached_property
    def user_erasures(self) -> UserErasures:
        """Erasures of users."""
        from activation.services.user_erasures import UserErasures

        return UserErasures(
            self.commits,
            self.jobs,
            self.erasure_marks,
            self.erasure_journal,
            self._stores_of_users,
            self.clock,
        )

    def _stores_of_users(self) -> list[tuple[str, Erase]]:
        """Every store that knows users by name, in the order in which an erasure goes through
        them."""
        from activation.services.audience_erasure import Areas, AudienceEraser
        from activation.services.shard_erasure import ShardEraser

        eraser = ShardEraser(self.shards, self.erasure_marks, self.event_archive)
        areas = Areas(self.backup_blobs, self.archive_blobs)
        audiences = AudienceEraser(self.member_upkeep, areas, self.clock)
        return [
            ("memberships", eraser.memberships),
            ("history", eraser.history),
            ("events", eraser.events),
            ("objects", eraser.objects),
            ("dead_letters", self.dead_events.erase),
            ("audiences", audiences.erase),
        ]

    @cached_property
    def segment_replay(self) -> SegmentReplay:
        """Compares shards with the events they have counted."""
        from activation.services.segment_replay import SegmentReplay

        kept_for = timedelta(days=self.settings.event_days)
        return SegmentReplay(self.shards, self.event_archive, kept_for)

    @cached_property
    def segments(self) -> SegmentService:
        """Definitions of segments."""
        from activation.services.segment_rules import SegmentRules
        from activation.services.segments import SegmentService

        rules = SegmentRules(self.documents, self.shards.books)
        return SegmentService(self.documents, self.commits, rules, self.clock)

    @cached_property
    def segment_marking(self) -> SegmentMarking:
        """Marks of audiences whose segment has changed."""
        from activation.services.parcels import Parcels
        from activation.services.segment_followers import SegmentMarking

        parcels = Parcels(self.member_blobs)
        return SegmentMarking(self.documents, self.commits, parcels, self.clock)

    @cached_property
    def follow_worker(self) -> FollowWorker:
        """The worker that brings audiences in step with segments."""
        from activation.services.segment_following import FollowWorker

        return FollowWorker(
            self.members,
            self.shards,
            self.clock,
            self.settings.lease_seconds,
            timedelta(seconds=self.settings.follow_seconds),
        )

    @cached_property
    def follow_sends(self) -> FollowSends:
        """What platforms get when a segment has changed an audience."""
        from activation.services.follow_sends import FollowSends

        return FollowSends(self.refreshing, self.clock)

    @cached_property
    def follow_reports(self) -> FollowReports:
        """How far audiences follow their segments."""
        from activation.services.follow_reports import FollowReports

        return FollowReports(self.documents)

    @cached_property
    def memberships(self) -> MembershipService:
        """Who is in which segment, and why."""
        from activation.services.memberships import MembershipService

        return MembershipService(self.segments, self.shards, self.cached, self.clock)

    @cached_property
    def past_memberships(self) -> PastMemberships:
        """Who was in which segment."""
        from activation.services.past_memberships import PastMemberships

        return PastMemberships(self.segments, self.shards, self.told_steps, self.clock)

    @cached_property
    def past_explanations(self) -> PastExplanations:
        """Why users were in segments."""
        from activation.services.past_explanations import PastExplanations

        kept_for = timedelta(days=self.settings.event_days)
        return PastExplanations(
            self.segments, self.shards, self.event_archive, kept_for, self.clock
        )

    @cached_property
    def segment_changes(self) -> SegmentChanges:
        """Changes of memberships, step by step."""
        from activation.services.segment_changes import SegmentChanges

        return SegmentChanges(self.told_steps, self.clock)

    @cached_property
    def change_pages(self) -> ChangePages:
        """Changes of memberships by pages."""
        from activation.services.change_pages import ChangePages

        return ChangePages(self.segment_changes, self.memberships)

    @cached_property
    def change_hub(self) -> ChangeHub:
        """Those who follow changes of memberships as they happen."""
        from activation.services.change_hub import ChangeHub

        settings = self.settings
        return ChangeHub(
            self.segment_changes,
            self.memberships,
            settings.realtime_connections,
            settings.realtime_room,
            settings.realtime_poll_seconds,
        )

    @cached_property
    def event_marks(self) -> EventMarks:
        """When events were last accepted and evaluated."""
        from activation.services.events import EventMarks

        return EventMarks(self.documents, self.clock)

    @cached_property
    def events(self) -> EventService:
        """Acceptance of events."""
        from activation.services.events import EventService

        return EventService(self.documents, self.bus, self.event_marks, self.clock)

    @cached_property
    def event_worker(self) -> EventWorker:
        """The worker behind topic user-events."""
        from activation.services.event_worker import EventWorker

        return EventWorker(
            self.documents,
            self.bus,
            self.shards,
            self.segments.rules,
            self.event_marks,
            self.clock,
            lambda: self.event_archiver,
        )
