"""The SQLite source: rows of a file as events, by whatever process; restarts of everything."""
import os
import signal
import sqlite3
import subprocess
import time

from case import case, equal, eventually
from server import alive
from web import Raw
from ws import Closed, Refused


def connect(path):
    """As an application does: every statement a transaction of its own."""
    return sqlite3.connect(path, timeout=30, isolation_level=None)


def insert(database, channel, payload):
    database.execute("insert into fanwire_outbox (channel, payload) values (?, ?)",
                     (channel, payload))


def start(t, name="app.db", parameters="", **options):
    """(server, path, connection)"""
    path = os.path.join(t.directory, name)
    server = t.server("sqlite:%s%s" % (path, parameters), **options)
    return server, path, connect(path)


def payload_of(message):
    return message.get("data", message.get("text", message.get("base64")))


def test_rows_reach_everybody(t):
    """The file and its table are made, what is inserted arrives; a rollback never does."""
    server, _, database = start(t, workers=2)
    server.wait_for_log(event="created")
    crowd = t.crowd(server)
    v1 = crowd.add(4, "/ws/todos", "json")
    members = crowd.add(4, "/ws/todos?since=oldest", "bare") + v1 + crowd.add(4, "/sse/todos", "sse")
    insert(database, "todos", "first")
    insert(database, "other", "not theirs")
    database.execute("begin")
    insert(database, "todos", "never")
    database.execute("rollback")
    database.execute("begin")
    for i in range(500):
        insert(database, "todos", "e%d" % i)
    database.execute("commit")
    crowd.wait(lambda: all(len(m.payloads) == 501 for m in members))
    for member in members:
        equal(member.payloads, ["first"] + ["e%d" % i for i in range(500)])
    equal(v1[0].of("welcome")[0]["mode"], "outbox")
    assert v1[0].of("welcome")[0]["durable"]
    equal(v1[0].of("gap"), [])


def test_positions_of_a_server_that_was_quicker(t):
    """`ready` is not before them: who resumes from there gets nothing that it has."""
    server, _, database = start(t, workers=1)
    insert(database, "a", "0")
    sinces = range(1000, 20000, 1700)
    clients = [t.ws(server, "/ws?channel=x", protocol="fanwire.v1") for _ in sinces]
    for client, since in zip(clients, sinces):
        stream = client.until("ready")[1]["id"].split(".")[0]
        client.say(type="subscribe", channel="a", since="%s.%x.0" % (stream, since))
    database.execute("begin")
    database.executemany("insert into fanwire_outbox (channel, payload) values (?, ?)",
                         (("a" if n % 500 == 0 else "y", str(n)) for n in range(2, 20002)))
    database.execute("commit")
    for client, since in zip(clients, sinces):
        found, ready = client.until("ready")
        assert int(ready["id"].split(".")[1], 16) >= since, (ready, since)
        found = [m for m in found if m["type"] != "position"]
        while not found or found[-1]["data"] < 20000:
            found.append(client.until("message")[1])
        equal([m["data"] for m in found], [n for n in range(500, 20001, 500) if n > since])


def test_triggers(t):
    """fanwire sql sqlite --watch: the application's own statements are the events."""
    server, path, database = start(t)
    database.execute("create table todos (id integer primary key, title text, list_id)")

    def install(*arguments):
        sql = subprocess.run([t.binary, "sql", "sqlite", *arguments, path],
                             stdout=subprocess.PIPE, check=True).stdout
        database.executescript(sql.decode())
    for _ in range(2):  # may be run again
        install("--watch", "todos=list:{list_id}")
    one = t.ws(server, "/ws/list:1", protocol="fanwire.v1")
    two = t.ws(server, "/ws/list:2", protocol="fanwire.v1")
    one.until("ready")
    two.until("ready")
    database.execute("insert into todos values (7, 'it''s \"quoted\" \u017elu\u0165', 1)")
    row = {"id": 7, "title": "it's \"quoted\" \u017elu\u0165", "list_id": 1}
    equal(one.expect("message")["data"],
          {"op": "insert", "table": "todos", "key": {"id": 7}, "row": row})
    database.execute("update todos set list_id = 2")
    moved = {"op": "update", "table": "todos", "key": {"id": 7}, "row": dict(row, list_id=2),
             "old": row}
    equal(one.expect("message")["data"], moved)
    equal(two.expect("message")["data"], moved)
    database.execute("update todos set title = x'00ff'")
    equal(two.expect("message")["data"]["row"]["title"], "00FF")
    database.execute("delete from todos")
    equal(two.expect("message")["data"]["op"], "delete")
    one.quiet()
    install("--uninstall")
    database.execute("insert into todos values (8, 'nobody is told', 1)")


