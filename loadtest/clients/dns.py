"""A resolver for which every name has the address of loopback.

    dns.py PORT    0 takes a free one; says `listens at PORT`
"""

import socket
import sys

TYPE_A = 1


def answer(query):
    """RFC 1035, section 4: the header, the question again, and an address if one was asked for."""
    end = query.index(b"\0", 12) + 5
    question = query[12:end]
    kind = int.from_bytes(question[-4:-2], "big")
    records = b""
    if kind == TYPE_A:
        records = b"\xc0\x0c\0\x01\0\x01\0\0\0\x01\0\x04\x7f\0\0\x01"
    counts = b"\0\x01" + (b"\0\x01" if records else b"\0\0") + b"\0\0\0\0"
    return query[:2] + b"\x84\0" + counts + question + records


if __name__ == "__main__":
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.bind(("127.0.0.1", int(sys.argv[1])))
    print("listens at", udp.getsockname()[1], flush=True)
    while True:
        query, sender = udp.recvfrom(1500)
        udp.sendto(answer(query), sender)
