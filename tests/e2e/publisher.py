"""Publishing fast: pipelined HTTP on one connection, and many such publishers in a process of their
own, so that they do not take the reading test's time."""
import os
import signal
import sys

from web import Raw

BATCH = 50


def publish_many(address, events):
    """Publishes (channel, payload) pairs in order; every one must be accepted."""
    with Raw(address, timeout=60) as raw:
        for at in range(0, len(events), BATCH):
            batch = events[at:at + BATCH]
            raw.send(b"".join(
                b"POST /publish/%s HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%s"
                % (channel.encode(), len(payload), payload) for channel, payload in batch))
            for _ in batch:
                response = raw.response()
                assert response is not None and response.status == 200, response


class Publishers:
    """n at once, each its own list of (channel, payload); wait() raises if any failed."""

    def __init__(self, test, address, lists):
        self.pids = []
        for events in lists:
            pid = os.fork()
            if pid == 0:
                os._exit(self._run(address, events))
            self.pids.append(pid)
        test.cleanup(self._kill)

    @staticmethod
    def _run(address, events):
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        try:
            publish_many(address, events)
            return 0
        except BaseException as error:
            print("publisher: %r" % error, file=sys.stderr)
            return 1

    def wait(self):
        while self.pids:
            _, status = os.waitpid(self.pids.pop(), 0)
            assert status == 0, "a publisher failed"

    def _kill(self):
        for pid in self.pids:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
