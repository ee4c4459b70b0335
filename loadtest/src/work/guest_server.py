"""What a sandbox serves while it is under load: a pattern of bytes, and who it is.

usage: guest_server.py PORT TOKEN

ANY /?n=1024    n bytes, byte i is i modulo 251; the header x-loadtest-guest is TOKEN and the request's nonce

Raw protocols instead of a framework: what is measured is the way here, not this.
"""

import asyncio
import sys

PORT, TOKEN = int(sys.argv[1]), sys.argv[2]
PATTERN = bytes(i % 251 for i in range(251 * 64))
HEAD_MAX = 65536
KNOWN = {}


def body(count):
    """The pattern, made once for each length."""
    if count not in KNOWN:
        KNOWN[count] = (PATTERN * (count // len(PATTERN) + 1))[:count]
    return KNOWN[count]


class Server(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport = transport
        self.buffer = b""
        self.skip = 0  # bytes of a request's body that are still to come

    def data_received(self, data):
        if self.skip:
            taken = min(self.skip, len(data))
            self.skip -= taken
            data = data[taken:]
            if not self.skip:
                self.answer()
        self.buffer += data
        while not self.skip and b"\r\n\r\n" in self.buffer:
            head, self.buffer = self.buffer.split(b"\r\n\r\n", 1)
            self.request(head)
        if len(self.buffer) > HEAD_MAX:
            self.transport.abort()

    def request(self, head):
        line, *lines = head.split(b"\r\n")
        self.headers = {}
        for header in lines:
            name, _, value = header.partition(b":")
            self.headers[name.strip().lower()] = value.strip()
        self.target = line.split(b" ")[1]
        if b"chunked" in self.headers.get(b"transfer-encoding", b"").lower():
            self.transport.write(b"HTTP/1.1 411 Length Required\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            self.transport.close()
            return
        length = int(self.headers.get(b"content-length", b"0"))
        taken = min(length, len(self.buffer))
        self.buffer = self.buffer[taken:]
        self.skip = length - taken
        if not self.skip:
            self.answer()

    def answer(self):
        _, _, query = self.target.partition(b"?n=")
        data = body(int(query) if query.isdigit() else 0)
        nonce = self.headers.get(b"x-loadtest-nonce", b"").decode("latin-1")
        close = self.headers.get(b"connection", b"").lower() == b"close"
        head = (
            f"HTTP/1.1 200 OK\r\nContent-Length: {len(data)}\r\nx-loadtest-guest: {TOKEN} {nonce}\r\n"
            f"{'Connection: close' + chr(13) + chr(10) if close else ''}\r\n"
        )
        self.transport.write(head.encode("latin-1") + data)
        if close:
            self.transport.close()


async def main():
    server = await asyncio.get_running_loop().create_server(Server, "0.0.0.0", PORT, backlog=512)
    await server.serve_forever()


asyncio.run(main())
