#!/usr/bin/python3
"""Explores what a weak memory can do to the log's protocols.

Tests on x86 cannot see a missing release or acquire, and ThreadSanitizer does not model fences. So
each protocol of src/log stands here as two short programs, and every execution of them is explored
in which each thread's operations take effect in any order that their C11 annotations allow (as on
ARMv8; for two threads C11 allows no more). Then:

  * the protocol as it is never ends badly;
  * with any single fence, release or acquire taken out it can end badly, so each is needed;
  * known wrong designs end badly, so the exploration sees what it should;
  * the code has the very operations that the programs have, in their order.

A writer may also be killed between any two operations, in any order that the compiler may have given
them: those are the programs with one thread, where every prefix counts.

A program has an operation per line:

    x = 1                     a relaxed store
    x = 1 release
    r <- x                    a relaxed load into a register
    r <- x acquire
    fence release | acquire | seq_cst

Usage: memory_order.py SRC_LOG_DIRECTORY
"""
import pathlib
import re
import sys
from typing import NamedTuple


class Op(NamedTuple):
    kind: str  # store, load, fence
    place: str
    value: object  # a store's number, a load's register
    order: str  # relaxed, release, acquire, seq_cst


def parse(line):
    words = line.split()
    if words[0] == "fence":
        return Op("fence", "", None, words[1])
    order = words[3] if len(words) > 3 else "relaxed"
    if words[1] == "=":
        return Op("store", words[0], int(words[2]), order)
    return Op("load", words[2], words[0], order)


def program(text):
    return [parse(line) for line in text.strip().splitlines()]


def fenced(ops, i, j):
    """Does a fence between i and j keep i before j?"""
    for op in ops[i + 1 : j]:
        if op.kind != "fence":
            continue
        if op.order == "seq_cst":
            return True
        if op.order == "release" and ops[j].kind == "store":
            return True
        if op.order == "acquire" and ops[i].kind == "load":
            return True
    return False


def kept(ops, i, j, tso):
    """Must i take effect before j, which follows it in the program?"""
    a, b = ops[i], ops[j]
    if "fence" in (a.kind, b.kind):
        return False
    if tso and not (a.kind == "store" and b.kind == "load"):
        return True
    return a.place == b.place or a.order == "acquire" or b.order == "release" or fenced(ops, i, j)


def predecessors(ops, tso):
    """For each operation the set of those that come before it, as bits."""
    return [sum(1 << i for i in range(j) if kept(ops, i, j, tso)) for j in range(len(ops))]


def explore(threads, initial, bad, every_state=False, tso=False):
    """Returns (number of states, a bad one or None)."""
    before = [predecessors(ops, tso) for ops in threads]
    fences = [sum(1 << i for i, op in enumerate(ops) if op.kind == "fence") for ops in threads]
    whole = [(1 << len(ops)) - 1 for ops in threads]
    start = (tuple(fences), frozenset(initial.items()), frozenset())
    seen, stack = {start}, [start]
    while stack:
        done, memory, registers = stack.pop()
        ended = all(d == w for d, w in zip(done, whole))
        if (ended or every_state) and bad({**dict(memory), **dict(registers)}):
            return len(seen), {**dict(memory), **dict(registers)}
        for t, ops in enumerate(threads):
            for i, op in enumerate(ops):
                if done[t] >> i & 1 or before[t][i] & ~done[t]:
                    continue
                now = dict(memory)
                regs = registers
                if op.kind == "store":
                    now[op.place] = op.value
                else:
                    regs = registers | {(op.value, now[op.place])}
                state = (
                    done[:t] + (done[t] | 1 << i,) + done[t + 1 :],
                    frozenset(now.items()),
                    regs,
                )
                if state not in seen:
                    seen.add(state)
                    stack.append(state)
    return len(seen), None


def weakened(ops):
    """The program with one annotation less, each in turn, and a word on which."""
    for i, op in enumerate(ops):
        if op.kind == "fence":
            yield f"fence {op.order}", ops[:i] + ops[i + 1 :]
        elif op.order != "relaxed":
            relaxed = op._replace(order="relaxed")
            yield f"{op.kind} {op.place} {op.order}", ops[:i] + [relaxed] + ops[i + 1 :]


class Protocol(NamedTuple):
    name: str
    threads: list
    bad: object  # of memory and registers by name
    code: list  # (file, function, [what its body has, in this order])
    initial: dict = {}


