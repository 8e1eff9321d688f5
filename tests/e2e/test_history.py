"""The long poll: GET /history/CHANNEL?since=POS&wait=SECONDS."""
import contextlib
import os
import signal
import socket
import sqlite3
import subprocess
import threading
import time

from case import case, equal, eventually
from web import Raw, raw_request


def poll(server, path, method="GET", channels=1):
    """A request whose answer is awaited later; the server knows its channel when this returns, being
    the so-manieth that is wanted."""
    raw = Raw(server.address, timeout=30)
    raw.send(("%s /history/%s HTTP/1.1\r\nHost: localhost\r\n\r\n" % (method, path)).encode())
    server.wait_for_metric("fanwire_channels", lambda n: n == channels)
    return raw


def payloads(page):
    return [e.get("data", e.get("text")) for e in page["events"]]


def test_it_waits_for_an_event(t):
    server = t.server(workers=2)
    here = server.publish_ok("x", "before")
    raw = poll(server, "x?since=%s&wait=30" % here)
    server.publish_ok("other", "not its")
    id = server.publish_ok("x", "1")
    page = raw.response().json
    equal((payloads(page), page["events"][0]["id"], page["gap"], page["more"]), ([1], id, None, False))
    # on the same connection, from where that ended
    raw.send(b"GET /history/x?since=%s&wait=30 HTTP/1.1\r\nHost: localhost\r\n\r\n"
             % page["next"].encode())
    server.publish_ok("x", "2")
    equal(payloads(raw.response().json), [2])
    # without since: from now
    raw = poll(server, "x?wait=30")
    server.publish_ok("x", "3")
    equal(payloads(raw.response().json), [3])


def test_it_does_not_wait_where_there_is_something(t):
    server = t.server("memory:", "--retain", "1M", workers=1)
    first = server.publish_ok("x", "1")
    server.publish_ok("x", "2")
    started = time.monotonic()
    equal(payloads(server.get("/history/x?wait=60&since=" + first).json), [2])
    equal(payloads(server.get("/history/x?wait=60&since=oldest").json), [1, 2])
    equal(server.get("/history/x?wait=60&since=l0.0").json["gap"]["reason"], "new-epoch")
    equal(server.get("/history/x?wait=60&since=elsewhere").json["gap"]["reason"],
          "foreign-position")
    for _ in range(120):
        server.publish_ok("x", "f" * 10000)
    equal(server.get("/history/x?wait=60&since=" + first).json["gap"]["reason"], "expired")
    equal(server.get("/history/x?wait=0").json["events"][-1]["text"], "f" * 10000)
    assert time.monotonic() - started < 30


def test_the_time_is_over(t):
    """No events, and a place from which the client goes on without reading anything twice."""
    server = t.server(workers=1)
    since = server.publish_ok("x", "1")
    last = [server.publish_ok("noise", "n") for _ in range(10)][-1]
    for path in ("x?wait=1&since=" + since, "x?wait=1", "never-used?wait=1"):
        started = time.monotonic()
        answer = server.get("/history/" + path)
        assert 0.9 < time.monotonic() - started < 10
        page = answer.json
        equal((answer.status, page["events"], page["more"], page["gap"], page["next"]),
              (200, [], False, None, last), path)
    server.publish_ok("x", "2")
    equal(payloads(server.get("/history/x?wait=30&since=" + page["next"]).json), [2])


def test_parameters(t):
    server = t.server(workers=1)
    for parameters in ("?wait=61", "?wait=x", "?wait=", "?wait=-1", "?wait=5&last=3"):
        equal(server.get("/history/x" + parameters).code, "bad-request", parameters)
    equal(server.get("/sse/x?wait=5").code, "unknown-parameter")
    equal(server.get("/history/x?wait=1&since=now&limit=5").json["events"], [])


def test_head(t):
    server = t.server(workers=1)
    raw = poll(server, "x?wait=30", method="HEAD")
    server.publish_ok("x", "1")
    data = raw.socket.recv(65536)
    head, _, body = data.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200") and body == b"", data
    raw.send(b"GET /history/x?last=1 HTTP/1.1\r\nHost: localhost\r\n\r\n")
    equal(payloads(raw.response().json), [1])


