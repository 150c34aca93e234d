"""How well and how fast near-duplicates are found in real text.

    python benchmarks/near_duplicates.py english.jsonl chinese.jsonl

For each file, exact duplicates are removed. Then every document that near de-duplication removes
from the distinct documents is checked: is it truly a near-duplicate? Then edited copies of kept
documents are added: words are replaced, dropped or inserted at random until the Jaccard similarity
of the shingle sets is in the wanted range. The copies that are found are counted. The words come
from the file itself. Speeds are text per second of processor time of one core, the best of three
runs.

`--synthetic N` also makes signatures of N documents, a fifth of them duplicates, in units of
20,000, and measures time and memory of each stage in a separate process.
"""

import argparse
import json
import multiprocessing
import platform
import random
import re
import tempfile
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.dedup import (
    Duplicates,
    Kind,
    NearSettings,
    UnitArray,
    band_key_table,
    match_equal,
    match_near,
    plan_buckets,
    resolve,
    signatures,
    text_key_table,
    text_keys,
)
from data_prep.dedup.shingles import shingle_hashes

BANDS = (0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 1.0)
SYNTHETIC_UNIT = 20_000
_PIECES = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]|[^\s\u3040-\u30ff\u3400-\u9fff]+|\s+")


def read_texts(path: Path, field: str) -> list[str]:
    """Return the texts of a .jsonl file, or the paragraphs of a text file."""
    content = path.read_text(encoding="utf-8")
    if path.suffix == ".jsonl":
        return [json.loads(line)[field] for line in content.split("\n") if line.strip()]
    return [part for part in re.split(r"\n\s*\n", content) if part.strip()]


def shingle_set(text: str, settings: NearSettings) -> set[int]:
    """Return the hashes of the shingles of a text."""
    return set(shingle_hashes([text], settings.ngram)[0].tolist())


def jaccard(first: set[int], second: set[int]) -> float:
    """Return the Jaccard similarity of two sets."""
    return len(first & second) / max(1, len(first | second))


def find_near(texts: Sequence[str], settings: NearSettings) -> Duplicates:
    """Return the near-duplicates among the texts."""
    rows = signatures(texts, settings)
    tables = [UnitArray(band_key_table(rows, settings), 0)]
    return resolve(
        [match_near(tables, [UnitArray(rows, 0)], settings, 0, 1)], len(texts), Kind.NEAR
    )


def without_exact(texts: list[str]) -> list[str]:
    """Return the texts without exact duplicates."""
    table = UnitArray(text_key_table(text_keys(texts)), 0)
    gone = resolve([match_equal([table], 0, 1)], len(texts), Kind.EXACT).documents
    return [texts[number] for number in np.setdiff1d(np.arange(len(texts)), gone)]


def natural(texts: list[str], settings: NearSettings) -> tuple[dict[str, Any], Duplicates]:
    """Return what is removed from distinct documents, with the exact similarity of each pair."""
    found = find_near(texts, settings)
    similar = [
        jaccard(shingle_set(texts[document], settings), shingle_set(texts[original], settings))
        for document, original in zip(found.documents, found.originals, strict=True)
    ]
    wrong = sum(value < settings.threshold for value in similar)
    return {
        "distinct documents": len(texts),
        "removed": len(similar),
        "removed below the threshold": wrong,
        "share removed below the threshold": wrong / len(texts),
        "lowest similarity removed": round(min(similar, default=1.0), 3),
    }, found


def edit(rng: random.Random, text: str, words: Sequence[str], low: float, high: float,
         settings: NearSettings) -> tuple[str, float] | None:  # fmt: skip
    """Edit words until the similarity is in [low, high); return None if it skips the range."""
    before = shingle_set(text, settings)
    pieces = _PIECES.findall(text)
    while True:
        at = rng.choice([number for number, piece in enumerate(pieces) if not piece.isspace()])
        step = "" if len(pieces[at]) == 1 and ord(pieces[at]) > 0x3000 else " "
        pieces[at] = rng.choice([rng.choice(words), "", pieces[at] + step + rng.choice(words)])
        if not any(piece.strip() for piece in pieces):
            return None
        edited = "".join(pieces)
        value = jaccard(before, shingle_set(edited, settings))
        if value < low:
            return None
        if value < high:
            return edited, value


