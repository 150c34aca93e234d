"""Train a tokenizer on a sample of the input."""

import hashlib
import heapq
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal

import sentencepiece as spm

from data_prep.cleaning import Cleaned, Cleaner
from data_prep.errors import PrepError
from data_prep.files import write_atomically
from data_prep.inputs import Tally, Unit, find_files, plan_units, read_documents
from data_prep.progress import ByteProgress
from data_prep.settings import BuildSettings
from data_prep.tokenizers.base import Tokenizer, reserved_pieces
from data_prep.tokenizers.sentencepiece_model import SentencePieceTokenizer, cut_text

ModelType = Literal["unigram", "bpe"]

# SentencePiece drops training lines beyond its limit in bytes; a character takes at most 4.
LINE_BYTES = 4192
LINE_CHARACTERS = LINE_BYTES // 4
# The model depends on the number of threads, because it changes the order of rounded sums. The
# number is fixed, so that every machine trains the same model.
THREADS = 4

# From a large input, this many times the size of the sample is read, from units drawn by hash.
READ_AHEAD = 20


def train_tokenizer(
    settings: BuildSettings,
    output: Path,
    vocab_size: int,
    *,
    model: ModelType = "unigram",
    coverage: float = 0.9995,
    sentinels: int = 100,
    sample_bytes: int = 100_000_000,
    seed: int = 0,
) -> Tokenizer:
    """Train a SentencePiece model on the inputs and write `output`/tokenizer.model.

    Args:
        settings: the input, the handling of faulty documents, and the cleaning steps; other
            settings have no effect.
        output: folder for the model; created if missing.
        vocab_size: number of pieces, including the reserved ones.
        model: "unigram" or "bpe".
        coverage: share of the sample's characters that get their own piece; other characters are
            encoded as bytes. Use 0.9995 for Chinese and 1.0 for small alphabets.
        sentinels: number of <extra_id_N> pieces.
        sample_bytes: maximum size of the sample, drawn by the hash of seed and text.
        seed: seed of the sample.

    Raises:
        PrepError: the input is faulty, there is no text, or the vocabulary is too small or too
            large for the text.
        OSError: the model cannot be written.
    """
    sample = draw_sample(_texts(settings, READ_AHEAD * sample_bytes, seed), sample_bytes, seed)
    if not sample:
        raise PrepError("the input holds no text to train a tokenizer on")
    path = output / SentencePieceTokenizer.file_name
    trained = SentencePieceTokenizer(
        train_model(sample, vocab_size, model, coverage, sentinels), str(path)
    )
    output.mkdir(parents=True, exist_ok=True)
    write_atomically(path, trained.data)
    return trained


def draw_sample(texts: Iterable[str], sample_bytes: int, seed: int) -> list[str]:
    """Draw texts of at most `sample_bytes` UTF-8 bytes in total.

    The sample consists of the texts with the smallest hashes of (seed, text), so it does not
    depend on the order of the input. The last text is cut to fit. Memory is bounded by the size
    of the sample.

    Returns:
        The texts, by ascending hash.
    """
    key = seed.to_bytes(8, "little")
    heap: list[tuple[int, bytes]] = []  # the largest hash must be first, so hashes are negated
    total = 0
    for text in texts:
        data = text.encode()
        rank = -int.from_bytes(hashlib.blake2b(data, digest_size=8, key=key).digest(), "big")
        heapq.heappush(heap, (rank, data))
        total += len(data)
        while total - len(heap[0][1]) >= sample_bytes:
            total -= len(heapq.heappop(heap)[1])
    ranked = [data for _, data in sorted(heap, reverse=True)]
    if total > sample_bytes:
        ranked[-1] = ranked[-1][: len(ranked[-1]) - (total - sample_bytes)]
    return [data.decode(errors="ignore") for data in ranked]


