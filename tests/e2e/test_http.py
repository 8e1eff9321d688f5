"""HTTP/1.1: requests, connections, publishing, Origin and CORS."""
import http.client
import json
import os
import socket

import web
from case import equal
from web import Raw
from ws import Refused


def get(path, *headers, version="1.1", method="GET", body=b"", host=True):
    lines = ["%s %s HTTP/%s" % (method, path, version)]
    lines += ["Host: localhost"] if host else []
    return ("\r\n".join(lines + list(headers)) + "\r\n\r\n").encode() + body


def test_routes(t):
    server = t.server(workers=1)
    health = server.get("/healthz")
    equal((health.status, health.body), (200, b"ok\n"))
    for path in ("/", "/nothing", "/wsx", "/ssex/a", "/healthz/x", "/metrics", "/readyz", "/echo"):
        response = server.get(path)
        equal((response.status, response.code), (404, "not-found"), path)
    for method, path, allow in (("POST", "/sse/a", "GET"), ("DELETE", "/history/a", "GET"),
                                ("GET", "/publish/a", "POST"), ("PUT", "/publish/a", "POST"),
                                ("POST", "/healthz", "GET"), ("PATCH", "/sse/a", "GET")):
        response = server.request(method, path, b"" if method != "GET" else None)
        equal((response.status, response.code), (405, "method-not-allowed"), path)
        assert allow in response.headers["allow"], response
    problem = server.get("/nothing").json
    equal((problem["type"], problem["status"]), ("urn:fanwire:error:not-found", 404))
    assert problem["title"] and problem["detail"]
    for path in ("/sse", "/sse/", "/history"):
        equal(server.get(path).code, "bad-channel", path)


def test_keep_alive_and_pipelining(t):
    server = t.server(workers=1)
    with Raw(server.address) as raw:
        for i in range(50):
            raw.send(get("/publish/x", "Content-Length: 3", method="POST", body=b"%03d" % i))
            equal(raw.response().status, 200)
        # many at once, answered in order, even those that have to wait for the source
        requests, expected = b"", []
        for i in range(40):
            kind = t.random.randrange(4)
            if kind == 0:
                requests += get("/healthz")
                expected.append((200, b"ok\n"))
            elif kind == 1:
                requests += get("/publish/y", "Content-Length: 2", method="POST", body=b"%02d" % i)
                expected.append((200, None))
            elif kind == 2:
                requests += get("/nothing")
                expected.append((404, None))
            else:
                requests += get("/history/x?last=1")
                expected.append((200, None))
        raw.send(requests)
        for status, body in expected:
            response = raw.response()
            equal(response.status, status)
            assert body is None or response.body == body, response
        raw.send(get("/healthz", "Connection: close"))
        equal(raw.response().headers["connection"], "close")
        raw.ended()
    events = server.get("/history/y?limit=1000").json["events"]
    numbers = [int(e["text"] if "text" in e else e["data"]) for e in events]
    equal(numbers, sorted(numbers), "in order")


def test_a_request_in_pieces(t):
    server = t.server(workers=1)
    whole = get("/publish/x", "Content-Length: 5", method="POST", body=b"hello")
    with Raw(server.address) as raw:
        for i in range(len(whole)):
            raw.send(whole[i:i + 1])
        equal(raw.response().status, 200)
    equal(server.get("/history/x").json["events"][0]["text"], "hello")


def test_http_1_0_and_head(t):
    server = t.server(workers=1)
    with Raw(server.address) as raw:
        raw.send(get("/healthz", version="1.0", host=False))
        equal(raw.response().body, b"ok\n")
        raw.ended()
    with Raw(server.address) as raw:
        raw.send(get("/healthz", "Connection: keep-alive", version="1.0"))
        equal(raw.response().status, 200)
    for path, status in (("/healthz", 200), ("/history/x", 200), ("/nothing", 404)):
        with Raw(server.address) as raw:
            raw.send(get(path, "Connection: close", method="HEAD"))
            rest = raw.rest()
            head, _, body = rest.partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 %d" % status), head
            assert b"Content-Length: " in head and b"Content-Length: 0" not in head, head
            equal(body, b"", "HEAD has no body")


