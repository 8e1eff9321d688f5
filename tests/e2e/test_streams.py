"""Events to subscribers: formats, order, resuming, history. The source is memory: throughout."""
import base64
import json
import re
import subprocess
import time
from urllib.parse import quote

from case import equal


def test_publish_reaches_everybody_on_every_worker(t):
    server = t.server(workers=2)
    crowd = t.crowd(server)
    crowd.add(20, "/ws/todos", "bare")
    crowd.add(20, "/ws/todos", "json")
    crowd.add(20, "/sse/todos", "sse")
    crowd.add(3, "/ws/other", "bare")
    holders = server.worker_of([m.socket for m in crowd.members])
    equal(set(holders), set(server.workers().values()), "both workers hold clients")
    sent = ["event %d" % i for i in range(20)]
    for text in sent:
        server.publish_ok("todos", text)
    crowd.wait(lambda: all(len(m.payloads) == 20 for m in crowd.members[:60]))
    for member in crowd.members[:60]:
        equal(member.payloads, sent)
    for member in crowd.members[60:]:
        equal(member.payloads, [])


def test_payloads_arrive_as_they_were_sent(t):
    """data, text or base64: a function of the payload alone."""
    server = t.server(workers=1)
    deep = b"[" * 512 + b"]" * 512
    too_deep = b"[" * 513 + b"]" * 513
    cases = [
        (b"", "text", ""),
        (b"hello", "text", "hello"),
        (b'"hello"', "data", "hello"),
        (b'{"op":"insert","id":7}', "data", {"op": "insert", "id": 7}),
        (b" [1, 2.50, -0e1] ", "data", [1, 2.5, -0.0]),
        (b'{"a":\n1,\r\n"b":\t2}', "data", {"a": 1, "b": 2}),
        (b"123456789012345678901234567890", "data", 123456789012345678901234567890),
        (b"null", "data", None),
        (b"NaN", "text", "NaN"),
        (b"{'a':1}", "text", "{'a':1}"),
        (b"01", "text", "01"),
        (b'"\\ud800"', "data", "\ud800"),
        (deep, "data", json.loads(deep)),
        (too_deep, "text", too_deep.decode()),
        ("žluťoučký kůň 🐎".encode(), "text", "žluťoučký kůň 🐎"),
        ('quote " backslash \\ \u2028 tab\t nul\0'.encode(), "text",
         'quote " backslash \\ \u2028 tab\t nul\0'),
        (b"two\nlines\r\nand\rmore", "text", "two\nlines\r\nand\rmore"),
        (b"\xff\xfe\x00binary", "base64", b"\xff\xfe\x00binary"),
        (b"\xed\xa0\x80", "base64", b"\xed\xa0\x80"),
        (b"\xc0\x80", "base64", b"\xc0\x80"),
    ]
    bare, v1 = t.ws(server, "/ws/x"), t.ws(server, "/ws/x", protocol="fanwire.v1")
    sse, query = t.sse(server, "/sse/x"), t.sse(server, "/sse?channel=x")
    v1.until("ready")
    sse.expect("ready")
    equal(query.envelope()["type"], "ready")
    for payload, member, value in cases:
        id = server.publish_ok("x", payload)

        message = bare.message()
        expected = payload if member == "base64" else payload.decode()
        equal(message, expected, "bare: text if UTF-8, else binary")

        for envelope in (v1.expect("message"), query.envelope()):
            equal((envelope["channel"], envelope["id"]), ("x", id))
            assert abs(envelope["time"] - time.time() * 1000) < 60000, envelope
            equal({"data", "text", "base64"} & set(envelope), {member}, repr(payload[:50]))
            found = envelope[member]
            equal(base64.b64decode(found) if member == "base64" else found, value)

        event = sse.event()
        equal(event.id, id)
        if member == "base64" or b"\r" in payload:
            equal(event.kind, "binary", "a CR would end a line for EventSource")
            equal(base64.b64decode(event.data), payload)
        else:
            equal((event.kind, event.data), ("message", payload.decode()))
        history = server.get("/history/x?last=1").json["events"]
        equal(len(history), 1)
        equal(history[0]["id"], id)
        equal(set(history[0]) - {"from"}, {"id", "time", member})


def test_json_is_embedded_verbatim(t):
    """Numbers, order of members and spelling are the publisher's."""
    server = t.server(workers=1)
    payload = '{"b":1.0,"a":10000000000000000001,"c":"\\u00e9","b2":[ 1 , 2 ]}'
    v1 = t.ws(server, "/ws/x", protocol="fanwire.v1")
    v1.until("ready")
    server.publish_ok("x", payload)
    assert '"data":' + payload in v1.message()
    query = t.sse(server, "/sse?channel=x&last=1")
    assert '"data":' + payload in query.event().data


