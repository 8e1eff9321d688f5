"""The command line: tail, pub, health, and what serve says when it is called wrongly."""
import json
import os
import queue
import signal
import subprocess
import threading

from case import equal, eventually


def run(t, *arguments, stdin=b"", env=None, timeout=30):
    """Exit code, standard output and standard error of a command that ends by itself."""
    done = subprocess.run([t.binary, *arguments], input=stdin, capture_output=True,
                          timeout=timeout, env=dict(os.environ, **(env or {})))
    return done.returncode, done.stdout.decode(), done.stderr.decode()


class Tail:
    """A `fanwire tail` that goes on; its lines as they come."""

    def __init__(self, t, *arguments):
        self.process = subprocess.Popen([t.binary, "tail", *arguments], stdin=subprocess.DEVNULL,
                                        stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self._out, self.errors = queue.Queue(), []
        self._threads = [threading.Thread(target=self._read_out, daemon=True),
                         threading.Thread(target=self._read_errors, daemon=True)]
        for thread in self._threads:
            thread.start()
        t.cleanup(self.end)

    def _read_out(self):
        for line in self.process.stdout:
            self._out.put(line.decode().rstrip("\n"))

    def _read_errors(self):
        for line in self.process.stderr:
            self.errors.append(line.decode().rstrip("\n"))

    def next(self, timeout=15):
        return self._out.get(timeout=timeout)

    def told(self, text, timeout=15):
        eventually(lambda: any(text in line for line in self.errors), timeout, text)

    def end(self):
        self.process.kill()
        self.process.wait()
        for thread in self._threads:
            thread.join(5)
        self.process.stdout.close()
        self.process.stderr.close()


def subscribed(server, n):
    """The tails are there: what is published from now on reaches them."""
    server.wait_for_metric("fanwire_subscriptions", lambda found: found >= n)


def test_tail_prints_payloads(t):
    server = t.server()
    tail = Tail(t, "-s", server.url, "todos")
    subscribed(server, 1)
    for payload in ('{"n":12345678901234567890123.10}', "text ü", "", '"quoted\\n"'):
        server.publish_ok("todos", payload)
        equal(tail.next(), payload)
    equal(tail.errors, [])


def test_tail_of_several_channels_names_them(t):
    server = t.server()
    server.publish_ok("a", "1")
    server.publish_ok("b", "2")
    server.publish_ok("a%2Fb%20%C3%BC%3F%26x", "3")
    equal(run(t, "tail", "-s", server.url, "--since", "oldest", "-n", "3", "a", "b", "a/b ü?&x"),
          (0, "a\t1\nb\t2\na/b ü?&x\t3\n", ""))
    equal(run(t, "tail", "-s", server.url, "--last", "1", "-n", "1", "a"), (0, "1\n", ""))


def test_tail_json(t):
    server = t.server()
    first = server.publish_ok("a", '{"x":1}')
    code, out, err = run(t, "tail", "-s", server.url, "--json", "--since", "oldest", "-n", "1", "a")
    envelope = json.loads(out.splitlines()[0])
    equal((code, err, envelope["type"], envelope["channel"], envelope["id"], envelope["data"]),
          (0, "", "message", "a", first, {"x": 1}))


def test_tail_and_gaps(t):
    server = t.server()
    code, out, err = run(t, "tail", "-s", server.url, "--exit-on-gap", "--since", "l1.1", "a")
    equal((code, out), (5, ""))
    assert "gap" in err and "new-epoch" in err, err
    code, out, err = run(t, "tail", "-s", server.url, "--json", "--exit-on-gap", "--since", "l1.1",
                         "a")
    equal((code, json.loads(out)["reason"]), (5, "new-epoch"))


def test_tail_survives_workers_source_and_server(t):
    server = t.server(exits_expected=True)
    tail = Tail(t, "-s", server.url, "a")
    subscribed(server, 1)
    server.publish_ok("a", "1")
    equal(tail.next(), "1")
    for pid in server.workers().values():
        os.kill(pid, signal.SIGKILL)
    eventually(lambda: len(server.workers()) == 2, 10, "both workers are back")
    server.publish_ok("a", "2")
    equal(tail.next(), "2")
    equal(tail.errors, [])

    port = server.address[1]
    server.stop()
    server = t.server(http="127.0.0.1:%d" % port)
    tail.told("gap")  # another log
    subscribed(server, 1)
    server.publish_ok("a", "3")
    equal(tail.next(), "3")


def test_tail_ends_with_its_reader(t):
    server = t.server()
    server.publish_ok("a", "1")
    tail = Tail(t, "-s", server.url, "--since", "oldest", "a")
    equal(tail.next(), "1")
    reader, writer = os.pipe()
    silent = subprocess.Popen([t.binary, "tail", "-s", server.url, "a"], stdout=writer)
    t.cleanup(silent.kill)
    os.close(writer)
    server.wait_for_metric("fanwire_subscriptions", lambda found: found == 2)
    os.close(reader)
    silent.wait(10)  # though nothing is ever published
    code, _, err = run_to_full_device(t, "tail", "-s", server.url, "--since", "oldest", "a")
    equal(code, 1)
    assert "No space left" in err, err


def run_to_full_device(t, *arguments):
    with open("/dev/full", "wb") as full:
        done = subprocess.run([t.binary, *arguments], stdin=subprocess.DEVNULL, stdout=full,
                              stderr=subprocess.PIPE, timeout=30)
    return done.returncode, "", done.stderr.decode()


def test_pub(t):
    server = t.server()
    where = ("-s", server.url)
    equal(run(t, "pub", *where, "a", "hello"), (0, "", ""))
    equal(run(t, "pub", *where, "a", "-", stdin=b"two\nlines\n"), (0, "", ""))
    equal(run(t, "pub", *where, "a", stdin=b"\x00\xff"), (0, "", ""))
    equal(run(t, "pub", *where, "--lines", "a", stdin=b"l1\nl2"), (0, "", ""))
    code, out, _ = run(t, "pub", "-v", "a", "", env={"FANWIRE_SERVER": server.url})
    history = server.get("/history/a?since=oldest").json["events"]
    equal([e.get("text", e.get("base64")) for e in history],
          ["hello", "two\nlines\n", "AP8=", "l1", "l2", ""])
    equal((code, out), (0, history[-1]["id"] + "\n"))


def test_refusals_have_a_code_and_a_reason(t):
    server = t.server(public=("open",), public_write=("open",))
    where = ("-s", server.url)
    for arguments, code, text in (
            (("tail", *where, "shut"), 3, 'channel "shut" is not public'),
            (("pub", *where, "shut", "x"), 3, 'channel "shut" is not public'),
            (("tail", *where, "a\nb"), 2, "channel"),
            (("pub", *where, "", "x"), 2, "channel"),
            (("tail", *where), 2, "CHANNEL is missing"),
            (("tail", *where, "--since", "a b", "open"), 2, "--since"),
            (("tail", *where, "--last", "1001", "open"), 2, "--last"),
            (("tail", *where, "--last", "1", "--since", "now", "open"), 2, "exclude"),
            (("tail", *where, "--nonsense", "open"), 2, "--nonsense"),
            (("pub", *where, "open", "a", "b"), 2, "one PAYLOAD"),
            (("tail", "-s", "localhost:4600", "open"), 2, "http://HOST:PORT"),
            (("pub", "-s", "ftp://x", "open", "x"), 2, "http://HOST:PORT"),
            (("frob",), 2, "no command")):
        found, out, err = run(t, *arguments)
        equal((found, out), (code, ""), repr(arguments))
        assert text in err and err.count("\n") == 1, (arguments, err)
    code, out, err = run(t, "pub", *where, "open", "-", stdin=b"x" * (2 << 20))
    equal((code, out), (2, ""))
    assert "1 MiB" in err, err


def test_nobody_there(t):
    for arguments, code in ((("tail", "-s", "http://127.0.0.1:1", "a"), 3),
                            (("pub", "-s", "http://127.0.0.1:1", "a", "x"), 3),
                            (("health", "http://127.0.0.1:1"), 1)):
        found, out, err = run(t, *arguments)
        equal((found, out), (code, ""), repr(arguments))
        assert 'is "fanwire serve" running there?' in err, err


def test_health(t):
    path = t.directory + "/http.sock"
    server = t.server()
    by_socket = t.server(http="unix:" + path)
    equal(run(t, "health", server.url), (0, "", ""))
    equal(run(t, "health", env={"FANWIRE_SERVER": server.url}), (0, "", ""))
    equal(run(t, "health", "unix:" + path), (0, "", ""))
    equal(by_socket.stop(), 0)
    equal(run(t, "health", "unix:" + path)[0], 1)


def test_by_the_library(t):
    equal(run(t, "tail", "-s", "stdin:a", "a", stdin=b"one\ntwo\n"), (0, "one\ntwo\n", ""))
    equal(run(t, "tail", "-s", "stdin:", "a", "b", stdin=b"a\t1\nc\t2\nb\t3\n"),
          (0, "a\t1\nb\t3\n", ""))
    equal(run(t, "pub", "-s", "memory:", "a", "x"), (0, "", ""))


def test_text_from_outside_does_not_drive_a_terminal(t):
    server = t.server()
    server.publish_ok("a", b"\x1b[2Jred\x07\xc2\x9b1m\ttab")
    equal(run(t, "tail", "-s", server.url, "--since", "oldest", "-n", "1", "a")[1],
          "\x1b[2Jred\x07\x9b1m\ttab\n")  # a file gets it as it is
    master, slave = os.openpty()
    subprocess.run([t.binary, "tail", "-s", server.url, "--since", "oldest", "-n", "1", "a"],
                   stdin=subprocess.DEVNULL, stdout=slave, timeout=30, check=True)
    os.close(slave)
    shown = os.read(master, 1000)
    os.close(master)
    equal(shown.replace(b"\r\n", b"\n"), b"\\x1B[2Jred\\x07\\x9B1m\ttab\n")


def test_serve_called_wrongly(t):
    server = t.server()
    taken = "127.0.0.1:%d" % server.address[1]
    for arguments, code, text in (
            (("serve",), 2, "memory:"),
            (("serve", "mysql://x"), 2, "mysql"),
            (("serve", "--dev", "--http", ":0"), 2, "this machine only"),
            (("serve", "--jwt-key", "x", "memory:"), 2, "not in this version"),
            (("serve", "--retain", "1K", "memory:"), 2, "--retain"),
            (("serve", "--http", taken, "--admin", "off", "memory:"), 4, "another program"),
            (("serve", "--http", "127.0.0.1:0", "--admin", taken, "memory:"), 4, "--admin off"),
            (("serve", "--http", "unix:" + t.directory, "--admin", "off", "memory:"), 4, "unix:"),
            (("serve", "--http", "192.0.2.1:0", "--admin", "off", "memory:"), 4, "192.0.2.1")):
        found, out, err = run(t, *arguments)
        equal((found, out), (code, ""), repr(arguments))
        assert text in err, (arguments, err)
    equal(server.get("/healthz").status, 200)


def test_help(t):
    for command in ("serve", "tail", "pub", "sql", "health"):
        code, out, err = run(t, command, "--help")
        equal((code, err), (0, ""), command)
        assert "fanwire " + command in out, out
    code, out, _ = run(t)
    assert code == 0 and "fanwire serve --dev" in out, out
    equal(run(t, "version")[1].split()[0], "fanwire")