@case(timeout=60)
def test_everything_once_and_in_order(t):
    """A client that polls and nothing else, while events come in bursts from elsewhere."""
    server = t.server(workers=2)
    since = server.publish_ok("x", "start")

    def publish():
        for i in range(400):
            server.publish("x" if i % 4 else "y", "%d" % i)
            if i % 40 == 0:
                time.sleep(0.02)  # bursts, with pauses in which pollers wait
    publisher = threading.Thread(target=publish)
    publisher.start()
    seen = []
    while not seen or seen[-1] < 399:
        page = server.get("/history/x?wait=20&limit=7&since=" + since).json
        equal(page["gap"], None)
        assert page["events"], "its time cannot have been over"
        seen += payloads(page)
        since = page["next"]
    publisher.join()
    equal(seen, [i for i in range(400) if i % 4])


@case(timeout=60)
def test_many_on_one_channel(t):
    server = t.server(workers=2)
    here = server.publish_ok("x", "0")
    raws = []
    for _ in range(300):
        raw = Raw(server.address, timeout=30)
        t.cleanup(raw.socket.close)
        raw.send(b"GET /history/x?since=%s&wait=50 HTTP/1.1\r\nHost: localhost\r\n\r\n"
                 % here.encode())
        raws.append(raw)
    server.wait_for_metric('fanwire_connections{transport="http"}', lambda n: n >= 300)
    for raw in raws[200:]:  # some go away, one way or the other
        linger = b"\1\0\0\0\0\0\0\0"
        raw.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        raw.socket.close()
    server.publish_ok("x", "1")
    for raw in raws[:200]:
        equal(payloads(raw.response().json), [1])


def test_a_client_that_goes_away_is_forgotten(t):
    server = t.server(workers=1)
    for how in ("close", "reset"):
        raw = poll(server, "x?wait=60")
        if how == "reset":
            raw.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        raw.socket.close()
        server.wait_for_metric("fanwire_channels", lambda n: n == 0)
    # who has only ended its own side gets what there is
    raw = poll(server, "x?wait=60")
    raw.socket.shutdown(socket.SHUT_WR)
    equal(raw.response().json["events"], [])
    raw.ended()


def test_draining_answers_those_that_wait(t):
    server = t.server(workers=1, drain="20s")
    raws = [poll(server, "x%d?wait=60" % i, channels=i + 1) for i in range(3)]
    started = time.monotonic()
    server.signal(signal.SIGTERM)
    for raw in raws:
        answer = raw.response()
        equal((answer.status, answer.json["events"], answer.json["gap"]), (200, [], None))
        equal(answer.headers["connection"], "close")
        raw.ended()
        raw.socket.close()
    assert time.monotonic() - started < 10
    equal(server.wait(10), 0)


def test_the_source_process_is_killed(t):
    """A memory: source has lost what it did not hear: the poll is told so."""
    server = t.server(workers=1, exits_expected=True)
    here = server.publish_ok("x", "0")
    raw = poll(server, "x?since=%s&wait=60" % here)
    os.kill(server.source_pid(), signal.SIGKILL)
    page = raw.response().json
    equal((page["events"], page["gap"]["reason"]), ([], "restart"))
    raw = poll(server, "x?since=%s&wait=60" % page["next"])
    eventually(lambda: server.publish("x", "1").status == 200, 10, "it publishes again")
    page = raw.response().json
    equal((payloads(page), page["gap"]), ([1], None))


