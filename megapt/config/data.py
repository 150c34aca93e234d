"""What is read, and in which order."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from megapt.config.section import (
    MemberName,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Section,
)


class ReadingConfig(Section):
    """How the files of a corpus are brought to where they can be read."""

    verify: Literal["full", "use", "size"] = "full"
    """What is checked of a local corpus: the SHA-256 of every shard before the first step, that
    of each shard when it is first read, or sizes only. What is fetched is hashed on arrival."""
    on_damage: Literal["stop", "skip"] = "stop"
    """A shard that stays missing or damaged after all retries ends the run, or its text is left
    out and counted."""
    cache_dir: str | None = None
    """Folder for fetched files; by default `megapt` under $XDG_CACHE_HOME or ~/.cache."""
    cache_bytes: PositiveFloat = 2e11
    """Most that fetched shards may take there; the least recently used go first."""
    max_retries: NonNegativeInt = 5
    """How often a transfer that fails is tried again."""
    backoff: PositiveFloat = 0.5
    """Seconds before the first retry; doubled for each further one, at most 30."""
    timeout: PositiveFloat = 60.0
    """Seconds without a byte after which a transfer counts as failed."""

    @property
    def hashes_on_use(self) -> bool:
        """Whether a local shard is hashed when it is first read.

        So is what may be skipped: each process finds out by itself.
        """
        return self.verify == "use" or (self.verify == "full" and self.on_damage == "skip")


class CorpusConfig(Section):
    """One corpus of a mixture."""

    path: str
    """Folder or URL, as in `data.corpus`."""
    weight: NonNegativeFloat | None = None
    """Share of the windows, relative to the other weights. Given for all corpora or for none;
    without, shares follow sizes and `temperature`."""
    max_epochs: PositiveFloat | None = None
    """The corpus is read at most so often; then the others share its part."""


class StageConfig(Section):
    """Weights from a step on."""

    step: Annotated[int, Field(gt=0)]
    weights: dict[MemberName, NonNegativeFloat]
    """Corpus -> weight; a corpus that is not named keeps its weight."""


class MixtureConfig(Section):
    """Several corpora read side by side, window by window."""

    corpora: Annotated[dict[MemberName, CorpusConfig], Field(min_length=1)]
    temperature: Annotated[float, Field(ge=1)] = 1.0
    """Without weights: a share is proportional to tokens^(1/temperature)."""
    schedule: list[StageConfig] = Field(default_factory=list)
    """Changes of weights, in rising steps; weight 0 until then is how a corpus joins later."""

    @field_validator("corpora")
    @classmethod
    def _sorted(cls, corpora: dict[str, CorpusConfig]) -> dict[str, CorpusConfig]:
        return dict(sorted(corpora.items()))  # How they are listed must not change the order.

    @model_validator(mode="after")
    def _weights(self) -> MixtureConfig:
        without = [name for name, corpus in self.corpora.items() if corpus.weight is None]
        if without and len(without) < len(self.corpora):
            raise ValueError(f"corpora.{without[0]} has no weight, but others have")
        for stage in self.schedule:
            unknown = sorted(set(stage.weights) - set(self.corpora))
            if unknown:
                names = ", ".join(self.corpora)
                raise ValueError(f"schedule names '{unknown[0]}'; the corpora are {names}")
        steps = [stage.step for stage in self.schedule]
        if steps != sorted(set(steps)):
            raise ValueError(f"schedule has steps {steps}; they should rise")
        return self


class DataConfig(Section):
    """What is read and in which order. Nothing here knows the objective."""

    corpus: str | None = None
    """What `megapt-prep build` wrote: a folder, a URL, or `pipe:` and a command in which {}
    stands for a file's name."""
    mixture: MixtureConfig | None = None
    """Several corpora in its place."""
    window: Annotated[int, Field(ge=16)] = 512
    """Raw tokens W of a window."""
    window_policy: Literal["fill", "whole"] = "fill"
    """`fill`: documents are cut wherever a window is full. `whole`: only those longer than W; a
    window then holds W tokens on average, and fewer than 2 W."""
    shuffle_shards: PositiveInt = 8
    """Shards whose blocks are shuffled together."""
    shuffle_blocks: PositiveInt = 8
    """Blocks whose documents, and then windows, are shuffled together in memory."""
    lanes: PositiveInt = 8
    """Places of the corpus that are read side by side. With a multiple of the number of ranks,
    each shard is read by one rank."""
    num_workers: NonNegativeInt = 0
    """Loader processes a rank. The order of batches does not depend on it."""
    reading: ReadingConfig = ReadingConfig()

    @model_validator(mode="after")
    def _one_source(self) -> DataConfig:
        if self.corpus is None and self.mixture is None:
            raise ValueError("should name a corpus or a mixture")
        if self.corpus is not None and self.mixture is not None:
            raise ValueError("names a corpus and a mixture; set one of them to null")
        return self

    @property
    def sources(self) -> dict[str, CorpusConfig]:
        """Name -> corpus; a single one is called `corpus`."""
        if self.mixture is not None:
            return self.mixture.corpora
        assert self.corpus is not None  # the validator's other branch
        return {"corpus": CorpusConfig(path=self.corpus)}
