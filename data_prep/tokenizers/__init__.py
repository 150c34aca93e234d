"""Tokenizers: SentencePiece and Hugging Face models behind one interface."""

from data_prep.tokenizers.base import WORD_MARK, Tokenizer
from data_prep.tokenizers.loading import TOKENIZER_NAMES, load_tokenizer

__all__ = ["TOKENIZER_NAMES", "WORD_MARK", "Tokenizer", "load_tokenizer"]
