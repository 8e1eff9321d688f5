"""Many clients in one thread: WebSockets (bare or fanwire.v1) and SSE, 1,000 and more.

A "raw" one is a bare WebSocket whose bytes are only counted and hashed (the first of each lot keeps
them): so a thousand streams can be compared whole, faster than they could be parsed."""
import base64
import errno
import hashlib
import json
import os
import selectors
import socket
import time

import frames
import sse
from ws import handshake

BARE, JSON, SSE, RAW = "bare", "json", "sse", "raw"
CONNECTING_MAX = 256  # at a time


class Member:
    """One client. messages: str and bytes (bare), dicts (json), sse.Event (sse)."""

    def __init__(self, address, path, kind, number, headers=None, receive_buffer=None):
        self.address, self.path, self.kind, self.number = address, path, kind, number
        self.headers = headers or {}
        self.messages = []
        self.status = None  # of the HTTP answer
        self.close = None   # (code, reason) once the server has closed; code 1006: without a frame
        self._head = b""
        self._frames = frames.Reader()
        self._sse = sse.Reader()
        self._n_controls = 0
        self.n_bytes = 0
        self.hash = hashlib.blake2b(digest_size=16)
        self.kept = bytearray() if kind == RAW and number == 0 else None
        self.socket = socket.socket()
        self.socket.setblocking(False)
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        result = self.socket.connect_ex(address)
        assert result in (0, errno.EINPROGRESS), os.strerror(result)

    @property
    def last_id(self):
        """Where to resume: of SSE as a browser keeps it, else the newest id seen."""
        if self.kind == SSE:
            return self._sse.last_id
        return next((m["id"] for m in reversed(self.messages) if "id" in m), None)

    def of(self, kind):
        """Messages of one type (json, sse)."""
        if self.kind == JSON:
            return [m for m in self.messages if m["type"] == kind]
        return [m.json if kind != "message" else m for m in self.messages if m.kind == kind]

    @property
    def n_events(self):
        """How many payloads, quickly."""
        return len(self.messages) - self._n_controls

    @property
    def payloads(self):
        """What was published, whatever the transport."""
        if self.kind == BARE:
            return self.messages
        if self.kind == SSE:
            return [m.data for m in self.messages if m.kind == "message"]
        return [m["text"] if "text" in m else m["data"] for m in self.of("message")]

    @property
    def is_ready(self):
        if self.kind == JSON:
            return any(m["type"] == "ready" for m in self.messages)
        if self.kind == SSE:
            return any(m.kind == "ready" or m.data.startswith('{"type":"ready"')
                       for m in self.messages)
        return self.status == 101

    def _request(self):
        if self.kind != SSE:
            key = base64.b64encode(os.urandom(16)).decode()
            protocol = "fanwire.v1" if self.kind == JSON else None
            return handshake(self.address, self.path, key, protocol, self.headers)
        lines = ["GET %s HTTP/1.1" % self.path, "Host: %s:%d" % self.address]
        lines += ["%s: %s" % pair for pair in self.headers.items()]
        return ("\r\n".join(lines) + "\r\n\r\n").encode()

    def on_connected(self):
        self.socket.send(self._request())

    def on_data(self, data):
        if self.status is None:
            self._head += data
            head, end, data = self._head.partition(b"\r\n\r\n")
            if not end:
                return
            self.status = int(head.split()[1])
            self._head = b""
        if self.status not in (101, 200):
            return
        if self.kind == RAW:
            data = self._without_pings(data)
            self.n_bytes += len(data)
            self.hash.update(data)
            if self.kept is not None:
                self.kept += data
        elif self.kind == SSE:
            events = self._sse.feed(data)
            self._n_controls += sum(e.kind != "message" for e in events)
            self.messages += events
        else:
            for opcode, payload in self._frames.feed(data):
                self._on_frame(opcode, payload)

    def _without_pings(self, data):
        """Answers them. Payloads are ASCII and short, so a byte of 0x89 is the head of a ping."""
        if b"\x89" not in data and not self._head:
            return data
        data = self._head + data
        cut = len(data) - data.endswith(b"\x89")
        data, self._head = data[:cut], data[cut:]
        for _ in range(data.count(b"\x89\0")):
            self.socket.send(frames.encode(frames.PONG))
        return data.replace(b"\x89\0", b"")

    def _on_frame(self, opcode, payload):
        if opcode == frames.TEXT:
            message = payload.decode()
            if self.kind == JSON:
                message = json.loads(message)
                self._n_controls += message["type"] != "message"
            self.messages.append(message)
        elif opcode == frames.BINARY:
            self.messages.append(payload)
        elif opcode == frames.PING:
            self.socket.send(frames.encode(frames.PONG, payload))
        elif opcode == frames.CLOSE:
            self.close = (int.from_bytes(payload[:2], "big"), payload[2:].decode())
            self.socket.send(frames.encode(frames.CLOSE, payload[:2]))

    def on_end(self):
        if self.close is None:
            self.close = (1006, "")