def test_large_events(t):
    """Beyond what the arena shares, and the largest body."""
    server = t.server(workers=2)
    crowd = t.crowd(server)
    crowd.add(6, "/ws/big", "bare")
    crowd.add(6, "/ws/big", "json")
    crowd.add(6, "/sse/big", "sse")
    sent = [chr(97 + i) * n for i, n in enumerate((65535, 65536, 70000, 300000, 1 << 20))]
    for text in sent:
        server.publish_ok("big", text)
    crowd.wait(lambda: all(len(m.payloads) == len(sent) for m in crowd.members), 30)
    for member in crowd.members:
        assert member.payloads == sent, "a large event was changed"


def test_bare_path_form_refuses_channel_parameter(t):
    server = t.server(workers=1)
    equal(t.sse(server, "/sse/a?channel=b").response.code, "bad-request")
    equal(t.ws(server, "/ws/a?channel=b").closed()[1], 4000)


def test_channel_names(t):
    server = t.server(workers=1)
    names = ["a", "a/b/c", "user:42", "with space", "žluť", "100%", "a+b", "*", "**", "a?b#c",
             "x" * 255, "é" * 127, "fanwire", "$fanwirex"]
    for name in names:
        path = quote(name, safe="/")
        ws, sse = t.ws(server, "/ws/" + path, protocol="fanwire.v1"), t.sse(server, "/sse/" + path)
        equal(ws.until("ready")[1]["channel"], name)
        equal(sse.expect("ready").json["channel"], name)
        query = t.sse(server, "/sse?channel=" + quote(name, safe=""))
        equal(query.envelope()["channel"], name)
        server.publish_ok(path, "for " + name)
        equal(ws.expect("message")["text"], "for " + name)
        equal(sse.expect("message").data, "for " + name)
        equal(query.envelope()["channel"], name)
        equal(server.get("/history/" + path).json["channel"], name)
        for client in (ws, sse, query):
            client.drop()


def test_query_form_merges_channels_in_one_order(t):
    server = t.server(workers=2)
    channels = ["a", "b", "c", "d"]
    sent = []

    def publish(n):
        for i in range(n):
            channel = t.random.choice(channels)
            sent.append((channel, server.publish_ok(channel, "%s %d" % (channel, len(sent)))))
    publish(60)
    query = "?since=oldest&" + "&".join("channel=" + c for c in channels)
    crowd = t.crowd(server)
    crowd.add(4, "/sse" + query, "sse")
    crowd.add(4, "/ws" + query, "json")
    publish(60)
    for member in crowd.members:
        crowd.wait(lambda: len(envelopes(member)) == len(sent), what="all have come",
                   describe=lambda: "%d of %d" % (len(envelopes(member)), len(sent)))
        equal([(e["channel"], e["id"]) for e in envelopes(member)], sent)


def envelopes(member):
    """Messages of a crowd's member in the query form."""
    if member.kind == "json":
        return member.of("message")
    return [e for e in (m.json for m in member.of("message")) if e["type"] == "message"]


def test_since(t):
    """Every id is a place to go on from; now, oldest, foreign, future and past ones."""
    server = t.server(workers=2)
    ids = [server.publish_ok("x", "event %d" % i) for i in range(12)]
    for id in ids:
        assert re.fullmatch(r"[A-Za-z0-9._~-]{1,200}", id), id
        server.publish_ok("noise", "noise")
    for i, id in enumerate(ids):
        expected = ["event %d" % n for n in range(i + 1, 12)]
        v1 = t.ws(server, "/ws/x?since=" + id, protocol="fanwire.v1")
        before, ready = v1.until("ready")
        equal([m["text"] for m in before if m["type"] == "message"], expected)
        equal([m["type"] for m in before if m["type"] != "message"], ["welcome"])
        sse = t.sse(server, "/sse/x?since=" + id)
        equal([e.data for e in sse.until("ready")[0]], expected)
        bare = t.ws(server, "/ws/x?since=" + id)
        equal([bare.message() for _ in expected], expected)
        for client in (v1, sse, bare):
            client.drop()

    equal([e.data for e in t.sse(server, "/sse/x?since=now").until("ready")[0]], [])
    equal(len(t.sse(server, "/sse/x?since=oldest").until("ready")[0]), 12)

    epoch, _, offset = ids[-1].partition(".")
    strange = {
        "l0123456789abcdef.40": "new-epoch",
        epoch + "." + "f" * 12: "foreign-position",
        "p0123456789abcdef.40.0": "foreign-position",
        "from-somewhere-else": "foreign-position",
    }
    for position, reason in strange.items():
        before, ready = t.ws(server, "/ws/x?since=" + position,
                             protocol="fanwire.v1").until("ready")
        gaps = [m for m in before if m["type"] == "gap"]
        equal([g["reason"] for g in gaps], [reason], position)
        assert gaps[0]["channel"] == "x" and gaps[0]["before"], gaps
        equal([e.kind for e in t.sse(server, "/sse/x?since=" + position).until("ready")[0]][:1],
              ["gap"])
        equal(t.ws(server, "/ws/x?since=" + position).closed()[1], 4102)
        gap = server.get("/history/x?since=" + position).json["gap"]
        equal(gap["reason"], reason)

    for position in ("", "a" * 201, "a%20b", "%C3%A9", "a,b", "a/b"):
        response = server.get("/sse/x?since=" + position)
        equal((response.status, response.code), (400, "bad-position"), position)
        equal(t.ws(server, "/ws/x?since=" + position).closed()[1], 4000)


