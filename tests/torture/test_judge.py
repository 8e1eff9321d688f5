#!/usr/bin/python3
"""The judge catches each kind of wrong, and nothing that is right."""
import sys
import unittest

sys.dont_write_bytecode = True

from judge import (COMMITTED, ROLLED_BACK, UNKNOWN, Asked, Broken, Event, Gap, Judge, Life, Message, Note,
                   Ready, Retention)

ANY_GAP = Retention(0, 0, None)
NO_GAP = Retention(1 << 30, 1 << 30, ())


def events(n=6, **statuses):
    """e0 … e(n-1) and the marker, sent at times 10, 20, …, each within one second."""
    found = {}
    for i in range(n):
        id = "e%d" % i
        found[id] = Event(id, "x", statuses.get(id, COMMITTED), 10.0 * (i + 1), 10.0 * (i + 1) + 1, 5)
    found["end"] = Event("end", "x", COMMITTED, 1000.0, 1001.0, 5, True)
    return found


def message(name, time=500.0, channel="x", size=5, id=None):
    return Message(time, channel, name, size, id or "p1." + name)


def notes(*words):
    """Names are messages; "ready", "gap" and "down" are themselves; a note is kept."""
    made = []
    for word in words:
        if not isinstance(word, str):
            made.append(word)
        elif word == "ready":
            made.append(Ready(15.0, "x", "p1.0"))
        elif word == "gap":
            made.append(Gap(500.0, "x", None, "p1.9", "expired"))
        elif word == "down":
            made.append(Note(500.0, "down"))
        else:
            made.append(message(word))
    return made


ALL = ["e1", "e2", "e3", "e4", "e5", "end"]


