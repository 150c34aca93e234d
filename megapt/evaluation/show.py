"""Shows a person what an objective makes of a window of text."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from data_prep.tokenizers import Tokenizer
from megapt.config import ConfigError, RunConfig, load_config
from megapt.data import AnyCorpus, BatchMaker, Example, HeadSpec, Piece, open_corpora
from megapt.data.counts import attended_pairs
from megapt.data.example import Bools, Ints
from megapt.objectives import build_objective
from megapt.training.run_folder import objective_context
from megapt.training.setup import training_stream


def _runs(values: Ints | Bools) -> str:
    """Return runs of equal or of counting values in short: `0-4`, `0 x5`, `7`."""
    parts: list[str] = []
    items = [int(value) for value in values]
    start = 0
    while start < len(items):
        stop = start + 1
        while stop < len(items) and items[stop] == items[start] + stop - start:
            stop += 1
        if stop - start > 1:
            parts.append(f"{items[start]}-{items[stop - 1]}")
        else:
            while stop < len(items) and items[stop] == items[start]:
                stop += 1
            parts.append(f"{items[start]}" + (f" x{stop - start}" if stop - start > 1 else ""))
        start = stop
    return " ".join(parts)


def _attention(example: Example) -> str:
    n, seen = len(example), int(example.visible.sum())
    kind = {0: "causal", n: "bidirectional"}.get(seen, f"prefix: {seen} positions seen by all")
    return f"{kind}; {attended_pairs(np.array([n]), example.visible)} of {n * n} pairs"


def _targets(example: Example, head: HeadSpec, tokenizer: Tokenizer) -> list[dict[str, Any]]:
    target = example.targets.get(head.name)
    if target is None:
        return []
    return [
        {
            "head": head.name,
            "position": place,
            "input": tokenizer.piece(int(example.tokens[place])),
            "target": tokenizer.piece(label) if head.kind == "token" else head.labels[label],
        }
        for place, label in zip(target.positions.tolist(), target.labels.tolist(), strict=True)
    ]


def _piece(piece: Piece, tokenizer: Tokenizer, labels: Sequence[str]) -> dict[str, Any]:
    edges = {(True, True): "whole", (True, False): "beginning", (False, True): "end"}
    return {
        "document": piece.document,
        "part": edges.get((piece.starts_document, piece.ends_document), "middle"),
        "label": labels[piece.label] if piece.label >= 0 else None,
        "tokens": len(piece.tokens),
        "words": int(piece.word_starts.sum()),
        "sentences": int(piece.sentence_starts.sum()),
        "text": tokenizer.decode(piece.tokens),
    }


def describe_window(maker: BatchMaker, corpus: AnyCorpus, index: int) -> dict[str, Any]:
    """Return window `index` of a run and its examples as plain values.

    Raises:
        ConfigError: if an epoch has no such window.
    """
    count = maker.stream.count
    if index >= count:
        raise ConfigError(f"command line: --window {index}: windows are 0 to {count - 1}")
    tokenizer = corpus.tokenizer()
    (window,) = maker.stream.windows([index])
    heads = maker.objective.heads
    return {
        "window": index,
        "raw_tokens": window.raw_tokens,
        "pieces": [_piece(piece, tokenizer, corpus.labels) for piece in window.pieces],
        "examples": [
            {
                "document": example.document,
                "input": [tokenizer.piece(int(token)) for token in example.tokens],
                "targets": [t for head in heads for t in _targets(example, head, tokenizer)],
                "segments": _runs(example.segments),
                "positions": _runs(example.positions),
                "attention": _attention(example),
            }
            for example in maker.examples(window)
        ],
    }


_LONG_RUN = 8
"""Targets at so many positions in a row are printed without what is read at each."""


def _arrows(targets: Sequence[dict[str, Any]]) -> list[str]:
    """Return `position:input→target` of each target, and long runs as `first-last→targets`."""
    runs: list[list[dict[str, Any]]] = []
    for target in targets:
        if runs and target["position"] == runs[-1][-1]["position"] + 1:
            runs[-1].append(target)
        else:
            runs.append([target])
    texts = []
    for run in runs:
        if len(run) < _LONG_RUN:
            texts += [f"{t['position']}:{t['input']}→{t['target']}" for t in run]
        else:
            labels = " ".join(t["target"] for t in run)
            texts.append(f"{run[0]['position']}-{run[-1]['position']}→{labels}")
    return texts


def _many(count: int, thing: str) -> str:
    return f"{count} {thing}" if count == 1 else f"{count} {thing}s"


def _print(shown: dict[str, Any], name: str) -> None:
    print(f"window {shown['window']}: {_many(shown['raw_tokens'], 'raw token')}")
    for piece in shown["pieces"]:
        sizes = [_many(piece[f"{thing}s"], thing) for thing in ("token", "word", "sentence")]
        label = f", label {piece['label']}" if piece["label"] is not None else ""
        print(f"  document {piece['document']} ({piece['part']}): {', '.join(sizes)}{label}")
        print(f"    {piece['text']}")
    taken = sum(len(example["input"]) for example in shown["examples"])
    print(
        f"objective {name}: {_many(len(shown['examples']), 'example')}, {_many(taken, 'position')}"
    )
    for number, example in enumerate(shown["examples"]):
        size = _many(len(example["input"]), "piece")
        print(f"example {number} (document {example['document']}), {size}")
        print(f"  input      {' '.join(example['input'])}")
        for head in dict.fromkeys(target["head"] for target in example["targets"]):
            asked = [target for target in example["targets"] if target["head"] == head]
            print(f"  {head:10} {' '.join(_arrows(asked))}")
        print(f"  segments   {example['segments']}")
        print(f"  positions  {example['positions']}")
        print(f"  attention  {example['attention']}")


def show_window(config_file: str, overrides: Sequence[str], index: int, as_json: bool) -> None:
    """Print window `index` of a configuration's corpus, and the examples of its objective.

    The raw text; the input pieces; for each head its targets as position:input→target, so that a
    masked token reads [MASK]→word, or as first-last→targets where many stand in a row; segments
    and positions in runs; what attention allows.
    """
    config, origins = load_config(RunConfig, config_file, overrides)
    corpus = open_corpora(config.data)
    context = objective_context(corpus, config.data.window)
    objective = build_objective(config.objective, context, origins)
    maker = BatchMaker(
        training_stream(corpus, config), objective, corpus.vocabulary.pad, config.seed
    )
    shown = describe_window(maker, corpus, index)
    if as_json:
        print(json.dumps(shown, ensure_ascii=False))
    else:
        _print(shown, objective.name)