def test_templates_of_a_table_stand_side_by_side(t):
    path = os.path.join(t.directory, "x.db")
    database = connect(path)
    database.execute("create table t (id integer primary key, a)")

    def run(*arguments):
        sql = subprocess.run([t.binary, "sql", "sqlite", *arguments, path],
                             stdout=subprocess.PIPE, check=True).stdout
        database.executescript(sql.decode())

    def told(statement):
        """The channels."""
        database.execute("delete from fanwire_outbox")
        database.execute(statement)
        return sorted(c for c, in database.execute("select channel from fanwire_outbox"))
    long = "l" * 250
    for _ in range(2):
        run("--watch", "t=t", "--watch", "t=T", "--watch", "t=t:{id}", "--watch", "T=" + long)
        run("--watch", "t=t")
    equal(told("insert into t values (1, 'a')"), ["T", long, "t", "t:1"])
    equal(told("update t set id = 2"), ["T", long, "t", "t:1", "t:2"])
    run("--unwatch", "t=T", "--unwatch", "t=nobody", "--unwatch", "t=" + long)
    equal(told("update t set a = 'b'"), ["t", "t:2"])
    database.execute("alter table t rename to renamed")
    run("--watch", "renamed=t:{id}")  # its triggers go with it, under the old names
    equal(told("update renamed set a = 'c'"), ["t", "t:2"])
    run("--unwatch", "renamed")
    equal(told("delete from renamed"), [])
    equal(database.execute("select count(*) from sqlite_master where type = 'trigger'").fetchone(),
          (0,))
    # as an earlier version named them, one template a table
    database.execute("create trigger fanwire_watch_renamed_insert after insert on renamed begin "
                     "insert into fanwire_outbox (channel, payload) values ('earlier', ''); end")
    run("--unwatch", "renamed=earlier")
    equal(told("insert into renamed values (3, 'd')"), ["earlier"])
    run("--watch", "renamed=new")
    equal(told("insert into renamed values (4, 'd')"), ["new"])


def test_sql_is_refused(t):
    path = os.path.join(t.directory, "x.db")
    connect(path).execute("create table t (x)")

    def code(*arguments):
        return subprocess.run([t.binary, "sql", "sqlite", *arguments], stdout=subprocess.DEVNULL,
                              stderr=subprocess.DEVNULL).returncode
    equal(code(), 0)
    equal(code(path), 0)
    equal(code("--watch", "t=c:{x}", path), 0)
    for arguments in (("--watch", "t=c"), ("--watch", "t", path), ("--watch", "=c", path),
                      ("--watch", "nope=c", path), ("--watch", "t={y}", path),
                      ("--watch", "t={x", path), ("--uninstall",), ("--unwatch", "t"),
                      ("--unwatch", "=c", path), ("--unwatch", "t=", path),
                      ("--uninstall", "--watch", "t=c", path), ("--nope",), (path, "more")):
        equal(code(*arguments), 2, repr(arguments))
    equal(code("--uninstall", os.path.join(t.directory, "absent.db")), 1)


def test_publish(t):
    """Answered once it is stored; whoever comes with the id misses nothing and is told no gap."""
    server, _, database = start(t)
    for i in range(20):
        id = server.publish_ok("x", "event %d" % i)
        page = server.get("/history/x?since=" + id).json
        equal((page["events"], page["gap"]), ([], None))
    rows = database.execute("select channel, payload from fanwire_outbox order by id").fetchall()
    equal(rows, [("x", "event %d" % i) for i in range(20)])
    server.publish_ok("x", b"\xff\x00")
    equal(database.execute("select payload from fanwire_outbox order by id desc").fetchone(),
          (b"\xff\x00",))


