"""The command: what it prints, and its exit codes."""
import json
import os
import select
import signal
import socket
import subprocess
import time

from case import case, equal, eventually


def run(t, *arguments, input=b"", env=None, timeout=20):
    """(exit code, standard output, standard error)"""
    done = subprocess.run([t.binary, *arguments], input=input, capture_output=True,
                          timeout=timeout, env=dict(os.environ, **(env or {})))
    return done.returncode, done.stdout, done.stderr.decode()


class Tail:
    """`fanwire tail` at work."""

    def __init__(self, t, *arguments, **options):
        self._text = b""
        self.process = subprocess.Popen([t.binary, "tail", *arguments], stdout=subprocess.PIPE,
                                        stderr=subprocess.PIPE, **options)
        t.cleanup(self._end)

    def _end(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.process.stdout.close()
        self.process.stderr.close()

    def line(self, timeout=10):
        deadline = time.monotonic() + timeout
        output = self.process.stdout.fileno()
        while b"\n" not in self._text:
            ready, _, _ = select.select([output], [], [], max(0, deadline - time.monotonic()))
            assert ready, "no line within %g s" % timeout
            data = os.read(output, 65536)
            assert data, "it ended; %r" % self.process.stderr.read()
            self._text += data
        line, _, self._text = self._text.partition(b"\n")
        return line.decode()

    def wait(self, timeout=10):
        return self.process.wait(timeout)


def test_help_and_version(t):
    code, out, _ = run(t, "version")
    equal(code, 0)
    assert b"0." in out
    equal(run(t, "--version")[1], out)
    for arguments in (("help",), ("--help",), ("-h",), ()):
        code, out, _ = run(t, *arguments)
        equal(code, 0)
        for name in (b"serve", b"tail", b"pub", b"sql", b"health", b"version"):
            assert name in out, out
    for name in ("serve", "tail", "pub", "sql", "health"):
        code, out, err = run(t, name, "--help")
        equal((code, err), (0, ""), name)
        assert len(out) > 50
        equal(run(t, "help", name)[1], out)
    code, out, _ = run(t, "serve", "--help")
    for flag in (b"--http", b"--admin", b"--workers", b"--retain", b"--linger", b"--public",
                 b"--public-write", b"--origin", b"--max-connections", b"--send-buffer",
                 b"--head-timeout", b"--drain", b"--dev", b"--echo", b"--base-path"):
        assert flag in out, flag


def test_usage_errors(t):
    """2, and one line that says what to do."""
    for arguments, says in [
        (("nonsense",), "nonsense"),
        (("serve",), "SOURCE"),
        (("serve", "--nonsense", "memory:"), "--nonsense"),
        (("serve", "memory:", "stdin:"), "one SOURCE"),
        (("serve", "nonsense://x"), "nonsense"),
        (("serve", "/tmp/x"), "scheme"),
        (("serve", "postgres://u:p%zz@h/d"), "%"),
        (("serve", "postgres://localhost:notaport/x"), "port"),
        (("serve", "postgres://localhost/x?nonsense=1"), "nonsense"),
        (("serve", "--mode", "notify", "memory:"), "--mode"),
        (("serve", "--mode", "nonsense", "postgres://localhost/x"), "mode"),
        (("serve", "--http", "nonsense", "memory:"), "nonsense"),
        (("serve", "--http", "127.0.0.1:70000", "memory:"), "70000"),
        (("serve", "--workers", "x", "memory:"), "--workers"),
        (("serve", "--workers", "100000", "memory:"), "--workers"),
        (("serve", "--retain", "5", "memory:"), "--retain"),
        (("serve", "--retain", "64X", "memory:"), "--retain"),
        (("serve", "--linger", "60", "memory:"), "--linger"),
        (("serve", "--heartbeat", "1s", "memory:"), "--heartbeat"),
        (("serve", "--public", "a\x01", "memory:"), "--public"),
        (("serve", "--public", "user:{sub}", "memory:"), "{sub}"),
        (("serve", "--origin", "app.example.com", "memory:"), "--origin"),
        (("serve", "--origin", "https://App.example.com/", "memory:"), "--origin"),
        (("serve", "--base-path", "live", "memory:"), "--base-path"),
        (("serve", "--log-level", "loud", "memory:"), "--log-level"),
        (("serve", "--jwt-key", "x", "memory:"), "--jwt-key"),
        (("serve", "--tls-cert", "x", "memory:"), "--tls-cert"),
        (("tail",), "CHANNEL"),
        (("tail", "--since", "no position", "x"), "--since"),
        (("tail", "--since", "now", "--last", "3", "x"), "--last"),
        (("tail", "x" * 256), "255"),
        (("pub",), "CHANNEL"),
        (("pub", "x", "y", "z"), "PAYLOAD"),
        (("pub", "a\nb", "y"), "control"),
        (("sql", "oracle"), "oracle"),
        (("health", "nonsense"), "http"),
    ]:
        code, out, err = run(t, *arguments)
        equal(code, 2, repr(arguments) + err)
        assert says.lower() in err.lower(), "%r: %r" % (arguments, err)
        equal(out, b"")
        assert err.startswith("fanwire"), err


def test_environment(t):
    """FANWIRE_X is --x; a flag wins; lists are separated by spaces."""
    env = {"FANWIRE_SOURCE": "memory:", "FANWIRE_PUBLIC": "a b:*", "FANWIRE_HTTP": "nonsense",
           "FANWIRE_LOG_LEVEL": "info"}
    server = t.server(None, public=(), env=env, workers=1)
    for channel, status in (("a", 200), ("b:c", 200), ("c", 403)):
        equal(server.get("/history/" + channel).status, status)
    wrong = t.server(None, http=None, env=env, start=False)
    equal(wrong.wait(), 2)
    assert "nonsense" in wrong.log, wrong.log


def test_a_port_in_use(t):
    """4, and which; whatever holds it, a second server too."""
    server = t.server(workers=2)
    for options in ({"http": "127.0.0.1:%d" % server.address[1]},
                    {"admin": "127.0.0.1:%d" % server.admin[1]}):
        second = t.server("memory:", start=False, **options)
        equal(second.wait(), 4)
        assert next(iter(options.values())) in second.log, second.log
        assert "in use" in second.log
        assert "admin" not in options or "--admin off" in second.log
    with socket.create_server(("127.0.0.1", 0)) as other:
        third = t.server("memory:", start=False, http="127.0.0.1:%d" % other.getsockname()[1])
        equal(third.wait(), 4)
    far = t.server("memory:", start=False, http="192.0.2.1:4600")
    equal(far.wait(), 4)
    path = t.directory + "/file"
    with open(path, "w"):
        pass
    file = t.server("memory:", start=False, http="unix:" + path)
    equal(file.wait(), 4)
    assert os.path.exists(path), "a file that is not ours"
    equal(server.publish("x", "x").status, 200)


def test_several_addresses(t):
    path = t.directory + "/sock"
    server = t.server("memory:", "--http", "127.0.0.1:0", "--http", "unix:" + path,
                      "--http", "localhost:0", workers=2)
    addresses = server.started["http"].split(",")
    assert len(addresses) >= 4, addresses
    for address in addresses:
        where = address if address.startswith("unix:") else address.rstrip("/")
        equal(run(t, "health", where)[0], 0, address)


def test_health(t):
    server = t.server(workers=1)
    equal(run(t, "health", server.url), (0, b"", ""))
    equal(run(t, "health", "-s", server.url)[0], 0)
    equal(run(t, "health", env={"FANWIRE_SERVER": server.url})[0], 0)
    server.stop()
    code, _, err = run(t, "health", server.url)
    equal(code, 1)
    assert err.startswith("fanwire health: ")


def test_pub_with_a_key(t):
    """The same command again publishes nothing twice; each line has a key of its own."""
    source = "sqlite:" + os.path.join(t.directory, "app.db")
    server = t.server(source)
    for where in (server.url, server.url, source):
        equal(run(t, "pub", "-s", where, "--key", 'say "k" \\', "x", "once"), (0, b"", ""))
    for _ in range(2):
        equal(run(t, "pub", "-s", server.url, "--key", "file", "--lines", "x", input=b"a\na\nb\n"),
              (0, b"", ""))
    events = server.get("/history/x?since=oldest").json["events"]
    equal([e["text"] for e in events], ["once", "a", "a", "b"])
    for key in ("", "a\nb", "x" * 256):
        code, _, err = run(t, "pub", "-s", server.url, "--key", key, "x", "never")
        equal(code, 2, err)


def test_pub_and_tail(t):
    server = t.server(workers=2, public=("open", "more", "b"), public_write=("open", "more", "b"))
    tail = Tail(t, "-s", server.url, "open")
    both = Tail(t, "-s", server.url, "--json", "open", "more")
    eventually(lambda: server.metric("fanwire_subscriptions") == 3)
    equal([json.loads(both.line())["type"] for _ in range(2)], ["ready", "ready"])
    equal(run(t, "pub", "-s", server.url, "open", "hello"), (0, b"", ""))
    equal(tail.line(), "hello")
    envelope = json.loads(both.line())
    equal((envelope["type"], envelope["channel"], envelope["text"]), ("message", "open", "hello"))
    code, out, _ = run(t, "pub", "-v", "-s", server.url, "more", '{"a":1}')
    equal(code, 0)
    equal(json.loads(both.line())["id"], out.decode().strip())
    env = {"FANWIRE_SERVER": server.url}
    equal(run(t, "pub", "open", "-", input=b"from\nstdin", env=env)[0], 0)
    equal([tail.line(), tail.line()], ["from", "stdin"])
    equal(run(t, "pub", "-s", server.url + "/", "open", input=b"no argument")[0], 0)
    equal(tail.line(), "no argument")
    equal(run(t, "pub", "--lines", "-s", server.url, "open", input=b"1\n2\n\n3")[0], 0)
    equal([tail.line() for _ in range(4)], ["1", "2", "", "3"])
    equal(run(t, "pub", "-s", server.url, "open", "")[0], 0)
    equal(tail.line(), "")
    for arguments, code in ((("closed", "x"), 3), (("$fanwire/x", "x"), 3)):
        found, _, err = run(t, "pub", "-s", server.url, *arguments)
        equal(found, code, err)
    code, _, err = run(t, "pub", "-s", server.url, "open", "-", input=b"x" * ((1 << 20) + 1))
    equal(code, 2, err)
    code, _, err = run(t, "pub", "-s", "http://127.0.0.1:1", "open", "x")
    equal(code, 3)
    assert "127.0.0.1:1" in err

    def tailed(*arguments):
        code, out, err = run(t, "tail", "-s", server.url, *arguments)
        equal(code, 0, err)
        return out
    for i in range(5):
        server.publish_ok("b", "b %d" % i)
    equal(tailed("--last", "3", "-n", "3", "b"), b"b 2\nb 3\nb 4\n")
    ids = [json.loads(line)["id"] for line in tailed(
        "--json", "--since", "oldest", "-n", "5", "b").splitlines() if b'"message"' in line]
    equal(len(ids), 5)
    equal(tailed("--since", ids[2], "--count", "2", "b"), b"b 3\nb 4\n")
    equal(tailed("--since=oldest", "-n", "2", "b", "more"), b'more\t{"a":1}\nb\tb 0\n')
    code, out, err = run(t, "tail", "-s", server.url, "--exit-on-gap", "--since", "l1.40", "b")
    equal(code, 5)
    assert "gap" in err, err
    code, _, err = run(t, "tail", "-s", server.url, "closed")
    equal(code, 3, err)
    assert "closed" in err
    equal(run(t, "tail", "-s", "http://127.0.0.1:1", "b")[0], 3)


@case(timeout=60)
def test_tail_goes_on(t):
    """Over a worker's death and a server's restart; what may be missing is told."""
    server = t.server(workers=1, exits_expected=True)
    tail = Tail(t, "-s", server.url, "--since", "oldest", "x")
    server.publish_ok("x", "one")
    equal(tail.line(), "one")
    os.kill(server.workers()[1], signal.SIGKILL)
    eventually(lambda: server.workers(), 10)
    server.publish_ok("x", "two")
    equal(tail.line(), "two")
    address = "%s:%d" % server.address
    equal(server.stop(), 0)
    again = t.server("memory:", http=address, workers=1)
    again.publish_ok("x", "three")
    equal(tail.line(), "three")
    tail.process.send_signal(signal.SIGTERM)
    tail.wait()
    assert b"gap" in tail.process.stderr.read()


def test_tail_ends_with_its_reader(t):
    server = t.server(workers=1)
    tail = Tail(t, "-s", server.url, "x")
    eventually(lambda: server.metric("fanwire_subscriptions") == 1)
    tail.process.stdout.close()
    started = time.monotonic()
    eventually(lambda: tail.process.poll() is not None, 5, "it ends by itself")
    assert time.monotonic() - started < 4


def test_stdin(t):
    """The whole of it, and its exit code: 0 at the end of the input."""
    equal(run(t, "tail", "-s", "stdin:x", "x", input=b"one\ntwo\n\nlast")[:2],
          (0, b"one\ntwo\n\nlast\n"))
    code, out, _ = run(t, "tail", "-s", "stdin:", "a", "b", input=b"a\t1\nb\t2\nc\t3\na\t4\n")
    equal((code, sorted(out.split())), (0, [b"1", b"2", b"4", b"a", b"a", b"b"]))
    code, out, _ = run(t, "tail", "--json", "-n", "2", "-s", "stdin:x", "x",
                       input=b'{"n":1}\n\xff\nmore\n')
    messages = [m for m in map(json.loads, out.splitlines()) if m["type"] == "message"]
    equal((code, messages[0]["data"], messages[1]["base64"]), (0, {"n": 1}, "/w=="))
    many = b"".join(b"line %d\n" % i for i in range(20000))
    equal(run(t, "tail", "-s", "stdin:x", "x", input=many)[:2], (0, many))


@case(postgres=True)
def test_straight_to_postgres(t):
    database = t.database()
    tail = Tail(t, "-s", database.url, "-n", "2", "x")
    pid = database.listening()
    eventually(lambda: "LISTEN" in database.psql(
        "select query from pg_stat_activity where pid = %d" % pid) and '"x"' in database.psql(
        "select query from pg_stat_activity where pid = %d" % pid))
    database.notify("x", "by notify")
    equal(tail.line(), "by notify")
    equal(run(t, "pub", "-s", database.url, "x", "by pub"), (0, b"", ""))
    equal(tail.line(), "by pub")
    equal(tail.wait(), 0)
    code, _, err = run(t, "pub", "-s", database.url, "x", "x" * 9000)
    equal(code, 2, err)


@case(timeout=60)
def test_unreachable_postgres(t):
    """3, after a while of patience; it says why."""
    code, _, err = run(t, "pub", "-s", "postgres://127.0.0.1:1/x", "x", "y", timeout=30)
    equal(code, 3)
    assert "127.0.0.1" in err or "refused" in err.lower(), err


def test_sql(t):
    code, out, err = run(t, "sql", "postgres")
    equal((code, err), (0, ""))
    assert b"fanwire_publish" in out
    code, out, _ = run(t, "sql", "postgres", "--uninstall")
    equal(code, 0)
    assert b"DROP" in out.upper()
    code, out, _ = run(t, "sql", "postgres", "--mode", "wal")
    equal(code, 0)
    assert b"pg_logical_emit_message" in out
    for arguments in (("sql",), ("sql", "mysql"), ("sql", "postgres", "--mode", "telepathy")):
        equal(run(t, *arguments)[0], 2, repr(arguments))
