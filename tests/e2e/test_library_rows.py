"""Rows joined to the stream in a program that uses the library: threads that join while others
write have what the database has, with nothing missing and nothing told twice."""
import json
import os
import subprocess
import threading

from case import case, equal, eventually
from test_snapshot import (QUERY, SLOW_QUERY, SLOW_SQLITE_QUERY, SqliteWriters, Writers, final_of,
                           look_at, postgres, sqlite_file, versions)

JOINERS = 100


class Joiner:
    """A thread's subscription: what it was returned, as a server's messages."""

    def __init__(self):
        self.messages = []
        self.ended = None

    def of(self, kind):
        return [m for m in self.messages if m["type"] == kind]

    @property
    def is_ready(self):
        return bool(self.of("ready"))


class Program:
    """tests/hub/joiner.c, running."""

    def __init__(self, t, url, query):
        path = os.path.join(os.path.dirname(t.binary), "tests/hub/joiner")
        self.joiners = []
        self._process = subprocess.Popen([path, url] + query.split("=", 1), text=True, bufsize=1,
                                         stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                         stderr=subprocess.PIPE)
        t.cleanup(self._process.kill)
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        for line in self._process.stdout:
            number, kind, data = line.rstrip("\n").split(" ", 2)
            joiner = self.joiners[int(number)]
            if kind == "end":
                joiner.ended = data
            else:
                joiner.messages.append({"type": kind, "data": json.loads(data) if data else None})

    def join(self, n=1):
        for _ in range(n):
            self.joiners.append(Joiner())
            self._process.stdin.write("\n")
        return self.joiners[-n:]

    def join_while(self, writers):
        """A few at a time, the next ones when one of them is ready."""
        while writers.running() and len(self.joiners) < JOINERS:
            few = self.join(5)
            eventually(lambda: any(j.is_ready for j in few), 30, "somebody has joined")

    def finish(self):
        self._process.stdin.close()
        errors = self._process.stderr.read()
        equal((self._process.wait(30), errors), (0, ""))
        eventually(lambda: all(j.ended for j in self.joiners), 10, "all have ended")
        equal({j.ended for j in self.joiners}, {"the subscription was cancelled"})


def look_at_program(t, url, query, writers, final, ordered=True):
    program = Program(t, url, query)
    first = program.join()[0]
    eventually(lambda: first.is_ready, 30, "the source is there")
    running = writers()
    program.join_while(running)
    eventually(lambda: not running.running(), 60, "all is written")
    last = final()

    def complete(joiner):
        if not joiner.is_ready:
            return False
        rows, events = versions(joiner)
        return len(events) >= sum(last.values()) - sum(rows.values())
    eventually(lambda: all(complete(j) for j in program.joiners), 30, "all have the last version")
    look_at(program.joiners, last, ordered)
    program.finish()


@case(timeout=120)
def test_wal(t):
    database = postgres(t, "wal")
    look_at_program(t, database.url, SLOW_QUERY, lambda: Writers(t, database),
                    lambda: final_of(database))


@case(timeout=120)
def test_outbox(t):
    database = postgres(t, "outbox")
    look_at_program(t, database.url, QUERY, lambda: Writers(t, database),
                    lambda: final_of(database), ordered=False)


@case(timeout=120)
def test_sqlite(t):
    path, connection = sqlite_file(t)
    look_at_program(t, "sqlite:" + path, SLOW_SQLITE_QUERY, lambda: SqliteWriters(t, path),
                    lambda: dict(connection.execute("select id, n from items").fetchall()))


@case()
def test_failures(t):
    """A query that is wrong ends its joiner only."""
    path, _ = sqlite_file(t)
    program = Program(t, "sqlite:" + path, "items=SELECT missing FROM items")
    joiner = program.join()[0]
    eventually(lambda: joiner.ended, 10, "it has ended")
    equal(joiner.ended, 'the rows of channel "items" cannot be had (source-refused): '
                        'no such column: missing')
    equal(joiner.messages, [])