class JudgeTest(unittest.TestCase):
    def look(self, words, sent=None, order=None, retention=ANY_GAP, settled=True, total=False):
        sent = sent or events()
        order = order or [id for id in sent if sent[id].status == COMMITTED]
        judge = Judge(sent, {"x": [order]}, retention, order if total else None)
        judge.look_at(Life("one", ["x"], notes(*words), settled))
        return judge

    def bad(self, judge):
        """What was found: [(kind, event), …]"""
        return [(v.kind, v.event) for v in judge.violations]

    def test_everything_came(self):
        judge = self.look(["ready", *ALL])
        self.assertEqual(self.bad(judge), [])
        self.assertEqual(judge.counts["ok"], 6)

    def test_begins_in_the_middle(self):
        """What was sent before the first ready may come or not."""
        self.assertEqual(self.bad(self.look(["ready", *ALL])), [])
        self.assertEqual(self.bad(self.look(["ready", "e0", *ALL])), [])

    def test_lost(self):
        judge = self.look(["ready", "e1", "e2", "e4", "e5", "end"])
        self.assertEqual(self.bad(judge), [("lost", "e3")])

    def test_lost_at_the_beginning(self):
        judge = self.look(["ready", "e2", "e3", "e4", "e5", "end"])
        self.assertEqual(self.bad(judge), [("lost", "e1")])

    def test_lost_when_down_is_told_only(self):
        judge = self.look(["ready", "e1", "e2", "down", "e4", "e5", "end"])
        self.assertEqual(self.bad(judge), [("lost", "e3")])

    def test_lost_at_the_end_of_a_publisher(self):
        """The marker is another's: e4 and e5 were sent before it and never came."""
        sent = events()
        judge = Judge(sent, {"x": [["e0", "e1", "e2", "e3", "e4", "e5"], ["end"]]}, ANY_GAP)
        judge.look_at(Life("one", ["x"], notes("ready", "e1", "e2", "e3", "end"), True))
        self.assertEqual(self.bad(judge), [("lost", "e4"), ("lost", "e5")])

    def test_lost_all_of_a_publisher(self):
        judge = Judge(events(), {"x": [["e0", "e1", "e2", "e3", "e4", "e5"], ["end"]]}, ANY_GAP)
        judge.look_at(Life("one", ["x"], notes("ready", "end"), True))
        self.assertEqual(len(self.bad(judge)), 5)

    def test_a_gap_covers(self):
        judge = self.look(["ready", "e1", "gap", "e4", "e5", "end"])
        self.assertEqual(self.bad(judge), [])
        self.assertEqual((judge.counts["in a gap"], judge.counts["gaps"]), (2, 1))

    def test_a_gap_of_all_channels_covers(self):
        everything = Gap(500.0, None, None, None, "restart")
        self.assertEqual(self.bad(self.look(["ready", "e1", everything, "e4", "e5", "end"])), [])

    def test_a_gap_elsewhere_does_not_cover(self):
        other = Gap(500.0, "y", None, None, "expired")
        judge = self.look(["ready", "e1", other, "e3", "e4", "e5", "end"])
        self.assertEqual(self.bad(judge), [("lost", "e2")])
        judge = self.look(["ready", "e1", "e3", "gap", "e4", "e5", "end"])  # told too late
        self.assertEqual(self.bad(judge), [("lost", "e2")])
        judge = self.look(["ready", "gap", "e1", "e3", "e4", "e5", "end"])  # used up before
        self.assertEqual(self.bad(judge), [("lost", "e2")])

    def test_a_gap_that_is_told_late(self):
        """Its two ends say what it covers."""
        come = [message("e%d" % i, id="l1.%x" % (i * 16)) for i in (1, 3, 4, 5)]
        come.append(message("end", id="l1.100"))

        def bad(after, before):
            gap = Gap(500.0, "x", after, before, "restart")
            return self.bad(self.look(["ready", *come[:3], gap, *come[3:]]))
        self.assertEqual(bad("l1.10", "l1.41"), [])
        self.assertEqual(bad("l1.2f", "l1.41"), [])
        self.assertEqual(bad("l1.30", "l1.41"), [("lost", "e2")])
        self.assertEqual(bad("l2.10", "l2.41"), [("lost", "e2")])
        self.assertEqual(bad(None, "l1.41"), [("lost", "e2")])  # from e4 on, where it is told
        self.assertEqual(bad(None, "l2.41"), [("lost", "e2")])

    def test_a_gap_before_a_replay(self):
        """Into another stream: whatever it held before is covered, and nothing later."""
        one = [message(e, id="l1." + e) for e in ("e0", "e1")]
        two = [message("e%d" % i, id="l2.%x" % (i * 16)) for i in (0, 1, 3, 5)]
        end = message("end", id="l2.100")

        def bad(before):
            gap = Gap(500.0, "x", None, before, "new-epoch")
            return self.bad(self.look(["ready", *one, gap, *two, end]))
        self.assertEqual(bad("l2.50"), [])
        self.assertEqual(bad("l2.30"), [("lost", "e4")])

    def test_who_leaves_may_not_have_been_told(self):
        def bad(retention, *more):
            sent = events()
            judge = Judge(sent, {"x": [list(sent)]}, retention)
            judge.look_at(Life("one", ["x"], notes("e1", "e3", *more)))
            return self.bad(judge)
        closed = Note(502.0, "closed 4102")
        self.assertEqual(bad(ANY_GAP, closed), [])
        self.assertEqual(bad(ANY_GAP, "e4", Note(600.0, "left")), [("lost", "e2")])
        self.assertEqual(bad(NO_GAP, closed), [("lost", "e2")])

    def test_a_gap_told_before_a_replay(self):
        """Its end is local, the ids are not: it covers the replay, and nothing after it."""
        gap = Gap(500.0, "x", None, "l1.30", "expired")
        asked, ready = Asked(400.0, "x", "since e1"), Ready(501.0, "x", "p1.3")
        judge = self.look(["ready", "e1", asked, gap, "e2", "e4", ready, "e5", "end"])
        self.assertEqual(self.bad(judge), [])
        judge = self.look(["ready", "e1", asked, gap, "e2", ready, "e4", "e5", "end"])
        self.assertEqual(self.bad(judge), [("lost", "e3")])
        judge = self.look(["ready", "e1", gap, "e2", "e4", "e5", "end"])
        self.assertEqual(self.bad(judge), [("lost", "e3")])

    def test_duplicated(self):
        judge = self.look(["ready", "e1", "e2", "e2", "e3", "e4", "e5", "end"])
        self.assertEqual(self.bad(judge), [("duplicated", "e2")])
        judge = self.look(["ready", "e1", "e2", "e3", "e4", "gap", "e2", "e5", "end"])
        self.assertEqual(self.bad(judge), [("duplicated", "e2")])

    def test_reordered(self):
        judge = self.look(["ready", "e1", "e3", "e2", "e4", "e5", "end"])
        self.assertEqual(self.bad(judge), [("reordered", "e2")])
        judge = self.look(["ready", "e1", "gap", "e3", "e2", "e4", "e5", "end"])
        self.assertEqual(self.bad(judge), [("reordered", "e2")])

    def test_phantom(self):
        sent = events(e3=ROLLED_BACK)
        judge = self.look(["ready", "e1", "e2", "e3", "e4", "e5", "end"], sent)
        self.assertEqual(self.bad(judge), [("phantom", "e3")])
        judge = self.look(["ready", "e1", "e2", "e9", "e3", "e4", "e5", "end"])
        self.assertEqual(self.bad(judge), [("phantom", "e9")])
        self.assertEqual(self.bad(self.look(["ready", "e1", "e2", "e4", "e5", "end"], sent)), [])

    def test_unknown(self):
        """May come or not, anywhere, but once."""
        sent = events(e3=UNKNOWN)
        self.assertEqual(self.bad(self.look(["ready", "e1", "e2", "e4", "e5", "end"], sent)), [])
        judge = self.look(["ready", "e1", "e2", "e4", "e3", "e5", "end"], sent)
        self.assertEqual(self.bad(judge), [])
        self.assertEqual(judge.counts["unknown, came"], 1)
        judge = self.look(["ready", "e1", "e3", "e2", "e3", "e4", "e5", "end"], sent)
        self.assertEqual(self.bad(judge), [("duplicated", "e3")])

    def test_corrupt(self):
        wrong = message("e2", size=4)
        judge = self.look(["ready", "e1", wrong, "e3", "e4", "e5", "end"])
        self.assertEqual(self.bad(judge), [("corrupt", "e2")])

    def test_renamed(self):
        judge = self.look(["ready", *ALL])
        other = notes("ready", "e1", message("e2", id="p1.other"), "e3", "e4", "e5", "end")
        judge.look_at(Life("two", ["x"], other, True))
        self.assertEqual(self.bad(judge), [("renamed", "e2")])
        judge = self.look(["ready", *ALL])
        other[2] = message("e2", id="p2.e2")  # of another stream
        judge.look_at(Life("two", ["x"], other, True))
        self.assertEqual(self.bad(judge), [])

    def test_another_stream(self):
        """After a gap it may begin anew, with what came before; without one it may not."""
        one = [message(e, id="l1." + e) for e in ("e1", "e2", "e3")]
        two = [message(e, id="l2." + e) for e in ("e2", "e3", "e4", "e5", "end")]
        gap = Gap(500.0, "x", None, "l2.0", "new-epoch")
        self.assertEqual(self.bad(self.look(["ready", *one, gap, *two])), [])
        judge = self.look(["ready", *one, *two])
        self.assertEqual(self.bad(judge), [("duplicated", "e2"), ("duplicated", "e3")])
        same = Gap(500.0, "x", None, "l1.0", "expired")
        judge = self.look(["ready", *one, same, *two])
        self.assertEqual(self.bad(judge), [("duplicated", "e2"), ("duplicated", "e3")])
        judge = self.look(["ready", *one, gap, *two[:2], *two[3:]])
        self.assertEqual(self.bad(judge), [("lost", "e4")])

    def test_stuck(self):
        self.assertEqual(self.bad(self.look(["ready", *ALL[:-1]])), [("stuck", None)])
        self.assertEqual(self.bad(self.look(["ready", *ALL[:3]], settled=False)), [])

    def test_broken(self):
        judge = self.look(["ready", Broken(1.0, "a masked frame"), *ALL])
        self.assertEqual(self.bad(judge), [("broken", None)])

    def test_needless_gap(self):
        words = ["ready", "e1", "gap", "e4", "e5", "end"]
        judge = self.look(words, retention=NO_GAP, total=True)
        self.assertEqual(self.bad(judge), [("needless gap", "e1")])
        small = Retention(2 * 125, 100, ("expired", "lapped"))
        self.assertEqual(self.bad(self.look(words, retention=small, total=True)), [])
        large = Retention(100 * 125, 100, ("expired", "lapped"))
        judge = self.look(words, retention=large, total=True)
        self.assertEqual(self.bad(judge), [("needless gap", "e1")])
        early = Gap(25.0, "x", None, None, "expired")  # only e1 had been sent
        judge = self.look(["ready", "e1", early, "e4", "e5", "end"], retention=small, total=True)
        self.assertEqual(self.bad(judge), [("needless gap", "e1")])
        few = Retention(1 << 20, 3, ("expired", "lapped"))
        self.assertEqual(self.bad(self.look(words, retention=few, total=True)), [])

    def test_a_gap_of_a_wrong_reason(self):
        gap = Gap(500.0, "x", None, None, "foreign-position")
        small = Retention(2 * 125, 100, ("expired", "lapped"))
        judge = self.look(["ready", "e1", gap, "e4", "e5", "end"], retention=small, total=True)
        self.assertEqual(self.bad(judge), [("needless gap", "e1")])

    def test_the_backend(self):
        sent = events(e2=ROLLED_BACK, e3=UNKNOWN)
        judge = Judge(sent, {}, ANY_GAP)
        judge.look_at_backend(set(sent) - {"e1"})
        self.assertEqual(self.bad(judge), [("not stored", "e1"), ("stored though refused", "e2")])

    def test_other_channels_do_not_matter(self):
        self.assertEqual(self.bad(self.look(["ready", "e1", message("e2", channel="y"), *ALL[1:]])),
                         [])


if __name__ == "__main__":
    unittest.main()
