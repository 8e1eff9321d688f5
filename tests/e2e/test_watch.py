"""fanwire_watch: changes of a table's rows as events, by triggers: in notify mode and an outbox."""
import subprocess

from case import case, equal, eventually


def installing(t, mode):
    return subprocess.run([t.binary, "sql", "postgres", "--mode", mode], stdout=subprocess.PIPE,
                          check=True).stdout.decode()


def install(t, database, mode="notify"):
    database.psql(installing(t, mode))


class Watched:
    """A server on a database with the SQL, and a client that hears some channels."""

    def __init__(self, t, *channels):
        self.database, self.first = t.database(), channels[0]
        install(t, self.database)
        self.server = t.server(self.database.url)
        self.client = t.ws(self.server, "/ws?" + "&".join("channel=" + c for c in channels),
                           protocol="fanwire.v1")
        self.client.expect("welcome")
        for _ in channels:
            self.client.expect("ready")

    def mode(self, t, mode):
        """Goes over to a mode, or stays."""
        install(t, self.database, mode)
        eventually(lambda: self.server.events(event="opened")[-1]["mode"] == mode, 20, mode)
        self.server.wait_until_ready()
        self.sql("select fanwire_publish('%s', 'ready'::text, null::text, null::text)" % self.first)
        while "ready" != self.client.until("message", 20)[1].get("text"):
            pass

    def sql(self, text):
        return self.database.psql(text)

    def event(self):
        message = self.client.expect("message")
        data = message["data"]
        assert int(data.pop("tx")) > 0
        return message["channel"], data


@case(postgres=True)
def test_each_kind_of_change(t):
    w = Watched(t, "todos:1", "todos:2")
    w.sql("create table todos (id int primary key, list int, title text);"
          "select fanwire_watch('todos', 'todos:{list}')")
    w.sql("insert into todos values (7, 1, 'milk')")
    row = {"id": 7, "list": 1, "title": "milk"}
    base = {"table": "public.todos", "key": {"id": 7}}
    equal(w.event(), ("todos:1", dict(base, op="insert", row=row)))
    w.sql("update todos set title = 'Milch'")
    new = dict(row, title="Milch")
    equal(w.event(), ("todos:1", dict(base, op="update", row=new, old=row)))
    w.sql("update todos set list = 2")  # a row that moves is told to both
    moved = dict(base, op="update", row=dict(new, list=2), old=new)
    equal([w.event(), w.event()], [("todos:2", moved), ("todos:1", moved)])
    w.sql("delete from todos")
    equal(w.event(), ("todos:2", dict(base, op="delete", old=dict(new, list=2))))
    w.sql("begin; insert into todos values (8, 1, 'never'); rollback;"
          "insert into todos values (9, null, 'no channel');"
          "insert into todos values (10, 1, 'next')")
    equal(w.event()[1]["key"], {"id": 10})


@case(postgres=True)
def test_columns_truncate_and_no_key(t):
    w = Watched(t, "log", "{x}")
    w.sql("create schema app; create table app.log (a int, \"B b\" text, c text);"
          "select fanwire_watch('app.log', 'log', array['a', 'B b']);"
          "insert into app.log values (1, 'é \"', 'hidden')")
    equal(w.event(), ("log", {"op": "insert", "table": "app.log", "row": {"a": 1, "B b": 'é "'}}))
    w.sql("truncate app.log")
    equal(w.event(), ("log", {"op": "truncate", "table": "app.log"}))
    w.sql("select fanwire_watch('app.log', '{c}', array['a']);"
          "select fanwire_unwatch('app.log', 'log');"
          "insert into app.log values (2, '{a}', '{x}')")  # a value is no template
    equal(w.event(), ("{x}", {"op": "insert", "table": "app.log", "row": {"a": 2}}))
    w.sql("select fanwire_unwatch('app.log'); insert into app.log values (3, 'x', 'unheard');"
          "select fanwire_publish('log', '\"end\"'::jsonb)")
    equal(w.client.expect("message")["data"], "end")


