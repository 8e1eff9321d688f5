"""Ending: told politely, spread out, and as fast as its clients leave."""
import os
import signal
import time

import frames
from case import case, equal, eventually
from server import alive


def test_everybody_is_told(t):
    server = t.server(workers=2, drain="1s")
    v1 = t.ws(server, "/ws/x", protocol="fanwire.v1")
    v1.until("ready")
    bare = t.ws(server, "/ws/x")
    sse, query = t.sse(server, "/sse/x"), t.sse(server, "/sse?channel=x")
    sse.expect("ready")
    query.envelope()
    server.publish_ok("x", "last words")
    server.signal(signal.SIGTERM)
    closing = v1.until("closing")[1]
    equal(closing["code"], "restart")
    assert closing["retry_ms"] > 0
    _, code, reason = v1.closed()
    equal((code, reason), (1012, "retry=%d" % closing["retry_ms"]))
    before, code, reason = bare.closed()
    equal((before, code), (["last words"], 1012))
    assert reason.startswith("retry="), reason
    equal(sse.expect("message").data, "last words")
    closing = sse.expect("closing").json
    equal((closing["code"], sse.reader.retry), ("restart", closing["retry_ms"]))
    equal(sse.event(), None)
    equal(query.envelope()["text"], "last words")
    equal(query.envelope()["type"], "closing")
    for client in (v1, bare, sse, query):
        client.drop()
    equal(server.wait(5), 0)


@case(timeout=60)
def test_it_is_spread_out(t):
    server = t.server(workers=2, drain="2s")
    crowd = t.crowd(server)
    crowd.add(60, "/ws/x", "json")
    server.signal(signal.SIGTERM)
    started = time.monotonic()
    ends = {}

    def note():
        for member in crowd.members:
            if member.close and member not in ends:
                ends[member] = time.monotonic() - started
        return len(ends) == 60
    crowd.wait(note, 10, "all are closed")
    times = sorted(ends.values())
    assert times[-1] < 3.5, times
    assert times[-1] - times[0] > 0.8, "all at once: %r" % times
    retries = {m.of("closing")[0]["retry_ms"] for m in crowd.members}
    assert len(retries) > 10, retries
    assert max(retries) - min(retries) > 1000, sorted(retries)
    crowd.close()
    equal(server.wait(5), 0)


def test_readyz_and_new_clients_during_a_drain(t):
    server = t.server(workers=2, drain="30s")
    crowd = t.crowd(server)
    crowd.add(40, "/ws/x", "json")
    server.signal(signal.SIGTERM)
    eventually(lambda: server.ready().status == 503, 2, "/readyz says so")
    equal(server.ready().code, "restart")
    try:
        server.get("/healthz")
        raise AssertionError("a new connection was taken")
    except OSError:
        pass
    staying = [m for m in crowd.members if m.close is None]
    assert len(staying) > 20, "all were closed at once"
    crowd.close()
    equal(server.wait(5), 0, "with its last client")


def test_with_nobody_there(t):
    server = t.server(workers=2, drain="30s")
    started = time.monotonic()
    equal(server.stop(), 0)
    assert time.monotonic() - started < 2


def test_events_flow_during_a_drain(t):
    server = t.server(workers=1, drain="3s")
    crowd = t.crowd(server)
    crowd.add(30, "/ws/x", "json")
    server.signal(signal.SIGTERM)
    crowd.wait(lambda: any(m.close for m in crowd.members), 5)
    staying = [m for m in crowd.members if not m.close]
    publisher = staying[-1]  # they are closed in the order in which they came
    publisher.socket.send(frames.encode(
        frames.TEXT, b'{"type":"publish","channel":"x","text":"during"}'))
    crowd.wait(lambda: any(m.payloads == ["during"] for m in staying), 5)
    crowd.wait(lambda: publisher.of("ok"), 5)


def test_a_second_signal_ends_at_once(t):
    for number in (signal.SIGINT, signal.SIGTERM):
        server = t.server(workers=2, drain="30s")
        crowd = t.crowd(server)
        crowd.add(40, "/ws/x", "json")
        children = server.children()
        server.signal(number)
        server.wait_for_log(event="draining")
        equal([alive(pid) for pid in children], [True] * 3)
        started = time.monotonic()
        server.signal(number)
        equal(server.wait(5), 0)
        assert time.monotonic() - started < 3, time.monotonic() - started
        eventually(lambda: not any(alive(pid) for pid in children), 2)


def test_signals_to_the_whole_group(t):
    """As a terminal's Ctrl-C, and systemd's stop: every process gets it."""
    server = t.server(workers=2, drain="1s")
    v1 = t.ws(server, "/ws/x", protocol="fanwire.v1")
    v1.until("ready")
    for pid in [server.pid] + server.children():
        try:
            os.kill(pid, signal.SIGINT)
        except ProcessLookupError:
            pass  # a worker without clients has left already
    equal(v1.until("closing")[1]["code"], "restart")
    equal(v1.closed()[1], 1012)
    v1.drop()
    equal(server.wait(5), 0)
    assert not server.events(event="exited"), server.log


def test_dev_does_not_drain(t):
    server = t.server(None, "--dev", public=(), public_write=(), drain="30s", workers=2)
    sse = t.sse(server, "/sse/x")
    sse.expect("ready")
    started = time.monotonic()
    server.signal(signal.SIGINT)
    equal(server.wait(5), 0)
    assert time.monotonic() - started < 2
    sse.drop()


def test_restart_tells_a_gap(t):
    """A client of the server before comes with a position of another epoch."""
    server = t.server(workers=1)
    position = server.publish_ok("x", "before")
    address = "%s:%d" % server.address
    equal(server.stop(), 0)
    again = t.server("memory:", http=address, workers=1)
    before, _ = t.ws(again, "/ws/x?since=" + position, protocol="fanwire.v1").until("ready")
    equal([m.get("reason") for m in before if m["type"] == "gap"], ["new-epoch"])


def test_sighup_is_said_not_to_reload(t):
    server = t.server(workers=1)
    server.signal(signal.SIGHUP)
    server.wait_for_log(event="not-reloaded")
    equal(server.get("/healthz").status, 200)
