"""What a test is given: `t`, with servers, databases and clients that are cleaned up after it.

    def test_something(t):          any function test_… in a file test_….py is a test
        server = t.server("memory:")
        assert server.publish("todos", b"hello").status == 200

    @case(timeout=120, alone=True)  more time; nothing else runs meanwhile (it measures time)
"""
import os
import random
import shutil
import sys
import tempfile
import time

DEFAULT_TIMEOUT = 60


class Skip(Exception):
    """Raised to leave a test out; the text says what is missing."""


def case(timeout=DEFAULT_TIMEOUT, alone=False, postgres=False, long_only=False):
    """Marks a test: its time-out in seconds, whether nothing else may run beside it, whether it
    needs the shared Postgres, whether it belongs to the long form only."""
    def mark(function):
        function.case = {"timeout": timeout, "alone": alone, "postgres": postgres,
                         "long_only": long_only}
        return function
    return mark


def eventually(condition, timeout=10.0, what="the condition", every=0.01):
    """Waits until condition() is true and returns what it returned; fails after the deadline."""
    deadline = time.monotonic() + timeout
    while True:
        result = condition()
        if result:
            return result
        if time.monotonic() > deadline:
            raise AssertionError("after %g s still not: %s" % (timeout, what))
        time.sleep(every)


def equal(found, expected, what=""):
    """Fails with both values in full."""
    if found != expected:
        raise AssertionError("%s\n   found: %.2000r\nexpected: %.2000r" % (what, found, expected))


class Test:
    def __init__(self, binary, seed, is_long, name, shared_postgres=None):
        self.binary = binary
        self.seed = seed
        self.long = is_long
        self.name = name
        self.failed = False
        self.random = random.Random("%s %s" % (seed, name))
        self._shared = shared_postgres
        self._cleanups = []
        self._n_databases = 0
        self._directory = None

    @property
    def sanitized(self):
        """Built with AddressSanitizer: what it says of memory is not the program's."""
        with open(self.binary, "rb") as f:
            return b"__asan_init" in f.read()

    def cleanup(self, function):
        """Calls function() after the test, last added first, also when the test fails."""
        self._cleanups.append(function)

    @property
    def directory(self):
        if not self._directory:
            self._directory = tempfile.mkdtemp(prefix="fanwire-e2e-")
            os.chmod(self._directory, 0o755)
            self.cleanup(lambda: shutil.rmtree(self._directory, ignore_errors=True))
        return self._directory

    def server(self, source="memory:", *arguments, **options):
        """A running `fanwire serve`; with up=True (else it need not be) its source is there."""
        from server import Server
        server = Server(self, source, *arguments, **options)
        self.cleanup(server.finish)
        return server

    def database(self):
        """A database of its own in the Postgres that the tests share: do not stop that one."""
        from postgres import SharedDatabase
        if not self._shared:
            raise Skip("no Postgres is installed")
        self._n_databases += 1
        database = SharedDatabase(self._shared, "%d %s" % (self._n_databases, self.name))
        self.cleanup(database.drop)
        return database

    def postgres(self, start=True, environment=None, **settings):
        """A Postgres of its own, which may be stopped; settings as in postgresql.conf."""
        from postgres import PrivateDatabase
        database = PrivateDatabase(start, settings, environment)
        self.cleanup(database.close)
        return database

    def proxy(self, port):
        """A TCP proxy to a port of this machine, which can be cut and stalled."""
        from proxy import Proxy
        proxy = Proxy(port)
        self.cleanup(proxy.close)
        return proxy

    def ws(self, server, path, **options):
        from ws import WebSocket
        client = WebSocket(server.address, path, **options)
        self.cleanup(client.drop)
        return client

    def sse(self, server, path, **options):
        from sse import EventSource
        client = EventSource(server.address, path, **options)
        self.cleanup(client.drop)
        return client

    def crowd(self, server):
        from crowd import Crowd
        crowd = Crowd(server.address)
        self.cleanup(crowd.close)
        return crowd

    def done(self):
        """Runs the clean-ups, all of them; raises the first error of any."""
        first = None
        while self._cleanups:
            try:
                self._cleanups.pop()()
            except BaseException as error:  # noqa: B902 the others must be run too
                if first is None:
                    first = error
                else:
                    print("and while cleaning up: %r" % error, file=sys.stderr)
        if first is not None:
            raise first
