"""The to-do program's API and streams, on both stores."""
import asyncio
import json
import os
import re
import signal
import subprocess
import threading
import urllib.request

import websockets

from case import Skip, case, equal, eventually
from server import alive, title_of
from todo import PostgresDatabase, SqliteFile, Todo, on_both, program_of
from ws import Refused

MARKUP = "<img src=x onerror=alert(1)> & \"quotes\" 'n' \\ 👩‍👩‍👧 é\u0301 \u202eעברית"
LONGEST = "🍵" * 10000


def in_threads(n, function):
    """Calls function(i) in n threads at once; returns what they returned."""
    results = [None] * n
    barrier = threading.Barrier(n)

    def work(i):
        barrier.wait()
        results[i] = function(i)
    threads = [threading.Thread(target=work, args=(i,)) for i in range(n)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def apply_event(items, event, todo):
    """What a client does with a row event; `items` is {id: item}."""
    id = event["key"]["id"]
    if event["op"] == "delete":
        items.pop(id, None)
    elif event.get("partial"):
        answer = todo.api("GET", id + "/")
        if answer.status == 200:
            items[id] = answer.json
        else:
            items.pop(id, None)
    else:
        items[id] = event["row"]


class Follower:
    """A stream and what it makes of the list."""

    def __init__(self, t, todo, path="/api/todos/"):
        self.todo, self.items, self.events = todo, {}, []
        self.socket = t.ws(todo.server, path)

    def take(self, timeout=10):
        """The next event that is news: what the list contained already may come again."""
        event = self.socket.json(timeout)
        while event["op"] == "insert" and event["key"]["id"] in self.items:
            event = self.socket.json(timeout)
        self.events.append(event)
        apply_event(self.items, event, self.todo)
        return event

    def until(self, condition):
        """Takes events until condition(self.items)."""
        while not condition(self.items):
            self.take()


def in_order(items):
    return sorted(items.values(), key=lambda item: (item["created"], item["id"]))


# ---- requests ----

@on_both()
def test_requests(t, kind):
    todo = Todo(t, kind)
    equal(todo.items(), [])
    answer = todo.api("POST", "", {"title": "  tea \n"})
    equal(answer.status, 201)
    item = answer.json
    equal((sorted(item), item["title"], item["completed"]),
          (["completed", "created", "id", "title"], "tea", False))
    equal(answer.headers["location"], item["id"] + "/")
    equal(answer.headers["content-type"], "application/json")
    other = todo.add("milk", id="my-own_ID", completed=True, created=5)
    equal(other, {"id": "my-own_ID", "title": "milk", "completed": True, "created": 5})
    equal(todo.items(), [other, item])
    equal(todo.api("GET", "my-own_ID/").json, other)

    equal(todo.api("PUT", "my-own_ID/", {"title": " oat milk "}).json, dict(other, title="oat milk"))
    answer = todo.api("PUT", "my-own_ID/", {"completed": False})
    equal((answer.status, answer.json), (200, dict(other, title="oat milk", completed=False)))
    equal(todo.api("PUT", "my-own_ID/", {}).json, answer.json)

    equal(todo.api("DELETE", "my-own_ID/").status, 204)
    equal(todo.api("DELETE", "my-own_ID/").status, 204)
    equal(todo.api("DELETE", "never%20was/").status, 204)
    for method, body in (("GET", None), ("PUT", {"title": "x"})):
        for path in ("my-own_ID/", "a%00b/", "%ff/", "a%20b/", "x" * 300 + "/"):
            answer = todo.api(method, path, body)
            assert answer.status in (400, 404), answer
        equal(todo.api(method, "my-own_ID/", body).code, "not-found")
    equal(todo.items(), [item])


@on_both()
def test_a_retried_post_never_doubles(t, kind):
    todo = Todo(t, kind)
    body = {"id": "once", "title": "tea", "created": 7}
    answers = in_threads(12, lambda i: todo.api("POST", "", dict(body, title="tea %d" % i)))
    equal(sorted(a.status for a in answers), [200] * 11 + [201])
    equal(len({a.json["title"] for a in answers}), 1)
    equal(todo.items(), [answers[0].json])
    equal(todo.api("POST", "", body).json, answers[0].json)


@on_both()
def test_bad_input(t, kind):
    todo = Todo(t, kind)
    item = todo.add("tea")
    one = item["id"] + "/"
    cases = [
        ("POST", "", b""), ("POST", "", b"tea"), ("POST", "", b"[]"), ("POST", "", b"{}"),
        ("POST", "", b'{"title": "a'), ("POST", "", b'{"title": "\xff"}'),
        ("POST", "", b'{"title": "a\\u0000b"}'), ("POST", "", b'{"title": "a", "title": "b"}'),
        ("POST", "", {"title": ""}), ("POST", "", {"title": " \u3000\t"}), ("POST", "", {"title": 1}),
        ("POST", "", {"title": None}), ("POST", "", {"title": "x" * 10001}),
        ("POST", "", {"title": "a", "id": ""}), ("POST", "", {"title": "a", "id": "a b"}),
        ("POST", "", {"title": "a", "id": "x" * 65}), ("POST", "", {"title": "a", "id": 5}),
        ("POST", "", {"title": "a", "completed": "no"}), ("POST", "", {"title": "a", "created": "x"}),
        ("POST", "", {"title": "a", "created": -1}), ("POST", "", {"title": "a", "done": True}),
        ("PUT", one, {"title": ""}), ("PUT", one, {"completed": 1}), ("PUT", one, {"id": "b"}),
        ("PUT", one, b"{"), ("PUT", one, {"created": 5}), ("PUT", "", {}), ("PUT", "", {"title": "a"}),
        ("PUT", "", {"completed": None}), ("DELETE", "", None), ("DELETE", "?completed=false", None),
    ]
    for method, path, body in cases:
        answer = todo.api(method, path, body)
        equal((answer.status, answer.code), (400, "bad-request"), "%s %s %.60r" % (method, path, body))
        assert answer.json["detail"], answer
    equal(todo.api("PATCH", one, {"title": "x"}).code, "method-not-allowed")
    answer = todo.server.request("POST", "/api/todos/", b'{"title":"x"}',
                                 {"Origin": "https://evil.example"})
    equal(answer.code, "origin-forbidden")
    equal(todo.items(), [item], "nothing has changed")
    equal(todo.server.publish("todos", "{}").status, 403, "clients don't publish")
    equal(todo.server.get("/history/todos").status, 200, "the page may listen")


@on_both()
def test_any_title(t, kind):
    todo = Todo(t, kind)
    follower = Follower(t, todo)
    titles = [MARKUP, LONGEST, "x" * 10000, "a\nb\tc", "'; DROP TABLE todos; --", "\u200b"]
    for title in titles:
        todo.add(title)
    follower.until(lambda items: len(items) == len(titles))
    equal([i["title"] for i in in_order(follower.items)], [i["title"] for i in todo.items()])
    equal(sorted(i["title"] for i in todo.items()), sorted(titles))
    partial = [e for e in follower.events if e.get("partial")]
    equal(len(partial), 2 if kind == "postgres" else 0, "NOTIFY takes 8000 bytes")
    longest = next(i for i in todo.items() if i["title"] == LONGEST)
    equal(todo.api("PUT", longest["id"] + "/", {"title": "short"}).status, 200)
    follower.until(lambda items: items[longest["id"]]["title"] == "short")


@on_both()
def test_all_at_once(t, kind):
    todo = Todo(t, kind)
    if kind == "sqlite":
        todo.sql("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 200) "
                 "INSERT INTO todos (id, title) SELECT 'i' || i, 'number ' || i FROM n;")
    else:
        todo.sql("INSERT INTO todos (id, title) SELECT 'i' || i, 'number ' || i "
                 "FROM generate_series(1, 200) i")
    follower = Follower(t, todo)
    for _ in range(200):
        follower.take()
    equal(len(follower.items), 200)
    equal(todo.api("PUT", "i7/", {"completed": True}).status, 200)
    follower.take()
    answer = todo.api("PUT", "", {"completed": True})
    equal((answer.status, answer.body), (204, b""))
    seen = [follower.take()["key"]["id"] for _ in range(199)]
    equal((len(set(seen)), "i7" in seen), (199, False), "only rows that differ are touched")
    assert all(item["completed"] is True for item in follower.items.values())
    equal(todo.api("PUT", "", {"completed": True}).status, 204)
    equal(todo.api("PUT", "i9/", {"completed": False}).status, 200)
    equal(follower.take()["key"]["id"], "i9", "the second told nothing")
    equal(todo.api("DELETE", "?completed=true").status, 204)
    follower.until(lambda items: len(items) == 1)
    equal(follower.items["i9"], todo.items()[0])
    equal(len(follower.events), 200 + 1 + 199 + 1 + 199)


@on_both()
def test_those_that_are_meant(t, kind):
    """What others have done since is left alone."""
    todo = Todo(t, kind)
    a, b, c = (todo.add(title, completed=True, created=n)["id"] for n, title in enumerate("abc"))
    equal(todo.api("PUT", b + "/", {"completed": False}).status, 200)
    answer = todo.api("DELETE", "", {"ids": [a, b, "gone"]})
    equal((answer.status, answer.body), (204, b""))
    equal([i["title"] for i in todo.items()], ["b", "c"])
    equal(todo.api("PUT", "", {"completed": True, "ids": [b, "gone"]}).status, 204)
    equal(todo.api("PUT", "", {"completed": False, "ids": [c]}).status, 204)
    equal({i["title"]: i["completed"] for i in todo.items()}, {"b": True, "c": False})
    equal(todo.api("DELETE", "", {"ids": []}).status, 204)
    equal(len(todo.items()), 2)
    for method, body in (("DELETE", {"ids": ["a b"]}), ("DELETE", {"ids": "a"}), ("DELETE", {}),
                         ("DELETE", {"ids": ["a"] * 10001}), ("DELETE", b"tea"),
                         ("DELETE", {"ids": [b], "completed": True}), ("PUT", {"ids": [b]})):
        equal(todo.api(method, "", body).code, "bad-request", body)
    equal(todo.api("DELETE", "", {"ids": [b] + ["x" * 64] * 9999}).status, 204)
    equal([i["title"] for i in todo.items()], ["c"])


@on_both(timeout=120)
def test_a_full_list(t, kind):
    """There is a bound, so that the list always fits into an answer."""
    todo = Todo(t, kind)
    todo.sql("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 10000) "
             "INSERT INTO todos (id, title) SELECT 'i' || i, %s FROM n"
             % ("repeat('x', 800)" if kind == "postgres" else "hex(zeroblob(400))"))
    answer = todo.api("POST", "", {"title": "one more"})
    equal((answer.status, answer.code), (409, "full"))
    assert "Delete some" in answer.json["detail"], answer
    equal(todo.api("POST", "", {"id": "i7", "title": "again"}).status, 200)
    equal(todo.api("PUT", "i7/", {"title": "x" * 10000}).status, 200)
    equal(todo.api("PUT", "i7/", {"title": LONGEST}).status, 200)
    equal([todo.api("PUT", "i%d/" % i, {"title": LONGEST}).status for i in range(8, 20)][-1], 409)
    equal(todo.api("PUT", "i9000/", {"completed": True}).status, 200)
    equal(len(todo.items()), 10000)
    follower = Follower(t, todo)
    follower.until(lambda items: len(items) == 10000)
    equal(todo.api("DELETE", "i9000/").status, 204)
    todo.add("there is room")


@on_both(timeout=120)
def test_a_list_that_others_have_made_too_large(t, kind):
    """It is refused, the log says why, and it can be mended."""
    todo = Todo(t, kind)
    todo.sql("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000) "
             "INSERT INTO todos (id, title) SELECT 'i' || i, %s FROM n"
             % ("repeat('x', 10000)" if kind == "postgres" else "hex(zeroblob(5000))"))
    equal(todo.api("GET").code, "internal")
    line = todo.server.wait_for_log(event="answer-failed")
    assert line["level"] == "error" and "16 MiB" in line["msg"], line
    equal(todo.api("PUT", "i7/", {"title": "short"}).status, 200)
    todo.sql("DELETE FROM todos WHERE id <> 'i7'")
    equal([i["title"] for i in todo.items()], ["short"])


@on_both()
def test_rows_of_others(t, kind):
    """What psql and the sqlite3 shell write is in the list and on the streams."""
    todo = Todo(t, kind)
    follower = Follower(t, todo)
    todo.sql("INSERT INTO todos (title) VALUES ('by hand')")
    event = follower.take()
    equal((event["op"], event["row"]["title"], event["row"]["completed"]),
          ("insert", "by hand", False))
    id = event["key"]["id"]
    equal(todo.items(), [event["row"]])
    todo.sql("UPDATE todos SET completed = true")
    event = follower.take()
    equal((event["op"], event["row"]["completed"], event["old"]["completed"]), ("update", True, False))
    todo.sql("DELETE FROM todos")
    event = follower.take()
    equal((event["op"], event["key"]), ("delete", {"id": id}))
    todo.sql("INSERT INTO todos (id, title, completed, created) VALUES ('z', 'later', true, 9)")
    equal(follower.take()["row"], {"id": "z", "title": "later", "completed": True, "created": 9})


# ---- streams ----

@on_both()
def test_streams(t, kind):
    todo = Todo(t, kind)
    a, b = todo.add("tea"), todo.add("milk")
    everything = Follower(t, todo)
    for item in (a, b):
        equal(everything.take(),
              {"op": "insert", "table": "todos", "key": {"id": item["id"]}, "row": item})
    only = Follower(t, todo, "/api/todos/%s/" % a["id"])
    equal(only.take()["row"], a)
    todo.api("PUT", b["id"] + "/", {"title": "oat milk"})
    todo.api("PUT", a["id"] + "/", {"completed": True})
    todo.api("DELETE", b["id"] + "/")
    todo.api("DELETE", a["id"] + "/")
    equal([everything.take()["op"] for _ in range(4)], ["update", "update", "delete", "delete"])
    equal([(only.take()["op"], e["key"]["id"]) for e in only.events[:1] for _ in range(2)],
          [("update", a["id"]), ("delete", a["id"])], "only its own")
    equal(everything.items, {})
    for socket in (everything.socket, only.socket):
        socket.quiet(0.2)


@on_both()
def test_streams_by_others_clients(t, kind):
    """The same by a WebSocket client that is not ours, and as server-sent events."""
    todo = Todo(t, kind)
    item = todo.add(MARKUP)
    found = []

    async def talk():
        url = "ws://%s:%d/api/todos/" % todo.server.address
        async with websockets.connect(url) as socket:
            found.append(json.loads(await asyncio.wait_for(socket.recv(), 10)))
            await asyncio.get_running_loop().run_in_executor(None, todo.add, "milk")
            found.append(json.loads(await asyncio.wait_for(socket.recv(), 10)))
    asyncio.run(talk())
    equal([e["row"]["title"] for e in found], [MARKUP, "milk"])
    events = t.sse(todo.server, "/api/todos/%s/" % item["id"])
    equal(events.event().json["row"], item)
    todo.api("DELETE", item["id"] + "/")
    while True:
        event = events.event()
        if event.kind == "message":
            break
    equal(event.json["op"], "delete")
    url = "http://%s:%d/api/todos/" % todo.server.address
    with urllib.request.urlopen(url, timeout=10) as answer:
        equal([i["title"] for i in json.load(answer)], ["milk"])


@on_both()
def test_streams_of_nothing(t, kind):
    todo = Todo(t, kind)
    for id in ("unknown", "a%20b"):
        try:
            socket = t.ws(todo.server, "/api/todos/%s/" % id)
        except Refused as refused:
            equal(refused.response.status, 404)
        else:
            equal(socket.closed()[1], 4000)
        answer = todo.server.request("GET", "/api/todos/%s/" % id, None,
                                     {"Accept": "text/event-stream"})
        equal(answer.status, 404)


# ---- many at once ----

@on_both(timeout=120)
def test_concurrent_edits(t, kind):
    """Two that change different things keep both; all followers agree with the database."""
    todo = Todo(t, kind)
    items = [todo.add("item %d" % i) for i in range(4)]
    followers = [Follower(t, todo) for _ in range(3)]

    def edit(i):
        for n in range(20):
            path = items[n % 4]["id"] + "/"
            body = {"completed": n % 3 == 0} if i % 2 else {"title": "by %d, %d" % (i, n)}
            answer = todo.api("PUT", path, body)
            equal(answer.status, 200)
            if "title" in body:  # nobody else says this one; "completed" others say, too
                equal(answer.json["title"], body["title"])
    errors = []

    def guarded(i):
        try:
            edit(i)
        except BaseException as error:  # noqa: B902 told below
            errors.append(error)
    in_threads(8, guarded)
    equal(errors, [])
    last = todo.add("the last")
    for follower in followers:
        follower.until(lambda found: last["id"] in found)
        equal(in_order(follower.items), todo.items())


@on_both(timeout=120)
def test_concurrent_changes_of_all(t, kind):
    """Each locks many rows; none fails because of another."""
    todo = Todo(t, kind)
    for n in range(60):
        todo.add("item %d" % n)

    def change(i):
        found = []
        for n in range(10):
            found.append(todo.api("PUT", "", {"completed": (i + n) % 2 == 0}).status)
            if i == 0 and n == 9:
                found.append(todo.api("DELETE", "?completed=true").status)
        return set(found)
    equal(in_threads(8, change), [{204}] * 8)


@on_both()
def test_two_servers(t, kind):
    """Started at once on one empty database: both make the tables, each tells the other's changes."""
    database = SqliteFile(t) if kind == "sqlite" else PostgresDatabase(t.database())
    todos = [Todo(t, kind, database=database, start=False) for _ in range(2)]
    for todo in todos:
        todo.server._wait_for_start(2)
        todo.server.wait_until_ready()
        todo.works_again()
    follower = Follower(t, todos[0])
    item = todos[1].add("from the second")
    equal(follower.take()["row"], item)


# ---- failures ----

@case(timeout=120)
def test_postgres_away_and_back(t):
    """503 while it is away, also right from the start; as ever when it is back."""
    cluster = t.postgres(start=False)
    todo = Todo(t, database=PostgresDatabase(cluster), up=False)
    answer = todo.api("GET")
    equal((answer.status, answer.code), (503, "source-down"))
    assert int(answer.headers["retry-after"]) > 0
    cluster.start()
    todo.works_again()
    todo.server.wait_until_ready()
    item = todo.add("tea")
    follower = Follower(t, todo)
    equal(follower.take()["row"], item)
    cluster.stop()
    for method, path, body in (("GET", "", None), ("POST", "", {"title": "x"}),
                               ("PUT", item["id"] + "/", {"title": "x"}), ("PUT", "", {"completed": True}),
                               ("DELETE", item["id"] + "/", None), ("GET", item["id"] + "/", None)):
        answer = todo.api(method, path, body)
        equal((answer.status, answer.code), (503, "source-down"), method)
        assert int(answer.headers["retry-after"]) > 0
    equal(len(todo.server.events(event="store-down")), 2, "one line, not one for each request")
    cluster.start()
    todo.works_again()
    equal(todo.items(), [item], "nothing was changed")
    todo.server.wait_for_log(event="store-up")
    todo.server.wait_until_ready()


@case(timeout=60, postgres=True)
def test_connections_killed(t):
    """Idle connections that Postgres ended are nobody's failure."""
    todo = Todo(t, "postgres")
    for n in range(5):
        todo.sql("SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
                 "WHERE application_name = 'todo' AND datname = current_database()")
        todo.add("item %d" % n)
    equal(len(todo.items()), 5)
    equal(todo.server.events(event="store-down"), [])


@case(timeout=90, postgres=True)
def test_postgres_silent(t):
    """A network that swallows everything: 503 instead of waiting for ever; streams are still there."""
    database = PostgresDatabase(t.database())
    proxy = t.proxy(database.database.cluster.port)
    todo = Todo(t, database=database, url=database.database.url_through(proxy.port))
    item = todo.add("tea")
    proxy.stall()
    answer = todo.api("DELETE", item["id"] + "/", timeout=40)  # on the connection that is there
    equal((answer.status, answer.code), (503, "source-down"))
    assert "may have been made" in answer.json["detail"], answer
    answer = todo.api("GET", timeout=40)  # on one that cannot be made
    equal((answer.status, answer.code), (503, "source-down"))
    proxy.resume()
    todo.works_again()


@case(timeout=60)
def test_file_locked(t):
    """A file that another program holds locked: reading goes on, writing waits, then says so."""
    todo = Todo(t)
    item = todo.add("tea")
    shell = subprocess.Popen(["sqlite3", todo.database.path], stdin=subprocess.PIPE,
                             stdout=subprocess.PIPE, text=True)
    t.cleanup(lambda: (shell.stdin.close(), shell.stdout.close(), shell.wait()))
    shell.stdin.write("BEGIN IMMEDIATE;\nSELECT 'locked';\n")
    shell.stdin.flush()
    equal(shell.stdout.readline().strip(), "locked")
    answers = in_threads(12, lambda i: todo.api("POST", "", {"title": "x"}) if i < 8 else todo.api("GET"))
    equal({a.status for a in answers[:8]}, {503})
    equal({a.status for a in answers[8:]}, {200})
    shell.stdin.write("COMMIT;\nSELECT 'free';\n")
    shell.stdin.flush()
    equal(shell.stdout.readline().strip(), "free")
    todo.add("milk")
    equal(len(todo.items()), 2, "nothing of what was refused is there")
    assert item in todo.items()


@on_both(timeout=90)
def test_application_killed(t, kind):
    """Its death costs the requests of the moment, no stream and no item."""
    todo = Todo(t, kind, exits_expected=True)
    follower = Follower(t, todo)
    todo.add("before")
    follower.take()
    pid = eventually(todo.application_pid, 10, "the application process runs")
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: not alive(pid), 10, "it is dead")
    todo.sql("INSERT INTO todos (title) VALUES ('meanwhile')")
    equal(follower.take()["row"]["title"], "meanwhile", "streams go on untouched")
    todo.works_again()
    assert todo.application_pid() != pid
    todo.add("after")
    equal(follower.take()["row"]["title"], "after")
    equal(len(todo.items()), 3)


