"""Records read as documents, or found faulty."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep.inputs import Document, InputSettings, Label, Place, SourceFile
from data_prep.inputs.documents import parse_document
from data_prep.inputs.records import DocumentError, Record

FILE = SourceFile("x.jsonl", "x.jsonl", "jsonl", None, 0, "", 2, True)
TEXT = SourceFile("x.txt", "x.txt", "text", None, 0, "", 0, True)


def parse(
    content: bytes | dict[str, Any], errors: Any = "stop", file: SourceFile = FILE, **fields: Any
) -> Document:
    settings = InputSettings(paths=("x",), **fields)
    return parse_document(Record(Place(file, "line", 1), content), settings, errors)


def test_fields() -> None:
    raw = '{"t": "hi 我", "c": 7, "g": "a", "i": 9, "more": [1]}'.encode()
    found = parse(raw, text_field="t", label_field="c", group_field="g", id_field="i")
    assert (found.text, found.utf8) == ("hi 我", "hi 我".encode())
    assert (found.label, found.group, found.id) == (Label("7", "integer"), b'"a"', "9")
    assert (found.corpus, found.repaired, str(found.place)) == (2, False, "x.jsonl:1")


def test_ids_and_groups_are_read_only_from_named_fields() -> None:
    found = parse(b'{"text": "a", "id": 1, "group": 2}')
    assert (found.id, found.group) == (None, None)


@pytest.mark.parametrize(
    ("value", "label"),
    [
        ('"x"', Label("x", "string")),
        ('"文学"', Label("文学", "string")),
        ("1", Label("1", "integer")),
        ("123456789012345678901234567890", Label("123456789012345678901234567890", "integer")),
        ("true", Label("true", "boolean")),
        ("null", None),
    ],
)
def test_labels(value: str, label: Label | None) -> None:
    assert parse(f'{{"text": "a", "label": {value}}}'.encode()).label == label


def test_labels_can_be_ignored() -> None:
    assert parse(b'{"text": "a", "label": [1]}', label_field="").label is None


@pytest.mark.parametrize("value", ['"x"', "7", "123456789012345678901234567890"])
def test_ids_and_groups_keep_their_digits(value: str) -> None:
    raw = f'{{"text": "a", "id": {value}}}'.encode()
    found = parse(raw, id_field="id", group_field="id")
    assert found.id == value.strip('"')
    assert found.group == value.encode()


def test_values_of_tables() -> None:
    fields = {"text": "我".encode(), "label": "文学".encode(), "id": b"1", "g": "我".encode()}
    found = parse(fields, id_field="id", group_field="g")
    assert (found.text, found.utf8) == ("我", "我".encode())
    assert (found.label, found.id) == (Label("文学", "string"), "1")
    assert found.group == parse('{"text": "x", "g": "我"}'.encode(), group_field="g").group


@given(
    st.dictionaries(
        st.sampled_from(["text", "label", "id", "more"]),
        st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.text()),
    ),
    st.booleans(),
)
def test_fast_parser_agrees_with_the_standard_one(fields: dict[str, Any], ascii_only: bool) -> None:
    raw = json.dumps(fields, ensure_ascii=ascii_only).encode()
    parsed = json.loads(raw)
    outcomes: list[Document | tuple[str, str]] = []
    for content in (raw, parsed):
        try:
            outcomes.append(parse(content, id_field="id"))
        except DocumentError as error:
            outcomes.append((error.reason, str(error)))
    assert outcomes[0] == outcomes[1]


@pytest.mark.parametrize(
    ("raw", "reason", "message"),
    [
        (b'{"text": "a\xff"}\n', "utf8", "not UTF-8 (byte 0xff)"),
        (b'{"text": "\\ud800"}\n', "utf8", "half a surrogate pair"),
        (b'{"text": "a", "label": "\\ud800"}\n', "utf8", "half a surrogate pair"),
        (b'{"text": "a",}\n', "json", "not a JSON object on one line (Expecting property"),
        (b'{"text": "a\n', "json", "not a JSON object on one line (Invalid control character"),
        (b'{"text": "a', "truncated", "the last line is cut short, or is not a JSON object (Unt"),
        (b"[" * 100_000 + b"\n", "json", "nested too deeply"),
        (b'["a"]', "json", "JSON of type array, not object"),
        (b"7", "json", "JSON of type integer, not object"),
        (b'{"body": "a", "x": 1}', "text_missing", "no field 'text' (fields: body, x)"),
        (b'{"text": 1}', "text_type", "field 'text' is of type integer, not string"),
        (b'{"text": null}', "text_type", "field 'text' is of type null, not string"),
        (b'{"text": "a", "label": {}}', "label_type", "the label is of type object"),
        (b'{"text": "a", "label": 1.5}', "label_type", "the label is of type number"),
        (b'{"text": " \\n\\u3000"}', "empty", "the text is empty"),
        (b'{"text": ""}', "empty", "the text is empty"),
    ],
)
def test_faults(raw: bytes, reason: str, message: str) -> None:
    with pytest.raises(DocumentError) as error:
        parse(raw)
    assert error.value.reason == reason
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("raw", "fields", "reason", "message"),
    [
        (b'{"text": "a"}', {"group_field": "g"}, "group_missing", "no field 'g' to group by"),
        (b'{"text": "a", "g": []}', {"group_field": "g"}, "group_type", "is of type array"),
        (b'{"text": "a"}', {"id_field": "i"}, "id_missing", "no field 'i' for the id"),
        (b'{"text": "a", "i": null}', {"id_field": "i"}, "id_missing", "no field 'i'"),
        (b'{"text": "a", "i": 1.5}', {"id_field": "i"}, "id_type", "is of type number"),
        (b'{"text": "a", "i": true}', {"id_field": "i"}, "id_type", "is of type boolean"),
        (b'{"a": 1}', {"text_field": "a.b"}, "text_missing", "no field 'a.b' (fields: a)"),
    ],
)
def test_faults_of_named_fields(
    raw: bytes, fields: dict[str, str], reason: str, message: str
) -> None:
    with pytest.raises(
        DocumentError, match=message.replace("(", r"\(").replace(")", r"\)")
    ) as error:
        parse(raw, **fields)
    assert error.value.reason == reason


@pytest.mark.parametrize("field", ["group_field", "id_field"])
def test_text_files_have_no_fields(field: str) -> None:
    with pytest.raises(DocumentError, match="a text file has no fields"):
        parse(b"text", file=TEXT, **{field: "x"})


@pytest.mark.parametrize("raw", [b'{"text": "a\xffb"}', b'{"text": "a\\ud800b"}'])
def test_broken_text_is_repaired_on_demand(raw: bytes) -> None:
    found = parse(raw, errors="replace")
    assert (found.text, found.utf8) == ("a\ufffdb", "a\ufffdb".encode())
    assert found.repaired
    assert not parse(b'{"text": "a\\ud83d\\ude00"}', errors="replace").repaired
    assert parse(b"a\xffb", "replace", TEXT).repaired


def test_place_of_a_fault_inside_a_text(tmp_path: Path) -> None:
    place = Place(TEXT, "line", 5)
    assert str(place.at(b"one\ntwo\n\xff", 8)) == "x.txt:7"
    item = Place(FILE, "item", 3)
    assert str(item.at(b"{\n\xff", 2)) == "x.jsonl, item 3"
