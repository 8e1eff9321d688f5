"""What goes wrong in a round, when, and for how long: a schedule made from the seed, and the hands
that do it. Faults overlap; each that lasts is mended by itself."""
import heapq
import os
import random
import resource
import signal
import sqlite3
import time
from collections import Counter, namedtuple

Fault = namedtuple("Fault", "at kind host dice seconds")

# kind: (weight, shortest, longest, where)
KINDS = {
    "kill source": (5, 0, 0, "any"),
    "kill worker": (5, 0, 0, "any"),
    "kill server": (3, 0, 0, "any"),
    "stop server": (2, 0, 0, "drain"),
    "pause source": (4, 0.2, 5.0, "any"),
    "pause worker": (4, 0.2, 5.0, "any"),
    "pause supervisor": (1, 0.2, 4.0, "any"),
    "hang source": (0.4, 11.5, 12.5, "long"),
    "hang worker": (0.4, 11.5, 12.5, "long"),
    "cut clients": (4, 0, 0, "any"),
    "stall clients": (3, 0.3, 5.0, "any"),
    "refuse clients": (2, 0.2, 2.0, "any"),
    "no descriptors": (3, 0.5, 4.0, "any"),
    "kill publisher": (5, 0, 0, "any"),
    "pause publisher": (2, 0.2, 3.0, "any"),
    "bulk": (3, 0, 0, "any"),
    "lock database": (3, 0.2, 3.0, "sqlite"),
    "lock database for long": (0.7, 6.0, 8.0, "sqlite"),
    "checkpoint": (2, 0, 0, "sqlite"),
    "vacuum": (1, 0, 0, "sqlite"),
    "terminate backends": (4, 0, 0, "postgres"),
    "pause backend": (2, 0.2, 4.0, "postgres"),
    "kill backend": (0.7, 0, 0, "postgres"),  # Postgres restarts all of them
    "restart database": (1.2, 0, 0, "postgres"),
    "cut database": (3, 0, 0, "postgres"),
    "stall database": (3, 0.3, 6.0, "postgres"),
    "refuse database": (2, 0.3, 3.0, "postgres"),
}
LONG_S = 30   # rounds at least so long bear hangs of 10 s
DRAIN_S = 10  # and these, clients that keep a server from stopping for some seconds


def schedule(seed, seconds, per_second, hosts, is_postgres):
    """Faults at random times over `seconds`; each is struck at one of the hosts."""
    chance = random.Random("%s faults" % seed)
    fit = {"any", "postgres" if is_postgres else "sqlite"}
    fit |= {name for name, least in (("long", LONG_S), ("drain", DRAIN_S)) if seconds >= least}
    kinds = [kind for kind, entry in KINDS.items() if entry[3] in fit]
    weights = [KINDS[kind][0] for kind in kinds]
    faults, at = [], 0.5
    while True:
        at += chance.expovariate(per_second)
        if at >= seconds:
            return faults
        kind = chance.choices(kinds, weights)[0]
        _, shortest, longest, _ = KINDS[kind]
        lasts = min(chance.uniform(shortest, longest), max(0.2, seconds - at))
        faults.append(Fault(at, kind, chance.randrange(hosts), chance.random(), lasts))


