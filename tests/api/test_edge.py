"""What holds for every request, whichever function it is for."""

from __future__ import annotations

import pytest
from werkzeug.test import Client

from activation.local import LocalServer
from tests.api.client import Api, code, require_envelope
from tests.api.conftest import MAX_BODY, ORIGIN
from tests.api.test_body import MALFORMED

TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"


class TestRoutes:
    @pytest.mark.parametrize(
        "path",
        [
            "/nothing",
            "/audiences/",
            "/audiences//x",
            "/audiences/x/nothing",
            "/../audiences",
            "/%2e%2e/audiences",
            "/audiences/%2e%2e/platforms",
            "/audiences/..%2f..%2fetc",
            "/audiences/a%00b",
            "/audiences/a%0d%0ab",
            "/audiences/%ff",
            "/uploads",
        ],
    )
    def test_unknown_address_is_404(self, path: str, api: Api) -> None:
        assert code(api.get(path)) == (404, "NOT_FOUND")

    @pytest.mark.parametrize("path", ["/", "/x//y", "/robots.txt", "/favicon.ico"])
    def test_addresses_outside_the_api_are_404(self, path: str, api: Api) -> None:
        assert code(api.at("").get(path)) == (404, "NOT_FOUND")

    @pytest.mark.parametrize("method", ["TRACE", "CONNECT", "FOO", "DELETE"])
    def test_other_methods_are_405_and_say_which_there_are(self, method: str, api: Api) -> None:
        response = api.send(method, "/audiences")
        assert code(response) == (405, "METHOD_NOT_ALLOWED")
        assert response.headers["Allow"] == "GET, HEAD, OPTIONS, POST"

    def test_wrong_method_is_told_before_the_token_is_asked_for(self, public: Api) -> None:
        assert public.send("DELETE", "/audiences").status_code == 405

    def test_both_prefixes_are_the_same_thing(self, api: Api) -> None:
        created = api.at("/api").audience()
        path = f"/audiences/{created['audience_id']}"
        assert api.at("/api").get(path).get_json() == api.get(path).get_json()

    def test_long_address_is_414(self, api: Api) -> None:
        assert code(api.get("/audiences?tag=" + "x" * 9000)) == (414, "URI_TOO_LONG")

    def test_head_answers_without_a_body(self, api: Api) -> None:
        response = api.send("HEAD", "/audiences")
        assert (response.status_code, response.data) == (200, b"")

    @pytest.mark.parametrize(
        "path", ["/robots.txt", "/favicon.ico", "//x", "/a//b", "/nothing", "/"]
    )
    @pytest.mark.parametrize("function", ["audiences", "platforms", "distributions"])
    def test_a_functions_own_framework_answers_in_our_shape(
        self, path: str, function: str, server: LocalServer
    ) -> None:
        given = {"PATH_INFO": path, "activation.doors": server._doors}
        response = Client(server._functions[function]).get("/", environ_overrides=given)
        assert response.status_code == 404
        require_envelope(response)


class TestBodies:
    @pytest.mark.parametrize("name", sorted(MALFORMED))
    def test_malformed_body_is_400(self, name: str, api: Api) -> None:
        response = api.post(
            "/audiences", data=MALFORMED[name][:MAX_BODY], content_type="application/json"
        )
        assert code(response) == (400, "MALFORMED_JSON")

    @pytest.mark.parametrize(
        "kind", ["text/plain", "application/xml", "multipart/form-data", "", "application/jsonx"]
    )
    def test_other_content_type_is_415(self, kind: str, api: Api) -> None:
        response = api.post("/audiences", data=b"{}", content_type=kind)
        assert code(response) == (415, "UNSUPPORTED_MEDIA_TYPE")

    def test_packed_body_is_415(self, api: Api) -> None:
        response = api.post("/audiences", {}, headers={"Content-Encoding": "gzip"})
        assert code(response) == (415, "UNSUPPORTED_MEDIA_TYPE")

    def test_body_over_the_limit_is_413_before_anything_else(self, public: Api) -> None:
        response = public.post("/nothing", data=b"x" * (MAX_BODY + 1))
        assert code(response) == (413, "PAYLOAD_TOO_LARGE")
        assert str(MAX_BODY) in response.get_json()["error"]["message"]

    def test_body_at_the_limit_is_read(self, api: Api) -> None:
        frame = b'{"name":"x","type":"first_party","description":""}'
        body = frame + b" " * (MAX_BODY - len(frame))
        response = api.post("/audiences", data=body, content_type="application/json")
        assert response.status_code == 201

    @pytest.mark.parametrize(
        ("field", "body"),
        [
            ("rules[0].operator", {"rules": [{"variable_id": "v"}]}),
            ("rules[1].variable_id", {"rules": [{"variableId": "v", "operator": "="}, {}]}),
            ("name", {"name": ""}),
            ("name", {"name": 7}),
            ("name", {"name": "x" * 256}),
            ("type", {"type": "4th-party"}),
            ("type", {"type": ["first_party"]}),
            ("type", {"type": {"first_party": 1}}),
            ("metadata.tags[0]", {"metadata": {"tags": [""]}}),
            ("metadata.expires_at", {"metadata": {"expires_at": "soon"}}),
            ("surprise", {"surprise": 1}),
            ("*", {"bob@example.com": 1}),
        ],
    )
    def test_schema_fault_is_422_with_its_place(
        self, field: str, body: dict[str, object], api: Api
    ) -> None:
        response = api.post("/audiences", {"name": "x", "type": "first_party", **body})
        assert code(response) == (422, "VALIDATION_ERROR")
        assert response.get_json()["error"]["details"]["field"] == field
        assert "bob@example.com" not in response.get_data(as_text=True)

    @pytest.mark.parametrize("method", ["GET", "DELETE"])
    @pytest.mark.parametrize("query", ["organization_id=evil", "x", "x=1&x=2"])
    def test_a_query_where_none_belongs_is_422_and_has_no_effect(
        self, query: str, method: str, api: Api
    ) -> None:
        path = f"/audiences/{api.audience()['audience_id']}"
        assert code(api.send(method, f"{path}?{query}")) == (422, "VALIDATION_ERROR")
        assert api.get(path).status_code == 200

    @pytest.mark.parametrize(
        "query", ["limit=0", "limit=201", "limit=x", "user_id=bob", "offset=1"]
    )
    def test_query_is_checked_like_a_body(self, query: str, api: Api) -> None:
        assert code(api.get(f"/audiences?{query}")) == (422, "VALIDATION_ERROR")

    def test_body_where_none_belongs_is_400(self, api: Api) -> None:
        platform = api.platform()
        response = api.post(f"/platforms/{platform['platform_id']}/test", {"url": "http://x"})
        assert code(response) == (400, "BAD_REQUEST")


