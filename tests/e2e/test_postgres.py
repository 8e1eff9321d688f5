"""The Postgres source in notify mode: one connection, outages, publishing, what it cannot do."""
import concurrent.futures
import os
import signal
import subprocess
import time
from urllib.parse import quote

from case import case, equal, eventually
from test_slow import look_at_order, publish_until_seen
from witness import undisturbed

ONLY_ONE = "fanwire's connections in pg_stat_activity"


def install(t, database):
    sql = subprocess.run([t.binary, "sql", "postgres"], stdout=subprocess.PIPE, check=True).stdout
    database.psql(sql.decode())


@case(postgres=True)
def test_notify_reaches_everybody(t):
    """A name of somebody else's, quoted as it must be."""
    database = t.database()
    server = t.server(database.url, workers=2)
    crowd = t.crowd(server)
    for name in ("todos", "Mixed Case", "user:42", 'quo"te', "žluť", "x" * 63, "select", "a.b/c"):
        path = quote(name, safe="/")
        members = crowd.add(2, "/ws/%s?since=oldest" % path, "bare")
        members += crowd.add(2, "/ws/" + path, "json")
        members += crowd.add(2, "/sse/" + path, "sse")
        database.notify(name, "hello " + name[:20])
        database.psql("select pg_notify($$%s$$, '{\"n\":1}')" % name)
        crowd.wait(lambda: all(len(m.payloads) == 2 for m in members))
        for member in members:
            equal(member.payloads[0], "hello " + name[:20])
    equal(len(database.connections()), 1, ONLY_ONE)
    database.psql("begin; notify todos, 'never'; rollback; notify todos, 'committed'")
    crowd.wait(lambda: all(len(m.payloads) == 3 for m in crowd.members[:6]))
    equal(crowd.members[0].payloads[2], "committed")


@case(postgres=True)
def test_channels_are_listened_to_on_demand(t):
    database = t.database()
    server = t.server(database.url, "--linger", "1s", workers=2)
    first = t.ws(server, "/ws/a", protocol="fanwire.v1")
    first.until("ready")
    database.notify("a", "1")
    id = first.expect("message")["id"]
    # While it lingers nothing is missed …
    first.drop()
    server.wait_for_metric("fanwire_subscriptions", lambda n: n == 0)
    database.notify("a", "2")
    again = t.ws(server, "/ws/a?since=" + id, protocol="fanwire.v1")
    before, ready = again.until("ready")
    equal([m.get("data", m["type"]) for m in before], ["welcome", 2])
    again.drop()
    # … and when it is un-listened, that is said: a gap, not silence.
    server.wait_for_metric("fanwire_subscriptions", lambda n: n == 0)
    eventually(lambda: unlistened(server, database), 10, "the channel is un-listened")
    database.notify("a", "missed")
    late = t.ws(server, "/ws/a?since=" + ready["id"], protocol="fanwire.v1")
    before, _ = late.until("ready")
    gaps = [m for m in before if m["type"] == "gap"]
    equal([(g["channel"], g["reason"]) for g in gaps], [("a", "not-covered")])
    equal(gaps[0]["after"], ready["id"])
    bare = t.ws(server, "/ws/a?since=" + ready["id"])
    equal(bare.closed()[1], 4102)
    sse = t.sse(server, "/sse/a", last_event_id=ready["id"])
    equal(sse.event().kind, "gap")
    history = server.get("/history/a?since=" + ready["id"]).json
    equal(history["gap"]["reason"], "not-covered")
    database.notify("a", "3")
    equal(late.expect("message")["data"], 3)


def unlistened(server, database):
    """Nobody but Postgres knows; the server's own last word was UNLISTEN."""
    return database.psql("select query from pg_stat_activity where pid = %d"
                         % database.connections()[0]).startswith("UNLISTEN")