@on_both(timeout=90)
def test_server_killed(t, kind):
    todo = Todo(t, kind, exits_expected=True)
    items = [todo.add("item %d" % i) for i in range(3)]
    children = todo.server.children()
    os.kill(todo.server.pid, signal.SIGKILL)
    todo.server.process.wait(10)
    eventually(lambda: not any(alive(pid) for pid in children), 10, "all processes have left")
    todo.server.finish = lambda: None
    again = Todo(t, kind, database=todo.database)
    equal(again.items(), items)
    follower = Follower(t, again)
    for item in items:
        equal(follower.take()["row"], item)
    again.add("after")
    equal(follower.take()["row"]["title"], "after")


# ---- the command ----

def run_program(t, *arguments, env=None):
    return subprocess.run([program_of(t), *arguments], stdout=subprocess.PIPE, cwd=t.directory,
                          stderr=subprocess.PIPE, text=True, timeout=20,
                          env=dict(os.environ, **(env or {})))


def test_command(t):
    done = run_program(t, "--help")
    equal((done.returncode, done.stderr), (0, ""))
    assert done.stdout.startswith("usage: todo [--store sqlite:FILE | postgres://…]"), done.stdout
    for arguments, text in ((["--store"], "usage:"), (["--store", "todo.db"], "sqlite:FILE"),
                            (["--store=postgres://h/d?secret=xyzzy"], "secret"),
                            (["--no-such-flag"], "no-such-flag")):
        done = run_program(t, *arguments)
        equal((done.returncode, done.stdout), (2, ""), arguments)
        assert text in done.stderr and "xyzzy" not in done.stderr, done.stderr
    equal(os.listdir(t.directory), [], "nothing was made")


