"""Throw-away databases: one Postgres that the tests share, and private ones that may be stopped."""
import os
import re
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "sources"))

from case import Skip, eventually  # noqa: E402
from private_postgres import PrivatePostgres  # noqa: E402


def start_shared():
    """Starts the Postgres that the tests share; None where none is installed."""
    cluster = PrivatePostgres()
    try:
        return cluster.__enter__()
    except FileNotFoundError:
        return None


class Database:
    """A database with what the tests ask of it."""

    name = "postgres"
    cluster = None

    @property
    def url(self):
        return "postgres://postgres@127.0.0.1:%d/%s" % (self.cluster.port, self.name)

    def url_through(self, port):
        return "postgres://postgres@127.0.0.1:%d/%s" % (port, self.name)

    def psql(self, sql):
        return self.cluster.psql(sql, self.name)

    def notify(self, channel, payload):
        self.psql('NOTIFY "%s", \'%s\'' % (channel.replace('"', '""'), payload.replace("'", "''")))

    def connections(self):
        """Process ids of fanwire's connections, the oldest first."""
        rows = self.psql("select pid from pg_stat_activity where application_name = 'fanwire' "
                         "and datname = current_database() order by backend_start")
        return [int(row) for row in rows.split()]

    def listening(self):
        """Waits until fanwire's one connection is there; returns its process id."""
        return eventually(self.connections, 10, "fanwire is connected to Postgres")[0]

    def terminate(self, pid):
        assert self.psql("select pg_terminate_backend(%d)" % pid) == "t"


class SharedDatabase(Database):
    def __init__(self, cluster, test):
        self.cluster = cluster
        self.name = re.sub("[^a-z0-9]", "_", test.lower())[:63]
        cluster.psql('create database "%s"' % self.name)

    def drop(self):
        self.cluster.psql('drop database "%s" with (force)' % self.name)


class PrivateDatabase(Database):
    def __init__(self, start, settings=None, environment=None):
        self.cluster = PrivatePostgres(settings=settings, environment=environment)
        try:
            self.cluster.__enter__()
        except FileNotFoundError:
            raise Skip("no Postgres is installed") from None
        if not start:
            self.cluster.stop()

    def start(self):
        self.cluster.start()

    def stop(self, mode="fast"):
        self.cluster.stop(mode)

    def restart(self):
        self.cluster.restart()

    def close(self):
        self.cluster.__exit__(None, None, None)