@case(postgres=True)
def test_fanwire_publish(t):
    """The installed SQL: any channel name, text, json and jsonb, in a transaction."""
    database = t.database()
    install(t, database)
    install(t, database)  # re-runnable
    equal(database.psql("select version, mode, slot is null from fanwire_status()"), "1|notify|t")
    server = t.server(database.url, workers=2)
    long_name = "a long name: " + "x" * 200
    v1 = t.ws(server, "/ws?channel=todos&channel=" + quote(long_name), protocol="fanwire.v1")
    v1.expect("welcome")
    v1.expect("ready")
    v1.expect("ready")
    database.psql("select fanwire_publish('todos', 'text')")
    equal(v1.expect("message")["text"], "text")
    database.psql("select fanwire_publish('todos', '{\"a\": 1}'::jsonb)")
    equal(v1.expect("message")["data"], {"a": 1})
    database.psql("select fanwire_publish('todos', row_to_json(t)) from (select 7 as id) t")
    equal(v1.expect("message")["data"], {"id": 7})
    database.psql("select fanwire_publish('%s', 'long', client => 'k3x9')" % long_name)
    message = v1.expect("message")
    equal((message["channel"], message["text"], message["from"]), (long_name, "long", "k3x9"))
    database.psql("begin; select fanwire_publish('todos', 'never'); rollback")
    database.psql("begin; select fanwire_publish('todos', i::text) from generate_series(1, 100) i;"
                  "commit")
    equal([v1.expect("message")["data"] for _ in range(100)], list(range(1, 101)))
    for bad, why in (("repeat('x', 256), 'x'", "255 bytes"), ("'', 'x'", "255 bytes"),
                     ("E'a\\nb', 'x'", "control"), ("'$fanwire/x', 'x'", "reserved"),
                     ("'x', null::text", "null"), ("'x', repeat('x', 8000)", "7999")):
        try:
            database.psql("select fanwire_publish(%s)" % bad)
            raise AssertionError("accepted: " + bad)
        except RuntimeError as error:
            assert why in str(error), error
    # what others send under our name without an envelope is refused, counted, and harms nobody
    database.psql("notify fanwire, 'no envelope'; notify fanwire, '\x1e{}\nx'; notify fanwire")
    server.wait_for_metric("fanwire_source_refused_events_total", lambda n: n == 3)
    database.psql("select fanwire_publish('todos', 'after')")
    equal(v1.expect("message")["text"], "after")
    uninstall = subprocess.run([t.binary, "sql", "postgres", "--uninstall"], check=True,
                               stdout=subprocess.PIPE).stdout
    database.psql(uninstall.decode())
    equal(database.psql("select count(*) from pg_proc where proname like 'fanwire%'"), "0")


@case(postgres=True)
def test_publish_by_http(t):
    """200 when Postgres has it; the id is null, as Postgres does not tell."""
    database = t.database()
    server = t.server(database.url, workers=2)
    v1 = t.ws(server, "/ws/x", protocol="fanwire.v1")
    v1.until("ready")
    equal(len(database.connections()), 1, ONLY_ONE)
    response = server.publish("x", "hello")
    equal((response.status, response.json), (200, {"id": None}))
    message = v1.expect("message")
    equal(message["text"], "hello")
    assert message["id"], "but readers get one"
    equal(len(database.connections()), 2, "the one command connection, opened when first needed")
    for payload in (b"\xff\x00binary", b"nul \0 inside", "žluť".encode(), b"", b"{\"a\":1}",
                    b"\x1elooks like an envelope"):
        equal(server.publish("x", payload).status, 200)
    found = [v1.expect("message") for _ in range(6)]
    equal([set(m) & {"data", "text", "base64"} for m in found],
          [{"base64"}, {"text"}, {"text"}, {"text"}, {"data"}, {"text"}])
    equal(found[1]["text"], "nul \0 inside")
    equal(found[5]["text"], "\x1elooks like an envelope")
    equal(server.publish("y" * 255, "x").status, 200, "names over 63 bytes go by the envelope")
    v1.say(type="publish", channel="x", text="from v1", ref=1)
    found = {m["type"]: m for m in (v1.json(), v1.json())}
    equal((found["ok"]["ref"], found["ok"]["id"]), (1, None))
    equal(found["message"]["text"], "from v1")
    assert found["message"]["from"]
    equal(len(database.connections()), 2)