@case(postgres=True)
def test_templates_of_a_table_stand_side_by_side(t):
    w = Watched(t, "todos", "todos:7")
    w.sql("create table todos (id int primary key, title text, done bool default false)")
    for columns in ("array['id', 'title']", "array['id']", "null", "null"):  # replaces its own
        w.sql("select fanwire_watch('todos', 'todos:{id}', array['id', 'done']);"
              "select fanwire_watch('todos', 'todos', %s)" % columns)
    equal(w.sql("select tbl, channel, columns from fanwire.watched order by channel"),
          "todos|todos|\ntodos|todos:{id}|{id,done}")
    w.sql("insert into todos values (7, 'milk')")
    base = {"op": "insert", "table": "public.todos", "key": {"id": 7}}
    equal(sorted([w.event(), w.event()]),
          [("todos", dict(base, row={"id": 7, "title": "milk", "done": False})),
           ("todos:7", dict(base, row={"id": 7, "done": False}))])
    w.sql("truncate todos")  # no row, no {id}
    equal(w.event()[1]["op"], "truncate")
    w.sql("select fanwire_unwatch('todos', 'todos'); select fanwire_unwatch('todos', 'nobody');"
          "insert into todos values (7, 'bread')")
    equal(w.event(), ("todos:7", dict(base, row={"id": 7, "done": False})))
    w.sql("select fanwire_watch('todos', 'todos'); select fanwire_unwatch('todos');"
          "insert into todos values (8, 'unheard'); notify todos, '\"end\"'")
    equal(w.client.expect("message")["data"], "end")
    equal(w.sql("select count(*) from pg_trigger where tgname like 'fanwire%'"), "0")


@case(postgres=True)
def test_long_and_strange_templates(t):
    w = Watched(t, "end")
    strange = ["a" * 200, "a" * 199 + "b", "\\000", "\\\\000", "\u00e9\\", "it''s \"%s\"",
               "{B b}" + "c" * 250, " "]
    w.sql("create table s (\"B b\" text); set standard_conforming_strings = on;"
          + "".join("select fanwire_watch('s', '%s');" % s for s in strange * 2))
    listed = w.sql("select count(*), count(distinct channel) from fanwire.watched")
    equal(listed, "%d|%d" % (len(strange), len(strange)))
    for i, template in enumerate(strange):
        equal(w.sql("select count(*) from fanwire.watched where channel = '%s'" % template), "1")
        w.sql("select fanwire_unwatch('s', '%s')" % template)
        equal(w.sql("select count(*) from pg_trigger where tgname like 'fanwire%'"),
              str(2 * (len(strange) - i - 1)), template)


@case(postgres=True)
def test_triggers_of_the_earlier_naming(t):
    w = Watched(t, "old", "old:1")
    w.sql("create table old (id int primary key, a text); select fanwire_watch('old', 'old');"
          "create table foreign_old (id int); select fanwire_watch('foreign_old', 'f')")
    for table in "old", "foreign_old":
        w.sql("do $$ declare n name; begin for n in select tgname from pg_trigger "
              "where tgrelid = '%s'::regclass loop execute format('alter trigger %%I on %s rename "
              "to %%I', n, rtrim(regexp_replace(n, '_[0-9a-f]{32}', ''))); end loop; end $$"
              % (table, table))
    equal(w.sql("select string_agg(tgname, ',' order by tgname) from pg_trigger "
                "where tgrelid = 'old'::regclass"), "fanwire_row,fanwire_truncate")
    w.sql("drop function fanwire_unwatch(regclass, text);"
          "create function fanwire_unwatch(tbl regclass) returns void language sql as ''")
    install(t, w.database)
    equal(w.sql("select count(*) from pg_trigger where tgname in ('fanwire_row', "
                "'fanwire_truncate')"), "0")
    w.sql("select fanwire_watch('old', 'old:{id}'); insert into old values (1, 'x')")
    equal(sorted(channel for channel, _ in (w.event(), w.event())), ["old", "old:1"])
    w.sql("select fanwire_unwatch('old'); select fanwire_unwatch('foreign_old');")
    equal(w.sql("select count(*) from pg_trigger where tgname like 'fanwire%'"), "0")


@case(postgres=True)
def test_too_large_for_notify_never_fails_the_writer(t):
    w = Watched(t, "docs")
    w.sql("create table docs (id text primary key, body text);"
          "select fanwire_watch('docs', 'docs');"
          "insert into docs values ('a', repeat('x', 100000))")
    equal(w.event(), ("docs", {"op": "insert", "table": "public.docs", "key": {"id": "a"},
                               "partial": True}))
    w.sql("insert into docs select string_agg(md5(i::text), ''), 'key too large' from "
          "generate_series(1, 70) i")
    equal(w.event()[1]["op"], "insert")
    w.sql("update docs set id = repeat(md5(id), 70) where id = 'a'")
    key = {"id": w.sql("select repeat(md5('a'), 70)")}
    equal(w.event(), ("docs", {"op": "update", "table": "public.docs", "key": key,
                               "partial": True}))


