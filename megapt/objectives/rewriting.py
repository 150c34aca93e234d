"""Sequence to sequence on a single stack: a source visible to all, then a causal target.

The prefix LM of Raffel et al. 2020, section 3.2.1 and figure 4, with a separator between the two.
Shared by the objectives that write a text, or its missing parts, from a corrupted form.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from megapt.data import Example, Targets, Vocabulary
from megapt.data.example import Ints
from megapt.objectives.ragged import offsets, split


def rewritings(
    vocabulary: Vocabulary,
    sources: Sequence[Ints],
    targets: Sequence[Ints],
    documents: Sequence[int],
    mode: int | None = None,
) -> list[Example]:
    """Return examples [CLS] mode source [SEP] (segment 0), [BOS] target (segment 1, causal).

    The target predicts itself and [EOS] with the head `tokens`. Its position ids start at 0 again.

    Args:
        vocabulary: ids of the special tokens.
        sources: one per example, any integer type [m], m from 0 to W.
        targets: one per example, the same type [n], n from 0 to W + 2.
        documents: number of the document of each example.
        mode: id of a token that says what to predict; None: no such token.
    """
    if not sources:
        return []
    v, kind = vocabulary, sources[0].dtype
    lead = np.array([v.cls] if mode is None else [v.cls, mode], dtype=kind)
    between, end = np.array([v.sep, v.bos], dtype=kind), np.array([v.eos], dtype=kind)
    pairs = list(zip(sources, targets, strict=True))
    # All pairs are processed end to end: a NumPy call for one pair costs as much as for all.
    tokens = np.concatenate([part for s, t in pairs for part in (lead, s, between, t)])
    labels = np.concatenate([part for t in targets for part in (t, end)])
    runs = np.array([(len(lead) + len(s) + 1, len(t) + 1) for s, t in pairs])
    positions = offsets(runs.ravel())
    written = np.tile([False, True], len(pairs)).repeat(runs.ravel())
    sizes = runs.sum(axis=1)
    places = np.arange(int(sizes.max()))
    return [
        Example(
            tokens=ids,
            positions=at,
            segments=segment,
            visible=seen,
            targets={"tokens": Targets(places[prefix:size], predicted)},
            document=document,
        )
        for ids, at, segment, seen, predicted, (prefix, _), size, document in zip(
            split(tokens, sizes),
            split(positions, sizes),
            split(written.astype(np.uint8), sizes),
            split(~written, sizes),
            split(labels, runs[:, 1]),
            runs.tolist(),
            sizes.tolist(),
            documents,
            strict=True,
        )
    ]


def rewriting_prompt(
    vocabulary: Vocabulary, source: Ints, target: Ints, mode: int | None = None
) -> Example:
    """Return the example of one source and the beginning of a target, without targets."""
    [example] = rewritings(vocabulary, [source], [target], [-1], mode)
    return replace(example, targets={})
