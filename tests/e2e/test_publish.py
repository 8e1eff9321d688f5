"""Publishing well: keys that make a retry harmless, batches of all or nothing, who it came from."""
import json
import os
import signal
import sqlite3
import subprocess
import threading

import web
from case import case, equal, eventually

REPEATED = "fanwire_source_repeated_events_total"


def sqlite(t, **options):
    return t.server("sqlite:" + os.path.join(t.directory, "app.db"), **options)


def listen(t, server, *channels):
    """A client of these channels, each ready."""
    query = "&".join("channel=" + channel for channel in channels)
    client = t.ws(server, "/ws?since=oldest&" + query)
    for _ in channels:
        client.until("ready")
    return client


def messages(client, n):
    """The next n messages, as (channel, payload)."""
    found = []
    while len(found) < n:
        message = client.json()
        if message["type"] == "message":
            found.append((message["channel"], message.get("data", message.get("text",
                                                          message.get("base64")))))
    return found


def keyed(server, channel, payload, key, **headers):
    return server.publish(channel, payload, headers={"Idempotency-Key": key, **headers})


def batch(server, events, headers=None):
    body = events if isinstance(events, bytes) else json.dumps(events).encode()
    return server.request("POST", "/publish", body, headers)


# ---- keys ----

def keys_work(t, server, ids):
    client = listen(t, server, "a", "b")
    first = keyed(server, "a", "one", '"k 1"')
    equal(first.status, 200)
    again = keyed(server, "a", "one", "k 1")  # bare
    equal(again.status, 200)
    if ids == "same":
        equal(again.json, first.json, "the repeat is told the first one's id")
    equal(keyed(server, "b", "another channel", '"k 1"').status, 200)
    equal(keyed(server, "a", "two", r'"say \"k\" \\"').status, 200)
    equal(keyed(server, "a", "two", r'say "k" \ '.strip()).status, 200)
    speaker = t.ws(server, "/ws")
    for ref in (1, 2):
        speaker.say(type="publish", channel="a", data={"n": 3}, key="v1", ref=ref)
        equal(speaker.until("ok")[1]["ref"], ref)
    equal(batch(server, [{"channel": "a", "data": 3, "key": "v1"},
                         {"channel": "a", "data": 4, "key": "v4"}]).status, 200)
    server.publish_ok("a", "last")
    found = []
    while ("a", "last") not in found:
        message = client.json()
        if message["type"] == "message":
            found.append((message["channel"], message.get("data", message.get("text"))))
        assert message["type"] in ("message", "position"), message
    equal(found, [("a", "one"), ("b", "another channel"), ("a", "two"), ("a", {"n": 3}), ("a", 4),
                  ("a", "last")])
    server.wait_for_metric(REPEATED, lambda n: n == 4)
    return again


def test_keys_in_memory(t):
    """Whoever repeats a publish is answered as if it were the first; nobody gets it twice."""
    keys_work(t, t.server("memory:"), "same")


def test_keys_in_sqlite(t):
    """The row of a repeat is stored, as by any process; a client may come back with its id."""
    server = sqlite(t)
    again = keys_work(t, server, "its own")
    server.stop()
    server = sqlite(t)  # refilled from the table: the same decision
    client = t.ws(server, "/ws/a?since=" + again.json["id"], protocol="fanwire.v1")
    client.expect("welcome")
    equal([payload for _, payload in messages(client, 4)], ["two", {"n": 3}, 4, "last"])
    client.until("ready")
    equal(server.metric(REPEATED), 4)


@case(postgres=True)
def test_keys_in_postgres(t):
    keys_work(t, t.server(t.database().url), "none")


def outbox(t):
    database = t.database()
    sql = subprocess.run([t.binary, "sql", "postgres", "--mode", "outbox"], check=True,
                         stdout=subprocess.PIPE).stdout
    database.psql(sql.decode())
    return t.server(database.url)


@case(postgres=True)
def test_keys_in_an_outbox(t):
    keys_work(t, outbox(t), "its own")


