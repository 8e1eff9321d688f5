"""Processes that die, hang, and are killed: who notices what."""
import os
import signal
import subprocess
import threading
import time

from case import case, equal, eventually
from publisher import publish_many
from server import alive
from web import Raw


class Steady:
    """Publishes numbered events until told to end; remembers which were accepted. One whose answer
    did not come may or may not have been stored."""

    def __init__(self, server, channel):
        self.accepted, self.unknown = [], []
        self._server, self._channel = server, channel
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self):
        number = 0
        while not self._end.wait(0.002):
            try:
                status = self._server.publish(self._channel, "%d:" % number, timeout=20).status
            except OSError:
                status = None
            (self.accepted if status == 200 else self.unknown).append(number)
            number += 1

    def wait_for(self, n):
        """Until n more have been accepted."""
        until = len(self.accepted) + n
        eventually(lambda: len(self.accepted) >= until, 30, "%d more are accepted" % n)

    def end(self):
        self._end.set()
        self._thread.join(30)

    def look_at(self, seen):
        """Each accepted one once, in order, none that was never sent."""
        equal(seen, sorted(set(seen)), "in order, none twice")
        missing = sorted(set(self.accepted) - set(seen))
        equal(missing, [], "accepted and never seen")
        equal(sorted(set(seen) - set(self.accepted) - set(self.unknown)), [])


def numbers(payloads):
    return [int(p.partition(":")[0]) for p in payloads]


@case(timeout=60)
def test_a_worker_is_killed(t):
    """Only its clients reconnect, and resume without loss."""
    server = t.server(workers=2, exits_expected=True)
    crowd = t.crowd(server)
    clients = crowd.add(15, "/ws/x", "json") + crowd.add(15, "/sse/x", "sse")
    bare = crowd.add(10, "/ws/x?since=oldest", "bare")
    holders = dict(zip(clients + bare, server.worker_of([m.socket for m in clients + bare])))
    steady = Steady(server, "x")
    t.cleanup(steady.end)
    steady.wait_for(30)
    victim = server.workers()[1]
    os.kill(victim, signal.SIGKILL)
    struck = [m for m in clients + bare if holders[m] == victim]
    assert struck and len(struck) < len(holders)
    crowd.wait(lambda: all(m.close for m in struck), 5, "its clients see the end")
    again = {}
    for member in struck:
        equal(member.close[0], 1006)
        if member.kind == "json":
            again[member] = crowd.add(1, "/ws/x?since=" + member.last_id, "json")[0]
        elif member.kind == "sse":
            again[member] = crowd.add(1, "/sse/x", "sse", {"Last-Event-ID": member.last_id})[0]
    steady.wait_for(30)
    eventually(lambda: len(server.workers()) == 2, 10, "the worker is back")
    assert server.workers()[1] != victim
    steady.wait_for(30)
    steady.end()
    mark = "%d:" % (max(steady.accepted + steady.unknown) + 1)
    server.publish_ok("x", mark)
    staying = [m for m in clients + bare if m not in struck] + list(again.values())
    crowd.wait(lambda: all(m.payloads[-1:] == [mark] for m in staying), 10)
    for member in staying:
        equal(member.close, None, "clients of the other worker stay")
    for member in clients:
        seen = member.payloads + (again[member].payloads if member in again else [])
        steady.look_at(numbers(seen[:-1]))
        for part in (member, again.get(member, member)):
            equal(part.of("gap") + part.of("down"), [])
    equal(server.metric('fanwire_worker_restarts_total{role="worker"}'), 1)
    line = server.events(event="exited", worker="1")[0]
    equal((line["level"], line["signal"]), ("warning", "9"))