def test_offsets_in_the_middle_of_a_record(t):
    """A client's offset is an attacker's number: compared, never followed."""
    server = t.server(workers=1)
    ids = [server.publish_ok("x", "event %d" % i) for i in range(8)]
    epoch = ids[0].partition(".")[0]
    offsets = [int(id.partition(".")[2], 16) for id in ids]
    for _ in range(60):
        offset = t.random.randrange(0, offsets[-1] + 1)
        v1 = t.ws(server, "/ws/x?since=%s.%x" % (epoch, offset), protocol="fanwire.v1")
        before, _ = v1.until("ready")
        found = [m["text"] for m in before if m["type"] == "message"]
        complete = ["event %d" % i for i, at in enumerate(offsets) if at > offset]
        equal(found[-len(complete):] if complete else found, complete, "offset %x" % offset)
        v1.drop()


def test_last(t):
    server = t.server(workers=2)
    for i in range(30):
        server.publish_ok("x", "x %d" % i)
        if i % 3 == 0:
            server.publish_ok("y", "y %d" % i)
    for n in (1, 5, 30, 1000):
        expected = ["x %d" % i for i in range(max(0, 30 - n), 30)]
        equal([e.data for e in t.sse(server, "/sse/x?last=%d" % n).until("ready")[0]], expected)
        before = t.ws(server, "/ws/x?last=%d" % n, protocol="fanwire.v1").until("ready")[0]
        equal([m["text"] for m in before if m["type"] == "message"], expected)
        bare = t.ws(server, "/ws/x?last=%d" % n)
        equal([bare.message() for _ in expected], expected)
    # the newest two of each, in the log's order
    sse = t.sse(server, "/sse?channel=x&channel=y&last=2")
    equal([sse.envelope()["text"] for _ in range(4)], ["y 24", "y 27", "x 28", "x 29"])
    server.publish_ok("x", "live")
    rest = [sse.envelope() for _ in range(3)]
    equal(sorted(e["type"] for e in rest), ["message", "ready", "ready"])
    for n in ("0", "1001", "-1", "x", ""):
        equal(server.get("/sse/x?last=" + n).code, "bad-request", n)


def test_last_event_id_precedes_since_precedes_last(t):
    server = t.server(workers=1)
    ids = [server.publish_ok("x", "event %d" % i) for i in range(10)]

    def came(path, last_event_id=None):
        sse = t.sse(server, path, last_event_id=last_event_id)
        return [e.data for e in sse.until("ready")[0]]
    equal(came("/sse/x?since=%s&last=9" % ids[5]), ["event %d" % i for i in (6, 7, 8, 9)])
    equal(came("/sse/x?since=oldest&last=9", ids[7]), ["event 8", "event 9"])
    equal(came("/sse/x?last=9", ids[8]), ["event 9"])
    equal(came("/sse/x?last=1", ""), ["event 9"], "an empty header is none")
    response = t.sse(server, "/sse/x", last_event_id="not a position!").response
    equal((response.status, response.code), (400, "bad-position"))


