"""The formula beside a count by hand, and beside what torch counts of real passes."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import yaml
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from megapt.config import ModelConfig
from megapt.data import RESERVED, Batch, Counts, HeadSpec, Rows, Targets, collate
from megapt.model import PretrainingModel, training_flops
from megapt.model.attention import BACKENDS
from tests.model.builders import (
    CLASSES,
    LENGTH,
    STYLES,
    TOKENS,
    VOCABULARY,
    make_batch,
    make_model,
    random_example,
)
from tests.objectives.builders import build, examples_of
from tests.windows import VOCABULARY as TEXT
from tests.windows import cut_random_documents

BOTH = [TOKENS, CLASSES]


def full_batch() -> Batch:
    """Bidirectional examples of one length: attention that torch counts as the formula does."""
    examples = []
    for seed in range(2):
        example = random_example(LENGTH, "bidirectional", seed, targets=7)
        label = Targets(np.zeros(1, dtype=np.int64), np.array([seed]))
        examples.append(replace(example, targets={**example.targets, "class": label}))
    return make_batch(examples, heads=BOTH)


def counted(config: ModelConfig, heads: list[HeadSpec], batch: Batch) -> int:
    model = make_model(config, heads).train()
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        model(batch).loss.backward()
    return int(counter.get_total_flops())


@pytest.mark.parametrize("style", ["pre", "post"])
@pytest.mark.parametrize("activation", ["relu", "swiglu"])
@pytest.mark.parametrize("tied", [True, False])
def test_the_formula_is_what_torch_counts(style: str, activation: str, tied: bool) -> None:
    config = ModelConfig(**{**STYLES[style], "activation": activation, "tie_word_embeddings": tied})
    batch = full_batch()
    formula = training_flops(config, BOTH, batch.counts, VOCABULARY)
    assert counted(config, BOTH, batch) == formula


# Passes of real objectives under the presets. torch counts what a kernel computes: attention on the
# whole square of an example padded to the longest of its group, or of a row, whatever the mask. The
# formula counts the pairs that the mask allows, for causal text half of them. So it is given what
# the kernel computes, and then has to agree to the last operation; and that the pairs it is given
# otherwise are those of the mask is counted apart.

MODELS = Path(__file__).resolve().parents[2] / "configs" / "model"
WINDOW = 300
ROWS = Rows(2 * WINDOW, 2, 2)
OBJECTIVES = ["arlm", "mlm", "prefix_lm", "span_corruption", "bert", "msc", "electra"]


def real_batch(name: str, backend: str) -> tuple[tuple[HeadSpec, ...], Batch]:
    """The heads of an objective, and what it makes of a window of six documents."""
    objective = build(name, window=WINDOW)
    window = cut_random_documents([40, 60, 20, 70, 30, 50], WINDOW, "fill")[0]
    packed = collate(
        examples_of(objective, window, "flops"),
        pad=TEXT.pad,
        heads=[head.name for head in objective.heads],
        token_heads=[head.name for head in objective.heads if head.over_vocabulary],
        rows=ROWS if backend == "rows" else None,
    )
    return tuple(objective.heads), packed.widen()


def as_computed(batch: Batch) -> Counts:
    """The counts of a batch as its attention and its layers compute them, padding included."""
    pairs = sum(group.numel() * group.shape[1] for group in batch.groups)
    if batch.row_length:
        pairs = len(batch.tokens) * batch.row_length
    return replace(batch.counts, positions=len(batch.tokens), pairs=pairs)


@pytest.mark.parametrize("backend", ["grouped", "rows"])
@pytest.mark.parametrize("model", ["vanilla-tiny", "modern-tiny"])
@pytest.mark.parametrize("name", OBJECTIVES)
def test_real_passes_cost_what_the_formula_says(name: str, model: str, backend: str) -> None:
    values = yaml.safe_load((MODELS / f"{model}.yaml").read_text(encoding="utf-8"))
    config = ModelConfig(**values)
    heads, batch = real_batch(name, backend)
    trained = PretrainingModel(
        config,
        heads,
        vocabulary=TEXT.size,
        max_positions=WINDOW + RESERVED,
        attention=BACKENDS[backend],
    )
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        trained(batch).loss.backward()
    assert batch.counts.targets > 0
    assert counter.get_total_flops() == training_flops(config, heads, as_computed(batch), TEXT.size)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_attention_is_counted_on_the_pairs_that_its_mask_allows(name: str) -> None:
    _, batch = real_batch(name, "grouped")
    visible = batch.visible.numpy()
    pairs = 0
    bounds = [*batch.starts.tolist(), len(batch.tokens)]
    for start, end in pairwise(bounds):
        n = end - start
        pairs += int((np.tri(n, dtype=bool) | visible[start:end]).sum())
    assert batch.counts.pairs == pairs
    # Of causal text alone it is half of what a kernel without blocks of zeros would compute.
    if name == "arlm":
        squares = sum((end - start) ** 2 for start, end in pairwise(bounds))
        assert pairs == (squares + len(batch.tokens)) // 2


def test_a_causal_pass_by_hand() -> None:
    """One text of 32 tokens: 32 * 33 / 2 pairs a layer, of 32 * 32 that the kernel computes.

    A pair costs 2 * 16 products, forwards once and backwards twice, two operations each.
    """
    config = ModelConfig(**STYLES["pre"])
    batch = make_batch([random_example(LENGTH, "causal", targets=7)])
    formula = training_flops(config, [TOKENS], batch.counts, VOCABULARY)
    unseen = LENGTH * (LENGTH - 1) // 2
    assert counted(config, [TOKENS], batch) - formula == config.num_layers * unseen * 6 * 2 * 16


@pytest.mark.parametrize("style", ["pre", "post"])
def test_a_transform_is_counted(style: str) -> None:
    config = ModelConfig(**{**STYLES[style], "token_head": "transform"})
    assert counted(config, BOTH, full_batch()) == training_flops(
        config, BOTH, full_batch().counts, VOCABULARY
    )


@pytest.mark.parametrize("style", ["pre", "post"])
@pytest.mark.parametrize("scale", [0.25, 0.5, 1.0])
def test_a_generator_and_a_detection_are_counted(style: str, scale: float) -> None:
    config = ModelConfig(**STYLES[style])
    heads = [
        HeadSpec("generator", "generator", scale=scale),
        HeadSpec("detection", "detection", classes=2),
    ]
    places, draws = np.arange(5), np.full(5, 0.5)
    targets = {
        "generator": Targets(places, np.ones(5, dtype=np.int64), draws=draws),
        "detection": Targets(np.arange(LENGTH), np.zeros(LENGTH, dtype=np.int64)),
    }
    examples = [
        replace(random_example(LENGTH, "bidirectional", seed), targets=targets) for seed in range(2)
    ]
    batch = make_batch(examples, heads=heads)
    assert batch.counts.token_targets == 10
    assert counted(config, heads, batch) == training_flops(config, heads, batch.counts, VOCABULARY)


def test_the_dearest_of_several_heads_stands_for_all_of_its_sort() -> None:
    config = ModelConfig(**STYLES["pre"])
    counts = Counts(targets=5, token_targets=3)
    pair = HeadSpec("pair", "pair", classes=2)
    all_heads = training_flops(config, [TOKENS, CLASSES, pair], counts, VOCABULARY)
    assert all_heads == training_flops(config, [TOKENS, pair], counts, VOCABULARY)
    assert all_heads > training_flops(config, [TOKENS, CLASSES], counts, VOCABULARY)


def test_parts_of_one_generator_cost_one_generator() -> None:
    config = ModelConfig(**STYLES["pre"])
    one = HeadSpec("a", "generator", scale=0.5, module="generator")
    parts = [one, replace(one, name="b")]
    counts = Counts(positions=7, targets=5, token_targets=5, pairs=20)
    expected = training_flops(config, [one], counts, VOCABULARY)
    assert training_flops(config, parts, counts, VOCABULARY) == expected


def test_golden_count() -> None:
    """Worked by hand: 2 layers, width 16, inner 24 with a gate, 10 positions, 30 pairs, 4 targets.

    A layer: 4 * 16 * 16 + 3 * 16 * 24 = 2176 products a position; attention 2 * 16 a pair.
    """
    config = ModelConfig(**STYLES["pre"])
    counts = Counts(raw_tokens=9, positions=10, targets=5, token_targets=4, pairs=30)
    forward = 2 * (2 * 2176 * 10) + 2 * (2 * 2 * 16 * 30) + 2 * 4 * 16 * 50
    forward += 2 * (16 * 16 + 16 * 3)
    assert training_flops(config, BOTH, counts, VOCABULARY) == 3 * forward


def test_nothing_costs_nothing() -> None:
    assert training_flops(ModelConfig(**STYLES["pre"]), BOTH, Counts(), VOCABULARY) == 0


def test_raw_tokens_cost_nothing() -> None:
    assert training_flops(ModelConfig(**STYLES["pre"]), BOTH, Counts(raw_tokens=9), 50) == 0


def test_flops_add_up_over_batches() -> None:
    config = ModelConfig(**STYLES["post"])
    a, b = Counts(5, 9, 4, 3, 45), Counts(7, 12, 6, 5, 78)
    apart = [training_flops(config, BOTH, counts, VOCABULARY) for counts in (a, b)]
    assert training_flops(config, BOTH, a + b, VOCABULARY) == sum(apart)


def test_a_pair_head_reads_two_states_and_compares_them() -> None:
    """Two states through the dense layer, four vectors into the classes."""
    config = ModelConfig(**STYLES["pre"])
    head = HeadSpec("pair", "pair", classes=2)
    forward = 2 * (2 * 16 * 16 + 4 * 16 * 2)
    assert training_flops(config, [head], Counts(targets=1), VOCABULARY) == 3 * forward