@case(postgres=True)
def test_batch_in_an_outbox(t):
    batches_work(t, outbox(t), ids=True)


def test_bad_keys(t):
    """Refused before anything is published."""
    server = t.server("memory:")
    for key in ('"', '"a', '"a"b', '"a";x=1', '""', '"\\n"', "x" * 256, '"%s"' % ("x" * 256),
                b"\xff", ""):
        response = keyed(server, "a", "x", key)
        equal((response.status, response.code), (400, "bad-request"), repr(key))
    for key in ("x" * 255, '"%s"' % ('\\"' * 255), "žluť".encode()):
        equal(keyed(server, "a", "x", key).status, 200)
    client = t.ws(server, "/ws")
    client.expect("welcome")
    for key in ("", "x" * 256, "a\0b", 7, None, {}):
        client.say(type="publish", channel="a", data=1, key=key, ref=1)
        equal(client.expect("error")["code"], "bad-request")
    equal(len(server.get("/history/a?since=oldest").json["events"]), 3)


def retries_are_harmless(t, server, gap):
    """Every publish is repeated until it is known to be stored, while the source process dies."""
    n_events, n_kills = 150, 4
    client = listen(t, server, "x")
    killed = []

    def publish_all():
        for i in range(n_events):
            def stored():
                try:
                    return keyed(server, "x", "e%d" % i, '"key %d"' % i).status == 200
                except OSError:
                    return False
            if i % 30 == 15 and len(killed) < n_kills:
                pid = server.source_pid()
                killed.append(pid)
                os.kill(pid, signal.SIGKILL)
            eventually(stored, 30, "event %d is stored" % i)

    publisher = threading.Thread(target=publish_all)
    publisher.start()
    found, gaps = [], 0
    # the last gap is told with `up`, a moment after the first events of the new process
    while "e%d" % (n_events - 1) not in found or gap and not gaps:
        message = client.json(timeout=30)
        gaps += message["type"] == "gap"
        if message["type"] == "message":
            found.append(message["text"])
    publisher.join()
    equal(len(killed), n_kills)
    equal(len(found), len(set(found)), "none twice")
    if not gap:
        equal(found, ["e%d" % i for i in range(n_events)], "none lost, in order")
    eventually(lambda: server.publish("x", "end").status == 200, 10, "it takes publishes")
    equal(messages(client, 1), [("x", "end")])


@case(timeout=120)
def test_retries_in_memory(t):
    """Between two source processes the log is what they know; the gap they tell is for others."""
    server = t.server("memory:", exits_expected=True)
    retries_are_harmless(t, server, gap=True)
    history = [e["text"] for e in server.get("/history/x?last=1000").json["events"]]
    equal(history, ["e%d" % i for i in range(150)] + ["end"])


@case(timeout=120)
def test_retries_in_sqlite(t):
    retries_are_harmless(t, sqlite(t, exits_expected=True), gap=False)


@case(timeout=120, postgres=True)
def test_retries_in_postgres(t):
    retries_are_harmless(t, t.server(t.database().url, exits_expected=True), gap=True)


# ---- from ----

def test_from(t):
    """A POST may say which connection it belongs to; a subscriber drops what is its own."""
    server = t.server("memory:")
    client = t.ws(server, "/ws?channel=a")
    me = client.expect("welcome")["client"]
    client.until("ready")
    equal(server.publish("a", "mine", headers={"Fanwire-Client": me}).status, 200)
    equal(client.until("message")[1]["from"], me)
    equal(batch(server, [{"channel": "a", "data": 1}], {"Fanwire-Client": me}).status, 200)
    equal(client.until("message")[1]["from"], me)
    server.publish_ok("a", "nobody's")
    assert "from" not in client.until("message")[1]
    for name in ("", "x", "w", "1w", "w1", "1w2w3", "1w2 ", "A1w2", "1" * 22 + "w1", "1w\xe9"):
        response = server.publish("a", "x", headers={"Fanwire-Client": name.encode("latin-1")})
        if name.strip() == "1w2":
            continue  # white space around a field is not part of it
        equal((response.status, response.code), (400, "bad-request"), repr(name))


