"""A WebSocket client that hides nothing: one socket, blocking, every frame to be seen."""
import base64
import hashlib
import json
import os
import socket
import time

import frames
from web import Raw

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


class Closed(Exception):
    """The server closed: code 1006 is a connection that ended without a close frame."""

    def __init__(self, code, reason=""):
        super().__init__("%d %s" % (code, reason))
        self.code = code
        self.reason = reason


class Refused(Exception):
    """The upgrade was answered with something else than 101."""

    def __init__(self, response):
        super().__init__(repr(response))
        self.response = response


def handshake(address, path, key, protocol=None, headers=None):
    lines = ["GET %s HTTP/1.1" % path, "Host: %s:%d" % address, "Upgrade: websocket",
             "Connection: Upgrade", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: " + key]
    if protocol:
        lines.append("Sec-WebSocket-Protocol: " + protocol)
    lines += ["%s: %s" % pair for pair in (headers or {}).items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def accept_of(key):
    return base64.b64encode(hashlib.sha1(key.encode() + GUID).digest()).decode()


class WebSocket:
    """auto_pong: answers pings unseen."""

    def __init__(self, address, path, protocol=None, headers=None, auto_pong=True, timeout=15,
                 receive_buffer=None):
        self.timeout = timeout
        self.auto_pong = auto_pong
        self.pings = 0
        self._reader = frames.Reader()
        self._waiting = []
        if receive_buffer:
            self.socket = socket.socket()
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
            self.socket.settimeout(timeout)
            self.socket.connect(address)
        else:
            self.socket = socket.create_connection(address, timeout)
        key = base64.b64encode(os.urandom(16)).decode()
        self.socket.sendall(handshake(address, path, key, protocol, headers))
        raw = Raw.__new__(Raw)
        raw.socket, raw.buffer = self.socket, b""
        self.response = raw.response()
        if self.response is None or self.response.status != 101:
            self.socket.close()
            raise Refused(self.response)
        assert self.response.headers["sec-websocket-accept"] == accept_of(key)
        assert "sec-websocket-extensions" not in self.response.headers
        self.protocol = self.response.headers.get("sec-websocket-protocol")
        self._waiting = self._reader.feed(raw.buffer)

    # receiving

    def frame(self, timeout=None):
        """The next frame (opcode, payload), pings unless answered by itself."""
        deadline = time.monotonic() + (self.timeout if timeout is None else timeout)
        while True:
            while self._waiting:
                opcode, payload = self._waiting.pop(0)
                if opcode != frames.PING:
                    return opcode, payload
                self.pings += 1
                if not self.auto_pong:
                    return opcode, payload
                self.send(frames.PONG, payload)
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError("no frame came")
            self.socket.settimeout(left)
            try:
                data = self.socket.recv(65536)
            except ConnectionResetError:
                data = b""
            if not data:
                raise Closed(1006)
            self._waiting = self._reader.feed(data)

    def message(self, timeout=None):
        """The next message: str (text) or bytes (binary). Raises Closed."""
        opcode, payload = self.frame(timeout)
        if opcode == frames.TEXT:
            return payload.decode()
        if opcode == frames.BINARY:
            return payload
        if opcode == frames.CLOSE:
            code = int.from_bytes(payload[:2], "big") if payload else 1005
            raise Closed(code, payload[2:].decode())
        raise AssertionError("unexpected frame %d %r" % (opcode, payload))

    def json(self, timeout=None):
        return json.loads(self.message(timeout))

    def expect(self, kind, timeout=None):
        """The next message, which must be of this type."""
        found = self.json(timeout)
        assert found["type"] == kind, "not %s but %r" % (kind, found)
        return found

    def until(self, kind, timeout=None):
        """Reads up to the first message of this type: (those before it, it)."""
        before = []
        while True:
            found = self.json(timeout)
            if found["type"] == kind:
                return before, found
            before.append(found)

    def closed(self, timeout=None):
        """Reads on to the end: (messages before it, code, reason)."""
        before = []
        try:
            while True:
                before.append(self.message(timeout))
        except Closed as end:
            return before, end.code, end.reason

    def quiet(self, seconds=0.3):
        """Fails when a message comes within this time."""
        try:
            raise AssertionError("unexpected: %r" % (self.message(seconds),))
        except TimeoutError:
            pass

    # sending

    def send_bytes(self, data):
        self.socket.settimeout(self.timeout)
        self.socket.sendall(data)

    def send(self, opcode, payload=b"", **options):
        self.send_bytes(frames.encode(opcode, payload, **options))

    def say(self, **message):
        """A JSON text message."""
        self.send(frames.TEXT, json.dumps(message).encode())

    # ending

    def close(self, code=1000):
        """The close handshake; returns the code that came back."""
        self.send(frames.CLOSE, frames.close_payload(code))
        code = self.closed()[1]
        self.socket.close()
        return code

    def drop(self):
        self.socket.close()
