"""Requests without pause, until told to stop; then says how many there were.

    load.py PROTOCOL PORT HOST CA

PROTOCOL is h1, h2 or h3. It stops at SIGTERM and prints a line of JSON: `done`, `failed` (with the
first reasons), `connections` and `unsent` - requests whose connection ended before the edge can have
seen them, which every client sends again on the next one.
"""

import asyncio
import http.client
import json
import signal
import socket
import ssl
import sys

import h2.config
import h2.connection
import h2.events

WAIT = 20
BODY = b"x" * 2000
stopping = False
counts = {"done": 0, "failed": 0, "unsent": 0, "connections": 0, "reasons": []}


def stop(*_):
    global stopping
    stopping = True


def fail(reason):
    counts["failed"] += 1
    if len(counts["reasons"]) < 5:
        counts["reasons"].append(str(reason))


def trust(protocol):
    context = ssl.create_default_context(cafile=CA)
    context.set_alpn_protocols([protocol])
    return context


def dial(protocol):
    counts["connections"] += 1
    tcp = socket.create_connection(("127.0.0.1", PORT), timeout=WAIT)
    tcp.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return trust(protocol).wrap_socket(tcp, server_hostname=HOST)


def h1():
    connection, used = None, False
    while not stopping:
        try:
            if connection is None:
                connection, used = http.client.HTTPConnection(HOST, PORT), False
                connection.sock = dial("http/1.1")
            connection.request("POST", "/echo", BODY, {"host": f"{HOST}:{PORT}"})
            answer = connection.getresponse()
            body = answer.read()
            if (answer.status, body) == (200, BODY):
                counts["done"] += 1
            else:
                fail((answer.status, body[:200]))
            used = True
            if answer.will_close:
                connection.close()
                connection = None
        except (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError, ssl.SSLEOFError) as error:
            # Closed with no byte of an answer: RFC 9112, 9.3.1, if it was kept alive.
            if used:
                counts["unsent"] += 1
            else:
                fail(repr(error))
            connection = None
        except Exception as error:
            fail(repr(error))
            connection = None


def h2_connection():
    """One connection's life: five requests at a time."""
    states = h2.connection.ConnectionState
    tls = dial("h2")
    config = h2.config.H2Configuration(client_side=True, header_encoding="utf-8")
    http2 = h2.connection.H2Connection(config)
    # After a GOAWAY this library takes nothing more; the streams before it go on: RFC 9113, 6.8.
    machine = http2.state_machine
    goaway = (states.CLIENT_OPEN, h2.connection.ConnectionInputs.RECV_GOAWAY)
    machine._transitions = {**machine._transitions, goaway: (None, states.CLIENT_OPEN)}
    http2.initiate_connection()
    open_streams, last = {}, None
    fields = [
        (":method", "POST"),
        (":scheme", "https"),
        (":authority", f"{HOST}:{PORT}"),
        (":path", "/echo"),
    ]
    try:
        while open_streams or (last is None and not stopping):
            while len(open_streams) < 5 and last is None and not stopping:
                stream = http2.get_next_available_stream_id()
                http2.send_headers(stream, fields)
                http2.send_data(stream, BODY, end_stream=True)
                open_streams[stream] = [None, b""]
            tls.sendall(http2.data_to_send())
            data = tls.recv(65_536)
            if not data:
                raise ConnectionError("closed")
            for event in http2.receive_data(data):
                if isinstance(event, h2.events.ConnectionTerminated):
                    last = event.last_stream_id
                    for stream in [stream for stream in open_streams if stream > last]:
                        counts["unsent"] += 1
                        del open_streams[stream]
                else:
                    h2_event(http2, event, open_streams)
            tls.sendall(http2.data_to_send())
    except OSError as error:
        for stream in open_streams:
            fail(f"{error!r}, last {last}, stream {stream}")
    tls.close()


def h2_event(http2, event, open_streams):
    stream = getattr(event, "stream_id", None)
    request = open_streams.get(stream)
    if request is None:
        return
    if isinstance(event, h2.events.ResponseReceived):
        request[0] = dict(event.headers)[":status"]
    elif isinstance(event, h2.events.DataReceived):
        request[1] += event.data
        http2.acknowledge_received_data(event.flow_controlled_length, stream)
    elif isinstance(event, h2.events.StreamReset):
        del open_streams[stream]
        if event.error_code == 7:  # REFUSED_STREAM: not seen, RFC 9113, 8.7
            counts["unsent"] += 1
        else:
            fail(f"reset {event.error_code}")
    elif isinstance(event, h2.events.StreamEnded):
        del open_streams[stream]
        if request == ["200", BODY]:
            counts["done"] += 1
        else:
            fail((request[0], request[1][:200]))


def h2_load():
    while not stopping:
        h2_connection()


async def h3_connection():
    counts["connections"] += 1
    async with http3.dial() as client:
        async def one():
            while client.goaway is None and not client.closed and not stopping:
                stream = client.open(http3.head(b"POST", "/echo"), BODY)
                over = lambda: stream in client.ended or stream in client.resets or client.closed
                try:
                    await client.until("answer", over)
                except SystemExit as error:
                    return fail(error)
                answer = client.heads.pop(stream, {}).get(":status"), bytes(client.bodies.pop(stream, b""))
                if answer == ("200", BODY) and stream in client.ended:
                    counts["done"] += 1
                elif client.goaway is not None and stream >= client.goaway:
                    counts["unsent"] += 1
                elif client.resets.get(stream) == 0x10B:  # H3_REQUEST_REJECTED
                    counts["unsent"] += 1
                else:
                    fail((answer[0], client.resets.get(stream), client.closed, client.goaway))

        await asyncio.gather(*(one() for _ in range(5)))


async def h3_load():
    while not stopping:
        try:
            await h3_connection()
        except (ConnectionError, OSError) as error:
            fail(repr(error))


if __name__ == "__main__":
    protocol, port, HOST, CA = sys.argv[1:]
    PORT = int(port)
    signal.signal(signal.SIGTERM, stop)
    print("ready", flush=True)
    if protocol == "h3":
        import http3

        http3.PORT, http3.HOST, http3.CA = PORT, HOST, CA
        asyncio.run(h3_load())
    else:
        {"h1": h1, "h2": h2_load}[protocol]()
    print(json.dumps(counts), flush=True)
