"""Two stages of the matrix: a run resumed at another stage continues as the unbroken one."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import pytest

from benchmarks.resume_matrix import measure


@pytest.mark.slow
def test_the_matrix_of_two_stages(corpus_folder: Path, tmp_path: Path) -> None:
    layouts = [(0, 1), (2, 1)]
    found = measure(corpus_folder, tmp_path, layouts)
    assert found.keys() == set(product(layouts, repeat=2))
    assert found[layouts[0], layouts[0]] == 0.0
    assert max(found.values()) < 1e-5