def planted(
    texts: list[str], gone: Duplicates, count: int, seed: int, settings: NearSettings
) -> list[dict[str, Any]]:
    """Plant `count` edited copies in each band of similarities and count those that are found.

    The originals are documents that were kept, so that a copy is found if it is dropped.
    """
    rng = random.Random(seed)
    words = [piece for text in texts for piece in _PIECES.findall(text) if not piece.isspace()]
    kept = np.setdiff1d(np.arange(len(texts)), gone.documents).tolist()
    copies: list[str] = []
    origin: list[tuple[int, float]] = []
    for number, (low, high) in enumerate(pairwise(BANDS)):
        for _ in range(50 * count):
            if len(copies) == (number + 1) * count:
                break
            if made := edit(rng, texts[rng.choice(kept)], words, low, high, settings):
                copies.append(made[0])
                origin.append((number, made[1]))
    # The copies of a document could find each other, and copies come after all originals.
    dropped = {int(document) for document in find_near([*texts, *copies], settings).documents}
    rows = []
    for number, (low, high) in enumerate(pairwise(BANDS)):
        mine = [at for at, (band, _) in enumerate(origin) if band == number]
        values = [origin[at][1] for at in mine]
        rows.append(
            {
                "jaccard": f"{low:.2f} to {high:.2f}",
                "planted": len(mine),
                "found": sum(len(texts) + at in dropped for at in mine) / max(1, len(mine)),
                "formula": float(np.mean([settings.found_probability(v) for v in values] or [0])),
            }
        )
    return rows


def speed(texts: list[str], settings: NearSettings) -> dict[str, Any]:
    """Return the speeds of the stages, and the bytes of their tables per document."""
    size = sum(len(text.encode()) for text in texts)

    def rate(work: Callable[[], object]) -> float:
        times = []
        for _ in range(3):
            begin = time.process_time()
            work()
            times.append(time.process_time() - begin)
        return round(size / min(times) / 1e6, 1)

    rows = signatures(texts, settings)
    text_table, band_table = text_key_table(text_keys(texts)), band_key_table(rows, settings)
    return {
        "bytes a text": round(size / len(texts)),
        "exact keys, MB/s": rate(lambda: text_key_table(text_keys(texts))),
        "near keys, MB/s": rate(lambda: band_key_table(signatures(texts, settings), settings)),
        "bytes a document, exact": text_table.nbytes / len(texts),
        "bytes a document, near": (rows.nbytes + band_table.nbytes) / len(texts),
    }


def _peak_memory() -> float:
    """Return the peak memory of this process in MB; getrusage would include its parent's."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) / 1024  # type: ignore[index]


def _measured(work: Callable[..., Any], arguments: tuple[Any, ...], pipe: Any) -> None:
    start, begin = _peak_memory(), time.process_time()
    result = work(*arguments)
    pipe.send((result, time.process_time() - begin, _peak_memory() - start))


def alone(work: Callable[..., Any], *arguments: Any) -> tuple[Any, float, float]:
    """Run in a new process; return the result, processor seconds, and growth in MB."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_measured, args=(work, arguments, sender))
    process.start()
    answer: tuple[Any, float, float] = receiver.recv()
    process.join()
    return answer


