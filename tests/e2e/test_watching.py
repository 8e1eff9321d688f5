"""What a watched table may become: partitions that come later, columns that go, what the write-ahead
log does not have of it; what unwatching leaves behind."""
import subprocess
import time

from case import case, equal
from test_doctor import Report, obey
from test_outbox import Session
from test_wal import client, postgres, publish, sql_of, start, text_of

IDENTITY = "select string_agg(relname || ' ' || relreplident::text, ', ' order by relname) from pg_class " \
           "where relkind in ('r', 'p') and relnamespace = 'public'::regnamespace"


def said(database, sql, user="postgres", strict=True):
    """What psql says on standard error; an error is the test's unless it is expected."""
    url = database.url.replace("postgres@", user + "@")
    done = subprocess.run(["psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", url], input=sql, text=True,
                          stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    assert (done.returncode == 0) == strict, (sql, done.stderr)
    return done.stderr


def refused(database, sql):
    return said(database, sql, strict=False)


class Heard:
    """A client of some channels; what it hears until a mark, as (channel, event)."""

    def __init__(self, t, server, database, *channels):
        self.database = database
        self.ws = t.ws(server, "/ws?" + "&".join("channel=" + c for c in channels + ("mark",)),
                       protocol="fanwire.v1")
        for _ in range(len(channels) + 1):
            self.ws.until("ready")

    def of(self, sql):
        self.database.psql(sql)
        publish(self.database, "mark", "end")
        found = []
        while True:
            message = self.ws.expect("message", 20)
            if message["channel"] == "mark":
                return found
            message["data"].pop("tx", None)
            found.append((message["channel"], message["data"]))


PARTITIONED = """
create table ev (id int, region text) partition by list (region);
create table ev_a partition of ev for values in ('a');
create table pk (id int, r int, owner int, note text, primary key (id, r)) partition by list (r);
create table pk_1 partition of pk for values in (1);
"""
WATCHED = "select fanwire_watch('ev', 'ev'); select fanwire_watch('pk', 'pk:{owner}');" \
          "select fanwire_watch('pk', 'pk')"


@case(timeout=120)
def test_new_partitions_are_told_like_the_others(t):
    """By an event trigger, whoever makes them in whatever way; unwatching sets each back."""
    database = postgres(t)
    said(database, PARTITIONED + WATCHED)
    database.psql("create role joe; grant create on schema public to joe;"
                  "alter table ev owner to joe; alter table ev_a owner to joe")
    said(database, "set role joe; create table ev_b partition of ev for values in ('b')")
    database.psql("create table ev_c (id int not null, region text); create unique index ev_c_id on "
                  "ev_c (id); alter table ev_c replica identity using index ev_c_id;"
                  "alter table ev attach partition ev_c for values in ('c');"
                  "create schema s create table ev_d partition of public.ev for values in ('d')"
                  " partition by list (id); create table s.ev_d1 partition of s.ev_d default;"
                  "create table pk_2 partition of pk for values in (2);"
                  "create table other (id int); alter table other add more int")
    equal(database.psql(IDENTITY), "ev f, ev_a f, ev_b f, ev_c f, other d, pk f, pk_1 f, pk_2 f")
    heard = Heard(t, start(t, database), database, "ev", "pk", "pk:20", "pk:21")
    for region in "abcd":
        equal([e["op"] for _, e in heard.of(
            "insert into ev values (1, '%s'); update ev set id = 2; delete from ev" % region)],
            ["insert", "update", "delete"])
    database.psql("insert into pk values (1, 2, 20, 'x')")
    old, new = {"id": 1, "r": 2, "owner": 20, "note": "x"}, {"id": 1, "r": 2, "owner": 21, "note": "x"}
    base = {"table": "public.pk", "key": {"id": 1, "r": 2}}
    heard.of("select 1")
    moved = dict(base, op="update", row=new, old=old)
    equal(heard.of("update pk set owner = 21"), [("pk:21", moved), ("pk:20", moved), ("pk", moved)])
    gone = dict(base, op="delete", old=new)
    equal(heard.of("delete from pk"), [("pk:21", gone), ("pk", gone)])
    # it does not wait for who uses another partition, and one that cannot do it fails nobody's statement
    database.psql("alter table pk_1 replica identity default")
    holder = Session(t, database)
    holder.run("begin; lock table pk_1 in row exclusive mode")
    begun = time.monotonic()
    said(database, "create table pk_9 partition of pk for values in (9)")
    assert "public.pk_1 has not got the replica identity" in said(
        database, "alter table pk replica identity full")
    assert time.monotonic() - begun < 5
    holder.run("rollback")
    equal(database.psql("select relreplident from pg_class where relname = 'pk_9'"), "f")
    database.psql("drop table pk_9")
    database.psql("alter table fanwire.identities rename to hidden")
    assert "public.pk_3 has not got the replica identity of public.pk" in said(
        database, "create table pk_3 partition of pk for values in (3)")
    database.psql("alter table fanwire.hidden rename to identities;"
                  "alter view fanwire.published rename to hidden")
    assert "are not looked after" in said(database, "create table more (id int)")
    database.psql("alter view fanwire.hidden rename to published; drop table more")
    database.psql("select fanwire_watch('pk', 'pk')")
    equal(database.psql("select relreplident from pg_class where relname = 'pk_3'"), "f")
    # one that watches no more leaves the other; then nothing is left
    database.psql("alter table ev detach partition ev_b; select fanwire_unwatch('ev')")
    equal(database.psql(IDENTITY),
          "ev d, ev_a d, ev_b d, ev_c i, other d, pk f, pk_1 f, pk_2 f, pk_3 f")
    equal(database.psql("select string_agg(indexrelid::regclass::text, '') from pg_index "
                        "where indisreplident"), "ev_c_id")
    database.psql(sql_of(t, "outbox"))
    equal(database.psql("select count(*) from pg_event_trigger"), "0")
    equal(database.psql(IDENTITY).replace("i", "d"),
          "ev d, ev_a d, ev_b d, ev_c d, other d, pk d, pk_1 d, pk_2 d, pk_3 d")
    database.psql(sql_of(t, "wal"))
    equal(database.psql("select relreplident from pg_class where relname = 'pk_3'"), "f")
    database.psql(sql_of(t, "wal", "--uninstall"))
    equal(database.psql("select count(*) from pg_event_trigger"), "0")
    equal(database.psql("select count(*) from pg_class where relreplident = 'f' and relkind = 'r' "
                        "and relnamespace = 'public'::regnamespace"), "0")


@case(timeout=120)
def test_partitions_of_an_index_as_identity(t):
    database = postgres(t)
    said(database, "create table ix (id int not null, r int not null, x int) partition by list (r);"
         "create unique index ix_u on ix (id, r); create table ix_1 partition of ix for values in (1);"
         "alter table ix replica identity using index ix_u; select fanwire_watch('ix', 'ix:{id}');"
         "create table ix_2 partition of ix for values in (2)")
    equal(database.psql(IDENTITY), "ix i, ix_1 i, ix_2 i")
    heard = Heard(t, start(t, database), database, "ix:1", "ix:2")
    heard.of("insert into ix values (1, 2, 3)")
    equal([c for c, _ in heard.of("update ix set x = 4; update ix set id = 2")],
          ["ix:1", "ix:2", "ix:1"])
    said(database, "select fanwire_watch('ix', '{x}')")
    equal(database.psql(IDENTITY), "ix f, ix_1 f, ix_2 f")
    equal([(c, e["old"]) for c, e in heard.of("delete from ix")],
          [("ix:2", {"id": 2, "r": 2, "x": 4})])
    database.psql("select fanwire_unwatch('ix', '{x}')")
    equal(database.psql(IDENTITY), "ix f, ix_1 f, ix_2 f")
    database.psql("drop index ix_u; select fanwire_unwatch('ix')")
    assert "ix" in database.psql("select tbl from fanwire.identities")  # told, and left as it is


@case(timeout=120)
def test_partitions_where_no_event_trigger_may_be(t):
    """Who watches is told what to do. Until it is done nothing is told falsely, nothing lost in silence."""
    database = t.postgres(wal_level="logical")
    database.psql("create role app login; grant create on database postgres to app;"
                  "grant create on schema public to app")
    said(database, sql_of(t, "wal"), "app")
    equal(database.psql("select count(*) from pg_event_trigger"), "0")
    warning = said(database, PARTITIONED + WATCHED, "app")
    assert "from now on lacks the replica identity of public.pk" in warning, warning
    assert "Call fanwire_watch() again" in warning, warning
    Report(t, database.url + "?node=a").one("watched-new-partitions", "note")
    server = start(t, database)
    heard = Heard(t, server, database, "ev", "pk", "pk:20", "pk:21")
    said(database, "create table pk_2 partition of pk for values in (2)", "app")
    Report(t, database.url + "?node=a").one("watched-partitions", "warning")
    said(database, "create table ev_b partition of ev for values in ('b')", "app")
    base = {"table": "public.pk", "key": {"id": 1, "r": 2}}
    heard.of("insert into pk values (1, 2, 20, 'x')")
    row = {"id": 1, "r": 2, "owner": 21, "note": "x"}

    def counted():
        return server.metric("fanwire_source_refused_events_total")
    moved = dict(base, op="update", row=row, partial=True)
    equal(heard.of("update pk set owner = 21"), [("pk:21", moved), ("pk", moved)])
    equal(counted(), 1)
    line = server.wait_for_log(event="event-refused")
    assert "pk:{owner}" in line["msg"] and "fanwire_watch() again" in line["msg"], line
    base["key"] = {"id": 5, "r": 2}
    equal(heard.of("update pk set id = 5"), [
        (c, dict(base, op="update", row=dict(row, id=5), old={"id": 1, "r": 2}, partial=True))
        for c in ("pk:21", "pk")])
    equal(counted(), 2)
    equal(heard.of("delete from pk"), [("pk", dict(base, op="delete", old={"id": 5, "r": 2}, partial=True))])
    equal(counted(), 3)
    # what can be known is: the other partition's old rows, with nulls that are nulls
    base["key"] = {"id": 1, "r": 1}
    heard.of("insert into pk values (1, 1, 20, null)")
    old = {"id": 1, "r": 1, "owner": 20, "note": None}
    equal(heard.of("delete from pk"), [(c, dict(base, op="delete", old=old)) for c in ("pk:20", "pk")])
    equal(counted(), 3)
    assert "does not have a replica identity" in refused(
        database, "begin; insert into ev values (1, 'b'); update ev set id = 2")
    report = Report(t, database.url + "?node=a")
    found = report.find("watched-partitions")
    equal([(f["level"], f["title"].rsplit(" ", 1)[1]) for f in found],
          [("problem", "ev_b"), ("warning", "pk_2")])
    for finding in found:
        obey(t, finding)
    equal(Report(t, database.url + "?node=a").find("watched-partitions"), [])
    equal([e["op"] for _, e in heard.of("insert into ev values (1, 'b'); update ev set id = 2")],
          ["insert", "update"])
    base["key"] = {"id": 1, "r": 2}
    heard.of("insert into pk values (1, 2, 20, null)")
    gone = dict(base, op="delete", old=dict(old, r=2))
    equal(heard.of("delete from pk"), [("pk:20", gone), ("pk", gone)])
    equal(counted(), 3)
    # a superuser who installs over it makes no trigger of functions that are not his
    database.psql(sql_of(t, "wal"))
    equal(database.psql("select count(*) from pg_event_trigger"), "0")


@case(timeout=90)
def test_what_the_log_does_not_have_is_not_watched(t):
    """Refused when it is watched, and when mode wal is installed over another: by name, with the way out."""
    database = t.postgres(wal_level="logical")
    database.psql(sql_of(t, "outbox"))
    database.psql("create table gen (id int primary key, g int generated always as (id) stored);"
                  "create unlogged table \"U l\" (id int primary key);"
                  "create table p (i int primary key) partition by list (i);"
                  "create table p1 partition of p for values in (1);"
                  "create table lacks (id int primary key, x int);"
                  "create table fine (id int primary key);"
                  "select fanwire_watch('gen', 'gen:{g}'); select fanwire_watch('gen', 'gen', '{g}');"
                  "select fanwire_watch('\"U l\"', 'u''l'); select fanwire_watch('p', 'p');"
                  "select fanwire_watch('p1', 'p1'); select fanwire_watch('lacks', 'x:{x}');"
                  "select fanwire_watch('fine', 'fine'); alter table lacks drop x")
    error = refused(database, "begin;" + sql_of(t, "wal"))
    for part in ('gen, watched as "gen:{g}": the column g is generated',
                 'gen, watched as "gen": the column g is generated',
                 '"U l", watched as "u\'l": it is unlogged',
                 'p1, watched as "p1": it is a partition of p, which is watched, too',
                 'lacks, watched as "x:{x}": it has no column x'):
        assert part in error, (part, error)
    assert '"fine"' not in error, error
    equal(database.psql("select mode from fanwire_status()"), "outbox")
    way_out = error[error.index("SELECT fanwire_unwatch"):].split("\n")[0]
    database.psql(way_out)
    database.psql(sql_of(t, "wal"))
    equal(database.psql("select string_agg(channel, ',' order by channel) from fanwire.watched"), "fine,p")
    for watch, why in (("'gen', 'gen:{g}'", "the column g is generated"),
                       ("'gen', 'gen', '{g}'", "the column g is generated"),
                       ("'\"U l\"', 'u'", "it is unlogged"),
                       ("'p1', 'p1'", "cannot be watched beside public.p")):
        error = refused(database, "select fanwire_watch(%s)" % watch)
        assert why in error and "HINT" in error, (watch, error)
    assert "it is temporary" in refused(database, "create temp table q (id int);"
                                                  "select fanwire_watch('q', 'q')")
    database.psql("create unlogged table p2 partition of p for values in (2)")
    assert "not told, being foreign or unlogged tables: public.p2" in said(
        database, "select fanwire_watch('p', 'p')")


@case(timeout=120)
def test_columns_that_are_renamed_or_dropped(t):
    """Counted and said by mode wal, warned of at the writer by triggers, found by the doctor in both."""
    database = t.postgres(wal_level="logical")
    for mode in ("outbox", "wal"):
        database.psql(sql_of(t, mode))
        url = database.url + "?node=a"
        equal(Report(t, url).find("watched-columns"), [])
        server = start(t, database)
        heard = Heard(t, server, database, "todos:1", "few", "all")
        said(database, "drop table if exists todos; create table todos (id int primary key, list int, "
             "title text); select fanwire_watch('todos', 'todos:{list}'), "
             "fanwire_watch('todos', 'few', '{id,list}'), fanwire_watch('todos', 'all')")
        equal(len(heard.of("insert into todos values (1, 1, 'milk')")), 3)
        database.psql("alter table todos rename list to list_id; alter table todos rename id to nr")
        warning = said(database, "begin; insert into todos values (2, 1, 'b'), (3, 1, 'c'); commit")
        key = {"key": {}, "op": "insert", "table": "public.todos", "partial": True}
        found = heard.of("select 1")
        equal([c for c, _ in found], ["few", "all"] * 2 if mode == "wal" else [c for c, _ in found])
        equal([e for c, e in found if c == "few"], [dict(key, row={})] * 2)
        equal([e for c, e in found if c == "all"],
              [dict(key, row={"nr": n, "list_id": 1, "title": s}) for n, s in ((2, "b"), (3, "c"))])
        if mode == "wal":
            equal(server.metric("fanwire_source_refused_events_total"), 2)
            line = server.wait_for_log(event="event-refused")
            assert "no longer has the column list;" in line["msg"], line
            assert '"todos:{list}"' in line["msg"], line
        else:
            equal(warning.count("no longer has the column"), 3)  # for each template once
            assert "fanwire_unwatch('public.todos', 'todos:{list}')" in warning, warning
        findings = Report(t, url).find("watched-columns")
        equal([f["level"] for f in findings], ["warning"] * 3)
        database.psql("select fanwire_watch('todos', 'todos:{list_id}')")
        for finding in findings:
            obey(t, finding)
        equal(Report(t, url).find("watched-columns"), [])
        equal(database.psql("select string_agg(channel, ',' order by channel) from fanwire.watched"),
              "all,todos:{list_id}")
        told = heard.of("insert into todos values (4, 1, 'd')")
        equal(sorted((c, e["key"]) for c, e in told), [("all", {"nr": 4}), ("todos:1", {"nr": 4})])
        # another mode is not installed over what it could not watch
        database.psql("alter table todos rename list_id to l")
        error = refused(database, "begin;" + sql_of(t, "wal" if mode == "outbox" else "notify"))
        assert "todos" in error and "column list_id" in error, error
        assert "fanwire_unwatch('todos', 'todos:{list_id}')" in error, error
        database.psql("select fanwire_unwatch('todos')")
        server.stop()


@case(timeout=60)
def test_templates_where_backslashes_are_not_plain(t):
    database = t.postgres(wal_level="logical", standard_conforming_strings="off",
                          escape_string_warning="off")
    for mode in "notify", "wal":
        database.psql(sql_of(t, mode))
        server = start(t, database)
        ws, _, _ = client(t, server, "t:5", "")
        said(database, "drop table if exists t; create table t (id int primary key, a int);"
             "select fanwire_watch('t', 't:{a}')")
        equal(database.psql("select channel from fanwire.watched"), "t:{a}")
        for bad, why in (("t:{", "no channel template"), ("t:{nope}", "has no column nope")):
            assert why in refused(database, "select fanwire_watch('t', '%s')" % bad)
        database.psql("insert into t values (1, 5); update t set a = 6; truncate t;"
                      "select fanwire_publish('t:5', 'end')")
        equal([ws.expect("message")["data"]["op"] for _ in range(2)], ["insert", "update"])
        equal(text_of(ws.expect("message")), "end")
        server.stop()