def test_a_restart_loses_nothing(t):
    """The log is filled from the table: positions of before go on, also those without an event."""
    server, path, database = start(t)
    for i in range(10):
        insert(database, "x", str(i))
    ws = t.ws(server, "/ws/x?since=oldest", protocol="fanwire.v1")
    before, ready = ws.until("ready")
    ids = [m["id"] for m in before if m["type"] == "message"]
    equal(len(ids), 10)
    quiet = t.ws(server, "/ws/quiet", protocol="fanwire.v1").until("ready")[1]["id"]
    equal(server.stop(), 0)
    for i in range(10, 15):
        insert(database, "x", str(i))
    insert(database, "quiet", "heard")
    server = t.server("sqlite:" + path)
    for since, expected in ((ids[3], range(4, 15)), (ids[9], range(10, 15)),
                            (ready["id"], range(10, 15)), ("oldest", range(15))):
        before, _ = t.ws(server, "/ws/x?since=" + since, protocol="fanwire.v1").until("ready")
        equal([payload_of(m) for m in before[1:]], list(expected), since)
    before, _ = t.ws(server, "/ws/quiet?since=" + quiet, protocol="fanwire.v1").until("ready")
    equal([payload_of(m) for m in before[1:]], ["heard"])
    now = t.ws(server, "/ws/x", protocol="fanwire.v1")
    equal(len(now.until("ready")[0]), 1)  # welcome: what was re-read is not new
    insert(database, "x", "15")
    equal(now.expect("message")["data"], 15)


def test_many_are_read_again(t):
    """More than links in the log lead to: by sweeping, all the same."""
    server, path, database = start(t)
    server.stop()
    database.execute("begin")
    for i in range(20000):
        insert(database, "x", "e%d" % i)
    database.execute("commit")
    server = t.server("sqlite:" + path)
    crowd = t.crowd(server)
    member = crowd.add(1, "/ws/x?since=oldest", "json")[0]
    crowd.wait(lambda: len(member.payloads) == 20000, 20)
    equal(member.payloads, ["e%d" % i for i in range(20000)])


def test_resumes_while_it_is_read_again(t):
    """Clients that come before the log is filled: all of it, whenever the worker takes it in."""
    server, path, database = start(t)
    server.stop()
    database.execute("begin")
    for i in range(60000):
        insert(database, "x", "e%d" % i)
    database.execute("commit")
    for _ in range(3):
        server = t.server("sqlite:" + path, workers=1, up=False)
        crowd = t.crowd(server)
        members = crowd.add(3, "/ws/x?since=oldest", "json", ready=False)
        crowd.wait(lambda: all(m.of("ready") for m in members), 20)
        for member in members:
            equal(len(member.payloads), 60000)
            equal(member.payloads[-1], "e59999")
        server.stop()


def test_the_source_process_is_killed(t):
    """The log stays and is gone on with: no gap, nothing twice."""
    server, _, database = start(t, exits_expected=True)
    crowd = t.crowd(server)
    members = crowd.add(3, "/ws/x", "json") + crowd.add(3, "/sse/x", "sse")
    n = 0
    for kill in range(1, 4):
        os.kill(server.source_pid(), signal.SIGKILL)
        for _ in range(20):
            insert(database, "x", "e%d" % n)
            n += 1
        crowd.wait(lambda: all(len(m.of("up")) == kill for m in members), 15)
    crowd.wait(lambda: all(len(m.payloads) == n for m in members))
    for member in members:
        equal(member.payloads, ["e%d" % i for i in range(n)])
        equal(member.of("gap"), [])


def test_another_database_is_a_gap(t):
    """Replaced by a file with the same name: told, and begun anew."""
    server, path, database = start(t, workers=1)
    insert(database, "x", "old")
    bare = t.ws(server, "/ws/x?since=oldest")
    equal(bare.message(), "old")
    v1 = t.ws(server, "/ws/x", protocol="fanwire.v1")
    ready = v1.until("ready")[1]
    other = os.path.join(t.directory, "other.db")
    sql = subprocess.run([t.binary, "sql", "sqlite"], stdout=subprocess.PIPE, check=True).stdout
    connect(other).executescript(sql.decode())
    insert(connect(other), "x", "of another")
    database.close()
    os.unlink(path + "-wal")
    os.rename(other, path)
    seen = v1.until("up")[0]
    equal([(m["type"], m.get("reason")) for m in seen],
          [("down", "connection-lost"), ("gap", "new-epoch")])
    equal(bare.closed()[1], 4102)
    insert(connect(path), "x", "new")
    equal(payload_of(v1.expect("message")), "new")
    before, _ = t.ws(server, "/ws/x?since=" + ready["id"], protocol="fanwire.v1").until("ready")
    equal([m["reason"] for m in before if m["type"] == "gap"], ["foreign-position", "new-epoch"])
    server.wait_for_log(event="lost")


