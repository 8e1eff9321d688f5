"""Clients that must not notice what a test does to others."""
import contextlib

from case import equal


@contextlib.contextmanager
def undisturbed(t, server):
    """Inside, anything may be done to the server: afterwards its processes are the same ones, and
    clients on every worker are still there, have heard nothing odd, and get the next event."""
    processes = server.titles()
    crowd = t.crowd(server)
    crowd.add(8, "/ws/witness?since=oldest", "bare")
    crowd.add(8, "/ws/witness", "json")
    crowd.add(8, "/sse/witness", "sse")
    yield
    server.publish_ok("witness", "all is well")
    crowd.wait(lambda: all(m.payloads for m in crowd.members), 10, "the witnesses get an event")
    for member in crowd.members:
        equal(member.payloads, ["all is well"])
        assert member.close is None, member.close
        if member.kind != "bare":
            odd = [k for k in ("gap", "down", "up", "closing") if member.of(k)]
            equal(odd, [], "told to a witness")
    equal(server.titles(), processes, "processes")
    crowd.close()
