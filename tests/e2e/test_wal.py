"""Mode wal: the write-ahead log by a replication slot; restarts of everything, resumes, slots."""
import glob
import json
import os
import signal
import subprocess
import time

import frames
from case import Skip, case, equal, eventually

SLOT = "fanwire_a"


def sql_of(t, mode, *arguments):
    return subprocess.run([t.binary, "sql", "postgres", "--mode", mode, *arguments],
                          stdout=subprocess.PIPE, check=True).stdout.decode()


def postgres(t, **settings):
    """A Postgres of its own with the SQL of mode wal."""
    database = t.postgres(**dict({"wal_level": "logical"}, **settings))
    database.psql(sql_of(t, "wal"))
    return database


def start(t, database, *arguments, node="a", **options):
    words = ["--node", node] if node else []
    return t.server(database.url, *words, *arguments, **options)


def publish(database, channel, *payloads):
    """Each in a transaction of its own."""
    database.psql("".join("select fanwire_publish('%s', '%s'::text);" % (channel, p)
                          for p in payloads))


def client(t, server, channel, query=""):
    """Ready; what came before."""
    ws = t.ws(server, "/ws/%s%s" % (channel, query), protocol="fanwire.v1")
    before, ready = ws.until("ready")
    return ws, before[1:], ready


def text_of(message):
    return message.get("text", message.get("data"))


def texts(messages):
    """What is no message stands there as its type and reason."""
    return [text_of(m) if m["type"] == "message" else (m["type"], m.get("reason"))
            for m in messages]


def take(ws, n):
    """The next n messages' payloads; down and up are left out."""
    found = []
    while len(found) < n:
        message = ws.json(30)
        if message["type"] in ("message", "gap"):
            found += texts([message])
    return found


def slot(database, column, name=SLOT):
    return database.psql("select %s from pg_replication_slots where slot_name = '%s'"
                         % (column, name))


# ---- events ----

@case(timeout=90)
def test_events_come_in_the_order_of_commits(t):
    """Rolled back never, large ones whole, with their position, client and transaction."""
    database = postgres(t)
    server = start(t, database)
    opened = server.wait_for_log(event="opened", mode="wal")
    assert "durable slot" in opened["guarantee"], opened
    equal(slot(database, "temporary, plugin"), "f|pgoutput")
    ws, _, _ = client(t, server, "x")
    welcome = t.ws(server, "/ws/x", protocol="fanwire.v1").expect("welcome")
    equal((welcome["mode"], welcome["durable"]), ("wal", True))
    first = subprocess.Popen(["psql", "-X", "-q", database.url], stdin=subprocess.PIPE)
    first.stdin.write(b"begin; select fanwire_publish('x', 'begun first'::text);\n\\! echo\n")
    first.stdin.flush()
    eventually(lambda: database.psql("select 1 from pg_stat_activity where state = "
                                     "'idle in transaction'"), 10, "a transaction is open")
    publish(database, "x", "committed first")
    equal(text_of(ws.expect("message")), "committed first")
    first.stdin.write(b"commit;\n")
    first.stdin.close()
    equal(first.wait(10), 0)
    equal(text_of(ws.expect("message")), "begun first")
    database.psql("begin; select fanwire_publish('x', 'never'::text); rollback;"
                  "begin; select fanwire_publish('x', '1'::jsonb);"
                  "savepoint s; select fanwire_publish('x', 'nor this'::text); rollback to s;"
                  "select fanwire_publish('x', '[2]'::json, client => 'me'); commit")
    equal(ws.expect("message")["data"], 1)
    last = ws.expect("message")
    equal((last["data"], last["from"]), ([2], "me"))
    database.psql("select fanwire_publish('x', repeat('y', 1000000))")
    equal(len(text_of(ws.expect("message"))), 1000000)
    database.psql("select pg_logical_emit_message(true, 'other', 'of somebody else');"
                  "select pg_logical_emit_message(true, 'fanwire', 'no envelope');"
                  "select pg_logical_emit_message(false, 'fanwire', 'not in a transaction');"
                  "select fanwire_publish('x', 'after')")
    equal(text_of(ws.expect("message")), "after")
    equal(server.metric("fanwire_source_refused_events_total"), 2)
    equal(server.publish("x", b"by fanwire").status, 200)
    equal(text_of(ws.expect("message")), "by fanwire")
    equal(server.publish("x", b"\xff\x00" * 300000).status, 200)
    equal(len(ws.expect("message")["base64"]), 800000)


