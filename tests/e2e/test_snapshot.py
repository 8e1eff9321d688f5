"""Rows joined to the stream: what a joiner has after them is what the database has, with nothing
missing and nothing told twice, whatever is written meanwhile."""
import json
import os
import signal
import sqlite3
import subprocess
import threading

from case import case, equal, eventually
from server import alive

ITEMS = 12
WRITERS = 8
TRANSACTIONS = 150
QUERY = "items=SELECT id, n FROM items"
# Longer ones, so that much is committed while they run.
SLOW_QUERY = "items=SELECT id, n FROM items, (SELECT pg_sleep(0.03)) s"
SLOW_SQLITE_QUERY = ("items=SELECT id, n FROM items WHERE (WITH RECURSIVE r(i) AS (SELECT 1 UNION ALL "
                     "SELECT i + 1 FROM r WHERE i < 100000) SELECT max(i) FROM r) > id")
CHANGE = ("with u as (update items set n = n + 1 where id = %d returning id, n) "
          "select fanwire_publish('items', json_build_object('id', id, 'n', n)) from u;")
TABLE = ("create table items (id int primary key, n int not null);"
         "insert into items select i, 0 from generate_series(0, %d) i;" % (ITEMS - 1))


# ---- databases ----

def sql_of(t, mode):
    return subprocess.run([t.binary, "sql", "postgres", "--mode", mode], stdout=subprocess.PIPE,
                          check=True).stdout.decode()


def postgres(t, mode, **settings):
    settings.update({"wal_level": "logical"} if mode == "wal" else {})
    database = t.postgres(**settings)
    database.psql(sql_of(t, mode) + TABLE)
    return database


def transactions(random, n=TRANSACTIONS):
    """Of one writer: some long, some with their id long before they write, some rolled back."""
    lines = []
    for _ in range(n):
        lines.append("begin;")
        if random.random() < 0.2:
            lines.append("select pg_current_xact_id();")
        if random.random() < 0.3:
            lines.append("select pg_sleep(%.4f);" % (random.random() * 0.02))
        first, second = sorted(random.randrange(ITEMS) for _ in range(2))  # no deadlocks
        lines.append(CHANGE % first)
        if random.random() < 0.2:
            lines.append("savepoint s; " + CHANGE % second +
                         random.choice((" rollback to s;", " release s;")))
        if random.random() < 0.2:
            lines.append("select pg_sleep(%.4f);" % (random.random() * 0.02))
        lines.append("rollback;" if random.random() < 0.2 else "commit;")
    return "\n".join(lines)


