"""HTTP as a client speaks it: whole requests, and raw bytes where a request is not a good one."""
import http.client
import json
import socket


class Response:
    def __init__(self, status, headers, body):
        self.status = status
        self.headers = headers  # keys in lower case
        self.body = body

    @property
    def json(self):
        return json.loads(self.body)

    @property
    def code(self):
        """Of a problem body (RFC 9457)."""
        assert self.headers.get("content-type") == "application/problem+json", self
        return self.json["code"]

    def __repr__(self):
        return "HTTP %d %r %.300r" % (self.status, self.headers, self.body)


def request(address, method, path, body=None, headers=None, timeout=15):
    """One request on a connection of its own."""
    connection = http.client.HTTPConnection(*address, timeout=timeout)
    try:
        connection.request(method, path, body, headers or {})
        answer = connection.getresponse()
        return Response(answer.status, {k.lower(): v for k, v in answer.getheaders()},
                        answer.read())
    finally:
        connection.close()


class Raw:
    """A TCP connection on which a test says exactly what it wants."""

    def __init__(self, address, timeout=15):
        self.socket = socket.create_connection(address, timeout)
        self.buffer = b""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def send(self, data):
        """False when the server has closed already."""
        try:
            self.socket.sendall(data)
            return True
        except (BrokenPipeError, ConnectionResetError):
            return False

    def fill(self):
        """Reads some more; False at the end."""
        try:
            data = self.socket.recv(65536)
        except ConnectionResetError:
            return False
        self.buffer += data
        return bool(data)

    def response(self):
        """Reads one whole response; None when the connection ended before one began."""
        while b"\r\n\r\n" not in self.buffer:
            if not self.fill():
                assert not self.buffer, "half a response: %r" % self.buffer
                return None
        head, _, rest = self.buffer.partition(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        headers = {}
        for line in lines[1:]:
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        status = int(lines[0].split()[1])
        self.buffer = rest
        length = int(headers.get("content-length", 0))
        while len(self.buffer) < length:
            assert self.fill(), "half a body: %r" % self.buffer
        body, self.buffer = self.buffer[:length], self.buffer[length:]
        return Response(status, headers, body)

    def rest(self):
        """Everything up to the end of the connection."""
        while self.fill():
            pass
        data, self.buffer = self.buffer, b""
        return data

    def ended(self):
        """Waits for the server to end the connection; nothing more may come."""
        rest = self.rest()
        assert rest == b"", "unexpected: %r" % rest[:300]


def raw_request(address, data, timeout=15):
    """Sends bytes, returns the response or None."""
    with Raw(address, timeout) as raw:
        raw.send(data)
        return raw.response()
