"""Records of a JSON array: the bytes of each item, found without parsing the item.

The scanner looks only at quotes and brackets. So invalid JSON in one item does not affect the
others, and items are parsed in the same way as JSON lines. An event parser such as ijson finds
the items in half the time, but it stops at the first fault, because it does not know where the
next item begins. Memory is bounded by one item.
"""

import re
from collections.abc import Iterator
from typing import BinaryIO

from data_prep.inputs.opening import BUFFER_BYTES, BYTE_ORDER_MARK, open_file
from data_prep.inputs.places import Place
from data_prep.inputs.records import RECORD_BYTES, DocumentError, Record, Span, too_long

# What one match skips: everything except brackets, quotes and (between items) commas, and also
# short strings, which are mostly field names. For a longer string, a search for its closing quote
# is faster. The repetition is bounded because the regex engine stores state for each round.
_IN_ITEM = re.compile(rb'(?:[^]["{}]+|"[^"\\]{0,64}"){0,256}')
_BETWEEN_ITEMS = re.compile(rb'(?:[^]["{},]+|"[^"\\]{0,64}"){0,256}')


def read_items(span: Span) -> Iterator[Record]:
    """Yield each item of the file's array."""
    number = 1
    try:
        with open_file(span.file) as file:
            for item in _items(file):
                yield Record(Place(span.file, "item", number), item)
                number += 1
    except DocumentError as error:
        yield Record(Place(span.file, "item", number), error)


def _items(file: BinaryIO) -> Iterator[bytes]:
    scanner = _Scanner(file)
    scanner.begin()
    item, closing = scanner.item()
    if closing and not item:
        scanner.finish()
        return
    while True:
        yield item
        if closing:
            break
        item, closing = scanner.item()
    scanner.finish()


class _Scanner:
    """Cuts an array into items.

    In UTF-8, the bytes of characters beyond ASCII never equal those of quotes or brackets, so
    nothing is decoded.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._buffer = bytearray()
        self._at = 0  # everything before this offset was scanned

    def _read_more(self) -> bool:
        data = self._file.read1(BUFFER_BYTES)  # type: ignore[attr-defined]
        self._buffer += data
        return bool(data)

    def begin(self) -> None:
        """Skip the opening bracket.

        Raises:
            DocumentError: the file does not begin with one.
        """
        while not (head := self._buffer.removeprefix(BYTE_ORDER_MARK).lstrip()):
            if not self._read_more():
                raise DocumentError("json", "not a JSON array: the file is empty")
        if not head.startswith(b"["):
            raise DocumentError("json", "not a JSON array: it does not begin with [")
        self._buffer = head[1:]

    def item(self) -> tuple[bytes, bool]:
        """Return the next item, and whether the closing bracket (not a comma) follows it.

        Raises:
            DocumentError: the file ends inside the array, or the item is too long.
        """
        depth, quoted = 0, False
        while True:
            if quoted:
                quoted = not self._end_quote()
                more = quoted
            else:
                passed = (_IN_ITEM if depth else _BETWEEN_ITEMS).match(self._buffer, self._at)
                end = passed.end() if passed else self._at
                mark = bytes(self._buffer[end : end + 1])
                self._at = end + 1
                more = not mark
                if mark == b'"':
                    quoted = True
                elif mark in (b"[", b"{"):
                    depth += 1
                elif mark in (b"]", b"}") and depth:
                    depth -= 1
                elif mark in (b",", b"]") and not depth:
                    return self._take(), mark == b"]"
            if more:
                self._at = len(self._buffer)
                if self._at > RECORD_BYTES:
                    raise too_long("the last item read (is a quote or bracket missing?)")
                if not self._read_more():
                    raise DocumentError("truncated", "the file ends inside the array")

    def _end_quote(self) -> bool:
        """Skip to after the quote that ends a string; return False if it is not in the buffer."""
        while (quote := self._buffer.find(b'"', self._at)) >= 0:
            self._at = quote + 1
            before = quote - 1
            while self._buffer[before] == ord("\\"):  # stops at the opening quote at the latest
                before -= 1
            if (quote - before) % 2:
                return True
        return False

    def _take(self) -> bytes:
        item = bytes(self._buffer[: self._at - 1]).strip()
        del self._buffer[: self._at]
        self._at = 0
        return item

    def finish(self) -> None:
        """Read the rest of the file.

        Raises:
            DocumentError: more than white space follows the array.
        """
        while not self._buffer.strip():
            self._buffer.clear()
            if not self._read_more():
                return
        raise DocumentError("json", "more text after the end of the array")
