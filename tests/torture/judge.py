"""Judges what subscribers got against what was published, as Jepsen would: every event has an id of
its own, and is ok, lost, duplicated, reordered, phantom or unknown. Pure: no clock, no input.

An order is a list of events of one channel that were committed in this order: where the backend has
one order for all, the one of the channel; else one of each publisher. A subscriber begins somewhere
in an order; from there on each event must come, or a gap must be told where it is missing.

The first word of an id names the stream it belongs to. Where positions are local to a server ("l…"),
a gap may lead into another stream, which begins anew: what it holds may come again."""
import bisect
from collections import Counter, namedtuple

COMMITTED, ROLLED_BACK, UNKNOWN = "committed", "rolled back", "unknown"

# began, ended: monotonic seconds around the commit; size: of the filler in its payload
Event = namedtuple("Event", "id channel status began ended size marker")
Event.__new__.__defaults__ = (False,)

# What a subscriber notes, each with its time. channel None: all of the connection's. What was asked
# for is replayed from there on, until it is ready. reason None: a bare socket was not told it.
Asked = namedtuple("Asked", "time channel text")
Message = namedtuple("Message", "time channel event size id")
Ready = namedtuple("Ready", "time channel id")
Gap = namedtuple("Gap", "time channel after before reason")
Note = namedtuple("Note", "time text")  # what nobody judges: down, up, closed …
Broken = namedtuple("Broken", "time text")  # what no server may send

BAD = ("lost", "duplicated", "reordered", "phantom", "corrupt", "renamed", "needless gap", "stuck",
       "broken", "not stored", "stored though refused", "grown", "not ended")


def stream_of(id):
    return id.partition(".")[0] if id else None


def number_of(id):
    """Ids of one stream can be compared by this."""
    return [int(word, 16) for word in id.split(".")[1:]]


class Life:
    """A subscriber from its beginning to where it forgets its position: what it noted, in order.
    settled: it stayed to the end, so it must have got the last event of each channel. One that did
    not may have left before it was told: the gap of an outage may come after the first events that
    follow it. A bare socket is told by being closed, some seconds later."""

    LATE_S = 15

    def __init__(self, name, channels, notes=(), settled=False, bare=False):
        self.name, self.channels = name, tuple(channels)
        self.notes, self.settled, self.bare = list(notes), settled, bare

    def left_soon_after(self, at):
        stayed = self.settled and not self.bare
        return not stayed and self.notes[-1].time - self.notes[at].time < self.LATE_S


class Retention:
    """What must be resumable at least: `size` bytes and `count` events back. allowed: the reasons of
    gaps told beyond; None: any gap is allowed at any time."""

    OVERHEAD = 120  # of a record, its channel and its part in the index

    def __init__(self, size, count, allowed):
        self.size, self.count, self.allowed = size, count, allowed


class Violation(namedtuple("Violation", "kind life channel event at text")):
    """at: index into life.notes, or None."""

    def __str__(self):
        return "%s: %s %s %s: %s" % (self.kind, self.life.name if self.life else "backend",
                                     self.channel, self.event, self.text)