def test_absolute_form_and_lines_before(t):
    server = t.server(workers=1)
    for request in (get("http://localhost/healthz"), b"\r\n" + get("/healthz"),
                    get("/healthz", "X-Long: " + "x" * 7000), get("/healthz", "a: \t b")):
        equal(web.raw_request(server.address, request).status, 200, repr(request[:60]))
    options = web.raw_request(server.address, get("*", method="OPTIONS"))
    equal(options.status, 204)


def test_base_path(t):
    server = t.server("memory:", "--base-path", "/live", workers=1)
    equal(server.get("/live/healthz").status, 200)
    equal(server.get("/healthz").status, 404)
    equal(server.get("/livex/healthz").status, 404)
    v1 = t.ws(server, "/live/ws/a", protocol="fanwire.v1")
    v1.until("ready")
    equal(server.request("POST", "/live/publish/a", b"x").status, 200)
    equal(v1.expect("message")["text"], "x")
    t.sse(server, "/live/sse/a").expect("ready")


def test_publish(t):
    server = t.server(workers=2, public_write=("open", "open:*"))
    response = server.publish("open", "hello")
    equal((response.status, response.headers["content-type"]), (200, "application/json"))
    equal(set(response.json), {"id"})
    assert response.json["id"]
    equal(server.publish("open", b"").status, 200, "an empty payload is one")
    equal(server.publish("open", b"x" * (1 << 20)).status, 200)

    response = server.publish("closed", "x")
    equal((response.status, response.code), (403, "channel-forbidden"))
    assert "--public-write" in response.json["detail"], "it says what to do"
    equal(server.publish("$fanwire/x", "x").code, "channel-forbidden")
    for channel in ("a%01b", "%", "%f", "%ff", "x" * 256, "%00"):
        response = server.publish(channel, "x")
        equal((response.status, response.code), (400, "bad-channel"), channel)
    equal(server.publish("open?since=now", "x").code, "unknown-parameter")

    too_large = web.raw_request(server.address, get(
        "/publish/open", "Content-Length: 1048577", method="POST"))
    equal(too_large.status, 413)
    for headers in ([], ["Transfer-Encoding: chunked"]):
        response = web.raw_request(server.address, get("/publish/open", *headers, method="POST"))
        equal(response.status, 411)
    equal(server.get("/history/open").json["events"][0]["text"], "hello")


def test_expect_continue(t):
    server = t.server(workers=1)
    with Raw(server.address) as raw:
        raw.send(get("/publish/x", "Content-Length: 5", "Expect: 100-continue", method="POST"))
        while b"\r\n\r\n" not in raw.buffer:
            assert raw.fill()
        assert raw.buffer.startswith(b"HTTP/1.1 100 "), raw.buffer
        raw.buffer = b""
        raw.send(b"hello")
        equal(raw.response().status, 200)


def test_who_may_read(t):
    server = t.server(workers=1, public=("news", "chat:*", "all/**"), public_write=("**",))
    for channel in ("news", "chat:42", "all/a/b.c:d"):
        t.sse(server, "/sse/" + channel).expect("ready")
        t.ws(server, "/ws/" + channel, protocol="fanwire.v1").until("ready")
        equal(server.get("/history/" + channel).status, 200)
    for channel in ("new", "newsx", "chat:", "chat:a.b", "chat:a:b", "all", "$fanwire/x"):
        response = server.get("/sse/" + channel)
        equal((response.status, response.code), (403, "channel-forbidden"), channel)
        assert "--public" in response.json["detail"] or channel.startswith("$"), response
        equal(server.get("/history/" + channel).code, "channel-forbidden")
        _, code, reason = t.ws(server, "/ws/" + channel).closed()
        equal(code, 4003, "said after the upgrade, so that browsers see it")
        assert reason.startswith("channel-forbidden"), reason
        v1 = t.ws(server, "/ws?channel=news&channel=" + channel)
        equal(v1.closed()[1], 4003)


def test_unknown_parameters(t):
    """A typo in since must not lose events."""
    server = t.server(workers=1)
    for query in ("sinc=now", "Since=now", "channels=a", "gap=ignore", "limit=5", "foo"):
        response = server.get("/sse/x?" + query)
        equal((response.status, response.code), (400, "unknown-parameter"), query)
    for query in ("sinc=now", "limit=5", "foo=", "last_id=3"):
        _, code, reason = t.ws(server, "/ws/x?" + query).closed()
        equal(code, 4000)
        assert reason.startswith("unknown-parameter"), reason
    for query in ("pattern=*", "token=x"):
        equal(server.get("/sse/x?" + query).code, "not-supported")
        equal(t.ws(server, "/ws/x?" + query).closed()[1], 4000)
    for query in ("gap=", "gap=x"):
        equal(t.ws(server, "/ws/x?" + query).closed()[1], 4000)
    equal(server.get("/sse/x?since=%").code, "bad-request")


