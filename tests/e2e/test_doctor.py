"""`fanwire doctor`: what it says of servers and files in all kinds of states, and that what it
advises, works."""
import json
import os
import shutil
import socket
import sqlite3
import subprocess
import threading

from case import Skip, case, equal, eventually
from pgbouncer import PgBouncer

PASSWORD = "s3cr3t/pass@word"  # of the role `secret`
ENCODED = "s3cr3t%2Fpass%40word"


def run(t, *arguments, env=None, wrapper=()):
    """(exit code, standard output, standard error); a password is in none of them."""
    done = subprocess.run([*wrapper, t.binary, "doctor", *arguments], stdin=subprocess.DEVNULL,
                          capture_output=True, timeout=50, text=True,
                          env=dict(os.environ, **(env or {})))
    for text in (done.stdout, done.stderr):
        for secret in (PASSWORD, ENCODED, "wr0ng"):
            assert secret not in text, text
    return done.returncode, done.stdout, done.stderr


class Report:
    def __init__(self, t, *arguments, **options):
        code, out, self.err = run(t, "--json", *arguments, **options)
        assert out, self.err
        self.all = json.loads(out)
        equal(self.all["exit"], code)
        self.code = code
        self.mode = self.all["mode"]
        self.durable = self.all["durable"]
        for found in self.all["findings"]:
            assert found["level"] in ("ok", "note", "warning", "problem"), found
            assert found["title"] and not found["title"].endswith("."), found

    def find(self, name):
        return [f for f in self.all["findings"] if f["id"] == name]

    def one(self, name, level=None):
        found = self.find(name)
        equal(len(found), 1, "%s in %s" % (name, json.dumps(self.all, indent=1)))
        if level:
            equal(found[0]["level"], level, json.dumps(found[0]))
        return found[0]

    def problems(self):
        return sorted({f["id"] for f in self.all["findings"] if f["level"] == "problem"})


def obey(t, finding):
    """Runs what a finding advises."""
    assert finding["commands"], finding
    directory = os.path.dirname(os.path.abspath(t.binary))
    for command in finding["commands"]:
        done = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True,
                              text=True, timeout=30, cwd=t.directory, stdin=subprocess.DEVNULL,
                              env=dict(os.environ, PATH=directory + ":" + os.environ["PATH"]))
        equal(done.returncode, 0, command + "\n" + done.stderr)


def secret_url(database, parameters=""):
    return "postgres://secret:%s@127.0.0.1:%d/postgres%s" % (ENCODED, database.cluster.port,
                                                            parameters)


def private(t, wal_level):
    """A server of the test's own: what it has open, and its settings, are nobody else's."""
    database = t.postgres()
    if database.psql("show wal_level") != wal_level:
        database.psql("alter system set wal_level = '%s'" % wal_level)
        database.restart()
    return database


def install(t, database, mode):
    sql = subprocess.run([t.binary, "sql", "postgres", "--mode", mode], stdout=subprocess.PIPE,
                         text=True, check=True).stdout
    database.psql("set client_min_messages = error; " + sql)


# ---- the command ----

def test_usage(t):
    for arguments, says in [
        ((), "SOURCE"),
        (("nonsense:x",), "postgres://"),
        (("app.db",), "sqlite:"),
        (("memory:", "memory:"), "one SOURCE"),
        (("--require", "luck", "memory:"), "durable"),
        (("--nonsense", "memory:"), "--nonsense"),
        (("--drop-slot", "fanwire_x", "memory:"), "postgres"),
        (("postgres://u:wr0ng%zz@h/d",), "%"),
        (("postgres://u:p@h/d?mode=nonsense",), "mode"),
        (("postgres://u:wr0ng@h:x/d",), "port"),
        (("sqlite:a.db?nonsense=1",), "nonsense"),
        (("sqlite:",), "file"),
    ]:
        code, out, err = run(t, *arguments, env={"FANWIRE_SOURCE": ""})
        equal((code, out), (2, ""), repr(arguments) + err)
        assert err.startswith("fanwire doctor: ") and says in err, err


def test_sources_without_a_backend(t):
    for url, mode in (("memory:", "memory"), ("stdin:log", "lines")):
        report = Report(t, url)
        equal((report.code, report.mode, report.durable), (0, mode, False))
        equal(run(t, "--require", "durable", url)[0], 5)
    equal(Report(t, env={"FANWIRE_SOURCE": "memory:"}).code, 0)


