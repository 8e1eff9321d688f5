"""Subscribers: threads that connect, read, stop reading, leave without a word, and come back with
the position they had, to the same server or another; each writes down all that it was told. One
kind, the heir, goes on with the position of somebody else."""
import json
import random
import socket
import struct
import threading
import time
import urllib.parse

import web
from judge import Asked, Broken, Gap, Life, Message, Note, Ready
from publishers import filler
from sse import EventSource
from ws import Closed, Refused, WebSocket

HEARTBEAT_S = 5
SILENCE_S = 12  # no frame for so long: the connection is dead
SMALL_BUFFER = 4096


class Ended(Exception):
    """The connection is over; come back."""


def quoted(channel):
    return urllib.parse.quote(channel, safe="")


class Progress:
    """What the run wants of its subscribers."""

    def __init__(self, hosts):
        self.hosts = hosts
        self.settling = threading.Event()  # stay connected, read, get the last events
        self.over = threading.Event()


class Subscriber(threading.Thread):
    """positions: what each channel would resume from, as the JavaScript client keeps it. joint: the
    one position for all its channels, None when there is none."""

    kind = None
    n_channels = (1, 1)

    def __init__(self, number, seed, progress, channels, donors):
        self.chance = random.Random("%s subscriber %d" % (seed, number))
        super().__init__(name="%s-%d" % (self.kind, number), daemon=True)
        self.progress, self.donors = progress, donors
        n = self.chance.randint(*self.n_channels)
        self.channels = sorted(self.chance.sample(channels, n))
        self.lock = threading.Lock()
        self.lives = []
        self.notes = []
        self.positions, self.joint = {}, None
        self.ready = set()   # channels, on this connection
        self.marked = set()  # channels whose last event came
        self.n_sessions = 0
        self.failure = None

    # ---- what is written down ----

    def note(self, text):
        with self.lock:
            self.notes.append(Note(time.monotonic(), text))

    def asked(self, channel, *words):
        with self.lock:
            text = " ".join(str(word) for word in (self.host.name, *words))
            self.notes.append(Asked(time.monotonic(), channel, text))

    def broken(self, text):
        with self.lock:
            self.notes.append(Broken(time.monotonic(), text))

    def on_payload(self, channel, text, id):
        try:
            value = json.loads(text) if isinstance(text, (str, bytes)) else text
            event, size = value["e"], len(value["f"])
            right = value["c"] == channel and value["f"] == filler(event, size)
        except (ValueError, KeyError, TypeError):
            event, size, right = "?%.80r" % (text,), -1, False
        self.notes.append(Message(time.monotonic(), channel, event, size if right else -1, id))
        if event.startswith("end"):
            self.marked.add(channel)

    def on_gap(self, gap):
        self.notes.append(Gap(time.monotonic(), gap.get("channel"), gap["after"], gap["before"],
                              gap["reason"]))

    def on_envelope(self, message):
        """Of fanwire.v1 and SSE's query form. Positions as clients/js keeps them."""
        kind, channel, id = message["type"], message.get("channel"), message.get("id")
        with self.lock:
            if kind == "message":
                self.on_payload(channel, message.get("data", message.get("text")), id)
                self.moved(id, channel)
            elif kind == "ready":
                self.notes.append(Ready(time.monotonic(), channel, id))
                self.ready.add(channel)
                self.positions[channel] = id
                self.moved_joint(id)
            elif kind == "gap":
                self.on_gap(message)
            elif kind == "position":
                self.moved(id)
            else:
                self.notes.append(Note(time.monotonic(), json.dumps(message)))

    def moved(self, id, channel=None):
        """An event's id moves its channel, and all that are live."""
        for one in self.ready if channel is None or channel in self.ready else (channel,):
            self.positions[one] = id
        self.moved_joint(id)

    def moved_joint(self, id):
        if self.together:
            self.joint = id

    # ---- its life ----

    def run(self):
        try:
            while not self.progress.over.is_set():
                self._once()
                self._away()
        except BaseException as error:
            self.failure = error
            raise

    def _once(self):
        self.n_sessions += 1
        self.begin_session()
        chance = self.chance
        self.host = chance.choice(self.progress.hosts)
        self.reads_slowly = chance.random() < 0.25
        # Who does not read would hold up the proxy's other connections.
        direct = self.reads_slowly or chance.random() < 0.4
        self.lifetime = chance.choice((0.3, 1.5, 4.0, 10.0)) * chance.uniform(0.5, 1.5)
        self.ready.clear()
        self.together = True
        try:
            self.session(self.host.address if direct else self.host.address_by_way)
        except (Closed, Refused, Ended, OSError) as error:
            self.note("ended: %s %r" % (self.host.name, error))
        except AssertionError as error:  # the clients' own word for what no server may do
            text = str(error)
            if not text.startswith(("half a", "the connection ended")):
                self.broken(text)
        finally:
            self.drop()

    def begin_session(self):
        pass

    def _away(self):
        if self.progress.settling.is_set():
            self.progress.over.wait(0.1)
        else:
            away = self.chance.choice((0.0, 0.05, 0.3, 1.0, 3.0)) * self.chance.random()
            self.progress.settling.wait(away)

    def read_until_leaving(self, read):
        """read(timeout) takes what comes, raises TimeoutError when nothing does."""
        leave = time.monotonic() + self.lifetime
        silent_since = time.monotonic()
        while not self.progress.over.is_set():
            now = time.monotonic()
            if now > leave and not self.progress.settling.is_set():
                raise Ended("left")
            if self.reads_slowly and not self.progress.settling.is_set() \
                    and self.chance.random() < 0.02:
                self.progress.settling.wait(self.chance.choice((0.2, 1.0, 4.0)))
                silent_since = time.monotonic()
            try:
                read(0.2)
                silent_since = time.monotonic()
            except TimeoutError:
                if now - silent_since > SILENCE_S:
                    raise Ended("silence") from None
                self.idle()

    def idle(self):
        pass

    def drop(self):
        """Abruptly, or as a process that ends."""
        connection, self.connection = self.connection, None
        if not connection:
            return
        if self.chance.random() < 0.5:
            connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER,
                                         struct.pack("ii", 1, 0))
        connection.drop()

    connection = None

    @property
    def settled(self):
        return self.marked.issuperset(self.channels)

    def finish(self):
        """What it lived through, for the judge."""
        return self.lives + [Life(self.name, self.channels, self.notes, settled=True,
                                  bare=self.kind == "bare")]

    def query(self, since):
        """since and the like; the first time it may begin with what is held."""
        if since is None and self.chance.random() < 0.5:
            since = "oldest"
        return "heartbeat=%d%s" % (HEARTBEAT_S, "&since=" + since if since else "")


