"""`activation quota` and `activation organization` on a store."""

from __future__ import annotations

from tests.cli.conftest import Program


def test_limits_are_set_shown_and_met(program: Program) -> None:
    assert "audiences without limit" in program.ok("quota")
    program.ok("audiences", "create", "One")
    found = program.json("quota", "set", "operator", "--audiences", "2")
    assert (found["max_audiences"], found["max_distributions_per_month"]) == (2, None)
    program.ok("quota", "set", "--audiences", "9", "--distributions", "100")
    text = program.ok("quota")
    assert "Left for you: audiences 1; distributions 100 until 20" in text
    program.ok("audiences", "create", "Two")
    said = program.fails(3, "audiences", "create", "Three")
    assert said == "Error: This operator may have 2 audiences and has 2. (user)\n"


def test_what_is_not_named_stays_and_none_lifts(program: Program) -> None:
    program.ok("quota", "set", "--audiences", "9", "--distributions", "100")
    found = program.json("quota", "set", "--audiences", "none")
    assert (found["max_audiences"], found["max_distributions_per_month"]) == (None, 100)
    assert "100" in program.ok("quota", "show")
    assert program.json("quota", "show", "operator")["max_audiences"] is None


def test_wrong_limits_are_wrong_usage(program: Program) -> None:
    assert "Say --audiences" in program.fails(2, "quota", "set")
    for wrong in ("-1", "many", "1000001"):
        assert "--audiences" in program.fails(2, "quota", "set", f"--audiences={wrong}")
    said = program.fails(3, "quota", "set", "nobody@example.com", "--audiences", "1")
    assert "(not_found)" in said


def test_an_operator_may_be_named_by_an_address(program: Program) -> None:
    program.ok("quota", "--user", "ann+1@example.com")
    found = program.json("quota", "set", "ann+1@example.com", "--distributions", "5")
    assert (found["user_id"], found["max_distributions_per_month"]) == ("ann+1@example.com", 5)


def test_an_organization_shows_its_time_zone_and_operators(program: Program) -> None:
    assert "UTC" in program.ok("organization")
    program.ok("organization", "set", "--time-zone", "Europe/Berlin")
    assert program.json("organization")["time_zone"] == "Europe/Berlin"
    assert "not a time zone" in program.fails(3, "organization", "set", "--time-zone", "Berlin")
    program.ok("organization", "--user", "zoe")
    found = program.json("organization", "operators")
    assert {one["user_id"] for one in found} == {"operator", "zoe"}
    assert "first seen" in program.ok("organization", "operators")
