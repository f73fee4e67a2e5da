"""What the streaming job is told: its parameters, each with a help text and a check.

The flex template's metadata is made of them, and the job checks them again: a template may be
started by hand.
"""

from __future__ import annotations

import argparse
import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from activation.errors import ValidationError
from activation.settings import Settings

ID = r"[A-Za-z0-9][A-Za-z0-9._~-]{0,127}"


def _parameter(help_text: str, regex: str, default: str | None = None) -> Any:
    about = {"help": help_text, "regex": f"^{regex}$"}
    if default is None:
        return field(metadata=about)
    return field(default=default, metadata=about)


@dataclass(frozen=True, slots=True)
class JobOptions:
    """The parameters of the job, as text; a field `members_bucket` is `--members_bucket`.

    Raises ValidationError, naming the parameter, for a value that cannot be.
    """

    subscription: str = _parameter(
        "The job's own subscription of topic user-events: projects/PROJECT/subscriptions/NAME.",
        r"projects/[a-z][a-z0-9-]{4,28}[a-z0-9]/subscriptions/[A-Za-z][A-Za-z0-9._~+%-]{2,254}",
    )
    members_bucket: str = _parameter(
        "Bucket in which large states of segments lie: the one of the functions.",
        r"[a-z0-9][a-z0-9._-]{1,61}[a-z0-9]",
    )
    events_bucket: str = _parameter(
        "Bucket of the archive of events: the one of the functions.",
        r"[a-z0-9][a-z0-9._-]{1,61}[a-z0-9]",
    )
    database: str = _parameter(
        "Firestore database of the functions.", r"(\(default\)|[a-z][a-z0-9-]{2,61}[a-z0-9])"
    )
    suppression_kms_key: str = _parameter(
        "KMS key under which the functions keep the keys of suppression lists and of erasures: so"
        " the job knows events of erased users.",
        r"projects/[^/]+/locations/[^/]+/keyRings/[^/]+/cryptoKeys/[^/]+",
    )
    topic_prefix: str = _parameter(
        "What stands before the names of our topics; may be empty.", r"[A-Za-z0-9._~-]{0,64}", ""
    )
    organizations: str = _parameter(
        "Organizations to work for, separated by commas; empty: all of them.",
        rf"({ID}(,{ID})*)?",
        "",
    )
    wait_milliseconds: str = _parameter(
        "How long events wait for others of their shard, 10 to 60000: a step costs about as much"
        " for one event as for hundreds.",
        r"([1-9]\d{1,3}|[1-5]\d{4}|60000)",
        "500",
    )

    def __post_init__(self) -> None:
        for one in dataclasses.fields(self):
            if not re.fullmatch(one.metadata["regex"], getattr(self, one.name)):
                raise ValidationError(
                    f"--{one.name} is not as it has to be: {one.metadata['help']}",
                    field=one.name,
                    reason="pattern",
                )

    @property
    def wait(self) -> timedelta:
        """How long events wait for others."""
        return timedelta(milliseconds=int(self.wait_milliseconds))

    @property
    def only(self) -> frozenset[str] | None:
        """The organizations to work for; None for all."""
        return frozenset(self.organizations.split(",")) if self.organizations else None

    def settings(self) -> Settings:
        """The settings of an App on the stores of the functions."""
        return Settings(
            backend="google",
            project=self.subscription.split("/")[1],
            database=self.database,
            members_bucket=self.members_bucket,
            events_bucket=self.events_bucket,
            suppression_kms_key=self.suppression_kms_key,
            topic_prefix=self.topic_prefix,
        )


def parser() -> argparse.ArgumentParser:
    """What reads the parameters; those of Beam are left to Beam."""
    reader = argparse.ArgumentParser(prog="activation.streaming.job", allow_abbrev=False)
    for one in dataclasses.fields(JobOptions):
        needed = one.default is dataclasses.MISSING
        reader.add_argument(
            f"--{one.name}",
            required=needed,
            default=None if needed else one.default,
            help=one.metadata["help"],
        )
    return reader


def parsed(arguments: Sequence[str]) -> tuple[JobOptions, list[str]]:
    """The parameters, and what is left for Beam."""
    found, rest = parser().parse_known_args(list(arguments))
    return JobOptions(**vars(found)), rest


def template_metadata() -> Mapping[str, Any]:
    """What a flex template says of itself: name, description, and its parameters."""
    return {
        "name": "Segments as a stream",
        "description": "Counts the events of topic user-events and keeps memberships in segments:"
        " the steps of the function process_events, for more than functions carry.",
        "streaming": True,
        "supportsAtLeastOnce": True,
        "supportsExactlyOnce": True,
        "parameters": [
            {
                "name": one.name,
                "label": one.name.replace("_", " ").capitalize(),
                "helpText": one.metadata["help"],
                "paramType": "TEXT",
                "isOptional": one.default is not dataclasses.MISSING,
                "regexes": [one.metadata["regex"]],
                **({} if one.default is dataclasses.MISSING else {"defaultValue": one.default}),
            }
            for one in dataclasses.fields(JobOptions)
        ],
    }