def write_unit(folder: Path, number: int, size: int, settings: NearSettings) -> None:
    """Write random signatures; every fifth document equals one of unit `number` // 2."""

    def fresh(unit: int) -> np.ndarray:
        shape = (size, settings.permutations)
        return np.random.default_rng(unit).integers(0, 1 << 16, shape, dtype=np.uint16)

    rows, copied = fresh(number), np.arange(size) % 5 == 4
    originals = np.random.default_rng((number, 1)).integers(0, size // 5, copied.sum()) * 5
    rows[copied] = fresh(number // 2)[originals]
    np.save(folder / f"signatures-{number}.npy", rows)
    np.save(folder / f"bands-{number}.npy", band_key_table(rows, settings))


def stored(folder: Path, name: str, units: int) -> list[UnitArray]:
    """Return the stored arrays of all units."""
    return [UnitArray(folder / f"{name}-{n}.npy", n * SYNTHETIC_UNIT) for n in range(units)]


def match(folder: Path, units: int, bucket: int, buckets: int, settings: NearSettings) -> int:
    """Match one bucket, store its pairs, and return their number."""
    tables, rows = stored(folder, "bands", units), stored(folder, "signatures", units)
    pairs = match_near(tables, rows, settings, bucket, buckets)
    np.save(folder / f"pairs-{bucket}.npy", pairs)
    return len(pairs)


def settle(folder: Path, buckets: int, documents: int, memory: int) -> int:
    """Resolve the stored pairs and return the number of dropped documents."""
    files = [folder / f"pairs-{bucket}.npy" for bucket in range(buckets)]
    return len(resolve(files, documents, Kind.NEAR, memory).documents)


def synthetic(documents: int, memory: int, settings: NearSettings) -> dict[str, Any]:
    """Measure time and memory of the stages on synthetic signatures."""
    units = -(-documents // SYNTHETIC_UNIT)
    documents = units * SYNTHETIC_UNIT
    buckets = plan_buckets(documents * settings.bands, memory)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for number in range(units):
            write_unit(folder, number, SYNTHETIC_UNIT, settings)
        tasks = [alone(match, folder, units, b, buckets, settings) for b in range(buckets)]
        dropped, seconds, used = alone(settle, folder, buckets, documents, memory)
    return {
        "documents": documents,
        "memory allowed, MB": memory >> 20,
        "match tasks": buckets,
        "match, s in all": round(sum(task[1] for task in tasks), 1),
        "match, MB of the largest task": round(max(task[2] for task in tasks)),
        "pairs": sum(task[0] for task in tasks),
        "resolve, s": round(seconds, 1),
        "resolve, MB": round(used),
        "dropped": dropped,
    }


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """Return a Markdown table."""

    def cell(value: Any) -> str:
        return f"{value:,.4f}" if isinstance(value, float) and value < 1 else f"{value:,}" \
            if isinstance(value, int | float) else str(value)  # fmt: skip

    lines = ["| " + " | ".join(rows[0]) + " |", "|" + " --- |" * len(rows[0])]
    return "\n".join(lines + ["| " + " | ".join(map(cell, row.values())) + " |" for row in rows])


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("files", type=Path, nargs="*", help=".jsonl, or text of paragraphs")
    parser.add_argument("--text-field", default="text")
    parser.add_argument("--planted", type=int, default=500, help="copies in a band of similarity")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--synthetic", type=int, default=0, help="documents")
    parser.add_argument("--memory", type=int, default=256, help="MB of a match task")
    parser.add_argument("--json", action="store_true")
    for name in ("threshold", "ngram", "permutations", "bands", "rows", "min_words"):
        default = NearSettings.model_fields[name].default
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(default), default=default)
    args = parser.parse_args()
    chosen = {
        name: value for name, value in vars(args).items() if name in NearSettings.model_fields
    }
    settings = NearSettings(**(chosen | {"seed": 0}))
    report: dict[str, Any] = {
        "settings": settings.model_dump(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "processor": platform.processor() or platform.machine(),
        "files": {},
    }
    for path in args.files:
        texts = without_exact(read_texts(path, args.text_field))
        removed, gone = natural(texts, settings)
        bands = planted(texts, gone, args.planted, args.seed, settings)
        figures = {"removed": removed, "speed": speed(texts, settings), "planted": bands}
        report["files"][str(path)] = figures
        if not args.json:
            print(f"\n## {path.name}\n\n{markdown([removed])}\n\n{markdown(bands)}\n")
            print(markdown([figures["speed"]]), flush=True)
    if args.synthetic:
        report["synthetic"] = synthetic(args.synthetic, args.memory << 20, settings)
        if not args.json:
            print(f"\n## Synthetic\n\n{markdown([report['synthetic']])}")
    if args.json:
        print(json.dumps(report, indent=2, ensure_ascii=False))


if __name__ == "__main__":
    main()