@case(postgres=True)
def test_functions_that_others_add_are_not_in_the_way(t):
    w = Watched(t, "todos")
    for others in ("text, text", "text, text, integer default 1", "text, text, integer, integer"):
        w.sql("create function public.fanwire_publish(%s) returns void language plpgsql as "
              "$$ begin raise 'not ours'; end $$" % others)
    w.sql("create table todos (id int primary key); select fanwire_watch('todos', 'todos');"
          "insert into todos values (1)")
    equal(w.event()[1]["key"], {"id": 1})


@case(postgres=True)
def test_channels_that_are_none_do_not_fail_the_writer(t):
    w = Watched(t, "c:ok")
    w.sql("create table c (name text); select fanwire_watch('c', 'c:{name}');"
          "insert into c values (repeat('x', 300)), (E'a\\tb'), ('ok')")
    equal(w.event()[0], "c:ok")


@case(postgres=True)
def test_many_rows_in_order(t):
    w = Watched(t, "n")
    w.sql("create table n (i int primary key); select fanwire_watch('n', 'n');"
          "insert into n select generate_series(1, 2000)")
    equal([w.event()[1]["row"]["i"] for _ in range(2000)], list(range(1, 2001)))


@case(postgres=True)
def test_partitions_roles_and_mistakes(t):
    w = Watched(t, "p")
    w.sql("create table p (i int primary key) partition by range (i);"
          "create table p1 partition of p for values from (0) to (10);"
          "select fanwire_watch('p', 'p'); insert into p values (1)")
    equal(w.event(), ("p", {"op": "insert", "table": "public.p", "key": {"i": 1}, "row": {"i": 1}}))
    w.sql("create table p2 partition of p for values from (10) to (20);"
          "select fanwire_unwatch('p2'); select fanwire_watch('p2', 'p2:{i}');"  # the parent's stays
          "insert into p values (11)")
    equal(w.event()[1]["key"], {"i": 11})
    equal(w.sql("select tbl, channel from fanwire.watched order by 2"), "p|p\np2|p2:{i}")
    w.sql("select fanwire_unwatch('p2')")
    w.sql("create role fanwire_watch_writer; grant all on p to fanwire_watch_writer")
    t.cleanup(lambda: w.sql("drop owned by fanwire_watch_writer; drop role fanwire_watch_writer"))
    w.sql("set role fanwire_watch_writer; insert into p values (2)")
    equal(w.event()[1]["key"], {"i": 2})
    w.sql("create view v as select * from p")
    for bad, said in (("'v', 'v'", "is no table"), ("'p', 'p:{nope}'", "has no column nope"),
                      ("'p', 'p:{'", "no channel template"), ("'p', ''", "no channel template"),
                      ("'p', 'p', array['zz']", "has no column zz"),
                      ("'gone', 'p'", "does not exist")):
        try:
            w.sql("select fanwire_watch(%s)" % bad)
        except RuntimeError as error:
            assert said in str(error), (bad, error)
        else:
            raise AssertionError("taken: " + bad)


@case(postgres=True)
def test_uninstall_ends_watching(t):
    w = Watched(t, "u")
    w.sql("create table u (i int); select fanwire_watch('u', 'u'); insert into u values (1)")
    equal(w.event()[1]["row"], {"i": 1})
    install(t, w.database)  # again, at will
    w.sql("insert into u values (2)")
    equal(w.event()[1]["row"], {"i": 2})
    gone = subprocess.run([t.binary, "sql", "postgres", "--uninstall"], check=True,
                          stdout=subprocess.PIPE).stdout
    w.sql(gone.decode())
    w.sql("insert into u values (3); notify u, '\"by hand\"'")
    equal(w.client.expect("message")["data"], "by hand")


HOSTILE = ("nul", r"""'{"a": "\u0000"}'"""), ("number", "'1e1000000'"), ("deep", "'[1e1000000]'")


