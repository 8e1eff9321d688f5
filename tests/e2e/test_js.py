"""The JavaScript client, in Node and in a real browser."""
import gzip
import itertools
import json
import os
import signal
import sqlite3
import threading

from browser import Browser
from case import case, equal, eventually
from node_client import CLIENT, Node, install, npm
from test_snapshot import ITEMS, QUERY, sqlite_file
from web import Raw

LIVE = "live.state === 'live'"


def start(client, url, options="{}"):
    """live, the states it went through, and what `see` logs of each subscription."""
    client.run("""void (globalThis.live = connect(%s, %s), globalThis.states = [],
                        globalThis.log = [], live.onstate = s => states.push(s))"""
               % (json.dumps(url), options))


def subscribe(client, channel, options="", name="sub"):
    client.run("""void (globalThis.%s = live.subscribe(%s, {
                   onmessage: e => log.push(e.data), ongap: g => log.push("gap:" + g.reason),
                   onerror: e => log.push("error:" + e.code), %s }))"""
               % (name, json.dumps(channel), options))


def settled(client, name="sub"):
    """Everything before is delivered: the subscription stands somewhere."""
    client.eventually("%s.id != null" % name)


def sees(client, *expected):
    client.eventually("log.length >= %d" % len(expected))
    equal(client.run("log.splice(0)"), list(expected))


def client_of(t, server, options="{}"):
    node = Node(t)
    start(node, server.url, options)
    return node


# ---- as it is served and packed ----