def test_no_colours_but_on_a_terminal(t):
    equal(run(t, "memory:")[1].count("\033"), 0)
    for extra, colours in (({}, True), ({"NO_COLOR": "1"}, False)):
        env = dict({k: v for k, v in os.environ.items() if k != "NO_COLOR"}, **extra)
        terminal, other = os.openpty()
        child = subprocess.Popen([t.binary, "doctor", "memory:"], stdout=other, env=env)
        os.close(other)
        text = b""
        try:
            while True:
                text += os.read(terminal, 65536)
        except OSError:  # the end of a terminal
            pass
        os.close(terminal)
        equal((child.wait(), b"\033[32m" in text), (0, colours), repr(text))


# ---- Postgres: reaching it ----

def test_postgres_cannot_be_reached(t):
    """3 each time, and each with its own reason."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        free = s.getsockname()[1]
        for url, says in [
            ("postgres://u:wr0ng@127.0.0.1:%d/app" % free, "nobody listens"),
            ("postgres://u:wr0ng@no-such-host.invalid/app", "has no address"),
            ("postgres://127.0.0.1:%d/app?password=wr0ng&sslpassword=wr0ng" % free, "nobody"),
            ("postgres:///app?host=%s" % t.directory, "no server at that socket"),
        ]:
            report = Report(t, url)
            found = report.one("connect", "problem")
            equal((report.code, report.mode), (3, None))
            assert says in found["title"] and found["detail"], found
            equal(run(t, url)[0], 3)


def test_postgres_hangs(t):
    """Somebody takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        report = Report(t, "postgres://u:wr0ng@127.0.0.1:%d/app?connect_timeout=1"
                        % silent.getsockname()[1])
        equal(report.code, 3)
        assert "no answer in time" in report.one("connect")["title"]


def test_postgres_is_something_else(t):
    server = t.server("memory:", workers=1)
    report = Report(t, "postgres://u:wr0ng@127.0.0.1:%d/app" % server.address[1])
    equal(report.code, 3)
    assert "no PostgreSQL server" in report.one("connect", "problem")["title"], report.all


