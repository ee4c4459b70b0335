"""The server's half of RFC 6455, as far as an echo needs it: no extensions, no subprotocols."""

import base64
import hashlib
import struct

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
MESSAGE_MAX = 16 << 20
NORMAL, PROTOCOL_ERROR, BAD_TEXT, TOO_BIG = 1000, 1002, 1007, 1009


class Close(Exception):
    """Ends the connection with this status code."""

    def __init__(self, code):
        super().__init__(code)
        self.code = code


def accept_key(key):
    """The value of Sec-WebSocket-Accept for the client's key."""
    return base64.b64encode(hashlib.sha1(key.strip().encode() + GUID).digest()).decode()


def echo(reader, writer):
    """Sends every message back until the client closes, then closes too."""
    try:
        while True:
            kind, message = read_message(reader, writer)
            write_frame(writer, kind, message)
    except Close as close:
        write_frame(writer, CLOSE, struct.pack("!H", close.code))
    except EOFError:
        pass


def read_message(reader, writer):
    """Joins the fragments of one message; answers pings on the way."""
    kind, message = None, bytearray()
    while True:
        final, opcode, payload = read_frame(reader, MESSAGE_MAX - len(message))
        if opcode == PING:
            write_frame(writer, PONG, payload)
        elif opcode == CLOSE:
            raise Close(struct.unpack("!H", payload[:2])[0] if len(payload) >= 2 else NORMAL)
        elif opcode == PONG:
            pass
        elif opcode in (TEXT, BINARY) and kind is None or opcode == CONTINUATION and kind is not None:
            kind = opcode if kind is None else kind
            message += payload
            if final:
                return kind, check_text(kind, bytes(message))
        else:
            raise Close(PROTOCOL_ERROR)


def check_text(kind, message):
    try:
        if kind == TEXT:
            message.decode()
    except UnicodeDecodeError:
        raise Close(BAD_TEXT) from None
    return message


def read_frame(reader, room):
    """One frame as (final, opcode, payload). Clients must mask; control frames are short and whole."""
    first, second = read_exactly(reader, 2)
    final, opcode, length = bool(first & 0x80), first & 0x0F, second & 0x7F
    if first & 0x70 or not second & 0x80 or opcode & 0x8 and (not final or length > 125):
        raise Close(PROTOCOL_ERROR)
    if length == 126:
        (length,) = struct.unpack("!H", read_exactly(reader, 2))
    elif length == 127:
        (length,) = struct.unpack("!Q", read_exactly(reader, 8))
    if length > room and not opcode & 0x8:
        raise Close(TOO_BIG)
    mask = read_exactly(reader, 4)
    return final, opcode, unmask(read_exactly(reader, length), mask)


def unmask(payload, mask):
    """XORs the payload with the repeated mask: as two long numbers, because a loop over bytes would be slow."""
    length = len(payload)
    repeated = (mask * (length // 4 + 1))[:length]
    number = int.from_bytes(payload, "big") ^ int.from_bytes(repeated, "big")
    return number.to_bytes(length, "big")


def write_frame(writer, opcode, payload):
    """One final frame, unmasked as servers send them."""
    length = len(payload)
    if length < 126:
        head = struct.pack("!BB", 0x80 | opcode, length)
    elif length < 65536:
        head = struct.pack("!BBH", 0x80 | opcode, 126, length)
    else:
        head = struct.pack("!BBQ", 0x80 | opcode, 127, length)
    writer.write(head)
    writer.write(payload)
    writer.flush()


def read_exactly(reader, length):
    data = reader.read(length)
    if len(data) < length:
        raise EOFError
    return data