class V1(Subscriber):
    """fanwire.v1, one channel or several; opened together, or subscribed to one by one."""

    kind = "v1"
    n_channels = (1, 4)

    def session(self, address):
        places = {self.positions.get(channel) for channel in self.channels}
        if self.joint is None and len(places) == 1:
            self.joint = places.pop()
        one_by_one = self.chance.random() < 0.4 or (self.joint is None and len(self.positions) > 0)
        buffer = SMALL_BUFFER if self.reads_slowly else None
        if one_by_one:
            self.together, self.joint = False, None
            path = "/ws?heartbeat=%d" % HEARTBEAT_S
        elif len(self.channels) == 1 and self.chance.random() < 0.5:
            path = "/ws/%s?%s" % (quoted(self.channels[0]), self.query(self.joint))
        else:
            path = "/ws?%s&%s" % ("&".join("channel=" + quoted(c) for c in self.channels),
                                  self.query(self.joint))
        self.asked(None, path)
        self.connection = WebSocket(address, path, protocol="fanwire.v1", timeout=8,
                                    receive_buffer=buffer)
        if one_by_one:
            for channel in self.channels:
                self.subscribe(channel)
        self.one_by_one, self.left = one_by_one, set()
        self.read_until_leaving(self.read)

    def subscribe(self, channel):
        message = {"type": "subscribe", "channel": channel}
        if channel in self.positions:
            message["since"] = self.positions[channel]
        self.asked(channel, message)
        self.connection.say(**message)

    def read(self, timeout):
        message = self.connection.json(timeout)
        self.on_envelope(message)
        if message["type"] == "unsubscribed":
            if "code" in message:
                raise Ended(repr(message))
            self.left.discard(message["channel"])
            self.subscribe(message["channel"])
        elif self.one_by_one and message["type"] == "position" or self.chance.random() < 0.002:
            self.leave_one()

    def leave_one(self):
        """And joins it again, when that is confirmed, with where it stood."""
        channel = self.chance.choice(self.channels)
        if self.one_by_one and channel in self.ready and not self.left:
            with self.lock:
                self.left.add(channel)
                self.ready.discard(channel)
            self.connection.say(type="unsubscribe", channel=channel)


class Sse(Subscriber):
    """One channel or several; a browser's Last-Event-ID."""

    kind = "sse"
    n_channels = (1, 4)

    def session(self, address):
        path = "/sse?%s" % "&".join("channel=" + quoted(c) for c in self.channels)
        path += "&" + self.query(None)
        self.asked(None, path, "Last-Event-ID:", self.joint)
        self.connection = EventSource(address, path, self.joint, timeout=8)
        if self.connection.response.status != 200:
            raise Ended(repr(self.connection.response))
        self.read_until_leaving(self.read)

    def read(self, timeout):
        before = self.connection.reader.silent_ids
        try:
            event = self.connection.event(timeout)
        except TimeoutError:
            self.joint = self.connection.last_id or self.joint
            if self.connection.reader.silent_ids == before:
                raise
            return
        if event is None:
            raise Ended("end of stream")
        self.on_envelope(event.json)
        self.joint = event.id or None


