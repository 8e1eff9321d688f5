"""Garbage in: a clear refusal, no harm to anybody else."""
import asyncio
import base64
import os
import time

import frames
import web
from case import Skip, case, equal
from frames import BINARY, CLOSE, CONTINUATION, PING, TEXT
from web import Raw
from witness import undisturbed
from ws import accept_of, handshake

KEY = "dGhlIHNhbXBsZSBub25jZQ=="


def test_requests_that_are_none(t):
    server = t.server(workers=2)
    with undisturbed(t, server):
        for data, status in [
            (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + os.urandom(200), 400),  # TLS
            (b"\x00" * 100, 400),
            (b"SSH-2.0-OpenSSH_9.2\r\n", 400),
            (b"GET /healthz\r\n\r\n", 400),
            (b"GET /healthz HTTP/2.0\r\nHost: x\r\n\r\n", 505),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", None),
            (b"GET /healthz HTTP/1.1\r\n\r\n", 400),
            (b"GET /healthz HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
            (b"GET /healthz HTTP/1.1\r\nHost: a b\r\n\r\n", 400),
            (b"GET /healthz HTTP/1.1\nHost: x\n\n", 400),
            (b"GET /healthz HTTP/1.1\r\nHost : x\r\n\r\n", 400),
            (b"GET /healthz HTTP/1.1\r\nHost: x\r\n folded\r\n\r\n", 400),
            (b"GET /healthz HTTP/1.1\r\nHost: x\r\nA: \x01\r\n\r\n", 400),
            (b"GET /healthz HTTP/1.1\r\nHost: x\r\nA: b\rc\r\n\r\n", 400),
            (b"GET  /healthz HTTP/1.1\r\nHost: x\r\n\r\n", 400),
            (b"GET /heal thz HTTP/1.1\r\nHost: x\r\n\r\n", 400),
            (b"GET /\xc5\xbe HTTP/1.1\r\nHost: x\r\n\r\n", 400),
            (b"GET healthz HTTP/1.1\r\nHost: x\r\n\r\n", 400),
            (b"G@T /healthz HTTP/1.1\r\nHost: x\r\n\r\n", 400),
            (b"POST /publish/x HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", 400),
            (b"POST /publish/x HTTP/1.1\r\nHost: x\r\nContent-Length: 1x\r\n\r\n", 400),
            (b"POST /publish/x HTTP/1.1\r\nHost: x\r\n"
             b"Content-Length: 99999999999999999999999\r\n\r\n", 400),
            (b"POST /publish/x HTTP/1.1\r\nHost: x\r\n"
             b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
            (b"POST /publish/x HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n"
             b"Transfer-Encoding: chunked\r\n\r\n", 400),
            (b"POST /publish/x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n", 501),
            (b"GET /" + b"x" * 9000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 414),
            (b"GET /healthz HTTP/1.1\r\nHost: x\r\nA: " + b"x" * 20000 + b"\r\n\r\n", 431),
            (b"GET /healthz HTTP/1.1\r\nHost: x\r\n" + b"A: b\r\n" * 200 + b"\r\n", 431),
            (b"x" * 20000, 414),
        ]:
            response = web.raw_request(server.address, data)
            if status:
                assert response is not None, "no answer to %r" % data[:60]
                equal(response.status, status, repr(data[:60]))
                equal(response.headers["connection"], "close")
                assert response.json["detail"], response


def test_random_garbage(t):
    server = t.server(workers=2)
    good = b"POST /publish/x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhello" \
           b"GET /sse/x?since=oldest HTTP/1.1\r\nHost: localhost\r\nLast-Event-ID: l1.2\r\n\r\n"
    with undisturbed(t, server):
        for i in range(300 if not t.long else 20000):
            data = bytearray(good if i % 3 else t.random.randbytes(t.random.randrange(1, 400)))
            for _ in range(t.random.randrange(1, 6)):
                data[t.random.randrange(len(data))] = t.random.randrange(256)
            with Raw(server.address) as raw:
                raw.send(bytes(data[:t.random.randrange(1, len(data) + 1)]))


def test_half_requests(t):
    """Connections that end in the middle, and that stay silent, take nothing along."""
    server = t.server(workers=2)
    with undisturbed(t, server):
        whole = b"POST /publish/x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\nhello"
        for n in range(0, len(whole), 5):
            with Raw(server.address) as raw:
                raw.send(whole[:n])
        silent = [Raw(server.address) for _ in range(50)]
        for raw in silent[::2]:
            raw.send(b"GET /sse/x")
        equal(server.get("/history/x").json["events"], [])
        for raw in silent:
            raw.socket.close()
    server.wait_for_metric('fanwire_connections{transport="http"}', lambda n: n <= 1)


def test_slow_heads(t):
    """A head must be whole within --head-timeout, however busily it trickles."""
    server = t.server("memory:", "--head-timeout", "500ms", workers=1)
    with undisturbed(t, server):
        for first in (b"", b"G", b"GET /healthz HTTP/1.1\r\n"):
            started = time.monotonic()
            with Raw(server.address) as raw:
                raw.send(first)
                raw.rest()
            assert 0.4 < time.monotonic() - started < 3, time.monotonic() - started
        started = time.monotonic()
        with Raw(server.address) as raw:
            raw.socket.settimeout(0.1)
            raw.send(b"GET /healthz HTTP/1.1\r\n")
            ended = False
            while not ended and time.monotonic() - started < 5:
                raw.send(b"A: b\r\n")
                try:
                    ended = not raw.fill()
                except TimeoutError:
                    pass
            assert ended, "trickling bytes keeps a connection alive"
            assert time.monotonic() - started < 3, time.monotonic() - started


def test_upgrades_that_are_none(t):
    server = t.server(workers=2)
    good = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": KEY, "Host": "localhost"}

    def upgrade(method="GET", version="1.1", **changed):
        fields = dict(good)
        for name, value in changed.items():
            name = name.replace("_", "-")
            fields.pop(name, None)
            if value is not None:
                fields[name] = value
        head = "%s /ws/x HTTP/%s\r\n" % (method, version)
        head += "".join("%s: %s\r\n" % pair for pair in fields.items()) + "\r\n"
        return web.raw_request(server.address, head.encode())
    with undisturbed(t, server):
        equal(upgrade().status, 101)
        equal(upgrade(Connection="keep-alive, Upgrade", Upgrade="WebSocket").status, 101)
        for version in ("8", "12", "14", "x", "", None):
            response = upgrade(Sec_WebSocket_Version=version)
            equal((response.status, response.headers["sec-websocket-version"]), (426, "13"))
        for key in ("", "short", KEY[:-1], KEY + "A", "!" * 24, None,
                    base64.b64encode(b"x" * 15).decode(), base64.b64encode(b"x" * 17).decode()):
            equal(upgrade(Sec_WebSocket_Key=key).status, 400, repr(key))
        equal(upgrade(Upgrade=None).status, 426)
        equal(upgrade(Upgrade="h2c").status, 426)
        equal(upgrade(Connection="close").status, 426)
        equal(upgrade(version="1.0").status, 426)
        assert upgrade(method="POST").status in (411, 426)
        equal(server.get("/ws/x").status, 426)


def test_frames_that_are_wrong(t):
    """Each ends with the code of RFC 6455."""
    server = t.server("memory:", "--echo", workers=2)
    e = frames.encode
    cases = [
        ("unmasked", e(TEXT, b"hello", masked=False), 1002),
        ("reserved bit 1", e(TEXT, b"hello", rsv=4), 1002),
        ("reserved bit 2", e(TEXT, b"hello", rsv=2), 1002),
        ("reserved bit 3", e(PING, b"", rsv=1), 1002),
        ("reserved opcode 3", e(3, b""), 1002),
        ("reserved opcode 7", e(7, b""), 1002),
        ("reserved opcode 11", e(11, b""), 1002),
        ("reserved opcode 15", e(15, b""), 1002),
        ("fragmented ping", e(PING, b"", fin=False), 1002),
        ("ping of 126 bytes", e(PING, b"x" * 126), 1002),
        ("close of 1 byte", e(CLOSE, b"x"), 1002),
        ("close code 999", e(CLOSE, frames.close_payload(999)), 1002),
        ("close code 1005", e(CLOSE, frames.close_payload(1005)), 1002),
        ("close code 1006", e(CLOSE, frames.close_payload(1006)), 1002),
        ("close code 5000", e(CLOSE, frames.close_payload(5000)), 1002),
        ("close reason not UTF-8", e(CLOSE, frames.close_payload(1000) + b"\xff"), 1007),
        ("continuation of nothing", e(CONTINUATION, b"x"), 1002),
        ("text inside a message", e(TEXT, b"a", fin=False) + e(TEXT, b"b"), 1002),
        ("not UTF-8", e(TEXT, b"\xff\xfe"), 1007),
        ("surrogate", e(TEXT, b"\xed\xa0\x80"), 1007),
        ("over-long", e(TEXT, b"\xc0\xaf"), 1007),
        ("cut UTF-8", e(TEXT, b"\xc5"), 1007),
        ("not UTF-8 in a fragment", e(TEXT, b"ok", fin=False) + e(CONTINUATION, b"\xff"), 1007),
        ("not UTF-8 in a first fragment", e(TEXT, b"\xff", fin=False), 1007),
        ("65,537 bytes", e(TEXT, b"x" * 65537), 1009),
        ("claims a gigabyte", e(TEXT, b"x", length=1 << 30), 1009),
        ("claims 2^63", e(TEXT, b"x", length=1 << 63), (1002, 1009)),
        ("65,537 bytes in fragments", e(TEXT, b"x" * 40000, fin=False) +
         e(CONTINUATION, b"x" * 25537), 1009),
        ("length not minimal", b"\x81\xfe\x00\x05\x00\x00\x00\x00hello", 1002),
        ("endless fragments", e(TEXT, b"", fin=False) + e(CONTINUATION, b"", fin=False) * 20000,
         (1002, 1008, 1009)),
    ]
    with undisturbed(t, server):
        for path, protocol in (("/echo", None), ("/ws/x", "fanwire.v1"), ("/ws/x", None)):
            for name, data, expected in cases:
                ws = t.ws(server, path, protocol=protocol)
                try:
                    ws.send_bytes(data)
                except (BrokenPipeError, ConnectionResetError):
                    pass
                _, code, _ = ws.closed()
                expected = expected if isinstance(expected, tuple) else (expected,)
                assert code in expected, "%s on %s: %d" % (name, path, code)
                ws.drop()


def test_frames_in_pieces(t):
    """Byte by byte, several in one segment, right behind the upgrade."""
    server = t.server("memory:", "--echo", workers=1)
    echo = t.ws(server, "/echo")
    for payload in (b"", b"x", b"x" * 125, b"x" * 126, b"x" * 300):
        for byte in frames.encode(TEXT, payload):
            echo.send_bytes(bytes([byte]))
        equal(echo.message(), payload.decode())
    many = b"".join(frames.encode(TEXT, b"%d" % i) for i in range(2000))
    echo.send_bytes(many)
    equal([echo.message() for _ in range(2000)], [str(i) for i in range(2000)])
    with Raw(server.address) as raw:
        raw.send(handshake(server.address, "/echo", KEY) + frames.encode(TEXT, b"early"))
        equal(raw.response().headers["sec-websocket-accept"], accept_of(KEY))
        while len(raw.buffer) < 7:
            assert raw.fill()
        equal(raw.buffer, b"\x81\x05early")
    v1 = b"".join(frames.encode(TEXT, b'{"type":"ping","ref":%d}' % i) for i in range(100))
    with Raw(server.address) as raw:
        raw.send(handshake(server.address, "/ws", KEY, "fanwire.v1") + v1)
        raw.response()
        reader, found = frames.Reader(), []
        found += reader.feed(raw.buffer)
        while len(found) < 101:
            raw.buffer = b""
            assert raw.fill()
            found += reader.feed(raw.buffer)


def test_echo(t):
    """Fragmented, with control frames in between; the largest message; binary."""
    server = t.server("memory:", "--echo", workers=1)
    echo = t.ws(server, "/echo", auto_pong=False)
    echo.send(TEXT, "žlu".encode()[:4], fin=False)
    echo.send(PING, b"between")
    echo.send(CONTINUATION, "žlu".encode()[4:], fin=False)
    echo.send(CONTINUATION, b"", fin=False)
    echo.send(CONTINUATION, b"!", fin=True)
    equal(echo.frame(), (frames.PONG, b"between"))
    equal(echo.message(), "žlu!")
    echo.send(frames.PONG, b"nobody asked")
    echo.send(BINARY, b"\xff\x00", fin=False)
    echo.send(CONTINUATION, b"\xfe")
    equal(echo.message(), b"\xff\x00\xfe")
    largest = "x" * 65536
    echo.send(TEXT, largest.encode())
    equal(echo.message(), largest)
    for _ in range(100):
        echo.send(TEXT, largest.encode()[:30000])
        equal(len(echo.message()), 30000)
    echo.send(CLOSE, frames.close_payload(4321, "bye"))
    _, code, _ = echo.closed()
    equal(code, 4321)
    equal(t.ws(server, "/echo").close(1001), 1001)
    echo = t.ws(server, "/echo")
    echo.send(CLOSE)
    opcode, payload = echo.frame()
    equal(opcode, CLOSE)
    assert payload in (b"", b"\x03\xe8"), payload


def test_close_handshake(t):
    """After the close frames the server ends TCP; data after a close is not answered."""
    server = t.server(workers=1)
    for path, protocol in (("/ws/x", None), ("/ws/x", "fanwire.v1")):
        ws = t.ws(server, path, protocol=protocol)
        ws.send(CLOSE, frames.close_payload(1000, "done"))
        _, code, _ = ws.closed()
        equal(code, 1000)
        ws.socket.settimeout(2)
        equal(ws.socket.recv(10), b"", "TCP ends at once")
        ws.drop()
        equal(t.ws(server, path, protocol=protocol).close(3000), 3000)
    server.wait_for_metric('fanwire_connections{transport="ws"}', lambda n: n == 0)


def test_another_client_library(t):
    """python3-websockets: not ours, strict, with fragments, pings and offered compression."""
    try:
        import websockets
    except ImportError:
        raise Skip("python3-websockets is not installed") from None
    server = t.server("memory:", "--echo", workers=2)
    url = "ws://%s:%d" % server.address

    async def talk():
        async with websockets.connect(url + "/echo") as echo:
            for message in ("hello", "", "x" * 60000, b"\x00\xff", ["in ", "frag", "ments"]):
                await echo.send(message)
                expected = "".join(message) if isinstance(message, list) else message
                equal(await echo.recv(), expected)
            await asyncio.wait_for(await echo.ping(), 5)
        async with websockets.connect(url + "/ws/x", subprotocols=["fanwire.v1"]) as v1:
            equal(v1.subprotocol, "fanwire.v1")
            assert '"welcome"' in await v1.recv()
            assert '"ready"' in await v1.recv()
            await v1.send('{"type":"publish","channel":"x","text":"hi","ref":1}')
            both = await v1.recv() + await v1.recv()
            assert '"ok"' in both and '"hi"' in both, both
        try:
            async with websockets.connect(url + "/ws/%24fanwire/x") as forbidden:
                await forbidden.recv()
        except websockets.ConnectionClosedError as closed:
            equal(closed.code, 4003)
    asyncio.run(talk())


@case(timeout=60)
def test_endless_bodies_and_outputs(t):
    """Who publishes without reading answers is not read any further, and nobody else suffers."""
    server = t.server(workers=2)
    request = b"GET /history/x?limit=1000 HTTP/1.1\r\nHost: localhost\r\n\r\n" * 100
    for i in range(200):
        server.publish_ok("x", "x" * 1000)
    with undisturbed(t, server):
        greedy = [Raw(server.address, timeout=0.2) for _ in range(4)]
        for raw in greedy:
            try:
                for _ in range(50):
                    raw.socket.sendall(request)
            except (TimeoutError, BrokenPipeError, ConnectionResetError):
                pass
        echo_like = t.ws(server, "/ws", protocol="fanwire.v1", timeout=0.2)
        try:
            for _ in range(200):
                echo_like.send_bytes(b"".join(
                    frames.encode(TEXT, b'{"type":"ping","ref":"%s"}' % (b"x" * 60))
                    for _ in range(100)))
        except (TimeoutError, BrokenPipeError, ConnectionResetError):
            pass
    for raw in greedy:
        raw.socket.close()