@case(postgres=True)
def test_json_that_is_no_jsonb_does_not_fail_the_writer(t):
    """What to_jsonb() refuses: the row is told by its key, at least."""
    w = Watched(t, "j:1", "j:2", "k", "t", "later")
    for mode in "notify", "outbox":
        w.mode(t, mode)
        w.sql("drop table if exists j, k, t, later; drop domain if exists doc; drop type if exists pair;"
              "create domain doc as json; create type pair as (i int, j json);"
              "create table j (id int primary key, list int, body json, more json[], d doc, p pair);"
              "create table later (id int primary key);"
              "create table k (j json); create table t (id int primary key, j json);"
              "select fanwire_watch('j', 'j:{list}'); select fanwire_watch('k', 'k');"
              "alter table later add j json; select fanwire_watch('later', 'later');"
              "select fanwire_watch('t', '{j}')")
        base = {"table": "public.j", "key": {"id": 7}}
        w.sql("insert into j values (7, 1, '{\"fine\": 1}')")
        equal(w.event()[1]["row"]["body"], {"fine": 1})
        for name, value in HOSTILE:
            w.sql("update j set body = %s::json, list = 2" % value)
            moved = dict(base, op="update", partial=True)
            equal([w.event(), w.event()], [("j:2", moved), ("j:1", moved)], name)
            w.sql("update j set body = null, list = 1")
            equal([c for c, _ in (w.event(), w.event())], ["j:1", "j:2"])
        for column, value in (("more", "array[%s::json]"), ("d", "%s::json"), ("p", "(1, %s)")):
            w.sql("update j set %s = %s" % (column, value % HOSTILE[0][1]))
            equal(w.event(), ("j:1", dict(base, op="update", partial=True)), column)
            w.sql("update j set %s = null" % column)
            equal(w.event()[0], "j:1")
        w.sql("insert into k values (%s)" % HOSTILE[0][1])
        equal(w.event(), ("k", {"op": "insert", "table": "public.k", "partial": True}))
        w.sql("insert into later values (1, %s)" % HOSTILE[0][1])
        equal(w.event()[1]["key"], {"id": 1})
        w.sql("insert into t values (1, '\"t\"'); insert into t values (2, %s)" % HOSTILE[1][1])
        equal(w.event()[0], "t")
        equal(w.sql("create type mood as enum ('a'); create table p (e mood, a int[], j jsonb, t text);"
                    "select string_agg(fanwire.is_plain(c)::text, ',') from unnest(array['p', 'j', 'k', "
                    "'t']::regclass[]) c; drop table p; drop type mood"), "true,false,false,false")
        w.sql("delete from k; delete from j")
        equal([w.event()[1]["op"] for _ in range(2)], ["delete", "delete"])


@case(postgres=True)
def test_the_code_of_a_table_runs_with_the_rights_of_the_writer(t):
    """A cast to json is called by to_jsonb(): never as who has installed fanwire."""
    w = Watched(t, "c")
    t.cleanup(lambda: w.sql("drop owned by fanwire_cast_writer cascade; drop role fanwire_cast_writer"))
    w.sql("create role fanwire_cast_writer; grant create on schema public to fanwire_cast_writer;"
          "set role fanwire_cast_writer; create type own as enum ('a');"
          "create function own_json(own) returns json language sql as "
          "$$ select to_json(current_user::text) $$; create cast (own as json) with function own_json;"
          "create table c (o own); select fanwire_watch('c', 'c'); insert into c values ('a')")
    equal(w.event()[1]["row"], {"o": "fanwire_cast_writer"})


def test_channels_in_another_encoding(t):
    """255 bytes are those of UTF-8, whatever the database's are."""
    database = t.postgres()
    for mode in "notify", "outbox", "wal":
        name = "latin1_" + mode
        database.psql("create database %s encoding 'LATIN1' locale 'C' template template0" % name)

        def sql(text):
            return database.cluster.psql(text, name)
        sql(installing(t, mode))
        if mode == "wal":
            break  # nothing runs at the writer
        server = t.server(database.url.rsplit("/", 1)[0] + "/" + name)
        client = t.ws(server, "/ws/%C3%A9", protocol="fanwire.v1")
        client.until("ready")
        sql("set client_encoding = 'UTF8'; create table l (c text); select fanwire_watch('l', '{c}');"
            "insert into l values (repeat('é', 200)), (repeat('é', 127)), ('é')")
        equal(client.expect("message")["data"]["row"], {"c": "é"})


@case(postgres=True)
def test_overloads_of_others_are_not_in_the_way_of_any_mode(t):
    w = Watched(t, "todos")
    for others in ("text, text", "text, text, integer default 1", "text, jsonb", "text, json, integer"):
        w.sql("create function public.fanwire_publish(%s) returns void language plpgsql as "
              "$$ begin raise 'not ours'; end $$" % others)
    for mode in "notify", "outbox":
        w.mode(t, mode)
        w.sql("drop table if exists todos; create table todos (id int primary key);"
              "select fanwire_watch('todos', 'todos'); insert into todos values (1)")
        equal(w.event()[1]["key"], {"id": 1})
        w.sql("select fanwire_publish('todos', '{}'::jsonb, null::text, null::text)")
        equal(w.client.expect("message")["data"], {})