def test_event_source_resumes_after_reconnect(t):
    """As a browser: same URL, Last-Event-ID. Each event once, no gap."""
    server = t.server(workers=2)
    sse = t.sse(server, "/sse/x?last=1")
    sse.expect("ready")
    seen, sent = [], []
    for round in range(12):
        for _ in range(t.random.randrange(4)):
            sent.append("event %d" % len(sent))
            server.publish_ok("x", sent[-1])
        while len(seen) < len(sent) and t.random.random() < 0.8:
            seen.append(sse.expect("message").data)
        if sse.last_id:
            sse.reopen()
            before, _ = sse.until("ready")
            assert all(e.kind == "message" for e in before), before
            seen += [e.data for e in before]
    equal(seen, sent)


def test_event_source_that_is_cut_off_before_its_first_event(t):
    """`ready` has an id: what comes while it is away is not missed."""
    server = t.server(workers=2)
    for path in "/sse/x", "/sse?channel=x&channel=y":
        sse = t.sse(server, path)
        ready = sse.event()
        while ready.json["type"] != "ready":
            ready = sse.event()
        equal(ready.id, ready.json["id"])
        sse.socket.close()
        server.publish_ok("x", "meanwhile")
        sse.reopen()
        event = sse.event()
        equal(event.data if path == "/sse/x" else event.json["text"], "meanwhile")


def test_ready_id_is_a_place_to_resume(t):
    server = t.server(workers=1)
    server.publish_ok("x", "before")
    v1 = t.ws(server, "/ws/x", protocol="fanwire.v1")
    ready = v1.until("ready")[1]
    server.publish_ok("x", "after")
    again = t.ws(server, "/ws/x?since=" + ready["id"], protocol="fanwire.v1")
    before, _ = again.until("ready")
    equal([m.get("text") for m in before], [None, "after"])


def test_history(t):
    server = t.server(workers=2)
    empty = server.get("/history/x").json
    equal((empty["channel"], empty["events"], empty["more"], empty["gap"]), ("x", [], False, None))
    ids = []
    for i in range(250):
        ids.append(server.publish_ok("x", json.dumps({"n": i})))
        if i % 10 == 0:
            server.publish_ok("noise", "noise")

    def page(parameters):
        found = server.get("/history/x" + parameters).json
        equal(set(found), {"channel", "events", "next", "more", "gap"})
        equal(found["gap"], None)
        return found
    first = page("")
    equal([e["data"]["n"] for e in first["events"]], list(range(100)), "100 by default, the oldest")
    assert first["more"] is True
    # next is the next since
    seen, next = [], ids[0]
    for _ in range(100):
        found = page("?since=%s&limit=7" % next)
        seen += [e["id"] for e in found["events"]]
        next = found["next"]
        assert len(found["events"]) <= 7
        if not found["more"]:
            break
    equal(seen, ids[1:])
    equal(page("?since=" + next)["events"], [])
    late = server.publish_ok("x", '{"n":250}')
    equal([e["id"] for e in page("?since=" + next)["events"]], [late])
    equal([e["data"]["n"] for e in page("?last=3")["events"]], [248, 249, 250])
    equal([e["data"]["n"] for e in page("?last=10&limit=4")["events"]], [247, 248, 249, 250])
    equal(len(page("?limit=1000")["events"]), 251)
    equal(len(page("?since=oldest&limit=1000")["events"]), 251)
    equal(page("?since=now")["events"], [])
    for parameters in ("?limit=0", "?limit=1001", "?limit=x", "?last=0", "?last=1001"):
        equal(server.get("/history/x" + parameters).code, "bad-request", parameters)
    equal(server.get("/history/x?since=%20").code, "bad-position")
    equal(server.get("/history/x?heartbeat=5").code, "unknown-parameter")
    equal(server.get("/history").code, "bad-channel")
    equal(server.get("/history/").code, "bad-channel")


def test_history_of_what_has_been_overwritten(t):
    """A position that the log does not hold any more: a gap, and what is held."""
    server = t.server("memory:", "--retain", "1M", workers=1)
    first = server.publish_ok("x", "the first")
    quiet = server.publish_ok("quiet", "quiet")
    filler = "f" * 10000
    for i in range(300):
        last = server.publish_ok("x", filler)
    found = server.get("/history/x?since=%s&limit=1000" % first).json
    equal(found["gap"]["reason"], "expired")
    assert 20 < len(found["events"]) < 150, len(found["events"])
    equal(found["events"][-1]["id"], last)
    # the quiet channel has lost nothing: no false gap, however far the log has moved on
    for position in (quiet, first):
        found = server.get("/history/quiet?since=%s" % quiet).json
        equal((found["gap"], found["events"]), (None, []))
    before, _ = t.ws(server, "/ws/quiet?since=" + quiet, protocol="fanwire.v1").until("ready")
    equal([m["type"] for m in before], ["welcome"])
    before, _ = t.ws(server, "/ws/x?since=" + first, protocol="fanwire.v1").until("ready")
    equal(before[1]["type"], "gap")
    equal(before[1]["reason"], "expired")
    assert all(m["type"] == "message" for m in before[2:])
    equal(before[-1]["id"], last)