def places(threads):
    return {op.place: 0 for ops in threads for op in ops if op.kind != "fence"}


TAIL = "header->tail, tail, memory_order_release"
RELEASE = "atomic_thread_fence(memory_order_release)"
ACQUIRE = "atomic_thread_fence(memory_order_acquire)"

# Readers against the writer.
PROTOCOLS = [
    Protocol(
        "an_overwritten_record_is_lapped",
        ["tail = 1\nfence release\nword0 = 1\nword1 = 1",
         "a <- word0\nb <- word1\nfence acquire\nt <- tail"],
        lambda s: s["t"] == 0 and (s["a"] or s["b"]),
        [("log.c", "make_room", [TAIL, RELEASE]),
         ("log.c", "log_append", ["make_room(", "put_pad(", "put_record("]),
         ("layout.h", "log_lapped", [ACQUIRE, "header->tail, memory_order_relaxed"]),
         ("log.c", "log_peek", ["log_record_head_at(", "log_lapped("]),
         ("log.c", "log_body", ["log_words_load(", "log_lapped("]),
         ("resume.c", "is_of", ["log_words_load(", "log_lapped("])],
    ),
    Protocol(
        "tail_is_never_seen_beyond_indexed",
        ["indexed = 1\ntail = 1 release", "t <- tail acquire\ni <- indexed"],
        lambda s: s["t"] and not s["i"],
        [("log.c", "make_room", [TAIL]), ("log.c", "log_tail", ["header->tail, memory_order_acquire"])],
    ),
    Protocol(
        "a_record_before_indexed_is_whole",
        ["word0 = 1\nword1 = 1\nindexed = 1 release",
         "i <- indexed acquire\na <- word0\nb <- word1"],
        lambda s: s["i"] and not (s["a"] and s["b"]),
        [("log.c", "publish", ["header->indexed, head->off + head->size, memory_order_release"]),
         ("log.c", "log_append", ["put_record(", "publish("]),
         ("log.c", "log_indexed", ["header->indexed, memory_order_acquire"])],
    ),
    Protocol(
        "the_index_knows_what_is_before_indexed",
        ["last = 1\nmark = 1\nindexed = 1 release", "i <- indexed acquire\nl <- last\nm <- mark"],
        lambda s: s["i"] and not (s["l"] and s["m"]),
        [("log.c", "publish", ["log_index_put(", "log_mark_put(",
                               "header->indexed, head->off + head->size, memory_order_release"])],
    ),
    Protocol(
        "a_record_that_the_index_names_is_whole",
        ["word = 1\nlast = 1 release", "l <- last\nfence acquire\na <- word"],
        lambda s: s["l"] and not s["a"],
        [("index.c", "log_index_put", ["entries[i].last, off, memory_order_release"]),
         ("index.c", "log_index_get", ["look(", ACQUIRE])],
    ),
    Protocol(
        "a_record_that_a_new_entry_names_is_whole",
        ["word = 1\nseq = 1\nfence release\nlast = 1", "l <- last\nfence acquire\na <- word"],
        lambda s: s["l"] and not s["a"],
        [("index.c", "replace", ["store(&bucket->seq, seq + 1)", RELEASE, "&entry->last, off"])],
    ),
    Protocol(
        "a_bucket_is_seen_before_or_after",
        ["seq = 1\nfence release\nfloor = 1\nlast = 1\nhash = 1\nseq = 2 release",
         "s <- seq acquire\nh <- hash\nl <- last\nf <- floor\nfence acquire\nz <- seq"],
        lambda s: s["s"] == s["z"] != 1 and not s["h"] == s["l"] == s["f"],
        [("index.c", "replace", ["store(&bucket->seq, seq + 1)", RELEASE, "&bucket->floor, evicted",
                                 "&entry->last, off", "&entry->hash, hash",
                                 "&bucket->seq, seq + 2, memory_order_release"]),
         ("index.c", "log_index_get", ["&bucket->seq, memory_order_acquire", "look(", ACQUIRE,
                                       "load(&bucket->seq) == seq"])],
    ),
    Protocol(
        "a_mark_is_seen_before_or_after",
        ["seq = 1\nfence release\noff = 1\npos = 1\nseq = 2 release",
         "s <- seq acquire\no <- off\np <- pos\nfence acquire\nz <- seq"],
        lambda s: s["s"] == s["z"] != 1 and s["o"] != s["p"],
        [("marks.c", "log_mark_put", ["store(&mark->seq, seq + 1)", RELEASE, "store(&mark->off, off)",
                                      "&mark->pos[0]", "&mark->time_ms",
                                      "&mark->seq, seq + 2, memory_order_release"]),
         ("marks.c", "log_mark_get", ["&mark->seq, memory_order_acquire", "load(&mark->off)",
                                      "load(&mark->time_ms)", ACQUIRE, "load(&mark->seq) == seq"])],
    ),
    Protocol(
        "nobody_sleeps_through_an_event",
        ["indexed = 1\nfence seq_cst\ns <- sleeping", "sleeping = 1\nfence seq_cst\ni <- indexed"],
        lambda s: not s["s"] and not s["i"],
        [("wake.c", "log_wake_fence", ["LOG_WAKER_FENCE()"]),
         ("wake.c", "log_wake_slot", ["slot->sleeping, memory_order_relaxed"]),
         ("wake.c", "log_sleep", ["&slot->sleeping, 1", "LOG_SLEEPER_FENCE()",
                                  "header->indexed, memory_order_acquire"]),
         ("layout.h", "", ["define LOG_SLEEPER_FENCE() atomic_thread_fence(memory_order_seq_cst)",
                           "define LOG_WAKER_FENCE() atomic_thread_fence(memory_order_seq_cst)"])],
    ),
    Protocol(
        "who_waits_on_a_new_word_has_its_events",
        ["indexed = 1\nwake = 1 release", "w <- wake acquire\ni <- indexed"],
        lambda s: s["w"] and not s["i"],
        [("wake.c", "log_wake_futex", ["header->wake, 1, memory_order_release", "FUTEX_WAKE"]),
         ("wake.c", "log_wake_word", ["header->wake, memory_order_acquire"])],
    ),
    Protocol(
        "an_identity_comes_with_its_beginning",
        ["from = 1\nidentity = 1 release", "d <- identity acquire\nf <- from"],
        lambda s: s["d"] and not s["f"],
        [("log.c", "log_set_identity", ["header->identity_from,",
                                        "header->identity, identity, memory_order_release"]),
         ("log.c", "log_identity", ["header->identity, memory_order_acquire"])],
    ),
    Protocol(
        "who_sees_the_source_down_has_its_events",
        ["indexed = 1\ndown = 1 release", "d <- down acquire\ni <- indexed"],
        lambda s: s["d"] and not s["i"],
        [("log.c", "log_set_up", ["header->up, up, memory_order_release"]),
         ("log.c", "log_up", ["header->up, memory_order_acquire"])],
    ),
]