@case(timeout=60)
def test_the_source_process_is_killed(t):
    """No client notices more than down, gap, up; what the log holds stays readable."""
    server = t.server(workers=2, exits_expected=True)
    crowd = t.crowd(server)
    told = crowd.add(10, "/ws/x", "json") + crowd.add(10, "/sse/x", "sse")
    ignoring = crowd.add(5, "/ws/x?since=oldest&gap=ignore", "bare")
    bare = crowd.add(5, "/ws/x?since=oldest", "bare")
    workers = server.workers()
    steady = Steady(server, "x")
    t.cleanup(steady.end)
    for kill in range(1, 4):
        steady.wait_for(25)
        victim = server.source_pid()
        os.kill(victim, signal.SIGKILL)
        crowd.wait(lambda: all(len(m.of("up")) == kill for m in told), 10, "everybody is told up")
        assert server.source_pid() != victim
    steady.wait_for(25)
    steady.end()
    mark = "%d:" % (max(steady.accepted + steady.unknown) + 1)
    server.publish_ok("x", mark)
    crowd.wait(lambda: all(m.payloads[-1:] == [mark] for m in told + ignoring), 10)
    for member in told:
        kinds = [m["type"] if isinstance(m, dict) else m.kind for m in member.messages]
        equal([k for k in kinds if k in ("down", "gap", "up")], ["down", "gap", "up"] * 3)
        equal({g["reason"] for g in member.of("gap")}, {"restart"})
    for member in told + ignoring:
        equal(member.close, None, "nobody is dropped")
        steady.look_at(numbers(member.payloads[:-1]))
    crowd.wait(lambda: all(m.close for m in bare), 10)
    equal({m.close[0] for m in bare}, {4102})
    equal(server.workers(), workers, "the workers stay")
    # From before the kills: everything is still there, and the gaps are told.
    sse = t.sse(server, "/sse/x?since=oldest")
    before = [e for e in sse.until("ready")[0] if e.kind == "message"]
    steady.look_at(numbers([e.data for e in before[:-1]]))
    resumed = t.sse(server, "/sse/x", last_event_id=before[0].id)
    kinds = [e.kind for e in resumed.until("ready")[0]]
    assert 1 <= kinds.count("gap") <= 3, kinds
    equal(kinds.count("message"), len(before) - 1)
    equal(server.metric('fanwire_worker_restarts_total{role="source"}'), 3)


@case(timeout=60)
def test_a_gap_is_nobodys_where_no_channel_has_begun(t):
    """The state is told all the same; the gap is told to a channel that begins at a place before it."""
    server = t.server(workers=1, exits_expected=True)
    before = server.publish_ok("x", "1")
    client = t.ws(server, "/ws", protocol="fanwire.v1")
    client.expect("welcome")
    source = server.source_pid()
    os.kill(source, signal.SIGSTOP)
    client.expect("down")
    os.kill(source, signal.SIGCONT)
    client.expect("up")
    os.kill(source, signal.SIGSTOP)
    bare = t.ws(server, "/ws/y")  # of no position: it has missed nothing
    os.kill(source, signal.SIGKILL)
    eventually(lambda: server.source_pid() not in (None, source), 10, "it is started again")
    server.wait_until_ready(10)
    client.say(type="subscribe", channel="x", since=before)
    told = client.until("ready")[0]  # down and up, too, if there was the time
    equal([(m["channel"], m["after"], m["reason"]) for m in told if m["type"] == "gap"],
          [("x", before, "restart")])
    server.publish_ok("y", "after")
    equal(bare.message(), "after")


@case(timeout=90)
def test_the_source_process_hangs(t):
    """A short hang: down, and up when it goes on; nothing is lost. A long one: it is replaced."""
    server = t.server(workers=2, exits_expected=True)
    crowd = t.crowd(server)
    told = crowd.add(5, "/ws/x", "json") + crowd.add(5, "/sse/x", "sse")
    bare = crowd.add(5, "/ws/x?since=oldest", "bare")
    server.publish_ok("x", "before")
    hung = server.source_pid()
    os.kill(hung, signal.SIGSTOP)
    started = time.monotonic()
    crowd.wait(lambda: all(m.of("down") for m in told), 8, "everybody is told down")
    assert 2 < time.monotonic() - started < 6, time.monotonic() - started
    assert server.ready(strict=True).status == 503
    equal({m.of("down")[0]["reason"] for m in told}, {"hung"})
    os.kill(hung, signal.SIGCONT)
    crowd.wait(lambda: all(m.of("up") for m in told), 5, "everybody is told up")
    server.publish_ok("x", "between")
    crowd.wait(lambda: all(m.payloads == ["before", "between"] for m in told + bare), 5)
    equal([m.of("gap") for m in told], [[]] * len(told))

    os.kill(hung, signal.SIGSTOP)
    started = time.monotonic()
    crowd.wait(lambda: all(len(m.of("up")) == 2 for m in told), 40, "another source process is up")
    assert time.monotonic() - started > 8, "killed too early"
    assert not alive(hung) and server.source_pid() != hung
    server.publish_ok("x", "after")
    crowd.wait(lambda: all(m.payloads[-1] == "after" for m in told), 5)
    for member in told:
        kinds = [m["type"] if isinstance(m, dict) else m.kind for m in member.messages]
        equal([k for k in kinds if k in ("down", "gap", "up")], ["down", "up", "down", "gap", "up"])
        equal(member.close, None)
    assert server.events(event="hung", source="memory")


