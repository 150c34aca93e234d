"""Speed of making examples from windows, compared with Hugging Face's collators for masking.

    python -m benchmarks.corpora --output bench
    python -m benchmarks.loading --input bench/english.jsonl --work bench/loading
    python -m benchmarks.objectives --data bench/loading/1024/corpus --short runs/demo/corpus

One core, one thread; windows of 512 tokens in memory. README.md in this folder describes what is
compared.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from benchmarks.common import header, interleave, print_header, spread, table
from megapt.config import DataConfig, ObjectiveSection, Origins
from megapt.data import Corpus, CounterRng, Piece, Window, collate, open_stream
from megapt.errors import ConfigError
from megapt.objectives import OBJECTIVES, Context, Objective, build_objective

WINDOW = 512
BATCH = 16  # windows
WINDOWS = 320
SLOWEST = 2.0  # M tokens/s on one core: the aim for every objective.
AIM = 5.0  # Speed of mlm relative to the collator.
LIBRARIES = ("torch", "numpy", "transformers", "tokenizers")
PRESETS = Path(__file__).resolve().parents[1] / "configs" / "objective"
VARIANTS: dict[str, list[dict[str, Any]]] = {
    "mlm": [{"unit": "word"}, {"unit": "ngram"}, {"unit": "span"}],
    "bert": [{"pairs": "sop", "unit": "ngram"}, {"pairing": "bert"}],
    "nsp": [{"pairing": "bert"}],
    "mgm": [{"unit": "span"}],
}
"""Settings that are measured in addition to the preset."""


def preset(name: str) -> dict[str, Any]:
    """Return the settings of a shipped objective, with the members of a mixture."""
    settings: dict[str, Any] = yaml.safe_load((PRESETS / f"{name}.yaml").read_text("utf-8"))
    members = settings.get("members", {})
    settings |= {"members": {n: preset(m) for n, m in members.items()}} if members else {}
    return settings


def read_windows(corpus: Corpus) -> list[Window]:
    """Return the first windows of an epoch, with their pieces of documents."""
    stream = open_stream(corpus, "train", DataConfig(corpus=corpus.where, window=WINDOW), seed=0)
    return stream.windows(range(min(WINDOWS, stream.count)))


def whole(window: Window) -> Window:
    """Return the window with its text as one piece, as the collators get it."""
    tokens, words, sentences = (
        np.concatenate([getattr(piece, name) for piece in window.pieces])
        for name in ("tokens", "word_starts", "sentence_starts")
    )
    piece = Piece(tokens, words, sentences, 0, 0, True, True)
    return Window(window.epoch, window.index, (piece,))


def context_of(corpus: Corpus) -> Context:
    """Return the context of objectives; a corpus without classes gets two."""
    labels = corpus.labels if len(corpus.labels) > 1 else ("one", "two")
    return Context(corpus.vocabulary, WINDOW, labels, label_counts=[1] * len(labels), steps=1000)


def make_examples(objective: Objective, windows: list[Window]) -> float:
    """Return the seconds of window → examples."""
    began = time.perf_counter()
    for window in windows:
        objective.examples(window, CounterRng(0, window.epoch, window.index, objective.name))
    return time.perf_counter() - began


def make_batches(objective: Objective, windows: list[Window]) -> float:
    """Return the seconds of window → examples → batch of tensors."""
    heads = [head.name for head in objective.heads]
    began = time.perf_counter()
    for first in range(0, len(windows), BATCH):
        examples = [
            example
            for window in windows[first : first + BATCH]
            for example in objective.examples(window, CounterRng(0, window.index, objective.name))
        ]
        collate(examples, pad=objective.vocabulary.pad, heads=heads).widen()
    return time.perf_counter() - began


def collate_theirs(collator: Any, inputs: list[dict[str, Any]]) -> float:
    """Return the seconds of token lists → batch of tensors by a collator."""
    began = time.perf_counter()
    for first in range(0, len(inputs), BATCH):
        collator([dict(one) for one in inputs[first : first + BATCH]])
    return time.perf_counter() - began


def collators(corpus: Corpus, windows: list[Window]) -> dict[str, Callable[[], float]]:
    """Return runs of Hugging Face's collators on [CLS] window [SEP], the same tokens as ours."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from transformers import DataCollatorForLanguageModeling, PreTrainedTokenizerFast

    v = corpus.vocabulary
    ids = {f"<{i}>": i for i in range(v.size)}
    special = {"pad": v.pad, "unk": v.unk, "cls": v.cls, "sep": v.sep, "mask": v.mask}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(WordLevel(ids, unk_token=f"<{v.unk}>")),
        **{f"{name}_token": f"<{i}>" for name, i in special.items()},
    )
    inputs, words = [], []
    for window in windows:
        piece = window.pieces[0]
        n = len(piece.tokens)
        one = {
            "input_ids": [v.cls, *piece.tokens.tolist(), v.sep],
            "special_tokens_mask": [1, *[0] * n, 1],
        }
        inputs.append(one)
        # A gap between two offsets begins a word.
        starts = np.arange(n) + piece.word_starts.cumsum()
        offsets = [(0, 0), *((int(s), int(s) + 1) for s in starts), (0, 0)]
        words.append({**one, "offset_mapping": offsets})
    token = DataCollatorForLanguageModeling(tokenizer, mlm_probability=0.15, seed=0)
    word = DataCollatorForLanguageModeling(
        tokenizer,
        mlm_probability=0.15,
        whole_word_mask=True,
        mask_replace_prob=1,
        random_replace_prob=0,
        seed=0,
    )
    return {
        "Hugging Face, tokens": partial(collate_theirs, token, inputs),
        "Hugging Face, whole words": partial(collate_theirs, word, words),
    }


