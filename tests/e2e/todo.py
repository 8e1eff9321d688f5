"""The to-do program under test, on either store, and what another program does to its database."""
import json
import os
import subprocess

from case import Skip, case, eventually
from server import Server


def on_both(timeout=60, alone=False, long_only_on=()):
    """Makes of a test two: on SQLite and on Postgres; the test gets the store's name, too. Where the
    store hardly matters, `long_only_on` leaves one of them to the long form."""
    def mark(function):
        def make(kind):
            def test(t):
                function(t, kind)
            test.__name__ = "%s_on_%s" % (function.__name__, kind)
            test.__module__ = function.__module__
            return case(timeout=timeout, alone=alone, postgres=kind == "postgres",
                        long_only=kind in long_only_on)(test)
        for kind in ("sqlite", "postgres"):
            test = make(kind)
            function.__globals__[test.__name__] = test
        return None
    return mark


def program_of(t):
    path = os.path.join(os.path.dirname(t.binary), "examples", "todo", "todo")
    if not os.access(path, os.X_OK):
        raise Skip("%s is not built" % path)
    return path


class SqliteFile:
    kind = "sqlite"

    def __init__(self, t):
        self.path = os.path.join(t.directory, "todo.db")
        self.url = "sqlite:" + self.path

    def sql(self, text):
        """By the sqlite3 shell; returns what it printed."""
        done = subprocess.run(["sqlite3", "-bail", "-cmd", ".timeout 10000", self.path], input=text,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout.rstrip("\n")


class PostgresDatabase:
    kind = "postgres"

    def __init__(self, database):
        self.database = database
        self.url = database.url

    def sql(self, text):
        return self.database.psql(text)


class Todo:
    """The running program. database: one of the above; else one of its own kind is made."""

    def __init__(self, t, kind="sqlite", *arguments, database=None, url=None, **options):
        if database is None:
            database = SqliteFile(t) if kind == "sqlite" else PostgresDatabase(t.database())
        self.t, self.database = t, database
        program = [program_of(t), "--store", url or database.url]
        self.server = Server(t, None, *arguments, public=(), public_write=(), program=program,
                             **options)
        t.cleanup(self.server.finish)
        if options.get("start", True) and options.get("up", True):
            self.works_again()

    def api(self, method, path="", body=None, **options):
        """A request below /api/todos/; a body that is no bytes is sent as JSON."""
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
        return self.server.request(method, "/api/todos/" + path, body,
                                   {"Content-Type": "application/json"}, **options)

    def add(self, title, **more):
        """Returns the item."""
        answer = self.api("POST", "", dict(more, title=title))
        assert answer.status == 201, answer
        return answer.json

    def items(self):
        answer = self.api("GET")
        assert answer.status == 200, answer
        return answer.json

    def sql(self, text):
        return self.database.sql(text)

    def application_pid(self):
        """None while there is none."""
        for pid, title in self.server.titles().items():
            if title.startswith("fanwire: todo"):
                return pid
        return None

    def works_again(self, timeout=20):
        """Waits until a request is answered well."""
        def works():
            try:
                return self.api("GET").status == 200
            except OSError:
                return False
        eventually(works, timeout, "the API answers again")
