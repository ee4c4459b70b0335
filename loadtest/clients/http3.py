"""An HTTP/3 client that says what it is told to, well-formed or not.

    http3.py MODE PORT HOST CA

The modes are the functions below; each ends with an error if the edge did not do what it has to.
"""

import asyncio
import sys

from aioquic.asyncio.client import connect
from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.buffer import Buffer, BufferReadError, encode_uint_var
from aioquic.h3.connection import H3_ALPN, ErrorCode, FrameType, H3Connection, StreamType, encode_frame
from aioquic.h3.events import DataReceived, HeadersReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import (
    ConnectionTerminated,
    StopSendingReceived,
    StreamDataReceived,
    StreamReset,
)
from websockets.frames import Frame, Opcode

WAIT = 20


class Client(QuicConnectionProtocol):
    """Collects what comes, by stream."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.http = H3Connection(self._quic)
        self.heads, self.bodies, self.trailers = {}, {}, {}
        self.ended, self.resets = set(), {}
        self.closed = None
        # The stream of the last GOAWAY; the library says nothing of it.
        self.goaway = None
        self.uni = {}
        self.news = asyncio.Event()

    def quic_event_received(self, event):
        if isinstance(event, ConnectionTerminated):
            self.closed = event
        elif isinstance(event, (StreamReset, StopSendingReceived)):
            self.resets[event.stream_id] = event.error_code
        elif isinstance(event, StreamDataReceived) and event.stream_id % 4 == 3:
            self.uni[event.stream_id] = self.uni.get(event.stream_id, b"") + event.data
            self.control(Buffer(data=self.uni[event.stream_id]))
        for got in self.http.handle_event(event):
            self.http_event(got)
        self.news.set()

    def control(self, stream):
        """Looks through a control stream from its beginning: RFC 9114, 6.2.1."""
        try:
            if stream.pull_uint_var() != StreamType.CONTROL:
                return
            while not stream.eof():
                kind = stream.pull_uint_var()
                payload = stream.pull_bytes(stream.pull_uint_var())
                if kind == FrameType.GOAWAY:
                    self.goaway = Buffer(data=payload).pull_uint_var()
        except BufferReadError:
            pass  # the rest is to come

    def http_event(self, got):
        stream = got.stream_id
        if isinstance(got, HeadersReceived):
            fields = {name.decode(): value.decode() for name, value in got.headers}
            if stream in self.heads and ":status" not in fields:
                self.trailers[stream] = fields
            elif not fields.get(":status", "").startswith("1"):
                self.heads[stream] = fields
        elif isinstance(got, DataReceived):
            self.bodies.setdefault(stream, bytearray()).extend(got.data)
        if getattr(got, "stream_ended", False):
            self.ended.add(stream)

    async def until(self, what, seen):
        async def wait():
            while not seen():
                self.news.clear()
                await self.news.wait()

        try:
            await asyncio.wait_for(wait(), WAIT)
        except asyncio.TimeoutError:
            raise SystemExit(f"{what}: not within {WAIT} s; {self.resets} {self.closed}")

    def open(self, fields, body=b"", end=True):
        stream = self._quic.get_next_available_stream_id()
        self.http.send_headers(stream, fields, end_stream=end and not body)
        if body:
            self.http.send_data(stream, body, end_stream=end)
        self.transmit()
        return stream

    async def ask(self, path, method=b"GET", body=b"", fields=()):
        stream = self.open(head(method, path) + list(fields), body)
        await self.until(path, lambda: stream in self.ended or stream in self.resets or self.closed)
        if stream not in self.ended:
            raise SystemExit(f"{path}: {self.resets.get(stream)} {self.closed}")
        return int(self.heads[stream][":status"]), bytes(self.bodies.get(stream, b"")), stream


def head(method, path):
    return [
        (b":method", method),
        (b":scheme", b"https"),
        (b":authority", f"{HOST}:{PORT}".encode()),
        (b":path", path.encode()),
    ]


def dial():
    configuration = QuicConfiguration(alpn_protocols=H3_ALPN, is_client=True, server_name=HOST)
    configuration.load_verify_locations(CA)
    configuration.idle_timeout = WAIT
    return connect("127.0.0.1", PORT, configuration=configuration, create_protocol=Client)


def check(condition, said):
    if not condition:
        raise SystemExit(f"wrong: {said}")


async def requests():
    """Plain requests, bodies both ways, trailers, many at a time."""
    async with dial() as client:
        status, body, stream = await client.ask("/hello")
        check(status == 200 and b"<title>hello</title>" in body, (status, body))
        check("x-request-id" in client.heads[stream], client.heads[stream])
        status, body, _ = await client.ask("/echo", b"POST", b"x" * 300_000)
        check((status, len(body)) == (200, 300_000), (status, len(body)))
        status, body, stream = await client.ask("/trailers", fields=[(b"te", b"trailers")])
        check(client.trailers.get(stream, {}).get("x-sum") == "4", client.trailers)
        answers = await asyncio.gather(*(client.ask("/echo", b"POST", b"%d" % n) for n in range(60)))
        check([body for _, body, _ in answers] == [b"%d" % n for n in range(60)], "bodies mixed up")
        status, body, _ = await client.ask("/big")
        check(len(body) == 8 << 20, len(body))


async def websocket():
    """RFC 9220: a WebSocket in a stream, beside a plain request."""
    async with dial() as client:
        await client.ask("/hello")
        settings = client.http.received_settings
        check(settings and settings.get(8) == 1, f"no ENABLE_CONNECT_PROTOCOL: {settings}")
        fields = head(b"CONNECT", "/ws")
        fields.insert(1, (b":protocol", b"websocket"))
        fields.append((b"sec-websocket-version", b"13"))
        stream = client.open(fields, end=False)
        await client.until("head", lambda: stream in client.heads or stream in client.resets)
        check(client.heads.get(stream, {}).get(":status") == "200", (client.heads, client.resets))
        for text in (b"one", b"two" * 30):
            had = len(client.bodies.get(stream, b""))
            frame = Frame(Opcode.TEXT, text).serialize(mask=True)
            client.http.send_data(stream, frame, end_stream=False)
            client.transmit()
            echo = Frame(Opcode.TEXT, text).serialize(mask=False)
            await client.until("echo", lambda: len(client.bodies.get(stream, b"")) >= had + len(echo))
            check(client.bodies[stream][had:] == echo, client.bodies[stream])
        status, _, _ = await client.ask("/hello")
        check(status == 200, status)
        close = Frame(Opcode.CLOSE, (1000).to_bytes(2, "big")).serialize(mask=True)
        client.http.send_data(stream, close, end_stream=True)
        client.transmit()
        await client.until("end", lambda: stream in client.ended)


def raw(fields):
    """A HEADERS frame with these very fields: no check of ours is in the way. Without Huffman and
    table: RFC 9204, 4.5.6."""
    block = b"\0\0"
    for name, value in fields:
        block += prefixed(0x20, 3, len(name)) + name + prefixed(0, 7, len(value)) + value
    return encode_frame(FrameType.HEADERS, block)


def prefixed(first, bits, number):
    """An integer with a prefix: RFC 7541, 5.1."""
    most = (1 << bits) - 1
    if number < most:
        return bytes([first | number])
    out, number = [first | most], number - most
    while number >= 128:
        out.append(number % 128 | 128)
        number //= 128
    return bytes(out + [number])


MALFORMED = {
    "two paths": lambda h: h + [(b":path", b"/evil")],
    "two authorities": lambda h: h + [(b":authority", b"evil.example")],
    "no method": lambda h: h[1:],
    "no path": lambda h: h[:3],
    "empty path": lambda h: h[:3] + [(b":path", b"")],
    "pseudo after regular": lambda h: h[:3] + [(b"a", b"b"), h[3]],
    "status in a request": lambda h: h + [(b":status", b"200")],
    "unknown pseudo": lambda h: h + [(b":evil", b"1")],
    "upper case": lambda h: h + [(b"X-Evil", b"1")],
    "line break": lambda h: h + [(b"a", b"b\r\nevil: 1")],
    "zero byte": lambda h: h + [(b"a", b"b\0c")],
    "connection": lambda h: h + [(b"connection", b"close")],
    "transfer-encoding": lambda h: h + [(b"transfer-encoding", b"chunked")],
    "te": lambda h: h + [(b"te", b"gzip")],
    "other host": lambda h: h + [(b"host", b"evil.example")],
    "two lengths": lambda h: h + [(b"content-length", b"1"), (b"content-length", b"2")],
}


async def malformed():
    """Each is refused, by H3_MESSAGE_ERROR or 400, and hurts no other request."""
    for name, spoil in MALFORMED.items():
        async with dial() as client:
            stream = client._quic.get_next_available_stream_id()
            client._quic.send_stream_data(stream, raw(spoil(head(b"GET", "/hello"))), end_stream=True)
            client.transmit()
            await client.until(name, lambda: stream in client.resets or stream in client.ended or client.closed)
            status = client.heads.get(stream, {}).get(":status")
            reset = client.resets.get(stream)
            check(status in ("400", None) and not client.closed, f"{name}: {status} {client.closed}")
            check(status or reset == ErrorCode.H3_MESSAGE_ERROR, f"{name}: reset {reset}")
            status, _, _ = await client.ask("/hello")
            check(status == 200, f"{name}: the connection is of no use any more: {status}")
            print(name, "refused")


async def giants():
    """Frames that announce a gigabyte: refused or skipped, never kept."""
    for name, kind in (("HEADERS", FrameType.HEADERS), ("reserved", 0x21 + 0x1F * 5)):
        async with dial() as client:
            stream = client._quic.get_next_available_stream_id()
            begin = encode_uint_var(kind) + encode_uint_var(1 << 30)
            client._quic.send_stream_data(stream, begin)
            sent = 0
            while sent < 96 << 20 and stream not in client.resets and not client.closed:
                client._quic.send_stream_data(stream, bytes(1 << 20))
                client.transmit()
                sent += 1 << 20
                # The window is the edge's: wait until most of it was taken.
                for _ in range(200):
                    sending = client._quic._streams.get(stream)
                    taken = sending is None or len(sending.sender._buffer) < 1 << 20
                    if taken or stream in client.resets or client.closed:
                        break
                    await asyncio.sleep(0.01)
                else:
                    break
            print(name, "sent", sent, client.resets.get(stream), client.closed, flush=True)


async def goaway():
    """Says `ready`, and ends when the edge says GOAWAY and has answered what was under way."""
    async with dial() as client:
        await client.ask("/hello")
        slow = asyncio.ensure_future(client.ask("/drip?20"))
        await client.until("first line", lambda: any(b"line 0" in b for b in client.bodies.values()))
        print("ready", flush=True)
        await client.until("GOAWAY", lambda: client.goaway is not None)
        status, body, _ = await slow
        check(status == 200 and body.count(b"line") == 20, (status, body))
        await client.until("close", lambda: client.closed)
        check(client.closed.error_code == ErrorCode.H3_NO_ERROR, client.closed)
        print("told", client.goaway)


async def killed():
    """Says `ready`, and ends once it is noticed that the edge is gone without a word."""
    async with dial() as client:
        await client.ask("/hello")
        print("ready", flush=True)
        loop = asyncio.get_running_loop()
        begin = loop.time()
        while not client.closed and loop.time() < begin + 2 * WAIT:
            # Something to send, so that the new process has something to answer.
            client._quic.send_ping(uid=int(loop.time() * 1000))
            client.transmit()
            await asyncio.sleep(0.1)
        check(client.closed, "it was never noticed")
        print(f"noticed {client.closed.reason_phrase!r} after {loop.time() - begin:.1f} s")


if __name__ == "__main__":
    mode, port, HOST, CA = sys.argv[1:]
    PORT = int(port)
    asyncio.run(globals()[mode]())
