"""Popular client libraries, each with a few plain tasks.

    libraries.py LIBRARY PORT HOST CA
"""

import asyncio
import ssl
import sys

LENGTH = 8 << 20


def check(condition, said):
    if not condition:
        raise SystemExit(f"wrong: {said}")


def curl_cffi():
    """libcurl with the TLS of browsers, over HTTP/2 and nothing but HTTP/3."""
    from curl_cffi import CurlHttpVersion, CurlOpt, requests

    resolve = {CurlOpt.RESOLVE: [f"{HOST}:{PORT}:127.0.0.1"]}
    for version, number in ((CurlHttpVersion.V2_0, 3), (CurlHttpVersion.V3ONLY, 30)):
        with requests.Session(verify=CA, http_version=version, curl_options=resolve) as session:
            answer = session.get(URL + "/hello", timeout=20)
            check((answer.status_code, answer.http_version) == (200, number), answer.http_version)
            check("<title>hello</title>" in answer.text, answer.text)
            answer = session.post(URL + "/echo", data=b"x" * 200_000, timeout=20)
            check(answer.content == b"x" * 200_000, len(answer.content))
            answer = session.get(URL + "/big", timeout=40)
            check(len(answer.content) == LENGTH, len(answer.content))
            answer = session.get(URL + "/nothing-here", timeout=20)
            check(answer.status_code == 404, answer.status_code)
        # As Chromium says hello, down to the order of extensions.
        if number == 3:
            answer = requests.get(
                URL + "/hello", verify=CA, impersonate="chrome", curl_options=resolve, timeout=20
            )
            check(answer.status_code == 200, answer.status_code)


def niquests():
    """Another HTTP/3 of its own (qh3)."""
    import niquests

    resolver = f"in-memory://default?hosts={HOST}:127.0.0.1"
    with niquests.Session(resolver=resolver) as session:
        session.quic_cache_layer.add_domain(HOST, PORT)
        answer = session.get(URL + "/hello", timeout=20, verify=CA)
        check((answer.status_code, answer.http_version) == (200, 30), answer.http_version)
        check("<title>hello</title>" in answer.text, answer.text)
        answer = session.post(URL + "/echo", data=b"x" * 200_000, timeout=20, verify=CA)
        check((answer.content, answer.http_version) == (b"x" * 200_000, 30), answer.http_version)
        answer = session.get(URL + "/big", timeout=40, verify=CA)
        check(len(answer.content) == LENGTH, len(answer.content))


def websockets():
    """A WebSocket over TLS and HTTP/1.1, compression offered."""
    from websockets.asyncio.client import connect

    async def talk():
        trust = ssl.create_default_context(cafile=CA)
        url = f"wss://{HOST}:{PORT}/ws"
        async with connect(url, ssl=trust, host="127.0.0.1", open_timeout=20) as socket:
            for message in ("hello", b"\0\1\2", "x" * 200_000, b"y" * 70_000, ""):
                await socket.send(message)
                check(await asyncio.wait_for(socket.recv(), 20) == message, message[:10])
            await (await socket.ping())
        check(socket.close_code == 1000, socket.close_code)

    asyncio.run(talk())


def grpc():
    """gRPC by its own library: one answer, several, none with a status."""
    import grpc as rpc

    with open(CA, "rb") as file:
        trust = rpc.ssl_channel_credentials(file.read())
    # Both names are the host's: the address is loopback's.
    options = [
        ("grpc.ssl_target_name_override", HOST),
        ("grpc.default_authority", f"{HOST}:{PORT}"),
        ("grpc.enable_http_proxy", 0),
    ]
    with rpc.secure_channel(f"127.0.0.1:{PORT}", trust, options) as channel:
        unary = channel.unary_unary("/test.Echo/Unary")
        for size in (0, 5, 300_000):
            check(unary(b"m" * size, timeout=20) == b"m" * size, size)
        answers = list(channel.unary_stream("/test.Echo/Stream")(b"again", timeout=20))
        check(answers == [b"again"] * 3, answers)
        try:
            channel.unary_unary("/test.Echo/Fail")(b"", timeout=20)
            check(False, "no status")
        except rpc.RpcError as error:
            check(error.code() == rpc.StatusCode.NOT_FOUND, error)
            check(error.details() == "no such method", error)
        # The gateway's own refusal is a status too.
        nobody = [(name, value) for name, value in options if "authority" not in name]
        nobody.append(("grpc.default_authority", f"gone.fn.wrenn.localhost:{PORT}"))
        with rpc.secure_channel(f"127.0.0.1:{PORT}", trust, nobody) as other:
            try:
                other.unary_unary("/test.Echo/Unary")(b"", timeout=20)
                check(False, "no status")
            except rpc.RpcError as error:
                print("refused with", error.code(), error.details())


def key_hash():
    """Prints what browsers know the edge's key by: the SHA-256 of its public half, base64."""
    import base64
    import hashlib
    import socket

    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
    from cryptography.x509 import load_der_x509_certificate

    trust = ssl.create_default_context(cafile=CA)
    with socket.create_connection(("127.0.0.1", PORT), timeout=20) as tcp:
        with trust.wrap_socket(tcp, server_hostname=HOST) as tls:
            certificate = load_der_x509_certificate(tls.getpeercert(binary_form=True))
    form = PublicFormat.SubjectPublicKeyInfo
    key = certificate.public_key().public_bytes(Encoding.DER, form)
    print(base64.b64encode(hashlib.sha256(key).digest()).decode())


if __name__ == "__main__":
    library, port, HOST, CA = sys.argv[1:]
    PORT = int(port)
    URL = f"https://{HOST}:{PORT}"
    globals()[library]()
