"""`fanwire serve` under test: on free ports, with private options, its log lines kept."""
import os
import re
import signal
import subprocess
import threading
import time

import web
from case import eventually

WORD = re.compile(r'([a-z_]+)=("(?:[^"\\]|\\.)*"|\S*)')


def parse_line(line):
    """key=value words of a log line; {} of other lines."""
    words = {}
    for key, value in WORD.findall(line):
        if value.startswith('"'):
            value = re.sub(r"\\(.)", r"\1", value[1:-1])
        words[key] = value
    return words if "level" in words else {}


def title_of(pid):
    """The process's title as ps shows it; "" when it is gone."""
    try:
        with open("/proc/%d/cmdline" % pid, "rb") as f:
            return f.read().replace(b"\0", b" ").strip().decode(errors="replace")
    except OSError:
        return ""


def alive(pid):
    """False for zombies."""
    try:
        with open("/proc/%d/stat" % pid) as f:
            return f.read().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def address_of(url):
    """("127.0.0.1", 4600) of http://127.0.0.1:4600/"""
    host, _, port = url[len("http://"):].rstrip("/").rpartition(":")
    return host.strip("[]"), int(port)


class Server:
    """Everything is public unless said otherwise. exits_expected: processes may die in this test;
    up: it is waited until the source is there, with start: until the processes are. program: another
    one that embeds the server, and its own arguments."""

    def __init__(self, test, source, *arguments, workers=2, public=("**",), public_write=("**",),
                 drain="0s", http="127.0.0.1:0", admin="127.0.0.1:0", stdin=None, env=None,
                 max_files=None, exits_expected=False, start=True, up=True, ignored_signals=(),
                 program=None):
        self.lines = []
        self._test = test
        self._changed = threading.Condition()
        self._exits_expected = exits_expected
        command = list(program or [test.binary, "serve"])
        command += ["--workers", str(workers), "--drain", drain]
        command += ["--http", http] if http else []
        command += ["--admin", admin] if admin else []
        command += [word for p in public for word in ("--public", p)]
        command += [word for p in public_write for word in ("--public-write", p)]
        command += list(arguments) + ([source] if source is not None else [])
        # It must not outlive a test that is killed.
        wrapper = ["setpriv", "--pdeathsig", "KILL", "--"]
        if max_files:
            wrapper = ["prlimit", "--nofile=%d:%d" % (max_files, max_files)] + wrapper
        def ignore():
            for number in ignored_signals:
                signal.signal(number, signal.SIG_IGN)

        self.process = subprocess.Popen(
            wrapper + command, stdin=stdin or subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE, env=dict(os.environ, **(env or {})),
            preexec_fn=ignore if ignored_signals else None)
        self._thread = threading.Thread(target=self._read_log, daemon=True)
        self._thread.start()
        self.address = self.admin = None
        if start:
            self._wait_for_start(workers)
            if up and self.admin:
                self.wait_until_ready()

    # the log

    def _read_log(self):
        for line in self.process.stderr:
            with self._changed:
                self.lines.append(line.decode(errors="replace").rstrip("\n"))
                self._changed.notify_all()
        with self._changed:
            self.lines.append(None)
            self._changed.notify_all()

    @property
    def log(self):
        return "\n".join(line for line in self.lines if line is not None)

    def events(self, **wanted):
        """Log lines that have these words, each as a dict."""
        found = [parse_line(line) for line in self.lines if line is not None]
        return [e for e in found if e and all(e.get(k) == v for k, v in wanted.items())]

    def wait_for_log(self, timeout=10, **wanted):
        """The first log line with these words."""
        deadline = time.monotonic() + timeout
        with self._changed:
            while True:
                found = self.events(**wanted)
                if found:
                    return found[0]
                ended = None in self.lines
                left = deadline - time.monotonic()
                if ended or left <= 0:
                    raise AssertionError("no log line with %r; the log:\n%s" % (wanted, self.log))
                self._changed.wait(left)

    # starting

    def _wait_for_start(self, workers):
        started = self.wait_for_log(event="started", server="fanwire")
        self.started = started
        first = started["http"].split(",")[0]
        if first.startswith("http://"):
            self.address = address_of(first)
        if started["admin"] != "off":
            self.admin = address_of(started["admin"])
        eventually(lambda: len(self.workers()) == workers and self.source_pid(), 10,
                   "all processes run")

    @property
    def url(self):
        return "http://%s:%d" % self.address

    @property
    def pid(self):
        return self.process.pid

    def children(self):
        try:
            with open("/proc/%d/task/%d/children" % (self.pid, self.pid)) as f:
                return [int(pid) for pid in f.read().split()]
        except OSError:
            return []

    def titles(self):
        """{pid: title} of the supervisor's children."""
        return {pid: title_of(pid) for pid in self.children()}

    def workers(self):
        """{number: pid}"""
        prefix = "fanwire: worker "
        return {int(title[len(prefix):]): pid for pid, title in self.titles().items()
                if title.startswith(prefix) and alive(pid)}

    def source_pid(self):
        """None while there is none with its title set."""
        for pid, title in self.titles().items():
            if title.startswith("fanwire: source ") and alive(pid):
                return pid
        return None

    def worker_of(self, sockets):
        """Which worker's process holds the other end of each of these sockets."""
        inodes = {}
        with open("/proc/net/tcp") as f:
            for row in list(f)[1:]:
                fields = row.split()
                inodes[fields[1], fields[2]] = fields[9]
        holders = {}
        for pid in self.workers().values():
            for fd in os.listdir("/proc/%d/fd" % pid):
                try:
                    link = os.readlink("/proc/%d/fd/%s" % (pid, fd))
                except OSError:
                    continue
                if link.startswith("socket:["):
                    holders.setdefault(link[8:-1], pid)

        def text(address):
            host = "".join("%02X" % int(part) for part in reversed(address[0].split(".")))
            return "%s:%04X" % (host, address[1])
        return [holders.get(inodes.get((text(s.getpeername()), text(s.getsockname()))))
                for s in sockets]

    # talking to it

    def request(self, method, path, body=None, headers=None, **options):
        return web.request(self.address, method, path, body, headers, **options)

    def get(self, path, **options):
        return self.request("GET", path, **options)

    def publish(self, channel, payload, **options):
        if isinstance(payload, str):
            payload = payload.encode()
        return self.request("POST", "/publish/" + channel, payload, **options)

    def publish_ok(self, channel, payload):
        """Publishes and returns the id."""
        response = self.publish(channel, payload)
        assert response.status == 200, response
        return response.json["id"]

    def metrics(self):
        """{"name{labels}": value}"""
        response = web.request(self.admin, "GET", "/metrics")
        assert response.status == 200, response
        found = {}
        for line in response.body.decode().splitlines():
            if line and not line.startswith("#"):
                name, _, value = line.rpartition(" ")
                found[name] = float(value)
        return found

    def metric(self, name):
        return self.metrics().get(name, 0.0)

    def wait_for_metric(self, name, condition, timeout=10):
        """Waits until condition(value) is true and returns the value."""
        found = []

        def look():
            found.append(self.metric(name))
            return condition(found[-1])
        try:
            eventually(look, timeout, name, every=0.03)
        except AssertionError as error:
            raise AssertionError("%s; it is %r" % (error, found[-1])) from None
        return found[-1]

    def ready(self, strict=False):
        return web.request(self.admin, "GET", "/readyz" + ("?source=up" if strict else ""))

    def wait_until_ready(self, timeout=10):
        """Until the source is up as every worker sees it; which of them answers is chance."""
        eventually(lambda: all(self.ready(strict=True).status == 200 for _ in range(8)), timeout,
                   "the source is up")

    # ending

    def signal(self, number):
        self.process.send_signal(number)

    def wait(self, timeout=15):
        """Waits for its end and returns the exit code."""
        code = self.process.wait(timeout)
        self._thread.join(5)
        return code

    def stop(self, timeout=15):
        """Tells it to end; returns the exit code. Nothing of it may be left."""
        children = self.children()
        if self.process.poll() is None:
            self.signal(signal.SIGTERM)
        try:
            code = self.wait(timeout)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise AssertionError("it did not end within %d s; its log:\n%s"
                                 % (timeout, self.log)) from None
        eventually(lambda: not any(alive(pid) for pid in children), 5, "all children have left")
        return code

    def finish(self):
        """After a test: ends it if it still runs and looks whether anything went wrong unseen."""
        try:
            if self.process.poll() is None:
                code = self.stop()
                assert code == 0, "exit code %d" % code
            self._thread.join(5)
            assert "Sanitizer" not in self.log and "runtime error" not in self.log
            if not self._exits_expected:
                assert not self.events(event="exited", level="warning"), "a process ended"
                assert not self.events(event="hung"), "a process hung"
        except BaseException:
            self._test.failed = True
            raise
        finally:
            if self._test.failed:
                print("the log of a server:\n%s" % self.log)
            if self.process.poll() is None:
                self.process.kill()
            self.process.stderr.close()
