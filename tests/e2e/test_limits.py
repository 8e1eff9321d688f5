"""Limits on connections and descriptors, and what many comings and goings leave behind."""
import os
import resource
import signal
import socket
import struct

import frames
import web
from case import Skip, case, equal, eventually
from web import Raw
from ws import Refused

FEW = 110  # descriptors


def n_descriptors(pid):
    return len(os.listdir("/proc/%d/fd" % pid))


def resident_kib(pid):
    with open("/proc/%d/status" % pid) as f:
        fields = dict(line.split(":", 1) for line in f if ":" in line)
    return int(fields["RssAnon"].split()[0])


def test_max_connections(t):
    """Each kind is refused in the way its clients understand, and room is used again."""
    server = t.server("memory:", "--max-connections", "6", workers=1)
    clients = [t.ws(server, "/ws/x?since=oldest") for _ in range(5)]
    v1 = t.ws(server, "/ws/x", protocol="fanwire.v1")
    v1.until("ready")
    try:
        t.ws(server, "/ws/x")
        raise AssertionError("a seventh client")
    except Refused as refused:
        equal((refused.response.status, refused.response.code), (503, "overloaded"))
        assert "retry-after" in refused.response.headers
    sse = t.sse(server, "/sse/x")
    equal(sse.response.status, 200, "EventSource gives up for good on any other")
    closing = sse.expect("closing").json
    equal(closing["code"], "overloaded")
    assert closing["retry_ms"] == sse.reader.retry and closing["retry_ms"] >= 500, closing
    equal(sse.event(), None, "and ends")
    query = t.sse(server, "/sse?channel=x")
    equal(query.envelope()["type"], "closing")
    equal(query.event(), None)
    assert server.metric('fanwire_requests_rejected_total{code="overloaded"}') >= 3
    server.publish_ok("x", "all of them")
    equal([c.message() for c in clients], ["all of them"] * 5)
    equal(v1.expect("message")["text"], "all of them")
    clients.pop().close()
    for client in (sse, query):
        client.drop()

    def there_is_room():
        again = t.sse(server, "/sse/x")
        kind = again.event().kind
        again.drop()
        return kind == "ready"
    eventually(there_is_room, 5, "there is room again")


@case(timeout=60)
def test_out_of_descriptors(t):
    """Polite refusals; who is there stays; afterwards everything is as before."""
    server = t.server(workers=1, max_files=FEW)
    line = server.wait_for_log(event="few-descriptors")
    equal(line["level"], "warning")
    assert str(FEW) in line["msg"] and "LimitNOFILE" in line["msg"], line
    witness = t.ws(server, "/ws/x", protocol="fanwire.v1")
    witness.until("ready")
    worker = server.workers()[1]
    before = n_descriptors(worker)
    waiting = [Raw(server.address, timeout=10) for _ in range(300)]
    answers = []
    for raw in waiting:
        raw.send(b"GET /sse/x HTTP/1.1\r\nHost: localhost\r\n\r\n")
        answers.append(raw.response())
    assert all(answers), "a connection ended without an answer"
    refused = [a for a in answers if a.status == 503]
    assert 180 < len(refused) < 300, len(refused)
    assert all("retry-after" in a.headers for a in refused)
    assert any(a.status == 200 for a in answers)
    assert n_descriptors(worker) <= FEW
    witness.quiet(0.05)
    for raw in waiting:
        raw.socket.close()
    eventually(lambda: n_descriptors(worker) <= before + 1, 10, "descriptors come back")
    server.publish_ok("x", "still here")
    equal(witness.expect("message")["text"], "still here")
    equal(server.workers()[1], worker)
    t.sse(server, "/sse/x").expect("ready")


def crowd_out(server):
    """Clients that say nothing, until the worker has no descriptor left for another."""
    worker, clients = server.workers()[1], [Raw(server.address, timeout=10) for _ in range(FEW)]
    eventually(lambda: n_descriptors(worker) == FEW, 5, "descriptors are used up")
    return clients


@case(timeout=60)
def test_the_source_is_replaced_while_descriptors_lack(t):
    """The worker has kept what it needs to attach to the new one."""
    server = t.server("memory:", "--head-timeout", "60s", workers=1, max_files=FEW,
                      exits_expected=True)
    witness = t.ws(server, "/ws/x", protocol="fanwire.v1")
    witness.until("ready")
    clients = crowd_out(server)
    worker, source = server.workers()[1], server.source_pid()
    os.kill(source, signal.SIGKILL)
    eventually(lambda: server.source_pid() not in (None, source), 10, "it is started again")
    witness.say(type="subscribe", channel="y")
    ready = witness.until("ready")[1]
    equal(ready["channel"], "y")
    witness.say(type="publish", channel="y", text="still here")
    equal(witness.until("message")[1]["text"], "still here")
    equal(n_descriptors(worker), FEW)
    equal(Raw(server.address, timeout=10).response().status, 503)
    for raw in clients:
        raw.socket.close()
    equal(server.workers()[1], worker)
    equal(server.events(event="out-of-descriptors"), [])