# ---- batches ----

def batches_work(t, server, ids):
    client = listen(t, server, "a", "b", "m")
    body = (b'[ {"channel":"a","data": {"x": 1.50, "big":123456789012345678901234567890} },'
            b'{"channels":["a","b"],"text":"gr\\u00fc\\u00dfe"},'
            b'{"base64":"/wAB","channel":"b"}, {"data":null,"channel":"a"}, '
            b'{"data":null,"channel":"a"}]')
    response = batch(server, body)
    equal(response.status, 200)
    equal(set(response.json), {"ids"})
    equal(len(response.json["ids"]), 6)
    assert all((id is not None) == ids for id in response.json["ids"]), response
    equal(messages(client, 6), [
        ("a", {"x": 1.5, "big": 123456789012345678901234567890}), ("a", "grüße"), ("b", "grüße"),
        ("b", "/wAB"), ("a", None), ("a", None)])
    raw = server.get("/history/a?last=10").body
    assert b'{"x": 1.50, "big":123456789012345678901234567890}' in raw, "as it was written"

    response = batch(server, [{"channel": "m", "data": i} for i in range(1000)])
    equal((response.status, len(response.json["ids"])), (200, 1000))
    if ids:
        equal(len(set(response.json["ids"])), 1000)
    equal(messages(client, 1000), [("m", i) for i in range(1000)])
    return client


def test_batch_in_memory(t):
    batches_work(t, t.server("memory:"), ids=True)


def test_batch_in_sqlite(t):
    """One transaction: a row that the database refuses takes all of its batch back, no other."""
    server = sqlite(t)
    client = batches_work(t, server, ids=True)
    database = sqlite3.connect(os.path.join(t.directory, "app.db"), timeout=30)
    database.execute("create trigger no before insert on fanwire_outbox when new.payload = 'bad' "
                     "begin select raise(abort, 'not with me'); end")
    database.commit()
    stored = "select count(*) from fanwire_outbox"
    before = database.execute(stored).fetchone()
    for at in (0, 2, 4):
        events = [{"channel": "m", "text": "good"} for _ in range(5)]
        events[at]["text"] = "bad"
        response = batch(server, events)
        equal((response.status, response.code), (502, "source-refused"))
        assert "not with me" in response.json["detail"]
        assert "accepted" not in response.json
    equal(database.execute(stored).fetchone(), before)
    server.publish_ok("m", "next")
    equal(messages(client, 1), [("m", "next")])


@case(postgres=True)
def test_batch_in_postgres(t):
    """One transaction, in which equal events stay two; nothing of a batch with one that is too
    large."""
    server = t.server(t.database().url)
    client = batches_work(t, server, ids=False)
    equal(batch(server, [{"channel": "a", "text": "same"}] * 3).status, 200)
    equal(messages(client, 3), [("a", "same")] * 3)
    response = batch(server, [{"channel": "a", "text": "x"}, {"channel": "a", "text": "x" * 8000},
                              {"channel": "a", "text": "x"}])
    equal((response.status, response.code), (413, "too-large"))
    server.publish_ok("a", "next")
    equal(messages(client, 1), [("a", "next")])


def test_batch_of_a_source_that_takes_none(t):
    """Where there is no transaction the answer says how far it came."""
    read, write = os.pipe()
    t.cleanup(lambda: os.close(write))
    server = t.server("stdin:log", stdin=read)
    os.close(read)
    response = batch(server, [{"channel": "log", "data": 1}])
    equal((response.status, response.code, response.json["accepted"]), (501, "not-supported", 0))


