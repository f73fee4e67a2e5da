"""A stand-in for Google's provider: it knows the schema, and does nothing.

Terraform starts it as a plugin and asks, over gRPC on loopback, for the schema and whether a block
is right; creating is left to `mock_provider`. So the real `terraform validate` and `terraform test`
run without the provider and without a network. Started as `stand_in.py SCHEMA`; it ends when
Terraform says so or has gone.

Terraform's client certificates are of a kind (P-521) that gRPC refuses, so none is asked for: the
port is on loopback, lives for seconds, and has nothing to give away.
"""

from __future__ import annotations

import base64
import json
import os
import sys
import threading
from concurrent import futures
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

PROTOCOL = 5
STRING, BYTES, BOOL, INT32, INT64, MESSAGE = 9, 12, 8, 5, 3, 11
NESTING = {"struct": 1, "list": 2, "set": 3, "map": 4}

MESSAGES: dict[str, tuple[tuple[str, int, int | str, bool], ...]] = {
    "DynamicValue": (("msgpack", 1, BYTES, False), ("json", 2, BYTES, False)),
    "Diagnostic": (
        ("severity", 1, INT32, False),
        ("summary", 2, STRING, False),
        ("detail", 3, STRING, False),
    ),
    "Attribute": (
        ("name", 1, STRING, False),
        ("type", 2, BYTES, False),
        ("required", 4, BOOL, False),
        ("optional", 5, BOOL, False),
        ("computed", 6, BOOL, False),
    ),
    "NestedBlock": (
        ("type_name", 1, STRING, False),
        ("block", 2, "Block", False),
        ("nesting", 3, INT32, False),
        ("min_items", 4, INT64, False),
        ("max_items", 5, INT64, False),
    ),
    "Block": (
        ("version", 1, INT64, False),
        ("attributes", 2, "Attribute", True),
        ("block_types", 3, "NestedBlock", True),
    ),
    "Schema": (("version", 1, INT64, False), ("block", 2, "Block", False)),
    "Empty": (),
    "Entry": (("key", 1, STRING, False), ("value", 2, "Schema", False)),
    "SchemaResponse": (
        ("provider", 1, "Schema", False),
        ("resource_schemas", 2, "Entry", True),
        ("data_source_schemas", 3, "Entry", True),
    ),
    "PrepareRequest": (("config", 1, "DynamicValue", False),),
    "PrepareResponse": (
        ("prepared_config", 1, "DynamicValue", False),
        ("diagnostics", 2, "Diagnostic", True),
    ),
    "ValidateRequest": (("type_name", 1, STRING, False), ("config", 2, "DynamicValue", False)),
    "ValidateResponse": (("diagnostics", 1, "Diagnostic", True),),
}
"""The part of Terraform's plugin protocol that is spoken here: name, number, type, repeated. A map
is, on the wire, a list of entries with a key and a value."""


def protocol() -> Any:
    """The messages as classes, by name."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    file = descriptor_pb2.FileDescriptorProto(name="p.proto", package="tfplugin5", syntax="proto3")
    for name, fields in MESSAGES.items():
        message = file.message_type.add(name=name)
        for label, number, kind, repeated in fields:
            added = message.field.add(name=label, number=number, label=3 if repeated else 1)
            added.type = kind if isinstance(kind, int) else MESSAGE
            if isinstance(kind, str):
                added.type_name = f".tfplugin5.{kind}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"tfplugin5.{name}"))
        for name in MESSAGES
    }


class StandIn:
    """Answers Terraform's questions from a schema."""

    def __init__(self, schema: Any) -> None:
        self.schema = schema
        self.messages = protocol()

    def get_schema(self, _request: Any, _context: Any) -> Any:
        """All blocks there are; of the provider's own arguments none is required."""
        answer = self.messages["SchemaResponse"]()
        self._fill(answer.provider.block, self.schema["provider"])
        for attribute in answer.provider.block.attributes:
            attribute.required, attribute.optional, attribute.computed = False, True, False
        for name, block in self.schema["resources"].items():
            self._fill(answer.resource_schemas.add(key=name).value.block, block)
        for name, block in self.schema["data"].items():
            self._fill(answer.data_source_schemas.add(key=name).value.block, block)
        return answer

    def prepare(self, request: Any, _context: Any) -> Any:
        """The provider's configuration, as it is."""
        return self.messages["PrepareResponse"](prepared_config=request.config)

    def valid(self, _request: Any, _context: Any) -> Any:
        """What fits the schema is valid."""
        return self.messages["ValidateResponse"]()

    def nothing(self, _request: Any, _context: Any) -> Any:
        """Done."""
        return self.messages["Empty"]()

    def _fill(self, block: Any, known: Any) -> None:
        block.SetInParent()  # a block without arguments is there all the same
        for name, attribute in known["attributes"].items():
            block.attributes.add(
                name=name,
                type=json.dumps(attribute["type"]).encode(),
                required=attribute["required"],
                optional=attribute["optional"],
                computed=attribute["computed"],
            )
        for name, inner in known["blocks"].items():
            several = inner["nesting"] in ("list", "set")
            nested = block.block_types.add(
                type_name=name,
                nesting=NESTING[inner["nesting"]],
                min_items=inner["min"] if inner["nesting"] != "struct" else 0,
                max_items=inner["max"] if several else 0,
            )
            self._fill(nested.block, inner["block"])


def serve(schema: Any) -> None:
    """Answer until told to stop."""
    import grpc

    stopped = threading.Event()
    stand_in = StandIn(schema)
    messages = stand_in.messages

    def shut_down(request: Any, context: Any) -> Any:
        stopped.set()
        return stand_in.nothing(request, context)

    plugin = {
        "GetSchema": ("Empty", stand_in.get_schema),
        "PrepareProviderConfig": ("PrepareRequest", stand_in.prepare),
        "ValidateResourceTypeConfig": ("ValidateRequest", stand_in.valid),
        "ValidateDataSourceConfig": ("ValidateRequest", stand_in.valid),
        "Configure": ("Empty", stand_in.nothing),
        "Stop": ("Empty", stand_in.nothing),
    }
    services: dict[str, dict[str, tuple[str, Any]]] = {
        "tfplugin5.Provider": plugin,
        "plugin.GRPCController": {"Shutdown": ("Empty", shut_down)},
    }
    server = grpc.server(
        futures.ThreadPoolExecutor(4), options=[("grpc.max_send_message_length", -1)]
    )
    for service, methods in services.items():
        handlers = {
            name: grpc.unary_unary_rpc_method_handler(
                act,
                request_deserializer=messages[kind].FromString,
                response_serializer=lambda answer: answer.SerializeToString(),
            )
            for name, (kind, act) in methods.items()
        }
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
    key, certificate, der = _certificate()
    port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([(key, certificate)]))
    server.start()
    mark = base64.b64encode(der).decode().rstrip("=")
    print(f"1|{PROTOCOL}|tcp|127.0.0.1:{port}|grpc|{mark}", flush=True)
    parent = os.getppid()
    while not stopped.wait(1) and os.getppid() == parent:
        pass
    server.stop(0).wait()


def _certificate() -> tuple[bytes, bytes, bytes]:
    """A key and a certificate of itself for one hour: PEM, PEM, DER."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    uses = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage(uses), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return (
        pem,
        certificate.public_bytes(serialization.Encoding.PEM),
        certificate.public_bytes(serialization.Encoding.DER),
    )


if __name__ == "__main__":
    serve(json.loads(Path(sys.argv[1]).read_bytes()))
