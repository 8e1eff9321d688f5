"""The servers of a round: each may be killed and started again, with a way for its clients and, to
Postgres, one for its source."""
import signal

from case import eventually
from network import Way
from server import alive


class Host:
    def __init__(self, test, name, backend):
        self.test, self.name, self.backend = test, name, backend
        self.servers = []  # the lives of it; the last one runs
        self.way = Way(0)
        test.cleanup(self.way.close)
        self.database_way = None
        if backend.is_postgres:
            self.database_way = Way(backend.database.cluster.port)
            test.cleanup(self.database_way.close)
        self.start()

    def start(self):
        """Waits for its processes, not for its source."""
        port = self.database_way.port if self.database_way else None
        server = self.test.server(
            self.backend.url(port), "--retain", self.backend.sizes.retain, "--linger", "3s",
            "--log-level", "debug", *self.backend.arguments(self.name), workers=2, drain="1s",
            exits_expected=True, up=False)
        self.servers.append(server)
        self.way.retarget(server.address[1])

    @property
    def server(self):
        return self.servers[-1]

    @property
    def address(self):
        """Straight to it; changes with each life."""
        return self.server.address

    @property
    def address_by_way(self):
        return "127.0.0.1", self.way.port

    def kill(self):
        """The supervisor dies at once; the rest must follow it."""
        self.way.retarget(0)
        children = self.server.children()
        self.server.process.kill()
        self.server.process.wait()
        eventually(lambda: not any(alive(pid) for pid in children), 15,
                   "the processes of a killed supervisor have left")

    def stop(self):
        self.way.retarget(0)
        self.server.signal(signal.SIGTERM)
        children = self.server.children()
        code = self.server.wait(20)
        assert code == 0, "%s ended with %d" % (self.name, code)
        eventually(lambda: not any(alive(pid) for pid in children), 5, "all children have left")

    def processes(self):
        """{role: pid}"""
        server, found = self.server, {"supervisor": self.server.pid}
        source = server.source_pid()
        if source:
            found["source"] = source
        for number, pid in server.workers().items():
            found["worker %d" % number] = pid
        return found

    @property
    def log(self):
        return "\n".join("-- life %d of %s --\n%s" % (i + 1, self.name, server.log)
                         for i, server in enumerate(self.servers))