class Judge:
    """events: {id: Event}; orders: {channel: [[id, …], …]}; total: all committed ids in the order of
    the backend, None where it has none."""

    def __init__(self, events, orders, retention, total=None):
        self.events, self.orders, self.retention = events, orders, retention
        self.counts = Counter()
        self.violations = []
        self._names = {}  # (stream, event) → id
        self._place = {}
        self._bytes_before = [0]
        for i, id in enumerate(total or ()):
            self._place[id] = i
            event = events.get(id)
            size = (event.size if event else 0) + Retention.OVERHEAD
            self._bytes_before.append(self._bytes_before[-1] + size)
        # _earliest[i]: when the first of total[i:] may have been there; never decreases.
        self._earliest = [events[id].began if id in events else 0.0 for id in total or ()]
        for i in range(len(self._earliest) - 2, -1, -1):
            self._earliest[i] = min(self._earliest[i], self._earliest[i + 1])

    def look_at_backend(self, stored):
        """stored: the ids that the backend turned out to have."""
        for event in self.events.values():
            if event.status == COMMITTED and event.id not in stored:
                self._found("not stored", None, event.channel, event.id, None,
                            "acknowledged, but the backend does not have it")
            if event.status == ROLLED_BACK and event.id in stored:
                self._found("stored though refused", None, event.channel, event.id, None,
                            "the backend has it")

    def look_at(self, life):
        for channel in life.channels:
            for order in self.orders.get(channel, ()):
                _Walk(self, life, channel, order).run()
            self._each_once(life, channel)
        for at, note in enumerate(life.notes):
            if isinstance(note, Broken):
                self._found("broken", life, None, None, at, note.text)

    def _found(self, kind, life, channel, event, at, text):
        self.counts[kind] += 1
        self.violations.append(Violation(kind, life, channel, event, at, text))

    def _each_once(self, life, channel):
        """What can be said of a message alone."""
        seen, again, place = set(), set(), _Place(channel)
        for at, note in enumerate(life.notes):
            if place.leads_elsewhere(note):
                again = set()
            if isinstance(note, Gap) and note.channel in (None, channel):
                self.counts["gaps"] += 1
            if not isinstance(note, Message) or note.channel != channel:
                continue
            event = self.events.get(note.event)
            if event is None or event.status == ROLLED_BACK:
                self._found("phantom", life, channel, note.event, at,
                            "never sent" if event is None else "it was rolled back")
                continue
            if event.status == UNKNOWN:
                self.counts["unknown, came"] += 1
            if event.channel != channel or event.size != note.size:
                self._found("corrupt", life, channel, note.event, at, "sent as %r" % (event,))
            if note.event in again:
                self._found("duplicated", life, channel, note.event, at, "came before")
            seen.add(note.event)
            again.add(note.event)
            self._name(life, channel, note, at)
        if life.settled and not any(self.events[id].marker for id in seen if id in self.events):
            self._found("stuck", life, channel, None, len(life.notes) - 1,
                        "did not get the last event of the channel")

    def _name(self, life, channel, note, at):
        """An event has the same id for everybody who has it from the same stream."""
        if not note.id:
            return
        key = stream_of(note.id), note.event
        if self._names.setdefault(key, note.id) != note.id:
            self._found("renamed", life, channel, note.event, at,
                        "%s here, %s elsewhere" % (note.id, self._names[key]))

    def behind(self, last, time):
        """(bytes, events) that may have been appended between event `last` and this time."""
        begin = self._place[last] + 1
        end = max(begin, bisect.bisect_right(self._earliest, time))
        return self._bytes_before[end] - self._bytes_before[begin], end - begin


class _Range:
    """What a gap covers, wherever it is told: the events after an outage may have begun to come
    before it, and what is held may be replayed after it."""

    def __init__(self, after, before):
        """after None: from the beginning of the stream."""
        self._stream, self._before = stream_of(before), number_of(before)
        self._after = number_of(after) if stream_of(after) == self._stream else None

    def overlaps(self, after, before):
        """Does it reach into what is between these two ids? None: there is none on this side."""
        if before and stream_of(before) != self._stream:
            return False
        if after and stream_of(after) == self._stream and self._before <= number_of(after):
            return False
        return not (before and self._after) or self._after < number_of(before)


class _Place:
    """Which stream a channel's notes are of."""

    def __init__(self, channel):
        self._channel, self._stream = channel, None

    def leads_elsewhere(self, note):
        """True for a gap between two streams of local positions."""
        if isinstance(note, (Note, Asked, Broken)) or note.channel not in (None, self._channel):
            return False
        before, gap = self._stream, isinstance(note, Gap)
        self._stream = stream_of(note.before if gap else note.id) or before
        return bool(gap and before and before != self._stream
                    and before[0] == "l" and self._stream[0] == "l")