@case(postgres=True)
def test_payload_over_8000_bytes(t):
    database = t.database()
    server = t.server(database.url, workers=1)
    v1 = t.ws(server, "/ws/x", protocol="fanwire.v1")
    v1.until("ready")
    equal(server.publish("x", b"x" * 7900).status, 200)
    for payload in (b"x" * 8000, b"x" * 100000, b"\xff" * 6500):
        response = server.publish("x", payload)
        equal((response.status, response.code), (413, "too-large"))
        assert "notify" in response.json["detail"], response.json
    equal(len(v1.expect("message")["text"]), 7900)
    v1.say(type="publish", channel="x", text="x" * 8000, ref=1)
    equal(v1.expect("error")["code"], "too-large")
    equal(server.publish("x", b"small").status, 200)
    equal(v1.expect("message")["text"], "small")


@case(postgres=True)
def test_password_is_not_to_be_seen(t):
    database = t.database()
    url = "postgres://secret:s3cr3t%%2Fpass%%40word@127.0.0.1:%d/%s" % (
        database.cluster.port, database.name)
    by_argument = t.server(url, workers=2)
    by_variable = t.server(None, workers=2, env={"FANWIRE_SOURCE": url})
    for server in (by_argument, by_variable):
        assert "s3cr3t" not in server.log, "in the log"
        for pid in [server.pid] + server.children():
            for file in ("cmdline", "environ"):
                with open("/proc/%d/%s" % (pid, file), "rb") as f:
                    assert b"s3cr3t" not in f.read(), "%s of %d" % (file, pid)
        # The workers, which talk to strangers, do not even have it in memory.
        for pid in server.workers().values():
            assert t.sanitized or not memory_has(pid, b"s3cr3t"), "in a worker's memory"
        titles = sorted(server.titles().values())
        equal(titles, ["fanwire: source postgres", "fanwire: worker 1", "fanwire: worker 2"])
    wrong = t.server(url.replace("s3cr3t", "wr0ng"), workers=1, up=False)
    line = wrong.wait_for_log(event="lost")
    assert "password authentication failed" in line["msg"], line
    assert "wr0ng" not in wrong.log


def memory_has(pid, needle):
    with open("/proc/%d/maps" % pid) as maps, open("/proc/%d/mem" % pid, "rb", 0) as memory:
        for line in maps:
            span, access, rest = line.split(None, 2)
            if "r" not in access or "memfd" in rest or "[v" in rest:
                continue
            start, end = (int(x, 16) for x in span.split("-"))
            try:
                memory.seek(start)
                found = memory.read(end - start)
                at = found.find(needle)
                if at >= 0:
                    print("at %x of %s: %r" % (start + at, rest.strip(), found[at - 40:at + 40]))
                    return True
            except OSError:
                continue
    return False


def test_absent_database(t):
    """It waits, says so, is not ready; and works when the database appears."""
    database = t.postgres(start=False)
    server = t.server(database.url, workers=2, up=False)
    line = server.wait_for_log(event="lost")
    equal((line["level"], line["source"]), ("warning", "postgres"))
    response = server.ready()
    equal((response.status, response.code), (503, "source-down"))
    equal(server.get("/healthz").status, 200)
    v1 = t.ws(server, "/ws/x", protocol="fanwire.v1")
    v1.expect("welcome")
    v1.expect("down")
    sse = t.sse(server, "/sse/x")
    sse.expect("down")
    bare = t.ws(server, "/ws/x?since=oldest")
    response = server.publish("x", "hello")
    equal((response.status, response.code), (503, "source-down"))
    assert "retry-after" in response.headers
    v1.say(type="publish", channel="x", text="hello", ref=1)
    equal(v1.expect("error")["code"], "source-down")
    equal(server.get("/history/x").json["events"], [])
    database.start()
    for client in (v1, sse):
        before, _ = client.until("ready", timeout=15)
        equal([getattr(m, "kind", None) or m["type"] for m in before], ["up"])
    equal(server.ready().status, 200)
    equal(server.publish("x", "hello").status, 200)
    equal(v1.expect("message")["text"], "hello")
    equal(sse.expect("message").data, "hello")
    equal(bare.message(), "hello")


