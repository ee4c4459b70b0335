"""Clients that are slow on purpose, many at a time, each over a connection of its own.

    slow.py MODE PORT HOST CA

PORT is that of plain HTTP. Ends once the edge has closed every connection; prints how long it took.
Those of `read` take nothing of what they asked for, and stay until they are killed.
"""

import socket
import sys
import time

CONNECTIONS = 100
WAIT = 100


def dial():
    tcp = socket.socket()
    if MODE == "read":
        tcp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    tcp.connect(("127.0.0.1", PORT))
    tcp.setblocking(False)
    return tcp


# What is sent at first, and again and again.
MODES = {
    "head": (b"GET /hello HTTP/1.1\r\nhost: %b\r\n", b"x-more: 1\r\n"),
    "body": (b"POST /count HTTP/1.1\r\nhost: %b\r\ncontent-length: 1000000\r\n\r\n", b"x"),
    "read": (b"GET /big HTTP/1.1\r\nhost: %b\r\n\r\n", b""),
    "nothing": (b"", b""),
}


def main():
    first, more = MODES[MODE]
    begin = time.monotonic()
    waiting = [dial() for _ in range(CONNECTIONS)]
    for tcp in waiting:
        tcp.sendall(first.replace(b"%b", HOST.encode()))
    if MODE == "read":
        print("ready", flush=True)
        time.sleep(600)
    while waiting and time.monotonic() < begin + WAIT:
        time.sleep(1)
        waiting = [tcp for tcp in waiting if not over(tcp, more)]
    print(f"{len(waiting)} of {CONNECTIONS} open after {time.monotonic() - begin:.1f} s")
    if waiting:
        raise SystemExit("they were not closed")


def over(tcp, more):
    """Whether it was closed."""
    try:
        while tcp.recv(65_536):
            pass
        return True
    except BlockingIOError:
        pass
    except OSError:
        return True
    try:
        if more:
            tcp.sendall(more)
    except BlockingIOError:
        pass
    except OSError:
        return True
    return False


if __name__ == "__main__":
    MODE, port, HOST, CA = sys.argv[1:]
    PORT = int(port)
    main()