class Crowd:
    def __init__(self, address):
        self.address = address
        self.members = []
        self._selector = selectors.EpollSelector()
        self._connecting = 0

    def add(self, n, path, kind=BARE, headers=None, timeout=30, ready=True, receive_buffer=None):
        """Connects n more and waits until all of them are ready (SSE, json) or open (bare)."""
        added = []
        for i in range(n):
            member = Member(self.address, path, kind, i, headers, receive_buffer)
            self._selector.register(member.socket, selectors.EVENT_WRITE, member)
            self._connecting += 1
            self.members.append(member)
            added.append(member)
            while self._connecting >= CONNECTING_MAX:
                self.pump(1)
        self.wait(lambda: all(m.status is not None for m in added), timeout, "all are answered")
        if ready:
            if kind == RAW:
                assert all(m.status == 101 for m in added)
            else:
                self.wait(lambda: all(m.is_ready for m in added), timeout, "all are ready")
        return added

    def drop(self, members):
        """These leave without a word."""
        for member in members:
            self._forget(member)
            self.members.remove(member)

    def _forget(self, member):
        if member.socket.fileno() < 0:
            return
        try:
            self._selector.unregister(member.socket)
        except KeyError:
            pass
        member.socket.close()

    def pause(self, members):
        """These are not read any more, until resumed."""
        for member in members:
            self._selector.unregister(member.socket)

    def unpause(self, members):
        for member in members:
            self._selector.register(member.socket, selectors.EVENT_READ, member)

    def pump(self, timeout=0.05):
        """Reads whatever has come; waits for it up to `timeout`. Returns whether any did."""
        ready = self._selector.select(timeout)
        for key, events in ready:
            member = key.data
            if events & selectors.EVENT_WRITE:
                self._connecting -= 1
                self._selector.modify(member.socket, selectors.EVENT_READ, member)
                member.on_connected()
                continue
            try:
                data = member.socket.recv(262144)
            except BlockingIOError:
                continue
            except (ConnectionResetError, BrokenPipeError, TimeoutError):
                data = b""
            try:
                if data:
                    member.on_data(data)
                else:
                    member.on_end()
                    self._forget(member)
            except (BrokenPipeError, ConnectionResetError):
                pass  # it closed while it was answered; the end will be read
        return bool(ready)

    def wait(self, condition, timeout=10.0, what="the condition", describe=None):
        """Pumps until condition() is true; fails after the deadline."""
        deadline = time.monotonic() + timeout
        while not condition():
            if time.monotonic() > deadline:
                raise AssertionError("after %g s still not: %s%s" % (
                    timeout, what, ": %s" % describe() if describe else ""))
            self.pump(0.05)

    def close(self):
        for member in self.members:
            self._forget(member)
        self._selector.close()
