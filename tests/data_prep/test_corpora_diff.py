import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from prep_corpora import Made, make_corpus, make_texts, run, tokenizer_model

from data_prep.corpora.differing import ROW, Differences, MatchBy, compare, differing_documents
from data_prep.corpora.reading import Corpus
from data_prep.corpora.rearranging import Sizes, reshard_corpus
from data_prep.execution import LocalExecutor

DOCUMENT = st.tuples(
    st.integers(0, 4), st.integers(0, 2), st.integers(-1, 1), st.integers(0, 1)
)  # key, text, label, split
DOCUMENTS = st.lists(DOCUMENT, max_size=14)


def rows(documents: list[tuple[int, int, int, int]]) -> NDArray[Any]:
    made = np.zeros(len(documents), dtype=ROW)
    for number, (key, text, label, split) in enumerate(documents):
        # Halves that only differ together: a comparison of one half must not be enough.
        made[number] = (key // 2, key % 2, text // 2, text % 2, 10 * number, label, split)
    return made


def brute_force(a: list[tuple[int, ...]], b: list[tuple[int, ...]]) -> dict[str, Any]:
    """The definition: equal partners first, each with each; then what is left, key by key."""
    same = sum((Counter(a) & Counter(b)).values())
    left: list[list[int]] = []
    for one, other in ((a, b), (b, a)):
        twins = Counter(other)
        places = []
        for place, document in enumerate(one):
            if twins[document]:
                twins[document] -= 1
            else:
                places.append(place)
        left.append(places)
    found: dict[str, Any] = {name: [] for name in ("changed", "moved", "relabeled")}
    only_a = []
    for place in left[0]:
        partner = next((other for other in left[1] if b[other][0] == a[place][0]), None)
        if partner is None:
            only_a.append(10 * place)
            continue
        left[1].remove(partner)
        for index, name in ((1, "changed"), (2, "relabeled"), (3, "moved")):
            if a[place][index] != b[partner][index]:
                found[name].append([10 * place, 10 * partner])
    only_b = [10 * place for place in left[1]]
    return {"only_a": only_a, "only_b": only_b, **found, "same": same}


@given(DOCUMENTS, DOCUMENTS)
@settings(max_examples=300)
def test_compare_is_the_definition(
    a: list[tuple[int, int, int, int]], b: list[tuple[int, int, int, int]]
) -> None:
    found = compare(rows(a), rows(b))
    told = {kind: numbers.tolist() for kind, numbers in found.kinds().items()}
    assert {**told, "same": found.same} == brute_force(a, b)


def differences(
    folder: Path, a: list[Made], b: list[Made], by: MatchBy, **of_b: Any
) -> Differences:
    make_corpus(folder / "a", a)
    make_corpus(folder / "b", b, block_tokens=33, **of_b)
    return differing_documents(Corpus(folder / "a"), Corpus(folder / "b"), by)


def edited(texts: list[Made]) -> list[Made]:
    """Document 11 gone, 15 with another text, 20 moved, 25 relabeled, and a new one last."""
    found = {one.number: one for one in texts}
    del found[11]
    found[15] = replace(found[15], text="Other words. 别的话。")
    found[20] = replace(found[20], split="valid")
    found[25] = replace(found[25], label="english")
    last = replace(texts[-1], number=99, text="New. 新的。", id="new", split="train")
    return [*found.values(), last]


def told(found: Differences) -> dict[str, list[Any]]:
    return {kind: numbers.tolist() for kind, numbers in found.kinds().items()}


def test_documents_matched_by_id(tmp_path: Path) -> None:
    texts = make_texts(40)
    found = differences(tmp_path, texts, edited(texts), "id")
    assert told(found) == {
        "only_a": [11],
        "only_b": [99],
        "changed": [[15, 15]],
        "moved": [[20, 20]],
        "relabeled": [[25, 25]],
    }
    assert found.same == len(texts) - 4


def test_documents_matched_by_text_and_number(tmp_path: Path) -> None:
    texts = make_texts(40)
    by_text = differences(tmp_path / "text", texts, edited(texts), "text")
    assert told(by_text)["only_a"] == [11, 15]
    assert told(by_text)["only_b"] == [15, 99]
    assert told(by_text)["changed"] == []
    assert told(by_text)["moved"] == [[20, 20]]
    by_number = differences(tmp_path / "number", texts, edited(texts), "number")
    assert told(by_number)["changed"] == [[15, 15]]
    assert told(by_number)["only_b"] == [99]


def test_other_tokenizers_are_compared_by_text(tmp_path: Path) -> None:
    texts = make_texts(40)
    found = differences(tmp_path, texts, edited(texts), "id", model=tokenizer_model(3, 380))
    assert told(found)["changed"] == [[15, 15]]
    assert told(found)["only_b"] == [99]


def test_documents_without_an_id_are_matched_by_text(tmp_path: Path) -> None:
    texts = [replace(one, id="") for one in make_texts(40)]
    shuffled = [
        replace(one, number=number)
        for number, one in enumerate(sorted(texts, key=lambda one: one.text))
    ]
    found = differences(tmp_path, texts, shuffled, "id")
    assert not found
    assert found.same == len(texts)


def test_command_tells_and_ends_with_code_1(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    texts = make_texts(40)
    make_corpus(tmp_path / "a", texts, seed=1)
    make_corpus(tmp_path / "b", edited(texts), seed=2)
    done = run(capfd, "diff", tmp_path / "a", tmp_path / "b", "--text")
    assert (done.code, done.err) == (1, "")
    assert "seed: 1 in A, 2 in B" in done.out
    assert "matched by id, compared by tokens" in done.out
    assert "    +Other words. 别的话。" in done.out
    assert "A 20, id id-20 “文”, train" in done.out
    assert "→ B 20, id id-20 “文”, valid" in done.out
    summary = json.loads(run(capfd, "diff", tmp_path / "a", tmp_path / "b", "--json").out)
    assert (summary["changed"], summary["moved"], summary["relabeled"]) == (1, 1, 1)
    assert summary["documents"]["only_b"][0]["b"]["id"] == "new"
    few = run(capfd, "diff", tmp_path / "a", tmp_path / "b", "--limit", 0).out
    assert "and 1 more" in few


def test_command_on_equal_documents(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    make_corpus(tmp_path / "a", make_texts(20))
    with LocalExecutor(1, 60.0) as executor:
        reshard_corpus(tmp_path / "a", tmp_path / "b", Sizes(1, 10**6), executor)
    done = run(capfd, "diff", tmp_path / "a", tmp_path / "a")
    assert (done.code, done.out) == (0, "identical: same fingerprint\n")
    done = run(capfd, "diff", tmp_path / "a", tmp_path / "b")
    assert done.code == 0
    assert "block_tokens: 60 in A, 1 in B" in done.out
    assert "17 documents are the same" in done.out


def test_ids_that_are_not_kept(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    make_corpus(tmp_path / "a", make_texts(20))
    make_corpus(tmp_path / "b", make_texts(20), ids=False)
    done = run(capfd, "diff", tmp_path / "a", tmp_path / "b", "--by", "id")
    assert done.code == 2
    assert "b: keeps no ids; compare with --by text or number" in done.err
    assert run(capfd, "diff", tmp_path / "a", tmp_path / "b").code == 0
    assert run(capfd, "diff", tmp_path / "a", tmp_path / "none").code == 2
