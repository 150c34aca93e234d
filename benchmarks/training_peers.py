"""The cases of `training.py` that do not use megapt.

    python -m benchmarks.training_peers CASE --objective mlm --data CORPUS --flat FOLDER

`turns.py` describes how they run. `--flat` is a folder with `tokens.npy`, the documents of the
corpus end to end, their `lengths.npy`, and `special.json`, the ids of special tokens.
"""

import argparse
import itertools
import json
import random
import tempfile
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.turns import (
    BETAS,
    CLIP,
    DECAY,
    ENDLESS,
    LEARNING_RATE,
    LOG_EVERY,
    Turns,
    autocast,
    bare_loop,
    device,
    main,
)

MASKED = 0.15


class Flat:
    """The documents of a corpus, end to end, and its special tokens."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.tokens = np.load(options.flat / "tokens.npy", mmap_mode="r")
        self.lengths = np.load(options.flat / "lengths.npy")
        self.special: dict[str, int] = json.loads((options.flat / "special.json").read_text())


class PlainBlock(nn.Module):
    """A block in the usual form; causal blocks are pre-norm and have no biases."""

    def __init__(self, width: int, heads: int, causal: bool) -> None:
        super().__init__()
        self.heads, self.causal = heads, causal
        bias = not causal
        self.norms = nn.ModuleList(nn.LayerNorm(width, bias=bias) for _ in range(2))
        self.qkv = nn.Linear(width, 3 * width, bias=bias)
        self.output = nn.Linear(width, width, bias=bias)
        self.up = nn.Linear(width, 4 * width, bias=bias)
        self.down = nn.Linear(4 * width, width, bias=bias)

    def attend(self, x: Tensor) -> Tensor:
        """Return the output of attention, [rows, positions, width]."""
        rows, n, width = x.shape
        q, k, v = self.qkv(x).view(rows, n, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        out: Tensor = self.output(mixed.transpose(1, 2).reshape(rows, n, width))
        return out

    def feed(self, x: Tensor) -> Tensor:
        """Return the output of the feed-forward layer, [rows, positions, width]."""
        out: Tensor = self.down(functional.gelu(self.up(x)))
        return out

    def forward(self, x: Tensor) -> Tensor:
        """Return the output of the block, [rows, positions, width]."""
        first, second = self.norms
        if self.causal:
            x = x + self.attend(first(x))
            return x + self.feed(second(x))
        x = first(x + self.attend(x))
        after: Tensor = second(x + self.feed(x))
        return after


class Plain(nn.Module):
    """GPT-2 without biases (nanoGPT's model) or BERT, on rows [B, T], with logits everywhere."""

    def __init__(self, options: argparse.Namespace, vocabulary: int) -> None:
        super().__init__()
        causal, width = options.objective == "arlm", options.hidden
        self.words = nn.Embedding(vocabulary, width)
        self.places = nn.Embedding(options.window, width)
        self.first = nn.Identity() if causal else nn.LayerNorm(width)
        self.blocks = nn.Sequential(
            *(PlainBlock(width, options.heads, causal) for _ in range(options.layers))
        )
        transform = nn.Linear(width, width), nn.GELU(), nn.LayerNorm(width)
        self.last = nn.LayerNorm(width, bias=False) if causal else nn.Sequential(*transform)
        self.bias = None if causal else nn.Parameter(torch.zeros(vocabulary))
        for parameter in self.parameters():
            if parameter.ndim > 1:
                nn.init.normal_(parameter, std=0.02)

    def forward(self, tokens: Tensor, labels: Tensor) -> Tensor:
        """Return the mean loss of int64 [B, T]; labels of -100 are ignored."""
        places = torch.arange(tokens.shape[1], device=tokens.device)
        x = self.blocks(self.first(self.words(tokens) + self.places(places)))
        logits = functional.linear(self.last(x), self.words.weight, self.bias)
        return functional.cross_entropy(logits.flatten(0, 1), labels.flatten())


def masked(
    rows: Tensor, special: dict[str, int], generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Return int64 rows with BERT's masks, and labels: 80 % become [MASK], 10 % any token."""
    chosen = torch.rand(rows.shape, generator=generator) < MASKED
    fate = torch.rand(rows.shape, generator=generator)
    anything = torch.randint(special["size"], rows.shape, generator=generator)
    tokens = torch.where(chosen & (fate < 0.8), special["mask"], rows)
    tokens = torch.where(chosen & (fate >= 0.9), anything, tokens)
    return tokens, torch.where(chosen, rows, -100)


def plain(options: argparse.Namespace, turns: Turns) -> None:
    """Train the plain model on rows from random places of a mapped file, as in nanoGPT."""
    flat = Flat(options)
    model = Plain(options, flat.special["size"]).to(device())
    rng, generator = np.random.default_rng(0), torch.Generator().manual_seed(0)

    def losses() -> Iterator[tuple[Tensor, int]]:
        while True:
            firsts = rng.integers(len(flat.tokens) - options.window, size=options.batch)
            rows = np.stack([flat.tokens[at : at + options.window + 1] for at in firsts])
            whole = torch.from_numpy(rows.astype(np.int64))
            tokens, labels = whole[:, :-1], whole[:, 1:]
            if options.objective == "mlm":
                tokens, labels = masked(tokens, flat.special, generator)
            tokens, labels = (x.to(device(), non_blocking=True) for x in (tokens, labels))
            with autocast(options):
                loss = model(tokens, labels)
            yield loss, tokens.numel()

    bare_loop(model, losses(), turns)


class Rows(torch.utils.data.Dataset[dict[str, Any]]):
    """Lists of ids in memory, as Hugging Face's collators take them.

    For `arlm`, the text is cut into rows of one length, as by `group_texts` of its examples. For
    `mlm`, rows are documents between [CLS] and [SEP]; longer documents are cut.
    """

    def __init__(self, options: argparse.Namespace, flat: Flat) -> None:
        special = flat.special
        if options.objective == "arlm":
            ends = np.arange(0, len(flat.tokens) + 1, options.window)
        else:
            starts = [0, *flat.lengths.cumsum().tolist()]
            room = options.window - 2
            cuts = [range(a, b, room) for a, b in itertools.pairwise(starts)]
            ends = np.array([*itertools.chain(*cuts), starts[-1]])
        self.rows: list[dict[str, Any]] = []
        for first, end in itertools.pairwise(ends.tolist()):
            ids = flat.tokens[first:end].tolist()
            if options.objective == "arlm":
                self.rows.append({"input_ids": ids, "labels": ids})
            else:
                ids = [special["cls"], *ids, special["sep"]]
                marks = [1, *[0] * (end - first), 1]
                self.rows.append({"input_ids": ids, "special_tokens_mask": marks})
        self.mean = float(ends[-1]) / len(self.rows)
        """Mean number of text tokens in a row."""

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, number: int) -> dict[str, Any]:
        return self.rows[number]


def their_model(options: argparse.Namespace, special: dict[str, int]) -> nn.Module:
    """Return GPT-2 or BERT of transformers, without dropout, with attention by `sdpa`."""
    from transformers import BertConfig, BertForMaskedLM, GPT2Config, GPT2LMHeadModel

    if options.objective == "arlm":
        gpt = GPT2Config(
            vocab_size=special["size"],
            n_positions=options.window,
            n_embd=options.hidden,
            n_layer=options.layers,
            n_head=options.heads,
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            use_cache=False,
            attn_implementation="sdpa",
        )
        return GPT2LMHeadModel(gpt)
    bert = BertConfig(
        vocab_size=special["size"],
        hidden_size=options.hidden,
        num_hidden_layers=options.layers,
        num_attention_heads=options.heads,
        intermediate_size=4 * options.hidden,
        max_position_embeddings=options.window,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        pad_token_id=special["pad"],
        attn_implementation="sdpa",
    )
    return BertForMaskedLM(bert)


def their_collator(options: argparse.Namespace, special: dict[str, int]) -> Any:
    """Return a collator that masks and pads to the longest row; `arlm` needs neither."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from transformers import (
        DataCollatorForLanguageModeling,
        PreTrainedTokenizerFast,
        default_data_collator,
    )

    if options.objective == "arlm":
        return default_data_collator
    ids = {f"<{number}>": number for number in range(special["size"])}
    names = ("pad", "unk", "cls", "sep", "mask")
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(WordLevel(ids, unk_token=f"<{special['unk']}>")),
        **{f"{name}_token": f"<{special[name]}>" for name in names},
    )
    return DataCollatorForLanguageModeling(tokenizer, mlm_probability=MASKED)


def hugging_face(options: argparse.Namespace, turns: Turns, by_length: bool) -> None:
    """Train with Hugging Face's `Trainer`, with its defaults except for shared settings.

    The number of rows in a batch is chosen so that its text has, on average, the length of the
    other cases' batches.
    """
    from transformers import Trainer, TrainerCallback, TrainingArguments

    class Dealt(Trainer):
        """Shuffles batches of one length; the original sorts them, 50 at once."""

        def _get_train_sampler(self, *args: Any) -> Any:
            numbers = super()._get_train_sampler(*args)
            if not by_length:
                return numbers
            size = self.args.per_device_train_batch_size
            listed = list(numbers)
            batches = [listed[first : first + size] for first in range(0, len(listed), size)]
            random.Random(0).shuffle(batches)
            return list(itertools.chain(*batches))

    flat = Flat(options)
    rows, model = Rows(options, flat), their_model(options, flat.special)
    specials = 0 if options.objective == "arlm" else 2
    tokens: list[Tensor] = []

    def count(module: nn.Module, args: Any, inputs: dict[str, Any]) -> None:
        mask = inputs.get("attention_mask")
        found = inputs["input_ids"].numel() if mask is None else mask.sum()
        tokens.append(torch.as_tensor(found) - specials * len(inputs["input_ids"]))

    model.register_forward_pre_hook(count, with_kwargs=True)

    class UpdateCounter(TrainerCallback):
        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            turns.updated(int(sum(tokens)))
            tokens.clear()

    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            per_device_train_batch_size=max(round(options.batch * options.window / rows.mean), 1),
            max_steps=ENDLESS,
            learning_rate=LEARNING_RATE,
            adam_beta1=BETAS[0],
            adam_beta2=BETAS[1],
            weight_decay=DECAY,
            max_grad_norm=CLIP,
            logging_steps=LOG_EVERY,
            bf16=options.precision == "bf16",
            use_cpu=not torch.cuda.is_available(),
            train_sampling_strategy="group_by_length" if by_length else "random",
            remove_unused_columns=False,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
        )
        collator = their_collator(options, flat.special)
        Dealt(model, arguments, collator, train_dataset=rows, callbacks=[UpdateCounter()]).train()


CASES = {
    "plain": plain,
    "hf": partial(hugging_face, by_length=False),
    "hf-by-length": partial(hugging_face, by_length=True),
}

if __name__ == "__main__":
    main((__doc__ or "").split("\n")[0], CASES)