def test_postgres_falls_silent(t):
    """It lets everybody in and answers nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

        def serve():
            client, _ = listener.accept()
            client.recv(8)  # wants TLS
            client.send(b"N")
            client.recv(4096)
            client.send(b"R\0\0\0\x08\0\0\0\0" + b"K\0\0\0\x0c\0\0\0\x01\0\0\0\x01"
                        + b"Z\0\0\0\x05I")
            while client.recv(4096):
                pass
        threading.Thread(target=serve, daemon=True).start()
        report = Report(t, "postgres://postgres@127.0.0.1:%d/app" % port)
    equal((report.code, report.mode), (3, None))
    assert "did not answer" in report.one("server", "problem")["detail"], report.all


@case(postgres=True)
def test_postgres_refuses(t):
    database = t.database()
    port = database.cluster.port
    for url, says, state in [
        ("postgres://secret:wr0ng@127.0.0.1:%d/postgres" % port, "password is wrong", "28P01"),
        ("postgres://secret@127.0.0.1:%d/postgres" % port, "password is wanted", None),
        ("postgres://nosuchrole@127.0.0.1:%d/postgres" % port, "this role", "28000"),
        ("postgres://postgres@127.0.0.1:%d/nosuchdatabase" % port, "no such database", "3D000"),
        (database.url + "?sslmode=require", "no TLS", None),
    ]:
        report = Report(t, url)
        found = report.one("connect", "problem")
        equal((report.code, found.get("sqlstate")), (3, state), repr(found))
        assert says in found["title"], found
        assert "LOCATION" not in found["detail"], found
    # the second of two hosts is a way out, and the first is told of
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        report = Report(t, "postgres://postgres@127.0.0.1:%d,127.0.0.1:%d/%s"
                        % (s.getsockname()[1], port, database.name))
    equal(report.code, 0)
    equal([f["level"] for f in report.find("connect")], ["warning", "ok"])


# ---- Postgres: what is found there ----

@case(timeout=90)
def test_postgres_with_nothing_installed(t):
    database = private(t, "replica")
    url = database.url + "?schema=public&pool_size=3"
    report = Report(t, url)
    equal((report.code, report.mode, report.durable), (0, "notify", False))
    equal(report.problems(), [])
    for name in ("connect", "primary", "encoding", "role", "connections", "listen", "slots",
                 "senders", "replication", "xmin", "notify-queue"):
        report.one(name, "ok")
    for name in ("sql", "wal-level", "slot-limit", "better-outbox", "better-wal"):
        report.one(name, "note")
    assert "schema, pool_size" in report.one("url")["title"]
    equal(report.one("encoding")["encoding"], "UTF8")
    assert report.one("version")["version"] >= 120000
    equal(run(t, "--require", "durable", url)[0], 5)
    code, out, _ = run(t, url)
    equal(code, 0)
    words = " ".join(out.split())
    assert "Mode notify (nothing else is installed)" in words and "Not durable." in words, out
    for found in report.all["findings"]:
        if found["id"] != "listen":  # it tells a time
            assert found["title"] in words, found
        for command in found["commands"]:
            assert "$ " + command in out, command
    obey(t, report.one("sql"))
    after = Report(t, database.url)
    equal((after.one("sql", "ok")["mode"], after.mode), ("notify", "notify"))
    equal(after.one("listen", "ok")["level"], "ok")
    equal(database.psql("select count(*) from pg_listening_channels()"), "0")


@case(timeout=90)
def test_postgres_modes(t):
    database = private(t, "replica")
    install(t, database, "outbox")
    report = Report(t, database.url, "--require", "durable")
    equal((report.code, report.mode, report.durable), (0, "outbox", True))
    equal(report.one("sql", "ok")["mode"], "outbox")
    report.one("outbox", "ok")
    contradiction = Report(t, database.url + "?mode=notify")
    equal((contradiction.code, contradiction.mode, contradiction.problems()),
          (1, "notify", ["mode"]))
    obey(t, contradiction.one("mode"))
    equal(Report(t, database.url + "?mode=notify").code, 0)
    install(t, database, "wal")
    report = Report(t, database.url)
    equal((report.code, report.mode, report.problems()), (1, "wal", ["wal-level"]))
    equal((report.durable, report.one("node", "note")["commands"]), (False, []))
    equal(run(t, database.url)[0], 1)
    equal(report.one("publication", "ok")["tables"], 0)
    database.psql("drop publication fanwire")
    report = Report(t, database.url)
    equal(report.problems(), ["publication", "wal-level"])
    obey(t, report.one("publication"))
    Report(t, database.url).one("publication", "ok")
    database.psql("update fanwire.installation set mode = 'telepathy'")
    report = Report(t, database.url)
    equal((report.code, report.problems()), (1, ["mode"]))
    assert "telepathy" in report.one("mode")["title"]
    database.psql("update fanwire.installation set mode = 'notify', version = 99")
    report = Report(t, database.url)
    equal((report.code, report.problems()), (1, ["sql"]))
    assert "newer" in report.one("sql")["title"]
    database.psql("update fanwire.installation set version = 0")
    report = Report(t, database.url)
    obey(t, report.one("sql", "warning"))
    Report(t, database.url).one("sql", "ok")
    database.psql("delete from fanwire.installation")
    Report(t, database.url).one("sql", "warning")


@case(postgres=True)
def test_postgres_outbox(t):
    """Rights, missing tables, what is in it."""
    database = t.database()
    secret = secret_url(database).replace("/postgres", "/" + database.name)
    install(t, database, "outbox")
    database.psql("select fanwire_publish('todos', 'hello')")
    assert Report(t, database.url).one("outbox", "ok")["oldest_s"] >= 0
    report = Report(t, secret)
    equal((report.code, report.problems()), (1, ["outbox-rights"]))
    found = report.one("outbox-rights")
    for command in found["commands"]:
        obey(t, {"commands": [command]})
    report = Report(t, secret)
    equal((report.code, report.find("outbox-rights")), (0, []))
    for right, says in (("insert", "publish into"), ("delete", "remove old rows")):
        database.psql("revoke %s on fanwire.outbox from secret" % right)
        assert says in Report(t, secret).one("outbox-rights", "warning")["title"]
        database.psql("grant %s on fanwire.outbox to secret" % right)
    database.psql('alter database "%s" set fanwire.notify = off' % database.name)
    Report(t, secret).one("outbox-notify", "note")
    for damage in ("delete from fanwire.outbox_state", "drop table fanwire.outbox_state",
                   "drop table fanwire.outbox"):
        database.psql(damage)
        report = Report(t, database.url)
        equal((report.code, report.problems()), (1, ["outbox"]), damage)
        obey(t, report.one("outbox"))
        equal(Report(t, database.url).code, 0, damage)


@case(timeout=90)
def test_postgres_with_logical_wal(t):
    """A role without rights, names that need quoting, and every command that mends it."""
    database = private(t, "replica")
    port = database.cluster.port
    database.psql("""create role "o'Neil \\ $HOME" login; create database "a=b 'c'\n"; """)
    url = "postgres://o%%27Neil%%20%%5C%%20%%24HOME@127.0.0.1:%d/a%%3Db%%20%%27c%%27%%0A" % port
    report = Report(t, url + "?mode=wal")
    equal((report.code, report.problems()), (1, ["replication-role", "sql", "wal-level"]))
    assert not report.find("replication"), "it was not tried without the right"
    obey(t, report.one("replication-role"))
    command = report.one("wal-level")["commands"][0]
    obey(t, {"commands": [command]})
    obey(t, report.one("slot-limit", "warning"))
    # the restart is for a server that a system's service manager runs
    database.restart()
    report = Report(t, url + "?mode=wal&node=a")
    equal((report.problems(), report.durable), (["sql"], True))
    assert "not there yet" in report.one("node", "note")["title"], report.all
    for name in ("wal-level", "replication-role", "slot-limit", "replication"):
        report.one(name, "ok")
    equal(report.one("slot-limit")["max_slot_wal_keep_size"], "4GB")
    equal(Report(t, url).one("better-wal")["ready"], True)
    # one of the postmaster's own
    database.psql("alter system set wal_level = 'replica'; select pg_reload_conf()")
    eventually(lambda: database.psql("select pending_restart from pg_settings "
                                     "where name = 'wal_level'") == "t")
    equal(Report(t, url).one("wal-level")["wal_level"], "logical")


@case(timeout=90)
def test_postgres_slots(t):
    database = private(t, "logical")
    database.psql("alter system set max_replication_slots = 3; "
                  "alter system set max_slot_wal_keep_size = '1MB'")
    database.restart()
    for name in ("fanwire_idle", "fanwire_busy", "others"):
        database.psql("select pg_create_logical_replication_slot('%s', 'pgoutput')" % name)
    database.psql("create publication p")
    reader = subprocess.Popen(
        ["/usr/lib/postgresql/%s/bin/pg_recvlogical"
         % database.psql("show server_version").split(".")[0],
         "-d", database.url, "-S", "fanwire_busy", "--start", "-o", "proto_version=1",
         "-o", "publication_names=p", "-f", "/dev/null"], stderr=subprocess.DEVNULL)
    t.cleanup(lambda: (reader.kill(), reader.wait()))
    pid = eventually(lambda: database.psql("select active_pid from pg_replication_slots "
                                           "where slot_name = 'fanwire_busy' and active"))
    report = Report(t, database.url)
    slots = {f["slot"]: f for f in report.find("slot")}
    equal(sorted(slots), ["fanwire_busy", "fanwire_idle"])
    busy, idle = slots["fanwire_busy"], slots["fanwire_idle"]
    equal((busy["active"], busy["pid"], busy["application"]), (True, int(pid), "pg_recvlogical"))
    equal((idle["active"], idle["level"], busy["level"]), (False, "note", "ok"))
    assert idle["retained_bytes"] >= 0 and idle["wal_status"] == "reserved", idle
    equal((report.one("slots")["used"], report.one("slots")["max"]), (3, 3))
    install(t, database, "wal")
    for node, level, says in (("busy", "note", "running: pid " + pid), ("idle", "ok", "waits")):
        report = Report(t, database.url + "?node=" + node, "--require", "durable")
        equal((report.code, report.problems()), (0, []))
        assert says in report.one("node", level)["title"], report.all
    report = Report(t, database.url, "--require", "durable")  # a temporary slot finds no room
    equal((report.code, report.problems()), (1, ["slots"]))
    for name, says in (("fanwire_busy", "pid " + pid), ("others", "not fanwire's"),
                       ("fanwire_none", "none of this name"), ("Fanwire'; x", "letters")):
        refused = Report(t, "--drop-slot", name, database.url)
        equal(refused.code, 1)
        assert says in refused.one("drop-slot", "problem")["title"], refused.all
    obey(t, idle)
    equal(database.psql("select slot_name from pg_replication_slots order by 1"),
          "fanwire_busy\nothers")
    # one that has fallen behind
    database.psql("select pg_create_logical_replication_slot('fanwire_lost', 'pgoutput')")
    for _ in range(3):
        database.psql("create table bulk as select generate_series(1, 10000); drop table bulk; "
                      "select pg_switch_wal(); checkpoint")
    lost = [f for f in Report(t, database.url).find("slot") if f["slot"] == "fanwire_lost"][0]
    equal((lost["wal_status"], lost["level"]), ("lost", "warning"))


@case(timeout=90)
def test_postgres_long_transactions(t):
    database = private(t, "replica")
    writer = subprocess.Popen(["psql", "-X", "-q", database.url], stdin=subprocess.PIPE,
                              stdout=subprocess.DEVNULL, env=dict(os.environ, PGAPPNAME="bulk job"))
    t.cleanup(lambda: (writer.kill(), writer.wait()))
    writer.stdin.write(b"begin; create table held (); \n")
    writer.stdin.flush()
    query = "select pid from pg_stat_activity where application_name = 'bulk job' " \
            "and backend_xid is not null"
    pid = eventually(lambda: database.psql(query))
    found = Report(t, database.url).one("xmin", "note")
    equal((found["pid"], found["application"]), (int(pid), "bulk job"))
    assert found["age_s"] >= 0, found
    # who may not see since when, is told who it is, and how to see more
    found = Report(t, secret_url(database)).one("xmin")
    equal((found["pid"], found["application"], "age_s" in found), (int(pid), "bulk job", False))
    assert "pg_read_all_stats" in found["commands"][0], found


@case(timeout=90)
def test_postgres_prepared_transactions(t):
    database = t.postgres()
    database.psql("alter system set max_prepared_transactions = 2")
    database.restart()
    database.psql("begin; create table held (); prepare transaction 'it''s \"mine\"'")
    found = Report(t, database.url).one("prepared", "note")
    assert found["age_s"] >= 0, found
    obey(t, found)
    equal(Report(t, database.url).find("prepared"), [])


@case(timeout=90)
def test_postgres_standby(t):
    database = t.postgres()
    standby = database.cluster.dir + "/standby"
    bin_ = database.cluster.bin
    as_postgres = ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups", "--"] \
        if os.geteuid() == 0 else []
    with open(database.cluster.data + "/pg_hba.conf", "a") as f:
        f.write("host replication all 127.0.0.1/32 trust\n")
    database.psql("select pg_reload_conf()")

    def server(*command):
        done = subprocess.run([*as_postgres, *command], capture_output=True, text=True, cwd="/")
        equal(done.returncode, 0, done.stderr)
    os.mkdir(standby)
    os.chmod(standby, 0o700)
    if as_postgres:
        subprocess.run(["chown", "postgres:", standby], check=True)
    server(bin_ + "/pg_basebackup", "-D", standby, "-R", "--no-sync", "-c", "fast", "-X", "stream",
           "-d", database.url)
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    server(bin_ + "/pg_ctl", "-D", standby, "-w", "-s", "-l", standby + "/log", "-o",
           "-c port=%d -c unix_socket_directories=''" % port, "start")
    t.cleanup(lambda: server(bin_ + "/pg_ctl", "-D", standby, "-w", "-s", "-m", "immediate",
                             "stop"))
    for mode in ("notify", "outbox", "wal"):
        report = Report(t, "postgres://postgres@127.0.0.1:%d/postgres?mode=%s" % (port, mode))
        equal((report.code, report.mode), (1, mode))
        report.one("primary", "warning" if mode == "outbox" else "problem")
    assert "127.0.0.1 port %d" % database.cluster.port in report.one("primary")["detail"]
    report = Report(t, "postgres://postgres@127.0.0.1:%d,127.0.0.1:%d/postgres"
                       "?target_session_attrs=read-write" % (port, database.cluster.port))
    equal(report.code, 0)
    assert "standby" in report.find("connect")[0]["title"], report.all


@case(timeout=90)
def test_postgres_with_tls(t):
    if not shutil.which("openssl"):
        raise Skip("no openssl is installed")
    database = t.postgres()
    data = database.cluster.data
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
                    "-subj", "/CN=localhost", "-keyout", data + "/server.key",
                    "-out", data + "/server.crt"], check=True, capture_output=True)
    if os.geteuid() == 0:
        shutil.chown(data + "/server.key", "postgres", "postgres")
    os.chmod(data + "/server.key", 0o600)
    database.psql("alter system set ssl = on")
    database.restart()
    found = Report(t, database.url).one("connect", "ok")
    assert found["tls"].startswith("TLSv1."), found
    report = Report(t, database.url.replace("127.0.0.1", "localhost") + "?sslmode=verify-full",
                    env={"HOME": t.directory})
    equal(report.code, 3)
    assert "certificate is not trusted" in report.one("connect", "problem")["title"], report.all
    shutil.copy(data + "/server.crt", t.directory + "/root.crt")
    report = Report(t, database.url.replace("127.0.0.1", "localhost")
                    + "?sslmode=verify-full&sslrootcert=%s/root.crt" % t.directory)
    equal(report.code, 0)
    obey(t, report.one("sql"))
    equal(Report(t, database.url).one("sql", "ok")["mode"], "notify")
    assert "PGSSLMODE=verify-full" in report.one("sql")["commands"][0], report.all


@case(timeout=90)
def test_postgres_through_poolers(t):
    """In transaction mode LISTEN hears nothing; in session mode it does."""
    database = t.postgres()
    database.psql("create role guest login")
    pooler = PgBouncer(t, database.cluster.port)
    report = Report(t, database.url_through(pooler.port))
    equal((report.code, report.problems()), (1, ["listen", "pooler"]))
    found = report.one("pooler")
    equal(found["pool_mode"], "transaction")
    assert found["pooler"].startswith("PgBouncer 1."), found
    assert "transaction mode" in found["title"]
    assert "port %d" % database.cluster.port in found["detail"], found
    equal(found["commands"],
          ["fanwire doctor postgres://postgres@127.0.0.1:%d/postgres" % database.cluster.port])
    report.one("replication", "note")
    # its console is no database, and it hands refusals on
    for name, which in (("pgbouncer", "server"), ("nosuchdatabase", "connect")):
        wrong = Report(t, "postgres://postgres@127.0.0.1:%d/%s" % (pooler.port, name))
        equal((wrong.code, wrong.find(which)[0]["level"]), (3, "problem"))
    assert "no such database" in wrong.one("connect")["title"], wrong.all
    # who may not use its console
    found = Report(t, "postgres://guest@127.0.0.1:%d/postgres" % pooler.port).one("pooler")
    equal((found["pooler"], found["pool_mode"]), ("PgBouncer", "transaction"))
    # outbox needs no LISTEN, wal needs another way
    install(t, database, "outbox")
    report = Report(t, database.url_through(pooler.port), "--require", "durable")
    equal((report.code, report.mode, report.problems()), (0, "outbox", []))
    report.one("listen", "note")
    install(t, database, "notify")

    pooler = PgBouncer(t, database.cluster.port, "session")
    report = Report(t, database.url_through(pooler.port))
    equal((report.code, report.problems()), (0, []))
    wal = Report(t, database.url_through(pooler.port) + "?mode=wal")
    assert {"pooler", "replication"} <= set(wal.problems()), wal.all
    report.one("listen", "ok")
    equal(report.one("pooler", "note")["pool_mode"], "session")
    equal(Report(t, database.url).find("pooler"), [])


@case(postgres=True)
def test_postgres_stalls(t):
    """The network ends in the middle: it comes to an end, too."""
    database = t.database()
    proxy = t.proxy(database.cluster.port)
    url = database.url_through(proxy.port) + "?connect_timeout=1"
    equal(Report(t, url).code, 0)
    proxy.stall()
    report = Report(t, url)
    equal(report.code, 3)
    assert "no answer in time" in report.one("connect")["title"]


@case(timeout=90)
def test_postgres_of_clouds(t):
    """By the roles that only they have: their own commands, and no ALTER SYSTEM."""
    database = private(t, "replica")
    for role, name, command in [
        ("rds_superuser", "Amazon RDS", "ParameterName=rds.logical_replication,ParameterValue=1"),
        ("cloudsqlsuperuser", "Cloud SQL", "--database-flags=cloudsql.logical_decoding=on"),
        ("alloydbsuperuser", "AlloyDB", "--database-flags=alloydb.logical_decoding=on"),
        ("azure_pg_admin", "Azure", "--name wal_level --value logical"),
        ("neon_superuser", "Neon", None),
        ("supabase_admin", "Supabase", "wal_level=logical"),
    ]:
        database.psql("create role " + role)
        report = Report(t, secret_url(database))
        assert name in report.one("provider")["provider"], report.all
        found = report.one("wal-level")
        assert name in found["detail"], found
        assert not command or command in found["commands"][0], found
        assert not any("ALTER SYSTEM" in c for f in report.all["findings"] for c in f["commands"])
        rights = report.one("replication-role")["commands"][0]
        assert ("rds_replication" in rights) == (role == "rds_superuser"), rights
        found = report.one("slot-limit")
        equal(found["commands"] == [], role in ("azure_pg_admin", "neon_superuser"), found)
        assert role != "azure_pg_admin" or "cannot be set" in found["detail"], found
        database.psql("drop role " + role)
    database.psql("create role rds_replication; grant rds_replication to secret; "
                  "alter database postgres set rds.logical_replication = 'off'")
    report = Report(t, secret_url(database))
    assert "RDS" in report.one("provider")["provider"]
    report.one("replication-role", "ok")
    report.one("replication", "note")  # the right is there by name only


@case(timeout=60)
def test_postgres_replication_by_a_right_that_no_attribute_tells(t):
    """As managed databases have it: the attempt decides."""
    database = private(t, "logical")
    database.psql("create role chief superuser login; alter role chief set role = 'secret'")
    report = Report(t, database.url.replace("postgres@", "chief@"))
    for name in ("replication-role", "replication"):
        report.one(name, "ok")
    database.psql("alter role chief nosuperuser; grant secret to chief")
    report = Report(t, database.url.replace("postgres@", "chief@"))
    report.one("replication-role", "note")
    equal(report.find("replication"), [])


@case(timeout=90)
def test_postgres_with_little_room(t):
    """Few connections, no slot, no sender, no encoding."""
    database = t.postgres()
    database.psql("create database ascii encoding 'SQL_ASCII' template template0; "
                  "create database win encoding 'WIN1252' locale 'C' template template0; "
                  "create database latin encoding 'LATIN1' locale 'C' template template0; "
                  "alter role secret connection limit 1; "
                  "alter system set max_wal_senders = 0; alter system set max_replication_slots = 0")
    database.restart()
    report = Report(t, secret_url(database))
    equal(report.code, 0)
    report.one("connections", "warning")
    report.one("listen", "warning")
    obey(t, report.one("connections"))
    report = Report(t, secret_url(database).replace("/postgres", "/ascii") + "?mode=wal")
    for name in ("slots", "senders"):
        report.one(name, "problem")
    report.one("encoding", "warning")
    for name, level in ("win", "warning"), ("latin", "ok"):
        Report(t, secret_url(database).replace("/postgres", "/" + name)).one("encoding", level)
    report.one("connections", "ok")
    report.one("listen", "ok")


# ---- SQLite ----

def make_database(t, name="app.db", url=""):
    """A file that fanwire has made."""
    path = os.path.join(t.directory, name)
    sql = subprocess.run([t.binary, "sql", "sqlite"], stdout=subprocess.PIPE, check=True).stdout
    database = sqlite3.connect(path, isolation_level=None)
    database.execute("pragma journal_mode = wal")
    database.executescript(sql.decode())
    return path, database


def test_sqlite_good(t):
    path, database = make_database(t, "it's $HOME.db")
    database.execute("create table todos (id integer primary key, title text)")
    report = Report(t, "--require", "durable", "sqlite:" + path)
    equal((report.code, report.mode, report.durable), (0, "outbox", True))
    for name in ("library", "file", "journal-mode", "file-system", "permissions", "integrity",
                 "size", "tables", "outbox"):
        report.one(name, "ok")
    equal((report.one("outbox")["rows"], report.one("tables")["version"]), (0, 1))
    command = report.one("triggers", "note")["commands"][0]
    obey(t, {"commands": [command.replace("TABLE=CHANNEL", "todos=todos")]})
    database.execute("insert into todos values (1, 'milk')")
    report = Report(t, "sqlite:" + path)
    equal(report.one("triggers", "ok")["tables"], "todos")
    equal((report.one("outbox")["rows"], report.one("outbox")["last_id"]), (1, 1))


def test_sqlite_files_that_are_not_there(t):
    url = "sqlite:%s/new.db" % t.directory
    report = Report(t, url)
    equal((report.code, report.durable), (0, True))
    report.one("file", "note")
    for wrong in (url + "?create=off", url + "?readonly=on", "sqlite:%s/no/dir.db" % t.directory):
        report = Report(t, wrong)
        equal((report.code, report.mode), (3, None), wrong)
        report.one("file", "problem")
    equal(os.listdir(t.directory), [], "nothing was made")


def test_sqlite_foreign_and_corrupt(t):
    path = t.directory + "/text"
    with open(path, "w") as f:
        f.write("this is a long enough text that is no database at all\n" * 40)
    report = Report(t, "sqlite:" + path)
    equal(report.code, 3)
    assert "no SQLite database" in report.one("file", "problem")["title"]
    equal(Report(t, "sqlite:" + t.directory).code, 3)

    plain = t.directory + "/plain.db"
    database = sqlite3.connect(plain, isolation_level=None)
    database.execute("create table todos (id integer primary key)")
    report = Report(t, "sqlite:" + plain)
    equal(report.code, 0)
    report.one("tables", "note")
    obey(t, report.one("journal-mode", "warning"))
    obey(t, report.one("tables"))
    report = Report(t, "sqlite:" + plain)
    report.one("journal-mode", "ok")
    report.one("outbox", "ok")
    database.execute("update fanwire_meta set value = 7 where name = 'version'")
    equal(Report(t, "sqlite:" + plain).problems(), ["tables"])
    database.execute("update fanwire_meta set value = 1 where name = 'version'")
    database.execute("drop table fanwire_outbox")
    database.execute("create table fanwire_outbox (id integer primary key, channel)")
    report = Report(t, "sqlite:" + plain)
    equal((report.code, report.problems()), (1, ["outbox"]))
    equal(Report(t, "sqlite:" + plain + "?create=off").code, 1)

    path, database = make_database(t, "broken.db")
    database.executescript("create table big (x); insert into big select randomblob(900) from "
                           "(with recursive n(i) as (select 1 union all select i + 1 from n "
                           "where i < 400) select i from n); pragma wal_checkpoint(truncate)")
    database.close()
    with open(path, "r+b") as f:
        f.seek(4096 * 20)
        f.write(b"\x5a" * 4096 * 30)
    report = Report(t, "sqlite:" + path)
    equal((report.code, report.problems()), (1, ["integrity"]))
    assert ".recover" in report.one("integrity")["commands"][0]


def test_sqlite_read_only(t):
    if os.geteuid() != 0:
        raise Skip("it takes root to become somebody else")
    path, database = make_database(t)
    database.close()
    other = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--"]
    os.chmod(path, 0o644)
    for name in os.listdir(t.directory):
        assert name == "app.db", name
    report = Report(t, "sqlite:" + path, wrapper=other)
    equal((report.code, report.problems()), (3, ["file", "permissions"]))
    os.chmod(t.directory, 0o777)
    report = Report(t, "sqlite:" + path, wrapper=other)
    equal((report.code, report.problems()), (1, ["permissions"]))
    assert "65534" in report.one("permissions")["title"]
    report = Report(t, "sqlite:" + path + "?readonly=on", wrapper=other)
    equal((report.code, report.problems()), (0, []))
    os.chmod(path, 0o600)
    report = Report(t, "sqlite:" + path, wrapper=other)
    equal((report.code, report.problems()), (3, ["file"]))
    assert "Permission denied" in report.one("file")["detail"]


def test_sqlite_locked(t):
    path, database = make_database(t)
    database.execute("pragma journal_mode = delete")
    database.execute("begin exclusive")
    report = Report(t, "sqlite:" + path)
    report.one("locked", "warning")
    database.execute("rollback")
    equal(Report(t, "sqlite:" + path).find("locked"), [])