@case(timeout=90)
def test_rows_are_told_as_in_notify_mode(t):
    """The same statements, the same types, the same events."""
    statements = """
create type mood as enum ('sad', 'happy');
create domain positive as int check (value > 0);
create table everything (
    id bigint primary key, b bool, i2 smallint, i4 int, f4 real, f8 float8, n numeric, t text,
    v varchar(10), c char(4), by bytea, j json, jb jsonb, d date, ti time, tz timetz, ts timestamp,
    tstz timestamptz, iv interval, u uuid, ip inet, m money, p point, bx box, bits bit(3), x xml,
    r int4range, o oid, e mood, dom positive, ai int[], at text[], atz timestamptz[], an numeric[][],
    ab bool[], aj jsonb[], ae mood[], ad date[], abx box[]);
select fanwire_watch('everything', 'all');
alter table everything replica identity full;
set timezone = 'UTC';
insert into everything values (
    1, true, -3, 7, 1.5, 1e-7, 12345678901234567890.1200, 'é "quoted" \\ back', 'v', 'c',
    '\\x00ff', '{"a" : [1, null]}', '{"b": "ü"}', '2026-11-22', '08:15:02', '08:15:02+01',
    '2026-11-22 08:15:02.123', '2026-11-22 08:15:02+01', '1 day 2 hours',
    'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', '10.0.0.1/8', 12.5, '(1,2)', '(3,4),(1,2)', '101',
    '<a/>', '[1,5)', 42, 'happy', 5, '{1,NULL,-3}', '{a,"b \\"c\\" \\\\ d",NULL,"NULL",""}',
    '{"2026-11-22 08:15:02+00"}', '{{1.0,2},{3,NaN}}', '{t,f,NULL}', '{"{\\"k\\": 1}","[2]"}',
    '{sad,happy}', '{2026-11-22}', '{(3,4),(1,2);(1,1),(0,0)}');
insert into everything (id) values (2);
insert into everything (id, f4, f8, n, d, ts, tstz, ai, at) values
    (3, 'NaN', '-Infinity', 'NaN', 'infinity', '-infinity', '0044-03-15 10:00:00+00 BC', '{}',
     '[0:1]={x,y}');
update everything set t = repeat('large', 400) where id = 2;
update everything set i4 = 8 where id = 1;
delete from everything where id = 3;
truncate everything;
"""
    found = []
    for mode in "notify", "wal":
        database = t.postgres(wal_level="logical", timezone="UTC")
        database.psql(sql_of(t, mode))
        server = start(t, database)
        ws, _, _ = client(t, server, "all")
        database.psql(statements)
        messages = [ws.expect("message", 20)["data"] for _ in range(7)]
        assert all(int(m.pop("tx")) > 0 for m in messages)
        found.append(messages)
        server.stop()
    for one, other in zip(*found):
        equal(other, one)


