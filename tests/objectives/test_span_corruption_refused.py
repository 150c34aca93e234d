"""What `span_corruption` refuses, and with which numbers."""

from __future__ import annotations

from typing import Any

import pytest

from megapt.errors import ConfigError
from tests.objectives.builders import build
from tests.windows import VOCABULARY

V = VOCABULARY


@pytest.mark.parametrize("compat", [None, "t5"])
@pytest.mark.parametrize("sentinels", [100, 128])
def test_a_window_of_more_spans_than_sentinels_is_refused(
    compat: str | None, sentinels: int
) -> None:
    ids = list(range(V.size, V.size + sentinels))
    vocabulary = V.model_copy(update={"size": V.size + sentinels, "sentinels": ids})
    # T5's rule at 0.15 and 3: 2,009 tokens are 100 spans, 2,010 are 101. Rolling may add a run.
    fits = {(100, "t5"): 2009, (100, None): 1990, (128, "t5"): 2569, (128, None): 2550}[
        sentinels, compat
    ]
    build("span_corruption", vocabulary, window=fits, compat=compat)
    with pytest.raises(ConfigError) as error:
        build("span_corruption", vocabulary, window=fits + 1, compat=compat)
    text = str(error.value)
    assert len(text.splitlines()) == 1
    assert f"W = {fits + 1} " in text
    assert f"has {sentinels} sentinels" in text
    assert f"data.window up to {fits} fits" in text
    assert f"--sentinels {sentinels + 1}" in text


def test_a_mode_that_the_tokenizer_lacks_is_refused() -> None:
    vocabulary = V.model_copy(update={"modes": {"NLU": 7}})
    build("span_corruption", vocabulary, window=64, mode="NLU")
    with pytest.raises(ConfigError, match=r"tokenizer has no mode token \[S2S\] .*\[NLU\]"):
        build("span_corruption", vocabulary, window=64, mode="S2S")


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("noise_density", 0.0),
        ("noise_density", 1.0),
        ("mean_span_length", 0.5),
        ("mode", "R"),
        ("compat", "hf"),
    ],
)
def test_settings_out_of_range_are_refused(setting: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=rf"objective\.{setting}"):
        build("span_corruption", window=64, **{setting: value})