def test_quiet_channel_beside_a_chatty_one(t):
    """A connected client of a quiet channel, and one that resumes, hear of no gap."""
    server = t.server("memory:", "--retain", "1M", workers=2)
    position = server.publish_ok("quiet", "one")
    crowd = t.crowd(server)
    crowd.add(10, "/ws/quiet", "json")
    crowd.add(10, "/sse/quiet", "sse")
    crowd.add(10, "/ws/quiet", "bare")
    crowd.add(10, "/ws?channel=quiet&channel=quieter", "json")
    filler = "f" * 20000
    for _ in range(400):
        server.publish_ok("chatty", filler)
    crowd.add(10, "/ws/quiet?since=" + position, "json")
    crowd.add(10, "/sse/quiet?since=" + position, "sse")
    crowd.add(10, "/ws/quiet?since=" + position, "bare")
    server.publish_ok("quiet", "two")
    crowd.wait(lambda: all(m.payloads == ["two"] for m in crowd.members))
    for member in crowd.members:
        assert member.close is None
        assert member.kind == "bare" or not member.of("gap"), member.messages


def test_too_large_for_the_log_becomes_a_gap(t):
    server = t.server("memory:", "--retain", "1M", workers=1)
    v1 = t.ws(server, "/ws/x", protocol="fanwire.v1")
    other = t.ws(server, "/ws/y", protocol="fanwire.v1")
    bare = t.ws(server, "/ws/x")
    v1.until("ready")
    other.until("ready")
    response = server.publish("x", b"x" * 100000)
    assert response.status in (200, 413), response
    if response.status == 200:
        gap = v1.expect("gap")
        equal((gap["channel"], gap["reason"]), ("x", "too-large"))
        equal(bare.closed()[1], 4102)
    server.publish_ok("x", "small")
    server.publish_ok("y", "small")
    equal(v1.expect("message")["text"], "small")
    equal(other.expect("message")["text"], "small", "no gap for another channel")


def test_sse_head(t):
    server = t.server(workers=1)
    sse = t.sse(server, "/sse/x")
    sse.expect("ready")
    equal(sse.response.headers["content-type"], "text/event-stream")
    assert "no-cache" in sse.response.headers["cache-control"]
    equal(sse.response.headers["x-accel-buffering"], "no")
    assert sse.wire.startswith(b"retry: 2000\n"), sse.wire
    head = server.request("HEAD", "/sse/x")
    equal((head.status, head.headers["content-type"]), (200, "text/event-stream"))


def test_stdin_lines(t):
    """stdin:CHANNEL, and CHANNEL<TAB>payload; at its end it goes on serving, and says so."""
    oldest = "/ws/lines?since=oldest"  # a bare socket is not told when it is subscribed
    server = t.server("stdin:lines", workers=2, stdin=subprocess.PIPE)
    v1, bare = t.ws(server, "/ws/lines", protocol="fanwire.v1"), t.ws(server, oldest)
    v1.until("ready")
    write = server.process.stdin.write
    write(b"one\ntwo\n\n\xff\xfe\nfi")
    server.process.stdin.flush()
    equal([bare.message() for _ in range(4)], ["one", "two", "", b"\xff\xfe"])
    write(b"ve")
    server.process.stdin.close()
    equal(bare.message(), "five", "a last line without its end")
    equal([v1.expect("message") for _ in range(5)][-1]["text"], "five")
    equal(v1.expect("down")["reason"], "ended")
    equal([e["text"] for e in server.get("/history/lines?last=2").json["events"][-1:]], ["five"])
    late = t.ws(server, "/ws/lines?since=oldest", protocol="fanwire.v1")
    late.expect("welcome")
    equal(late.expect("down")["reason"], "ended")
    equal([late.expect("message").get("text") for _ in range(5)], ["one", "two", "", None, "five"])
    late.expect("ready")
    bare.quiet()

    tabs = t.server("stdin:", workers=1, stdin=subprocess.PIPE)
    a, b = t.ws(tabs, "/ws/a?since=oldest"), t.ws(tabs, "/ws/b?since=oldest")
    tabs.process.stdin.write(b"a\tfor a\nno tab\nb\tfor\tb\n")
    tabs.process.stdin.flush()
    equal((a.message(), b.message()), ("for a", "for\tb"))
