#!/usr/bin/env python3
"""Echoes requests and streams.

ANY  /                      {"method", "path", "query", "headers": [[name, value]...], "body", "body_base64", "body_bytes"}
GET  /stream?n=5&delay_ms=100   n lines in chunked encoding, one chunk each, delay_ms apart
GET  /sse?n=5&delay_ms=100      n server-sent events
GET  /bytes?n=1048576           n bytes of a pattern (byte i is i mod 251) with a Content-Length
POST /upload                {"bytes", "sha256"} of a body of any size, Content-Length or chunked
GET  /ws                    WebSocket (RFC 6455): text and binary messages come back; see websocket.py
GET  /healthz               readiness
"""

import base64
import hashlib
import json
import os
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import websocket

ECHO_BODY_MAX = 8 << 20
CHUNK = 65536
PATTERN = bytes(i % 251 for i in range(251 * 256))


class BadRequest(Exception):
    """The request can't be answered; the text says why."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1  # flushed where something should leave
    timeout = 300

    def handle_any(self):
        url = urlsplit(self.path)
        self.query = parse_qs(url.query)
        routes = {
            "/stream": self.stream,
            "/sse": self.events,
            "/bytes": self.bytes,
            "/upload": self.upload,
            "/ws": self.websocket,
            "/healthz": lambda: self.answer({"ready": True}),
        }
        try:
            routes.get(url.path, lambda: self.echo(url))()
        except BadRequest as error:
            self.close_connection = True  # its body may still be on the way
            self.answer({"error": str(error)}, status=400)
        self.wfile.flush()

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = handle_any

    def echo(self, url):
        body = bytearray()
        for chunk in self.body():
            body += chunk
            if len(body) > ECHO_BODY_MAX:
                raise BadRequest(f"more than {ECHO_BODY_MAX} bytes to echo")
        self.answer(
            {
                "method": self.command,
                "path": url.path,
                "query": url.query,
                "headers": self.headers.items(),
                "body": body.decode(errors="replace"),
                "body_base64": base64.b64encode(body).decode(),
                "body_bytes": len(body),
            }
        )

    def upload(self):
        digest, length = hashlib.sha256(), 0
        for chunk in self.body():
            digest.update(chunk)
            length += len(chunk)
        self.answer({"bytes": length, "sha256": digest.hexdigest()})

    def stream(self):
        ticks = self.ticks()
        self.start("text/plain; charset=utf-8")
        for index in ticks:
            self.chunk(f"chunk {index}\n".encode())
        self.chunk(b"")

    def events(self):
        ticks = self.ticks()
        self.start("text/event-stream")
        for index in ticks:
            data = json.dumps({"index": index, "time": time.time()})
            self.chunk(f"id: {index}\nevent: tick\ndata: {data}\n\n".encode())
        self.chunk(b"")

    def bytes(self):
        left = self.number("n", 1 << 20, most=1 << 40)
        self.send_response(200)
        self.send_header("Content-Type", "application/octet-stream")
        self.send_header("Content-Length", str(left))
        self.end_headers()
        if self.command == "HEAD":
            return
        pattern = memoryview(PATTERN)
        while left > 0:
            left -= self.wfile.write(pattern[: min(left, len(pattern))])

    def websocket(self):
        key = self.headers.get("Sec-WebSocket-Key")
        if self.headers.get("Upgrade", "").lower() != "websocket" or not key:
            raise BadRequest("expected a WebSocket handshake")
        self.send_response(101)
        self.send_header("Upgrade", "websocket")
        self.send_header("Connection", "Upgrade")
        self.send_header("Sec-WebSocket-Accept", websocket.accept_key(key))
        self.end_headers()
        self.wfile.flush()
        self.close_connection = True
        websocket.echo(self.rfile, self.wfile)

    def body(self):
        """Yields the request's body as it comes."""
        if "chunked" in self.headers.get("Transfer-Encoding", "").lower():
            yield from self.chunked_body()
            return
        left = self.headers.get("Content-Length") or "0"
        if not left.isdigit():
            raise BadRequest("Content-Length is not a number")
        left = int(left)
        while left > 0:
            chunk = self.rfile.read1(min(left, CHUNK))
            if not chunk:
                raise BadRequest("the body ended early")
            left -= len(chunk)
            yield chunk

    def chunked_body(self):
        while True:
            size = self.rfile.readline(64).split(b";")[0].strip()
            try:
                left = int(size, 16)
            except ValueError:
                raise BadRequest("a chunk has no size") from None
            if left == 0:
                break
            while left > 0:
                chunk = self.rfile.read1(min(left, CHUNK))
                if not chunk:
                    raise BadRequest("a chunk ended early")
                left -= len(chunk)
                yield chunk
            self.rfile.readline(8)
        while self.rfile.readline(CHUNK) not in (b"\r\n", b"\n", b""):
            pass  # trailers

    def start(self, content_type):
        self.send_response(200)
        self.send_header("Content-Type", content_type)
        self.send_header("Cache-Control", "no-cache")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.wfile.flush()

    def chunk(self, data):
        if self.command != "HEAD":
            self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
            self.wfile.flush()

    def ticks(self):
        """Counts to `n`, waiting `delay_ms` between two. The query is checked before the answer starts."""
        number = self.number("n", 5, most=1_000_000)
        delay = self.number("delay_ms", 100, most=60_000) / 1000

        def count():
            for index in range(number):
                if index and delay:
                    time.sleep(delay)
                yield index

        return count()

    def number(self, name, default, most):
        text = self.query.get(name, [str(default)])[0]
        if not (text.isascii() and text.isdigit()) or int(text) > most:
            raise BadRequest(f"{name} is not a number up to {most}")
        return int(text)

    def answer(self, value, status=200):
        body = json.dumps(value).encode() + b"\n"
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_):
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request, client_address):
        pass  # a client that went away


if __name__ == "__main__":
    server = Server(("0.0.0.0", int(os.environ.get("PORT", "8000"))), Handler)
    print(f"listening on port {server.server_port}", flush=True)
    server.serve_forever()