def test_a_server_that_is_behind(t):
    """A client comes to it with the position of another server that was quicker: it waits until this
    one has come there, and is told no gap; /history waits, too."""
    quick, path, database = start(t, workers=1)
    slow = t.server("sqlite:" + path, workers=1)
    insert(database, "x", "0")
    os.kill(slow.source_pid(), signal.SIGSTOP)
    insert(database, "x", "1")
    ws = t.ws(quick, "/ws/x?since=oldest", protocol="fanwire.v1")
    newest = ws.until("message")[1]
    while newest["data"] != 1:  # before `ready` or after
        newest = ws.until("message")[1]
    query = "?since=" + newest["id"]
    together = t.ws(slow, "/ws" + query + "&channel=x&channel=y", protocol="fanwire.v1")
    late = t.ws(slow, "/ws", protocol="fanwire.v1")
    late.say(type="subscribe", channel="x", since=newest["id"])
    sse = t.sse(slow, "/sse/x", last_event_id=newest["id"])
    page = Raw(slow.address)
    t.cleanup(page.socket.close)
    page.send(b"GET /history/x%s HTTP/1.1\r\nHost: x\r\n\r\n" % query.encode())
    equal(together.json()["type"], "welcome")
    equal(late.json()["type"], "welcome")
    together.quiet()
    late.quiet()
    os.kill(slow.source_pid(), signal.SIGCONT)
    together.expect("ready")
    together.expect("ready")
    late.expect("ready")
    sse.expect("ready")
    answer = page.response().json
    equal((answer["events"], answer["gap"]), ([], None))
    insert(database, "x", "2")
    equal(together.expect("message")["data"], 2)
    equal(late.expect("message")["data"], 2)
    equal(sse.expect("message").data, "2")


@case(timeout=60)
def test_a_position_that_never_comes(t):
    """Is a gap, in the end."""
    server, _, database = start(t, workers=1)
    insert(database, "x", "0")
    ws = t.ws(server, "/ws/x?since=oldest", protocol="fanwire.v1")
    id = [m for m in ws.until("ready")[0] if m["type"] == "message"][-1]["id"]
    words = id.split(".")
    never = ".".join((words[0], "7fffffff", words[2]))
    client = t.ws(server, "/ws/x?since=" + never, protocol="fanwire.v1", timeout=20)
    before, _ = client.until("ready")
    equal([m.get("reason") for m in before if m["type"] == "gap"], ["foreign-position"])


def test_the_file_is_absent(t):
    """It is waited for, and said; publishing answers 503."""
    path = os.path.join(t.directory, "later.db")
    server = t.server("sqlite:%s?create=off" % path, up=False)
    line = server.wait_for_log(event="lost")
    assert "not there" in line["msg"], line
    equal(server.publish("x", "y").status, 503)
    sql = subprocess.run([t.binary, "sql", "sqlite"], stdout=subprocess.PIPE, check=True).stdout
    connect(path).executescript(sql.decode())
    server.wait_until_ready()
    server.publish_ok("x", "y")


@case(timeout=60, alone=True)
def test_quick_and_quiet(t):
    """From commit to WebSocket within 5 ms (median); 0.5 % of a core when nothing happens."""
    server, _, database = start(t, workers=1)
    ws = t.ws(server, "/ws/x", protocol="fanwire.v1")
    ws.until("ready")
    latencies = []
    for i in range(100):
        insert(database, "x", str(i))
        committed = time.perf_counter()
        ws.expect("message")
        latencies.append((time.perf_counter() - committed) * 1000)
        time.sleep(t.random.choice((0.01, 0.03, 0.08)))
    latencies.sort()
    assert latencies[50] <= 5, "median %.1f ms, longest %.1f ms" % (latencies[50], latencies[-1])
    time.sleep(1)
    pid = server.source_pid()
    before, began = cpu_seconds(pid), time.monotonic()
    time.sleep(4)
    share = (cpu_seconds(pid) - before) / (time.monotonic() - began)
    assert share <= 0.005, "%.2f %% of a core" % (share * 100)


def cpu_seconds(pid):
    tasks = "/proc/%d/task" % pid
    return sum(int(open("%s/%s/schedstat" % (tasks, task)).read().split()[0])
               for task in os.listdir(tasks)) / 1e9


# ---- everything is killed at random ----