def test_several_gaps_of_a_page_are_told_as_one(t):
    """From before the first to behind the last; who goes on at any place between is told the rest."""
    path = os.path.join(t.directory, "app.db")
    server = t.server("sqlite:" + path, "--retain", "1M", workers=1)
    database = sqlite3.connect(path, timeout=30)
    with database:
        database.executemany("insert into fanwire_outbox (channel, payload) values ('x', ?)",
                             [("1",), ("x" * 100000,), ("2",), ("x" * 100000,), ("3",)])
    ws = t.ws(server, "/ws/x?since=oldest", protocol="fanwire.v1")
    told, _ = ws.until("ready")
    while [m["type"] for m in told].count("message") < 3:
        told.append(ws.json())
    gaps = [m for m in told if m["type"] == "gap"]
    one, two, three = (m["id"] for m in told if m["type"] == "message")
    equal([m["reason"] for m in gaps], ["too-large"] * 2)

    def gap_of(query):
        page = server.get("/history/x?" + query).json
        return payloads(page), page["gap"], page["next"]
    both = {"after": gaps[0]["after"], "before": gaps[1]["before"], "reason": "too-large"}
    for query in "since=oldest", "last=10", "since=" + one:
        events, gap, _ = gap_of(query)
        equal((events[-2:], gap), ([2, 3], both), query)
    second = {name: gaps[1][name] for name in ("after", "before", "reason")}
    equal(gap_of("since=" + two)[:2], ([3], second))
    equal(gap_of("since=" + three)[:2], ([], None))
    # page by page: each its own
    events, gap, next = gap_of("since=oldest&limit=2")
    equal((events, gap), ([1, 2], {name: gaps[0][name] for name in second}))
    equal(gap_of("since=" + next)[:2], ([3], second))


def test_a_gap_between_what_is_held(t):
    """Is told to who asks for all of it, or for the newest of it that are on both sides."""
    server = t.server(workers=1, exits_expected=True)
    for n in "1", "2":
        server.publish_ok("x", n)
    source = server.source_pid()
    os.kill(source, signal.SIGKILL)
    eventually(lambda: server.source_pid() not in (None, source), 10, "it is started again")
    server.wait_until_ready(10)
    server.publish_ok("x", "3")
    for query, events, reason in (("", [1, 2, 3], "restart"), ("?since=oldest", [1, 2, 3], "restart"),
                                  ("?last=2", [2, 3], "restart"), ("?last=1", [3], None)):
        page = server.get("/history/x" + query).json
        equal((payloads(page), (page["gap"] or {}).get("reason")), (events, reason), query)


@case(postgres=True)
def test_the_source_is_down(t):
    """It waits on while the database is away; a gap comes with the database."""
    database = t.database()
    proxy = t.proxy(database.cluster.port)
    server = t.server(database.url_through(proxy.port), workers=1)
    raw = poll(server, "x?wait=60")
    t.ws(server, "/ws/x", protocol="fanwire.v1").until("ready")
    proxy.refuse()
    proxy.cut()
    server.wait_for_log(event="lost")
    here = server.get("/history/y").json["next"]
    # the channel is unheard of: nothing is claimed, the client keeps its place
    page = server.get("/history/unheard?wait=1&since=" + here).json
    equal((page["events"], page["next"], page["gap"]), ([], here, None))
    equal(raw.buffer, b"")
    proxy.refuse(False)
    page = raw.response().json
    equal((page["events"], page["gap"]["reason"]), ([], "connection-lost"))
    raw = poll(server, "x?wait=60&since=" + page["next"])
    database.notify("x", "1")
    equal(payloads(raw.response().json), [1])


@case(postgres=True)
def test_the_source_refuses(t):
    database = t.database()
    database.psql("create database \"%s latin1\" encoding 'LATIN1' locale 'C' template template0"
                  % database.name)
    t.cleanup(lambda: database.psql('drop database "%s latin1" with (force)' % database.name))
    server = t.server(database.url + "%20latin1", workers=1)
    for _ in range(2):  # when it is asked for, and when it is known
        equal(server.get("/history/%E6%97%A5?wait=60").code, "source-refused")


