"""Server-sent events, read as the HTML standard says; a blocking client with the wire in view."""
import json
import socket
import time

from web import Raw


class Event:
    def __init__(self, kind, data, id):
        self.kind, self.data, self.id = kind, data, id

    @property
    def json(self):
        return json.loads(self.data)

    def __repr__(self):
        return "Event(%r, %.200r, id=%r)" % (self.kind, self.data, self.id)


class Reader:
    """Bytes in, events out, by section 9.2.6 of the standard: CR, LF and CRLF end lines, a block
    without data dispatches nothing, an id moves the last event id."""

    def __init__(self):
        self._text = b""
        self._skip_lf = False
        self._data = []
        self._kind = ""
        self.last_id = ""
        self._id = ""
        self.retry = None
        self.comments = 0
        self.silent_ids = 0  # blocks that moved the id and dispatched nothing

    def feed(self, data):
        events = []
        text = self._text + data
        if self._skip_lf and text:
            text = text[1:] if text[:1] == b"\n" else text
            self._skip_lf = False
        while True:
            ends = [i for i in (text.find(b"\n"), text.find(b"\r")) if i >= 0]
            if not ends:
                break
            end = min(ends)
            line, crlf = text[:end], text[end:end + 2] == b"\r\n"
            self._skip_lf = text[end:] == b"\r"
            text = text[end + (2 if crlf else 1):]
            self._line(line.decode(), events)
        self._text = text
        return events

    def _line(self, line, events):
        if not line:
            self._dispatch(events)
            return
        name, _, value = line.partition(":")
        value = value[1:] if value.startswith(" ") else value
        if not name:
            self.comments += 1
        elif name == "data":
            self._data.append(value)
        elif name == "event":
            self._kind = value
        elif name == "id" and "\0" not in value:
            self._id = value
        elif name == "retry" and value.isdigit():
            self.retry = int(value)

    def _dispatch(self, events):
        moved = self._id != self.last_id
        self.last_id = self._id
        if self._data:
            events.append(Event(self._kind or "message", "\n".join(self._data), self.last_id))
        elif moved:
            self.silent_ids += 1
        self._data, self._kind = [], ""


class EventSource:
    """Does not reconnect by itself: reopen() does, as a browser would."""

    def __init__(self, address, path, last_event_id=None, headers=None, timeout=15):
        self.address, self.path, self.timeout = address, path, timeout
        self._headers = headers or {}
        self._open(last_event_id)

    def _open(self, last_event_id):
        self.reader = Reader()
        self._waiting = []
        self._dispatched_id = last_event_id or ""
        self.wire = b""
        self.socket = socket.create_connection(self.address, self.timeout)
        headers = dict(self._headers, Accept="text/event-stream", Host="%s:%d" % self.address)
        if last_event_id is not None:
            headers["Last-Event-ID"] = last_event_id
        head = "GET %s HTTP/1.1\r\n" % self.path + "".join(
            "%s: %s\r\n" % pair for pair in headers.items()) + "\r\n"
        self.socket.sendall(head.encode())
        raw = Raw.__new__(Raw)
        raw.socket, raw.buffer = self.socket, b""
        self.response = raw.response()
        assert self.response is not None, "the connection ended"
        if self.response.status == 200:
            self.reader.last_id = self.reader._id = last_event_id or ""
            self._take(raw.buffer)

    def _take(self, data):
        self.wire += data
        self._waiting += self.reader.feed(data)

    def event(self, timeout=None):
        """The next event; None when the server has ended the stream."""
        deadline = time.monotonic() + (self.timeout if timeout is None else timeout)
        while not self._waiting:
            if not self.fill(deadline):
                return None
        event = self._waiting.pop(0)
        self._dispatched_id = event.id
        return event

    def fill(self, deadline):
        """Reads some bytes, whatever they are; False at the end."""
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("nothing came")
        self.socket.settimeout(left)
        try:
            data = self.socket.recv(65536)
        except ConnectionResetError:
            data = b""
        self._take(data)
        return bool(data)

    def expect(self, kind, timeout=None):
        found = self.event(timeout)
        assert found is not None and found.kind == kind, "not %s but %r" % (kind, found)
        return found

    def until(self, kind, timeout=None):
        """(events before the first of this kind, it)"""
        before = []
        while True:
            found = self.event(timeout)
            assert found is not None, "the stream ended after %r" % before
            if found.kind == kind:
                return before, found
            before.append(found)

    def envelope(self, timeout=None):
        """The next event of the query form, as JSON."""
        return self.expect("message", timeout).json

    @property
    def last_id(self):
        """Of what the test has seen: as if the rest had not come yet."""
        return self._dispatched_id if self._waiting else self.reader.last_id

    def reopen(self):
        self.socket.close()
        self._open(self.last_id)

    def drop(self):
        self.socket.close()