def test_sql(t):
    """--sql prints what the store makes by itself."""
    database = SqliteFile(t)
    database.sql(run_program(t, "--sql").stdout)
    database.sql(run_program(t, "--sql", "--store=" + database.url).stdout)
    database.sql("INSERT INTO todos (title) VALUES ('early')")
    todo = Todo(t, database=database)
    equal([i["title"] for i in todo.items()], ["early"])


def look_for_secret(todo):
    """No process shows the password to others."""
    todo.add("tea")
    for pid in [todo.server.pid] + todo.server.children():
        assert title_of(pid).startswith("fanwire: "), title_of(pid)
        assert "s3cr3t" not in title_of(pid), title_of(pid)
        with open("/proc/%d/environ" % pid, "rb") as f:
            assert b"s3cr3t" not in f.read()
    assert "s3cr3t" not in todo.server.log


@case(postgres=True)
def test_secrets_are_wiped(t):
    """A password in the store's URL, and one in the environment."""
    database = PostgresDatabase(t.database())
    port, name = database.database.cluster.port, database.database.name
    database.sql('GRANT ALL ON SCHEMA public TO secret; GRANT ALL ON DATABASE "%s" TO secret' % name)
    url = "postgres://secret%%s@127.0.0.1:%d/%s" % (port, name)
    look_for_secret(Todo(t, database=database, url=url % ":s3cr3t%2Fpass%40word"))
    look_for_secret(Todo(t, database=database, url=url % "",
                         env={"PGPASSWORD": "s3cr3t/pass@word"}))


