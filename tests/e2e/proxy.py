"""A TCP proxy that can be cut (connections reset), stalled (nothing is passed on), closed to new
connections and to WebSockets, to look at how the two sides bear it."""
import selectors
import socket
import struct
import threading

BLOCK = 65536


class Proxy:
    def __init__(self, target_port):
        self._target = target_port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._lock = threading.Lock()
        self._pairs = {}  # socket → its peer
        self._stalled = False
        self._refusing = False
        self._closed = False
        self.websockets = True  # False: a connection that asks for one is reset
        self.accepted = 0
        self._wake, self._woken = socket.socketpair()
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._selector.register(self._woken, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    # what tests call

    def cut(self):
        """Resets every connection, as a crashed machine would."""
        self._do(self._reset_all)

    def stall(self):
        """Passes nothing on, in either direction, until resume()."""
        self._do(self._set_stalled, True)

    def resume(self):
        self._do(self._set_stalled, False)

    def refuse(self, refusing=True):
        """Resets new connections at once."""
        self._refusing = refusing

    def close(self):
        if self._closed:
            return
        self._closed = True
        self._wake.send(b"x")
        self._thread.join()
        self._reset_all()
        for s in (self._listener, self._wake, self._woken):
            s.close()
        self._selector.close()

    # its thread

    def _do(self, function, *arguments):
        with self._lock:
            function(*arguments)
        self._wake.send(b"x")

    def _set_stalled(self, stalled):
        if stalled == self._stalled:
            return
        self._stalled = stalled
        for s in self._pairs:
            if stalled:
                self._selector.unregister(s)
            else:
                self._selector.register(s, selectors.EVENT_READ)

    def _reset(self, s):
        s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        s.close()

    def _drop(self, s):
        peer = self._pairs.pop(s, None)
        if peer is None:
            return
        self._pairs.pop(peer, None)
        for end in (s, peer):
            if not self._stalled:
                self._selector.unregister(end)
            self._reset(end)

    def _reset_all(self):
        while self._pairs:
            self._drop(next(iter(self._pairs)))

    def _accept(self):
        client, _ = self._listener.accept()
        self.accepted += 1
        if self._refusing:
            self._reset(client)
            return
        try:
            server = socket.create_connection(("127.0.0.1", self._target), 5)
        except OSError:
            self._reset(client)
            return
        self._pairs[client], self._pairs[server] = server, client
        for s in (client, server):
            s.settimeout(10)
            if not self._stalled:
                self._selector.register(s, selectors.EVENT_READ)

    def _pass_on(self, s):
        try:
            data = s.recv(BLOCK)
            upgrades = b"\nupgrade: websocket" in data.lower()
            if data and (self.websockets or not upgrades):
                self._pairs[s].sendall(data)
                return
        except OSError:
            pass
        self._drop(s)

    def _run(self):
        while not self._closed:
            ready = self._selector.select()
            with self._lock:
                for key, _ in ready:
                    if key.fileobj is self._woken:
                        self._woken.recv(64)
                    elif key.fileobj is self._listener:
                        self._accept()
                    elif key.fileobj in self._pairs:
                        self._pass_on(key.fileobj)
