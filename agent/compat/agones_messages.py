"""The messages of Agones' gRPC services, as in its `.proto` files. Needs `protobuf`.

The classes are created at import from the tables below: generated code would be thirty times as long, and depend on one
version of the library.
"""

from __future__ import annotations

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf import field_mask_pb2 as _mask
from google.protobuf import wrappers_pb2 as _wrappers

_FIELD = descriptor_pb2.FieldDescriptorProto
_SCALARS = {
    "string": _FIELD.TYPE_STRING,
    "int64": _FIELD.TYPE_INT64,
    "int32": _FIELD.TYPE_INT32,
    "bool": _FIELD.TYPE_BOOL,
}

# Package, then messages by name with their fields: name, type, number. `*` is repeated, `%` a map from text.
_STATUS = "GameServer.Status"
_MESSAGES: dict[str, dict[str, list[tuple[str, str, int]]]] = {
    "agones.dev.sdk": {
        "Empty": [],
        "KeyValue": [("key", "string", 1), ("value", "string", 2)],
        "Duration": [("seconds", "int64", 1)],
        "GameServer": [
            ("object_meta", ".agones.dev.sdk.GameServer.ObjectMeta", 1),
            ("spec", ".agones.dev.sdk.GameServer.Spec", 2),
            ("status", ".agones.dev.sdk.GameServer.Status", 3),
        ],
        "GameServer.ObjectMeta": [
            ("name", "string", 1),
            ("namespace", "string", 2),
            ("uid", "string", 3),
            ("resource_version", "string", 4),
            ("generation", "int64", 5),
            ("creation_timestamp", "int64", 6),
            ("deletion_timestamp", "int64", 7),
            ("annotations", "%string", 8),
            ("labels", "%string", 9),
        ],
        "GameServer.Spec": [("health", ".agones.dev.sdk.GameServer.Spec.Health", 1)],
        "GameServer.Spec.Health": [
            ("disabled", "bool", 1),
            ("period_seconds", "int32", 2),
            ("failure_threshold", "int32", 3),
            ("initial_delay_seconds", "int32", 4),
        ],
        _STATUS: [
            ("state", "string", 1),
            ("address", "string", 2),
            ("ports", f"*.agones.dev.sdk.{_STATUS}.Port", 3),
            ("players", f".agones.dev.sdk.{_STATUS}.PlayerStatus", 4),
            ("counters", f"%.agones.dev.sdk.{_STATUS}.CounterStatus", 5),
            ("lists", f"%.agones.dev.sdk.{_STATUS}.ListStatus", 6),
            ("addresses", f"*.agones.dev.sdk.{_STATUS}.Address", 7),
        ],
        f"{_STATUS}.Address": [("type", "string", 1), ("address", "string", 2)],
        f"{_STATUS}.Port": [("name", "string", 1), ("port", "int32", 2)],
        f"{_STATUS}.PlayerStatus": [("count", "int64", 1), ("capacity", "int64", 2), ("ids", "*string", 3)],
        f"{_STATUS}.CounterStatus": [("count", "int64", 1), ("capacity", "int64", 2)],
        f"{_STATUS}.ListStatus": [("capacity", "int64", 1), ("values", "*string", 2)],
    },
    "agones.dev.sdk.alpha": {
        "Empty": [],
        "Count": [("count", "int64", 1)],
        "Bool": [("bool", "bool", 1)],
        "PlayerID": [("playerID", "string", 1)],
        "PlayerIDList": [("list", "*string", 1)],
    },
    "agones.dev.sdk.beta": {
        "Counter": [("name", "string", 1), ("count", "int64", 2), ("capacity", "int64", 3)],
        "CounterUpdateRequest": [
            ("name", "string", 1),
            ("count", ".google.protobuf.Int64Value", 2),
            ("capacity", ".google.protobuf.Int64Value", 3),
            ("countDiff", "int64", 4),
        ],
        "GetCounterRequest": [("name", "string", 1)],
        "UpdateCounterRequest": [("counterUpdateRequest", ".agones.dev.sdk.beta.CounterUpdateRequest", 1)],
        "List": [("name", "string", 1), ("capacity", "int64", 2), ("values", "*string", 3)],
        "GetListRequest": [("name", "string", 1)],
        "UpdateListRequest": [
            ("list", ".agones.dev.sdk.beta.List", 1),
            ("update_mask", ".google.protobuf.FieldMask", 2),
        ],
        "AddListValueRequest": [("name", "string", 1), ("value", "string", 2)],
        "RemoveListValueRequest": [("name", "string", 1), ("value", "string", 2)],
    },
}


def _describe(package: str, messages: dict[str, list[tuple[str, str, int]]]) -> descriptor_pb2.FileDescriptorProto:
    file = descriptor_pb2.FileDescriptorProto(name=f"{package}.proto", package=package, syntax="proto3")
    file.dependency.extend(["google/protobuf/wrappers.proto", "google/protobuf/field_mask.proto"])
    made: dict[str, Any] = {}
    for path, fields in messages.items():
        outer, _, name = path.rpartition(".")
        holder = made[outer].nested_type if outer else file.message_type
        message = made[path] = holder.add(name=name)
        for field, kind, number in fields:
            _add_field(message, f".{package}.{path}", field, kind, number)
    return file


def _add_field(message: Any, path: str, field: str, kind: str, number: int) -> None:
    bare = kind.lstrip("*%")
    described = message.field.add(name=field, number=number, json_name=field)
    described.label = _FIELD.LABEL_REPEATED if kind != bare else _FIELD.LABEL_OPTIONAL
    if kind.startswith("%"):
        # A map is a repeated message of a key and a value, marked as one.
        entry = message.nested_type.add(name="".join(part.capitalize() for part in field.split("_")) + "Entry")
        entry.options.map_entry = True
        _add_field(entry, f"{path}.{entry.name}", "key", "string", 1)
        _add_field(entry, f"{path}.{entry.name}", "value", bare, 2)
        bare = f"{path}.{entry.name}"
    if bare in _SCALARS:
        described.type = _SCALARS[bare]
    else:
        described.type, described.type_name = _FIELD.TYPE_MESSAGE, bare


def _make() -> dict[str, Any]:
    # A pool of its own: the game's client may be generated code in the same names, in tests it is.
    pool = descriptor_pool.DescriptorPool()
    for known in (_wrappers, _mask):
        pool.AddSerializedFile(known.DESCRIPTOR.serialized_pb)
    classes = {}
    for package, messages in _MESSAGES.items():
        pool.Add(_describe(package, messages))
        for path in messages:
            found = pool.FindMessageTypeByName(f"{package}.{path}")
            classes[f"{package}.{path}"] = message_factory.GetMessageClass(found)
    return classes


MESSAGES = _make()
"""The message classes by their full names."""