@case(timeout=60)
def test_a_source_that_cannot_be_reached(t):
    """Not even what was kept is of use, as the limit was lowered: clients are told, and the log."""
    server = t.server(workers=1, exits_expected=True)
    witness = t.ws(server, "/ws/x", protocol="fanwire.v1")
    witness.until("ready")
    worker, source = server.workers()[1], server.source_pid()
    soft, hard = resource.prlimit(worker, resource.RLIMIT_NOFILE)
    resource.prlimit(worker, resource.RLIMIT_NOFILE, (3, hard))
    os.kill(source, signal.SIGKILL)
    line = server.wait_for_log(event="out-of-descriptors")
    equal((line["level"], line["worker"]), ("warning", "1"))
    assert "limit of open files is 3" in line["msg"], line

    def is_hung(message):
        return message["type"] == "down" and message["reason"] == "hung"
    while not is_hung(witness.json()):
        pass
    resource.prlimit(worker, resource.RLIMIT_NOFILE, (soft, hard))
    witness.until("up")
    witness.say(type="subscribe", channel="y")
    witness.until("ready")
    newcomer = t.ws(server, "/ws/y", protocol="fanwire.v1")
    newcomer.until("ready")
    server.publish_ok("y", "again")
    equal(newcomer.until("message")[1]["text"], "again")
    equal(len(server.events(event="out-of-descriptors")), 1)


def test_the_soft_limit_is_raised(t):
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    server = t.server(workers=1)
    for pid in [server.pid] + server.children():
        with open("/proc/%d/limits" % pid) as f:
            row = next(line for line in f if line.startswith("Max open files"))
        equal(row.split()[3:5], [str(hard), str(hard)])


def comings_and_goings(t, server, n, publish):
    """n connections of every kind, ended in every way. Events fill the arena, up to its size."""
    crowd = t.crowd(server)
    for at in range(0, n, 250):
        crowd.add(50, "/ws/a%d" % at, "json")
        crowd.add(50, "/sse/x?since=oldest", "sse")
        crowd.add(50, "/ws/x?last=3", "bare")
        crowd.add(25, "/ws?channel=x&channel=y&channel=z&last=2", "json")
        for member in crowd.members[::5]:
            member.socket.send(frames.encode(frames.CLOSE, frames.close_payload(1000)))
        for member in crowd.members[::7]:
            member.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        raws = [Raw(server.address) for _ in range(50)]
        for i, raw in enumerate(raws):
            raw.send([b"", b"GET /ws/x HT", b"garbage\r\n\r\n", b"POST /publish/x HTTP/1.1\r\n"
                      b"Host: x\r\nContent-Length: 9\r\n\r\nhalf"][i % 4])
        for raw in raws:
            raw.socket.close()
        for _ in range(25):
            web.request(server.address, "GET", "/history/x?last=2")
        if publish:
            server.publish_ok("x", "event at %d" % at)
        crowd.drop(list(crowd.members))
    crowd.close()


@case(timeout=120)
def test_nothing_leaks(t):
    """After 5,000 connections of every kind: no descriptor more, no memory more."""
    server = t.server("memory:", "--linger", "1ms", workers=2)

    def look():
        names = ("ws", "sse")
        eventually(lambda: all(server.metric('fanwire_connections{transport="%s"}' % n) == 0
                               for n in names), 15, "all are gone")
        server.wait_for_metric('fanwire_connections{transport="http"}', lambda n: n <= 1)
        pids = [server.source_pid()] + [server.workers()[i] for i in (1, 2)]
        return [(n_descriptors(pid), resident_kib(pid)) for pid in pids]
    comings_and_goings(t, server, 2000, publish=True)
    before = look()
    comings_and_goings(t, server, 5000 if not t.long else 100000, publish=False)
    after = look()
    for (fds, memory), (fds_after, memory_after) in zip(before, after):
        assert fds_after - fds <= 1, "descriptors: %r then %r" % (before, after)  # /metrics is one
        assert t.sanitized or memory_after - memory < 400, "KiB: %r then %r" % (before, after)
    equal(server.metric("fanwire_subscriptions"), 0)
    equal(server.metric("fanwire_channels"), 0)
    equal(server.metric("fanwire_connections_behind"), 0)
    equal(server.metric("fanwire_unsent_bytes"), 0)


@case(timeout=60)
def test_memory_of_idle_clients(t):
    """A rough look; ./dev bench measures it well."""
    if t.sanitized:
        raise Skip("a sanitizer's memory is not the program's")
    n = 2000
    server = t.server(workers=1)
    worker = server.workers()[1]
    crowd = t.crowd(server)
    crowd.add(500, "/ws/x?since=oldest", "bare")
    crowd.add(1, "/ws/x", "json")
    before = resident_kib(worker)
    crowd.add(n, "/ws/x?since=oldest", "bare")
    crowd.add(1, "/ws/x", "json")
    used = (resident_kib(worker) - before) * 1024 / n
    assert used < 600, "%d bytes per idle WebSocket" % used
