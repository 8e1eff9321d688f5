"""The sources that are tortured, as a table: how each is set up, published to, and asked afterwards
what it holds. A backend's class says what its positions promise; its objects live for one round."""
import os
import re
import sqlite3
import subprocess

import libpq
from postgres import PrivateDatabase
from private_postgres import PrivatePostgres

ID = re.compile(r'"e":\s*"([^"]+)"')


class Sizes:
    """ample: nothing may ever expire. Else so little is retained that clients who were away for long
    are told a gap, and nobody else."""

    def __init__(self, chance):
        self.ample = chance.random() < 0.5
        self.retain = "64M" if self.ample else "1M"
        self.retain_bytes = (64 << 20) if self.ample else (1 << 20)
        self.keep = None if self.ample else 5000  # events in SQLite's table

    @property
    def word(self):
        return "ample" if self.ample else "tight"


class SQLite:
    """A file; its outbox ids are the one order."""

    name = "sqlite"
    ordered = durable = True
    is_postgres = False
    channels = ("a", "b", "c/d", "e.f:1")
    payload_max = 30000

    def __init__(self, directory, binary, sizes, chance):
        self.path = os.path.join(directory, "app.db")
        self.sizes = sizes
        self.wal = chance.random() < 0.7
        database = sqlite3.connect(self.path, isolation_level=None)
        database.execute("pragma journal_mode=%s" % ("wal" if self.wal else "delete"))
        database.executescript(subprocess.run([binary, "sql", "sqlite"], check=True,
                                              stdout=subprocess.PIPE, text=True).stdout)
        self.old = chance.choice((0, 0, 50000))  # rows to be read again with each start
        database.execute("begin")
        database.executemany("insert into fanwire_outbox (channel, payload) values ('old', ?)",
                             (("old %d" % i,) for i in range(self.old)))
        database.execute("commit")
        # The witness: what was committed, in order, whatever fanwire prunes.
        database.executescript("""
            create table witness (n integer primary key autoincrement, id integer, payload);
            create trigger witness after insert on fanwire_outbox begin
                insert into witness (id, payload) values (new.id, new.payload);
            end;""")
        database.close()

    @staticmethod
    def missing(binary):
        return None

    @property
    def variant(self):
        return "%s, %d old rows" % ("wal" if self.wal else "rollback journal", self.old)

    def url(self, port=None):
        keep = "all" if self.sizes.keep is None else str(self.sizes.keep)
        return "sqlite:%s?keep=%s" % (self.path, keep)

    def arguments(self, host):
        return []

    def publishing(self):
        """What a publisher process needs, as JSON."""
        return {"kind": "sqlite", "where": self.path}

    def stored(self):
        """All committed event ids, in order."""
        database = sqlite3.connect(self.path, timeout=30)
        rows = database.execute("select payload from witness order by id").fetchall()
        database.close()
        return [ID.search(payload if isinstance(payload, str) else payload.decode()).group(1)
                for payload, in rows]

    def close(self):
        pass


class Notify:
    """Postgres, LISTEN and NOTIFY: gaps are told, nothing is kept; ordered per publisher."""

    name = mode = "notify"
    ordered = durable = False
    is_postgres = True
    channels = ("a", "b", "c/d", "plain")  # "plain": by pg_notify(), not fanwire_publish()
    payload_max = 7000
    settings = ()
    variant = ""

    def __init__(self, directory, binary, sizes, chance):
        self.sizes = sizes
        sizes.keep = None
        self.database = PrivateDatabase(True)
        try:
            self._set_up(binary)
        except BaseException:
            self.close()
            raise

    @classmethod
    def missing(cls, binary):
        """Why it can't be tortured here; None when it can."""
        command = [binary, "serve", "--http", "127.0.0.1:0", "--admin", "off", "--drain", "0s",
                   "postgres://nobody@127.0.0.1:1/nothing?mode=" + cls.mode]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                              text=True) as server:
            word = server.stderr.readline().strip()
            server.kill()
        if "event=started" not in word:
            return word
        return None if PrivatePostgres().bin else "no Postgres is installed"

    def _set_up(self, binary):
        for setting in self.settings:
            self.database.psql("alter system set " + setting)
        if self.settings:
            self.database.restart()
        sql = subprocess.run([binary, "sql", "postgres", "--mode", self.mode], check=True,
                             stdout=subprocess.PIPE, text=True).stdout
        self.database.psql(sql)

    def url(self, port=None):
        return (self.database.url_through(port) if port else self.database.url) \
            + "?mode=" + self.mode

    def arguments(self, host):
        return []

    def publishing(self):
        plain = ["plain"] if self.mode == "notify" else []
        return {"kind": "postgres", "where": self.database.url, "plain": plain}

    def stored(self):
        return None

    def close(self):
        self.database.close()


class Wal(Notify):
    """Postgres by logical replication; a slot of the test's own tells the order of commits."""

    name = mode = "wal"
    ordered = durable = True
    channels = ("a", "b", "c/d", "e.f:1")
    payload_max = 30000
    settings = ("wal_level = 'logical'", "max_replication_slots = 10", "max_wal_senders = 10")

    def _set_up(self, binary):
        super()._set_up(binary)
        self.database.psql("select pg_create_logical_replication_slot('witness', 'test_decoding')")

    def arguments(self, host):
        return ["--node", host.lower()]

    def stored(self):
        text = self.database.psql(
            "select data from pg_logical_slot_get_changes('witness', null, null)")
        return ID.findall(text)


class Outbox(Notify):
    """Postgres by a table that is read in the order (xid, id)."""

    name = mode = "outbox"
    ordered = durable = True
    channels = ("a", "b", "c/d", "e.f:1")
    payload_max = 30000

    def stored(self):
        return ID.findall(self.database.psql(
            "select payload from fanwire.outbox o order by o.xid, o.id"))


BACKENDS = {backend.name: backend for backend in (SQLite, Notify, Wal, Outbox)}
