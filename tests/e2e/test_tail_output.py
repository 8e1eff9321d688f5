"""What `fanwire tail` makes of payloads and names: they are other people's bytes."""
import os
import subprocess
import urllib.parse

from case import equal


def tail(t, server, *arguments, stdout=subprocess.PIPE):
    return subprocess.run([t.binary, "tail", "-s", server.url, "--since", "oldest", *arguments],
                          stdin=subprocess.DEVNULL, stdout=stdout, stderr=subprocess.PIPE,
                          timeout=30)


def test_payloads_are_printed_as_they_were_sent(t):
    server = t.server(workers=1)
    payloads = [b'{"n": 12345678901234567890123.10, "e": "\\u00e4\\/"}', "text ü\r".encode(), b"",
                b'"quoted\\n"', b"\x00\xff\xfe", b"two\nlines", b"[" * 500 + b"]" * 500]
    for payload in payloads:
        server.publish_ok("a", payload)
    done = tail(t, server, "-n", str(len(payloads)), "a")
    equal((done.returncode, done.stdout, done.stderr),
          (0, b"".join(p + b"\n" for p in payloads), b""))


def test_odd_names(t):
    server = t.server(workers=1)
    names = ["a/b ü?&x=1", "%41", "a+b", "#", "x" * 255]
    for name in names:
        server.publish_ok(urllib.parse.quote(name, safe=""), "payload")
    done = tail(t, server, "-n", str(len(names)), *names)
    equal((done.returncode, done.stdout.decode()),
          (0, "".join("%s\tpayload\n" % name for name in names)))


def test_they_do_not_drive_a_terminal(t):
    server = t.server(workers=1)
    server.publish_ok("a", b"\x1b[2Jred\x07\xc2\x9b1m\ttab")
    equal(tail(t, server, "-n", "1", "a").stdout, b"\x1b[2Jred\x07\xc2\x9b1m\ttab\n")
    master, slave = os.openpty()
    equal(tail(t, server, "-n", "1", "a", stdout=slave).returncode, 0)
    os.close(slave)
    shown = os.read(master, 1000)
    os.close(master)
    equal(shown.replace(b"\r\n", b"\n"), b"\\x1B[2Jred\\x07\\x9B1m\ttab\n")


def test_a_full_disk_is_told(t):
    server = t.server(workers=1)
    server.publish_ok("a", "x")
    with open("/dev/full", "wb") as full:
        done = tail(t, server, "a", stdout=full)
    equal(done.returncode, 1)
    assert b"No space left" in done.stderr, done.stderr