class SsePath(Sse):
    """The form of one channel, with bare payloads and named events."""

    kind = "sse-path"
    n_channels = (1, 1)

    def session(self, address):
        path = "/sse/%s?%s" % (quoted(self.channels[0]), self.query(None))
        self.asked(None, path, "Last-Event-ID:", self.joint)
        self.connection = EventSource(address, path, self.joint, timeout=8)
        if self.connection.response.status != 200:
            raise Ended(repr(self.connection.response))
        self.read_until_leaving(self.read)

    def on_envelope(self, message):
        raise AssertionError("not in this form: %r" % message)

    def read(self, timeout):
        before = self.connection.reader.silent_ids
        try:
            event = self.connection.event(timeout)
        except TimeoutError:
            self.joint = self.connection.last_id or self.joint
            if self.connection.reader.silent_ids == before:
                raise
            return
        if event is None:
            raise Ended("end of stream")
        if event.kind == "message":
            with self.lock:
                self.on_payload(self.channels[0], event.data, event.id)
        else:
            Subscriber.on_envelope(self, event.json)
        self.joint = event.id or None


class Bare(Subscriber):
    """A bare WebSocket: no positions, so each connection is a life of its own."""

    kind = "bare"

    def begin_session(self):
        if self.notes:
            self.lives.append(Life("%s/%d" % (self.name, self.n_sessions), self.channels,
                                   self.notes))
        self.notes, self.marked = [], set()

    def session(self, address):
        path = "/ws/%s?%s" % (quoted(self.channels[0]), self.query(None))
        self.asked(None, path)
        self.connection = WebSocket(address, path, timeout=8)
        try:
            self.read_until_leaving(self.read)
        except Closed as end:
            if end.code == 4102:
                with self.lock:
                    reason = None if end.reason == "gap" else end.reason
                    self.notes.append(Gap(time.monotonic(), None, None, None, reason))
            raise

    def read(self, timeout):
        pings = self.connection.pings
        try:
            text = self.connection.message(timeout)
        except TimeoutError:
            if self.connection.pings == pings:
                raise
            return
        with self.lock:
            self.on_payload(self.channels[0], text, None)


class Poller(Subscriber):
    """Reads /history again and again, from where the last page ended."""

    kind = "poller"

    def session(self, address):
        channel = self.channels[0]
        while not self.progress.over.is_set():
            since = self.joint or self.chance.choice(("oldest", "now"))
            limit = self.chance.choice((5, 100, 1000))
            self.asked(None, since)
            answer = web.request(address, "GET", "/history/%s?since=%s&limit=%d&wait=1"
                                 % (quoted(channel), since, limit), timeout=15)
            if answer.status != 200:
                raise Ended(repr(answer))
            self.take(channel, answer.json)
            if not answer.json["more"]:
                if not self.progress.settling.is_set() and self.chance.random() < 0.1:
                    raise Ended("left")
                self.progress.settling.wait(self.chance.random() * 0.5)
                self.progress.over.wait(0.05)

    def take(self, channel, page):
        with self.lock:
            if page["gap"]:
                self.on_gap(dict(page["gap"], channel=channel))
            for event in page["events"]:
                self.on_payload(channel, event.get("data", event.get("text")), event["id"])
            self.notes.append(Ready(time.monotonic(), channel, page["next"]))
            self.joint = page["next"]


class Heir(V1):
    """Goes on, each time it connects, with what somebody else got and where he stands."""

    kind = "heir"

    def begin_session(self):
        if self.progress.settling.is_set() and self.notes:
            return  # its own, from here on
        donor = self.chance.choice(self.donors)
        with donor.lock:
            if donor.joint is None:
                return
            notes, joint = list(donor.notes), donor.joint
            positions, marked = dict(donor.positions), set(donor.marked)
        if self.notes:
            self.lives.append(Life("%s/%d" % (self.name, self.n_sessions), self.channels,
                                   self.notes))
        with self.lock:
            self.channels = donor.channels
            self.notes, self.joint, self.marked = notes, joint, marked
            self.positions = {c: joint for c in donor.channels} if positions else {}
            self.notes.append(Note(time.monotonic(), "inherits %s of %s" % (joint, donor.name)))


def company(seed, progress, channels, n):
    """n subscribers of all kinds."""
    kinds = (V1, Sse, V1, SsePath, Bare, Poller, Heir, Sse, V1, Bare)
    made = []
    for i in range(n):
        donors = [s for s in made if s.kind in ("v1", "sse", "sse-path")]
        made.append(kinds[i % len(kinds)](i + 1, seed, progress, list(channels), donors))
    return made
