"""A proxy before an S3 server that does to its traffic what networks and busy stores do.

    status     answers with an error instead of asking the server
    reset      resets the connection instead of answering
    cut-down   ends the connection in the middle of an answer's body
    cut-up     passes half of a request's body on, then resets both sides
    slow       passes an answer's body on at `rate` bytes a second
    flip       one bit of an answer's body is another
    flip-up    one bit of a request's body is another
    ack-lost   lets the server finish, then resets the connection

The first rule that fits a request is applied. It runs in a thread of its own and keeps a log of what
the server has answered.
"""

import asyncio
import contextlib
import random
import re
import socket
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

_ERROR = '<?xml version="1.0" encoding="UTF-8"?><Error><Code>{}</Code><Message>injected</Message></Error>'


@dataclass
class Rule:
    """kind: see above. methods, match: which requests, by method and a part of the path. share: of them."""

    kind: str
    share: float = 1.0
    methods: tuple[str, ...] = ()
    match: str = ""
    status: int = 503
    code: str = "SlowDown"
    rate: float = 100_000.0

    def fits(self, method: str, path: str, chance: random.Random) -> bool:
        wanted = (not self.methods or method in self.methods) and self.match in path
        return wanted and chance.random() < self.share


@dataclass(frozen=True)
class Request:
    """What the server answered to whom."""

    method: str
    path: str
    status: int


@dataclass
class Message:
    """Head lines and body of a request or an answer."""

    first: str
    headers: dict[str, str]
    body: bytes
    head: bytes = field(repr=False)


class FaultProxy:
    """Listens on `port`; `rules` and `away` (nobody answers) may be changed at any time.

    applied: how often a rule was, or a connection met nobody.
    """

    def __init__(self, upstream: int, seed: int = 0) -> None:
        self.upstream = upstream
        self.rules: list[Rule] = []
        self.away = False
        self.log: list[Request] = []
        self.applied = 0
        self.watchers: list[Callable[[Request], None]] = []
        self._chance = random.Random(seed)
        self._loop = asyncio.new_event_loop()
        listening = threading.Event()
        threading.Thread(target=self._serve, args=(listening,), name="fault proxy", daemon=True).start()
        listening.wait()

    def heal(self) -> None:
        """Nothing is done to the traffic any more."""
        self.rules, self.away, self.watchers = [], False, []

    def close(self) -> None:
        def stop() -> None:
            for task in asyncio.all_tasks(self._loop):
                task.cancel()
            self._loop.call_later(0.1, self._loop.stop)

        self._loop.call_soon_threadsafe(stop)

    def _serve(self, listening: threading.Event) -> None:
        async def start() -> asyncio.Server:
            return await asyncio.start_server(self._connection, "127.0.0.1", 0, limit=2**20, backlog=512)

        server = self._loop.run_until_complete(start())
        self.port: int = server.sockets[0].getsockname()[1]
        listening.set()
        self._loop.run_forever()

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, EOFError, asyncio.IncompleteReadError):
            while not self.away:
                request = await _read(reader, "request", None, writer)
                method, path, _ = request.first.split(" ", 2)
                rule = next((r for r in self.rules if r.fits(method, path, self._chance)), None)
                if self.away or not await self._answer(rule, method, path, request, writer):
                    break
        self.applied += self.away
        _reset(writer) if self.away else writer.close()

    async def _answer(
        self, rule: Rule | None, method: str, path: str, request: Message, writer: asyncio.StreamWriter
    ) -> bool:
        """False when the connection is over."""
        kind = rule.kind if rule else ""
        self.applied += rule is not None
        if rule and kind == "status":
            body = b"" if method == "HEAD" else _ERROR.format(rule.code).encode()
            length = f"Content-Type: application/xml\r\nContent-Length: {len(body)}\r\n\r\n"
            writer.write(f"HTTP/1.1 {rule.status} Injected\r\n{length}".encode() + body)
            await writer.drain()
            return True
        if kind == "reset":
            return _reset(writer)
        if kind == "flip-up":
            request.body = _flipped(request.body)
        answer = await self._ask(request, method, cut=kind == "cut-up")
        if answer is None or kind == "ack-lost":
            return _reset(writer)
        seen = Request(method, path, int(answer.first.split()[1]))
        self.log.append(seen)
        for watcher in list(self.watchers):
            watcher(seen)
        if kind == "flip":
            answer.body = _flipped(answer.body)
        writer.write(answer.head)
        if rule and kind == "slow":
            await _trickle(writer, answer.body, rule.rate)
        elif kind == "cut-down" and answer.body:
            writer.write(answer.body[: len(answer.body) // 2])
            await writer.drain()
            return False
        else:
            writer.write(answer.body)
        await writer.drain()
        return True

    async def _ask(self, request: Message, method: str, cut: bool) -> Message | None:
        """The server's answer over a connection of its own; None when the request was cut."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.upstream, limit=2**20)
        try:
            writer.write(request.head)
            if cut and request.body:
                writer.write(request.body[: len(request.body) // 2])
                await writer.drain()
                _reset(writer)
                return None
            writer.write(request.body)
            await writer.drain()
            return await _read(reader, "answer", method, None)
        finally:
            writer.close()


async def _read(
    reader: asyncio.StreamReader, what: str, method: str | None, expecting: asyncio.StreamWriter | None
) -> Message:
    head = await reader.readuntil(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines) if name}
    if what == "answer" and first.split()[1] == "100":
        return await _read(reader, what, method, None)
    if expecting is not None and "100-continue" in headers.get("expect", "").lower():
        expecting.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        head = re.sub(rb"(?i)\r\nexpect:[^\r]*", b"", head)
    if method == "HEAD" or (what == "answer" and first.split()[1] in ("204", "304")):
        return Message(first, headers, b"", head)
    if headers.get("transfer-encoding", "").lower() == "chunked":
        return Message(first, headers, await _chunks(reader), head)
    return Message(first, headers, await reader.readexactly(int(headers.get("content-length", 0))), head)


async def _chunks(reader: asyncio.StreamReader) -> bytes:
    """A chunked body as it stands, sizes and trailers included."""
    raw = b""
    while True:
        line = await reader.readuntil(b"\r\n")
        raw += line
        if size := int(line.split(b";")[0], 16):
            raw += await reader.readexactly(size + 2)
            continue
        while line != b"\r\n":
            line = await reader.readuntil(b"\r\n")
            raw += line
        return raw


def _flipped(body: bytes) -> bytes:
    middle = len(body) // 2
    return body[:middle] + bytes([body[middle] ^ 1]) + body[middle + 1 :] if body else body


async def _trickle(writer: asyncio.StreamWriter, body: bytes, rate: float) -> None:
    step = max(1, int(rate / 20))
    for start in range(0, len(body), step):
        writer.write(body[start : start + step])
        await writer.drain()
        await asyncio.sleep(0.05)


def _reset(writer: asyncio.StreamWriter) -> bool:
    """A TCP reset rather than an orderly end; False, as the connection is over."""
    connection = writer.get_extra_info("socket")
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
    return False
