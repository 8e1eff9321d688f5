"""Programs on the server: routes answered by an application process, streams that begin with its
messages, and what becomes of both when it crashes, hangs, is slow or is restarted."""
import os
import select
import signal
import threading

import web
from case import Skip, case, equal, eventually
from server import alive


class Program:
    """tests/server/program.c, running. Others than its own are looked up in the server."""

    def __init__(self, t, *arguments, name="tests/server/program", **options):
        path = os.path.join(os.path.dirname(os.path.abspath(t.binary)), name)
        if not os.path.exists(path):
            raise Skip("%s is not built" % path)
        self.directory = t.directory
        env = dict(options.pop("env", {}), PROGRAM_DIR=self.directory)
        self.server = t.server("memory:", *arguments, program=[path], env=env, **options)

    def __getattr__(self, name):
        return getattr(self.server, name)

    def file(self, name):
        return os.path.join(self.directory, name)

    def application_pid(self):
        for pid, title in self.titles().items():
            if title in ("fanwire: program", "fanwire: application") and alive(pid):
                return pid
        return None

    def wait_for_application(self, old=None):
        return eventually(lambda: self.application_pid() not in (None, old)
                          and self.application_pid(), 15, "the application runs")

    def waiters(self):
        return int(self.get("/waiting").body)

    def release(self):
        """Lets the handlers go on that wait."""
        os.kill(self.application_pid(), signal.SIGUSR1)


def listener(t, server, channel):
    """An EventSource that is ready."""
    source = t.sse(server, "/sse/" + channel)
    source.until("ready")
    return source


def in_thread(t, function):
    """Runs it beside the test; returns what waits for its result."""
    result = []
    thread = threading.Thread(target=lambda: result.append(function()), daemon=True)
    thread.start()

    def join(timeout=20):
        thread.join(timeout)
        assert result, "it has not ended"
        return result[0]
    return join


# ---- routes ----

def test_example(t):
    program = Program(t, name="examples/routes")
    equal(program.get("/api/notes/7").body, b"")
    equal(program.request("POST", "/api/notes/7", b"hello").status, 204)
    equal(program.get("/api/notes/7").body, b"hello")
    for other in ("x", "07", "%207", "+7", "-0", "100", "9" * 30):
        equal(program.get("/api/notes/" + other).code, "not-found")
    socket = t.ws(program, "/api/notes/7")
    equal(socket.message(), "hello")
    program.publish_ok("notes:7", b"changed")
    equal(socket.message(), "changed")


def test_what_a_handler_sees(t):
    program = Program(t)
    found = program.request("GET", "/tell/a%20%2Fb/%C3%A9?x=1&q=%26+z&q=2", headers={"X-Word": "hi"})
    equal(found.body.decode(), "GET /tell/a%20%2Fb/%C3%A9 a=a /b b=é q=& z x-word=hi .")
    equal(program.request("GET", "/tell/%66ixed/1").status, 409)  # the earlier literal wins
    equal(program.get("/tell/1/").status, 404)
    equal(program.get("/tell/%zz/1").code, "bad-request")
    equal(program.get("/tell/%00/1").code, "bad-request")
    equal(program.get("/tell/%ff/1").code, "bad-request")
    for query in ("q=%0", "q=%00", "q=%ff", "%ff=q"):
        equal(program.get("/tell/a/b?" + query).code, "bad-request")
    head = program.request("HEAD", "/tell/a/b")
    equal((head.status, head.body), (200, b""))
    assert int(head.headers["content-length"]) > 10, head


def test_methods(t):
    program = Program(t)
    for method in ("POST", "PUT", "PATCH", "DELETE"):
        found = program.request(method, "/echo", b"body")
        equal((found.status, found.body, found.headers["x-method"]), (201, b"body", method))
    equal(program.request("DELETE", "/echo").body, b"")
    wrong = program.get("/echo")
    equal((wrong.status, wrong.headers["allow"]), (405, "POST, PUT, PATCH, DELETE, OPTIONS"))
    wrong = program.request("PUT", "/waiting", b"x" * 100000)
    equal((wrong.status, wrong.headers["allow"]), (405, "GET, HEAD, OPTIONS"))
    equal(program.request("BREW", "/echo").status, 405)
    for method in ("POST", "PUT", "PATCH"):
        raw = ("%s /echo HTTP/1.1\r\nHost: a\r\n\r\n" % method).encode()
        equal(web.raw_request(program.address, raw).status, 411)
    chunked = b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    equal(web.raw_request(program.address, chunked).status, 411)
    equal(program.get("/nowhere").status, 404)
    head = program.request("HEAD", "/follow/1", headers={"Accept": "text/event-stream"})
    equal((head.status, head.body), (426, b""))  # a stream is all body