def test_bad_batches(t):
    """All of it is looked at before any of it is published; the detail says which event."""
    server = t.server("memory:", public_write=("a", "b", "c"))
    good = {"channel": "a", "data": 1}
    bad = [
        ({"channel": "a"}, "bad-request"),
        ({"data": 1}, "bad-request"),
        ({}, "bad-request"),
        ([], "bad-request"),
        (7, "bad-request"),
        (dict(good, text="x"), "bad-request"),
        (dict(good, channels=["b"]), "bad-request"),
        (dict(good, colour="red"), "bad-request"),
        ({"channel": "a", "text": 7}, "bad-request"),
        ({"channel": "a", "base64": "%"}, "bad-request"),
        ({"channel": 7, "data": 1}, "bad-channel"),
        ({"channels": [], "data": 1}, "bad-request"),
        ({"channels": "a", "data": 1}, "bad-request"),
        ({"channels": ["a", 7], "data": 1}, "bad-channel"),
        ({"channels": ["a", ""], "data": 1}, "bad-channel"),
        ({"channel": "a\0", "data": 1}, "bad-channel"),
        ({"channel": "secret", "data": 1}, "channel-forbidden"),
        ({"channel": "$fanwire/a", "data": 1}, "channel-forbidden"),
        (dict(good, key=""), "bad-request"),
        (dict(good, key=7), "bad-request"),
        (dict(good, key="x" * 256), "bad-request"),
        (dict(good, key="x\0"), "bad-request"),
    ]
    for event, code in bad:
        response = batch(server, [good, {"channels": ["b", "c"], "data": 2}, event])
        equal(response.code, code, repr(event))
        assert response.json["detail"].startswith("event 2: "), response
    twice = b'[{"channel":"a","data":1,"channel":"b"}]'
    for body in (b"", b"[", b"{}", b"[]", b"null", b'[{"channel":"a","data":}]', b"[1,]", b"\xff",
                 twice, b'[{"channel":"a","data":1}] x', b"[" * 100000):
        equal(batch(server, body).code, "bad-request", repr(body[:50]))
    for key in ("k", '"k"'):
        equal(batch(server, [dict(good, key="own")], {"Idempotency-Key": key}).code, "bad-request")
    equal(batch(server, [good], {"Idempotency-Key": "x" * 254}).code, "bad-request")
    equal(batch(server, [good] * 1001).code, "too-large")
    equal(batch(server, [{"channels": ["a", "b"], "data": 1}] * 501).code, "too-large")
    wide = {"channels": ["a", "b", "c"], "text": "x" * 900000}
    response = batch(server, [wide])
    equal((response.status, response.code), (413, "too-large"))
    equal(server.request("POST", "/publish?since=now", b"[]").code, "unknown-parameter")
    for channel in "abc":
        equal(server.get("/history/%s?since=oldest" % channel).json["events"], [])


def test_large_batches(t):
    """1 MiB is taken and answered; one byte more is not."""
    server = t.server("memory:", workers=1)
    head, tail = b'[{"channel":"a","text":"', b'"},{"channel":"b","data":1}]'
    body = head + b"x" * ((1 << 20) - len(head) - len(tail)) + tail
    equal(len(body), 1 << 20)
    response = batch(server, body)
    equal((response.status, len(response.json["ids"])), (200, 2))
    response = web.raw_request(server.address, (
        b"POST /publish HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % (len(body) + 1)))
    equal(response.status, 413)
    nested = b'[{"channel":"a","data":[' + b"[]," * 330000 + b"[]]}]"
    equal(batch(server, nested).status, 200, "a million brackets are one payload")
    threads = [threading.Thread(target=batch, args=(server, body)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    server.wait_for_metric("fanwire_source_events_total", lambda n: n == 2 + 1 + 16)


def test_a_key_for_a_whole_batch(t):
    """Idempotency-Key of a batch is that of each event, with its index."""
    server = t.server("memory:")
    events = [{"channel": "a", "data": 1}, {"channels": ["a", "b"], "data": 2}]
    first = batch(server, events, {"Idempotency-Key": '"whole"'})
    equal(first.status, 200)
    equal(batch(server, events, {"Idempotency-Key": '"whole"'}).json, first.json)
    equal([e["data"] for e in server.get("/history/a?since=oldest").json["events"]], [1, 2])
    equal([e["data"] for e in server.get("/history/b?since=oldest").json["events"]], [2])
    equal(server.metric(REPEATED), 3)
