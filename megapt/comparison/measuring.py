"""The measures of one comparison: chosen before the members are trained, computed afterwards."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from megapt.comparison.results import MeasureRecord
from megapt.config import CompareConfig, Origins, validate
from megapt.data import Corpus
from megapt.distributed.ranks import Ranks
from megapt.evaluation import LoadedRun
from megapt.evaluation.measures import (
    Measure,
    MeasureContext,
    MeasureError,
    Score,
    build_measure,
)
from megapt.registry import read_source


@dataclass(frozen=True)
class Measures:
    """The measures of the members."""

    chosen: list[Measure]
    records: list[MeasureRecord]
    """The record of each measure, without the score of the untrained model."""
    skipped_measures: dict[str, str]
    """Default measure -> what the corpus lacks for it."""
    sources: dict[str, bytes]
    """Dotted path of a custom measure -> content of its Python file."""


def choose_measures(
    config: CompareConfig, corpus: Corpus, ranks: Ranks, origins: Origins
) -> Measures:
    """Build the measures that the configuration names.

    Raises:
        ConfigError: on every rank, if a measure does not exist, or if the corpus lacks what a
            named measure needs. If the configuration names no measures, the default measures that
            lack something are skipped.
        MegaptError: on every rank, if a rank cannot read the corpus.
    """
    named = "measures" in config.model_fields_set
    context = MeasureContext(corpus, config.data.window, config.seed, ranks)
    measures = Measures([], [], {}, {})
    with ranks.shared_errors():
        for number, section in enumerate(config.measures):
            path = f"measures.{number}"
            try:
                measure = build_measure(section, context, origins, path)
            except MeasureError as error:
                if named:
                    raise origins.error(path, f"'{section.name}' {error}") from None
                measures.skipped_measures[section.name] = str(error)
                continue
            measures.chosen.append(measure)
            measures.records.append(_record(measure, origins, path))
            if section.file is not None:
                measures.sources[f"measures.{section.name}"] = read_source(section.file)
    return measures


def _record(measure: Measure, origins: Origins, path: str) -> MeasureRecord:
    values = {
        "name": measure.name,
        "title": measure.title,
        "about": measure.about,
        "unit": measure.unit,
        "better": measure.better,
        "settings": measure.config.model_dump(),
        "items": measure.items,
        "material": measure.material or f"{measure.items:,} items",
        "baselines": dict(measure.baselines),
        "untrained": None,
    }
    return validate(MeasureRecord, values, origins, path)


def ask(measures: Iterable[Measure], run: LoadedRun) -> tuple[dict[str, Score], dict[str, str]]:
    """Return the scores of a model by measure, and the reasons for missing scores, on all ranks."""
    scores, unanswered = {}, {}
    for measure in measures:
        problem = measure.problem(run.objective)
        if not problem:
            try:
                scores[measure.name] = measure.score(run)
            except MeasureError as error:
                problem = str(error)
        if problem:
            unanswered[measure.name] = problem
    return scores, unanswered
