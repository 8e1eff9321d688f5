"""fanwire.v1: what clients say, and what they are answered."""
import json
import time

import frames
from case import case, equal


def connect(t, server, path="/ws", **options):
    v1 = t.ws(server, path, protocol="fanwire.v1", **options)
    welcome = v1.expect("welcome")
    return v1, welcome


def test_welcome(t):
    server = t.server(workers=1)
    v1, welcome = connect(t, server)
    equal(v1.protocol, "fanwire.v1")
    equal((welcome["heartbeat"], welcome["max"], welcome["durable"]), (25, 65536, False))
    assert welcome["server"].startswith("fanwire/")
    other, second = connect(t, server, "/ws?heartbeat=7")
    equal(second["heartbeat"], 7)
    assert welcome["client"] != second["client"]
    plain = t.ws(server, "/ws?channel=a")
    equal(plain.protocol, None)
    plain.expect("welcome")  # the query form speaks fanwire.v1 in any case
    chosen = t.ws(server, "/ws/a", protocol="chat, fanwire.v1, other")
    equal(chosen.protocol, "fanwire.v1")
    bare = t.ws(server, "/ws/a", protocol="chat")
    equal(bare.protocol, None)


def test_subscribe_and_unsubscribe(t):
    server = t.server(workers=2)
    v1, _ = connect(t, server)
    v1.say(type="subscribe", channel="a", ref=1)
    ready = v1.expect("ready")
    equal((ready["channel"], ready["ref"]), ("a", 1))
    v1.say(type="subscribe", channel="b", ref="two")
    equal(v1.expect("ready")["ref"], "two")
    first = server.publish_ok("a", "a1")
    server.publish_ok("b", "b1")
    server.publish_ok("c", "c1")
    equal([(m["channel"], m["text"]) for m in (v1.expect("message"), v1.expect("message"))],
          [("a", "a1"), ("b", "b1")])
    v1.say(type="unsubscribe", channel="a", ref=3)
    gone = v1.expect("unsubscribed")
    equal((gone["channel"], gone["ref"]), ("a", 3))
    server.publish_ok("a", "a2")
    server.publish_ok("b", "b2")
    equal(v1.expect("message")["text"], "b2")
    # it comes back with a position of its own: what was missed, then ready, then live
    v1.say(type="subscribe", channel="a", since=first, ref=4)
    before, ready = v1.until("ready")
    equal([m["text"] for m in before], ["a2"])
    v1.say(type="subscribe", channel="c", last=1, ref=5)
    before, ready = v1.until("ready")
    equal(([m["text"] for m in before], ready["ref"]), (["c1"], 5))
    v1.say(type="subscribe", channel="d", since="oldest")
    ready = v1.expect("ready")
    assert "ref" not in ready
    sent = []
    for i in range(40):
        channel = t.random.choice("abcd")
        sent.append((channel, "live %d" % i))
        server.publish_ok(*sent[-1])
    equal([(m["channel"], m["text"]) for m in (v1.expect("message") for _ in sent)], sent)


def test_late_subscription_keeps_order_and_misses_nothing(t):
    """A channel that joins an open, busy connection with since=oldest."""
    server = t.server(workers=1)
    total = 300
    for i in range(total):
        server.publish_ok("a", "a %d" % i)
        server.publish_ok("b", "b %d" % i)
    v1, _ = connect(t, server, "/ws?channel=a&since=oldest")
    v1.say(type="subscribe", channel="b", since="oldest", ref=1)
    for i in range(20):
        server.publish_ok("a", "a %d" % (total + i))
        server.publish_ok("b", "b %d" % (total + i))
    seen = {"a": [], "b": []}
    while any(len(s) < total + 20 for s in seen.values()):
        message = v1.json()
        if message["type"] == "message":
            seen[message["channel"]].append(message["text"])
        else:
            assert message["type"] == "ready", message
    for channel, texts in seen.items():
        equal(texts, ["%s %d" % (channel, i) for i in range(total + 20)])


