"""Speed of `megapt-prep build` compared with other tools; ratios are of medians of one run.

    python -m benchmarks.corpora --output bench
    python -m benchmarks.preparation --input bench/english.jsonl --work bench/work

README.md in this folder describes what each case measures and how the ratios are formed.
"""

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.common import (
    Ratio,
    folder_bytes,
    header,
    measure_cases,
    print_header,
    run,
    spread,
    table,
)
from benchmarks.workbench import Bench, partial_folder

POLL_SECONDS = 0.005


def speed(bench: Bench, repeat: int) -> dict[str, Any]:
    """Measure the bare loop, build, and Megatron-style preprocessing with a unigram model."""
    model = bench.model("unigram")
    cases = [bench.bare(model)]
    for workers in (1, 2):
        cases += [
            bench.build(f"start, {workers}", bench.tiny, model, workers),
            bench.build(f"build, {workers}", bench.full, model, workers),
            bench.peer("megatron", bench.full, model, workers, sys.executable),
        ]
    steady = [f"build, {workers}, without start" for workers in (1, 2)]
    ratios = [
        Ratio("build of bare encode", "bare encode", "build, 1", "0.90"),
        Ratio("build of bare encode, without start", "bare encode", steady[0], "0.90"),
        Ratio("build, 2 workers to 1", "build, 1", "build, 2", "1.9"),
        Ratio("build, 2 workers to 1, without start", steady[0], steady[1], "1.9"),
        Ratio("build to Megatron style, 1", "megatron, 1", "build, 1", "1.35"),
        Ratio("build to Megatron style, 2", "megatron, 2", "build, 2", "1.35"),
    ]
    starts = (("build, 1", "start, 1"), ("build, 2", "start, 2"))
    return measure_cases("Speed, SentencePiece unigram", cases, ratios, repeat, starts)


def datatrove(bench: Bench, repeat: int) -> dict[str, Any]:
    """Measure build and datatrove's reader and tokenizer with a tokenizer.json."""
    tokenizer = bench.json_tokenizer()
    cases = []
    for workers in (1, 2):
        cases += [
            bench.build(f"build, {workers}", bench.parts, tokenizer, workers),
            bench.peer("datatrove", bench.parts, tokenizer, workers, bench.peer_python),
        ]
    ratios = [
        Ratio(f"build to datatrove, {n}", f"datatrove, {n}", f"build, {n}", "1.3") for n in (1, 2)
    ]
    return measure_cases("Speed, tokenizer.json (byte-level BPE)", cases, ratios, repeat)


def bpe(bench: Bench, repeat: int) -> dict[str, Any]:
    """Measure build with SentencePiece BPE and unigram."""
    kinds = ("unigram", "bpe")
    cases = [bench.build(f"{kind}, 1", bench.small, bench.model(kind), 1) for kind in kinds]
    ratios = [Ratio("time of BPE to unigram", "bpe, 1", "unigram, 1", "less than 5")]
    return measure_cases("SentencePiece BPE", cases, ratios, repeat)


def memory(bench: Bench, repeat: int) -> dict[str, Any]:
    """Measure the largest process of a build as the input grows tenfold."""
    model = bench.model("unigram")
    found: dict[str, Any] = {}
    rows = []
    for workers in (1, 2):
        peaks = {}
        for name, cut in (("tenth", bench.tenth), ("full", bench.full)):
            case = bench.build(name, cut, model, workers)
            peaks[name] = max(case.measure().peak_bytes for _ in range(repeat))
        growth = peaks["full"] / peaks["tenth"]
        rows.append([str(workers), *(f"{peak / 2**20:.0f}" for peak in peaks.values())])
        rows[-1].append(f"{growth:.2f}")
        found[str(workers)] = {**peaks, "growth": round(growth, 3)}
    sizes = [f"{cut.text_bytes / 1e6:.0f} MB" for cut in (bench.tenth, bench.full)]
    print("\n### Memory\n\nResident size of the largest process, MiB\n")
    print(table(["workers", *sizes, "growth"], rows), flush=True)
    return found


