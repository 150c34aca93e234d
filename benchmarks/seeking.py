"""Time of a seek to step 1,000,000, in a corpus of 10 trillion tokens and in a small one.

    python -m benchmarks.seeking --corpus runs/demo/corpus --work bench/seeking

README.md in this folder describes what is measured. The large corpus has a manifest and an index
(1.9 GB); the lengths of its documents are a sparse file, and its shards do not exist.
"""

import argparse
import json
import shutil
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import header, interleave, print_header, run, spread, table
from data_prep.manifest import FileInfo, Manifest, ShardInfo, SplitInfo

SHARDS = 100_000
BLOCKS = 763  # Per shard.
BLOCK_TOKENS = (130_560, 131_584)  # Smallest value, and one more than the largest.
DOCUMENT_TOKENS = 1_000
COLD = ("open", "first window of the batch")


def simulate(folder: Path, like: Manifest, shards: int) -> None:
    """Write the manifest and the index of a corpus with 100 M tokens per shard.

    Args:
        folder: folder of the corpus, which must not exist.
        like: a real manifest, from which everything is copied that a seek does not depend on.
        shards: number of shards.
    """
    work = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    index, lengths = work / "train.index.npy", work / "train.lengths.npy"
    rows = np.lib.format.open_memmap(index, "w+", np.dtype(np.int64), (shards * BLOCKS, 3))
    rng = np.random.default_rng(0)
    infos = []
    for number in range(shards):
        tokens = rng.integers(*BLOCK_TOKENS, BLOCKS)
        ends = np.cumsum(2 * tokens)
        documents = tokens // DOCUMENT_TOKENS
        rows[number * BLOCKS : (number + 1) * BLOCKS] = np.stack(
            [ends - 2 * tokens, documents, tokens], axis=1
        )
        infos.append(
            ShardInfo(
                file=f"train-{number:06d}.tar",
                bytes=int(ends[-1]),
                sha256=f"{number:064x}",
                documents=int(documents.sum()),
                tokens=int(tokens.sum()),
                blocks=BLOCKS,
            )
        )
    rows.flush()
    total = sum(info.documents for info in infos)
    with open(lengths, "wb") as file:
        described = {"descr": "<u4", "fortran_order": False, "shape": (total,)}
        np.lib.format.write_array_header_1_0(file, described)
        file.truncate(file.tell() + 4 * total)
    split = SplitInfo(
        documents=total,
        tokens=sum(info.tokens for info in infos),
        text_bytes=0,
        labelled=0,
        label_counts=[0] * len(like.labels),
        corpus_counts=[0] * len(like.corpora),
        index=_unhashed(index),
        lengths=_unhashed(lengths),
        shards=infos,
    )
    manifest = like.model_copy(update={"splits": {"train": split}, "source_documents": total})
    signed = manifest.model_copy(update={"fingerprint": manifest.computed_fingerprint()})
    signed.save(work)
    work.rename(folder)


def _unhashed(path: Path) -> FileInfo:
    """Return the entry of a file whose checksum is not used."""
    return FileInfo(file=path.name, bytes=path.stat().st_size, sha256="0" * 64)


def probe(mode: str, corpus: Path) -> dict[str, Any]:
    """Return the figures of `seeking_probe.py` in a separate process."""
    command = [sys.executable, "-m", "benchmarks.seeking_probe", mode, "--corpus", str(corpus)]
    found: dict[str, Any] = json.loads(run(command).output.splitlines()[-1])
    return found


def seek(corpora: dict[str, Path], repeat: int) -> dict[str, list[dict[str, Any]]]:
    """Seek in each corpus, each time in a new process, and print the stages."""
    samples = interleave(
        {name: partial(probe, "seek", path) for name, path in corpora.items()}, repeat
    )
    for name, found in samples.items():
        stages = [sample["stages"] for sample in found]
        rows = []
        for stage in stages[0]:
            of_stage = [each[stage] for each in stages]
            seconds = [1000 * each["seconds"] for each in of_stage]
            rows.append([stage, spread(seconds) if any(seconds) else ""])
            for kind in ("resident", "most", "unbacked"):
                rows[-1].append(f"{max(each[kind] for each in of_stage) / 2**20:.0f}")
        cold = [1000 * sum(each[stage]["seconds"] for stage in COLD) for each in stages]
        size = f"{found[0]['tokens']:.3g} tokens in {found[0]['shards']:,} shards"
        print(f"\n### Seek in {name}: {size}\n\n{repeat} processes\n")
        columns = ["stage", "ms", "resident after it, MiB", "peak so far", "without mapped files"]
        print(table(columns, rows))
        print(f"Cold, from opening to the first window: {spread(cold)} ms", flush=True)
    return samples


def replay(corpora: dict[str, Path]) -> dict[str, dict[str, float]]:
    """Measure the speed of replaying steps, and print the time of a seek by replaying."""
    found = {name: probe("replay", path) for name, path in corpora.items()}
    rows = [
        [
            name,
            f"{sample['located_per_second'] / 1e6:.2f}",
            f"{sample['locating_hours']:.2f}",
            f"{sample['read_per_second'] / 1e6:.0f}" if "read_per_second" in sample else "",
            f"{sample['reading_hours']:.1f}" if "reading_hours" in sample else "",
        ]
        for name, sample in found.items()
    ]
    print("\n### Seek by replaying, extrapolated\n")
    columns = ["corpus", "M windows/s, order only", "hours", "M tokens/s, read and discarded"]
    print(table([*columns, "hours"], rows), flush=True)
    return found


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--corpus", type=Path, required=True, help="a small one, as of `make demo`")
    parser.add_argument("--work", type=Path, required=True, help="folder for the large one")
    parser.add_argument("--shards", type=int, default=SHARDS, help="of the large one")
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    options = parser.parse_args()
    entries = header(("torch", "numpy"))
    print_header(entries)
    large = options.work / f"shards-{options.shards}"
    if not large.exists():
        simulate(large, Manifest.load(options.corpus), options.shards)
    found = {
        "seek": seek({"the large corpus": large, "the small one": options.corpus}, options.repeat),
        "replay": replay({"the large corpus": large, "the small one": options.corpus}),
    }
    if options.json:
        options.json.write_text(json.dumps({"header": entries, **found}, indent=1))


if __name__ == "__main__":
    main()
