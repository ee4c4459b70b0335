"""What an HTTP/2 client does that means harm. Each flood goes on until the edge ends the connection.

    floods.py MODE PORT HOST CA

Prints how it was ended; an error if it wasn't within the time.
"""

import socket
import ssl
import struct
import sys
import time

import hpack
import hyperframe.frame as frames

WAIT = 40
# Most that one flood sends: far more than any limit.
SENT_MAX = 256 << 20


def dial():
    trust = ssl.create_default_context(cafile=CA)
    trust.set_alpn_protocols(["h2"])
    tcp = socket.create_connection(("127.0.0.1", PORT), timeout=WAIT)
    tls = trust.wrap_socket(tcp, server_hostname=HOST)
    assert tls.selected_alpn_protocol() == "h2"
    tls.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frames.SettingsFrame(0).serialize())
    return tls


def head(path, extra=()):
    fields = [
        (":method", "POST"),
        (":scheme", "https"),
        (":authority", f"{HOST}:{PORT}"),
        (":path", path),
    ]
    return hpack.Encoder().encode(fields + list(extra))


def open_stream(stream, path="/echo", end=False):
    flags = ["END_HEADERS"] + (["END_STREAM"] if end else [])
    return frames.HeadersFrame(stream, data=head(path), flags=flags).serialize()


def rapid_reset():
    stream = 1
    while True:
        batch = b""
        for _ in range(100):
            batch += open_stream(stream) + frames.RstStreamFrame(stream, error_code=8).serialize()
            stream += 2
        yield batch


def continuation():
    yield frames.HeadersFrame(1, data=head("/echo")).serialize()
    while True:
        # A field for each frame, never the last one.
        field = hpack.Encoder().encode([("x-more", "v" * 200)])
        yield frames.ContinuationFrame(1, data=field).serialize() * 50


def empty_continuation():
    yield frames.HeadersFrame(1, data=head("/echo")).serialize()
    while True:
        yield frames.ContinuationFrame(1, data=b"").serialize() * 500


def settings():
    while True:
        yield frames.SettingsFrame(0, settings={4: 65_535}).serialize() * 500


def ping():
    while True:
        yield frames.PingFrame(0, opaque_data=b"\0" * 8).serialize() * 500


def tiny_data():
    yield open_stream(1)
    while True:
        yield frames.DataFrame(1, data=b"").serialize() * 500


def priority():
    while True:
        yield frames.PriorityFrame(1, depends_on=3, stream_weight=4).serialize() * 500


def window():
    # A window beyond 2^31 - 1.
    while True:
        yield frames.WindowUpdateFrame(0, window_increment=0x7FFF_FFFF).serialize() * 10


def flood(batches):
    """Sends until it can't; reads all the while if the flood is one that asks for answers."""
    tls = dial()
    got, sent, begin, over = b"", 0, time.monotonic(), None
    tls.settimeout(0.05)
    while over is None and time.monotonic() < begin + WAIT and sent < SENT_MAX:
        try:
            batch = next(batches)
            tls.settimeout(5)
            tls.sendall(batch)
            sent += len(batch)
        except TimeoutError:
            over = "no longer read"
        except OSError as error:
            over = f"closed ({type(error).__name__})"
        try:
            tls.settimeout(0.001)
            more = tls.recv(65_536)
            over = over or (None if more else "closed")
            got += more
        except (TimeoutError, ssl.SSLWantReadError):
            pass
        except OSError as error:
            over = over or f"closed ({type(error).__name__})"
    try: # What was said before the end.
        tls.settimeout(2)
        while more := tls.recv(65_536):
            got += more
    except OSError:
        pass
    tls.close()
    print(f"sent {sent} bytes in {time.monotonic() - begin:.1f} s: {over}; {goaway(got)}")
    if over is None:
        raise SystemExit("it went on and on")


def goaway(got):
    while len(got) >= 9:
        length, kind = int.from_bytes(got[:3], "big"), got[3]
        if kind == frames.GoAwayFrame.type and len(got) >= 9 + length:
            last, code = struct.unpack(">LL", got[9:17])
            return f"GOAWAY {code}"
        got = got[9 + length :]
    return "no GOAWAY seen"


def unread():
    """Asks for much and reads none of it; the edge has to give up on it or keep it small."""
    tls = dial()
    tls.sendall(frames.SettingsFrame(0, settings={4: 0x7FFF_FFFF}).serialize())
    tls.sendall(frames.WindowUpdateFrame(0, window_increment=0x7FFF_0000).serialize())
    for stream in range(1, 120, 2):
        tls.sendall(open_stream(stream, "/big", end=True))
    time.sleep(4)
    print("ready", flush=True)
    time.sleep(600)


def plain():
    """One request, as a client that means well makes it."""
    tls = dial()
    tls.sendall(open_stream(1, "/hello", end=True))
    decoder, got = hpack.Decoder(), b""
    while True:
        while len(got) >= 9 and len(got) >= 9 + int.from_bytes(got[:3], "big"):
            length, kind = int.from_bytes(got[:3], "big"), got[3]
            if kind == frames.HeadersFrame.type:
                status = dict(decoder.decode(got[9 : 9 + length]))[":status"]
                if status != "200":
                    raise SystemExit(f"answered {status}")
                return
            got = got[9 + length :]
        more = tls.recv(65_536)
        if not more:
            raise SystemExit("closed without an answer")
        got += more


if __name__ == "__main__":
    mode, port, HOST, CA = sys.argv[1:]
    PORT = int(port)
    if mode in ("unread", "plain"):
        globals()[mode]()
    else:
        flood(globals()[mode]())
