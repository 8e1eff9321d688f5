"""What the surroundings of a server may do to it: inherited signal dispositions, stray signals, a
database that answers the door and then says nothing."""
import os
import signal
import socket
import threading

from case import case, equal, eventually
from server import alive


def test_inherited_ignored_signals(t):
    """Some launchers ignore SIGCHLD and others, and that survives exec."""
    server = t.server("memory:", exits_expected=True,
                      ignored_signals=(signal.SIGCHLD, signal.SIGTERM, signal.SIGHUP))
    old = server.workers()[1]
    os.kill(old, signal.SIGKILL)
    eventually(lambda: server.workers().get(1) not in (None, old), 10, "the worker is replaced")
    source = server.source_pid()
    os.kill(source, signal.SIGKILL)
    eventually(lambda: server.source_pid() not in (None, source), 10, "the source is replaced")
    eventually(lambda: server.publish("a", b"x").status == 200, 10, "it publishes")
    server.process.terminate()
    equal(server.process.wait(10), 0)


def test_a_stray_signal_to_one_worker(t):
    server = t.server("memory:")
    os.kill(server.workers()[1], signal.SIGTERM)
    clients = [t.ws(server, "/ws/a") for _ in range(24)]
    eventually(lambda: server.publish("a", b"x").status == 200, 10, "it publishes")
    for client in clients:
        equal(client.message(), "x")
    assert alive(server.workers()[1])


def silent_postgres(t):
    """Lets everybody in (authentication ok, ready for query) and never answers a query."""
    listener = socket.create_server(("127.0.0.1", 0))
    held = []

    def serve():
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            held.append(client)
            client.recv(4096)
            client.sendall(b"R\0\0\0\x08\0\0\0\0" + b"Z\0\0\0\x05I")

    threading.Thread(target=serve, daemon=True).start()
    t.cleanup(lambda: [s.close() for s in [listener] + held])
    return listener.getsockname()[1], held


@case(timeout=60)
def test_a_database_that_never_answers(t):
    port, held = silent_postgres(t)
    server = t.server("postgres://u@127.0.0.1:%d/d?sslmode=disable" % port, up=False)
    line = server.wait_for_log(25, event="lost")
    assert "did not answer" in line["msg"], line
    eventually(lambda: len(held) >= 2, 10, "it tries again")