class Hands:
    """Does what a schedule says. On the thread that lives longest: what it starts dies with it."""

    def __init__(self, faults, hosts, crew, backend):
        self._faults, self._hosts, self._crew, self._backend = faults, hosts, crew, backend
        self.done = []  # (time, text)
        self.counts = Counter()
        self._heals = []  # heap of (when, n, function)
        self._limits = {}  # pid: its limit of descriptors before it was lowered
        self._n = 0

    def run(self, tell):
        """Returns when all is done and mended; calls tell() now and then."""
        self._tell = tell
        began = time.monotonic()
        try:
            for fault in self._faults:
                self._wait_until(began + fault.at)
                self._strike(fault)
            while self._heals:
                self._wait_until(self._heals[0][0])
        finally:
            while self._heals:
                self._heal()

    def _wait_until(self, when):
        while self._heals and self._heals[0][0] <= when:
            self._sleep_until(self._heals[0][0])
            self._heal()
        self._sleep_until(when)

    def _sleep_until(self, when):
        while (left := when - time.monotonic()) > 0:
            time.sleep(min(left, 0.5))
            self._tell()

    def _heal(self):
        _, _, function = heapq.heappop(self._heals)
        try:
            function()
        except ProcessLookupError:
            pass  # it did not outlive it

    def _strike(self, fault):
        host = self._hosts[fault.host]
        self._note("%s %s %.1f s" % (fault.kind, host.name, fault.seconds))
        try:
            heal = getattr(self, "_" + fault.kind.replace(" ", "_"))(host, fault)
        except (ProcessLookupError, sqlite3.OperationalError):
            return  # it was dead already; or locked
        except RuntimeError as error:  # Postgres is not there to be asked
            self._note("  %.100s" % error)
            return
        self.counts[fault.kind] += 1
        if heal:
            self._n += 1
            heapq.heappush(self._heals, (time.monotonic() + fault.seconds, self._n, heal))

    def _note(self, text):
        self.done.append((time.monotonic(), text))

    # ---- processes ----

    def _pid(self, host, role, dice):
        if role == "supervisor":
            return host.server.pid
        if role == "source":
            pids = [host.server.source_pid()]
        else:
            workers = host.server.workers()
            pids = [workers[number] for number in sorted(workers)]
        if not pids or pids[0] is None:
            raise ProcessLookupError
        return pids[int(dice * len(pids))]

    def _pause(self, pid):
        os.kill(pid, signal.SIGSTOP)
        return lambda: os.kill(pid, signal.SIGCONT)

    def _kill_source(self, host, fault):
        os.kill(self._pid(host, "source", fault.dice), signal.SIGKILL)

    def _kill_worker(self, host, fault):
        os.kill(self._pid(host, "worker", fault.dice), signal.SIGKILL)

    def _kill_server(self, host, fault):
        host.kill()
        time.sleep(fault.dice * 0.5)
        host.start()

    def _stop_server(self, host, fault):
        for role in ("source", "worker", "supervisor"):  # what is paused can't drain
            try:
                os.kill(self._pid(host, role, 0), signal.SIGCONT)
                os.kill(self._pid(host, role, 0.99), signal.SIGCONT)
            except ProcessLookupError:
                pass
        host.stop()
        host.start()

    def _pause_source(self, host, fault):
        return self._pause(self._pid(host, "source", fault.dice))

    def _pause_worker(self, host, fault):
        return self._pause(self._pid(host, "worker", fault.dice))

    def _pause_supervisor(self, host, fault):
        return self._pause(self._pid(host, "supervisor", fault.dice))

    _hang_source, _hang_worker = _pause_source, _pause_worker

    def _no_descriptors(self, host, fault):
        """The worker may open hardly any more."""
        pid = self._pid(host, "worker", fault.dice)
        # Where one such fault overlaps another, the limit of now is not the one to go back to.
        first = self._limits.setdefault(pid, resource.prlimit(pid, resource.RLIMIT_NOFILE))
        few = max(int(fd) for fd in os.listdir("/proc/%d/fd" % pid)) + 1 + int(fault.dice * 3)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (few, first[1]))

        def heal():
            self._limits.pop(pid, None)
            resource.prlimit(pid, resource.RLIMIT_NOFILE, first)
        return heal

    def _kill_publisher(self, host, fault):
        names = self._crew.names
        self._crew.kill(names[int(fault.dice * len(names))])

    def _pause_publisher(self, host, fault):
        names = self._crew.names
        return self._crew.pause(names[int(fault.dice * len(names))])

    def _bulk(self, host, fault):
        """Thousands of events in one transaction."""
        self._crew.bulk(int(1000 + 5000 * fault.dice))

    # ---- the network ----

    def _cut_clients(self, host, fault):
        host.way.cut()

    def _stall_clients(self, host, fault):
        host.way.stall()
        return host.way.resume

    def _refuse_clients(self, host, fault):
        host.way.refuse()
        return lambda: host.way.refuse(False)

    def _cut_database(self, host, fault):
        host.database_way.cut()

    def _stall_database(self, host, fault):
        host.database_way.stall()
        return host.database_way.resume

    def _refuse_database(self, host, fault):
        host.database_way.refuse()
        host.database_way.cut()
        return lambda: host.database_way.refuse(False)

    # ---- SQLite ----

    def _sqlite(self):
        return sqlite3.connect(self._backend.path, timeout=2, isolation_level=None,
                               check_same_thread=False)

    def _lock_database(self, host, fault):
        database = self._sqlite()
        database.execute("begin " + ("exclusive" if fault.dice < 0.5 else "immediate"))

        def heal():
            database.execute("rollback")
            database.close()
        return heal

    _lock_database_for_long = _lock_database

    def _checkpoint(self, host, fault):
        database = self._sqlite()
        database.execute("pragma wal_checkpoint(truncate)")
        database.close()

    def _vacuum(self, host, fault):
        database = self._sqlite()
        database.execute("vacuum")
        database.close()

    # ---- Postgres ----

    def _backends(self):
        rows = self._backend.database.psql(
            "select pid from pg_stat_activity where application_name = 'fanwire' order by 1")
        return [int(row) for row in rows.split()]

    def _one_backend(self, fault):
        pids = self._backends()
        if not pids:
            raise ProcessLookupError
        return pids[int(fault.dice * len(pids))]

    def _terminate_backends(self, host, fault):
        self._backend.database.psql(
            "select pg_terminate_backend(pid) from pg_stat_activity "
            "where application_name = 'fanwire' and random() < 0.7")

    def _pause_backend(self, host, fault):
        return self._pause(self._one_backend(fault))

    def _kill_backend(self, host, fault):
        os.kill(self._one_backend(fault), signal.SIGKILL)

    def _restart_database(self, host, fault):
        self._backend.database.stop("immediate")
        time.sleep(fault.dice)
        for _ in range(20):
            try:
                self._backend.database.start()
                return
            except RuntimeError as error:
                self._note("  %.200s" % error)
                time.sleep(0.2)
        raise AssertionError("Postgres does not start again")
