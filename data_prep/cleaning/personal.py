"""The step that replaces personal data by placeholders."""

import re
from collections import Counter
from collections.abc import Callable
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, field_validator, model_validator
from pydantic_core import PydanticCustomError

from data_prep.cleaning import personal_numbers as numbers
from data_prep.cleaning.outcome import Rule, StepSettings, check_names

# Pieces that tokenizers reserve: "[MASK]", "[unused1]", "<extra_id_0>", "<s>", "<|endoftext|>".
RESERVED = re.compile(
    r"\[(?:PAD|UNK|BOS|EOS|CLS|SEP|MASK|NLU|NLG|S2S|PRE|SUF|MID|unused\d+)\]|<[^<>\s]*>"
)

# Returns how many characters at the beginning of a match are personal data; 0 if none are.
_Check = Callable[[str], int]

# In the order in which they run: the longest and strictest first. Each pattern has a sign, and
# runs only on texts that contain it.
_KINDS: dict[str, list[tuple[str, re.Pattern[str], _Check]]] = {
    "email": [("@", numbers.EMAIL, len)],
    "chinese_id": [("", numbers.CHINESE_ID, numbers.length_of_chinese_id)],
    "credit_card": [("", numbers.CARD, numbers.length_of_card)],
    "us_ssn": [("-", numbers.US_SSN, numbers.length_of_ssn)],
    "ip": [
        (".", numbers.IPV4, numbers.length_of_ipv4),
        (":", numbers.IPV6, numbers.length_of_ipv6),
    ],
    "phone": [
        ("+", numbers.INTERNATIONAL, numbers.length_of_international),
        ("", numbers.CHINESE_MOBILE, len),
        ("-", numbers.CHINESE_LANDLINE, len),
        ("", numbers.NORTH_AMERICAN, len),
    ],
}


class Placeholders(BaseModel):
    """The placeholder of each kind of personal data."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    email: str = "[EMAIL]"
    phone: str = "[PHONE]"
    ip: str = "[IP]"
    chinese_id: str = "[CHINESE_ID]"
    us_ssn: str = "[US_SSN]"
    credit_card: str = "[CREDIT_CARD]"

    @model_validator(mode="before")
    @classmethod
    def _check_names(cls, values: Any) -> Any:
        return check_names(cls, values)

    @field_validator("*")
    @classmethod
    def _check_placeholder(cls, placeholder: str) -> str:
        if RESERVED.search(placeholder):
            raise PydanticCustomError("reserved", "tokenizers reserve this piece; choose another")
        if re.search(r"[\d@+\n]", placeholder):
            message = "a placeholder must not contain a digit, @, + or newline: it could be masked"
            raise PydanticCustomError("placeholder", message)
        return placeholder


class PersonalData(StepSettings):
    """Replace personal data by placeholders; false keeps a kind.

    A number that is written without any mark (a bank account, a phone number of seven digits)
    cannot be distinguished from other numbers and is kept.
    """

    name: ClassVar[str] = "personal_data"

    email: bool = True
    """E-mail addresses."""
    phone: bool = True
    """Numbers with "+" and a country code (ITU-T E.164), Chinese mobile numbers, Chinese landline
    numbers with an area code, North American numbers."""
    ip: bool = True
    """IPv4 and IPv6 addresses of the public internet."""
    chinese_id: bool = True
    """Chinese resident identity numbers of 18 characters whose date and check character are valid
    (GB 11643-1999)."""
    us_ssn: bool = True
    """US social security numbers written with hyphens."""
    credit_card: bool = True
    """Card numbers of the large networks whose check digit is valid (Luhn, ISO/IEC 7812-1)."""
    placeholders: Placeholders = Placeholders()
    """The placeholder of each kind."""

    @model_validator(mode="after")
    def _check(self) -> "PersonalData":
        if not any(getattr(self, kind) for kind in _KINDS):
            raise PydanticCustomError("no_rule", "every kind is off; remove the step")
        return self

    def rule(self) -> Rule:
        """Return the rule; it counts the masked places by kind, as personal_data.email, ..."""
        masks = [
            (f"{self.name}.{kind}", sign, _masker(pattern, check, getattr(self.placeholders, kind)))
            for kind, patterns in _KINDS.items()
            if getattr(self, kind)
            for sign, pattern, check in patterns
        ]

        def apply(text: str, changes: Counter[str]) -> str:
            for kind, sign, mask in masks:
                if sign in text:
                    text, found = mask(text)
                    changes[kind] += found
            return text

        return apply


def _masker(
    pattern: re.Pattern[str], check: _Check, placeholder: str
) -> Callable[[str], tuple[str, int]]:
    def apply(text: str) -> tuple[str, int]:
        parts, end = [], 0
        match = pattern.search(text)
        while match:
            length = check(match[0])
            if length:
                parts += [text[end : match.start()], placeholder]
                end = match.start() + length
            # Personal data may begin later inside a match that is not personal data itself.
            match = pattern.search(text, match.start() + max(length, 1))
        return "".join([*parts, text[end:]]), len(parts) // 2

    return apply