def test_subscribe_errors(t):
    server = t.server(workers=1, public=("open:*",), public_write=("open:*",))
    v1, _ = connect(t, server)

    def error(code, **message):
        v1.say(ref=9, **message)
        found = v1.expect("error")
        equal((found["code"], found["ref"]), (code, 9), repr(message))
        assert found["message"]
    error("bad-channel", type="subscribe")
    error("bad-channel", type="subscribe", channel=7)
    error("bad-channel", type="subscribe", channel="")
    error("bad-channel", type="subscribe", channel="a\x01")
    error("bad-channel", type="subscribe", channel="x" * 256)
    error("channel-forbidden", type="subscribe", channel="closed")
    error("channel-forbidden", type="subscribe", channel="$fanwire/control")
    error("not-supported", type="subscribe", pattern="open:*")
    error("not-supported", type="subscribe", channel="open:a", snapshot=True)
    error("not-supported", type="auth", token="x")
    error("bad-position", type="subscribe", channel="open:a", since="no position")
    error("bad-position", type="subscribe", channel="open:a", since=7)
    error("bad-request", type="subscribe", channel="open:a", last=0)
    error("bad-request", type="subscribe", channel="open:a", last=1001)
    error("bad-request", type="subscribe", channel="open:a", last=1.5)
    error("bad-request", type="subscribe", channel="open:a", last="5")
    v1.say(type="subscribe", channel="open:a", last=1000, unknown="is ignored")
    v1.expect("ready")
    error("bad-request", type="subscribe", channel="open:a")
    error("bad-request", type="unsubscribe", channel="open:b")
    error("bad-request", type="unsubscribe")
    error("bad-request", type="nonsense")
    error("bad-request", type=None)
    error("bad-request")
    server.publish_ok("open:a", "still here")
    equal(v1.expect("message")["text"], "still here")


def test_ref_comes_back_as_it_was_sent(t):
    server = t.server(workers=1)
    v1, _ = connect(t, server)
    for ref in ("0", "-1", "1.50", "12345678901234567890123", '"text"', '"\\u00e9\\n"', '""'):
        v1.send(frames.TEXT, ('{"type":"ping","ref":%s}' % ref).encode())
        text = v1.message()
        assert '"ref":' + ref in text, text
        equal(json.loads(text)["type"], "ok")
    for ref in ("[]", "{}", "true", "null", '"%s"' % ("x" * 100)):
        v1.send(frames.TEXT, ('{"type":"ping","ref":%s}' % ref).encode())
        equal(v1.expect("error")["code"], "bad-request", ref)
    v1.say(type="ping")
    v1.expect("ok")


def test_publish(t):
    server = t.server(workers=2, public_write=("open", "bin"))
    v1, welcome = connect(t, server, "/ws?channel=open&channel=bin&channel=closed")
    for _ in range(3):
        v1.expect("ready")
    v1.say(type="publish", channel="open", data={"a": 1}, ref=4)
    found = {m["type"]: m for m in (v1.json(), v1.json())}
    equal(set(found), {"ok", "message"})
    equal(found["ok"]["ref"], 4)
    equal(found["ok"]["id"], found["message"]["id"])
    equal(found["message"]["data"], {"a": 1})
    equal(found["message"]["from"], welcome["client"], "so that a client can drop its own")

    def published(**payload):
        v1.say(type="publish", **payload)
        found = {m["type"]: m for m in (v1.json(), v1.json())}
        equal(set(found), {"ok", "message"}, repr(payload))
        return found["message"]
    equal(published(channel="open", text="plain")["text"], "plain")
    equal(published(channel="open", text="")["text"], "")
    equal(published(channel="open", text="[1]")["data"], [1])
    equal(published(channel="open", data=None)["data"], None)
    equal(published(channel="open", data="text")["data"], "text")
    equal(published(channel="bin", base64="/wA=")["base64"], "/wA=")
    equal(published(channel="open", text="nul \0 and \u2028")["text"], "nul \0 and \u2028")

    v1.send(frames.TEXT, b'{"type":"publish","channel":"open","data":{"z":1.0, "a":[ ]}}')
    texts = [v1.message(), v1.message()]
    assert any('"data":{"z":1.0, "a":[ ]}' in text for text in texts), texts

    def error(code, **message):
        v1.say(type="publish", ref=9, **message)
        found = v1.expect("error")
        equal((found["code"], found["ref"]), (code, 9), repr(message))
    error("channel-forbidden", channel="closed", text="x")
    error("channel-forbidden", channel="$fanwire/x", text="x")
    error("bad-channel", text="x")
    error("bad-request", channel="open")
    error("bad-request", channel="open", text="x", data=1)
    error("bad-request", channel="open", text=7)
    error("bad-request", channel="bin", base64="not base64!")
    error("bad-request", channel="open", text="x", key="")
    error("bad-request", channel="open", text="x", key=7)


