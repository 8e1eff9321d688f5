"""Every subscriber sees every event once, in one and the same order."""
import subprocess

import frames
from case import case, equal
from publisher import Publishers


def decoded(stream):
    """Payloads of a stream of unfragmented text frames."""
    found = frames.Reader().feed(stream)
    assert all(opcode == frames.TEXT for opcode, _ in found)
    return [payload for _, payload in found]


def look_at(raw, expected_lists):
    """One order for all; in it each event once, each publisher's in its own order."""
    reference = raw[0]
    different = [m.number for m in raw if m.hash.digest() != reference.hash.digest()]
    equal(different[:10], [], "%d of %d streams are not as the first" % (len(different), len(raw)))
    payloads = decoded(bytes(reference.kept))
    equal(len(payloads), sum(len(events) for events in expected_lists))
    by_publisher = [[] for _ in expected_lists]
    for payload in payloads:
        by_publisher[int(payload.partition(b":")[0][1:])].append(payload)
    for found, expected in zip(by_publisher, expected_lists):
        equal(found, expected)


def numbered(publishers, each):
    return [[b"p%d:%d" % (p, i) for i in range(each)] for p in range(publishers)]


def size_of(lists):
    """Bytes of all as short text frames."""
    return sum(2 + len(payload) for payloads in lists for payload in payloads)


@case(timeout=120, alone=True)
def test_ten_publishers(t):
    """By HTTP, into memory:, on two workers; bare sockets, whose bytes are compared whole."""
    subscribers, events = (1000, 100000) if t.long else (100, 10000)
    server = t.server(workers=2)
    crowd = t.crowd(server)
    raw = crowd.add(subscribers, "/ws/x?since=oldest", "raw")
    v1 = crowd.add(4, "/ws/x", "json")
    sse = crowd.add(4, "/sse/x", "sse")
    equal(set(server.worker_of([m.socket for m in raw])), set(server.workers().values()))
    lists = numbered(10, events // 10)
    publishers = Publishers(t, server.address, [[("x", e) for e in each] for each in lists])
    whole = size_of(lists)
    crowd.wait(lambda: all(m.n_bytes >= whole or m.close for m in raw), 60 if not t.long else 3600,
               "all have come", lambda: sorted({m.n_bytes for m in raw}))
    publishers.wait()
    crowd.wait(lambda: all(m.n_events == events for m in v1 + sse), 60 if not t.long else 3600)
    look_at(raw, lists)
    order = [p.decode() for p in decoded(bytes(raw[0].kept))]
    for member in v1 + sse:
        assert member.payloads == order, "the order of %s is another" % member.kind


@case(timeout=120, postgres=True)
def test_ten_sessions_of_postgres(t):
    """Each statement a transaction of its own; some by HTTP beside them."""
    database = t.database()
    server = t.server(database.url, workers=2)
    crowd = t.crowd(server)
    raw = crowd.add(30, "/ws/x?since=oldest", "raw")
    crowd.add(1, "/ws/x", "json")
    lists = numbered(10, 100)
    sessions = []
    for payloads in lists[:8]:
        sql = "".join("notify x, '%s';\n" % p.decode() for p in payloads)
        session = subprocess.Popen(
            ["psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", database.url], stdin=subprocess.PIPE)
        session.stdin.write(sql.encode())
        session.stdin.close()
        sessions.append(session)
    publishers = Publishers(t, server.address, [[("x", e) for e in each] for each in lists[8:]])
    whole = size_of(lists)
    crowd.wait(lambda: all(m.n_bytes >= whole or m.close for m in raw), 60, "all have come",
               lambda: sorted({m.n_bytes for m in raw}))
    publishers.wait()
    for session in sessions:
        equal(session.wait(10), 0)
    look_at(raw, lists)


@case(timeout=120)
def test_random_goings_and_comings(t):
    """Clients leave at random and resume by since or Last-Event-ID, while three publishers write:
    nothing twice, nothing missing, nothing out of order, no gap."""
    server = t.server(workers=2)
    total = 3000 if not t.long else 300000
    crowd = t.crowd(server)
    kinds = [("/ws/x", "json"), ("/sse/x", "sse")]
    clients = [{"seen": [], "path": path, "kind": kind} for path, kind in kinds * 10]
    for client in clients:
        client["member"] = crowd.add(1, client["path"], client["kind"])[0]
    lists = numbered(3, total // 3)
    publishers = Publishers(t, server.address, [[("x", e) for e in each] for each in lists])

    def reconnect(client):
        member = client["member"]
        client["seen"] += member.payloads
        last = member.last_id or client.get("last")
        client["last"] = last
        crowd.drop([member])
        path, headers = client["path"], None
        if client["kind"] == "sse" and last:
            headers = {"Last-Event-ID": last}
        elif last:
            path += "?since=" + last
        client["member"] = crowd.add(1, path, client["kind"], headers, ready=False)[0]

    def n_seen(client):
        return len(client["seen"]) + client["member"].n_events
    rounds = 0
    while any(n_seen(c) < total for c in clients) and rounds < 100000:
        rounds += 1
        crowd.pump(0.02)
        if rounds % 3 == 0:
            reconnect(t.random.choice(clients))
    publishers.wait()
    crowd.wait(lambda: all(n_seen(c) >= total for c in clients), 20, "all have come",
               lambda: sorted(n_seen(c) for c in clients))
    order = None
    for client in clients:
        member = client["member"]
        assert not member.of("gap"), member.of("gap")
        seen = client["seen"] + member.payloads
        order = order or seen
        equal(len(seen), total)
        assert seen == order, "another order"
    for p, expected in enumerate(lists):
        equal([e for e in order if e.startswith("p%d:" % p)], [e.decode() for e in expected])