def training_lines(texts: Iterable[str]) -> Iterator[str]:
    """Cut texts into lines that are short enough for SentencePiece."""
    for text in texts:
        for line in text.split("\n"):
            if line and not line.isspace():
                # A part begins with the space before it, but SentencePiece adds a space anyway.
                yield from (part.removeprefix(" ") for part in cut_text(line, LINE_CHARACTERS))


def _texts(settings: BuildSettings, max_bytes: int, seed: int) -> Iterator[str]:
    """Yield the cleaned texts of the input, or of units of about `max_bytes` in total."""
    cleaner = Cleaner(settings.cleaning)
    # Faults of fields that training does not need are ignored.
    only_text = {"label_field": "", "id_field": None, "group_field": None}
    corpora = [corpus.model_copy(update=only_text) for corpus in settings.corpora.values()]
    units = _draw_units(
        plan_units(find_files(settings.corpora), errors=settings.errors), max_bytes, seed
    )
    with ByteProgress("read text", sum(unit.bytes for unit in units)) as progress:
        for unit in units:
            for _, document in read_documents(unit, corpora, settings.errors, Tally()):
                cleaned = cleaner.clean(document.text)
                if isinstance(cleaned, Cleaned):
                    yield cleaned.text
            progress.advance(unit.bytes)


def _draw_units(units: Sequence[Unit], max_bytes: int, seed: int) -> list[Unit]:
    """Return all units, or about `max_bytes` of them with the smallest hashes of their numbers."""
    key = seed.to_bytes(8, "little")

    def rank(unit: Unit) -> bytes:
        number = unit.number.to_bytes(8, "little")
        return hashlib.blake2b(number, digest_size=8, key=key).digest()

    drawn: list[Unit] = []
    total = 0
    for unit in sorted(units, key=rank):
        if total >= max_bytes:
            break
        drawn.append(unit)
        total += unit.bytes
    return sorted(drawn, key=lambda unit: unit.number)


def train_model(
    sample: Iterable[str], vocab_size: int, model: ModelType, coverage: float, sentinels: int
) -> bytes:
    """Train a model on a sample; see `train_tokenizer` for the arguments.

    Returns:
        The serialized model.

    Raises:
        PrepError: the vocabulary is too small or too large for the text.
    """
    pad, unk, bos, eos, *controls = reserved_pieces(sentinels)
    buffer = io.BytesIO()
    try:
        spm.SentencePieceTrainer.train(
            sentence_iterator=training_lines(sample),
            model_writer=buffer,
            model_type=model,
            vocab_size=vocab_size,
            character_coverage=coverage,
            byte_fallback=True,
            split_digits=True,
            normalization_rule_name="identity",
            remove_extra_whitespaces=False,
            add_dummy_prefix=True,
            # Otherwise SentencePiece would encode a newline or tab as bytes.
            user_defined_symbols=["\n", "\t"],
            control_symbols=controls,
            pad_id=0,
            unk_id=1,
            bos_id=2,
            eos_id=3,
            pad_piece=pad,
            unk_piece=unk,
            bos_piece=bos,
            eos_piece=eos,
            max_sentence_length=LINE_BYTES,
            num_threads=THREADS,
            minloglevel=2,
        )
    except RuntimeError as error:
        raise _training_error(str(error), vocab_size) from None
    return buffer.getvalue()


def _training_error(message: str, vocab_size: int) -> PrepError:
    """Return an error for a message of SentencePiece, reworded for the known messages."""
    if match := re.search(r"too high.*<= (\d+)", message):
        return PrepError(
            f"--vocab-size {vocab_size} is too large for this text: at most {match[1]} fits"
        )
    if match := re.search(r"smaller than required_chars\. \d+ vs (\d+)", message):
        return PrepError(
            f"--vocab-size {vocab_size} is too small: the reserved pieces, the bytes and the "
            f"characters of this text need at least {match[1]}"
        )
    return PrepError(f"SentencePiece could not train: {message}")
