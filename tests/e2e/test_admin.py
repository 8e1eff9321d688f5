"""The admin address: metrics that make sense, health, readiness; log lines."""
import json
import re

import web
from case import equal, eventually
from publisher import publish_many


def test_health_and_routes(t):
    server = t.server(workers=2)
    for path, status in (("/healthz", 200), ("/readyz", 200), ("/readyz?source=up", 200),
                         ("/metrics", 200), ("/", 404), ("/ws/x", 404), ("/publish/x", 404)):
        equal(web.request(server.admin, "GET", path).status, status, path)
    assert web.request(server.admin, "POST", "/publish/x", b"x").status in (404, 413)
    off = t.server("memory:", admin="off", workers=1)
    equal(off.started["admin"], "off")
    equal(off.get("/healthz").status, 200)


def test_metrics_are_well_formed(t):
    server = t.server(workers=2)
    text = web.request(server.admin, "GET", "/metrics")
    equal(text.headers["content-type"].partition(";")[0], "text/plain")
    declared = {}
    for line in text.body.decode().splitlines():
        if line.startswith("# HELP "):
            declared[line.split()[2]] = None
        elif line.startswith("# TYPE "):
            _, _, name, kind = line.split()
            assert name in declared, name
            declared[name] = kind
        else:
            match = re.fullmatch(r'([a-z_]+)(\{[a-z]+="[^"]*"(,[a-z]+="[^"]*")*\})? -?[0-9.e+-]+',
                                 line)
            assert match, line
            name = re.sub("_(bucket|sum|count)$", "", match[1])
            assert declared.get(match[1]) or declared.get(name), line
            if declared.get(match[1]) == "counter":
                assert match[1].endswith("_total"), line
    for name in ("build_info", "source_up", "source_info", "source_reconnects_total",
                 "source_events_total", "source_bytes_total", "log_capacity_bytes",
                 "log_window_seconds", "channels", "subscriptions", "connections",
                 "connections_opened_total", "connections_closed_total", "connections_behind",
                 "requests_rejected_total", "deliveries_total", "delivered_bytes_total",
                 "delivery_seconds", "gaps_total", "resumes_total", "publishes_total",
                 "worker_restarts_total"):
        assert "fanwire_" + name in declared, name


def test_metrics_make_sense(t):
    server = t.server("memory:", "--retain", "16M", workers=2, public_write=("x",))
    crowd = t.crowd(server)
    crowd.add(7, "/ws/x?since=oldest", "bare")
    crowd.add(5, "/ws?channel=x&channel=y", "json")
    crowd.add(4, "/sse/x", "sse")
    publish_many(server.address, [("x", b"12345")] * 50)
    crowd.wait(lambda: all(m.n_events == 50 for m in crowd.members))
    first = crowd.members[7].messages[4]["id"]
    t.ws(server, "/ws/x?since=" + first, protocol="fanwire.v1").until("ready")
    t.ws(server, "/ws/x?since=l1.2", protocol="fanwire.v1").until("ready")
    server.publish("closed", "x")
    server.get("/sse/x?typo=1")
    server.get("/nothing")
    t.ws(server, "/ws/x").close()
    m = server.metrics()

    def look(name, expected):
        equal(m.get("fanwire_" + name), expected, name)
    look('connections{transport="ws"}', 14)
    look('connections{transport="sse"}', 4)
    look('connections_opened_total{transport="ws"}', 15)
    look('connections_opened_total{transport="sse"}', 4)
    look('connections_closed_total{transport="ws",code="1000"}', 1)
    look("subscriptions", 7 + 10 + 4 + 2)
    look("source_up", 1)
    look('source_info{kind="memory",mode="%s",durable="false"}' % mode_of(m), 1)
    look("source_events_total", 50)
    look("source_bytes_total", 250)
    look("log_capacity_bytes", 16 << 20)
    look('deliveries_total{transport="ws"}', 12 * 50 + m_resumed(crowd, first) + 50)
    look('deliveries_total{transport="sse"}', 200)
    look('publishes_total{via="client",code="ok"}', 50)
    look('requests_rejected_total{code="channel-forbidden"}', 1)
    look('requests_rejected_total{code="unknown-parameter"}', 1)
    look('requests_rejected_total{code="not-found"}', 1)
    look('gaps_total{reason="new-epoch"}', 1)
    look('gaps_total{reason="lapped"}', 0)
    look('resumes_total{result="complete"}', 1)
    look('resumes_total{result="gap"}', 1)
    look("connections_behind", 0)
    look('worker_restarts_total{role="worker"}', 0)
    assert 0 < m["fanwire_log_window_seconds"] < 60
    count = m["fanwire_delivery_seconds_count"]
    equal(count, m['fanwire_delivery_seconds_bucket{le="+Inf"}'])
    equal(count, m['fanwire_deliveries_total{transport="ws"}']
          + m['fanwire_deliveries_total{transport="sse"}'])
    buckets = [v for k, v in m.items() if k.startswith("fanwire_delivery_seconds_bucket")]
    equal(buckets, sorted(buckets), "cumulative")
    crowd.close()
    server.wait_for_metric('fanwire_connections{transport="ws"}', lambda n: n == 2)
    server.wait_for_metric('fanwire_connections{transport="sse"}', lambda n: n == 0)
    server.wait_for_metric("fanwire_subscriptions", lambda n: n == 2)


def mode_of(metrics):
    name = next(k for k in metrics if k.startswith("fanwire_source_info"))
    return re.search('mode="([^"]*)"', name)[1]


def m_resumed(crowd, first):
    """Events after the position that was resumed from."""
    ids = [m["id"] for m in crowd.members[7].of("message")]
    return 50 - 1 - ids.index(first)


def test_log_formats(t):
    server = t.server("memory:", "--log-format", "json", "--log-level", "debug", start=False)

    def started_line():
        found = [json.loads(line) for line in list(server.lines) if line]
        return next((e for e in found if e.get("event") == "started" and "http" in e), None)
    server_line = eventually(started_line, 10, "the start-up line")
    equal((server_line["server"], server_line["level"]), ("fanwire", "info"))
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", server_line["time"])
    for line in server.lines:
        if line:
            json.loads(line)
    text = t.server("memory:", workers=3)
    started = text.wait_for_log(event="started", server="fanwire")
    equal((started["workers"], started["source"]), ("3", "memory:"))
    opened = text.wait_for_log(source="memory")
    assert any("guarantee" in e or "msg" in e for e in text.events(source="memory")), opened
    none = t.server("memory:", public=(), workers=1)
    equal(none.wait_for_log(event="nothing-public")["level"], "warning")


def test_untrusted_text_in_the_log(t):
    """No line can be forged by what a client or a publisher sends."""
    server = t.server("memory:", "--log-level", "debug", workers=1)
    evil = "x%0Alevel=error%20event=forged"
    server.publish(evil, "x")
    server.get("/sse/" + evil)
    server.get("/nothing%0Alevel=error")
    equal(server.publish("x", "x").status, 200)
    assert not server.events(event="forged")