def test_what_is_no_json_object_ends_the_conversation(t):
    server = t.server(workers=1)
    for text in (b"", b"hello", b"[]", b"7", b"{", b'{"type":"ping"', b'{"type":"ping","type":1}',
                 b"{'type':'ping'}", b"[" * 5000):
        v1, _ = connect(t, server)
        v1.send(frames.TEXT, text)
        before, code, reason = v1.closed()
        equal((before, code), ([], 4000), repr(text[:40]))
        assert reason.startswith("bad-request"), reason
    v1, _ = connect(t, server)
    v1.send(frames.BINARY, b'{"type":"ping"}')
    equal(v1.closed()[1], 4000, "text frames only")


def test_bare_sockets_only_listen(t):
    server = t.server(workers=1)
    for opcode in (frames.TEXT, frames.BINARY):
        bare = t.ws(server, "/ws/a")
        bare.send(opcode, b"hello")
        before, code, reason = bare.closed()
        equal((before, code), ([], 4000))
        assert "fanwire.v1" in reason, reason


def test_many_channels_on_one_connection(t):
    server = t.server(workers=1)
    v1, _ = connect(t, server)
    for i in range(1000):
        v1.say(type="subscribe", channel="c%d" % i)
    for _ in range(1000):
        v1.expect("ready")
    v1.say(type="subscribe", channel="one too many", ref=1)
    equal(v1.expect("error")["code"], "too-many-channels")
    for i in (0, 500, 999):
        server.publish_ok("c%d" % i, "to %d" % i)
        equal(v1.expect("message")["channel"], "c%d" % i)


@case(timeout=60)
def test_heartbeats(t):
    """heartbeat=5: a position for fanwire.v1, a ping for bare sockets, a lone id for SSE; and a
    socket that does not answer pings is closed."""
    server = t.server(workers=1)
    started = time.monotonic()
    v1 = t.ws(server, "/ws/quiet?heartbeat=5", protocol="fanwire.v1")
    bare = t.ws(server, "/ws/quiet?heartbeat=5")
    mute = t.ws(server, "/ws/quiet?heartbeat=5", auto_pong=False)
    sse = t.sse(server, "/sse/quiet?heartbeat=5")
    query = t.sse(server, "/sse?channel=quiet&heartbeat=5")
    v1.until("ready")
    sse.expect("ready")
    query.envelope()
    server.publish_ok("noise", "moves the log on")

    position = v1.expect("position", timeout=8)
    assert 4 < time.monotonic() - started < 7.5, time.monotonic() - started
    equal(v1.pings, 1, "a ping goes with it")
    for stream in (sse, query):
        while not stream.reader.silent_ids:
            assert stream.fill(time.monotonic() + 5)
        assert stream.last_id, "the heartbeat moves the id"
        equal(stream._waiting, [], "and dispatches nothing")
    opcode, payload = mute.frame(timeout=8)
    equal(opcode, frames.PING)

    bare.quiet(1.5)
    equal(bare.pings, 1)

    _, code, reason = mute.closed(timeout=10)
    equal(code, 4108)
    assert 9 < time.monotonic() - started < 12.5, time.monotonic() - started
    v1.expect("position", timeout=8)  # who answers lives on
    bare.quiet(0.1)

    # The position says "complete up to here": resuming there misses nothing and tells no gap.
    server.publish_ok("quiet", "later")
    again = t.ws(server, "/ws/quiet?since=" + position["id"], protocol="fanwire.v1")
    before, _ = again.until("ready")
    equal([m["type"] for m in before], ["welcome", "message"])
    sse_again = t.sse(server, "/sse/quiet", last_event_id=sse.last_id)
    equal([e.data for e in sse_again.until("ready")[0]], ["later"])
    for value in ("4", "61", "x", ""):
        equal(server.get("/sse/x?heartbeat=" + value).code, "bad-request")