class _Walk:
    """One subscriber, one channel, one order. place: where the channel stood last, in any order."""

    def __init__(self, judge, life, channel, order):
        self.judge, self.life, self.channel, self.order = judge, life, channel, order
        self.index = {id: i for i, id in enumerate(order)}
        self.last = -1      # the furthest that came
        self.begun = None   # when the first ready came
        self.gap = False    # told since `last`
        self.replay = False  # asked for, not ready yet
        self.until_ready = False  # the gap covers all of a replay
        self.marked = None  # when the channel's last event was sent, if it came
        self.seen = set()
        self.again = set()  # of this stream
        self.anew = False   # the next event begins another stream
        self.last_id = self.place = None
        self.missed = []    # (index into the order, at, after, before): lost unless it comes late
        self.ranges = []    # of gaps that name both ends

    def run(self):
        place = _Place(self.channel)
        for at, note in enumerate(self.life.notes):
            if place.leads_elsewhere(note):
                self.again, self.anew = set(), True
            if isinstance(note, Gap) and note.channel in (None, self.channel):
                self._on_gap(note, at)
            elif isinstance(note, Asked) and note.channel in (None, self.channel):
                self.replay, self.until_ready = True, False
            elif isinstance(note, Ready) and note.channel == self.channel:
                self.replay = self.until_ready = False
                self.begun = self.begun or note.time
                self.place = note.id
            elif isinstance(note, Message) and note.channel == self.channel:
                self._on_message(note, at)
                self.place = note.id
        if self.marked is not None:
            rest = [i for i in range(self.last + 1, len(self.order))
                    if self._event(i) and self._event(i).ended < self.marked]
            self._missing(rest, len(self.life.notes) - 1)
        for i, at, after, before in self.missed:
            if self.order[i] in self.seen:
                continue
            if any(r.overlaps(after, before) for r in self.ranges) or \
                    self.judge.retention.allowed != () and self.life.left_soon_after(at):
                self.judge.counts["in a gap"] += 1
            else:
                self.judge._found("lost", self.life, self.channel, self.order[i], at,
                                  "committed, not received, and no gap was told")

    def _event(self, i):
        return self.judge.events.get(self.order[i])

    def _on_message(self, note, at):
        event = self.judge.events.get(note.event)
        if event and event.marker and self.marked is None:
            self.marked = event.began
        i = self.index.get(note.event)
        if i is None:
            return
        if self.anew:
            self.last, self.anew = min(self.last, i - 1), False
        if note.event in self.again:
            return
        self.again.add(note.event)
        self.seen.add(note.event)
        if i < self.last:
            self.judge._found("reordered", self.life, self.channel, note.event, at,
                              "after %s" % self.order[self.last])
            return
        self._missing(range(self.last + 1, i), at, note.id)
        self.judge.counts["ok"] += 1
        self.last, self.last_id, self.gap = i, note.id, False

    def _missing(self, indices, at, before=None):
        """These did not come before notes[at]."""
        for i in indices:
            if self.last < 0 and not self._after_begin(i):
                continue
            if self.gap or self.until_ready:
                self.judge.counts["in a gap"] += 1
                continue
            self.missed.append((i, at, self.last_id, before))

    def _after_begin(self, i):
        """Nothing came before it: it had to come if it was sent after the first ready."""
        event = self._event(i)
        return event is not None and self.begun is not None and event.began > self.begun

    def _on_gap(self, note, at):
        self.gap = True
        if self.replay and note.before and stream_of(note.before) != stream_of(self.last_id):
            self.until_ready = True  # its end can't be compared with the ids of events
        if note.before:
            self.ranges.append(_Range(note.after or self.place, note.before))
        retention = self.judge.retention
        if retention.allowed is None or self.last < 0:
            return
        text = None
        if note.reason is None and retention.allowed:
            return
        if note.reason not in retention.allowed:
            text = "%s: nothing was to expire" % note.reason
        else:
            size, count = self.judge.behind(self.order[self.last], note.time)
            if size < retention.size and count < retention.count:
                text = "%s: only %d bytes, %d events behind" % (note.reason, size, count)
        if text:
            self.judge._found("needless gap", self.life, self.channel, self.order[self.last], at,
                              text)
