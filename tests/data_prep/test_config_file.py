"""Config files: what YAML's own parser would take silently, or fail at."""

from pathlib import Path

import pytest

from data_prep.config_file import ConfigFile, parse_assignment
from data_prep.errors import PrepError


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("corpora:\n  a: {paths: [x]}\n  a: {paths: [y]}\n", ":3: 'a' appears twice"),
        ("corpora:\n  新闻: {}\n  书: {}\n  新闻: {}\n", ":4: '新闻' appears twice"),
        (
            "cleaning:\n- length: {min_words: 1,\n    min_words: 2}\n",
            ":3: 'min_words' appears twice",
        ),
        ("errors: skip\nerrors: stop\n", ":2: 'errors' appears twice"),
        ("seed: 2024-13-45\n", ": month must be in 1..12; put the value in quotes"),
    ],
)
def test_wrong_files(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "build.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(PrepError) as caught:
        ConfigFile(path)
    assert str(caught.value).startswith(f"{path}{message}")


def test_an_assignment_of_a_date_that_there_is_not() -> None:
    with pytest.raises(PrepError, match="--set seed=2024-13-45: the value is not YAML"):
        parse_assignment("seed=2024-13-45")