def holds(pid, secret):
    """Is it anywhere in the memory of this process?"""
    with open("/proc/%d/maps" % pid) as f:
        regions = [line.split() for line in f]
    try:
        with open("/proc/%d/mem" % pid, "rb") as memory:
            for region in regions:
                begin, end = (int(part, 16) for part in region[0].split("-"))
                if "r" not in region[1] or region[-1] in ("[vvar]", "[vsyscall]"):
                    continue
                if end - begin > 1 << 30:
                    continue  # a sanitizer's
                try:
                    memory.seek(begin)
                    if secret in memory.read(end - begin):
                        return True
                except OSError:
                    continue  # a page that is not there
    except PermissionError:
        raise Skip("memory of processes may not be read here")
    return False


def test_workers_do_not_hold_the_password(t):
    """They talk to anybody; the source and the application need it."""
    todo = Todo(t, None, "--mode", "notify", database=SqliteFile(t), up=False,
                url="postgres://user:s3cr3t-word@127.0.0.1:1/nope")
    eventually(todo.application_pid, 10, "the application runs")
    equal(todo.api("GET").status, 503, "it has been used")
    held = {title: holds(pid, b"s3cr3t-word") for pid, title in todo.server.titles().items()}
    equal({title for title, found in held.items() if found},
          {"fanwire: todo", "fanwire: source postgres"})
    equal(len(held), 4)


