"""Values of fields: text, labels, ids and groups, as any format gives them."""

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
    bytes: "string",  # of a table
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
    """Text of either form.

    Args:
        raw: bytes, or characters that may hold half a surrogate pair, as JSON can spell it.
        replace: put U+FFFD for what is not UTF-8.

    Raises:
        DocumentError: "utf8", unless it is replaced.
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
    """Names of fields for an error: on one line, and of that no more than its beginning."""
    line = " ".join(", ".join(names).split()) or "none"
    return line if len(line) <= _NAMES_LENGTH else f"{line[:_NAMES_LENGTH]}…"


def kind_of_value(value: Any) -> str:
    """The JSON name of a value's type; that of Python where JSON has none."""
    return _KINDS.get(type(value), type(value).__name__)


def find_value(fields: Mapping[str, Any], name: str) -> Any:
    """The value of a field, of `a.b` that of `b` in `a`.

    Raises:
        KeyError: there is no such field, not even a null.
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
    if name in fields or "." not in name:  # an exception would cost more than all the rest
        return fields.get(name)
    try:
        return find_value(fields, name)
    except KeyError:
        return None


def _read_value(
    fields: Mapping[str, Any], name: str, reason: str, types: Sequence[str], *, replace: bool
) -> str | int | None:
    """The value of a field, which is a string or of one of `types`; None if absent or null.

    Raises:
        DocumentError: `reason`, which is "…_type", or "utf8".
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
    found: int = value  # a boolean is one
    return found


def read_label(fields: Mapping[str, Any], name: str, *, replace: bool) -> Label | None:
    """The label in a field; None if it is absent or null.

    Raises:
        DocumentError: "label_type", or "utf8".
    """
    value = _read_value(fields, name, "label_type", ("integer", "boolean"), replace=replace)
    if value is None:
        return None
    kind = kind_of_value(value)
    return Label(str(value).lower() if kind == "boolean" else str(value), kind)


def read_id(fields: Mapping[str, Any], name: str, *, replace: bool) -> str:
    """The id in a field, as text.

    Raises:
        DocumentError: "id_missing", "id_type", or "utf8".
    """
    value = _read_value(fields, name, "id_type", ("integer",), replace=replace)
    if value is None:
        raise DocumentError("id_missing", f"no field {name!r} for the id")
    return str(value)


def read_group(fields: Mapping[str, Any], name: str, *, replace: bool) -> bytes:
    """The group in a field, as JSON.

    Raises:
        DocumentError: "group_missing", "group_type", or "utf8".
    """
    value = _read_value(fields, name, "group_type", ("integer", "boolean"), replace=replace)
    if value is None:
        raise DocumentError("group_missing", f"no field {name!r} to group by")
    return json.dumps(value).encode()
