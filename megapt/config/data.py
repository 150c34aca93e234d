"""The sections `data`, `data.reading` and `data.mixture`: which text is read, in which order."""

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
    """How the files of a corpus are verified, fetched and cached."""

    verify: Literal["full", "use", "size"] = "full"
    """How a local corpus is verified. `full`: all shards are hashed (SHA-256) before the first
    step, or with `on_damage: skip` when they are first read. `use`: each shard is hashed when it is
    first read. `size`: only file sizes are compared. Fetched files are always hashed on arrival."""
    on_damage: Literal["stop", "skip"] = "stop"
    """What happens if a shard stays missing or corrupt after all retries. `stop`: the run ends.
    `skip`: the text of the shard is skipped and counted."""
    cache_dir: str | None = None
    """Folder for fetched files. None: `megapt` in $XDG_CACHE_HOME or ~/.cache."""
    cache_bytes: PositiveFloat = 2e11
    """Maximum size of the cached shards in bytes; the least recently used are removed first."""
    max_retries: NonNegativeInt = 5
    """Number of retries of a failed transfer. 0: none."""
    backoff: PositiveFloat = 0.5
    """Seconds before the first retry; doubled for each further retry, at most 30."""
    timeout: PositiveFloat = 60.0
    """Seconds without a received byte after which a transfer fails."""

    @property
    def hashes_on_use(self) -> bool:
        """Whether a local shard is hashed when it is first read.

        With `on_damage: skip`, each process finds corrupt shards itself, so `full` hashes on use
        too.
        """
        return self.verify == "use" or (self.verify == "full" and self.on_damage == "skip")


class CorpusConfig(Section):
    """One corpus of a mixture."""

    path: str
    """Folder, URL or command, as in `data.corpus`."""
    weight: NonNegativeFloat | None = None
    """Share of the windows, relative to the weights of the other corpora. 0: none. Give all corpora
    a weight, or none; without weights, sizes and `temperature` set the shares."""
    max_epochs: PositiveFloat | None = None
    """Maximum number of epochs of this corpus; after them, the others share its part. None: no
    limit."""


class StageConfig(Section):
    """New weights of a mixture from a step on."""

    step: Annotated[int, Field(gt=0)]
    """Number of steps before the new weights apply."""
    weights: dict[MemberName, NonNegativeFloat]
    """Name of a corpus -> its new weight. Other corpora keep their weights."""


class MixtureConfig(Section):
    """A mixture of several corpora; each window comes from one of them."""

    corpora: Annotated[dict[MemberName, CorpusConfig], Field(min_length=1)]
    """Name -> corpus."""
    temperature: Annotated[float, Field(ge=1)] = 1.0
    """Without weights, the share of a corpus is proportional to tokens^(1/temperature). 1:
    proportional to size; larger values make the shares more equal."""
    schedule: list[StageConfig] = Field(default_factory=list)
    """Changes of the weights, in increasing steps. A corpus with weight 0 can join later."""

    @field_validator("corpora")
    @classmethod
    def _sorted(cls, corpora: dict[str, CorpusConfig]) -> dict[str, CorpusConfig]:
        return dict(sorted(corpora.items()))  # Their order in the file must not change the data.

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
    """The text of a run and its order. It does not depend on the objective."""

    corpus: str | None = None
    """Corpus that `megapt-prep build` wrote: a folder, a URL, or `pipe:` and a command that prints
    the file whose name replaces {}."""
    mixture: MixtureConfig | None = None
    """Several corpora instead of `corpus`."""
    window: Annotated[int, Field(ge=16)] = 512
    """Window size W in raw tokens."""
    window_policy: Literal["fill", "whole"] = "fill"
    """`fill`: a document is cut wherever a window is full, so all windows hold W tokens. `whole`:
    only documents longer than W are cut; a window holds W tokens on average, and fewer than 2 W."""
    shuffle_buffer_shards: PositiveInt = 8
    """Number of shards whose blocks are shuffled together."""
    shuffle_buffer_blocks: PositiveInt = 8
    """Number of blocks whose documents, and then windows, are shuffled together in memory."""
    lanes: PositiveInt = 8
    """Number of lanes: places of the corpus that are read in parallel. If it is a multiple of the
    number of ranks, and the global batch a multiple of it, one rank reads nearly every shard."""
    num_workers: NonNegativeInt = 0
    """Loader processes per rank; they do not change the order. 0: the rank itself loads."""
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
        """Name -> corpus; a single corpus has the name `corpus`."""
        if self.mixture is not None:
            return self.mixture.corpora
        assert self.corpus is not None  # `_one_source` has checked it.
        return {"corpus": CorpusConfig(path=self.corpus)}
