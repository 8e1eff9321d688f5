"""Mode wal and what befalls its database: a dump put back, other SQL installed, WAL that is kept; and
publishing to it by HTTP."""
import json
import os
import signal
import subprocess

from case import case, equal, eventually
from test_wal import client, postgres, publish, slot, sql_of, start, take, text_of
from test_outbox import Session


def batch(server, events, **headers):
    return server.request("POST", "/publish", json.dumps(events).encode(), headers=headers)


@case(timeout=90)
def test_a_dump_is_restored_with_what_it_watches(t):
    """Tables have other numbers then. Who watches a table that is gone is told by the doctor."""
    old, new = postgres(t), t.postgres(wal_level="logical")
    old.psql("create table gone (id int primary key); create table todos (id int primary key);"
             "create schema \"My app\"; create table \"My app\".\"T\" (id int primary key, b int);"
             "select fanwire_watch('todos', 'x');"
             "select fanwire_watch('gone', 'x'); drop table gone;"
             "select fanwire_watch('\"My app\".\"T\"', 'x:{b}')")
    new.psql("".join("create table other_%d (id int);" % i for i in range(20)))
    dump = subprocess.run([old.cluster.bin + "/pg_dump", old.url], stdout=subprocess.PIPE,
                          check=True, text=True).stdout
    new.psql(dump)
    listed = "set search_path = pg_catalog; select tbl, channel from fanwire.watched order by 2"
    equal(new.psql(listed), old.psql(listed))
    report = json.loads(subprocess.run([t.binary, "doctor", "--json", new.url + "?node=a"],
                                       stdout=subprocess.PIPE).stdout)
    found = [f for f in report["findings"] if f["id"] == "watched"]
    equal([f["level"] for f in found], ["warning"], report)
    assert "x" in found[0]["title"], found
    server = start(t, new)
    ws = t.ws(server, "/ws?channel=x&channel=x:2", protocol="fanwire.v1")
    for _ in range(2):
        ws.until("ready")
    new.psql("insert into todos values (1); insert into \"My app\".\"T\" values (2, 2)")
    equal([ws.expect("message")["data"]["key"] for _ in range(2)], [{"id": 1}, {"id": 2}])
    # what is changed later goes by the new number, too
    new.psql("select fanwire_watch('todos', 'x', array[]::text[]); select fanwire_unwatch("
             "'\"My app\".\"T\"'); insert into \"My app\".\"T\" values (3, 2);"
             "insert into todos values (4); select fanwire_unwatch('todos');"
             "insert into todos values (5); select fanwire_publish('x', 'end')")
    equal([text_of(ws.expect("message")) if i else ws.expect("message")["data"]["key"]
           for i in range(2)], [{"id": 4}, "end"])


@case(timeout=120)
def test_what_the_slot_keeps_is_told(t):
    """As Postgres counts it: an open transaction holds WAL that was read long ago."""
    database = postgres(t)
    start(t, database).stop()
    holder = Session(t, database)
    database.psql("create table noise (t text)")
    holder.run("begin; insert into noise values ('open')")
    database.psql("insert into noise select repeat(md5(i::text), 30) from generate_series(1, 20000) i")
    end = database.psql("select pg_current_wal_lsn()")
    server = start(t, database, "--retain-for", "1s")
    eventually(lambda: slot(database, "confirmed_flush_lsn >= '%s'" % end) == "t", 30, "confirmed")
    kept = float(slot(database, "pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)"))
    assert kept > 10e6, kept
    value = server.wait_for_metric("fanwire_source_retained_bytes", lambda n: n > 0.9 * kept)
    assert value < 1.2 * kept + 1e6, (value, kept)
    holder.run("commit")
    database.psql("checkpoint")
    server.wait_for_metric("fanwire_source_retained_bytes", lambda n: n < 1e6, 75)
    equal(len(database.connections()), 1)  # it was asked on a connection that is closed again


@case(timeout=90)
def test_the_sql_of_another_mode_is_noticed(t):
    """Also where no row is watched, and the old message is not taken for a new one."""
    database = postgres(t)
    server = start(t, database)
    ws, _, _ = client(t, server, "x")
    for mode in ("notify", "wal", "outbox", "wal"):
        n = len(server.events(event="opened"))
        database.psql(sql_of(t, mode))
        publish(database, "x", "lost" if mode == "notify" else "kept")
        eventually(lambda: len(server.events(event="opened")) > n, 20, mode)
        equal(server.events(event="opened")[-1]["mode"], mode)
        ws.until("up", 20)
        publish(database, "x", "in " + mode)
        _, message = ws.until("message", 20)
        while text_of(message) != "in " + mode:
            message = ws.expect("message")
    equal(len(server.events(event="opened")), 5)
    database.psql(sql_of(t, "wal", "--uninstall"))
    eventually(lambda: server.events(event="opened")[-1]["mode"] == "notify", 20, "uninstalled")


@case(timeout=60)
def test_batches_and_keys(t):
    """All or nothing, in one transaction; a repeat is none, also after everything has ended."""
    database = postgres(t)
    server = start(t, database, exits_expected=True)
    ws, _, ready = client(t, server, "x")
    events = [{"channel": "x", "data": i, "key": "k%d" % i} for i in range(3)]
    response = batch(server, events)
    equal((response.status, response.json), (200, {"ids": [None] * 3}))
    equal(take(ws, 3), [0, 1, 2])
    history = server.get("/history/x?since=oldest").json["events"]
    equal(len({e["id"].rsplit(".", 1)[0] for e in history}), 1, "one commit")
    refused = batch(server, [{"channel": "x", "data": "never"}, {"channel": "$fanwire/x", "data": 1}])
    assert refused.status >= 400, refused
    equal(batch(server, [{"channel": "x", "text": "nul \0"}] * 2).status, 200)
    equal(take(ws, 2), ["nul \0"] * 2)
    # repeats
    for _ in range(2):
        response = server.publish("x", "once", headers={"Idempotency-Key": '"7"'})
        equal((response.status, response.json), (200, {"id": None}))
    equal(batch(server, events + [{"channel": "x", "data": 3}]).status, 200)
    equal(take(ws, 2), ["once", 3])
    publish(database, "x", "by SQL")
    database.psql("select fanwire_publish('x', 'again', key => '7')")
    equal(take(ws, 1), ["by SQL"])
    ws.quiet()
    for way in ("source", "fanwire", "postgres"):
        if way == "source":
            os.kill(server.source_pid(), signal.SIGKILL)
            ws.until("up")
        elif way == "fanwire":
            os.kill(server.pid, signal.SIGKILL)
            server.wait()
            server = start(t, database, exits_expected=True)
        else:
            database.restart()
            ws.until("up")
        equal(server.publish("x", "once", headers={"Idempotency-Key": '"7"'}).status, 200)
        equal(batch(server, events).status, 200)
        publish(database, "x", "after " + way)
        ws, before, _ = client(t, server, "x", "?since=" + ready["id"])
        found = [text_of(m) for m in before]
        while "after " + way not in found:
            found.append(text_of(ws.expect("message")))
        equal([found.count(p) for p in (0, 1, 2, "once")], [1, 1, 1, 1], way)
