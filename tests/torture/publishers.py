#!/usr/bin/python3
"""A publisher: a process that commits, rolls back, and is killed at any moment. Before each
transaction it writes down what will be in it, afterwards what became of it; what has no outcome in
its journal is unknown. Its choices follow from the seed; run as a program, it is one life of it."""
import http.client
import json
import os
import random
import select
import signal
import sqlite3
import subprocess
import sys
import time
import urllib.parse

import libpq
from judge import COMMITTED, ROLLED_BACK, UNKNOWN, Event

LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"
OUTCOMES = {"C": COMMITTED, "R": ROLLED_BACK, "U": UNKNOWN}


def filler(id, size):
    """Payload text that is another one for each id."""
    start = sum(id.encode()) % len(LETTERS)
    return (LETTERS[start:] + LETTERS * (size // len(LETTERS) + 1))[:size]


def payload(id, channel, size):
    return '{"e":"%s","c":"%s","f":"%s"}' % (id, channel, filler(id, size))


# ---- what a transaction is made of ----

class Sqlite:
    """Each step may raise Refused (no effect) or Unclear (who knows)."""

    def __init__(self, spec, chance):
        self._database = sqlite3.connect(spec["where"], timeout=20, isolation_level=None)

    def begin(self):
        self._do("begin immediate")

    def publish(self, events):
        self._do("insert into fanwire_outbox (channel, payload) values (?, ?)",
                 [(channel, payload(id, channel, size)) for id, channel, size in events])

    def commit(self):
        self._do("commit")

    def rollback(self):
        self._do("rollback")

    def _do(self, sql, rows=None):
        try:
            if rows is None:
                self._database.execute(sql)
            else:
                self._database.executemany(sql, rows)
        except sqlite3.OperationalError as error:
            while self._database.in_transaction:
                try:
                    self._database.rollback()
                except sqlite3.OperationalError:
                    time.sleep(0.05)
            raise Refused(str(error)) from None


class Postgres:
    AT_ONCE = 500  # events in one statement

    def __init__(self, spec, chance):
        self._spec, self._connection = spec, None

    def _do(self, sql):
        try:
            self._connection.execute(sql)
        except libpq.Error as error:
            self._connection.execute("rollback")
            raise Refused(str(error)) from None
        except libpq.Lost as error:
            self._connection.close()
            self._connection = None
            # Before COMMIT was sent, the server rolls back.
            raise (Unclear if sql == "commit" else Refused)(str(error)) from None

    def begin(self):
        if not self._connection:
            try:
                self._connection = libpq.Connection(self._spec["where"])
            except libpq.Lost as error:
                time.sleep(0.1)
                raise Refused(str(error)) from None
        self._do("begin")

    def publish(self, events):
        for at in range(0, len(events), self.AT_ONCE):
            self._do("select " + ", ".join(self._call(*event)
                                           for event in events[at:at + self.AT_ONCE]))

    def _call(self, id, channel, size):
        function = "pg_notify" if channel in self._spec["plain"] else "fanwire_publish"
        return "%s(%s, %s)" % (function, libpq.literal(channel),
                               libpq.literal(payload(id, channel, size)))

    def commit(self):
        self._do("commit")

    def rollback(self):
        self._do("rollback")


class Refused(Exception):
    """Nothing was stored."""


class Unclear(Exception):
    """It may have been stored, or will be."""


class Http:
    """POST /publish, one event at a time, to any of the servers."""

    def __init__(self, spec, chance):
        self._addresses, self._chance = spec["addresses"], chance
        self._connection = None

    def post(self, id, channel, size):
        if not self._connection:
            self._connection = http.client.HTTPConnection(*self._chance.choice(self._addresses),
                                                          timeout=8)
        try:
            self._connection.request("POST", "/publish/" + urllib.parse.quote(channel, safe=""),
                                     payload(id, channel, size))
            answer = self._connection.getresponse()
            body = answer.read()
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            self._connection = None
            raise Unclear(repr(error)) from None
        if answer.status == 200:
            return
        self._connection.close()
        self._connection = None
        text = json.loads(body).get("detail", "") if body[:1] == b"{" else repr(body)
        raise (Refused if "not stored" in text or "nothing was stored" in text else Unclear)(text)


# ---- a life ----

class Publisher:
    def __init__(self, spec):
        self.spec = spec
        self.chance = random.Random(spec["seed"])
        self.journal = os.open(spec["journal"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        self.n_events = self.n_transactions = 0
        self.via = {"sqlite": Sqlite, "postgres": Postgres, "http": Http}[spec["kind"]](
            spec, self.chance)

    def note(self, kind, *rest):
        line = json.dumps([kind, time.monotonic(), self.n_transactions, *rest]) + "\n"
        os.write(self.journal, line.encode())

    def events(self, n):
        chance, found = self.chance, []
        channel = chance.choice(self.spec["channels"])
        for _ in range(n):
            self.n_events += 1
            if chance.random() < 0.3:
                channel = chance.choice(self.spec["channels"])
            size = chance.choice((10, 40, 40, 150, 150, 400))
            if n < 30 and chance.random() < 0.03:
                size = chance.randrange(1000, self.spec["payload_max"])
            found.append(("%s.%d" % (self.spec["name"], self.n_events), channel, size))
        return found

    def transaction(self, n, slow=0.0, commit=True):
        self.commit_all(self.events(n), slow, commit)

    def commit_all(self, events, slow=0.0, commit=True):
        self.n_transactions += 1
        self.note("B", events)
        try:
            self.via.begin()
            if slow:
                for event in events:
                    self.via.publish([event])
                    time.sleep(slow)
            else:
                self.via.publish(events)
            if commit:
                self.via.commit()
            else:
                self.via.rollback()
        except Refused as error:
            self.note("R", str(error)[:200])
        except Unclear as error:
            self.note("U", str(error)[:200])
        else:
            self.note("C" if commit else "R")

    def post(self):
        events = self.events(1)
        self.n_transactions += 1
        self.note("B", events)
        try:
            self.via.post(*events[0])
        except Refused as error:
            self.note("R", str(error)[:200])
            time.sleep(0.05)
        except Unclear as error:
            self.note("U", str(error)[:200])
            time.sleep(0.05)
        else:
            self.note("C")

    def step(self):
        chance = self.chance
        if self.spec["kind"] == "http":
            self.post()
            return
        dice, commit = chance.random(), chance.random() > 0.1
        if dice < 0.70:
            self.transaction(1, commit=commit)
        elif dice < 0.90:
            self.transaction(chance.randrange(2, 25), commit=commit)
        elif dice < 0.985:
            self.transaction(chance.randrange(3, 12), slow=chance.uniform(0.001, 0.03), commit=commit)
        else:
            self.transaction(chance.randrange(500, self.spec["bulk_max"]), commit=commit)

    def mark(self):
        """One event to each channel, in one transaction."""
        events = []
        for channel in self.spec["channels"]:
            self.n_events += 1
            events.append(("%s.%d" % (self.spec["name"], self.n_events), channel, 10))
        self.commit_all(events)

    def run(self):
        """Until the parent closes the pipe."""
        if self.spec.get("bulk"):
            self.transaction(self.spec["bulk"])
            return
        while True:
            pause = self.chance.random() ** 2 * 0.15
            if select.select([0], [], [], pause)[0]:
                return
            self.step()


# ---- what the parent sees ----

class Crew:
    """All publishers of a round."""

    def __init__(self, seed, directory, spec):
        self._seed, self._directory, self._spec = seed, directory, spec
        self._running = {}  # name → process
        self._bulks = []
        self._lives = {}

    def start(self, name, **more):
        self._running[name] = self._spawn(name, more), more

    def bulk(self, n):
        """One more, which commits n events at once and ends."""
        self._bulks.append(self._spawn("bulk", {"bulk": n}))

    def _spawn(self, name, more):
        life = self._lives[name] = self._lives.get(name, 0) + 1
        spec = dict(self._spec, **more)
        spec.update(name="%s.%d" % (name, life), seed="%s %s %d" % (self._seed, name, life),
                    journal=os.path.join(self._directory, "%s.%d.journal" % (name, life)))
        command = ["setpriv", "--pdeathsig", "KILL", "--", "/usr/bin/python3", "-B",
                   os.path.abspath(__file__), json.dumps(spec)]
        with open(os.path.join(self._directory, spec["name"] + ".errors"), "wb") as errors:
            return subprocess.Popen(command, stdin=subprocess.PIPE, stderr=errors)

    def marker(self):
        """A publisher in this process, for the last events of each channel."""
        return Publisher(dict(self._spec, name="end.1", seed="end", bulk=None,
                              journal=os.path.join(self._directory, "end.1.journal")))

    @property
    def names(self):
        return sorted(self._running)

    def kill(self, name):
        """And another life begins."""
        process, more = self._running[name]
        process.kill()
        process.wait()
        process.stdin.close()
        self.start(name, **more)

    def pause(self, name):
        """Returns what lets it go on."""
        process = self._running[name][0]
        process.send_signal(signal.SIGSTOP)
        return lambda: process.send_signal(signal.SIGCONT)

    def end(self, timeout=60):
        for process in self._processes():
            process.stdin.close()
        for process in self._processes():
            code = process.wait(timeout)
            assert code == 0, "a publisher ended with %d" % code
        self._running, self._bulks = {}, []

    def _processes(self):
        return [process for process, _ in self._running.values()] + self._bulks

    def drop(self):
        for process in self._processes():
            process.kill()
            process.wait()


def read_journals(directory):
    """({id: Event}, {publisher: [id, …] in the order sent})"""
    events, sent = {}, {}
    for name in sorted(os.listdir(directory)):
        if name.endswith(".journal"):
            _read_journal(os.path.join(directory, name), events, sent)
    return events, sent


def _read_journal(path, events, sent):
    publisher = os.path.basename(path)[:-len(".journal")]
    order = sent.setdefault(publisher, [])
    with open(path) as f:
        for line in f:
            try:
                kind, when, _, *rest = json.loads(line)
            except ValueError:
                break  # killed while it wrote: the last line, and nothing of it was sent
            if kind == "B":
                now = rest[0]
                began = when
            for id, channel, size in now:
                events[id] = Event(id, channel, OUTCOMES.get(kind, UNKNOWN), began,
                                   float("inf") if kind == "B" else when, size,
                                   publisher.startswith("end"))
                if kind == "B":
                    order.append(id)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Publisher(json.loads(sys.argv[1])).run()