@case(timeout=90)
def test_rows_of_tables_without_full_identity(t):
    """Old rows as far as the log has them; unchanged large values are left out and said."""
    database = postgres(t)
    server = start(t, database)
    ws = t.ws(server, "/ws?channel=docs&channel=by:1&channel=by:2", protocol="fanwire.v1")
    for _ in range(3):
        ws.until("ready")

    def told(statement):
        database.psql(statement)
        message = ws.expect("message")
        data = message["data"]
        del data["tx"]
        return message["channel"], data
    database.psql("create table docs (id int primary key, title text, body text);"
                  "alter table docs alter body set storage external;"
                  "select fanwire_watch('docs', 'docs')")
    base = {"table": "public.docs", "key": {"id": 1}}
    body = "x" * 5000
    equal(told("insert into docs values (1, 'a', repeat('x', 5000))"),
          ("docs", dict(base, op="insert", row={"id": 1, "title": "a", "body": body})))
    equal(told("update docs set title = 'b'"),
          ("docs", dict(base, op="update", row={"id": 1, "title": "b"}, partial=True)))
    equal(told("update docs set id = 2"),
          ("docs", dict(base, op="update", key={"id": 2}, row={"id": 2, "title": "b"},
                        old={"id": 1}, partial=True)))
    equal(told("delete from docs"), ("docs", dict(base, op="delete", key={"id": 2}, old={"id": 2})))
    # a template that needs more of the old row than the key: the whole row is logged from then on
    database.psql("create table todos (id int primary key, list int, title text);"
                  "select fanwire_watch('todos', 'by:{list}', array['id', 'list'])")
    equal(database.psql("select relreplident from pg_class where relname = 'todos'"), "f")
    base = {"table": "public.todos", "key": {"id": 7}}
    equal(told("insert into todos values (7, 1, 'milk')"),
          ("by:1", dict(base, op="insert", row={"id": 7, "list": 1})))
    moved = dict(base, op="update", row={"id": 7, "list": 2}, old={"id": 7, "list": 1})
    equal(told("update todos set list = 2"), ("by:2", moved))
    ws_moved = ws.expect("message")
    equal((ws_moved["channel"], ws_moved["data"]["row"]), ("by:1", moved["row"]))
    equal(told("delete from todos"), ("by:2", dict(base, op="delete", old={"id": 7, "list": 2})))
    database.psql("insert into todos values (8, null, 'no channel');"
                  "begin; insert into todos values (9, 1, 'never'); rollback;"
                  "select fanwire_unwatch('todos'); insert into todos values (10, 1, 'unheard')")
    equal(database.psql("select relreplident from pg_class where relname = 'todos'"), "d")
    # watched and changed in one transaction, by two templates; one ends in the stream
    equal(told("begin; select fanwire_watch('todos', 'by:1', array['id']); "
               "insert into todos values (11, 2, ''); commit")[1]["row"], {"id": 11})
    database.psql("begin; select fanwire_watch('todos', 'docs', array['title']);"
                  "update todos set title = 'both' where id = 11;"
                  "select fanwire_unwatch('todos', 'docs');"
                  "update todos set title = 'one' where id = 11; commit")
    equal([ws.expect("message")["channel"] for _ in range(3)], ["by:1", "docs", "by:1"])
    database.psql("create table part (id int, primary key (id)) partition by range (id);"
                  "create table part_1 partition of part for values from (1) to (10);"
                  "select fanwire_watch('part', 'docs')")
    equal(told("insert into part values (3)"),
          ("docs", {"op": "insert", "table": "public.part", "key": {"id": 3}, "row": {"id": 3}}))


@case(timeout=90)
def test_another_mode_takes_over_what_is_watched(t):
    """Triggers to publication and back, by the SQL alone; then nothing is left of any."""
    database = t.postgres(wal_level="logical")
    database.psql(sql_of(t, "notify"))
    database.psql("create table todos (id int primary key, list int);"
                  "select fanwire_watch('todos', 'todos');"
                  "select fanwire_watch('todos', 'list:{list}', array['id'])")
    listed = "public.todos|list:{list}|{id}\npublic.todos|todos|"
    query = ("set search_path = pg_catalog;"
             "select tbl, channel, columns from fanwire.watched order by channel")
    n = 0
    for mode in "wal", "wal", "notify", "wal", "notify":
        database.psql(sql_of(t, mode))
        equal(database.psql("select mode from fanwire_status()"), mode)
        equal(database.psql(query), listed, mode)
        equal(database.psql("select count(*) from pg_trigger where tgname like 'fanwire%'"),
              "0" if mode == "wal" else "4")
        equal(database.psql("select count(*) from pg_publication"), "1" if mode == "wal" else "0")
        equal(database.psql("select relreplident from pg_class where relname = 'todos'"),
              "f" if mode == "wal" else "d")
        server = start(t, database)
        equal(server.wait_for_log(event="opened")["mode"], mode)
        ws, _, _ = client(t, server, "todos")
        n += 1
        database.psql("insert into todos values (%d, 1)" % n)
        equal(ws.expect("message")["data"]["key"], {"id": n})
        server.stop()
    database.psql(sql_of(t, "wal"))
    database.psql(sql_of(t, "notify", "--uninstall") * 2)
    equal(database.psql("select count(*) from pg_publication"), "0")
    equal(database.psql("select count(*) from pg_namespace where nspname = 'fanwire'"), "0")
    equal(database.psql("select relreplident from pg_class where relname = 'todos'"), "d")
    database.psql("update todos set list = 2")


# ---- nothing lost, nothing twice ----

