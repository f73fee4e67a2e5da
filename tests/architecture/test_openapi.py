"""The description of the API: complete, without loose ends, and free of secrets."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

import jsonschema_rs
import pytest
from werkzeug.test import Client

from activation.api.catalog import RESOURCES
from activation.local import LocalServer
from activation.settings import Settings


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> LocalServer:
    return LocalServer(Settings(data_folder=str(tmp_path_factory.mktemp("openapi"))))


@pytest.fixture(scope="module")
def document(server: LocalServer) -> dict[str, Any]:
    found: dict[str, Any] = Client(server.wsgi).get("/openapi.json").get_json()
    return found


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, item in document["paths"].items():
        for method, operation in item.items():
            yield method, path, operation


def nodes(value: Any) -> Iterator[dict[str, Any]]:
    """Every object inside of `value`."""
    if isinstance(value, dict):
        yield value
    for part in value.values() if isinstance(value, dict) else value:
        if isinstance(part, dict | list):
            yield from nodes(part)


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    references = {node["$ref"] for node in nodes(document) if isinstance(node.get("$ref"), str)}
    assert len(references) > 30
    for reference in references:
        place: Any = document
        for step in reference.removeprefix("#/").split("/"):
            place = place[step]


def test_every_operation_says_what_it_is(document: dict[str, Any]) -> None:
    found = list(operations(document))
    ids = Counter(operation["operationId"] for _, _, operation in found)
    assert [name for name, count in ids.items() if count > 1] == []
    for method, path, operation in found:
        assert operation["summary"].endswith("."), (method, path)
        assert operation["tags"], (method, path)
        assert operation["security"] == [{"bearer": []}]
        assert {"4XX", "5XX"} < set(operation["responses"])


def test_schemas_are_schemas(document: dict[str, Any]) -> None:
    names = list(document["components"]["schemas"])
    assert len(names) > 50
    for name in names:
        place = {"$ref": f"#/components/schemas/{name}", "components": document["components"]}
        jsonschema_rs.validator_for(place)  # raises for what is no schema


def test_no_two_models_share_a_name() -> None:
    """Resources are described one by one: a name that means two things would show only one."""
    seen: dict[str, str] = {}
    for resource in (one for group in RESOURCES.values() for one in group):
        for name, schema in resource.blueprint.components_schemas.items():
            text = json.dumps(schema.model_dump(mode="json", by_alias=True), sort_keys=True)
            assert seen.setdefault(name, text) == text, name


def test_bodies_refuse_unknown_fields_and_are_snake_case(document: dict[str, Any]) -> None:
    drafts = [
        (name, schema)
        for name, schema in document["components"]["schemas"].items()
        if re.search(r"(Draft|Changes|Reference)$", name)
    ]
    assert len(drafts) > 10
    for name, schema in drafts:
        assert schema["additionalProperties"] is False, name
        assert not [one for one in schema["properties"] if re.search("[A-Z]", one)], name


def test_no_answer_has_a_place_for_secrets(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    assert set(schemas["CredentialsInfo"]["properties"]) == {
        "encrypted",
        "account_id",
        "fields",
        "version",
        "updated_at",
        "expires_at",
    }
    names = {name for node in nodes(schemas) for name in node.get("properties", {})}
    assert not names & {"sealed", "secret_value", "signing_secret", "access_token", "password"}


@pytest.mark.parametrize("function", sorted(RESOURCES))
def test_each_function_describes_its_own_routes(
    function: str, server: LocalServer, document: dict[str, Any]
) -> None:
    client = Client(server._functions[function])
    own = client.get("/openapi.json", environ_overrides={"activation.doors": server._doors})
    paths = own.get_json()["paths"]
    assert paths
    assert paths.items() <= document["paths"].items()
