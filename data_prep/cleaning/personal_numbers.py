"""Patterns of personal data, and the checks that distinguish them from other numbers.

Every pattern begins with a plain character or class, which the regex engine finds fast, and
looks back from there. Repetitions are bounded and separated, so that matching takes linear time
on every text.
"""

import re
from datetime import date
from ipaddress import AddressValueError, IPv4Address, IPv4Network, IPv6Address

EMAIL = re.compile(
    r"[A-Za-z0-9_%+](?<![A-Za-z0-9.\-].)[A-Za-z0-9._%+\-]{0,63}"  # RFC 5321, 4.5.3.1.1
    r"@[A-Za-z0-9\-]{1,63}(?:\.[A-Za-z0-9\-]{1,63}){0,8}\.[A-Za-z]{2,24}(?![A-Za-z0-9])"
)
INTERNATIONAL = re.compile(
    r"\+(?<![A-Za-z+]\+)[1-9][0-9]{0,14}(?:(?:[ .\-]| ?\(|\)[ .\-]?)[0-9]{1,14}){0,6}(?![0-9])"
)
CHINESE_MOBILE = re.compile(r"1(?<![0-9A-Za-z.]1)[3-9][0-9](?:[ \-]?[0-9]{4}){2}(?![0-9A-Za-z])")
CHINESE_LANDLINE = re.compile(
    r"0(?<![0-9A-Za-z.\-]0)(?:10|2[0-9]|[3-9][0-9]{2})-[0-9]{7,8}(?![0-9A-Za-z\-])"
)
NORTH_AMERICAN = re.compile(
    r"[2-9(](?:(?<=\()[2-9][0-9]{2}\) ?|(?<![0-9A-Za-z.].)(?<!\()[0-9]{2}[.\-])"
    r"[2-9][0-9]{2}[.\-][0-9]{4}(?![0-9A-Za-z\-])"
)
IPV4 = re.compile(r"[1-9](?<![0-9A-Za-z.].)[0-9]{0,2}(?:\.[0-9]{1,3}){3}(?![0-9A-Za-z]|\.[0-9])")
IPV6 = re.compile(
    r"[23](?<![0-9A-Za-z:.].)[0-9A-Fa-f]{3}:[0-9A-Fa-f:]{1,33}[0-9A-Fa-f:](?![0-9A-Za-z])"
)
CHINESE_ID = re.compile(r"[1-9](?<![0-9A-Za-z].)[0-9]{16}[0-9Xx](?![0-9A-Za-z])")
US_SSN = re.compile(r"[0-8](?<![0-9A-Za-z\-].)[0-9]{2}-[0-9]{2}-[0-9]{4}(?![0-9A-Za-z\-])")
CARD = re.compile(
    r"[2-6](?<![0-9A-Za-z.].)(?:(?<=[346])[0-9]|(?<=5)[1-5]|(?<=2)[2-7])[0-9]{2}"
    r"(?:[ \-]?[0-9]){9,15}(?![0-9A-Za-z])"
)

# Addresses of no machine on the public internet (IANA's special-purpose registry, RFC 6890).
_NOT_PUBLIC = [
    IPv4Network(network)
    for network in (
        *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16"),
        *("172.16.0.0/12", "192.0.0.0/24", "192.0.2.0/24", "192.168.0.0/16", "198.18.0.0/15"),
        *("198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/3"),
    )
]
# Lengths and first digits of the networks (ISO/IEC 7812): Visa; Mastercard; American Express;
# Diners; JCB; Discover and UnionPay.
_NETWORKS = re.compile(
    r"""
      4 (?: \d{12} | \d{15} | \d{18} )
    | 5[1-5]\d{14} | 2(?:22[1-9]|2[3-9]\d|[3-6]\d\d|7[01]\d|720)\d{12}
    | 3[47]\d{13}
    | 3(?:0[0-5]|[689]\d)\d{11}
    | 35(?:2[89]|[3-8]\d)\d{12,15}
    | 6(?:011|4[4-9]\d|5\d\d|2\d\d)\d{12,15}
    """,
    re.VERBOSE,
)
_SEPARATORS = str.maketrans("", "", " .-()+")
_LAST_GROUP = re.compile(r"[ .\-()]+[0-9]+\Z")


def length_of_international(found: str) -> int:
    """Return how much of "+49 30 1234567 2019" is a number of 8 to 15 digits (ITU-T E.164)."""
    while len(found.translate(_SEPARATORS)) > 15:
        shorter = _LAST_GROUP.sub("", found)
        if shorter == found:
            return 0
        found = shorter
    return len(found) if len(found.translate(_SEPARATORS)) >= 8 else 0


def length_of_ipv4(found: str) -> int:
    """Return the whole length for a public address, else 0."""
    try:
        address = IPv4Address(found)
    except AddressValueError:
        return 0
    return 0 if any(address in network for network in _NOT_PUBLIC) else len(found)


def length_of_ipv6(found: str) -> int:
    """Return the length, without a final colon, of a global unicast address (RFC 4291), else 0."""
    if found.endswith(":") and not found.endswith("::"):
        found = found[:-1]
    try:
        address = IPv6Address(found)
    except AddressValueError:
        return 0
    return 0 if str(address).startswith("2001:db8:") else len(found)  # RFC 3849: documentation


def length_of_chinese_id(found: str) -> int:
    """Return the length if birth date and check character are valid (GB 11643-1999), else 0."""
    try:
        born = date(int(found[6:10]), int(found[10:12]), int(found[12:14]))
    except ValueError:
        return 0
    total = sum(int(digit) * pow(2, 17 - place, 11) for place, digit in enumerate(found[:17]))
    valid = 1800 <= born.year < 2100 and "10X98765432"[total % 11] == found[17].upper()
    return len(found) if valid else 0


def length_of_ssn(found: str) -> int:
    """Return the length for a valid number (US Social Security Administration), else 0."""
    area, group, serial = found.split("-")
    return 0 if area in ("000", "666") or group == "00" or serial == "0000" else len(found)


def length_of_card(found: str) -> int:
    """Return the length of the longest prefix that is a card number with a valid check digit."""
    while True:
        digits = found.translate(_SEPARATORS)
        if _NETWORKS.fullmatch(digits) and _luhn(digits):
            return len(found)
        shorter = _LAST_GROUP.sub("", found)
        if shorter == found:
            return 0
        found = shorter


def _luhn(digits: str) -> bool:
    """Return whether the check digit is valid (ISO/IEC 7812-1, annex B)."""
    doubled = (str(2 * int(digit)) for digit in digits[-2::-2])
    total = sum(map(int, digits[::-2])) + sum(int(digit) for pair in doubled for digit in pair)
    return total % 10 == 0