@case(timeout=90, alone=True)
def test_a_thousand_websockets_one_connection(t):
    """And then the outages: pg_terminate_backend, a restart."""
    database = t.postgres()
    server = t.server(database.url, workers=2)
    crowd = t.crowd(server)
    bare = crowd.add(300, "/ws/todos?since=oldest", "bare")
    ignoring = crowd.add(300, "/ws/todos?since=oldest&gap=ignore", "bare")
    v1 = crowd.add(300, "/ws/todos", "json")
    two = crowd.add(50, "/ws?channel=todos&channel=more", "json")
    sse = crowd.add(50, "/sse/todos", "sse")
    equal(set(server.worker_of([m.socket for m in crowd.members])), set(server.workers().values()))
    equal(len(database.connections()), 1, ONLY_ONE)

    database.notify("todos", "by psql")
    crowd.wait(lambda: all(m.payloads for m in crowd.members), 10)
    equal(server.publish("todos", "by http").status, 200)
    crowd.wait(lambda: all(len(m.payloads) == 2 for m in crowd.members), 10)
    assert all(m.payloads == ["by psql", "by http"] for m in crowd.members)
    assert len(database.connections()) <= 2

    told = v1 + two + sse
    database.terminate(database.listening())
    crowd.wait(lambda: all(m.of("up") for m in told), 10, "everybody is told up")
    look_at_outage(told, 1)
    back = time.monotonic()
    database.notify("todos", "after terminate")
    staying = ignoring + told
    crowd.wait(lambda: all(m.payloads[-1] == "after terminate" for m in staying), 5)
    assert time.monotonic() - back < 1.5, "events flow within a second"
    crowd.wait(lambda: all(m.close for m in bare), 10, "bare sockets are closed")
    equal({m.close[0] for m in bare}, {4102})

    database.stop()
    crowd.wait(lambda: all(len(m.of("down")) == 2 for m in told), 10, "everybody is told down")
    equal(server.publish("todos", "while away").code, "source-down")
    assert server.ready().status == 200 and server.ready(strict=True).status == 503
    started = time.monotonic()
    database.start()
    back = time.monotonic()
    crowd.wait(lambda: all(len(m.of("up")) == 2 for m in told), 15, "everybody is told up again")
    look_at_outage(told, 2)
    assert time.monotonic() - back < 1.5, "%.2f s after it was back (started in %.2f s)" % (
        time.monotonic() - back, back - started)
    response = server.publish("todos", "after restart")
    equal(response.status, 200, repr(response))
    crowd.wait(lambda: all(m.payloads[-1] == "after restart" for m in staying), 5)
    for member in staying:
        equal(member.close, None, "nobody but bare sockets is dropped")
        equal(member.payloads, ["by psql", "by http", "after terminate", "after restart"])
    equal(len(server.events(event="exited")), 0)
    assert len(database.connections()) <= 2


def look_at_outage(members, n):
    """Each has exactly n of down, gap and up, in turn; the gap is of all channels."""
    for member in members:
        kinds = [m["type"] if isinstance(m, dict) else m.kind for m in member.messages]
        kinds = [k for k in kinds if k in ("down", "gap", "up")]
        equal(kinds, ["down", "gap", "up"] * n, "of %s" % member.path)
        gap = member.of("gap")[-1]
        assert "channel" not in gap and gap["after"] and gap["before"], gap
        equal(gap["reason"], "connection-lost")


@case(postgres=True)
def test_resuming_over_an_outage_is_a_gap(t):
    """Who was away while the connection was lost is told, when it comes back with its position."""
    database = t.database()
    server = t.server(database.url, workers=2)
    v1 = t.ws(server, "/ws/x", protocol="fanwire.v1")
    v1.until("ready")
    database.notify("x", "1")
    before_outage = v1.expect("message")["id"]
    database.terminate(database.listening())
    v1.until("up")
    database.notify("x", "2")
    after_outage = v1.expect("message")["id"]
    for client in (t.ws(server, "/ws/x?since=" + before_outage, protocol="fanwire.v1"),
                   t.sse(server, "/sse/x?since=" + before_outage)):
        kinds = [getattr(m, "kind", None) or m["type"] for m in client.until("ready")[0]]
        equal([k for k in kinds if k != "welcome"], ["gap", "message"])
    equal(t.ws(server, "/ws/x?since=" + before_outage).closed()[1], 4102)
    ignoring = t.ws(server, "/ws/x?gap=ignore&since=" + before_outage)
    equal(ignoring.message(), "2")
    found = server.get("/history/x?since=" + before_outage).json
    equal((found["gap"]["reason"], [e["data"] for e in found["events"]]), ("connection-lost", [2]))
    # no outage since: nothing is told
    before, _ = t.ws(server, "/ws/x?since=" + after_outage, protocol="fanwire.v1").until("ready")
    equal([m["type"] for m in before], ["welcome"])
    equal(server.get("/history/x?since=" + after_outage).json["gap"], None)