class Writer:
    """A process that commits its numbers in batches; killed, it goes on where its last commit was."""

    def __init__(self, t, path, number, total):
        self.path, self.number, self.total = path, number, total
        self.seed = t.random.random()
        self.lives = 0
        self.pid = None
        t.cleanup(self.kill)

    def spawn(self):
        self.lives += 1
        self.pid = os.fork()
        if self.pid == 0:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            os._exit(self._write())

    def _write(self):
        import random
        chance = random.Random("%s %d" % (self.seed, self.lives))
        database = connect(self.path)
        while True:
            database.execute("begin immediate")
            n = database.execute("select n from progress where w = ?", (self.number,)).fetchone()[0]
            if n == self.total:
                return 0
            upto = min(self.total, n + chance.choice((1, 1, 3, 20, 100)))
            for i in range(n, upto):
                insert(database, "x", "w%d:%d" % (self.number, i))
            if chance.random() < 0.1:
                database.execute("rollback")
                continue
            database.execute("update progress set n = ? where w = ?", (upto, self.number))
            database.execute("commit")
            time.sleep(chance.random() * 0.05)

    def ended(self):
        if self.pid is None:
            return True
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        if pid:
            equal(status, 0, "a writer's end")
            self.pid = None
        return self.pid is None

    def kill(self):
        if self.pid is not None:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
            self.pid = None


class Resumer:
    """A client that always comes back with the newest id it has seen, of whatever message."""

    def __init__(self, t):
        self.t, self.ws, self.since = t, None, "oldest"
        self.seen = []

    def pump(self, server, seconds):
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            try:
                if not self.ws:
                    self.ws = self.t.ws(server, "/ws/x?since=" + self.since, protocol="fanwire.v1",
                                        timeout=5)
                self._take(self.ws.json(max(0.01, until - time.monotonic())))
            except TimeoutError:
                pass
            except (Closed, Refused, OSError):
                self.drop()
                time.sleep(0.02)

    def _take(self, message):
        assert message["type"] not in ("gap", "error", "unsubscribed"), message
        self.since = message.get("id", self.since)
        if message["type"] == "message":
            self.seen.append((message["id"], message["text"]))

    def drop(self):
        if self.ws:
            self.ws.drop()
        self.ws = None


@case(timeout=120)
def test_everything_is_killed(t):
    """Three writers; they, the source process, the workers and the whole server die at random."""
    total = 33334 if t.long else 1500
    server, path, database = start(t, parameters="?keep=all", exits_expected=True)
    database.execute("create table progress (w integer primary key, n integer)")
    writers = [Writer(t, path, i, total) for i in range(3)]
    for writer in writers:
        database.execute("insert into progress values (?, 0)", (writer.number,))
        writer.spawn()
    client = Resumer(t)
    servers = 1
    while not all([w.ended() for w in writers]):
        client.pump(server, t.random.uniform(0.05, 0.4))
        what = t.random.choice(("writer", "writer", "source", "worker", "server", "client"))
        if what == "writer":
            writer = t.random.choice(writers)
            if not writer.ended():
                writer.kill()
                writer.spawn()
        elif what == "source" and server.source_pid():
            os.kill(server.source_pid(), signal.SIGKILL)
        elif what == "worker" and server.workers():
            os.kill(t.random.choice(list(server.workers().values())), signal.SIGKILL)
        elif what == "server":
            children = server.children()
            server.process.kill()
            server.process.wait()
            eventually(lambda: not any(alive(pid) for pid in children), 5, "its processes have left")
            server = t.server("sqlite:%s?keep=all" % path, exits_expected=True, up=False)
            servers += 1
        else:
            client.drop()
    deadline = time.monotonic() + (120 if t.long else 30)
    while len(client.seen) < 3 * total and time.monotonic() < deadline:
        client.pump(server, 0.2)
    client.pump(server, 0.2)
    rows = database.execute("select payload from fanwire_outbox order by id").fetchall()
    expected = [row[0] for row in rows]
    for writer in writers:
        mine = "w%d:" % writer.number
        equal([p for p in expected if p.startswith(mine)], [mine + str(i) for i in range(total)])
    found = [payload for _, payload in client.seen]
    lost = sorted(set(expected) - set(found))
    equal((len(lost), lost[:10], len(found) - len(set(found))), (0, [], 0), "lost, which, doubled")
    equal(found, expected, "the order")
    equal(len({id for id, _ in client.seen}), len(expected))
    print("%d servers, writers lived %s times" % (servers, [w.lives for w in writers]))