@case(timeout=120)
def test_a_restart_of_fanwire_loses_nothing(t):
    """The log is filled from the WAL: positions of before go on."""
    database = postgres(t)
    server = start(t, database)
    publish(database, "x", *("e%d" % i for i in range(10)))
    database.psql("begin; select fanwire_publish('x', 'm' || i) from generate_series(0, 999) i;"
                  "commit")
    ws, before, ready = client(t, server, "x", "?since=oldest")
    expected = ["e%d" % i for i in range(10)] + ["m%d" % i for i in range(1000)]
    found = before + [ws.expect("message") for _ in range(1010 - len(before))]
    equal(texts(found), expected)
    ids = [m["id"] for m in found]
    equal(len(set(ids)), 1010)
    equal(server.stop(), 0)
    publish(database, "x", "while nobody listened")
    expected.append("while nobody listened")
    server = start(t, database)
    for n in 0, 5, 9, 10, 500, 1008, 1009:  # also from the midst of a transaction
        _, before, _ = client(t, server, "x", "?since=" + ids[n])
        equal(texts(before), expected[n + 1:], "since %d" % n)
    now, before, _ = client(t, server, "x")
    equal(before, [])
    publish(database, "x", "live")
    equal(text_of(now.expect("message")), "live")
    # another server, with a slot of its own, tells the same positions
    other = start(t, database, node="b")
    publish(database, "x", "to both")
    id = now.expect("message")["id"]
    ws, before, _ = client(t, other, "x", "?since=oldest")
    equal([m["id"] for m in before or [ws.expect("message")]], [id])
    publish(database, "x", "next")
    equal(ws.expect("message")["id"], now.expect("message")["id"])
    _, before, _ = client(t, other, "x", "?since=" + id)
    equal(texts(before), ["next"])


@case(timeout=150)
def test_kills_lose_nothing(t):
    """kill -9 of the source process, of all of fanwire, of Postgres, amid publishing."""
    database = postgres(t)
    server = start(t, database, exits_expected=True)
    ws, _, ready = client(t, server, "x")
    n, last = 0, ready["id"]

    def publish_more():
        nonlocal n
        publish(database, "x", *("e%d" % i for i in range(n, n + 20)))
        n += 20
    for _ in range(3):
        publish_more()
        os.kill(server.source_pid(), signal.SIGKILL)
        publish_more()
        ws.until("up")
    publish_more()
    for _ in range(2):
        publish_more()
        database.stop("immediate")
        ws.until("down")
        database.start()
        publish_more()
        ws.until("up")
    publish_more()
    resumed_with_all(t, server, last, n)
    publish_more()
    os.kill(server.pid, signal.SIGKILL)  # the children leave
    server.wait()
    publish_more()
    resumed_with_all(t, start(t, database), last, n)


def resumed_with_all(t, server, since, n):
    """A client that resumes gets e0 to e(n-1), all and in order."""
    ws, before, _ = client(t, server, "x", "?since=" + since)
    found = texts(before)
    while len(found) < n:
        found += texts([ws.json()])
    equal(found, ["e%d" % i for i in range(n)])
    ws.quiet()


@case(timeout=120)
def test_a_live_client_sees_each_event_once(t):
    """One connection over deaths of the source process and the database: no gap, no double."""
    database = postgres(t)
    server = start(t, database, exits_expected=True)
    ws, _, _ = client(t, server, "x")
    n = 0
    for fault in ("source", "postgres", "backend", "source"):
        database.psql("select fanwire_publish('x', 'e' || i) from generate_series(%d, %d) i"
                      % (n, n + 2999))
        n += 3000
        if fault == "source":
            os.kill(server.source_pid(), signal.SIGKILL)
        elif fault == "postgres":
            database.stop("immediate")
            database.start()
        else:
            database.psql("select pg_terminate_backend(active_pid) from pg_replication_slots")
    equal(take(ws, n), ["e%d" % i for i in range(n)])


