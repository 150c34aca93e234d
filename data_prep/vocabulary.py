"""The ids that objectives need from a tokenizer, whatever its kind."""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict


class Vocabulary(BaseModel):
    """The ids that objectives need, read from the tokenizer."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    size: int
    """Number of ids, one more than the largest."""
    pad: int
    """Id of [PAD]; `unk`, `bos`, `eos`, `cls`, `sep` and `mask` are the ids of those pieces."""
    unk: int
    bos: int
    eos: int
    cls: int
    sep: int
    mask: int
    modes: dict[str, int]
    """Ids of the mode pieces, keyed "NLU", "NLG", "S2S"."""
    infilling: dict[str, int]
    """Ids of the fill-in-the-middle pieces, keyed "PRE", "SUF", "MID"."""
    sentinels: list[int]
    """Ids of <extra_id_0>, <extra_id_1>, ... in that order."""
    reserved: list[int]
    """Every id that is no piece of ordinary text, rising: those above, and other control pieces and
    ids without a piece that a tokenizer from elsewhere may have."""

    @property
    def reserved_table(self) -> NDArray[np.bool_]:
        """Whether each id is reserved, read-only bool [size]; `reserved_table[ids]` for many."""
        return _reserved_table(self.size, tuple(self.reserved))

    @property
    def ordinary(self) -> NDArray[np.int64]:
        """The ids of ordinary pieces, rising, read-only int64 [size - len(reserved)]."""
        return _ordinary(self.size, tuple(self.reserved))


# Cached outside the model, so that equal vocabularies share one table.
@lru_cache(maxsize=16)
def _reserved_table(size: int, reserved: tuple[int, ...]) -> NDArray[np.bool_]:
    table = np.zeros(size, dtype=np.bool_)
    table[list(reserved)] = True
    table.setflags(write=False)
    return table


@lru_cache(maxsize=16)
def _ordinary(size: int, reserved: tuple[int, ...]) -> NDArray[np.int64]:
    ids = np.flatnonzero(~_reserved_table(size, reserved))
    ids.setflags(write=False)
    return ids