@case(postgres=True, timeout=90)
def test_a_connection_that_is_cut(t):
    """By the network, again and again, while events flow: each outage told once, in order."""
    database = t.database()
    proxy = t.proxy(database.cluster.port)
    server = t.server(database.url_through(proxy.port), workers=2)
    crowd = t.crowd(server)
    crowd.add(10, "/ws/x", "json")
    crowd.add(10, "/sse/x", "sse")
    for outage in range(1, 5):
        for i in range(5):
            database.notify("x", "%d of %d" % (i, outage))
        crowd.wait(lambda: all(m.payloads[-1:] == ["4 of %d" % outage] for m in crowd.members))
        proxy.cut()
        crowd.wait(lambda: all(len(m.of("up")) == outage for m in crowd.members), 15)
        look_at_outage(crowd.members, outage)
    expected = ["%d of %d" % (i, outage) for outage in range(1, 5) for i in range(5)]
    for member in crowd.members:
        equal(member.payloads, expected)
    equal(len(database.connections()), 1)
    server.wait_for_metric("fanwire_source_reconnects_total", lambda n: n == 4)


@case(postgres=True, timeout=90, long_only=True)
def test_a_connection_that_hangs(t):
    """No byte comes, no end either: noticed by asking, not by waiting for ever."""
    database = t.database()
    proxy = t.proxy(database.cluster.port)
    server = t.server(database.url_through(proxy.port), workers=1)
    v1 = t.ws(server, "/ws/x?heartbeat=60", protocol="fanwire.v1", timeout=60)
    v1.until("ready")
    proxy.stall()
    v1.until("down", timeout=40)
    proxy.cut()
    proxy.resume()
    v1.until("up", timeout=10)


@case(postgres=True)
def test_url_variants(t):
    """SQLAlchemy's scheme, ORM parameters; what is not understood is said."""
    database = t.database()
    rest = database.url.partition("://")[2]
    for url in ("postgresql://" + rest, "postgresql+asyncpg://" + rest, "postgis://" + rest,
                "postgres://%s?schema=public&connection_limit=5&pgbouncer=true" % rest,
                "postgres://%s?mode=notify" % rest,
                "postgres:///%s?host=%s&port=%d&user=postgres" % (
                    database.name, quote(database.cluster.dir), database.cluster.port)):
        server = t.server(url, workers=1)
        equal(server.publish("x", "hello").status, 200)
        equal(server.stop(), 0)
    assert "schema" in t_log(t, "postgres://%s?schema=public" % rest), "a warning names them"
    t.server(database.url, "--mode", "notify", workers=1)


def t_log(t, url):
    server = t.server(url, workers=1)
    server.stop()
    return "\n".join(line["msg"] for line in server.events(level="warning") if "msg" in line)


@case(postgres=True)
def test_foreign_off(t):
    """?foreign=off: nothing is ever un-listened, so a returning sole subscriber gets no gap."""
    database = t.database()
    install(t, database)
    server = t.server(database.url + "?foreign=off", "--linger", "1ms", workers=1)
    v1 = t.ws(server, "/ws/x", protocol="fanwire.v1")
    position = v1.until("ready")[1]["id"]
    v1.drop()
    server.wait_for_metric("fanwire_subscriptions", lambda n: n == 0)
    for i in range(3):
        database.psql("select fanwire_publish('x', '%d')" % i)
        database.notify("x", "foreign, not heard")
    eventually(lambda: server.metric("fanwire_source_events_total") == 3)
    again = t.ws(server, "/ws/x?since=" + position, protocol="fanwire.v1")
    equal([m.get("data", m["type"]) for m in again.until("ready")[0]], ["welcome", 0, 1, 2])