@case(timeout=60)
def test_a_temporary_slot_is_no_more_than_its_connection(t):
    """Said at the start; each lost connection is a gap; nothing stays behind."""
    database = postgres(t)
    server = start(t, database, node=None)
    opened = server.wait_for_log(event="opened")
    assert "--node NAME" in opened["guarantee"], opened
    ws, _, _ = client(t, server, "x")
    publish(database, "x", "one")
    equal(text_of(ws.expect("message")), "one")
    database.psql("select pg_terminate_backend(active_pid) from pg_replication_slots")
    before, _ = ws.until("up")
    equal([(m["type"], m.get("reason")) for m in before],
          [("down", "connection-lost"), ("gap", "connection-lost")])
    publish(database, "x", "two")
    equal(text_of(ws.expect("message")), "two")
    server.stop()
    eventually(lambda: database.psql("select count(*) from pg_replication_slots") == "0", 10,
               "no slot is left")


# ---- the slot ----

@case(timeout=60, alone=True)
def test_postgres_stops_at_once(t):
    """A held-back confirmation does not keep the server from ending."""
    database = postgres(t)
    server = start(t, database)
    ws, _, _ = client(t, server, "x")
    publish(database, "x", "one")
    ws.expect("message")
    began = time.monotonic()
    database.stop("fast")
    assert time.monotonic() - began < 2, time.monotonic() - began
    ws.until("down")
    database.start()
    ws.until("up")
    publish(database, "x", "two")
    equal(take(ws, 1), ["two"])


@case(timeout=60)
def test_a_slot_in_use_is_said_with_its_holder(t):
    database = postgres(t)
    first = start(t, database)
    pid = slot(database, "active_pid")
    second = start(t, database, up=False)
    line = second.wait_for_log(event="lost")
    assert "in use by process %s" % pid in line["msg"] and '"fanwire"' in line["msg"], line
    first.stop()
    second.wait_until_ready()


@case(timeout=60)
def test_whom_a_new_slot_waits_for_is_said(t):
    """A transaction that is open, then one that is prepared; with a slot that stays and one that
    does not."""
    database = postgres(t, max_prepared_transactions=1)
    database.psql("create table t (i int); begin; insert into t values (1);"
                  "prepare transaction 'of two phases'")
    holder = subprocess.Popen(["psql", "-X", "-q", "-At", database.url],
                              stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                              env=dict(os.environ, PGAPPNAME="night batch"))
    holder.stdin.write(b"begin; insert into t values (1); select pg_backend_pid();\n")
    holder.stdin.flush()
    pid = holder.stdout.readline().decode().strip()

    def commit():
        holder.stdin.write(b"commit;\n")
        holder.stdin.close()
        equal(holder.wait(10), 0)
    ends = {"prepared transaction 'of two phases'":
            lambda: database.psql("rollback prepared 'of two phases'"),
            "pid %s (night batch), role postgres, database postgres, idle" % pid: commit}
    servers = [start(t, database, up=False), start(t, database, node=None, up=False)]
    for n in 1, 2:  # the server waits for one after the other, in an order of its own
        lines = [eventually(lambda: server.events(event="slot-waits")[n - 1:], 20, "it is named")[0]
                 for server in servers]
        name = next(name for name in ends if name in lines[0]["msg"])
        for line, slot_name in zip(lines, ("fanwire_a ", "fanwire_temporary_")):
            equal(line["level"], "warning")
            assert name in line["msg"] and slot_name in line["msg"], line
            assert "open for" in line["msg"], line
        ends.pop(name)()
    for server in servers:
        server.wait_until_ready(20)
        equal(len(server.events(event="slot-waits")), 2)
    equal(len(database.connections()), 2)


@case(timeout=60)
def test_what_is_watched_while_a_new_slot_is_made(t):
    """It had been asked before what is watched; the stream begins after."""
    database = postgres(t, max_prepared_transactions=1)
    database.psql("create table old (id int primary key); select fanwire_watch('old', 'old');"
                  "create table t (id int primary key); begin; insert into t values (0);"
                  "prepare transaction 'p'")
    server = start(t, database, up=False)
    server.wait_for_log(event="slot-waits")
    database.psql("select fanwire_watch('t', 'rows'), fanwire_unwatch('old')")
    database.psql("commit prepared 'p'")
    server.wait_until_ready(20)
    ws = client(t, server, "rows")[0]
    database.psql("insert into old values (1); insert into t values (1)")
    equal([row["row"] for row in take(ws, 1)], [{"id": 1}])
    equal(server.get("/history/old?since=oldest").json["events"], [])


