"""Clients that do not read: the others do not notice, memory stays flat, and when they wake up they
get the rest in order, or a gap."""
import statistics
import time

from case import case, equal
from publisher import Publishers, publish_many


def private_kib(pid):
    """Anonymous memory of a process."""
    with open("/proc/%d/status" % pid) as f:
        fields = dict(line.split(":", 1) for line in f if ":" in line)
    return int(fields["RssAnon"].split()[0])


def look_at_order(member, last):
    """Numbers rise by one, or a gap was told where they jump; the newest has come."""
    at, gap = None, True
    n_gaps = 0
    for message in member.messages:
        kind = message["type"] if isinstance(message, dict) else message.kind
        if kind == "gap":
            gap = True
            n_gaps += 1
        elif kind == "message":
            text = message["text"] if isinstance(message, dict) else message.data
            number = int(text.partition(":")[0])
            assert at is None or number > at, "%d after %d" % (number, at)
            assert gap or number == at + 1, "%d after %d and no gap" % (number, at)
            at, gap = number, False
    equal(at, last)
    return n_gaps


def newest(member):
    """The number of the newest event; -1: none."""
    for message in reversed(member.messages):
        if isinstance(message, str):
            return int(message.partition(":")[0])
        kind = message["type"] if isinstance(message, dict) else message.kind
        if kind == "message":
            text = message["text"] if isinstance(message, dict) else message.data
            return int(text.partition(":")[0])
    return -1


def publish_until_seen(crowd, members, publish, number):
    """Publishes this number and higher ones until one is the newest that everybody has: who was
    lapped jumps over all that is there. Returns it."""
    for number in range(number, number + 20):
        publish(number)
        try:
            crowd.wait(lambda: all(newest(m) == number for m in members), 2)
            return number
        except AssertionError:
            pass
    raise AssertionError("the newest are %r" % [newest(m) for m in members])


def sleepers_of(crowd, path):
    """One of each kind with small buffers, ready, then not read any more."""
    added = []
    for kind, form in (("json", "/ws"), ("sse", "/sse"), ("bare", "/ws")):
        query = "?gap=ignore&since=oldest" if kind == "bare" else ""
        added += crowd.add(1, form + path + query, kind, receive_buffer=4096)
    crowd.pause(added)
    return added


def events(channel, first, n, size):
    return [(channel, b"%d:" % i + b"x" * size) for i in range(first, first + n)]


@case(timeout=120, alone=True)
def test_a_client_that_never_reads(t):
    """Three of them, among 1,000 that do."""
    server = t.server("memory:", "--retain", "16M", workers=2)
    crowd = t.crowd(server)
    readers = crowd.add(1000, "/ws/x?since=oldest", "bare")
    crowd.add(4, "/ws/x", "json")  # ready: all of them are
    sent = 0

    def round_trips(n):
        """Seconds from publishing an event to its being read by the last of all."""
        nonlocal sent
        times = []
        for _ in range(n):
            started = time.monotonic()
            publish_many(server.address, events("x", sent, 1, 10))
            sent += 1
            crowd.wait(lambda: all(m.n_events == sent for m in readers))
            times.append(time.monotonic() - started)
        return statistics.median(times)

    def flood(n):
        """1 KiB events on a channel that only the sleepers and a few readers have."""
        publishers = Publishers(t, server.address, [events("bulk", flood.sent, n, 1024)])
        flood.sent += n
        crowd.wait(lambda: all(newest(m) == flood.sent - 1 for m in busy), 30)
        publishers.wait()
    flood.sent = 0
    busy = crowd.add(2, "/ws/bulk?since=oldest", "bare")
    flood(10000)  # warm: the arena and all scratch memory are there
    quiet = round_trips(15)

    sleepers = sleepers_of(crowd, "/bulk")
    flood(6000)  # more than the arena holds
    server.wait_for_metric("fanwire_connections_behind", lambda n: n == 3)
    flood(24000)  # more than the log holds
    slept = round_trips(15)
    equal(server.metric("fanwire_connections_behind"), 3)
    for pid in server.workers().values():
        # The arena and its table are 9 MiB once used; a queue per client would be 30 MiB each.
        assert t.sanitized or private_kib(pid) < 14000, "%d KiB" % private_kib(pid)
    assert slept < 3 * quiet + 0.05, "%.4f s, before %.4f s" % (slept, quiet)
    assert server.metric("fanwire_unsent_bytes") < 1 << 20

    crowd.unpause(sleepers)
    last = publish_until_seen(crowd, sleepers + busy, lambda n: publish_many(
        server.address, events("bulk", n, 1, 10)), flood.sent)
    for member in sleepers[:2]:
        assert look_at_order(member, last) >= 1
    numbers = [int(p.partition(":")[0]) for p in sleepers[2].payloads]
    equal(numbers, sorted(set(numbers)), "gap=ignore: in order, none twice")
    for member in busy:
        equal(member.close, None, "who reads is not lapped")
        equal([int(p.partition(":")[0]) for p in member.payloads], list(range(last + 1)))
    server.wait_for_metric("fanwire_connections_behind", lambda n: n == 0)
    assert server.metric('fanwire_gaps_total{reason="lapped"}') >= 2