def cases(corpus: Corpus, windows: list[Window]) -> Iterator[tuple[str, Callable[[], float]]]:
    """Yield every objective with its preset, and some with other settings."""
    for name in sorted(OBJECTIVES):
        for change in [{}, *VARIANTS.get(name, [])]:
            section = ObjectiveSection(**{**preset(name), **change})
            title = " ".join([name, *(f"{key}={value}" for key, value in change.items())])
            try:
                objective = build_objective(section, context_of(corpus), Origins())
            except ConfigError as error:
                print(f"{title}: skipped: {error}", file=sys.stderr)
                continue
            yield title, partial(make_examples, objective, windows)


@contextmanager
def one_core() -> Iterator[None]:
    """Restrict this process to one core and one thread."""
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        os.sched_setaffinity(0, allowed)


def rates(windows: list[Window], seconds: list[float]) -> list[float]:
    """Return millions of tokens per second."""
    tokens = sum(window.raw_tokens for window in windows)
    return [tokens / each / 1e6 for each in seconds]


def measure_objectives(folder: Path, repeat: int) -> dict[str, list[float]]:
    """Print the rates of all objectives on one corpus; return them."""
    corpus = Corpus(folder)
    windows = read_windows(corpus)
    found = {
        name: rates(windows, seconds)
        for name, seconds in interleave(dict(cases(corpus, windows)), repeat).items()
    }
    pieces = sum(len(window.pieces) for window in windows)
    tokens = sum(window.raw_tokens for window in windows)
    print(f"\n### Window → examples, pieces of {tokens / pieces:.0f} tokens on average\n")
    print(
        f"{len(windows)} windows of {WINDOW} tokens, {repeat} repetitions; the aim is {SLOWEST}.\n"
    )
    rows = [[name, spread(values)] for name, values in found.items()]
    print(table(["objective", "M tokens/s on one core"], rows), flush=True)
    return found


def measure_collators(folder: Path, repeat: int) -> dict[str, list[float]]:
    """Print the rates of `mlm` and of the collators; return them."""
    corpus = Corpus(folder)
    windows = [whole(window) for window in read_windows(corpus)]
    ours: dict[str, Callable[[], float]] = {}
    for unit in ("token", "word"):
        section = ObjectiveSection(**{**preset("mlm"), "unit": unit})
        objective = build_objective(section, context_of(corpus), Origins())
        ours[f"megapt, {unit}s, examples"] = partial(make_examples, objective, windows)
        ours[f"megapt, {unit}s, batches"] = partial(make_batches, objective, windows)
    samples = interleave({**ours, **collators(corpus, windows)}, repeat)
    found = {name: rates(windows, seconds) for name, seconds in samples.items()}
    middle = {name: float(np.median(values)) for name, values in found.items()}
    print("\n### Masked windows, compared with the collators\n")
    print(f"{len(windows)} windows of {WINDOW} tokens in one piece, {BATCH} a batch.\n")
    rows = [
        [name, spread(values), f"{middle[name] * 1e6 / WINDOW:,.0f}"]
        for name, values in found.items()
    ]
    print(table(["case", "M tokens/s on one core", "windows/s"], rows))
    ratios = [
        [f"{unit}, {made}", f"{middle[f'megapt, {unit}, {made}'] / middle[theirs]:.1f}", f"{AIM}"]
        for unit, theirs in (
            ("tokens", "Hugging Face, tokens"),
            ("words", "Hugging Face, whole words"),
        )
        for made in ("examples", "batches")
    ]
    print(table(["ratio, megapt to Hugging Face", "found", "aim"], ratios), flush=True)
    return found


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="a corpus of long documents")
    parser.add_argument("--short", type=Path, help="a corpus of short documents")
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--json", type=Path, help="file for every figure")
    options = parser.parse_args()
    print_header(header(LIBRARIES))
    with one_core():
        found = {
            str(folder): measure_objectives(folder, options.repeat)
            for folder in (options.data, options.short)
            if folder is not None
        }
        found["collators"] = measure_collators(options.data, options.repeat)
    if options.json:
        options.json.write_text(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
