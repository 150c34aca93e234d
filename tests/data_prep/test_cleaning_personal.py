"""Personal data: what is masked, and what only looks like it."""

from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prep_cleaning import CHINESE, ENGLISH, cleaner, kept, parse
from pydantic import ValidationError

from data_prep.cleaning.personal import RESERVED, Placeholders
from data_prep.cleaning.personal_numbers import length_of_card, length_of_chinese_id
from data_prep.tokenizers.base import (
    INFILLING_PIECES,
    MODE_PIECES,
    SPECIAL_PIECES,
    sentinel_piece,
)

MASKED = [
    ("email", "ann.lee+news@mail.example.co.uk"),
    ("email", "a@b.cn"),
    ("phone", "+44 20 7946 0958"),
    ("phone", "+8613812345678"),
    ("phone", "+1 (555) 234-5678"),
    ("phone", "13812345678"),
    ("phone", "138 1234 5678"),
    ("phone", "139-1234-5678"),
    ("phone", "010-12345678"),
    ("phone", "0755-1234567"),
    ("phone", "555-234-5678"),
    ("phone", "(555) 234-5678"),
    ("ip", "8.8.8.8"),
    ("ip", "203.0.112.255"),
    ("ip", "2001:4860:4860::8888"),
    ("chinese_id", "11010519491231002X"),
    ("chinese_id", "11010519491231002x"),
    ("us_ssn", "219-09-9999"),
    ("credit_card", "4111111111111111"),
    ("credit_card", "4111 1111 1111 1111"),
    ("credit_card", "3782-822463-10005"),
    ("credit_card", "6222021234567890128"),
]
AROUND = ["{}", "Mail {} now.", "请联系：{}。", "请联系{}，谢谢", "({})", "a\n{}\nb", "{}, {}"]


@pytest.mark.parametrize("around", AROUND)
@pytest.mark.parametrize(("kind", "found"), MASKED)
def test_masked(kind: str, found: str, around: str) -> None:
    outcome = kept(cleaner("personal_data").clean(around.replace("{}", found)))
    assert outcome.text == around.replace("{}", f"[{kind.upper()}]")
    assert outcome.changes == {f"personal_data.{kind}": around.count("{}")}


@pytest.mark.parametrize(("kind", "found"), MASKED)
def test_each_kind_can_be_switched_off(kind: str, found: str) -> None:
    others = {name: name == kind for name in Placeholders.model_fields}
    assert kept(cleaner("personal_data", **others).clean(found)).text == f"[{kind.upper()}]"
    outcome = kept(cleaner("personal_data", **{kind: False}).clean(found))
    assert f"[{kind.upper()}]" not in outcome.text


@pytest.mark.parametrize(
    "text",
    [
        "me @ home, a@b, @handle, x@y.1",
        "In 2024-11-22 at 10:30, 1,234,567 people and 3.14159265358979 of them",
        "ISBN 978-3-16-148410-0, 12345678, 1732233600, 1732233600000",
        "192.168.1.1 10.0.0.1 127.0.0.1 172.16.0.1 169.254.0.1 203.0.113.5 224.0.0.1 0.0.0.0",
        "1.2.3 v1.2.3.4 1.2.3.4.5 256.1.1.1 999.999.999.999",
        "2001:db8::1 fe80::1 10:30:45 2024:11:22 C++:: ::1",
        "110105194912310021 11010519491331002X 110105194902310020",
        "000-12-3456 666-12-3456 900-12-3456 123-00-4567 123-45-0000",
        "4111111111111112 1234567812345670 41111111111111111111",
        "+1 2 +12345 C++ 1+1=2 +44",
        "12812345678 138123456789 0.13812345678 x13812345678",
        "155-234-5678 555-134-5678 555-234-56789",
        ENGLISH,
        CHINESE,
    ],
)
def test_left_alone(text: str) -> None:
    assert kept(cleaner("personal_data").clean(text)).text == text


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("+44 20 7946 0958 2021 was", "[PHONE] 2021 was"),
        ("4111 1111 1111 1111 2024", "[CREDIT_CARD] 2024"),
        ("2001:4860::8888: host", "[IP]: host"),
        ("13812345678/13912345678", "[PHONE]/[PHONE]"),
        ("a@b.org;c@d.org", "[EMAIL];[EMAIL]"),
        ("a@b.org_c@d.org", "[EMAIL]_[EMAIL]"),
        ("+10000000+10000000", "[PHONE][PHONE]"),
        ("2345 4111 1111 1111 1111", "2345 [CREDIT_CARD]"),
        ("身份证11010519491231002X电话13812345678", "身份证[CHINESE_ID]电话[PHONE]"),
    ],
)
def test_only_the_number_is_masked(text: str, wanted: str) -> None:
    assert kept(cleaner("personal_data").clean(text)).text == wanted


@given(st.dates(date(1900, 1, 1), date(2099, 12, 31)), st.integers(0, 999))
def test_one_check_character_is_right(born: date, serial: int) -> None:
    body = f"110105{born:%Y%m%d}{serial:03}"
    assert sum(length_of_chinese_id(body + check) == 18 for check in "0123456789X") == 1


@given(st.integers(0, 10**14 - 1))
def test_one_check_digit_is_right(number: int) -> None:
    assert sum(length_of_card(f"4{number:014}{digit}") == 16 for digit in range(10)) == 1


def test_own_placeholders() -> None:
    made = cleaner("personal_data", placeholders={"email": "｟邮箱｠", "phone": ""})
    assert kept(made.clean("a@b.org, 13812345678, 8.8.8.8")).text == "｟邮箱｠, , [IP]"


@pytest.mark.parametrize(
    "placeholder", ["[MASK]", "<extra_id_0>", "x [SEP]", "<s>", "tel1", "a@b", "\n"]
)
def test_bad_placeholders_are_refused(placeholder: str) -> None:
    with pytest.raises(ValidationError):
        parse({"personal_data": {"placeholders": {"email": placeholder}}})


def test_reserved_pieces_of_the_tokenizer_are_known() -> None:
    for piece in (*SPECIAL_PIECES, *MODE_PIECES, *INFILLING_PIECES, sentinel_piece(7)):
        assert RESERVED.fullmatch(piece), piece
    for placeholder in Placeholders().model_dump().values():
        assert not RESERVED.search(placeholder)
