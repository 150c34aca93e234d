"""Small corpora for the tests of `data_prep.corpora`, made without a build."""

import hashlib
import io
import random
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sentencepiece as spm
import typer
from prep_support import Outcome, chinese_text, english_text

from data_prep.assembly import WrittenShard, summarize_split, write_index
from data_prep.blocks import BlockData, cut_blocks, join_documents
from data_prep.commands.inspecting import (
    diff_command,
    inspect_command,
    show_command,
    verify_command,
)
from data_prep.commands.rearranging import merge_command, reshard_command
from data_prep.errors import PrepError
from data_prep.files import sha256_of
from data_prep.lengths import write_lengths
from data_prep.manifest import FileInfo, Manifest, SplitInfo
from data_prep.pipeline.provenance import RECORD_NAME, BuildRecord
from data_prep.shard_writer import Layout, ShardWriter, token_dtype
from data_prep.tokenizers import Tokenizer, load_tokenizer
from data_prep.tokenizers.base import INFILLING_PIECES, MODE_PIECES, SPECIAL_PIECES

SENTINELS = 4
SMALL = {"block_tokens": 60, "shard_tokens": 200}


@dataclass(frozen=True)
class Made:
    """A document of a corpus that a test makes."""

    number: int
    text: str
    split: str = "train"
    label: str | None = None
    id: str = ""
    corpus: str = ""


def make_texts(count: int, seed: int = 0, **fields: Any) -> list[Made]:
    """Documents half English, half Chinese; every seventh number is missing, one in five valid."""
    rng = random.Random(seed)
    made = []
    for number in range(count):
        text = (english_text, chinese_text)[number % 2](rng, rng.randint(1, 4))
        if number % 7 != 3:
            label = ("english", "chinese", None)[number % 3]
            split = "valid" if number % 5 == 4 else "train"
            made.append(Made(number, text, split, label, f"id-{number} “文”"))
    return [replace(one, **fields) for one in made]


@lru_cache
def tokenizer_model(seed: int = 0, pieces: int = 420) -> bytes:
    """A SentencePiece model of both languages with the reserved pieces."""
    rng = random.Random(seed)
    texts = [make(rng, 6) for _ in range(60) for make in (english_text, chinese_text)]
    names = [*SPECIAL_PIECES[4:], *MODE_PIECES, *INFILLING_PIECES]
    buffer = io.BytesIO()
    spm.SentencePieceTrainer.train(
        sentence_iterator=iter(texts),
        model_writer=buffer,
        vocab_size=pieces,
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        user_defined_symbols=["\n", "\t"],
        control_symbols=names + [f"<extra_id_{number}>" for number in range(SENTINELS)],
        pad_id=0,
        unk_id=1,
        bos_id=2,
        eos_id=3,
        pad_piece="[PAD]",
        unk_piece="[UNK]",
        bos_piece="[BOS]",
        eos_piece="[EOS]",
        num_threads=1,
        minloglevel=2,
    )
    return buffer.getvalue()


def make_corpus(
    folder: Path,
    made: Sequence[Made],
    *,
    model: bytes | None = None,
    labels: Sequence[str] | None = None,
    corpora: Sequence[str] = (),
    ids: bool = True,
    block_tokens: int = SMALL["block_tokens"],
    shard_tokens: int = SMALL["shard_tokens"],
    source_documents: int | None = None,
    rejected: dict[str, int] | None = None,
    change: Callable[[BlockData], BlockData] = lambda block: block,
    **settings: Any,
) -> Manifest:
    """Write a corpus of these documents.

    Args:
        folder: where; made.
        made: the documents, by rising number.
        model: the tokenizer's file.
        labels: names of the labels; those of the documents if not given.
        corpora: names of the corpora.
        ids: whether ids are kept.
        block_tokens: size of a block.
        shard_tokens: size of a shard.
        source_documents: one more than the last number if not given.
        rejected: all numbers without a document as "empty" if not given.
        change: done to every block before it is written.
        settings: others, for the manifest.
    """
    folder.mkdir(parents=True)
    (folder / "tokenizer.model").write_bytes(model or tokenizer_model())
    tokenizer = load_tokenizer(folder / "tokenizer.model")
    if labels is None:
        labels = sorted({one.label for one in made if one.label is not None})
    layout = Layout(tokenizer.vocabulary.size, bool(labels), ids, bool(corpora))
    splits: dict[str, SplitInfo] = {}
    for split in ("train", "valid"):
        documents = [
            block_of(one, tokenizer, labels, corpora) for one in made if one.split == split
        ]
        if documents:
            blocks = [change(block) for block in cut_blocks(iter(documents), block_tokens)]
            shards = list(_write(folder, split, blocks, layout, shard_tokens, labels, corpora))
            index = write_index(folder, split, [np.array(shard.table) for shard in shards])
            with write_lengths(path := folder / f"{split}.lengths.npy") as add:
                for block in blocks:
                    add(block.lens)
            lengths = FileInfo(file=path.name, bytes=path.stat().st_size, sha256=sha256_of(path))
            splits[split] = summarize_split(shards, index, lengths)
    source = made[-1].number + 1 if source_documents is None else source_documents
    model_bytes = (folder / "tokenizer.model").read_bytes()
    manifest = Manifest.create(
        vocabulary=tokenizer.vocabulary,
        tokenizer=FileInfo(
            file="tokenizer.model",
            bytes=len(model_bytes),
            sha256=hashlib.sha256(model_bytes).hexdigest(),
        ),
        labels=list(labels),
        corpora=list(corpora),
        keeps_ids=ids,
        splits=splits,
        rejected={"empty": source - len(made)} if rejected is None else rejected,
        changed={"nfc": 3},
        settings={**settings, "block_tokens": block_tokens, "shard_tokens": shard_tokens},
        source_documents=source,
    )
    manifest.save(folder)
    record = BuildRecord(
        inputs=[], tokenizer_sha256=manifest.tokenizer.sha256, settings={}, versions={}
    )
    record.save(folder, manifest.fingerprint, {})
    return manifest