def test_a_durable_source_and_a_restart(t):
    path = os.path.join(t.directory, "app.db")
    server = t.server("sqlite:" + path, workers=1, exits_expected=True)
    database = sqlite3.connect(path, timeout=30, isolation_level=None)
    raw = poll(server, "x?wait=60")
    database.execute("insert into fanwire_outbox (channel, payload) values ('x', '1')")
    page = raw.response().json
    equal(payloads(page), [1])
    equal(server.stop(), 0)
    database.execute("insert into fanwire_outbox (channel, payload) values ('x', '2')")
    server = t.server("sqlite:" + path, workers=1, exits_expected=True)
    page = server.get("/history/x?wait=60&since=" + page["next"]).json
    equal((payloads(page), page["gap"]), ([2], None))
    raw = poll(server, "x?wait=60&since=" + page["next"])
    os.kill(server.source_pid(), signal.SIGKILL)
    database.execute("insert into fanwire_outbox (channel, payload) values ('x', '3')")
    page = raw.response().json
    equal((payloads(page), page["gap"]), ([3], None))


def test_a_durable_source_is_away_when_the_time_is_over(t):
    """What `next` says holds at another server, too: the client may ask that one next."""
    path = os.path.join(t.directory, "app.db")
    with contextlib.closing(sqlite3.connect(path, timeout=30, isolation_level=None)) as database:
        database.execute("create table t (a)")  # with a rollback journal: its writers shut all out
        server = t.server("sqlite:" + path, workers=1, exits_expected=True)
        server.wait_for_log(event="opened")
        database.execute("insert into fanwire_outbox (channel, payload) values ('x', '1')")
        page = server.get("/history/x?wait=30&since=oldest").json
        equal(payloads(page), [1])
        raw = poll(server, "x?wait=3&since=" + page["next"])
        equal(server.get("/history/x?since=" + page["next"]).json["events"], [])  # that one waits
        database.execute("begin exclusive")
        source = server.source_pid()
        os.kill(source, signal.SIGKILL)
        eventually(lambda: server.source_pid() not in (None, source), 10, "it is started again")
        answer = raw.response().json
        equal((answer["events"], answer["next"], answer["gap"]), ([], page["next"], None))
        database.execute("rollback")
        database.execute("insert into fanwire_outbox (channel, payload) values ('x', '2')")
    equal(server.stop(), 0)
    server = t.server("sqlite:" + path, workers=1)
    page = server.get("/history/x?wait=30&since=" + answer["next"]).json
    equal((payloads(page), page["gap"]), ([2], None))


def test_cors_and_pipelining(t):
    server = t.server("memory:", "--origin", "https://a.example", workers=1)
    data = (b"GET /history/x?wait=1 HTTP/1.1\r\nHost: localhost\r\nOrigin: https://a.example\r\n\r\n"
            b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
    with Raw(server.address) as raw:
        raw.send(data)
        equal(raw.response().headers["access-control-allow-origin"], "https://a.example")
        equal(raw.response().body, b"ok\n")
    equal(raw_request(server.address, b"GET /history/x?wait=1 HTTP/1.0\r\n\r\n").json["events"], [])


@case(timeout=60)
def test_a_durable_source_that_says_nothing(t):
    """No gap is claimed and no place of this server's own given: the client keeps its position, with
    `wait` and without."""
    database = t.postgres(wal_level="logical")
    for mode in "outbox", "wal":
        database.psql(subprocess.run([t.binary, "sql", "postgres", "--mode", mode], check=True,
                                     stdout=subprocess.PIPE).stdout.decode())
        server = t.server(database.url, "--node", "a", workers=1, exits_expected=True)
        database.psql("select fanwire_publish('x', '1'); select fanwire_publish('x', '2')")
        held = eventually(lambda: server.get("/history/x?since=oldest").json["events"][1:], 10)
        here = server.get("/history/x?since=oldest").json["events"][0]["id"]
        assert here.startswith("p"), (here, held)
        source = server.source_pid()
        os.kill(source, signal.SIGSTOP)
        for query in ("", "&wait=1"):
            page = server.get("/history/unheard%d?since=%s%s" % (len(query), here, query)).json
            equal((page["events"], page["next"], page["gap"], page["more"]), ([], here, None, False))
        os.kill(source, signal.SIGCONT)
        server.stop()