def test_origin(t):
    server = t.server("memory:", "--origin", "https://app.example.com", workers=1)
    host = "%s:%d" % server.address
    good = ["https://app.example.com", "http://" + host, "https://" + host]
    bad = ["https://evil.example.com", "https://app.example.com.evil.example", "null", "",
           "http://app.example.com", "https://app.example.com:444", "https://app.example.com/"]
    for origin in good:
        headers = {"Origin": origin}
        t.ws(server, "/ws/x", headers=headers, protocol="fanwire.v1").until("ready")
        sse = t.sse(server, "/sse/x", headers=headers)
        equal(sse.response.headers["access-control-allow-origin"], origin)
        response = server.publish("x", "x", headers=headers)
        equal((response.status, response.headers["access-control-allow-origin"]), (200, origin))
        assert "origin" in response.headers["vary"].lower()
    for origin in bad:
        headers = {"Origin": origin}
        try:
            t.ws(server, "/ws/x", headers=headers)
            raise AssertionError("upgraded from %s" % origin)
        except Refused as refused:
            equal((refused.response.status, refused.response.code), (403, "origin-forbidden"))
            assert "--origin" in refused.response.json["detail"]
        for response in (server.get("/sse/x", headers=headers),
                         server.get("/history/x", headers=headers),
                         server.publish("x", "x", headers=headers)):
            equal((response.status, response.code), (403, "origin-forbidden"), origin)
            assert "access-control-allow-origin" not in response.headers
    equal(server.publish("x", "x").status, 200, "no Origin is not a browser")

    every = t.server("memory:", "--origin", "*", workers=1)
    headers = {"Origin": "https://anywhere.example"}
    equal(every.publish("x", "x", headers=headers).headers["access-control-allow-origin"],
          "https://anywhere.example")


def test_cors_preflight(t):
    server = t.server("memory:", "--origin", "https://app.example.com", workers=1)
    ask = {"Access-Control-Request-Method": "POST",
           "Access-Control-Request-Headers": "content-type"}
    response = server.request("OPTIONS", "/publish/x",
                              headers=dict(ask, Origin="https://app.example.com"))
    equal((response.status, response.body), (204, b""))
    equal(response.headers["access-control-allow-origin"], "https://app.example.com")
    assert "POST" in response.headers["access-control-allow-methods"]
    allowed = response.headers["access-control-allow-headers"].lower()
    assert "content-type" in allowed and "last-event-id" in allowed
    response = server.request("OPTIONS", "/publish/x",
                              headers=dict(ask, Origin="https://evil.example"))
    assert "access-control-allow-origin" not in response.headers, response


def test_dev(t):
    """Everything readable and writable, any localhost origin, a page at /; this machine only."""
    server = t.server(None, "--dev", public=(), public_write=(), workers=2)
    page = server.get("/")
    equal((page.status, page.headers["content-type"]), (200, "text/html; charset=utf-8"))
    assert b"EventSource" in page.body and b"fetch" in page.body
    for origin in ("http://localhost:3000", "http://127.0.0.1:8080"):
        sse = t.sse(server, "/sse/anything", headers={"Origin": origin})
        sse.expect("ready")
    equal(server.publish("anything", "x", headers={"Origin": "http://localhost:3000"}).status, 200)
    equal(server.publish("x", "x", headers={"Origin": "https://evil.example"}).status, 403)
    assert server.wait_for_log(event="started")["source"].startswith("memory:")
    wide = t.server(None, "--dev", http="0.0.0.0:0", public=(), public_write=(), start=False)
    equal(wide.wait(), 2)
    assert "this machine only" in wide.log


def test_unix_socket(t):
    path = t.directory + "/http.sock"
    server = t.server("memory:", http="unix:" + path, workers=2)
    for _ in range(10):
        connection = http.client.HTTPConnection("localhost")
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.connect(path)
        connection.request("POST", "/publish/x", b"hello")
        equal(json.loads(connection.getresponse().read()).keys(), {"id"})
        connection.close()
    equal(server.stop(), 0)
    assert not os.path.exists(path), "it takes its socket away"