def block_of(
    one: Made, tokenizer: Tokenizer, labels: Sequence[str], corpora: Sequence[str]
) -> BlockData:
    """A document as a block of one, with simple marks: words at spaces, sentences at stops."""
    tokens = tokenizer.encode(one.text)
    pieces = [tokenizer.piece(int(id_)) for id_ in tokens]
    words = np.array([piece.startswith("▁") for piece in pieces], dtype=np.bool_)
    sentences = np.array([False, *(piece[-1:] in ".。！？!?" for piece in pieces[:-1])])
    words[0] = sentences[0] = True
    return BlockData(
        tokens=tokens.astype(token_dtype(tokenizer.vocabulary.size)),
        words=words | sentences,
        sentences=sentences,
        lens=np.array([len(tokens)], dtype=np.uint32),
        bytes=np.array([len(one.text.encode())], dtype=np.uint32),
        documents=np.array([one.number], dtype=np.int64),
        labels=np.array([-1 if one.label is None else labels.index(one.label)], dtype=np.int32),
        corpora=np.array([corpora.index(one.corpus) if corpora else 0], dtype=np.uint16),
        ids=np.array([one.id], dtype=object),
    )


def _write(
    folder: Path,
    split: str,
    blocks: list[BlockData],
    layout: Layout,
    shard_tokens: int,
    labels: Sequence[str],
    corpora: Sequence[str],
) -> Iterator[WrittenShard]:
    shards: list[list[BlockData]] = [[]]
    for block in blocks:
        if sum(len(one.tokens) for one in shards[-1]) >= shard_tokens:
            shards.append([])
        shards[-1].append(block)
    key = 0
    for number, held in enumerate(shards):
        with ShardWriter(folder / f"{split}-{number:06d}.tar", layout) as writer:
            for block in held:
                writer.write(key, block)
                key += 1
        whole = join_documents(held)
        yield WrittenShard(
            info=writer.info,
            table=writer.table,
            text_bytes=int(whole.bytes.sum()),
            label_counts=[int((whole.labels == label).sum()) for label in range(len(labels))],
            corpus_counts=[
                int((whole.corpora == corpus).sum()) for corpus in range(max(1, len(corpora)))
            ],
        )


def edit_manifest(folder: Path, **changes: Any) -> Manifest:
    """Write the manifest again with other fields and a right fingerprint."""
    manifest = Manifest.load(folder)
    fields = {name: getattr(manifest, name) for name in Manifest.model_fields}
    del fields["format"], fields["fingerprint"]
    edited = Manifest.create(**{**fields, **changes})
    edited.save(folder)
    record = BuildRecord.model_validate_json((folder / RECORD_NAME).read_bytes())
    record.save(folder, edited.fingerprint, {})
    return edited


app = typer.Typer()
for _name, _function in {
    "inspect": inspect_command,
    "show": show_command,
    "verify": verify_command,
    "diff": diff_command,
    "merge": merge_command,
    "reshard": reshard_command,
}.items():
    app.command(_name)(_function)


def run(capfd: pytest.CaptureFixture[str], *arguments: object) -> Outcome:
    """Run a command in this process; a fault gives exit code 2, as in `megapt-prep`."""
    capfd.readouterr()
    code: object = 0
    try:
        app(list(map(str, arguments)), prog_name="megapt-prep")
    except SystemExit as end:
        code = end.code
    except PrepError as error:
        code = 2
        print(f"megapt-prep: error: {error}", file=sys.stderr)
    captured = capfd.readouterr()
    return Outcome(int(str(code)), captured.out, captured.err)