class TestTokens:
    def test_no_token_is_401(self, public: Api) -> None:
        response = public.get("/audiences")
        assert code(response) == (401, "UNAUTHENTICATED")
        assert response.headers["WWW-Authenticate"].startswith("Bearer")

    def test_bad_token_is_not_repeated(self, public: Api) -> None:
        response = public.with_headers(Authorization="Bearer secret.token.here").get("/audiences")
        assert code(response) == (401, "UNAUTHENTICATED")
        assert "secret" not in response.get_data(as_text=True)

    def test_token_comes_before_the_body(self, public: Api) -> None:
        response = public.post("/audiences", data=b"[", content_type="application/json")
        assert response.status_code == 401

    def test_tenant_comes_from_the_token_only(self, api: Api) -> None:
        evil = api.with_headers(X_Org_Id="evil-corp")
        assert evil.audience()["organization_id"] == "acme"
        body = {"name": "x", "type": "first_party", "organization_id": "evil-corp"}
        assert api.post("/audiences", body).status_code == 422

    @pytest.mark.parametrize("path", ["/health", "/ready", "/docs", "/openapi.json"])
    def test_these_need_no_token(self, path: str, public: Api) -> None:
        assert public.at("").get(path).status_code == 200

    def test_pages_of_the_description_work_offline(self, public: Api) -> None:
        page = public.at("").get("/docs").get_data(as_text=True)
        assert "http" not in page
        for name in ("swagger-ui.css", "swagger-ui-bundle.js", "start.js"):
            assert f"docs/{name}" in page
            assert len(public.at("").get(f"/docs/{name}").data) > 50
        assert public.at("").get("/docs/secrets.txt").status_code == 404


class TestTrace:
    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("traceparent", f"00-{TRACE_ID}-00f067aa0ba902b7-01"),
            ("X-Cloud-Trace-Context", f"{TRACE_ID}/123;o=1"),
            ("X-Trace-Id", TRACE_ID),
        ],
    )
    def test_callers_trace_is_kept(self, name: str, value: str, api: Api) -> None:
        response = api.get("/nothing", headers={name: value})
        assert response.headers["X-Trace-Id"] == TRACE_ID

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("traceparent", f"00-{'0' * 32}-00f067aa0ba902b7-01"),
            ("X-Trace-Id", "a b"),
            ("X-Trace-Id", "x" * 65),
            ("X-Trace-Id", '"}{"'),
        ],
    )
    def test_malformed_trace_is_replaced(self, name: str, value: str, api: Api) -> None:
        found = api.get("/nothing", headers={name: value}).headers["X-Trace-Id"]
        assert len(found) == 32
        assert value not in found


class TestOrigins:
    def test_named_origin_may_read(self, api: Api) -> None:
        response = api.get("/audiences", headers={"Origin": ORIGIN})
        assert response.headers["Access-Control-Allow-Origin"] == ORIGIN
        assert "ETag" in response.headers["Access-Control-Expose-Headers"]
        assert "Access-Control-Allow-Credentials" not in response.headers
        assert response.headers["Vary"] == "Origin"

    @pytest.mark.parametrize(
        "origin", ["null", "https://evil.example", "https://console.example.evil", "", "*"]
    )
    def test_other_origins_may_not(self, origin: str, api: Api) -> None:
        response = api.get("/audiences", headers={"Origin": origin})
        assert "Access-Control-Allow-Origin" not in response.headers

    def test_preflight_needs_no_token(self, public: Api) -> None:
        response = public.send("OPTIONS", "/audiences", headers={"Origin": ORIGIN})
        assert response.status_code == 204
        assert "Idempotency-Key" in response.headers["Access-Control-Allow-Headers"]
        assert response.headers["Allow"] == "GET, HEAD, OPTIONS, POST"
