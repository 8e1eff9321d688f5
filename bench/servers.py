"""The servers under test and what loads them, each a process or more."""

import http.client
import os
import re
import subprocess
import threading
import time

from machine import CannotRun, cores, spawn

CHANNEL = "bench"
# Clients ask for the longest heartbeat, so that no ping falls into a measurement.
WS_PATH = f"/ws/{CHANNEL}?heartbeat=60"
START_S = 10


class Bare:
    """The yardstick; one process, on the server's core: bare, or bare_postgres."""

    name = "bare"

    def __init__(self, build, program="bare", *arguments):
        events, self.events = os.pipe()
        self.process = spawn(
            cores()[0],
            [f"{build}/bench/{program}", *arguments],
            stdin=events,
            stdout=subprocess.PIPE,
        )
        os.close(events)
        words = self.process.stdout.readline().split()
        if len(words) != 2:
            raise CannotRun("the bare server does not start")
        self.port = int(words[1])
        self.sender = self.process.pid

    def stop(self):
        os.close(self.events)
        self.process.kill()
        self.process.wait()


class Fanwire:
    """fanwire serve with one worker, on the server's core unless it is told to use all."""

    name = "fanwire"

    def __init__(self, build, source=f"stdin:{CHANNEL}", *options, pinned=True, admin=False):
        events, self.events = os.pipe()
        command = [f"{build}/fanwire", "serve", source, "--workers", "1", "--drain", "0s"]
        command += ["--http", "127.0.0.1:0", "--admin", "127.0.0.1:0" if admin else "off"]
        command += ["--public", "**", *options]
        self.process = spawn(
            cores()[0] if pinned else None,
            command,
            stdin=events,
            stderr=subprocess.PIPE,
            env={name: value for name, value in os.environ.items() if "FANWIRE" not in name},
        )
        os.close(events)
        said = self.read_start()
        self.port = int(re.search(r"http=http://127\.0\.0\.1:(\d+)", said)[1])
        # What it says later is of no interest, but must not block it.
        threading.Thread(target=self.process.stderr.read, daemon=True).start()
        self.sender = self.find_worker()
        self.admin = None
        if admin:
            port = int(re.search(r"admin=http://127\.0\.0\.1:(\d+)", said)[1])
            self.admin = http.client.HTTPConnection("127.0.0.1", port, timeout=START_S)

    def read_start(self):
        said = ""
        for line in self.process.stderr:
            said += line
            if "event=started" in line:
                return line
        raise CannotRun(f"fanwire does not start:\n{said}")

    def pids(self):
        """All processes by what they are: {"supervisor": pid, "source": …, "worker": …}"""
        top = self.process.pid
        children = open(f"/proc/{top}/task/{top}/children").read().split()
        result = {"supervisor": top}
        for child in children:
            title = re.match("fanwire: (source|worker)", open(f"/proc/{child}/cmdline").read())
            if title:
                result[title[1]] = int(child)
        return result

    def find_worker(self):
        give_up = time.monotonic() + START_S
        while time.monotonic() < give_up:
            pids = self.pids()
            if len(pids) == 3:
                return pids["worker"]
            time.sleep(0.01)
        raise CannotRun("fanwire's processes do not appear")

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(START_S)
        except subprocess.TimeoutExpired:
            self.process.kill()  # its children end with it
            self.process.wait()
        os.close(self.events)

    def metric(self, name):
        self.admin.request("GET", "/metrics")
        text = self.admin.getresponse().read().decode()
        found = re.search(rf"^{name}(?:{{.*}})? (\S+)$", text, re.M)
        if not found:
            raise CannotRun(f"fanwire has no metric {name}")
        return float(found[1])

    def wait_for(self, name, value, patience_s):
        """Polls a metric until it is at least this; returns how many seconds that took."""
        begin = time.monotonic()
        while (last := self.metric(name)) < value:
            if time.monotonic() - begin > patience_s:
                raise CannotRun(f"fanwire's metric {name} is {last:g}, expected {value:g}")
            time.sleep(0.005)
        return time.monotonic() - begin


class Load:
    """A load program, connected to a server; it answers each command with a line."""

    def __init__(self, build, program, server, count, *arguments, pass_fds=()):
        self.process = spawn(
            cores()[1],
            [f"{build}/bench/{program}", str(server.port), WS_PATH, str(count), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=pass_fds,
        )
        self.answer()

    def answer(self):
        line = self.process.stdout.readline()
        if not line:
            raise CannotRun("the load program failed")
        return line

    def ask(self, command):
        """The numbers of the answer."""
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()
        return [int(word) for word in self.answer().split()]

    def stop(self):
        self.process.kill()
        self.process.wait()


class Clients(Load):
    """Events by the server's standard input, CPU of the sender."""

    def __init__(self, build, server, count):
        events = server.events
        super().__init__(
            build, "clients", server, count, str(server.sender), str(events), pass_fds=(events,)
        )

    def measure(self, repeat, burst):
        """(deliveries, ns of CPU of the sender, ns on the clock)"""
        return self.ask(f"run {repeat} {burst}")
