"""Settings of the de-duplication: the kinds of duplicates and the similarity threshold."""

import math
from functools import cached_property

from pydantic import BaseModel, ConfigDict, Field, model_validator

VERIFIED_RECALL = 0.97
"""Share of the pairs exactly at the threshold that the verification of candidates accepts."""


class NearSettings(BaseModel):
    """Similarity threshold of near-duplicates, MinHash signatures and LSH bands."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    threshold: float = Field(default=0.8, gt=0, le=1)
    """Jaccard similarity of the sets of shingles from which documents are duplicates, in (0, 1]."""
    ngram: int = Field(default=5, ge=1, le=64)
    """Number of words in a shingle; a CJK character is a word."""
    min_words: int = Field(default=1, ge=1)
    """Documents with fewer words are never near-duplicates."""
    permutations: int = Field(default=128, ge=16, le=4096)
    """Number of slots of a signature, 2 bytes each."""
    bands: int = Field(default=16, ge=1)
    """Number of LSH bands; two documents with an equal band are candidates."""
    rows: int = Field(default=6, ge=1)
    """Number of slots in a band."""
    seed: int = Field(default=0, ge=0, lt=1 << 64)
    """Seed of the hash functions."""

    @model_validator(mode="after")
    def _bands_fit(self) -> "NearSettings":
        if self.bands * self.rows > self.permutations:
            raise ValueError(
                f"bands * rows = {self.bands} * {self.rows} is more than "
                f"permutations = {self.permutations}"
            )
        return self

    @cached_property
    def accepted_slots(self) -> int:
        """Return the number of equal slots from which a candidate is a duplicate.

        It is the largest number that a pair exactly at the threshold reaches with a probability
        of at least `VERIFIED_RECALL`.
        """
        reached, slots = 0.0, self.permutations + 1
        while reached < VERIFIED_RECALL and slots > 0:
            slots -= 1
            reached += _binomial(self.permutations, slots, self.threshold)
        return slots

    def candidate_probability(self, jaccard: float) -> float:
        """Return the chance of a shared band: 1 - (1 - s^r)^b (Leskovec et al., MMDS, 3.4.2)."""
        return 1.0 - (1.0 - jaccard**self.rows) ** self.bands

    def verified_probability(self, jaccard: float) -> float:
        """Return the probability of at least `accepted_slots` equal slots (binomial tail)."""
        counts = range(self.accepted_slots, self.permutations + 1)
        return min(1.0, math.fsum(_binomial(self.permutations, k, jaccard) for k in counts))

    def found_probability(self, jaccard: float) -> float:
        """Return a lower bound of the probability that a pair is found.

        It is the product of the two probabilities. Both events become more likely with every
        equal slot, so they are positively correlated (Harris' inequality), and the true
        probability is at least the product.
        """
        return self.candidate_probability(jaccard) * self.verified_probability(jaccard)


class DedupSettings(BaseModel):
    """The kinds of duplicates to drop."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    exact: bool = False
    """Drop documents whose cleaned text equals that of an earlier one, byte by byte."""
    near: NearSettings | None = None
    """Drop documents that are similar to an earlier one; None keeps them."""


def _binomial(count: int, hits: int, chance: float) -> float:
    """Return the probability of `hits` hits in `count` independent trials."""
    return math.comb(count, hits) * chance**hits * (1.0 - chance) ** (count - hits)