def test_served(t):
    server = t.server()
    answer = server.get("/fanwire.js", headers={"Origin": "http://elsewhere.example"})
    equal(answer.status, 200)
    equal(answer.headers["content-type"], "text/javascript; charset=utf-8")
    equal(answer.headers["access-control-allow-origin"], "*")
    equal(answer.headers["cache-control"], "no-cache")
    assert len(gzip.compress(answer.body, 9)) <= 4096, len(gzip.compress(answer.body, 9))
    tag = answer.headers["etag"]
    for given in (tag, "W/" + tag, '"x", ' + tag, "*"):
        again = server.get("/fanwire.js", headers={"If-None-Match": given})
        equal((again.status, again.body, again.headers["etag"]), (304, b"", tag))
    equal(server.get("/fanwire.js", headers={"If-None-Match": '"x"'}).status, 200)
    head = server.request("HEAD", "/fanwire.js")
    equal((head.status, head.body), (200, b""))
    equal(int(head.headers["content-length"]), len(answer.body))
    equal(server.request("POST", "/fanwire.js", b"").status, 405)
    equal(server.get("/fanwire.jsx").status, 404)
    with Raw(server.address) as raw:  # a 304 has no body, and the connection goes on
        one = b"GET /fanwire.js HTTP/1.1\r\nHost: h\r\nIf-None-Match: *\r\n\r\n"
        raw.send(one + b"GET /healthz HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
        while raw.fill():
            pass
        assert raw.buffer.startswith(b"HTTP/1.1 304 Not Modified\r\n"), raw.buffer
        assert raw.buffer.endswith(b"\r\n\r\nok\n"), raw.buffer


def test_packed(t):
    tarball = npm(t.directory, "pack", "--json", CLIENT)
    packed = json.loads(tarball)[0]
    equal(sorted(one["path"] for one in packed["files"]),
          ["README.md", "fanwire.d.ts", "fanwire.js", "package.json"])
    npm(t.directory, "install", "./" + packed["filename"])
    server = t.server()
    node = client_of(t, server)
    node.eventually(LIVE)


# ---- in Node ----

def test_publish_and_listen(t):
    server = t.server()
    node = client_of(t, server)
    subscribe(node, "todos")
    settled(node)
    equal(node.run("states"), ["live"])
    assert node.run("typeof live.id") == "string"
    for payload in (b'{"a": [1]}', b"plain", b"", "✓ <b>".encode()):
        server.publish_ok("todos", payload)
    sees(node, {"a": [1]}, "plain", "", "✓ <b>")
    server.publish_ok("todos", b"\xff\x00")
    node.eventually("log[0] instanceof Uint8Array && log.splice(0)[0].join() === '255,0'")
    assert node.run("sub.publish({ b: 2 })")
    equal(node.run("sub.publish('text').then(() => 'done')"), "done")
    node.run("sub.publish(new Uint8Array([104, 105]))")
    sees(node, {"b": 2}, "text", "hi")
    equal(node.run("live.publish('', 1).catch(e => e.code)"), "bad-channel")
    node.run("void sub.close()")
    server.publish_ok("todos", b"unheard")
    server.wait_for_metric("fanwire_subscriptions", lambda n: n == 0)
    node.run("void live.close()")
    equal(node.run("live.publish('todos', 1).catch(e => e.message)"), "closed")
    equal(node.run("log"), [])


def test_echo(t):
    server = t.server()
    node, other = client_of(t, server), client_of(t, server)
    for client in (node, other):
        subscribe(client, "chat", "echo: false")
        settled(client)
    node.run("sub.publish('mine')")
    other.run("sub.publish('theirs')")
    server.publish_ok("chat", b"end")
    sees(node, "theirs", "end")
    sees(other, "mine", "end")


def test_iterator(t):
    server = t.server()
    node = client_of(t, server)
    node.run("void (globalThis.sub = live.subscribe('a'))")
    settled(node)
    node.run("""void (async () => {
        for await (const event of sub) {
            log.push([event.channel, event.data, event.text, event.id === sub.id]);
            if (event.data === 3) break;
        }
        log.push("left");
    })()""")
    for n in (1, 2, 3):
        server.publish_ok("a", b"%d" % n)
    node.eventually("log.includes('left')")
    equal([row[:3] for row in node.run("log")[:3]], [["a", n, str(n)] for n in (1, 2, 3)])
    server.wait_for_metric("fanwire_subscriptions", lambda n: n == 0)


def test_last_and_since(t):
    server = t.server()
    ids = [server.publish_ok("a", b"%d" % n) for n in range(5)]
    node = client_of(t, server)
    subscribe(node, "a", "last: 2")
    sees(node, 3, 4)
    # joins a channel that is being heard: each gets its own replay, nobody anything twice
    node.run("""void (globalThis.log2 = [], globalThis.sub2 = live.subscribe("a", {
                   since: %s, onmessage: e => log2.push(e.data) }))""" % json.dumps(ids[0]))
    node.run("""void (globalThis.log3 = [], globalThis.sub3 = live.subscribe("a", {
                   last: 1, onmessage: e => log3.push(e.data) }))""")
    for n in range(5, 8):
        server.publish_ok("a", b"%d" % n)
    server.publish_ok("a", b"8")
    node.eventually("[log, log2, log3].every(one => one.at(-1) === 8)")
    equal(node.run("[log, log2]"), [[5, 6, 7, 8], list(range(1, 9))])
    heard = node.run("log3")
    equal(heard, list(range(heard[0], 9)))


def test_joins_under_load(t):
    """Subscriptions with places of their own come and go while events flow."""
    server = t.server()
    node = client_of(t, server)
    subscribe(node, "a")
    settled(node)
    stop = threading.Event()
    count = [0]

    def publish():
        while not stop.is_set() and count[0] < 3000:
            server.publish_ok("a", b"%d" % count[0])
            count[0] += 1
    thread = threading.Thread(target=publish)
    thread.start()
    node.run("void (globalThis.logs = [])")
    for i in range(20):
        node.run("""void (l => { logs.push(l);
            live.subscribe("a", { %s, onmessage: e => l.push(e.data) }); })([])"""
                 % ("last: 3" if i % 2 else "since: 'oldest'"))
        node.eventually("logs.at(-1).length > 3")
    stop.set()
    thread.join()
    last = count[0] - 1
    node.eventually("[log, ...logs].every(one => one.at(-1) === %d)" % last)
    for heard in node.run("[log, ...logs]"):
        equal(heard, list(range(heard[0], last + 1)), "dense, in order, nothing twice")


def test_refused_channel(t):
    server = t.server(public=("open",))
    node = client_of(t, server)
    subscribe(node, "closed")
    sees(node, "error:channel-forbidden")
    equal(node.run("sub[Symbol.asyncIterator]().next().catch(e => e.code)"), "channel-forbidden")
    subscribe(node, "open")
    settled(node)
    server.publish_ok("open", b"1")
    sees(node, 1)
    equal(node.run("live.state"), "live")


def test_denied(t):
    server = t.server()
    node = client_of(t, server, "{ heartbeat: 1 }")
    subscribe(node, "a")
    sees(node, "error:denied")
    equal(node.run("states").pop(), "denied")
    equal(node.run("live.publish('a', 1).catch(e => e.code)"), "denied")
    opened = server.metric('fanwire_connections_opened_total{transport="ws"}')
    equal(opened, 1.0)


def test_worker_killed(t):
    server = t.server(workers=1, exits_expected=True)
    node = client_of(t, server)
    for name in ("a", "b"):
        subscribe(node, name, name=name)
        settled(node, name)
    server.publish_ok("a", b"1")
    sees(node, 1)
    os.kill(server.workers()[1], signal.SIGKILL)
    eventually(lambda: published(server, "b", b"2"), 10, "a new worker publishes")
    server.publish_ok("a", b"3")
    node.eventually("log.length >= 2")
    equal(node.run("log.sort()"), [2, 3], "order holds per channel")
    equal(node.run("states"), ["live", "offline", "live"])


def published(server, channel, payload):
    try:
        return server.publish(channel, payload).status == 200
    except OSError:
        return False


def test_load(t):
    """load at ready, events wait for it; a restart is a gap, and loads again."""
    server = t.server()
    port = server.address[1]
    node = client_of(t, server)
    subscribe(node, "a", """load: () => new Promise(done => globalThis.loaded = done),
                            onload: data => log.push("load:" + data)""")
    node.eventually("!!globalThis.loaded")
    server.publish_ok("a", b"1")
    server.publish_ok("a", b"2")
    equal(node.run("log"), [])
    node.eventually("sub.held?.length === 2")
    node.run("void (loaded('x'), globalThis.loaded = undefined)")
    sees(node, "load:x", 1, 2)
    server.publish_ok("a", b"3")
    sees(node, 3)
    server.stop()
    node.eventually("live.state === 'offline'")
    again = t.server("memory:", http="127.0.0.1:%d" % port)
    node.eventually("!!globalThis.loaded")
    again.publish_ok("a", b"4")
    node.run("void loaded('y')")
    sees(node, "gap:new-epoch", "load:y", 4)


def test_load_that_fails(t):
    server = t.server()
    node = client_of(t, server)
    node.run("void (globalThis.tries = 0)")
    subscribe(node, "a", """load: () => { if (++tries < 3) throw new Error("no"); return tries; },
                            onload: data => log.push("load:" + data)""")
    sees(node, "load:3")


@case(timeout=90)
def test_as_it_is_served(t):
    """The module with its short names does what the source does."""
    install(t.directory)
    with open(os.path.join(t.directory, "node_modules", "fanwire", "fanwire.js"), "wb") as f:
        f.write(t.server().get("/fanwire.js").body)
    for test in (test_publish_and_listen, test_echo, test_iterator, test_last_and_since,
                 test_load_that_fails, test_denied, test_proxy_without_websockets,
                 test_refused_snapshot_without_websockets):
        test(t)


# ---- rows ----

JOIN = """(log => { logs.push(log); return live.subscribe("items", { %s,
    onload: rows => log.push(...rows.map(one => ["row", one.id, one.n]), ["loaded"]),
    onmessage: e => log.push(["event", e.data.id, e.data.n]),
    ongap: g => log.push(["gap", g.reason]), onerror: e => log.push(["error", e.code]) }); })([])"""


class Items:
    """A table whose rows are changed, each change with its event; and a server that tells both."""

    def __init__(self, t, *arguments, **options):
        self.path, self.connection = sqlite_file(t)
        self.server = t.server("sqlite:" + self.path, "--snapshot", QUERY, *arguments, **options)
        self.thread = None

    def change(self, item):
        self.connection.execute("begin immediate")
        self.connection.execute("update items set n = n + 1 where id = ?", (item,))
        self.connection.execute(
            "insert into fanwire_outbox (channel, payload) select 'items', "
            "json_object('id', id, 'n', n) from items where id = ?", (item,))
        # so that the place of the newest event is seldom that of one of ours
        self.connection.execute("insert into fanwire_outbox (channel, payload) values ('else', 1)")
        self.connection.execute("commit")

    def change_until(self, stop):
        """In a thread of its own."""
        def run():
            self.connection = sqlite3.connect(self.path, timeout=60, isolation_level=None)
            for i in itertools.count():
                if stop.is_set():
                    return
                self.change(i * 5 % ITEMS)
                stop.wait(0.001)
        self.thread = threading.Thread(target=run)
        self.thread.start()

    def end(self, stop):
        """Stops it, and changes each once more, for those who have heard of a few alone."""
        stop.set()
        self.thread.join()
        self.connection = sqlite3.connect(self.path, timeout=60, isolation_level=None)
        for item in range(ITEMS):
            self.change(item)

    def final(self):
        """{id: n}, when nobody changes anything any more."""
        return dict(sqlite3.connect(self.path).execute("select id, n from items").fetchall())


def look_at_items(heard, final):
    """Rows, once; then each version after them, once and in order."""
    equal([one[0] for one in heard[:ITEMS + 1]], ["row"] * ITEMS + ["loaded"])
    equal({one[0] for one in heard[ITEMS + 1:]} - {"event"}, set())
    versions = {item: n for _, item, n in heard[:ITEMS]}
    for _, item, n in heard[ITEMS + 1:]:
        equal(n, versions[item] + 1, "item %d" % item)
        versions[item] = n
    equal(versions, final)


def is_complete(final):
    """A JavaScript condition on `log`."""
    return """(() => { const last = {}; log.forEach(([, id, n]) => last[id] = n);
        return %s.every(([id, n]) => last[id] === n); })()""" % json.dumps(list(final.items()))


def test_snapshot(t):
    items = Items(t)
    port = items.server.address[1]
    items.change(3)
    node = client_of(t, items.server)
    node.run("void (globalThis.logs = [], globalThis.sub = %s)" % JOIN % "snapshot: true")
    node.eventually("logs[0].length === %d" % (ITEMS + 1))
    items.change(3)
    node.eventually("logs[0].length === %d" % (ITEMS + 2))
    look_at_items(node.run("logs[0]"), items.final())
    # a connection that is lost: it goes on, without rows
    items.server.stop()
    node.eventually("live.state === 'offline'")
    items.change(4)
    again = t.server("sqlite:" + items.path, "--snapshot", QUERY, http="127.0.0.1:%d" % port)
    node.eventually("logs[0].length === %d" % (ITEMS + 3))
    look_at_items(node.run("logs[0]"), items.final())
    # what was there meanwhile is gone: rows again
    items.server = again
    again.stop()
    node.run("logs[0].splice(0)")
    items.change(5)
    items.connection.execute("delete from fanwire_outbox")
    t.server("sqlite:" + items.path, "--snapshot", QUERY, http="127.0.0.1:%d" % port)
    node.eventually("logs[0].at(-1)?.[0] === 'loaded'", timeout=30)
    heard = node.run("logs[0]")
    equal(heard.pop(0)[0], "gap")
    look_at_items(heard, items.final())
    items.change(5)
    node.eventually("logs[0].length === %d" % (ITEMS + 3))
    equal(node.run("logs[0].at(-1)"), ["event", 5, 2])


def test_snapshot_or_something_else(t):
    """A place to go on from stands before the rows, they before `last` and `load`."""
    items = Items(t)
    node = client_of(t, items.server)
    node.run("void (globalThis.logs = [], %s)" % JOIN % "snapshot: true")
    node.eventually("logs[0].length > 0")
    place = items.server.publish_ok("items", b'{"id": 0, "n": 100}')
    items.server.publish_ok("items", b'{"id": 0, "n": 101}')
    for options in ("since: %s" % json.dumps(place), "last: 1", "load: () => [{ id: 1, n: 2 }]"):
        node.run("void %s" % JOIN % ("snapshot: true, " + options))
    node.eventually("logs.every(log => log.length)")
    items.server.publish_ok("items", b'{"id": 0, "n": 102}')
    node.eventually("logs.every(log => log.at(-1)[2] === 102)")
    equal(node.run("logs[1]"), [["event", 0, 101], ["event", 0, 102]])
    for n in (2, 3):
        equal([one[0] for one in node.run("logs[%d]" % n)], ["row"] * ITEMS + ["loaded", "event"])


def snapshots_under_load(t, options):
    """Those with rows, with places of their own and with neither come and go while rows change."""
    items = Items(t, workers=1)
    node = client_of(t, items.server, options)
    node.run("void (globalThis.logs = [])")
    stop = threading.Event()
    items.change_until(stop)
    try:
        for i in range(12):
            node.run("void (globalThis.sub = %s)" % JOIN % "snapshot: true")
            if i % 3 == 1:
                node.run("void (%s, %s)" % (JOIN % "snapshot: true", JOIN % "snapshot: true"))
            if i % 3 == 2:
                node.run("void (globalThis.others ??= []).push(logs.length)")
                node.run("void %s" % JOIN % ("echo: true", "last: 3")[i % 2])
            node.eventually("logs.every(log => log.length > 0)")
            if i % 6 == 3:  # leaves again
                node.run("void (sub.close(), logs.splice(logs.length - 1, 1))")
    finally:
        items.end(stop)
    final = items.final()
    node.eventually("logs.every(log => %s)" % is_complete(final), timeout=30)
    others = node.run("others")
    for i, heard in enumerate(node.run("logs")):
        if i not in others:
            look_at_items(heard, final)
            continue
        seen = {}
        for kind, item, n in heard:
            equal((kind, n), ("event", seen.get(item, n - 1) + 1))
            seen[item] = n
    equal(node.run("states"), ["live"])


@case(timeout=120)
def test_snapshots_under_load(t):
    snapshots_under_load(t, "{}")


@case(timeout=120)
def test_snapshots_under_load_without_websockets(t):
    snapshots_under_load(t, "{ WebSocket: null }")


@case(timeout=120)
def test_snapshots_while_connections_are_lost(t):
    items = Items(t)
    proxy = t.proxy(items.server.address[1])
    node = Node(t)
    start(node, "http://127.0.0.1:%d" % proxy.port)
    node.run("void (globalThis.logs = [])")
    stop = threading.Event()
    items.change_until(stop)
    try:
        for i in range(6):
            node.run("void (%s, %s)" % (JOIN % "snapshot: true", JOIN % "snapshot: true"))
            if i % 2:  # amid it
                proxy.cut()
            node.eventually("logs.every(log => log.length > 0)", timeout=30)
            if not i % 2:
                proxy.cut()
    finally:
        items.end(stop)
    final = items.final()
    node.eventually("logs.every(log => %s)" % is_complete(final), timeout=30)
    for heard in node.run("logs"):
        look_at_items(heard, final)


def refused_snapshot(t, options):
    items = Items(t, "--snapshot", "bad=SELECT missing FROM items")
    node = client_of(t, items.server, options)
    subscribe(node, "bad", "snapshot: true")
    sees(node, "error:source-refused")
    subscribe(node, "other", "snapshot: true")
    sees(node, "error:not-supported")
    # it is nobody else's
    subscribe(node, "other")
    settled(node)
    subscribe(node, "other", "snapshot: true", name="refused")
    sees(node, "error:not-supported")
    subscribe(node, "other", "since: '!'", name="refused")
    sees(node, "error:bad-position")
    for n in (1, 2):
        items.server.publish_ok("other", b"%d" % n)
    sees(node, 1, 2)
    equal(node.run("live.state"), "live")


def test_refused_snapshot(t):
    refused_snapshot(t, "{}")


def test_refused_snapshot_without_websockets(t):
    refused_snapshot(t, "{ WebSocket: null }")


def test_a_snapshot_that_may_come_later(t):
    """The server says that it passes: asked again, while others go on undisturbed."""
    node = Node(t)
    node.run("""void (globalThis.asked = [], globalThis.refuse = ["overloaded", "source-down"],
        globalThis.Scripted = class {
            constructor() {
                const tell = m => queueMicrotask(() => this.onmessage({ data: JSON.stringify(m) }));
                tell({ type: "welcome", client: "c", heartbeat: 25 });
                this.send = text => {
                    const m = JSON.parse(text), { channel, ref } = m;
                    if (m.type === "unsubscribe") return tell({ type: "unsubscribed", channel });
                    asked.push(m.snapshot ? "rows" : m.since ?? "now");
                    const code = m.snapshot && refuse.shift();
                    if (code) return tell({ type: "unsubscribed", channel, code, message: "", ref });
                    if (m.snapshot) tell({ type: "snapshot", channel, data: { a: 1 } });
                    tell({ type: "ready", channel, id: "p", ref });
                };
            }
            close() {} })""")
    start(node, "http://nowhere.example/", "{ WebSocket: Scripted }")
    subscribe(node, "a")
    settled(node)
    subscribe(node, "a", "snapshot: true, onload: rows => log.push(rows)", name="late")
    sees(node, [{"a": 1}])
    equal(node.run("asked"), ["now", "rows", "p", "rows", "p", "rows", "p"])
    equal(node.run("states"), ["live"])


def test_a_slower_server_after_rows(t):
    """Whose replay for the others has events that the newcomer's rows contain."""
    node = Node(t)
    node.run("""void (globalThis.asked = [], globalThis.head = 2, globalThis.seen = [],
        globalThis.Scripted = class {
            constructor() {
                globalThis.tell = m =>
                    queueMicrotask(() => this.onmessage({ data: JSON.stringify(m) }));
                const event = n => tell({ type: "message", channel: "a", id: "" + n, data: n });
                tell({ type: "welcome", client: "c", heartbeat: 25 });
                this.send = text => {
                    const { type, channel, ref, since, snapshot } = JSON.parse(text);
                    if (type === "unsubscribe" && asked.at(-1) === "rows") {
                        head = 2; // of the other server
                        tell({ type: "closing", retry_ms: 0 });
                        return queueMicrotask(() => this.onclose({}));
                    }
                    if (type === "unsubscribe") return tell({ type: "unsubscribed", channel });
                    asked.push(snapshot ? "rows" : since ?? "now");
                    if (snapshot) tell({ type: "snapshot", channel, data: { upto: head = 4 } });
                    head = Math.max(head, since ?? 0); // it waits until it is there
                    if (since < 3 && head >= 3) event(3);
                    tell({ type: "ready", channel, id: "" + head, ref });
                };
            }
            close() {} })""")
    start(node, "http://nowhere.example/", "{ WebSocket: Scripted }")
    subscribe(node, "a")
    settled(node)
    subscribe(node, "a", """snapshot: true, onload: rows => seen.push(rows[0].upto),
                            onmessage: e => seen.push(e.data)""", name="late")
    node.eventually("late.id === '4' && sub.id === '4' && log.length > 0")
    node.run("""tell({ type: "message", channel: "a", id: "5", data: 5 })""")
    sees(node, 3, 5)
    equal(node.run("seen"), [4, 5])
    equal(node.run("asked"), ["now", "rows", "2", "4", "2"])


def test_source_dies(t):
    server = t.server(exits_expected=True)
    node = client_of(t, server)
    subscribe(node, "a")
    settled(node)
    os.kill(server.source_pid(), signal.SIGSTOP)
    node.eventually("live.state === 'stale'")
    os.kill(server.source_pid(), signal.SIGKILL)
    node.eventually(LIVE)
    equal(node.run("states"), ["live", "stale", "live"])


def test_retry_is_honoured(t):
    server = t.server(drain="1s")
    node = client_of(t, server)
    node.eventually(LIVE)
    node.run("""void (globalThis.waits = [], globalThis.realTimeout = setTimeout,
        globalThis.setTimeout = (f, ms) => { waits.push(ms); return realTimeout(f, ms); })""")
    server.stop()
    node.eventually("live.state === 'offline'")
    # what the server said, a whole number; a back-off of the client's own is none
    waits = node.run("waits.filter(ms => Number.isInteger(ms) && ms >= 1000)")
    assert waits, node.run("waits")


def test_proxy_without_websockets(t):
    server = t.server(workers=1, exits_expected=True)
    node = client_of(t, server, """{ WebSocket: class {
        constructor() { setTimeout(() => this.onclose({ code: 1006, reason: "" })); }
        close() {} } }""")
    for name in ("a", "b/c"):
        subscribe(node, name, name="sub_" + name[0])
        settled(node, "sub_" + name[0])
    equal(server.metric('fanwire_connections{transport="sse"}'), 2.0)
    node.run("sub_a.publish({ x: 1 })")
    sees(node, {"x": 1})
    node.run("live.publish('b/c', new Uint8Array([255]))")
    node.eventually("log.length === 1 && log.splice(0)[0][0] === 255")
    equal(node.run("live.publish('', 1).catch(e => e.code)"), "bad-channel")
    os.kill(server.workers()[1], signal.SIGKILL)
    eventually(lambda: published(server, "a", b"2"), 10, "a new worker publishes")
    sees(node, 2)
    node.run("void sub_b.close()")
    server.wait_for_metric('fanwire_connections{transport="sse"}', lambda n: n == 1)


def keyed_publishes(t, options):
    server = t.server(workers=1, exits_expected=True)
    node = client_of(t, server, options)
    subscribe(node, "a")
    settled(node)
    for key in ("k", "k", "ключ \"quoted\"\n"):
        node.run("sub.publish({ k: 1 }, { key: %s })" % json.dumps(key))
    node.run("live.publish('a', new Uint8Array([255]), { key: 'bytes' })")
    node.eventually("log.length === 3")
    equal(node.run("log.splice(0).slice(0, 2)"), [{"k": 1}, {"k": 1}])
    equal(node.run("sub.publish(1, { key: 'x'.repeat(256) }).catch(e => e.code)"), "bad-request")
    # what is under way when a process dies is sent again, and comes once
    for victim in (server.source_pid(), server.workers()[1]):
        node.run("void (globalThis.done = 0)")
        os.kill(victim, signal.SIGKILL)
        node.run("for (let i = 0; i < 20; i++) sub.publish(i, { key: '%d/' + i }).then(() => done++);"
                 "undefined" % victim)
        node.eventually("done === 20", timeout=40)
        eventually(lambda: published(server, "a", b"-1"), 10, "a new process publishes")
        node.eventually("log.includes(-1)", timeout=20)
        found = node.run("log.splice(0).filter(e => e >= 0)")
        equal(len(found), len(set(found)), "none twice")


@case(timeout=90)
def test_keyed_publishes(t):
    keyed_publishes(t, "{}")


@case(timeout=90)
def test_keyed_publishes_without_websockets(t):
    keyed_publishes(t, "{ WebSocket: null }")


def test_refused_over_sse(t):
    server = t.server(public=("open",))
    node = client_of(t, server, "{ WebSocket: null }")
    subscribe(node, "closed")
    sees(node, "error:channel-forbidden")


@case(timeout=90)
def test_stalled_network(t):
    server = t.server()
    proxy = t.proxy(server.address[1])
    node = Node(t)
    start(node, "http://127.0.0.1:%d" % proxy.port, "{ heartbeat: 5 }")
    subscribe(node, "a")
    settled(node)
    proxy.stall()
    server.publish_ok("a", b"1")
    node.eventually("live.state === 'offline'", 20)
    proxy.cut()
    proxy.resume()
    sees(node, 1)
    proxy.cut()
    server.publish_ok("a", b"2")
    sees(node, 2)


# ---- in a browser: tabs ----

def tabs_of(t, server, count, prepare="", host="127.0.0.1", port=None):
    browser = Browser("--host-resolver-rules=MAP fanwire.test 127.0.0.1")
    t.cleanup(browser.close)
    pages, url = [], "http://%s:%d" % (host, port or server.address[1])
    for i in range(count):
        page = browser.open(url + "/healthz")
        page.eventually("location.pathname === '/healthz' && document.readyState === 'complete'")
        page.run("""(async () => { %s
            globalThis.connect = (await import("/fanwire.js")).connect; })()""" % prepare)
        start(page, url)
        subscribe(page, "a", "echo: false" if i == 0 else "")
        pages.append(page)
    for page in pages:
        page.eventually(LIVE)
        settled(page)
    return pages


def close(page):
    try:
        page.command("Page.close")
    except Exception:  # noqa: B902 its answer may be lost with the page
        pass


def one_connection(server):
    server.wait_for_metric('fanwire_connections{transport="ws"}', lambda n: n == 1)


def share_and_survive(t, prepare, count, **options):
    server = t.server()
    pages = tabs_of(t, server, count, prepare, **options)
    one_connection(server)
    equal(server.metric('fanwire_connections_opened_total{transport="ws"}'), 1.0)
    server.publish_ok("a", b"1")
    for page in pages:
        sees(page, 1)
    pages[0].run("sub.publish('from the first')")
    for page in pages[1:]:
        sees(page, "from the first")
    pages[1].run("sub.publish('from the second')")
    for page in pages:
        sees(page, "from the second")
    close(pages.pop(0))
    server.publish_ok("a", b"2")
    for page in pages:
        sees(page, 2)
    one_connection(server)
    close(pages.pop())
    server.publish_ok("a", b"3")
    for page in pages:
        sees(page, 3)


@case(timeout=120)
def test_ten_tabs_share_a_worker(t):
    share_and_survive(t, "", 10)


@case(timeout=120)
def test_tabs_without_locks(t):
    """A page of plain http has none; workers it has."""
    share_and_survive(t, "if (navigator.locks) throw 'locks';", 4, host="fanwire.test")


@case(timeout=120)
def test_tabs_without_shared_workers(t):
    share_and_survive(t, "delete globalThis.SharedWorker;", 4)


@case(timeout=120)
def test_tabs_that_cannot_share(t):
    server = t.server()
    pages = tabs_of(t, server, 2, """delete globalThis.SharedWorker;
        Object.defineProperty(navigator, "locks", { value: undefined });""")
    server.wait_for_metric('fanwire_connections{transport="ws"}', lambda n: n == 2)
    server.publish_ok("a", b"1")
    for page in pages:
        sees(page, 1)


@case(timeout=120)
def test_tabs_behind_a_proxy_without_websockets(t):
    server = t.server()
    proxy = t.proxy(server.address[1])
    proxy.websockets = False
    pages = tabs_of(t, server, 2, port=proxy.port)
    equal(server.metric('fanwire_connections{transport="sse"}'), 1.0)
    proxy.cut()
    server.publish_ok("a", b"1")
    for page in pages:
        sees(page, 1)
    pages[1].run("sub.publish([2])")
    for page in pages:
        sees(page, [2])
    subscribe(pages[0], "", name="refused")
    sees(pages[0], "error:bad-channel")
    equal(server.metric('fanwire_connections{transport="ws"}'), 0.0)


def snapshots_in_tabs(t, prepare, count=4):
    """Tabs that come one after another while rows change, and one that goes: each is exact."""
    items = Items(t, workers=1)
    browser = Browser()
    t.cleanup(browser.close)
    pages, url = [], items.server.url
    stop = threading.Event()
    items.change_until(stop)
    try:
        for i in range(count):
            page = browser.open(url + "/healthz")
            page.eventually("location.pathname === '/healthz' && document.readyState === 'complete'")
            page.run("""(async () => { %s
                globalThis.connect = (await import("/fanwire.js")).connect; })()""" % prepare)
            start(page, url)
            page.run("void (globalThis.logs = [], %s)" % JOIN % "snapshot: true")
            if i == 2:  # two at once, of which one goes again
                page.run("void (globalThis.gone = %s, %s)"
                         % (JOIN % "snapshot: true", JOIN % "snapshot: true"))
                page.run("void (gone.close(), logs.splice(1, 1))")
            page.eventually("logs.every(log => log.length > 0)")
            pages.append(page)
        one_connection(items.server)
        close(pages.pop(0))  # it may have held the connection
        pages[0].run("void %s" % JOIN % "snapshot: true")
        pages[0].eventually("logs.every(log => log.length > 0)")
    finally:
        items.end(stop)
    final = items.final()
    for page in pages:
        page.eventually("logs.every(log => %s)" % is_complete(final), timeout=30)
        for heard in page.run("logs"):
            look_at_items(heard, final)


@case(timeout=120)
def test_snapshots_in_tabs_that_share_a_worker(t):
    snapshots_in_tabs(t, "")


@case(timeout=120)
def test_snapshots_in_tabs_without_shared_workers(t):
    snapshots_in_tabs(t, "delete globalThis.SharedWorker;")
