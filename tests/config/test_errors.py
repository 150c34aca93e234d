from __future__ import annotations

import pytest

from megapt.config import (
    BranchConfig,
    CheckpointConfig,
    ModelConfig,
    Origins,
    RunConfig,
    Section,
    validate,
)
from megapt.config.errors import nearest
from megapt.errors import ConfigError


def test_the_place_of_a_value_is_its_own_or_that_of_its_nearest_parent() -> None:
    origins = Origins({"model": "run.yaml:4", "model.num_layers": "big.yaml:1"}, default="run.yaml")
    assert origins.of("model.num_layers") == "big.yaml:1"
    assert origins.of("model.num_heads") == "run.yaml:4"
    assert origins.of("seed") == "run.yaml"
    assert (
        str(origins.error("model.num_heads", "is wrong")) == "run.yaml:4: model.num_heads: is wrong"
    )
    assert str(Origins().error("seed", "is wrong")) == "seed: is wrong"


def test_a_near_name_is_proposed_and_else_all_are_listed() -> None:
    assert nearest("lerning_rate", ["learning_rate", "seed"]) == "did you mean 'learning_rate'?"
    assert nearest("xyz", ["b", "a"]) == "valid: a, b"


@pytest.mark.parametrize("message", ["two\nlines", "two\r\nlines", "two\u2028lines"])
def test_a_config_error_is_one_line_whatever_it_quotes(message: str) -> None:
    assert len(str(ConfigError(f"run.yaml: unknown key '{message}'")).splitlines()) == 1


def test_the_first_of_several_problems_is_told_and_the_rest_counted() -> None:
    with pytest.raises(ConfigError) as error:
        validate(
            ModelConfig,
            {"num_layers": 0, "hidden_size": "wide", "num_heads": 2},
            Origins(),
            "model",
        )
    text = str(error.value)
    assert text.startswith("model.num_layers: ")
    assert text.endswith("(and 2 more)")


def test_a_long_wrong_value_is_cut() -> None:
    with pytest.raises(ConfigError) as error:
        validate(RunConfig, {"output": ["x" * 500]}, Origins())
    assert len(str(error.value)) < 200


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"hidden_size": 10, "num_heads": 3}, "hidden_size 10 should be a multiple of num_heads 3"),
        ({"hidden_size": 6, "num_heads": 2}, "even head width"),
    ],
)
def test_values_that_do_not_fit_together_are_refused_at_their_section(
    values: dict[str, int], message: str
) -> None:
    with pytest.raises(ConfigError) as error:
        validate(
            ModelConfig,
            {"num_layers": 1, "intermediate_size": 8, "positions": "rotary", **values},
            Origins({"model": "run.yaml:2"}),
            "model",
        )
    assert str(error.value).startswith("run.yaml:2: model: ")
    assert message in str(error.value)
    assert len(str(error.value).splitlines()) == 1
    assert len(str(error.value)) < 200


@pytest.mark.parametrize(
    ("section", "path", "key"),
    [(CheckpointConfig, "checkpoint", "copy_to"), (BranchConfig, "branch", "run")],
)
def test_a_place_has_a_name(section: type[Section], path: str, key: str) -> None:
    with pytest.raises(ConfigError, match=rf"^{path}.{key}: .* at least 1 character"):
        validate(section, {key: ""}, Origins(), path)