# A writer that is killed anywhere.
DEATHS = [
    Protocol(
        "tail_has_passed_what_is_overwritten",
        ["tail = 1\nfence release\nword = 1"],
        lambda s: s["word"] and not s["tail"],
        [],
    ),
    Protocol(
        "what_is_before_head_is_whole",
        ["word0 = 1\nword1 = 1\nhead = 1 release"],
        lambda s: s["head"] and not (s["word0"] and s["word1"]),
        [("log.c", "log_append", ["put_record(", "header->head, head.off + size, memory_order_release",
                                  "publish("]),
         ("log.c", "log_head", ["header->head, memory_order_acquire"])],
    ),
    Protocol(
        "the_index_names_nothing_beyond_head",
        ["head = 1\nlast = 1 release"],
        lambda s: s["last"] and not s["head"],
        [],
    ),
    Protocol(
        "a_new_entry_or_mark_names_nothing_beyond_head",
        ["head = 1\nseq = 1\nfence release\noff = 1"],
        lambda s: s["off"] and not s["head"],
        [],
    ),
    Protocol(
        "what_is_before_indexed_is_in_the_index",
        ["last = 1\nmark = 1\nindexed = 1 release"],
        lambda s: s["indexed"] and not (s["last"] and s["mark"]),
        [("log.c", "log_recover", ["log_index_put(", "log_mark_put(",
                                   "header->indexed, end, memory_order_release"])],
    ),
    Protocol(
        "a_half_replaced_entry_can_be_told",
        ["seq = 1\nfloor = 1\nlast = 2 release\nhash = 2 release\nseq = 2 release"],
        lambda s: (s["last"] == 2 and not (s["seq"] and s["floor"]))
        or (s["hash"] == 2 and s["last"] != 2)
        or (s["seq"] == 2 and s["hash"] != 2),
        [("index.c", "replace", ["seq + 1", "&bucket->floor", "&entry->last, off, memory_order_release",
                                 "&entry->hash, hash, memory_order_release",
                                 "&bucket->seq, seq + 2, memory_order_release"])],
    ),
    Protocol(
        "a_half_repaired_entry_is_free_or_told",
        ["hash = 0\nlast = 0 release\nseq = 2 release"],
        lambda s: (s["hash"] and not s["last"]) or (s["seq"] == 2 and (s["hash"] or s["last"])),
        [("index.c", "repair", ["&entry->hash, 0", "&entry->last, 0, memory_order_release",
                                "&bucket->seq, seq + 1, memory_order_release"])],
        {"hash": 1, "last": 1, "seq": 1},
    ),
    Protocol(
        "a_repaired_mark_is_none",
        ["off = 0\nseq = 2 release"],
        lambda s: s["seq"] == 2 and s["off"],
        [("marks.c", "log_marks_repair", ["&mark->off, 0", "&mark->seq, seq + 1, memory_order_release"])],
        {"off": 1, "seq": 1},
    ),
]