@case(timeout=60)
def test_a_short_nap_loses_nothing(t):
    """Within what the log holds: every event, once, in order, of every size."""
    server = t.server(workers=1)
    crowd = t.crowd(server)
    sleepers = sleepers_of(crowd, "/x")
    busy = crowd.add(2, "/ws/x", "json")
    sent = [("x", b"%d:" % i + b"x" * t.random.choice([0, 10, 1000, 20000, 300000]))
            for i in range(150)]
    publishers = Publishers(t, server.address, [sent])
    crowd.wait(lambda: all(m.n_events == 150 for m in busy), 20)
    publishers.wait()
    server.wait_for_metric("fanwire_connections_behind", lambda n: n == 3)
    crowd.unpause(sleepers)
    crowd.wait(lambda: all(m.n_events == 150 for m in sleepers), 20)
    expected = [payload.decode() for _, payload in sent]
    for member in crowd.members:
        assert member.payloads == expected, member.kind
        assert member.kind == "bare" or not member.of("gap")


@case(timeout=60)
def test_a_bare_client_that_was_lapped_is_closed(t):
    server = t.server("memory:", "--retain", "1M", workers=1)
    crowd = t.crowd(server)
    bare = crowd.add(1, "/ws/x?since=oldest", "bare", receive_buffer=4096)
    other = crowd.add(1, "/ws/x", "json")
    crowd.pause(bare)
    publishers = Publishers(t, server.address, [events("x", 0, 4000, 1000)])
    crowd.wait(lambda: newest(other[0]) == 3999, 20)
    publishers.wait()
    crowd.unpause(bare)
    crowd.wait(lambda: bare[0].close, 20)
    equal(bare[0].close[0], 4102)
    numbers = [int(p.partition(":")[0]) for p in bare[0].payloads]
    equal(numbers, list(range(len(numbers))), "what it got was whole")


@case(timeout=120, long_only=True)
def test_without_progress_for_a_minute(t):
    """A client that takes nothing at all is closed."""
    server = t.server(workers=1)
    crowd = t.crowd(server)
    sleepers = sleepers_of(crowd, "/x")
    publish_many(server.address, events("x", 0, 3000, 1000))
    server.wait_for_metric("fanwire_connections_behind", lambda n: n == 3)
    server.wait_for_metric("fanwire_connections_behind", lambda n: n == 0, timeout=80)
    equal(server.metric('fanwire_connections_closed_total{transport="ws",code="4108"}'), 2)
    crowd.unpause(sleepers)
    crowd.wait(lambda: all(m.close for m in sleepers))