@case(timeout=90)
def test_a_lost_slot_is_a_gap(t):
    """Dropped by an operator, while fanwire was away and while the log is held."""
    database = postgres(t)
    server = start(t, database)
    ws, _, _ = client(t, server, "x")
    publish(database, "x", "one")
    id = ws.expect("message")["id"]
    holder = slot(database, "active_pid")
    # A new slot begins behind the transactions that are open.
    database.psql("begin; select fanwire_publish('x', 'lost'::text);"
                  "select pg_terminate_backend(%s);"
                  "do $$ begin for i in 1..1000 loop begin perform pg_drop_replication_slot('%s'); "
                  "exit; exception when object_in_use then perform pg_sleep(0.001); end; end loop; "
                  "end $$; commit" % (holder, SLOT))
    before, _ = ws.until("up")
    reasons = [m.get("reason") for m in before if m["type"] == "gap"]
    line = server.wait_for_log(event="slot-lost", level="warning")
    equal(reasons, ["slot-lost"], line)
    publish(database, "x", "two")
    equal(take(ws, 1), ["two"])
    # a new publication is unknown to what the old slot decodes
    database.psql("drop publication fanwire")
    database.psql("create table t (id int primary key); insert into t values (1);"
                  "select pg_terminate_backend(active_pid) from pg_replication_slots")
    line = server.wait_for_log(event="misconfigured")
    assert "fanwire sql postgres --mode wal | psql" in line["msg"], line
    database.psql(sql_of(t, "wal"))
    database.psql("select fanwire_watch('t', 't'); update t set id = 2")
    # It may come up for a moment, before it finds that the slot knows nothing of the publication.
    before, gap = ws.until("gap", 30)
    equal(gap["reason"], "slot-lost")
    ws.until("up", 30)
    publish(database, "x", "three")
    equal(take(ws, 1), ["three"])
    _, before, _ = client(t, server, "x", "?since=" + id)
    assert ("gap", "slot-lost") in texts(before), before


