"""How a measure is found: megapt's by name, another in a file of the user's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from megapt.config import Origins, PartSection
from megapt.data import Corpus
from megapt.errors import ConfigError
from megapt.evaluation.measures import MEASURES, Measure, MeasureContext, build_measure
from tests.training.runs import ALONE

OWN = """
from megapt.config import Section
from megapt.evaluation.measures import Measure, Score


class Settings(Section):
    count: int = 3


class Own(Measure):
    name = "own"
    title = "Own"
    about = "what is given"
    Config = Settings
    items = 1
    {more}
"""
SCORE = "def score(self, run): return Score(value=0.5)"


def build(corpus: Corpus, **section: Any) -> Measure:
    context = MeasureContext(corpus, 64, 0, ALONE)
    origins = Origins({"measures.1": "compare.yaml:7"})
    return build_measure(PartSection(**section), context, origins, "measures.1")


def own(folder: Path, more: str = SCORE) -> str:
    file = folder / "own.py"
    file.write_text(OWN.format(more=more), encoding="utf-8")
    return str(file)


def test_measures_say_what_tables_and_captions_need(corpus: Corpus) -> None:
    assert {"probe", "repetition"} <= set(MEASURES)
    for name in MEASURES:
        measure = build(corpus, name=name)
        assert measure.name == name
        assert measure.title[0].isupper()
        assert measure.about[-1].isalnum()
        assert measure.items > 0


def test_settings_are_those_of_the_section(corpus: Corpus, tmp_path: Path) -> None:
    assert build(corpus, name="own", file=own(tmp_path)).config.count == 3
    assert build(corpus, name="own", file=own(tmp_path), count=5).config.count == 5


@pytest.mark.parametrize(
    ("section", "more", "says"),
    [
        ({"name": "prob"}, SCORE, "name: no measure named 'prob'; did you mean 'probe'?"),
        ({"name": "xyz"}, SCORE, "name: no measure named 'xyz'; valid: probe, repetition"),
        ({"name": "probe", "train_document": 3}, SCORE, "did you mean 'train_documents'?"),
        ({"name": "probe", "train_documents": 0}, SCORE, "train_documents: should be greater"),
        ({"name": "own", "counts": 3}, SCORE, "counts: unknown key; did you mean 'count'?"),
        ({"name": "owl"}, SCORE, "no measure named 'owl' in "),
        ({"name": "own"}, "pass", "class Own lacks score"),
        ({"name": "own"}, f"del title; {SCORE}", "class Own lacks title"),
    ],
)
def test_a_wrong_section_is_refused_where_it_stands(
    corpus: Corpus, tmp_path: Path, section: dict[str, Any], more: str, says: str
) -> None:
    if section["name"].startswith("ow"):
        section = {**section, "file": own(tmp_path, more.replace("; ", "\n    "))}
    with pytest.raises(ConfigError) as raised:
        build(corpus, **section)
    message = str(raised.value)
    assert message.startswith("compare.yaml:7: measures.1.")
    assert says in message
    assert "\n" not in message
