"""What is read is named in one way, and the parts of a mixture fit together."""

from __future__ import annotations

from pathlib import Path

import pytest

from megapt.config import RunConfig, load_config
from megapt.errors import ConfigError

RUN = """\
output: runs/x
data: %s
model: {num_layers: 1, hidden_size: 8, num_heads: 2, intermediate_size: 8}
objective: {name: arlm}
training: {budget: {amount: 1}}
"""
A, B = "a: {path: x, weight: 1}", "b: {path: y, weight: 2}"


def load(folder: Path, data: str) -> RunConfig:
    file = folder / "run.yaml"
    file.write_text(RUN % data, encoding="utf-8")
    return load_config(RunConfig, file)[0]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ("{}", "data: should name a corpus or a mixture"),
        (f"{{corpus: x, mixture: {{corpora: {{{A}}}}}}}", "data: names a corpus and a mixture"),
        ("{mixture: {corpora: {}}}", "data.mixture.corpora: "),
        (
            f"{{mixture: {{corpora: {{{A}, b: {{path: y}}}}}}}}",
            "data.mixture: corpora.b has no weight, but others have",
        ),
        (
            f"{{mixture: {{corpora: {{{A}, {B}}}, schedule: [{{step: 5, weights: {{c: 1}}}}]}}}}",
            "data.mixture: schedule names 'c'; the corpora are a, b",
        ),
        (
            f"{{mixture: {{corpora: {{{A}, {B}}}, schedule: [{{step: 5, weights: {{a: 2}}}}, "
            "{step: 5, weights: {a: 3}}]}}",
            "data.mixture: schedule has steps [5, 5]; they should rise",
        ),
        (
            f"{{mixture: {{corpora: {{{A}}}, schedule: [{{step: 0, weights: {{a: 2}}}}]}}}}",
            "data.mixture.schedule.0.step: ",
        ),
        (
            "{mixture: {corpora: {a: {path: x, max_epochs: 0}}}}",
            "data.mixture.corpora.a.max_epochs: ",
        ),
        (f"{{mixture: {{corpora: {{{A}}}, temperature: 0.3}}}}", "data.mixture.temperature: "),
        ("{corpus: x, verify: size}", "data.verify: unknown key"),
        ("{corpus: x, reading: {verify: sizes}}", "data.reading.verify: "),
    ],
)
def test_what_does_not_fit_is_refused_with_its_place(tmp_path: Path, data: str, said: str) -> None:
    with pytest.raises(ConfigError) as error:
        load(tmp_path, data)
    text = str(error.value)
    assert text.startswith(f"{tmp_path / 'run.yaml'}:2: {said}")
    assert len(text.splitlines()) == 1


def test_how_corpora_are_listed_does_not_matter(tmp_path: Path) -> None:
    one, other = (
        load(tmp_path, f"{{mixture: {{corpora: {{{listed}}}}}}}").data
        for listed in (f"{A}, {B}", f"{B}, {A}")
    )
    assert list(one.sources) == list(other.sources) == ["a", "b"]
    assert one == other


def test_a_single_corpus_is_a_source_too(tmp_path: Path) -> None:
    [(name, source)] = load(tmp_path, "{corpus: x}").data.sources.items()
    assert (name, source.path) == ("corpus", "x")
