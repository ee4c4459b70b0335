#!/usr/bin/env python3
"""Says which machine answered: a counter, a value of the kernel's random generator, the clock, the host name.

GET /healthz   readiness; doesn't count
any other path the JSON object {"counter", "uuid", "time", "sandbox"}, and "nonce" if the header X-Loadtest-Nonce brought one
"""

import json
import os
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

RANDOM_UUID = "/proc/sys/kernel/random/uuid"


class Counter:
    """Counts the requests of this process."""

    def __init__(self):
        self._lock = threading.Lock()
        self._value = 0

    def next(self):
        with self._lock:
            self._value += 1
            return self._value


COUNTER = Counter()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1  # one packet for head and body
    timeout = 60

    def do_GET(self):
        if self.path.split("?")[0] == "/healthz":
            self.answer(b'{"ready":true}\n')
            return
        with open(RANDOM_UUID, encoding="ascii") as file:
            uuid = file.read().strip()
        answer = {
            "counter": COUNTER.next(),
            "uuid": uuid,
            "time": time.time(),
            "sandbox": socket.gethostname(),
        }
        nonce = self.headers.get("X-Loadtest-Nonce")
        if nonce:  # a load test checks that each answer is the one to its own request
            answer["nonce"] = nonce
        self.answer(json.dumps(answer).encode() + b"\n")

    def do_HEAD(self):
        self.do_GET()

    def do_POST(self):
        # The body has to be read, or the next request of this connection would start in it.
        length = int(self.headers.get("Content-Length") or 0)
        while length > 0:
            chunk = self.rfile.read(min(length, 65536))
            if not chunk:
                break
            length -= len(chunk)
        if self.headers.get("Transfer-Encoding"):
            self.close_connection = True
        self.do_GET()

    do_PUT = do_PATCH = do_DELETE = do_POST

    def answer(self, body):
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
        self.wfile.flush()

    def log_message(self, *_):
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128


if __name__ == "__main__":
    server = Server(("0.0.0.0", int(os.environ.get("PORT", "8000"))), Handler)
    print(f"listening on port {server.server_port}", flush=True)
    server.serve_forever()