@case(timeout=60)
def test_below_a_path(t):
    """Every URL of the page leads below --base-path."""
    todo = Todo(t, "sqlite", "--base-path", "/live/list", up=False)
    page = todo.server.get("/live/list/").body.decode()
    found = re.findall(r'(?:href|src)="([^"#][^":]*)"', page)
    assert "main.js" in found, found
    for name in found:
        equal(todo.server.get("/live/list/" + name).status, 200, name)


def test_page_is_served(t):
    """Every file of the page, as it is in the tree."""
    todo = Todo(t)
    here = os.path.dirname(os.path.abspath(__file__))
    directory = os.path.join(here, "..", "..", "examples", "todo", "page")
    names = os.listdir(directory)
    assert "index.html" in names
    for name in names:
        path = "/" if name == "index.html" else "/" + name
        answer = todo.server.get(path)
        equal(answer.status, 200, path)
        with open(os.path.join(directory, name), "rb") as f:
            assert answer.body == f.read(), "%s is another: was it built since?" % name
        again = todo.server.get(path, headers={"If-None-Match": answer.headers["etag"]})
        equal((again.status, again.body), (304, b""), path)
    equal(todo.server.get("/").headers["content-type"], "text/html; charset=utf-8")
    equal(todo.server.get("/fanwire.js").status, 200)
