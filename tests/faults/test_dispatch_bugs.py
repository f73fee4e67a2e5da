"""What the lab has found in distributions, each by the crash that showed it."""

from __future__ import annotations

from tests.faults.dispatch import DISPATCH, PAUSE
from tests.faults.interleave import Interleaver, Pair
from tests.faults.lab import Expected, Lab
from tests.faults.ports import Fault, When


def died(lab: Lab, name: str, effect: str, place: int = -1, when: When = When.AFTER) -> list[str]:
    """What is wrong when the process dies at an effect: the one at `place` of those named so."""
    expected = lab.expected(DISPATCH[name])
    return lab.crashed(DISPATCH[name], expected, [fault_at(expected, effect, place, when)])


def fault_at(expected: Expected, effect: str, place: int, when: When = When.AFTER) -> Fault:
    """The death at an effect."""
    calls = [call for call, made in enumerate(expected.effects, 1) if effect in made]
    return Fault(calls[place], when)


def test_a_crash_before_the_hold_does_not_let_the_run_go_unreleased(lab: Lab) -> None:
    """The lists were frozen, the hold was not committed: the next worker asked the guard no more,
    and sent the removals."""
    assert died(lab, "send too many removals", "commit distributions") == []


def test_a_crash_at_the_start_of_a_retry_does_not_fail_it_again(lab: Lab) -> None:
    """The next worker took the lane that had failed in the first try for one of the second."""
    assert died(lab, "retry", "commit distributions, ledgers, audit", 0) == []


def test_a_retry_that_was_overtaken_before_its_turn_sends_nothing(lab: Lab) -> None:
    """Another distribution ended between the retry and its turn: the old lists went out all the
    same, and the ledger took over a roster that the platform did not hold."""
    pair = Pair(DISPATCH["retry"], DISPATCH["send changes"], serial=False)
    requested = 5
    assert Interleaver(lab).scheduled(pair, requested, 10**9) == []


def test_a_crash_at_the_end_does_not_lose_how_it_ended_for_the_account(lab: Lab) -> None:
    """`last_sync` and `sync_status` followed the last commit, and nobody came back for them."""
    assert died(lab, "send", "commit distributions, ledgers, audit") == []


def test_a_crash_at_the_last_look_does_not_lose_the_match_rate_of_the_audience(lab: Lab) -> None:
    """The rate followed the commit after which nobody looks again."""
    end = "commit distributions, match_rates, audit"
    assert died(lab, "look at matches", end) == []


def test_who_opts_out_of_a_batch_that_was_perhaps_sent_is_taken_out_again(lab: Lab) -> None:
    """The platform had taken the batch, nobody knew; it was sent again without the people who had
    opted out meanwhile, and the ledger said that the platform never had them."""
    send, opt_out = DISPATCH["send changes to google"], DISPATCH["opt out"]
    fault = fault_at(lab.expected(send), ":ingest", -1)
    assert Interleaver(lab).death(Pair(send, opt_out, serial=False), fault) == []


def test_a_crash_after_drift_was_noted_does_not_lose_what_heals_it(lab: Lab) -> None:
    """The listing had become what is accepted; the next comparison found nothing to heal."""
    assert died(lab, "reconcile", "commit distributions, quota_guards", 0, When.BEFORE) == []


def test_half_an_archive_of_distributions_does_not_stop_retention(lab: Lab) -> None:
    """The run found its own torn object damaged, again and again, until it had failed."""
    assert died(lab, "archive distributions", "put archive_blobs", 0, When.TORN) == []


def test_what_was_paused_under_a_lease_does_not_come_up_each_minute(lab: Lab) -> None:
    """The lease of the worker that it was taken from stayed due for as long as the pause lasted."""
    pair = Pair(DISPATCH["approve"], PAUSE, serial=False)
    under_lease = 16
    assert Interleaver(lab).scheduled(pair, under_lease, 6) == []