# Designs that look right and are not: (name, threads, bad, as on x86).
MISTAKES = [
    ("tail_as_a_release_store",
     ["tail = 1 release\nword0 = 1\nword1 = 1", "a <- word0\nb <- word1\nfence acquire\nt <- tail"],
     lambda s: s["t"] == 0 and (s["a"] or s["b"]), False),
    ("tail_as_an_acquire_load",
     ["tail = 1\nfence release\nword0 = 1\nword1 = 1", "a <- word0\nb <- word1\nt <- tail acquire"],
     lambda s: s["t"] == 0 and (s["a"] or s["b"]), False),
    ("a_cut_at_head",
     ["word = 1\nhead = 1 release\nlast = 1 release", "h <- head acquire\nl <- last acquire"],
     lambda s: s["h"] and not s["l"], True),
    ("sleep_by_release_and_acquire",
     ["indexed = 1 release\ns <- sleeping acquire", "sleeping = 1 release\ni <- indexed acquire"],
     lambda s: not s["s"] and not s["i"], True),
]


def body_of(source, function):
    """The text of a function's definition; of the whole file when it has no name."""
    if not function:
        return source
    match = re.search(rf"^[a-z][^\n;]*\b{function}\([^;{{]*\)\n\{{\n(.*?)^\}}", source, re.M | re.S)
    return match.group(1) if match else ""


def missing_in_code(directory, code):
    for file, function, wanted in code:
        text = (directory / file).read_text(encoding="utf-8")
        text = re.sub(r"/\*.*?\*/", "", text, flags=re.S)
        text = re.sub(r"\s+", " ", body_of(text, function)).replace("( ", "(")
        at = 0
        for part in wanted:
            found = text.find(part, at)
            if found < 0:
                return f"{file}, {function}(): no `{part}`, or not in this order"
            at = found + len(part)
    return None


def check(protocol, directory, every_state):
    """None, or what is wrong."""
    threads = [program(text) for text in protocol.threads]
    initial = {**places(threads), **protocol.initial}
    states, worst = explore(threads, initial, protocol.bad, every_state)
    if worst:
        return f"ends badly: {worst}"
    for t, ops in enumerate(threads):
        for what, weaker in weakened(ops):
            changed = threads[:t] + [weaker] + threads[t + 1 :]
            if not explore(changed, initial, protocol.bad, every_state)[1]:
                return f"does as well without `{what}` in thread {t}"
    print(f"{protocol.name}: {states} states")
    return missing_in_code(directory, protocol.code)


def check_mistake(threads, bad, tso):
    threads = [program(text) for text in threads]
    found = explore(threads, places(threads), bad, tso=tso)[1]
    return None if found else "was not caught"


def main():
    directory = pathlib.Path(sys.argv[1])
    results = [(p.name, check(p, directory, False)) for p in PROTOCOLS]
    results += [("death_" + p.name, check(p, directory, True)) for p in DEATHS]
    results += [("mistake_" + name, check_mistake(*rest)) for name, *rest in MISTAKES]
    for name, wrong in results:
        if wrong:
            print(f"{name}: {wrong}")
        print(f"[  FAILED  ] {name}" if wrong else f"[       OK ] {name}")
    return any(wrong for _, wrong in results)


sys.exit(main())
