"""Read the values of fields: text, labels, ids and groups, from records of any format."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from data_prep.inputs.records import DocumentError

_HALF_SURROGATE = re.compile("[\ud800-\udfff]")
_NAMES_LENGTH = 200
_KINDS = {
    type(None): "null",
    bool: "boolean",
    int: "integer",
    float: "number",
    str: "string",
    bytes: "string",  # table readers return strings as bytes
    list: "array",
    dict: "object",
}


class Label(NamedTuple):
    """A label as text, and the type it had in the input: "string", "integer" or "boolean"."""

    name: str
    kind: str


class Text(NamedTuple):
    """Characters, their UTF-8 bytes, and whether U+FFFD replaced some that were not UTF-8."""

    characters: str
    utf8: bytes
    repaired: bool


def read_text(raw: str | bytes, *, replace: bool) -> Text:
    """Return bytes or a string as a `Text`.

    Args:
        raw: bytes, or a string, which may hold half a surrogate pair (JSON allows that).
        replace: replace what is not UTF-8 by U+FFFD.

    Raises:
        DocumentError: "utf8", unless `replace` is set.
    """
    if isinstance(raw, bytes):
        try:
            return Text(raw.decode(), raw, False)
        except UnicodeDecodeError as error:
            if not replace:
                message = f"not UTF-8 (byte 0x{raw[error.start]:02x})"
                raise DocumentError("utf8", message, error.start) from None
            characters = raw.decode(errors="replace")
            return Text(characters, characters.encode(), True)
    try:
        return Text(raw, raw.encode(), False)
    except UnicodeEncodeError:
        if not replace:
            raise DocumentError("utf8", "the text holds half a surrogate pair") from None
        characters = _HALF_SURROGATE.sub("\ufffd", raw)
        return Text(characters, characters.encode(), True)


def join_names(names: Iterable[str]) -> str:
    """Join names of fields for an error message, on one line that is cut to a maximum length."""
    line = " ".join(", ".join(names).split()) or "none"
    return line if len(line) <= _NAMES_LENGTH else f"{line[:_NAMES_LENGTH]}…"


def kind_of_value(value: Any) -> str:
    """Return the JSON name of a value's type, or the Python name if JSON has none."""
    return _KINDS.get(type(value), type(value).__name__)


def find_value(fields: Mapping[str, Any], name: str) -> Any:
    """Return the value of a field; the name `a.b` also finds the field `b` inside `a`.

    Raises:
        KeyError: there is no such field (a field that is null exists).
    """
    if name in fields:
        return fields[name]
    inside: Any = fields
    for part in name.split("."):
        if not isinstance(inside, Mapping):
            raise KeyError(name)
        inside = inside[part]
    return inside


def _optional_value(fields: Mapping[str, Any], name: str) -> Any:
    if name in fields or "." not in name:  # avoids the cost of an exception for each record
        return fields.get(name)
    try:
        return find_value(fields, name)
    except KeyError:
        return None


def _read_value(
    fields: Mapping[str, Any], name: str, reason: str, types: Sequence[str], *, replace: bool
) -> str | int | None:
    """Return the value of a field: a string, or one of `types`; None if absent or null.

    Raises:
        DocumentError: "utf8", or `reason`, which ends in "_type", for a value of another type.
    """
    value = _optional_value(fields, name)
    if value is None:
        return None
    kind = kind_of_value(value)
    if kind == "string":
        return read_text(value, replace=replace).characters
    if kind not in types:
        what, (*others, last) = reason.removesuffix("_type"), ["string", *types]
        raise DocumentError(
            reason, f"the {what} is of type {kind}, not {', '.join(others)} or {last}"
        )
    found: int = value  # bool is a subclass of int
    return found


def read_label(fields: Mapping[str, Any], name: str, *, replace: bool) -> Label | None:
    """Return the label in a field; None if it is absent or null.

    Raises:
        DocumentError: "label_type", or "utf8".
    """
    value = _read_value(fields, name, "label_type", ("integer", "boolean"), replace=replace)
    if value is None:
        return None
    kind = kind_of_value(value)
    return Label(str(value).lower() if kind == "boolean" else str(value), kind)


def read_id(fields: Mapping[str, Any], name: str, *, replace: bool) -> str:
    """Return the id in a field, as text.

    Raises:
        DocumentError: "id_missing", "id_type", or "utf8".
    """
    value = _read_value(fields, name, "id_type", ("integer",), replace=replace)
    if value is None:
        raise DocumentError("id_missing", f"no field {name!r} for the id")
    return str(value)


def read_group(fields: Mapping[str, Any], name: str, *, replace: bool) -> bytes:
    """Return the group in a field, as JSON.

    Raises:
        DocumentError: "group_missing", "group_type", or "utf8".
    """
    value = _read_value(fields, name, "group_type", ("integer", "boolean"), replace=replace)
    if value is None:
        raise DocumentError("group_missing", f"no field {name!r} to group by")
    return json.dumps(value).encode()
