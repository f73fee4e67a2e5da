"""A trial apply against the code: names, sizes, addresses, settings are what the code expects."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from activation.adapters.gcp.bus import PubSubBus
from activation.adapters.gcp.documents import firestore_indexes
from activation.errors import ValidationError
from activation.function_manifest import Function, functions
from activation.settings import PREFIX, from_environment
from tests.terraform.configuration import Finding
from tests.terraform.trial import Applied

MULTI_REGIONS = {"EU": "europe", "US": "us", "ASIA": "asia", "eur3": "europe", "nam5": "us"}
LENGTHS = {
    "google_service_account": ("account_id", 6, 30),
    "google_storage_bucket": ("name", 3, 63),
    "google_cloudfunctions2_function": ("name", 1, 62),
    "google_kms_key_ring": ("name", 1, 63),
    "google_firestore_database": ("name", 4, 63),
    "google_pubsub_topic": ("name", 3, 255),
    "google_cloud_scheduler_job": ("name", 1, 500),
}
"""What names may have: argument, fewest and most characters."""


MOST_TILES = 100
"""What a dashboard of Cloud Monitoring holds."""
MOST_COUNTED = 10_000
"""What a rule of Cloud Armor that bans can count to."""
FURTHEST_BACK_SECONDS = 24 * 3600
"""No alert of Cloud Monitoring can look further back."""


def of_functions(applied: Applied) -> Iterator[Finding]:
    """Each function is as large, as patient and as closed as its manifest says."""
    made = applied.by_key("google_cloudfunctions2_function", "function")
    accounts = applied.by_key("google_service_account", "function")
    for function in functions():
        values = made.get(function.name)
        if values is None:
            yield _wrong("function", function.name, "is not deployed")
            continue
        service, build = values["service_config"][0], values["build_config"][0]
        least = applied.outputs["functions"][function.name]
        wanted = {
            "entry_point": (build["entry_point"], function.entry_point),
            "memory": (service["available_memory"], function.memory),
            "cpu": (float(service["available_cpu"]), function.cpu),
            "concurrency": (service["max_instance_request_concurrency"], function.concurrency),
            "max_instances": (service["max_instance_count"], function.max_instances),
            "timeout": (service["timeout_seconds"], function.timeout_seconds),
            "identity": (service["service_account_email"], accounts[function.name]["email"]),
            "output": (least["service"], values["name"]),
            "url": (least["url"], service["uri"]),
            "threads": (service["environment_variables"]["THREADS"], str(function.concurrency)),
        }
        yield from _compared("function", function.name, wanted)
        if service["min_instance_count"] < function.min_instances:
            yield _wrong("function", function.name, "has fewer warm instances than the manifest")


def of_settings(applied: Applied) -> Iterator[Finding]:
    """The functions take their settings, and know their own address and who may call them."""
    deliverers = applied.by_key("google_service_account", "deliverer")
    for function in functions():
        made = applied.by_key("google_cloudfunctions2_function", "function")[function.name]
        given = made["service_config"][0]["environment_variables"]
        try:
            settings = from_environment({n: v for n, v in given.items() if n.startswith(PREFIX)})
        except ValidationError as error:
            yield _wrong("function", function.name, error.message)
            continue
        accounts = [a for a in settings.push_service_accounts.split(",") if a]
        sent = deliverers[function.trigger]["email"] if function.trigger != "http" else None
        buckets = applied.outputs["buckets"]
        wanted = {
            "backend": (settings.backend, "google"),
            "push_audience": (settings.push_audience, _audience(applied, function)),
            "push_service_accounts": (accounts, [sent] if sent else []),
            "uploads_bucket": (settings.uploads_bucket, buckets["uploads"]),
            "members_bucket": (settings.members_bucket, buckets["members"]),
            "backup_bucket": (settings.backup_bucket, buckets["backup"]),
            "archive_bucket": (settings.archive_bucket, buckets["archive"]),
            "events_bucket": (settings.events_bucket, buckets["events"]),
            "journal_bucket": (settings.journal_bucket, buckets["journal"]),
            "kms_key": (settings.kms_key, applied.outputs["keys"]["credentials"]),
            "suppression_kms_key": (
                settings.suppression_kms_key,
                applied.outputs["keys"]["suppressions"],
            ),
            "signing_key": (
                settings.signing_key.rpartition("/cryptoKeyVersions/")[0],
                applied.outputs["keys"]["signing"],
            ),
        }
        yield from _compared("function", function.name, wanted)


def of_messages(applied: Applied) -> Iterator[Finding]:
    """Topics and subscriptions bear the names the bus uses, and push to the right function."""
    prefix = applied.outputs["environment"]["ACTIVATION_TOPIC_PREFIX"]
    bus = PubSubBus("p", prefix)
    topics = applied.by_key("google_pubsub_topic", "topic")
    dead_topics = applied.by_key("google_pubsub_topic", "dead")
    made = applied.by_key("google_pubsub_subscription", "function")
    waiting = applied.by_key("google_pubsub_subscription", "dead")
    for function in functions():
        if not function.topic:
            continue
        values = made.get(function.name)
        if values is None or function.topic not in topics:
            yield _wrong("subscription", function.name, "is not there")
            continue
        push, patience = values["push_config"][0], values["retry_policy"][0]
        waits = waiting[function.name]
        dead = values["dead_letter_policy"][0]
        wanted = {
            "topic": (
                bus._topic(function.topic),
                f"projects/p/topics/{topics[function.topic]['name']}",
            ),
            "name": (
                bus._subscription(function.name),
                f"projects/p/subscriptions/{values['name']}",
            ),
            "dead name": (
                bus._dead(function.name),
                f"projects/p/subscriptions/{waits['name']}",
            ),
            "source": (values["topic"], topics[function.topic]["id"]),
            "dead letters": (dead["dead_letter_topic"], dead_topics[function.name]["id"]),
            "they wait": (waits["topic"], dead_topics[function.name]["id"]),
            "endpoint": (push["push_endpoint"], _url(applied, function)),
            "audience": (push["oidc_token"][0]["audience"], _audience(applied, function)),
            "ordered": (values["enable_message_ordering"], True),
            "they wait in any order": (bool(waits["enable_message_ordering"]), False),
            "attempts": (dead["max_delivery_attempts"], function.max_attempts),
            "deadline": (values["ack_deadline_seconds"], function.ack_deadline_seconds),
            "first pause": (patience["minimum_backoff"], f"{function.min_backoff_seconds}s"),
            "last pause": (patience["maximum_backoff"], f"{function.max_backoff_seconds}s"),
        }
        yield from _compared("subscription", function.name, wanted)
    word = applied.one("google_storage_notification", "upload")
    arrives = (word["topic"], word["bucket"])
    if arrives != (topics["member-imports"]["id"], applied.outputs["buckets"]["uploads"]):
        yield _wrong("notification", "upload", "does not tell importers of uploads")


def of_jobs(applied: Applied) -> Iterator[Finding]:
    """Every schedule of the manifest rings at its function, with its name."""
    wanted: dict[str, tuple[Function, str, dict[str, str]]] = {}
    for function in functions():
        if function.schedule:
            wanted[function.name] = (function, function.schedule, {})
        for job, cron in function.schedules:
            wanted[f"{function.name}_{job}"] = (function, cron, {"job": job})
    made = applied.by_key("google_cloud_scheduler_job", "job")
    for name in sorted(wanted.keys() ^ made.keys()):
        yield _wrong("job", name, "is in the manifest or in the plan, not in both")
    for name in wanted.keys() & made.keys():
        (function, cron, body), values = wanted[name], made[name]
        target = values["http_target"][0]
        compared = {
            "schedule": (values["schedule"], cron),
            "time zone": (values["time_zone"], "Etc/UTC"),
            "body": (json.loads(base64.b64decode(target["body"])), body),
            "uri": (target["uri"], _url(applied, function)),
            "audience": (target["oidc_token"][0]["audience"], _audience(applied, function)),
        }
        yield from _compared("job", name, compared)


def of_paths(applied: Applied) -> Iterator[Finding]:
    """Every route leads to its function, in both spellings, through a door of its own."""
    backends = applied.by_key("google_compute_backend_service", "function")
    groups = applied.by_key("google_compute_region_network_endpoint_group", "function")
    matcher = applied.one("google_compute_url_map", "api")["path_matcher"][0]
    led, order = _led(matcher["route_rules"])
    for function in functions():
        for route in function.routes:
            for path in _spellings(route):
                if led.pop(path, None) != backends[function.name]["id"]:
                    yield _wrong("path", path, f"does not lead to {function.name}")
        if function.routes:
            backend, group = backends[function.name], groups[function.name]
            service = group["cloud_run"][0]["service"]
            wanted = {
                "group": (backend["backend"][0]["group"], group["id"]),
                "service": (service, applied.outputs["functions"][function.name]["service"]),
            }
            yield from _compared("backend", function.name, wanted)
    sockets = applied.by_key("google_compute_backend_service", "sockets")
    if led.pop("/ws/", None) != (sockets["sockets"]["id"] if sockets else None):
        yield _wrong("path", "/ws/", "does not lead to the service for sockets")
    for path in led:
        yield _wrong("path", path, "is no route of the manifest")
    depths = [
        path.rstrip("/").removeprefix("/api").removeprefix("/v1").count("/") for path in order
    ]
    if depths != sorted(depths, reverse=True):
        yield _wrong("path", "order", "a route hides another one that lies below it")


def _spellings(route: str) -> list[str]:
    """What a route is in the rules, below both prefixes: itself, and all below it."""
    below = [] if "*" in route else ["/"]
    return [f"{prefix}{route}{end}" for prefix in ("/api/v1", "/api") for end in ["", *below]]


def _led(rules: list[dict[str, Any]]) -> tuple[dict[str, str], list[str]]:
    """Where each path leads, and the paths in the order in which they are tried."""
    led: dict[str, str] = {}
    for rule in sorted(rules, key=lambda one: int(one["priority"])):
        for match in rule["match_rules"]:
            names = ("path_template_match", "full_path_match", "prefix_match")
            (path,) = [match[name] for name in names if match[name]]
            led[path] = rule["service"]
    return led, list(led)


def of_database(applied: Applied) -> Iterator[Finding]:
    """Fields are indexed, and expire, exactly as the code declares."""
    declared = {
        f"{one['collectionGroup']}/{one['fieldPath']}": (
            [(index["order"], index["queryScope"]) for index in one["indexes"]],
            bool(one.get("ttl")),
        )
        for one in firestore_indexes()["fieldOverrides"]
    }
    made = {
        key: (
            [(i["order"], i["query_scope"]) for i in values["index_config"][0]["indexes"]],
            bool(values["ttl_config"]),
        )
        for key, values in applied.by_key("google_firestore_field", "override").items()
    }
    for key in sorted(declared.keys() | made.keys()):
        if declared.get(key) != made.get(key):
            yield _wrong("field", key, f"is {made.get(key)}, declared {declared.get(key)}")


def of_keys(applied: Applied) -> Iterator[Finding]:
    """A key is where what it encrypts is: Google refuses any other."""
    rings = {one.values["id"]: one.values["location"] for one in applied.of("google_kms_key_ring")}
    places = {
        one.values["id"]: rings[one.values["key_ring"]]
        for one in applied.of("google_kms_crypto_key")
    }
    used = [
        *(
            (one, "location", one.values["encryption"][0]["default_kms_key_name"])
            for one in applied.of("google_storage_bucket")
        ),
        *(
            (one, "location_id", one.values["cmek_config"][0]["kms_key_name"])
            for one in applied.of("google_firestore_database")
        ),
        *(
            (one, "location", one.values["default_encryption_configuration"][0]["kms_key_name"])
            for one in applied.of("google_bigquery_dataset")
        ),
        *(
            (one, "location", one.values["kms_key_name"])
            for type_ in ("google_cloudfunctions2_function", "google_artifact_registry_repository")
            for one in applied.of(type_)
        ),
    ]
    for one, argument, key in used:
        place = one.values[argument]
        if places.get(key) != MULTI_REGIONS.get(place, place):
            yield Finding("kms", one.address, f"lies in {place}, its key in {places.get(key)}")
    purposes = [
        one
        for one in applied.of("google_kms_crypto_key")
        if one.values["name"] in ("credentials", "suppressions", "signing")
    ]
    if len({one.values["key_ring"] for one in purposes}) != 3:
        yield Finding("kms", "rings", "credentials, suppressions and signing share a ring")


def of_names(applied: Applied) -> Iterator[Finding]:
    """Names are as long as Google takes them, and nothing is named twice."""
    for type_, (argument, least, most) in LENGTHS.items():
        names = [(one.address, one.values[argument]) for one in applied.of(type_)]
        for address, name in names:
            if not least <= len(name) <= most:
                yield Finding("names", address, f"{name} has {len(name)} of {most} characters")
        if len({name for _, name in names}) != len(names) and type_ != "google_kms_crypto_key":
            yield Finding("names", type_, "two have one name")


def of_watching(applied: Applied) -> Iterator[Finding]:
    """All three levels are there, burning budgets are seen, our metrics exist."""
    policies = applied.of("google_monitoring_alert_policy")
    levels = {one.values["user_labels"]["level"] for one in policies}
    if levels != {"critical", "warning", "info"}:
        yield Finding("alerts", "levels", f"there are only {sorted(levels)}")
    known = {one.values["name"] for one in applied.of("google_logging_metric")}
    texts = [json.dumps(one.values["conditions"]) for one in policies]
    texts += [one.values["dashboard_json"] for one in applied.of("google_monitoring_dashboard")]
    for one in applied.of("google_monitoring_dashboard"):
        tiles = len(json.loads(one.values["dashboard_json"])["mosaicLayout"]["tiles"])
        if not 0 < tiles <= MOST_TILES:
            yield Finding("dashboards", one.address, f"has {tiles} tiles of {MOST_TILES}")
    pattern = r"(?:logging\.googleapis\.com/user/|logging_googleapis_com:user_)(\w+)"
    for name in sorted({found for text in texts for found in re.findall(pattern, text)}):
        if not any(name in (one, f"{one}_sum", f"{one}_count", f"{one}_bucket") for one in known):
            yield Finding("metrics", name, "is no metric of the catalogue")
    burn = applied.by_key("google_monitoring_alert_policy", "burn")
    rates = {
        key: [part["condition_threshold"][0]["threshold_value"] for part in values["conditions"]]
        for key, values in burn.items()
    }
    if rates != {"fast": [14.4, 14.4], "slow": [6, 6], "steady": [3, 3]}:
        yield Finding("slo", "burn", f"burn rates are {rates}")
    for name, values in burn.items():
        filters = [part["condition_threshold"][0]["filter"] for part in values["conditions"]]
        back = [int(found) for one in filters for found in re.findall(r'"(\d+)s"\)$', one)]
        if len(back) != len(filters) or max(back) > FURTHEST_BACK_SECONDS:
            yield Finding("slo", name, f"looks {back} seconds back, Google a day at most")


def of_floods(applied: Applied) -> Iterator[Finding]:
    """Cloud Armor counts to 10,000 for a rule that bans, and refuses what asks for more."""
    policy = applied.one("google_compute_security_policy", "api")
    for rule in policy["rule"]:
        for limits in rule["rate_limit_options"]:
            for name in ("rate_limit_threshold", "ban_threshold"):
                count = limits[name][0]["count"]
                if not 1 <= count <= MOST_COUNTED:
                    yield _wrong("firewall", name, f"counts to {count}, Cloud Armor to 10000")


def of_latencies(applied: Applied) -> Iterator[Finding]:
    """Connections that last an hour by design are in no figure that says how fast answers come."""
    services = applied.by_key("google_cloudfunctions2_function", "function")
    lasting = [services[one.name]["name"] for one in functions() if one.timeout_seconds == 3600]
    alert = applied.by_key("google_monitoring_alert_policy", "threshold")["slow-api"]
    (condition,) = alert["conditions"]
    (sli,) = applied.one("google_monitoring_slo", "latency")["request_based_sli"]
    filters = {
        "slow-api": condition["condition_threshold"][0]["filter"],
        "slo": sli["distribution_cut"][0]["distribution_filter"],
    }
    for name, text in filters.items():
        for service in lasting:
            if f'AND resource.labels.backend_target_name != "{service}"' not in text:
                yield _wrong(
                    "latency", name, f"takes the connections of {service} for slow answers"
                )


CHECKS: tuple[Callable[[Applied], Iterator[Finding]], ...] = (
    of_functions,
    of_settings,
    of_messages,
    of_jobs,
    of_paths,
    of_database,
    of_keys,
    of_names,
    of_watching,
    of_latencies,
    of_floods,
)


def _url(applied: Applied, function: Function) -> str:
    (made,) = (
        one.values["service_config"][0]["uri"]
        for one in applied.of("google_cloudfunctions2_function")
        if one.key == function.name
    )
    return str(made)


def _audience(applied: Applied, function: Function) -> str:
    return str(applied.outputs["functions"][function.name]["audience"])


def _wrong(kind: str, name: str, what: str) -> Finding:
    return Finding(kind, name, what)


def _compared(kind: str, name: str, wanted: Mapping[str, tuple[Any, Any]]) -> Iterator[Finding]:
    for what, (given, expected) in wanted.items():
        if given != expected:
            yield _wrong(kind, name, f"{what} is {given!r}, expected {expected!r}")