def in_german(t, **settings):
    """A Postgres that says its errors in another language. The locale is made for it: few machines
    have one installed beside their own."""
    if not glob.glob("/usr/share/locale/de/LC_MESSAGES/postgres-*.mo"):
        raise Skip("Postgres is installed in English only")
    locale = t.directory + "/de_DE.UTF-8"
    try:
        made = subprocess.run(["localedef", "-f", "UTF-8", "-i", "de_DE", locale],
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    except FileNotFoundError:
        raise Skip("localedef is not installed") from None
    if not os.path.isdir(locale):
        raise Skip("no German locale can be made: %s" % made.stdout.decode())
    database = postgres(t, environment={"LOCPATH": t.directory}, lc_messages="de_DE.UTF-8",
                        **settings)
    try:
        database.psql("select nothing")
        raise AssertionError("there is no column of that name")
    except RuntimeError as error:
        assert "FEHLER" in str(error), error
    return database


@case(timeout=120)
def test_a_slot_beyond_repair_is_made_anew_in_any_language(t):
    """Invalidated by its limit, of an older publication, its WAL removed behind the server's back."""
    database = in_german(t, max_slot_wal_keep_size="1MB", min_wal_size="32MB", max_wal_size="32MB")
    server = start(t, database)
    ws, _, _ = client(t, server, "x")
    n = 0

    def is_made_anew():
        nonlocal n
        equal(ws.until("gap", 40)[1]["reason"], "slot-lost")
        ws.until("up", 40)
        n += 1
        publish(database, "x", "after %d" % n)
        equal(take(ws, 1), ["after %d" % n])

    pid = server.source_pid()
    os.kill(pid, signal.SIGSTOP)
    database.psql("select pg_terminate_backend(active_pid) from pg_replication_slots")
    eventually(lambda: slot(database, "active") == "f", 10, "nobody reads the slot")
    eventually(lambda: database.psql(
        "select pg_logical_emit_message(false, 'fill', repeat('x', 1000000)); "
        "select pg_switch_wal(); checkpoint;"
        "select wal_status from pg_replication_slots").endswith("lost"), 20, "it is invalidated")
    os.kill(pid, signal.SIGCONT)
    is_made_anew()
    database.psql("create table t (id int primary key); drop publication fanwire;"
                  "insert into t values (1);"  # which the slot is to decode without a publication
                  "create publication fanwire")
    is_made_anew()
    database.psql("alter system set max_slot_wal_keep_size = -1")
    database.restart()
    ws.until("up", 40)
    kept = slot(database, "pg_walfile_name(restart_lsn)")
    database.psql("select pg_switch_wal(); checkpoint; select pg_switch_wal(); checkpoint")
    database.stop()
    os.unlink("%s/pg_wal/%s" % (database.cluster.data, kept))
    database.start()
    is_made_anew()


@case(timeout=60)
def test_another_timeline_is_another_stream(t):
    """What a failover or a recovery makes: positions of before mean nothing any more, and that is said."""
    database = postgres(t, restore_command="false")
    server = start(t, database)
    ws, _, _ = client(t, server, "x")
    publish(database, "x", "one")
    id = ws.expect("message")["id"]
    database.stop()
    with open(database.cluster.data + "/recovery.signal", "w"):
        pass
    os.chmod(database.cluster.data + "/recovery.signal", 0o666)
    database.start()
    eventually(lambda: database.psql("select pg_is_in_recovery()") == "f", 10, "it is a primary")
    before, _ = ws.until("up", 30)
    equal([m["reason"] for m in before if m["type"] == "gap"], ["new-epoch"])
    publish(database, "x", "two")
    equal(take(ws, 1), ["two"])
    _, before, _ = client(t, server, "x", "?since=" + id)
    assert ("gap", "foreign-position") in texts(before), before


@case(timeout=60)
def test_contradictions_are_said_with_the_command(t):
    database = t.postgres()
    database.psql(sql_of(t, "wal"))
    try:
        publish(database, "x", "nobody could read it")
        raise AssertionError("fanwire_publish did not refuse")
    except RuntimeError as error:
        assert "wal_level" in str(error), error
    server = start(t, database, up=False)
    line = server.wait_for_log(event="misconfigured")
    assert "ALTER SYSTEM SET wal_level = logical" in line["msg"], line
    database.psql("alter system set wal_level = logical; create role reader login")
    database.restart()
    server.wait_until_ready(20)
    server.stop()
    reader = t.server(database.url.replace("postgres@", "reader@"), "--node", "r", up=False)
    line = reader.wait_for_log(event="misconfigured")
    assert 'ALTER ROLE "reader" REPLICATION' in line["msg"], line
    database.psql("alter role reader replication")
    reader.wait_until_ready(20)
    for words in (("--node", "Not-OK"), ("--node", "x" * 41), ("--retain-for", "10")):
        refused = subprocess.run([t.binary, "serve", *words, database.url],
                                 stderr=subprocess.PIPE, timeout=10)
        equal(refused.returncode, 2, words)


@case(timeout=60)
def test_full_slots_and_senders_are_said(t):
    database = postgres(t, max_replication_slots=1, max_wal_senders=2)
    first = start(t, database)
    second = start(t, database, node="b", up=False)
    line = second.wait_for_log(event="misconfigured")
    assert "max_replication_slots" in line["msg"], line
    first.stop()


@case(timeout=90)
def test_a_quiet_database_is_confirmed(t):
    """The slot lets the WAL go after the retention, also when no event comes; nothing is lost."""
    database = postgres(t)
    server = start(t, database, "--retain-for", "1s")
    ws, _, _ = client(t, server, "x")
    publish(database, "x", "one")
    id = ws.expect("message")["id"]
    database.psql("create table noise (i int); insert into noise select generate_series(1, 10000)")
    target = database.psql("select pg_current_wal_lsn()")
    eventually(lambda: slot(database, "confirmed_flush_lsn >= '%s'" % target) == "t", 30,
               "the slot is confirmed", every=0.2)
    server.wait_for_metric("fanwire_source_retained_bytes", lambda v: v < 100000)
    os.kill(server.source_pid(), signal.SIGKILL)
    server._exits_expected = True
    ws.until("up")
    publish(database, "x", "two")
    equal(take(ws, 1), ["two"])
    assert not server.events(event="slot-lost")
    _, before, _ = client(t, server, "x", "?since=" + id)
    equal(texts(before), ["two"])
    server.stop()
    server = start(t, database)
    _, before, _ = client(t, server, "x", "?since=" + id)  # older than what is kept: said
    equal(texts(before)[0][0], "gap")


@case(timeout=180, alone=True)
def test_a_bulk_update_laps_nobody(t):
    """200,000 rows of one transaction, twice what the log holds, to 100 clients: no gap, nothing
    missing, memory flat."""
    n = 20000 if t.sanitized else 200000
    database = postgres(t, max_wal_size="2GB")
    server = start(t, database, "--retain", "1M" if t.sanitized else "16M")
    database.psql("create table bulk (id int primary key, n int);"
                  "insert into bulk select i, 0 from generate_series(1, %d) i;"
                  "select fanwire_watch('bulk', 'bulk', array['id'])" % n)
    crowd = t.crowd(server)
    # All alike: the kernel would let some of them be ahead by more than the log holds.
    members = crowd.add(100, "/ws/bulk", "raw", receive_buffer=65536)
    before = resident(server.source_pid())
    tx = database.psql("begin; update bulk set n = 1; select pg_current_xact_id(); commit")
    expected = ['{"op":"update","table":"public.bulk","key":{"id":%d},"row":{"id":%d},"tx":"%s"}'
                % (i, i, tx) for i in range(1, n + 1)]
    size = sum(2 + len(e) for e in expected)
    crowd.wait(lambda: all(m.n_bytes == size or m.close for m in members), 150)
    equal({m.close for m in members}, {None})
    equal(len({m.hash.digest() for m in members}), 1)
    equal([payload.decode() for _, payload in frames.Reader().feed(bytes(members[0].kept))], expected)
    grown = resident(server.source_pid()) - before
    assert t.sanitized or grown < 16 << 20, grown


@case(timeout=120)
def test_sleepers_and_crawlers_hold_a_crowd_up_for_a_while_only(t):
    """Half of the clients never read or read slowly: they cost the others seconds, get their gap, and
    cost nothing from then on."""
    n = 30000
    database = postgres(t)
    server = start(t, database, "--retain", "4M")
    crowd = t.crowd(server)
    readers = crowd.add(40, "/ws/bulk", "raw", receive_buffer=65536)
    sleepers = crowd.add(20, "/ws/bulk", "json", receive_buffer=4096)
    crawlers = crowd.add(20, "/ws/bulk", "json", receive_buffer=4096)
    crowd.pause(sleepers + crawlers)

    def bulk(first):
        """Three times what the log holds, in one transaction; returns when all readers have it."""
        before = readers[0].n_bytes
        database.psql("select fanwire_publish('bulk', repeat('x', 110) || lpad(i::text, 10, '0')) "
                      "from generate_series(%d, %d) i" % (first, first + n - 1))
        began = turn = time.monotonic()
        while any(m.n_bytes < before + n * 122 and not m.close for m in readers):
            crowd.pump(0.05)
            if time.monotonic() > turn:
                crowd.unpause(crawlers)  # one small lot for each
                crowd.pump(0)
                crowd.pause(crawlers)
                turn = time.monotonic() + 0.2
            assert time.monotonic() - began < 50, "the readers are held up"
        equal({m.close for m in readers}, {None})
        equal({m.n_bytes for m in readers}, {before + n * 122})
        equal(len({m.hash.digest() for m in readers}), 1)
    paused = []
    for i in range(4):
        before = server.metric("fanwire_source_paused_seconds_total")
        bulk(i * n)
        paused.append(server.metric("fanwire_source_paused_seconds_total") - before)
    assert paused[3] < paused[0] / 2, paused
    crowd.unpause(sleepers + crawlers)
    last = []

    def told():
        return all(m.close or m.payloads[-1:] == last[-1:] for m in sleepers + crawlers)
    while not last or not told():  # who was overtaken goes on behind all that was there then
        last.append("last %d" % len(last))
        publish(database, "bulk", last[-1])
        end = time.monotonic() + 1
        while time.monotonic() < end and not told():
            crowd.pump()
    for member in sleepers + crawlers:
        equal(member.close, None)
        at, whole = 0, True
        for message in member.messages:
            if message["type"] == "gap":
                equal(message["reason"], "lapped")
                whole = False
            elif message["type"] == "message" and text_of(message) not in last:
                number = int(text_of(message)[-10:])
                assert number == at or not whole and number > at, (at, number)
                at, whole = number + 1, True
        assert member.of("gap"), "who was overtaken was told so"


def resident(pid):
    """Private memory: the log's pages, which the source process fills, are shared."""
    with open("/proc/%d/status" % pid) as f:
        return next(int(line.split()[1]) for line in f if line.startswith("RssAnon")) << 10