@case(timeout=60)
def test_a_worker_hangs(t):
    """The others go on at once; it is killed, and its clients come back."""
    server = t.server(workers=2, exits_expected=True)
    crowd = t.crowd(server)
    members = crowd.add(30, "/ws/x", "json")
    holders = dict(zip(members, server.worker_of([m.socket for m in members])))
    hung = server.workers()[2]
    well = [m for m in members if holders[m] != hung]
    with_well = Raw(server.address)  # a publisher that the well worker has
    while eventually(lambda: server.worker_of([with_well.socket])[0]) == hung:
        with_well.socket.close()
        with_well = Raw(server.address)
    t.cleanup(with_well.socket.close)
    os.kill(hung, signal.SIGSTOP)
    slowest = 0
    for i in range(50):
        started = time.monotonic()
        with_well.send(b"POST /publish/x HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n%02d" % i)
        equal(with_well.response().status, 200)
        crowd.wait(lambda: all(m.n_events == i + 1 for m in well), 5)
        slowest = max(slowest, time.monotonic() - started)
    assert slowest < 0.5, slowest
    struck = [m for m in members if holders[m] == hung]
    crowd.wait(lambda: all(m.close for m in struck), 40, "the hung worker is killed")
    eventually(lambda: len(server.workers()) == 2, 10, "it is replaced")
    again = crowd.add(10, "/ws/x?since=" + well[0].messages[2]["id"], "json")
    for member in again:
        equal(len(member.payloads), 49)
        equal(member.of("gap"), [])
    assert server.events(event="hung", worker="2")


@case(timeout=60)
def test_the_supervisor_is_killed(t):
    """Its children leave: no orphan holds the port or the database."""
    for stopped in (False, True):
        server = t.server(workers=2, exits_expected=True)
        children = server.children()
        equal(len(children), 3)
        if stopped:
            for pid in children:
                os.kill(pid, signal.SIGSTOP)
        ws = t.ws(server, "/ws/x") if not stopped else None
        server.process.kill()
        server.process.wait()
        eventually(lambda: not any(alive(pid) for pid in children), 10, "all children have left")
        if ws:
            equal(ws.closed()[1] in (1006, 1012), True)


@case(timeout=60, postgres=True)
def test_the_source_process_is_killed_with_postgres(t):
    database = t.database()
    server = t.server(database.url, workers=2, exits_expected=True)
    crowd = t.crowd(server)
    members = crowd.add(5, "/ws/x", "json") + crowd.add(5, "/sse/x", "sse")
    database.notify("x", "1:")
    crowd.wait(lambda: all(m.n_events == 1 for m in members))
    os.kill(server.source_pid(), signal.SIGKILL)
    crowd.wait(lambda: all(m.of("up") for m in members), 10)
    database.notify("x", "2:")
    crowd.wait(lambda: all(m.n_events == 2 for m in members))
    for member in members:
        kinds = [m["type"] if isinstance(m, dict) else m.kind for m in member.messages]
        equal([k for k in kinds if k in ("down", "gap", "up")], ["down", "gap", "up"])
    eventually(lambda: len(database.connections()) == 1, 5, "the old connection is gone")


@case(timeout=60)
def test_everything_is_killed_again_and_again(t):
    """At random; in the end everybody who resumes has each accepted event once, or a gap."""
    server = t.server(workers=2, exits_expected=True)
    steady = Steady(server, "x")
    t.cleanup(steady.end)
    for _ in range(6 if not t.long else 300):
        steady.wait_for(8)
        pids = [server.source_pid()] + list(server.workers().values())
        victim = t.random.choice([p for p in pids if p])
        os.kill(victim, signal.SIGKILL)
        eventually(lambda: server.source_pid() and len(server.workers()) == 2, 10)
    server.wait_until_ready()
    steady.end()
    publish_many(server.address, [("x", b"%d:" % 10**6)])
    sse = t.sse(server, "/sse/x?since=oldest")
    before = [e for e in sse.until("ready")[0] if e.kind == "message"]
    steady.look_at(numbers([e.data for e in before[:-1]]))


@case(timeout=30)
def test_a_full_standard_error_stops_nothing(t):
    """Whoever reads the log may stop reading it."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    try:
        while True:
            os.write(writing, b"x" * 4096)
    except BlockingIOError:
        pass
    os.set_blocking(writing, True)
    path = t.directory + "/sock"
    process = subprocess.Popen([t.binary, "serve", "--dev", "--http", "unix:" + path, "--admin",
                                "off"], stderr=writing, stdin=subprocess.DEVNULL)

    def end():
        process.kill()
        process.wait()
        os.close(reading)
        os.close(writing)
    t.cleanup(end)
    health = [t.binary, "health", "unix:" + path]
    eventually(lambda: subprocess.run(health, stderr=subprocess.DEVNULL).returncode == 0, 10,
               "it serves")
