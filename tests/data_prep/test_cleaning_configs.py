"""The shipped configs and the docs."""

import doctest
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from prep_cleaning import ADAPTER, CHINESE, ENGLISH, kept, removed

from data_prep.cleaning import STEPS, Cleaner

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs" / "cleaning.md"
PROSE = {"en": ENGLISH, "zh": CHINESE}
OTHER = {"en": CHINESE, "zh": ENGLISH}


def config(language: str) -> dict[str, Any]:
    content = yaml.safe_load((ROOT / f"configs/prep/web-{language}.yaml").read_text("utf-8"))
    assert isinstance(content, dict)
    return content


def shipped(language: str) -> Cleaner:
    return Cleaner(ADAPTER.validate_python(config(language)["cleaning"]))


@pytest.mark.parametrize("language", PROSE)
def test_shipped_configs_hold_cleaning_and_deduplication_only(language: str) -> None:
    content = config(language)
    assert list(content) == ["cleaning", "deduplicate"]
    assert content["deduplicate"] == {"exact": True, "near": {}}


@pytest.mark.parametrize("language", PROSE)
def test_prose_is_kept_whole(language: str) -> None:
    tidy = re.sub("^\u3000+", "", PROSE[language], flags=re.MULTILINE).strip("\n")
    assert kept(shipped(language).clean(PROSE[language])).text == tidy


@pytest.mark.parametrize("language", PROSE)
def test_rubbish_in_prose_is_dropped(language: str) -> None:
    made = shipped(language)
    prose = kept(made.clean(PROSE[language])).text
    menu = {
        "en": "Home | About | Contact\nRead more...\nShare\n",
        "zh": "首页 | 新闻 | 关于我们\n阅读全文\n上一篇\n",
    }[language]
    assert kept(made.clean(menu + prose + "\r\n\ufeff" + menu)).text == prose


RUBBISH = {
    "en": {
        "too little": "Buy now. It is cheap.",
        "menu": "\n".join(["Home", "Products", "About us", "Contact", "Sign in"] * 20),
        "keywords": "cheap shoes buy shoes best shoes sale shoes online store outlet. " * 30,
        "numbers": "\n".join(f"{n} {n * n} {n**3} {n**4} {n**5} items." for n in range(60)),
        "lorem": "Lorem ipsum dolor sit amet is that what we have to be with. " * 9,
        "bullets": "\n".join(
            f"- the point of number {n} is that we have to be {n}." for n in range(40)
        ),
    },
    "zh": {
        "too little": "点击这里下载。",
        "menu": "\n".join(["首页", "新闻中心", "产品展示", "关于我们", "联系方式"] * 20),
        "spam": "加微信领取优惠券，数量有限，先到先得，赶快行动起来吧！\n" * 40,
        "names": "\n".join(
            f"第{n}章{n * 7919}、{n * 104729}、{n * 1299709}，{n**5}。" for n in range(60)
        ),
        "copies": ("今天天气很好，我们一起去公园里散步，看见了很多美丽的花。" * 30),
    },
}


@pytest.mark.parametrize(
    ("language", "kind"), [(language, kind) for language in RUBBISH for kind in RUBBISH[language]]
)
def test_planted_rubbish_is_removed(language: str, kind: str) -> None:
    removed(shipped(language).clean(RUBBISH[language][kind]))


@pytest.mark.parametrize("language", PROSE)
def test_prose_of_the_other_language_is_removed(language: str) -> None:
    removed(shipped(language).clean(OTHER[language]))


@pytest.mark.parametrize("language", PROSE)
def test_personal_data_is_masked(language: str) -> None:
    added = {"en": ' He said: "Write to ann@example.org or call +44 20 7946 0958."'}
    added["zh"] = "他说：“请写信到 ann@example.org 或者拨打 13812345678。”"
    text = kept(shipped(language).clean(PROSE[language].strip() + added[language])).text
    assert "[EMAIL]" in text
    assert "[PHONE]" in text


def documented(step: str) -> dict[str, str]:
    """Setting and default as the table of a step in the docs has them."""
    section = re.split(r"^## ", DOCS.read_text("utf-8"), flags=re.MULTILINE)
    [text] = [part for part in section if part.startswith(f"`{step}`\n")]
    rows = re.findall(r"^\| `(\w+)` \| (?:`(.+?)`)? ?\| .+ \|$", text, flags=re.MULTILINE)
    return dict(rows)


@pytest.mark.parametrize("step", STEPS)
def test_docs_agree_with_the_settings(step: str) -> None:
    fields = STEPS[step].model_fields
    table = documented(step)
    assert list(table) == list(fields)
    for name, default in table.items():
        if fields[name].is_required():
            assert default == ""
            continue
        wanted = fields[name].get_default()
        wanted = wanted.model_dump() if hasattr(wanted, "model_dump") else wanted
        found = yaml.safe_load(default)
        assert (tuple(found) if isinstance(found, list) else found) == wanted, name


def test_docs_name_every_step_once() -> None:
    sections = re.findall(r"^## `(\w+)`$", DOCS.read_text("utf-8"), flags=re.MULTILINE)
    assert sections == list(dict.fromkeys(sections))
    assert set(sections) == set(STEPS)


def test_the_example_in_the_docs_is_true() -> None:
    failed, tried = doctest.testfile(str(DOCS), module_relative=False, encoding="utf-8")
    assert tried > 5
    assert failed == 0
