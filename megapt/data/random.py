"""Counter-based random numbers that depend on this file only.

Neither numpy nor torch guarantees that its generators give the same numbers in the next version,
and the draws of a generator with a state depend on all earlier draws. Here a draw is a hash of
(key, counter). The hash is the finalizer of SplitMix64 (Steele, Lea & Flood
2014, "Fast splittable pseudorandom number generators", OOPSLA): in unsigned 64-bit arithmetic,

    mix(z):  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9
             z = (z ^ (z >> 27)) * 0x94D049BB133111EB
             z ^ (z >> 31)
    draw(key, i) = mix(key + (i + 1) * 0x9E3779B97F4A7C15)

A key is folded from its parts: key = 0; for each part, key = mix((key ^ part) + 0x9E37...7C15).
A part that is a string is replaced by the first eight bytes of its BLAKE2b digest, little-endian.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

U64 = NDArray[np.uint64]

_GOLDEN = 0x9E3779B97F4A7C15
_A = 0xBF58476D1CE4E5B9
_B = 0x94D049BB133111EB
_MASK = (1 << 64) - 1

_BLOCK = 2048
"""Draws made at once, which cost hardly more than a single draw."""


def _u64(value: int) -> U64:
    """Return a constant as an array, which is faster in array arithmetic than a Python number."""
    return np.array(value, dtype=np.uint64)


_A64, _B64, _11, _27, _30, _31 = map(_u64, (_A, _B, 11, 27, 30, 31))
_RAMP = np.arange(_BLOCK, dtype=np.uint64) * _u64(_GOLDEN)


def _mix(z: int) -> int:
    z = ((z ^ (z >> 30)) * _A) & _MASK
    z = ((z ^ (z >> 27)) * _B) & _MASK
    return z ^ (z >> 31)


def _draws(key: int, first: int, n: int) -> U64:
    """Return draw(key, i) for first <= i < first + n, uint64 [n]; `_mix` on an array, in place."""
    ramp = _RAMP[:n] if n <= _BLOCK else np.arange(n, dtype=np.uint64) * _u64(_GOLDEN)
    z = ramp + _u64((key + (first + 1) * _GOLDEN) & _MASK)
    shifted = z >> _30
    z ^= shifted
    z *= _A64
    z ^= np.right_shift(z, _27, out=shifted)
    z *= _B64
    z ^= np.right_shift(z, _31, out=shifted)
    return z


@lru_cache(maxsize=1024)
def _text_to_int(text: str) -> int:
    """Return the number that represents a string in a key."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def derive_key(*parts: int | str) -> int:
    """Fold `parts` into one unsigned 64-bit key; order matters."""
    key = 0
    for part in parts:
        if isinstance(part, str):
            part = _text_to_int(part)
        key = _mix(((key ^ (part & _MASK)) + _GOLDEN) & _MASK)
    return key


class CounterRng:
    """A stream of draws, determined by its key.

    Args:
        parts: what the draws belong to, for example ``(seed, epoch, window, "mlm")``.
    """

    def __init__(self, *parts: int | str) -> None:
        self._key = derive_key(*parts)
        self._made = 0
        self._ready: U64 = np.zeros(0, dtype=np.uint64)

    def child(self, *parts: int | str) -> CounterRng:
        """Return an independent stream, keyed by this stream's key and `parts`."""
        return CounterRng(self._key, *parts)

    def bits(self, n: int) -> U64:
        """Return `n` draws of 64 uniform bits, uint64 [n]."""
        if n > len(self._ready):
            more = _draws(self._key, self._made, max(n - len(self._ready), _BLOCK))
            self._made += len(more)
            self._ready = np.concatenate([self._ready, more]) if len(self._ready) else more
        draws, self._ready = self._ready[:n], self._ready[n:]
        return draws

    def uniform(self, n: int) -> NDArray[np.float64]:
        """Return `n` numbers from [0, 1), multiples of 2^-53, float64 [n]."""
        draws: NDArray[np.float64] = (self.bits(n) >> _11).astype(np.float64) * 2.0**-53
        return draws

    def integers(self, low: int, high: int, n: int) -> NDArray[np.int64]:
        """Return `n` integers from [low, high), int64 [n]; bias below (high - low) / 2^53."""
        values: NDArray[np.int64] = (self.uniform(n) * (high - low)).astype(np.int64) + low
        return values

    def integer(self, low: int, high: int) -> int:
        """Return one integer from [low, high), the same as the first of `integers`."""
        return int(self._fraction() * (high - low)) + low

    def chance(self, probability: float) -> bool:
        """Return True with this probability, from one uniform draw."""
        return self._fraction() < probability

    def _fraction(self) -> float:
        """Return `uniform(1)` as a float, without numpy's cost for one number."""
        return (int(self.bits(1)[0]) >> 11) * 2.0**-53

    def permutation(self, n: int) -> NDArray[np.int64]:
        """Return a random order of 0..n-1, int64 [n]: the argsort of `n` draws.

        Equal draws, which are very rare, keep their order.
        """
        draws = self.bits(n)
        order = np.argsort(draws)  # several times as fast as a stable sort
        ranked = draws[order]
        if (ranked[1:] == ranked[:-1]).any():
            return np.argsort(draws, kind="stable")
        return order