@case(postgres=True)
def test_installed_for_another_mode(t):
    """The installed SQL states where it writes: reading elsewhere would hear nothing."""
    database = t.database()
    install(t, database)
    database.psql("update fanwire.installation set mode = 'telepathy'")
    server = t.server(database.url, workers=1, up=False)
    line = server.wait_for_log(event="misconfigured", level="error")
    assert '"telepathy"' in line["msg"], line
    equal(server.ready().status, 503)
    refused = server.publish("x", "nobody would hear it")
    equal((refused.status, refused.json["code"]), (503, "source-down"))
    # … until what the message says was run.
    command = line["msg"].partition("SQL: fanwire ")[2].partition(" |")[0]
    sql = subprocess.run([t.binary] + command.split(), stdout=subprocess.PIPE, check=True).stdout
    database.psql(sql.decode())
    server.wait_until_ready(15)
    database.psql("select fanwire_publish('x', 'heard')")
    eventually(lambda: server.metric("fanwire_source_events_total") == 1)


@case(postgres=True)
def test_order_of_a_transaction(t):
    """Foreign names and fanwire_publish mixed in one transaction: one order for everybody."""
    database = t.database()
    install(t, database)
    server = t.server(database.url, workers=2)
    crowd = t.crowd(server)
    crowd.add(6, "/ws?channel=a&channel=b&channel=c", "json")
    crowd.add(6, "/sse?channel=a&channel=b&channel=c", "sse")
    crowd.wait(lambda: all(ready_count(m) == 3 for m in crowd.members))
    statements, sent = ["begin"], []
    for i in range(300):
        channel = t.random.choice("abc")
        sent.append((channel, i))
        if t.random.random() < 0.5:
            statements.append("select pg_notify('%s', '%d')" % (channel, i))
        else:
            statements.append("select fanwire_publish('%s', '%d')" % (channel, i))
    database.psql(";".join(statements + ["commit"]))
    for member in crowd.members:
        def got():
            found = [m if member.kind == "json" else m.json for m in member.messages]
            return [(m["channel"], m["data"]) for m in found if m["type"] == "message"]
        crowd.wait(lambda: len(got()) == 300)
        equal(got(), sent)


def ready_count(member):
    found = [m if member.kind == "json" else m.json for m in member.messages]
    return sum(m["type"] == "ready" for m in found)


@case(postgres=True)
def test_a_bulk_transaction(t):
    """Three times what the log holds, in one transaction. Who reads too slowly is told so; each
    gets the newest in the end, in order; and clients of other channels hear of nothing."""
    database = t.database()
    server = t.server(database.url, "--retain", "4M", workers=2)
    crowd = t.crowd(server)
    v1 = crowd.add(3, "/ws/x", "json")
    sse = crowd.add(3, "/sse/x", "sse")
    n = 6000
    with undisturbed(t, server):
        database.psql("select pg_notify('x', i || ':' || repeat('x', 2000)) "
                      "from generate_series(0, %d) i" % (n - 1))
        server.wait_for_metric("fanwire_source_events_total", lambda count: count >= n, 30)
        last = publish_until_seen(crowd, v1 + sse, lambda i: database.notify("x", "%d:last" % i), n)
    for member in v1 + sse:
        look_at_order(member, last)


@case(postgres=True)
def test_source_process_gone_while_publishing(t):
    """Every publish is answered: stored, or 503 and perhaps stored; none hangs."""
    database = t.database()
    server = t.server(database.url, workers=2, exits_expected=True)
    v1 = t.ws(server, "/ws/x", protocol="fanwire.v1")
    v1.until("ready")
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        answers = [pool.submit(server.publish, "x", str(i)) for i in range(200)]
        eventually(lambda: sum(a.done() for a in answers) > 50)
        os.kill(server.source_pid(), signal.SIGKILL)
        found = [a.result(timeout=20) for a in answers]
    equal({a.status for a in found} - {200, 503}, set())
    assert all(a.code == "source-down" for a in found if a.status == 503)
    server.wait_until_ready()
    equal(server.publish("x", '"end"').status, 200)
    before = []
    while not before or before[-1].get("data") != "end":
        before.append(v1.json())
    equal([m["type"] for m in before if m["type"] in ("down", "gap", "up")], ["down", "gap", "up"])
    seen = [m["data"] for m in before if m["type"] == "message"]
    equal(len(seen), len(set(seen)), "none twice")
