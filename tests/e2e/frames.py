"""WebSocket frames (RFC 6455, section 5), right and wrong ones."""
import os

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10


def xor(data, key):
    n = len(data)
    repeated = (key * (n // 4 + 1))[:n]
    return (int.from_bytes(data, "big") ^ int.from_bytes(repeated, "big")).to_bytes(n, "big")


def encode(opcode, payload=b"", fin=True, masked=True, rsv=0, length=None):
    """A frame; `length` overrides the length it claims to have."""
    n = len(payload) if length is None else length
    mask = 0x80 if masked else 0
    head = bytes([(0x80 if fin else 0) | rsv << 4 | opcode])
    if n < 126:
        head += bytes([mask | n])
    elif n < 65536:
        head += bytes([mask | 126]) + n.to_bytes(2, "big")
    else:
        head += bytes([mask | 127]) + n.to_bytes(8, "big")
    if not masked:
        return head + payload
    key = os.urandom(4)
    return head + key + xor(payload, key)


def close_payload(code, reason=""):
    return code.to_bytes(2, "big") + reason.encode()


class Reader:
    """Takes bytes, gives frames (opcode, payload); the server must neither mask nor fragment."""

    def __init__(self):
        self.buffer = bytearray()

    def feed(self, data):
        buffer = self.buffer
        buffer += data
        frames, at, end = [], 0, len(buffer)
        while end - at >= 2:
            first, n = buffer[at], buffer[at + 1]
            assert first & 0x70 == 0, "reserved bits set by the server: %#x" % first
            assert n < 128, "the server masks"
            start = at + 2
            if n >= 126:
                size = 2 if n == 126 else 8
                if end - start < size:
                    break
                n = int.from_bytes(buffer[start:start + size], "big")
                start += size
            if end - start < n:
                break
            assert first & 0x80, "the server fragments"
            frames.append((first & 15, bytes(buffer[start:start + n])))
            at = start + n
        del buffer[:at]
        return frames