def finished_units(output: Path) -> int:
    """Return the number of finished units of an unfinished build."""
    try:
        return sum(entry.is_dir() for entry in os.scandir(partial_folder(output) / "units"))
    except FileNotFoundError:
        return 0


def resume(bench: Bench, repeat: int) -> dict[str, Any]:
    """Measure the work that is left after SIGKILL of a build with 90 % of its units finished."""
    output = bench.output()
    command = bench.build_command(bench.full, bench.model("unigram"), 2, output)
    whole, rest, shares = [], [], []
    for _ in range(repeat):
        bench.output()
        began, units = time.perf_counter(), 0
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while process.poll() is None:
            units = max(units, finished_units(output))
            time.sleep(POLL_SECONDS)
        whole.append(time.perf_counter() - began)
        if process.returncode != 0 or not units:
            sys.exit("resume: the build failed, or left no finished units to be seen")
        expected = corpus_bytes(output)
        bench.output()
        process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        while process.poll() is None and finished_units(output) < 0.9 * units:
            time.sleep(POLL_SECONDS)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if output.exists():
            sys.exit("resume: the build ended before it was killed")
        shares.append(finished_units(output) / units)
        rest.append(run(command, 2).seconds)
        if corpus_bytes(output) != expected:
            sys.exit("resume: the resumed corpus differs from the undisturbed one")
    share = statistics.median(rest) / statistics.median(whole)
    print("\n### Resuming\n")
    print(
        table(
            ["units finished", "undisturbed, s", "resumed, s", "resumed / undisturbed", "aim"],
            [[f"{min(shares):.0%}", spread(whole), spread(rest), f"{share:.1%}", "15 %"]],
        ),
        flush=True,
    )
    return {"whole": whole, "rest": rest, "finished": shares, "share": round(share, 4)}


def corpus_bytes(output: Path) -> dict[str, bytes]:
    """Return the contents of the files of a corpus."""
    return {
        str(path.relative_to(output)): path.read_bytes()
        for path in sorted(output.rglob("*"))
        if path.is_file()
    }


def disk(bench: Bench, repeat: int) -> dict[str, Any]:
    """Measure the bytes of the corpus, and the peak bytes of the work folder during the build."""
    output = bench.output()
    command = bench.build_command(bench.full, bench.model("unigram"), 2, output)
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    most = 0
    while process.poll() is None:
        most = max(most, folder_bytes(partial_folder(output)))
        time.sleep(20 * POLL_SECONDS)
    if process.returncode != 0:
        sys.exit("disk: the build failed")
    kept = folder_bytes(output)
    shares = {"corpus": kept, "most": most}
    rows = [[name, f"{size / bench.full.text_bytes:.3f}"] for name, size in shares.items()]
    print("\n### Disk\n\nBytes per byte of text\n")
    print(table(["what", "bytes"], rows), flush=True)
    return {**shares, "text": bench.full.text_bytes}


CASES = {
    "speed": speed,
    "datatrove": datatrove,
    "bpe": bpe,
    "memory": memory,
    "resume": resume,
    "disk": disk,
}


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--input", type=Path, required=True, help="english.jsonl of corpora.py")
    parser.add_argument("--work", type=Path, required=True, help="folder for all that is written")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--small-mb", type=float, default=20, help="text for slow tokenizers")
    parser.add_argument("--prep", default=f"{sys.executable} -m data_prep.cli")
    parser.add_argument("--peer-python", default=sys.executable, help="one that has datatrove")
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    options = parser.parse_args()
    bench = Bench(
        options.input, options.work, options.prep.split(), options.peer_python, options.small_mb
    )
    entries = header()
    print_header(entries)
    found = {name: CASES[name](bench, options.repeat) for name in options.cases}
    bench.output()
    if options.json:
        options.json.write_text(json.dumps({"header": entries, **found}, indent=1))


if __name__ == "__main__":
    main()