class Writers:
    """psql processes."""

    def __init__(self, t, database):
        self._processes = []
        for _ in range(WRITERS):
            process = subprocess.Popen(
                ["psql", "-X", "-q", "-o", "/dev/null",
                 "postgres://postgres@127.0.0.1:%d/%s" % (database.cluster.port, database.name)],
                stdin=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
            threading.Thread(target=self._feed, args=(process, transactions(t.random)),
                             daemon=True).start()
            self._processes.append(process)
            t.cleanup(process.kill)

    @staticmethod
    def _feed(process, script):
        process.stdin.write(script)
        process.stdin.close()

    def running(self):
        return any(process.poll() is None for process in self._processes)


class SqliteWriters:
    def __init__(self, t, path):
        self._left = WRITERS
        self._lock = threading.Lock()
        for _ in range(WRITERS):
            seed = t.random.random()
            threading.Thread(target=self._run, args=(t, path, seed), daemon=True).start()

    def _run(self, t, path, seed):
        import random
        choose = random.Random(seed)
        connection = sqlite3.connect(path, timeout=60, isolation_level=None)
        for _ in range(2 * TRANSACTIONS):
            item = choose.randrange(ITEMS)
            connection.execute("begin immediate")
            connection.execute("update items set n = n + 1 where id = ?", (item,))
            connection.execute(
                "insert into fanwire_outbox (channel, payload) select 'items', "
                "json_object('id', id, 'n', n) from items where id = ?", (item,))
            connection.execute("rollback" if choose.random() < 0.2 else "commit")
        connection.close()
        with self._lock:
            self._left -= 1

    def running(self):
        return self._left > 0


def sqlite_file(t):
    path = t.directory + "/app.db"
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("pragma journal_mode = wal")
    connection.execute("create table items (id integer primary key, n integer not null)")
    connection.executemany("insert into items values (?, 0)", [(i,) for i in range(ITEMS)])
    return path, connection


# ---- joiners ----

def join_while(crowd, writers, batch=5, least=60):
    """Joins again and again while somebody writes. WebSockets that subscribe by URL."""
    members = []
    while writers.running() or len(members) < least:
        members += crowd.add(batch, "/ws?channel=items&snapshot=1", "json", timeout=60)
        crowd.pump(0)
    return members


def kinds(member):
    return [m["type"] for m in member.messages]


def versions(member):
    """({id: n} of the rows, [(id, n)] of the events); rows first, then the events, then ready,
    then events."""
    found = [k for k in kinds(member) if k in ("snapshot", "ready")]
    equal(found, ["snapshot"] * ITEMS + ["ready"])
    first = kinds(member).index("snapshot")
    equal(kinds(member)[first:first + ITEMS], ["snapshot"] * ITEMS)
    rows = {m["data"]["id"]: m["data"]["n"] for m in member.of("snapshot")}
    return rows, [(m["data"]["id"], m["data"]["n"]) for m in member.of("message")]


def look_at(members, final, ordered=True):
    """Each version after the rows' once, up to the last; in order, where commits have one."""
    joined = 0
    for member in members:
        rows, events = versions(member)
        equal(member.of("gap") + member.of("unsubscribed"), [])
        for item, n in final.items():
            found = [v for i, v in events if i == item]
            equal(found if ordered else sorted(found), list(range(rows[item] + 1, n + 1)),
                  "item %d after version %d" % (item, rows[item]))
        joined += 0 < sum(rows.values()) < sum(final.values())
    assert joined, "nobody has joined while somebody wrote"


def wait_for(crowd, members, final):
    def complete(member):
        rows, events = versions(member)
        return len(events) >= sum(final.values()) - sum(rows.values())
    crowd.wait(lambda: all(complete(m) for m in members), 30, "all have the last version")


def final_of(database):
    rows = database.psql("select json_object_agg(id, n) from items")
    return {int(item): n for item, n in json.loads(rows).items()}


def look_at_writers(t, database, ordered, query, *arguments):
    server = t.server(database.url, "--snapshot", query, *arguments)
    crowd = t.crowd(server)
    members = join_while(crowd, Writers(t, database))
    final = final_of(database)
    wait_for(crowd, members, final)
    look_at(members, final, ordered)
    equal(server.events(event="snapshot-failed"), [])
    return server, members


@case(timeout=120)
def test_wal(t):
    look_at_writers(t, postgres(t, "wal"), True, QUERY, "--node", "a")


@case(timeout=120)
def test_wal_without_a_durable_slot(t):
    look_at_writers(t, postgres(t, "wal"), True, SLOW_QUERY)


@case(timeout=120)
def test_outbox(t):
    """Its order is that of transactions' ids: versions of one row may come in another."""
    look_at_writers(t, postgres(t, "outbox"), False, QUERY)


@case(timeout=120)
def test_outbox_and_a_slow_query(t):
    look_at_writers(t, postgres(t, "outbox"), False, SLOW_QUERY)


@case(timeout=120)
def test_sqlite(t):
    path, connection = sqlite_file(t)
    server = t.server("sqlite:" + path, "--snapshot", SLOW_SQLITE_QUERY)
    crowd = t.crowd(server)
    members = join_while(crowd, SqliteWriters(t, path))
    final = dict(connection.execute("select id, n from items").fetchall())
    wait_for(crowd, members, final)
    look_at(members, final)
    equal(server.events(event="snapshot-failed"), [])


@case(timeout=120)
def test_notify(t):
    """Nothing is missing; what the rows have may be told again."""
    database = postgres(t, "notify")
    server = t.server(database.url, "--snapshot", QUERY)
    crowd = t.crowd(server)
    members = join_while(crowd, Writers(t, database))
    final = final_of(database)

    def state(member):
        rows, events = versions(member)
        for item, n in events:
            rows[item] = max(rows[item], n)
        return rows
    crowd.wait(lambda: all(state(m) == final for m in members), 30, "all have the last versions")
    for member in members:
        rows, events = versions(member)
        for item, n in final.items():
            missing = set(range(rows[item] + 1, n + 1)) - {v for i, v in events if i == item}
            equal(missing, set(), "item %d after version %d" % (item, rows[item]))


# ---- an open transaction ----

def subscribe(t, server, channel="items"):
    ws = t.ws(server, "/ws", protocol="fanwire.v1")
    ws.say(type="subscribe", channel=channel, snapshot=True, ref="s")
    return ws


def until_ready(ws):
    """(rows, events before ready, ready)"""
    before, ready = ws.until("ready", 30)
    equal(ready["ref"], "s")
    rows = [m["data"] for m in before if m["type"] == "snapshot"]
    return rows, [m["data"] for m in before if m["type"] == "message"], ready


def version(rows, item=0):
    return next(r["n"] for r in rows if r["id"] == item)


def look_at_open_transaction(t, mode, *arguments):
    """One that was open when the rows were read, and long before: its event comes after them."""
    from test_outbox import Session
    database = postgres(t, mode)
    server = t.server(database.url, "--snapshot", QUERY, *arguments)
    writer = Session(t, database)
    writer.run("begin")
    writer.run(CHANGE.rstrip(";") % 0)
    ws = subscribe(t, server)
    rows, events, _ = until_ready(ws)
    equal((version(rows), events), (0, []))
    writer.run("commit")
    equal(ws.expect("message")["data"], {"id": 0, "n": 1})
    rows, events, ready = until_ready(subscribe(t, server))
    equal((version(rows), events), (1, []))
    # The place at `ready` contains what the rows have: who resumes there has all.
    again = t.ws(server, "/ws", protocol="fanwire.v1")
    again.say(type="subscribe", channel="items", since=ready["id"])
    before, _ = again.until("ready")
    equal([m["type"] for m in before], ["welcome"])


@case()
def test_open_transaction_wal(t):
    look_at_open_transaction(t, "wal")


@case()
def test_open_transaction_outbox(t):
    look_at_open_transaction(t, "outbox")


@case()
def test_quiet_database(t):
    """Nobody writes: nobody waits for somebody to write."""
    for mode in ("wal", "outbox"):
        server = t.server(postgres(t, mode).url, "--snapshot", QUERY)
        for _ in range(3):
            rows, events, _ = until_ready(subscribe(t, server))
            equal((len(rows), events), (ITEMS, []))


# ---- how it is asked ----

@case()
def test_forms(t):
    path, _ = sqlite_file(t)
    server = t.server("sqlite:" + path, "--snapshot", QUERY + " ORDER BY id LIMIT 2 ; ",
                      env={"FANWIRE_SNAPSHOT": "a=SELECT 1 AS b\nc=SELECT 2 AS d"})
    sse = t.sse(server, "/sse?channel=items&snapshot=1")
    equal([sse.envelope() for _ in range(2)],
          [{"type": "snapshot", "channel": "items", "data": {"id": i, "n": 0}} for i in range(2)])
    equal(sse.envelope()["type"], "ready")
    # Who is cut off among the rows begins anew; from `ready` on it resumes.
    assert sse.wire.index(b"id: ") > sse.wire.rindex(b'"snapshot"'), sse.wire
    assert sse.last_id
    server.publish_ok("items", b"1")
    sse.reopen()  # with Last-Event-ID: no rows
    equal([sse.envelope()["type"] for _ in range(2)], ["message", "ready"])
    ws = t.ws(server, "/ws/items?snapshot=1", protocol="fanwire.v1")
    equal([m["type"] for m in ws.until("ready")[0]], ["welcome", "snapshot", "snapshot"])
    # the flag has replaced the environment's
    ws.say(type="subscribe", channel="a", snapshot=True, ref=1)
    found = ws.expect("error")
    equal((found["code"], found["ref"]), ("not-supported", 1))


@case(postgres=True)
def test_values(t):
    path, connection = sqlite_file(t)
    connection.execute("create table other (a, b, c, d)")
    connection.execute("insert into other values (0.1, x'00ff', null, ?)", ("two\r\nlines \"q\"",))
    server = t.server("sqlite:" + path,
                      env={"FANWIRE_SNAPSHOT": "other=SELECT * FROM other\nnone=SELECT 1 WHERE 0"})
    ws = subscribe(t, server, "other")
    rows, _, _ = until_ready(ws)
    equal(rows, [{"a": 0.1, "b": "00FF", "c": None, "d": "two\r\nlines \"q\""}])
    equal(until_ready(subscribe(t, server, "none"))[0], [])
    database = t.database()
    server = t.server(database.url, "--snapshot",
                      "pg=SELECT 1.50 AS a, true AS b, '{\"x\":\n 1}'::json AS c, 'é' AS d, "
                      "NULL AS e -- a comment at the end")
    rows, _, _ = until_ready(subscribe(t, server, "pg"))
    equal(rows, [{"a": 1.5, "b": True, "c": {"x": 1}, "d": "é", "e": None}])


@case()
def test_refused_questions(t):
    path, _ = sqlite_file(t)
    server = t.server("sqlite:" + path, "--snapshot", QUERY, "--snapshot", "secret=SELECT 1",
                      public=("items", "free"))

    def sse(query):
        response = server.get("/sse" + query)
        return response.status, response.json["code"]
    equal(sse("/items?snapshot=1"), (400, "bad-request"))
    equal(sse("?channel=items&snapshot=yes"), (400, "bad-request"))
    equal(sse("?channel=items&snapshot=1&last=3"), (400, "bad-request"))
    equal(sse("?channel=items&snapshot=1&since=oldest"), (400, "bad-request"))
    equal(sse("?channel=items&channel=free&snapshot=1"), (501, "not-supported"))
    equal(sse("?channel=secret&snapshot=1"), (403, "channel-forbidden"))
    equal(t.ws(server, "/ws/items?snapshot=1").closed()[1], 4000)
    ws = t.ws(server, "/ws", protocol="fanwire.v1")
    ws.expect("welcome")
    for more, code in (({"snapshot": 1}, "bad-request"),
                       ({"snapshot": True, "last": 2}, "bad-request"),
                       ({"snapshot": True, "since": "oldest"}, "bad-request"),
                       ({"snapshot": True, "channel": "secret"}, "channel-forbidden"),
                       ({"snapshot": True, "channel": "free"}, "not-supported")):
        ws.say(**dict({"type": "subscribe", "channel": "items"}, **more))
        equal(ws.expect("error")["code"], code, more)


@case()
def test_options(t):
    def run(source, *snapshots):
        words = [w for s in snapshots for w in ("--snapshot", s)]
        done = subprocess.run([t.binary, "serve", "--http", "127.0.0.1:0", "--admin", "off", *words,
                               source], stderr=subprocess.PIPE, timeout=20)
        return done.returncode, done.stderr.decode()
    for source in ("memory:", "stdin:a"):
        code, text = run(source, QUERY)
        equal(code, 2)
        assert "--snapshot is for databases" in text, text
    for bad in ("items", "items=", "=SELECT 1", "items=DELETE FROM items", "$fanwire/x=SELECT 1"):
        code, text = run("sqlite:" + t.directory + "/x.db", bad)
        equal(code, 2, bad)
        assert "--snapshot" in text, text
    code, text = run("sqlite:" + t.directory + "/x.db", QUERY, QUERY)
    equal(code, 2)
    assert "has two" in text, text


# ---- errors ----

def look_at_refusal(t, server, channel, code, why):
    ws = subscribe(t, server, channel)
    _, found = ws.until("unsubscribed", 45)
    equal((found["channel"], found["code"], found["ref"]), (channel, code, "s"))
    eventually(lambda: any(why in line["msg"] for line in server.events(event="snapshot-failed")),
               10, "the log says: " + why)
    ws.say(type="ping", ref=7)  # the connection goes on
    equal(ws.expect("ok")["ref"], 7)


BAD = ("--snapshot", "nope=SELECT missing FROM items",
       "--snapshot", "two=SELECT 1; SELECT 2",
       "--snapshot", "write=WITH d AS (DELETE FROM items RETURNING *) SELECT * FROM d")


@case(timeout=120, postgres=True)
def test_errors_postgres(t):
    database = t.database()
    database.psql(TABLE)
    server = t.server(database.url, *BAD, "--snapshot", QUERY, "--snapshot",
                      "many=SELECT repeat('x', 1000) FROM generate_series(1, 20000)",
                      "--snapshot", "slow=SELECT pg_sleep(60)")
    look_at_refusal(t, server, "nope", "source-refused", 'column "missing" does not exist')
    look_at_refusal(t, server, "two", "source-refused", "the rows of channel two")
    look_at_refusal(t, server, "write", "source-refused", "the rows of channel write")
    look_at_refusal(t, server, "many", "too-large", "more than 16 MiB")
    look_at_refusal(t, server, "slow", "source-refused", "statement timeout")
    equal(len(until_ready(subscribe(t, server))[0]), ITEMS)


@case(timeout=120)
def test_errors_sqlite(t):
    path, _ = sqlite_file(t)
    endless = ("WITH RECURSIVE r(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM r%s) "
               "SELECT %s AS x FROM r")
    server = t.server("sqlite:" + path, *BAD, "--snapshot", QUERY,
                      "--snapshot", "many=" + endless % ("", "hex(zeroblob(500))"),
                      "--snapshot", "slow=" + endless % ("", "sum(i)"))
    look_at_refusal(t, server, "nope", "source-refused", "no such column: missing")
    look_at_refusal(t, server, "two", "source-refused", "one query that only reads")
    look_at_refusal(t, server, "write", "source-refused", "the rows of channel write")
    look_at_refusal(t, server, "many", "too-large", "more than 16 MiB")
    look_at_refusal(t, server, "slow", "source-refused", "more than 5 s")
    equal(len(until_ready(subscribe(t, server))[0]), ITEMS)


@case()
def test_one_refused_of_several(t):
    """By URL: the others of the connection get on."""
    path, _ = sqlite_file(t)
    server = t.server("sqlite:" + path, "--snapshot", QUERY, "--snapshot", "bad=SELECT missing")
    ws = t.ws(server, "/ws?channel=bad&channel=items&snapshot=1")
    before, ready = ws.until("ready")
    equal(ready["channel"], "items")
    equal([m["type"] for m in before], ["welcome", "unsubscribed"] + ["snapshot"] * ITEMS)


# ---- many, large, and dying ----

@case(timeout=120)
def test_a_thousand_share_a_query(t):
    database = t.postgres(log_statement="all", log_min_messages="info")
    database.psql(TABLE)
    server = t.server(database.url, "--snapshot",
                      "big=SELECT i, repeat('x', 1000) AS x FROM generate_series(1, 200) i, "
                      "(SELECT pg_sleep(3)) s")
    crowd = t.crowd(server)
    members = crowd.add(1000, "/ws?channel=big&snapshot=1", "json", ready=False, timeout=60)
    crowd.wait(lambda: all(m.is_ready for m in members), 90, "all are ready")
    for member in members:
        equal([m["data"]["i"] for m in member.of("snapshot")], list(range(1, 201)))
    queries = server.metric("fanwire_snapshots_total")
    assert 1 <= queries <= 3, queries
    with open(database.cluster.dir + "/log") as f:
        equal(f.read().count("pg_sleep(3)"), queries)


@case(timeout=120)
def test_large_rows_and_slow_readers(t):
    path, connection = sqlite_file(t)
    server = t.server("sqlite:" + path, "--snapshot",
                      "big=WITH RECURSIVE r(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM r "
                      "WHERE i < 60) SELECT i, hex(zeroblob(100000)) AS x FROM r")
    crowd = t.crowd(server)
    slow = crowd.add(4, "/ws?channel=big&snapshot=1", "json", ready=False, receive_buffer=4096)
    crowd.pause(slow)
    quick = crowd.add(4, "/ws?channel=big&snapshot=1", "json", timeout=60)
    server.publish_ok("big", b'"later"')
    crowd.unpause(slow)
    crowd.wait(lambda: all(m.is_ready and m.of("message") for m in slow + quick), 60)
    for member in slow + quick:
        equal([m["data"]["i"] for m in member.of("snapshot")], list(range(1, 61)))
        equal({len(m["data"]["x"]) for m in member.of("snapshot")}, {200000})
        equal([m["data"] for m in member.of("message")], ["later"])


@case(timeout=60)
def test_the_source_process_is_killed_amid_a_query(t):
    """The next one asks again."""
    database = postgres(t, "outbox")
    database.psql("create function slowly() returns int language sql as "
                  "'select 1 from pg_sleep(1.5)'")
    server = t.server(database.url, "--snapshot", "items=SELECT id, n FROM items, slowly()",
                      exits_expected=True)
    ws = subscribe(t, server)
    eventually(lambda: "t" in database.psql(
        "select bool_or(query like '%slowly()%') from pg_stat_activity "
        "where application_name = 'fanwire'"), 10, "the query runs")
    pid = server.source_pid()
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: not alive(pid), 10)
    rows, events, _ = until_ready(ws)
    equal((len(rows), events), (ITEMS, []))
    database.psql(CHANGE % 3)
    equal(ws.until("message")[1]["data"], {"id": 3, "n": 1})


@case(timeout=60)
def test_the_connection_is_lost_amid_a_query(t):
    database = postgres(t, "wal")
    server = t.server(database.url, "--snapshot",
                      "items=SELECT id, n FROM items, (SELECT pg_sleep(1.5)) s", "--node", "a")
    ws = subscribe(t, server)

    def stream():
        return database.psql("select pid from pg_stat_replication")
    eventually(lambda: "t" in database.psql(
        "select bool_or(query like '%pg_sleep(1.5)%' and state = 'active') from pg_stat_activity "
        "where application_name = 'fanwire'"), 10, "the query runs")
    database.terminate(int(stream()))
    rows, events, _ = until_ready(ws)
    equal((len(rows), events), (ITEMS, []))