def test_other_origins(t):
    program = Program(t, "--origin", "https://app.example")
    good = program.request("OPTIONS", "/echo", headers={"Origin": "https://app.example"})
    equal(good.headers["access-control-allow-methods"], "POST, PUT, PATCH, DELETE, OPTIONS")
    equal(good.headers["access-control-allow-origin"], "https://app.example")
    good = program.request("POST", "/echo", b"x", headers={"Origin": "https://app.example"})
    equal(good.headers["access-control-allow-origin"], "https://app.example")
    evil = {"Origin": "https://evil.example"}
    equal(program.request("POST", "/echo", b"x", headers=evil).code, "origin-forbidden")
    equal(program.request("GET", "/follow/1", headers=evil).code, "origin-forbidden")
    try:
        t.ws(program, "/follow/1", headers=evil)
    except Exception as refused:
        equal(refused.response.status, 403)
    else:
        raise AssertionError("a foreign page got a stream")


def test_names_of_others(t):
    """DNS rebinding: a page of a foreign name that leads here has the Origin that Host says."""
    program = Program(t, "--host", "app.example", "--host", "[::1]", "--host", "127.0.0.1")
    for host in ("evil.example", "evil.example:80", "app.example.evil", "xapp.example", "::1",
                 "[::1", "127.0.0.10", "localhost"):
        for headers in ({"Host": host}, {"Host": host, "Origin": "http://" + host}):
            found = program.request("DELETE", "/echo", b"x", headers)
            if found.status == 400:
                continue  # no Host at all
            equal((found.status, found.code), (403, "origin-forbidden"), host)
            assert "--host" in found.json["detail"], found
        equal(program.request("GET", "/history/x", headers={"Host": host}).status,
              found.status, host)
    for host in ("app.example", "APP.example:8080", "[::1]:1", "[::1]", "127.0.0.1:99"):
        headers = {"Host": host, "Origin": "http://" + host}
        equal(program.request("DELETE", "/echo", b"x", headers).status, 201, host)
    equal(program.request("GET", "/healthz", headers={"Host": "10.0.0.7"}).status, 200)
    late = b"POST /echo HTTP/1.1\r\nHost: evil.example\r\nContent-Length: 9\r\n\r\n"
    equal(web.raw_request(program.address, late).status, 403, "its body is not waited for")
    handshake = (b"GET /follow/1 HTTP/1.1\r\nHost: %s\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                 b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
    equal(web.raw_request(program.address, handshake % b"evil.example").status, 403)
    equal(web.raw_request(program.address, handshake % b"app.example").status, 101)


def test_dev_is_for_this_machine(t):
    program = Program(t, "--dev", public=(), public_write=())
    for host, status in (("localhost:1", 201), ("127.0.0.1", 201), ("[::1]", 201),
                         ("evil.example", 403), ("localhost.evil.example", 403)):
        headers = {"Host": host, "Origin": "http://" + host}
        equal(program.request("POST", "/echo", b"x", headers).status, status, host)


def test_assets(t):
    program = Program(t, "--dev", public=(), public_write=())
    page = program.get("/")
    equal((page.body, page.headers["content-type"]), (b"the program's page", "text/plain"))
    equal(page.headers["x-frame-options"], "SAMEORIGIN", "foreign pages cannot frame it")
    same = program.request("GET", "/", headers={"If-None-Match": page.headers["etag"]})
    equal((same.status, same.body), (304, b""))
    equal(program.request("HEAD", "/").headers["content-length"], "18")
    equal(program.request("POST", "/", b"x").status, 405)


def test_base_path(t):
    program = Program(t, "--base-path", "/app")
    equal(program.request("POST", "/app/echo", b"x").status, 201)
    equal(program.get("/app/").body, b"the program's page")
    bare = program.get("/app")  # relative URLs of the page would lead out of it
    equal((bare.status, bare.headers["location"]), (308, "/app/"))
    equal(program.get("/app/tell/1/2").body.split()[1], b"/app/tell/1/2")
    equal(program.get("/tell/1/2").status, 404)


def test_header_fields(t):
    program = Program(t)
    found = program.get("/fields")
    equal(found.body, b"++++-----")
    equal((found.headers["x-good"], found.headers["cache-control"]), ("yes", "max-age=60"))
    with web.Raw(program.address) as raw:
        raw.send(b"GET /fields HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        head = raw.rest().partition(b"\r\n\r\n")[0]
    equal(head.count(b"Set-Cookie: "), 2)
    equal(head.lower().count(b"cache-control"), 1)
    equal(program.get("/look-alike").headers["cache-control"], "no-store")
    equal(program.get("/bad-status").code, "internal")
    problem = program.get("/tell/fixed/1")
    equal((problem.status, problem.json["type"], problem.json["code"]),
          (409, "about:blank", 'out-of-"stock"'))


def test_answers_from_another_thread(t):
    program = Program(t)
    for _ in range(20):
        equal(program.get("/later").body, b"later")


def test_pipelined(t):
    program = Program(t)
    one = b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n%04d"
    with web.Raw(program.address) as raw:
        raw.send(b"".join(one % i for i in range(200)))
        for i in range(200):
            equal(raw.response().body, b"%04d" % i)


def test_large_bodies(t):
    program = Program(t)
    body = t.random.randbytes(1 << 20)
    assert program.request("POST", "/echo", body).body == body
    equal(program.request("POST", "/echo", body + b"x").status, 413)
    with web.Raw(program.address) as raw:
        raw.send(b"PUT /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 1048576\r\n"
                 b"Expect: 100-continue\r\n\r\n")
        equal(raw.response().status, 100)
        raw.send(body)
        assert raw.response().body == body
    equal(program.request("GET", "/big?size=16777216").body, b"x" * (16 << 20))
    equal(program.request("GET", "/big?size=16777217").code, "internal")


def test_announced_bodies_keep_nobody_out(t):
    """What counts is what has come: who announces and is silent takes no room."""
    program = Program(t, workers=1)
    for _ in range(70):
        silent = web.Raw(program.address)
        t.cleanup(silent.socket.close)
        silent.send(b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 1048576\r\n"
                    b"Expect: 100-continue\r\n\r\n")
        equal(silent.response().status, 100)
    with web.Raw(program.address) as raw:
        raw.send(b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n"
                 b"Expect: 100-continue\r\n\r\n")
        equal(raw.response().status, 100)
        raw.send(b"body")
        equal(raw.response().body, b"body")


@case(timeout=60)
def test_bodies_on_their_way_have_a_bound(t):
    """64 MiB of them in a worker: who goes over it is told so, room is used again."""
    program = Program(t, workers=1)
    head = b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 1048576\r\n\r\n"
    raws = []
    for _ in range(65):
        raws.append(web.Raw(program.address))
        t.cleanup(raws[-1].socket.close)
        raws[-1].send(head + b"x" * 1048575)
    readable, _, _ = select.select([raw.socket for raw in raws], [], [], 20)
    refused = [raw for raw in raws if raw.socket in readable]
    equal(len(refused), 1)
    answer = refused[0].response()
    equal((answer.status, answer.code, answer.headers["connection"]), (503, "overloaded", "close"))
    raws.remove(refused[0])
    for raw in raws[:2]:
        raw.send(b"x")
        equal(len(raw.response().body), 1 << 20)
    equal(program.request("POST", "/echo", b"x" * (1 << 20)).status, 201)


def test_a_body_that_nobody_wants(t):
    """The answer is the same however much of it has come."""
    program = Program(t)
    for method, path, status in (("GET", "/tell/a/b", 200), ("GET", "/", 200), ("OPTIONS", "/echo", 204),
                                 ("POST", "/", 405), ("POST", "/nowhere", 404), ("GET", "/healthz", 200)):
        head = "%s %s HTTP/1.1\r\nHost: a\r\nContent-Length: 50\r\n\r\n" % (method, path)
        for sent in (50, 49, 0):
            with web.Raw(program.address) as raw:
                raw.send(head.encode() + b"x" * sent)
                answer = raw.response()
                equal(answer.status, status, (method, path, sent))
                equal("connection" in answer.headers, sent < 50, "what follows can't be told from it")
                if sent < 50:
                    raw.send(b"x" * (50 - sent) + b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
                    raw.ended()
    with web.Raw(program.address) as raw:
        raw.send(b"GET /tell/a/b HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc" * 2)
        equal([raw.response().status for _ in range(2)], [200, 200])


def test_a_slow_reader_of_a_large_answer(t):
    program = Program(t, workers=1)
    with web.Raw(program.address) as raw:
        raw.send(b"GET /big?size=16777216 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        program.wait_for_metric("fanwire_unsent_bytes", lambda n: n > 16 << 20)
        for _ in range(20):
            equal(program.request("POST", "/echo", b"x").status, 201)
        got = raw.rest()
    equal(got.partition(b"\r\n\r\n")[2], b"x" * (16 << 20))
    program.wait_for_metric("fanwire_unsent_bytes", lambda n: n == 0)


def test_many_slow_readers_have_a_bound(t):
    program = Program(t, workers=1)
    readers = []
    for _ in range(8):
        raw = web.Raw(program.address)
        t.cleanup(raw.socket.close)
        raw.send(b"GET /big?size=16777216 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        readers.append(raw)
    program.wait_for_metric('fanwire_calls_total{code="ok"}', lambda n: n == 8, 40)
    assert program.metric("fanwire_unsent_bytes") <= 64 << 20
    ends = [len(raw.rest()) >= 16 << 20 for raw in readers]
    assert ends[-1] and not all(ends), ends


# ---- slow, gone, crashed ----

def test_a_slow_handler(t):
    program = Program(t, workers=1)
    slow = in_thread(t, lambda: program.get("/wait"))
    eventually(lambda: program.waiters() == 1, 10, "the handler works")
    stream = listener(t, program, "a")
    for i in range(20):
        equal(program.request("POST", "/echo", b"x").status, 201)
        program.publish_ok("a", str(i))
        equal(stream.event().data, str(i))
    equal(program.metric("fanwire_calls_waiting"), 1)
    program.release()
    equal(slow().body, b"released")
    program.wait_for_metric("fanwire_calls_waiting", lambda n: n == 0)


def test_a_client_that_goes_away(t):
    program = Program(t, workers=1)
    with web.Raw(program.address) as raw:
        raw.send(b"GET /wait HTTP/1.1\r\nHost: a\r\n\r\n")
        eventually(lambda: program.waiters() == 1, 10, "the handler works")
    program.release()
    eventually(lambda: program.waiters() == 0, 10, "the handler is done")
    program.wait_for_metric("fanwire_calls_waiting", lambda n: n == 0)
    equal(program.request("POST", "/echo", b"x").status, 201)


def test_a_half_closed_client_is_answered(t):
    program = Program(t)
    with web.Raw(program.address) as raw:
        raw.send(b"GET /later HTTP/1.1\r\nHost: a\r\n\r\n")
        raw.socket.shutdown(1)
        equal(raw.response().body, b"later")
        raw.ended()


@case(timeout=90)
def test_a_handler_that_never_answers(t):
    program = Program(t)
    found = program.request("GET", "/never", timeout=60)
    equal((found.status, found.code), (503, "overloaded"))
    assert "within 30 s" in found.json["detail"], found
    equal(program.request("POST", "/echo", b"x").status, 201)


def test_a_crash(t):
    """Who waits gets 503, streams go on, the next request finds another process."""
    program = Program(t, workers=1, exits_expected=True)
    stream, bare = listener(t, program, "c:1"), t.ws(program, "/follow/1?n=0")
    waits = in_thread(t, lambda: program.get("/wait"))
    eventually(lambda: program.waiters() == 1, 10, "the handler works")
    old = program.application_pid()
    crashed = program.get("/abort")
    equal((crashed.status, crashed.code), (503, "restart"))
    assert "retry-after" in crashed.headers, crashed
    assert "may have been done" in crashed.json["detail"], crashed
    equal(waits().code, "restart")
    program.publish_ok("c:1", "after")
    equal((stream.event().data, bare.message()), ("after", "after"))
    equal(program.request("POST", "/echo", b"x").status, 201)  # waits for its restart
    program.wait_for_application(old)
    equal(program.get("/crash").code, "restart")
    equal(program.metric('fanwire_calls_total{code="restart"}'), 3)
    assert program.metric('fanwire_worker_restarts_total{role="application"}') >= 1
    program.publish_ok("c:1", "again")
    equal((stream.event().data, bare.message()), ("again", "again"))


def test_killed_under_load(t):
    """Each request has one answer: its own, or 503; nobody hangs, nobody gets another's."""
    program = Program(t, exits_expected=True)
    stop, bad, good, failed = threading.Event(), [], [0], [0]

    def ask(n):
        i = 0
        while not stop.is_set():
            i += 1
            body = b"%d:%d" % (n, i)
            found = program.request("POST", "/echo", body)
            if found.status == 201 and found.body == body:
                good[0] += 1
            elif found.status == 503 and found.code == "restart":
                failed[0] += 1
            else:
                bad.append(found)
    threads = [threading.Thread(target=ask, args=(n,), daemon=True) for n in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(4):
        before, old = good[0], program.wait_for_application()
        os.kill(old, signal.SIGKILL)
        program.wait_for_application(old)
        eventually(lambda: good[0] > before + 20, 20, "it answers again")
    stop.set()
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()
    equal(bad, [])


def test_a_worker_is_restarted(t):
    program = Program(t, workers=1, exits_expected=True)
    waits = in_thread(t, lambda: web.raw_request(program.address,
                                                 b"GET /wait HTTP/1.1\r\nHost: a\r\n\r\n"))
    eventually(lambda: program.waiters() == 1, 10, "the handler works")
    old, application = program.workers()[1], program.application_pid()
    os.kill(old, signal.SIGKILL)
    eventually(lambda: program.workers().get(1) not in (None, old), 10, "the worker is replaced")
    program.release()
    equal(program.request("POST", "/echo", b"x").status, 201)
    equal(program.application_pid(), application)


def test_start_fails(t):
    directory = t.directory
    with open(os.path.join(directory, "no-start"), "w"):
        pass
    program = Program(t, exits_expected=True)
    program.wait_for_log(application="program", event="not-started")
    found = program.get("/later")
    equal((found.status, found.code), (503, "restart"))
    assert "nothing was done" in found.json["detail"], found
    stream = listener(t, program, "a")
    program.publish_ok("a", "x")
    equal(stream.event().data, "x")
    os.unlink(program.file("no-start"))
    eventually(lambda: program.get("/later").status == 200, 20, "it has started")
    equal(program.events(event="starting")[0]["application"], "program")


@case(timeout=90)
def test_workers_take_turns(t):
    """More requests than the handlers have room for: the clients of both workers get alike."""
    program = Program(t, workers=2)
    clients = {pid: [] for pid in program.workers().values()}
    while min(map(len, clients.values())) < 300:
        some = [web.Raw(program.address) for _ in range(50)]
        for raw, pid in zip(some, program.worker_of([raw.socket for raw in some])):
            t.cleanup(raw.socket.close)
            if pid and len(clients[pid]) < 300:
                clients[pid].append(raw)
    poll, raws, answers = select.poll(), {}, dict.fromkeys(clients, 0)
    ask = b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n"
    for pid, some in clients.items():
        for raw in some:
            raws[raw.socket.fileno()] = pid, raw
            poll.register(raw.socket, select.POLLIN)
            raw.send(ask)
    while sum(answers.values()) < 3000:
        ready = poll.poll(20000)
        assert ready, "nobody is answered"
        for fd, _ in ready:
            pid, raw = raws[fd]
            equal(raw.response().body, b"done")
            answers[pid] += 1
            raw.send(ask)
    assert min(answers.values()) > 1000, answers


def test_overload(t):
    """Handlers are busy, queues are full: what does not fit is refused at once, the rest is
    answered, and streams do not notice."""
    program = Program(t, workers=1)
    stream = listener(t, program, "a")
    clients = [web.Raw(program.address) for _ in range(80)]
    head = b"POST /wait HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n"
    for client in clients:
        t.cleanup(client.socket.close)
        threading.Thread(target=client.send, args=(head + b"x" * 1000000,), daemon=True).start()
    program.wait_for_metric('fanwire_calls_total{code="overloaded"}', lambda n: n > 0)
    program.wait_for_metric("fanwire_calls_waiting", lambda n: 10 < n < 80)
    program.publish_ok("a", "x")
    equal(stream.event().data, "x")
    found = []

    def answered():
        program.release()
        found.extend(c.response().status for c in clients[len(found):len(found) + 1])
        return len(found) == len(clients)
    eventually(answered, 30, "everybody has an answer")
    equal(set(found), {200, 503})


# ---- the end ----

def test_drain(t):
    """A handler that works when the server is told to end still answers."""
    program = Program(t, workers=1, drain="2s")
    waits = in_thread(t, lambda: program.get("/wait"))
    eventually(lambda: program.waiters() == 1, 10, "the handler works")
    program.signal(signal.SIGTERM)
    program.wait_for_log(event="draining")
    program.release()
    equal(waits().body, b"released")
    equal(program.wait(), 0)
    assert os.path.exists(program.file("stopped")), "stop() was not called"


def test_end_while_idle(t):
    program = Program(t)
    equal(program.stop(), 0)
    assert os.path.exists(program.file("stopped"))
    equal(program.events(event="killing"), [])


def test_the_supervisor_dies(t):
    program = Program(t, exits_expected=True)
    application = program.application_pid()
    program.process.kill()
    program.process.wait()
    eventually(lambda: not alive(application), 10, "the application leaves")


def test_secrets(t):
    """The application is the program's own process, but for the source's URL."""
    program = Program(t, env={"PGPASSWORD": "hunter2", "FANWIRE_SOURCE": "memory:#s3cret"})
    for pid in [program.pid, program.application_pid()]:
        with open("/proc/%d/cmdline" % pid, "rb") as f:
            assert b"memory" not in f.read()
    # what ps shows of arguments and environment is the title alone
    with open("/proc/%d/environ" % program.application_pid(), "rb") as f:
        assert b"s3cret" not in f.read()


# ---- streams ----

def test_stream_of_each_kind(t):
    program = Program(t)
    socket = t.ws(program, "/follow/7?n=3&size=2")
    equal([socket.message() for _ in range(3)], ["aa", "bb", "cc"])
    program.publish_ok("c:7", b"\xff\x00")
    program.publish_ok("c:8", "another channel's")
    program.publish_ok("c:7", "text")
    equal([socket.message(), socket.message()], [b"\xff\x00", "text"])
    equal(socket.close(), 1000)
    sse = t.sse(program, "/follow/7?n=2&size=1")
    equal([sse.event().data for _ in range(2)], ["a", "b"])
    sse.until("ready")
    program.publish_ok("c:7", "event")
    equal(sse.event().data, "event")
    equal(program.get("/follow/7").status, 426)
    equal(program.request("POST", "/follow/7", b"x").headers["allow"], "GET, HEAD, OPTIONS")


def test_stream_needs_no_public_channel(t):
    program = Program(t, public=(), public_write=("**",))
    socket = t.ws(program, "/follow/1?n=0")
    program.publish_ok("c:1", "x")
    equal(socket.message(), "x")


def test_stream_channel_names(t):
    program = Program(t)
    equal(t.ws(program, "/follow/%C3%A9%2F?n=1&size=1").message(), "a")
    for path in ("/follow/%01", "/follow/" + "x" * 254):
        equal(t.ws(program, path).closed()[1], 4000)
        found = program.request("GET", path, headers={"Accept": "text/event-stream"})
        equal((found.status, found.code), (400, "bad-channel"))


def test_stream_with_large_messages(t):
    """More than a connection may have unsent otherwise; in order, before the first event."""
    program = Program(t, workers=1)
    socket = t.ws(program, "/follow/1?n=15&size=1048576", receive_buffer=8192)
    program.wait_for_metric("fanwire_unsent_bytes", lambda n: n > 0)
    for i in range(5):
        program.publish_ok("c:1", "event %d" % i)
    for i in range(15):
        equal(socket.message(), chr(97 + i) * (1 << 20))
    equal([socket.message() for _ in range(5)], ["event %d" % i for i in range(5)])


def test_stream_misses_nothing(t):
    """What the handler reads and what the stream brings is all there is, while it goes on: each
    number is stored, then published."""
    program = Program(t)
    stop = threading.Event()
    last = [0]

    def write():
        n = 0
        while not stop.is_set():
            n += 1
            assert program.request("POST", "/store/%d" % n, b"").status == 204
            program.publish_ok("c:x", str(n))
            last[0] = n
    thread = threading.Thread(target=write, daemon=True)
    thread.start()
    t.cleanup(stop.set)
    for i in range(40):
        stream = t.ws(program, "/follow/x")
        stored = int(stream.message())
        got = [int(stream.message()) for _ in range(5)]
        assert got[0] <= stored + 1, "lost between %d and %d" % (stored, got[0])
        equal(got, list(range(got[0], got[0] + 5)))
        stream.drop()
    stop.set()
    thread.join(20)
    assert last[0] > 50, "it was hardly tried: %d" % last[0]


def test_stream_events_meanwhile(t):
    """Events that come while the handler works follow its messages, each once."""
    program = Program(t, workers=1)
    opened = in_thread(t, lambda: t.ws(program, "/hold/1"))
    eventually(lambda: program.waiters() == 1, 10, "the handler works")
    for i in range(10):
        program.publish_ok("c:1", str(i))
    program.release()
    socket = opened()
    program.publish_ok("c:1", "next")
    equal([socket.message() for _ in range(12)],
          ["first"] + [str(i) for i in range(10)] + ["next"])


def test_stream_while_draining(t):
    program = Program(t, workers=1, drain="2s")
    opened = in_thread(t, lambda: t.ws(program, "/hold/1").closed())
    eventually(lambda: program.waiters() == 1, 10, "the handler works")
    program.signal(signal.SIGTERM)
    program.wait_for_log(event="draining")
    program.release()
    messages, code, reason = opened()
    equal((messages, code), (["first"], 1012))
    assert reason.startswith("retry="), reason
    equal(program.wait(), 0)


def test_refusals(t):
    program = Program(t)
    for status, code in ((401, 4001), (403, 4003), (429, 4129), (404, 4000), (418, 4000),
                         (500, 1011), (503, 1011)):
        equal(t.ws(program, "/refuse/%d" % status).closed(), ([], code, "go away"))
    sse = {"Accept": "text/event-stream"}
    found = program.request("GET", "/refuse/403", headers=sse)
    equal((found.status, found.body), (403, b"go away"))
    found = program.request("GET", "/refuse/500", headers=sse)
    equal(found.status, 200)
    assert b"retry: " in found.body and b"event: closing\n" in found.body, found


def test_stream_while_the_application_is_away(t):
    with open(os.path.join(t.directory, "no-start"), "w"):
        pass
    program = Program(t, exits_expected=True)
    messages, code, reason = t.ws(program, "/follow/1").closed()
    equal((messages, code), ([], 1012))
    assert "nothing was done" in reason, reason


def test_a_stream_handler_crashes(t):
    program = Program(t, workers=1, exits_expected=True)
    opened = in_thread(t, lambda: t.ws(program, "/hold/1").closed())
    eventually(lambda: program.waiters() == 1, 10, "the handler works")
    os.kill(program.application_pid(), signal.SIGKILL)
    messages, code, reason = opened()
    equal((messages, code), ([], 1012))
    eventually(lambda: program.get("/later").status == 200, 10, "it answers")
    program.wait_for_metric("fanwire_channels", lambda n: n == 0)


def test_stream_gap(t):
    """The log has run over the place while the stream opened: the usual gap."""
    program = Program(t, "--retain", "1M", workers=1)
    socket = t.ws(program, "/follow/1?n=15&size=1048576", receive_buffer=8192)
    program.wait_for_metric("fanwire_unsent_bytes", lambda n: n > 0)
    for _ in range(130):  # more than the worker's arena and the log hold
        program.publish_ok("c:1", b"x" * 50000)
    equal([socket.message()[:1] for _ in range(15)], [chr(97 + i) for i in range(15)])
    equal(socket.closed()[1], 4102)


def test_dropped_streams_leave_nothing(t):
    program = Program(t, workers=1)
    for i in range(30):
        t.ws(program, "/follow/%d?n=1&size=1" % i).drop()
    raw = web.Raw(program.address)
    raw.send(b"GET /hold/5 HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
             b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
    eventually(lambda: program.waiters() == 1, 10, "the handler works")
    raw.socket.close()
    program.wait_for_metric("fanwire_channels", lambda n: n == 0)
    program.wait_for_metric("fanwire_calls_waiting", lambda n: n == 0)
    program.release()
    eventually(lambda: program.waiters() == 0, 10, "the handler is done")
