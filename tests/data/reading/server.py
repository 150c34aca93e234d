"""A web server over a folder that fails in every way that is asked for."""

from __future__ import annotations

import http.server
import threading
from collections import defaultdict, deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal


@dataclass(frozen=True)
class Fault:
    """What happens to one answer.

    `status`: the number is the answer's status. `stall`: so many bytes are sent, then nothing.
    `cut`: the connection is closed after so many bytes of those announced; after -1 there is no
    answer at all. `short`: only so many bytes are announced and sent. `long`: so many bytes more
    than the file has. `flip`: one bit of the byte at this place.
    """

    kind: Literal["status", "stall", "cut", "short", "long", "flip"]
    number: int


@dataclass
class FaultyServer:
    """Serves `folder`; each request for a file takes the first of its faults, if it has any."""

    folder: Path
    url: str = ""
    faults: dict[str, deque[Fault]] = field(default_factory=lambda: defaultdict(deque))
    always: dict[str, Fault] = field(default_factory=dict)
    """Faults that never end."""
    requests: list[str] = field(default_factory=list)
    """Names that were asked for, in order."""
    slow: float = 0.0
    """Seconds before each answer."""
    closing: threading.Event = field(default_factory=threading.Event)


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    faulty: FaultyServer

    def log_message(self, *_: object) -> None: ...

    def do_GET(self) -> None:
        name = self.path.partition("?")[0].rpartition("/")[2]
        self.faulty.requests.append(name)
        self.faulty.closing.wait(self.faulty.slow)
        queue = self.faulty.faults[name]
        fault = queue.popleft() if queue else self.faulty.always.get(name)
        path = self.faulty.folder / name
        if not path.exists():
            fault = Fault("status", 404)
        if fault and fault.kind == "status":
            self.send_response(fault.number)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self._answer(bytearray(path.read_bytes()), fault)

    def _answer(self, data: bytearray, fault: Fault | None) -> None:
        kind, number = (fault.kind, fault.number) if fault else ("", 0)
        if kind == "cut" and number < 0:
            self.close_connection = True
            return
        if kind == "flip":
            data[number] ^= 1
        elif kind == "short":
            data = data[:number]
        elif kind == "long":
            data += bytes(number)
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data[:number] if kind in ("cut", "stall") else data)
        if kind == "stall":
            self.faulty.closing.wait(60)
        if kind in ("cut", "stall"):
            self.close_connection = True


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """Clients that are killed or give up are what the tests are about."""


@contextmanager
def serve(folder: Path) -> Iterator[FaultyServer]:
    faulty = FaultyServer(folder)
    handler = type("Handler", (_Handler,), {"faulty": faulty})
    with _Server(("127.0.0.1", 0), handler) as server:
        faulty.url = f"http://127.0.0.1:{server.server_port}/corpus"
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        yield faulty
        faulty.closing.set()
        server.shutdown()
        thread.join(5)
