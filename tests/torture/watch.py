"""Watches what the servers' processes take: memory that is their own, and descriptors."""
import os
import threading

LIMIT_MB = {"supervisor": 16, "source": 160, "worker": 160}
SLACK_FDS = 8
EVERY_S = 0.5


def own_memory_mb(pid):
    """Anonymous memory: the log is shared and has its size."""
    with open("/proc/%d/status" % pid) as f:
        for line in f:
            if line.startswith("RssAnon:"):
                return int(line.split()[1]) / 1024
    raise ProcessLookupError


def descriptors(pid):
    return len(os.listdir("/proc/%d/fd" % pid))


class Watch:
    def __init__(self, hosts, sanitized):
        self._hosts, self._sanitized = hosts, sanitized
        self.most = {}   # role → MB
        self.grown = []  # texts
        self._at_start = {(host.name, role): descriptors(pid)
                          for host in hosts for role, pid in host.processes().items()}
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self):
        while not self._end.wait(EVERY_S):
            for host in self._hosts:
                for role, pid in host.processes().items():
                    self._look(host, role, pid)

    def _look(self, host, role, pid):
        try:
            mb = own_memory_mb(pid)
        except OSError:
            return
        kind = role.partition(" ")[0]
        self.most[kind] = max(self.most.get(kind, 0), mb)
        if mb > LIMIT_MB[kind] and not self._sanitized and len(self.grown) < 10:
            self.grown.append("%s of %s takes %d MB" % (role, host.name, mb))

    def end(self):
        self._end.set()
        self._thread.join()

    def too_many_descriptors(self):
        """When all clients have left: who holds more than when it began."""
        found = []
        for host in self._hosts:
            for role, pid in host.processes().items():
                now, then = descriptors(pid), self._at_start.get((host.name, role), 0)
                if now > then + SLACK_FDS:
                    found.append("%s of %s: %d descriptors, %d at the start"
                                 % (role, host.name, now, then))
        return found
