"""Fan-out, memory and speed of the log: fanwire without a backend.

Fan-out: fanwire's worker and a bare epoll + send loop (bare.c) get the same events and the same
clients (clients.c), on the same core, with the clients on another. Both are up at the same time and
take turns in short blocks, so that what the machine does meanwhile hits both; each round starts new
processes. What counts is the CPU time of the one process that sends, as a ratio.

Memory: of all processes of fanwire, anonymous and shared, without the log, by PSS (what processes
share counts once): with ten thousand idle WebSockets less without any.

Log and iterator: nanoseconds of CPU per event on one core (log_speed.c, iterator.c).
"""

import resource
import statistics
import subprocess

from machine import CannotRun, check_cores, check_programs, cores, say, spawn, spread, verdict
from servers import Bare, Clients, Fanwire

RATIO_BUDGET = 1.15
IDLE_BUDGET = 300  # bytes
SPEED_BUDGET = 10e6  # events a second

BURST = 32
IDLE_CLIENTS = 10_000
SPARE_FDS = 100


class Plan:
    def __init__(self, quick):
        self.rounds = 5  # new processes each; a figure is the median of that many
        self.pairs = 4 if quick else 6  # blocks of each side per round
        self.deliveries = {1: 40_000 if quick else 100_000, BURST: 320_000 if quick else 1_280_000}
        self.clients = [1_000, 10_000]
        self.speed_samples = 5 if quick else 9
        self.speed_events = 1_000_000 if quick else 4_000_000
        self.iterator_events = 200_000


def fan_out_blocks(plan, sides, count, burst):
    """The CPU ns per delivery of each side, from alternating blocks."""
    repeat = max(3, plan.deliveries[burst] // (count * burst))
    total = {name: [0, 0] for name in sides}
    for clients in sides.values():
        clients.measure(max(2, repeat // 8), burst)  # warm up
    order = list(sides)
    for _ in range(plan.pairs):
        for name in order:
            deliveries, cpu, _ = sides[name].measure(repeat, burst)
            total[name][0] += deliveries
            total[name][1] += cpu
        order.reverse()
    return {name: cpu / deliveries for name, (deliveries, cpu) in total.items()}


def fan_out_round(build, plan, count, swap):
    """{burst: {side: ns}} of one pair of fresh servers."""
    started = []
    try:
        sides = {}
        for server_class in (Bare, Fanwire)[:: -1 if swap else 1]:
            server = server_class(build)
            started.append(server)
            clients = Clients(build, server, count)
            started.append(clients)
            sides[server.name] = clients
        return {burst: fan_out_blocks(plan, sides, count, burst) for burst in (1, BURST)}
    finally:
        for one in reversed(started):
            one.stop()


def fan_out(build, plan, count):
    rounds = []
    for i in range(plan.rounds):
        say(f"{count} clients, round {i + 1} of {plan.rounds}")
        rounds.append(fan_out_round(build, plan, count, swap=i % 2))
    result = []
    for burst in (1, BURST):
        samples = {
            side: [r[burst][side] / 1000 for r in rounds] for side in (Fanwire.name, Bare.name)
        }
        ratios = [f / b for f, b in zip(samples["fanwire"], samples["bare"])]
        result.append({"clients": count, "burst": burst, "us": samples, "ratio": ratios})
    return result


# ---- memory ----


def sizes(path):
    """The "Name: N kB" lines of a file as bytes."""
    return {
        words[0][:-1]: int(words[1]) * 1024
        for words in map(str.split, open(path))
        if len(words) == 3 and words[2] == "kB"
    }


def pss_of(pid, mapping):
    """PSS bytes of the mappings of this name."""
    total, inside = 0, False
    for line in open(f"/proc/{pid}/smaps"):
        words = line.split()
        if not words[0].endswith(":"):
            inside = mapping in words
        elif inside and words[0] == "Pss:":
            total += int(words[1]) * 1024
    return total


def memory(server):
    """{process: {kind: bytes}}"""
    result = {}
    for process, pid in server.pids().items():
        sum_of = sizes(f"/proc/{pid}/smaps_rollup")
        heap = pss_of(pid, "[heap]")
        result[process] = {
            "heap": heap,
            "other anonymous": sum_of["Pss_Anon"] - heap,
            "shared": sum_of["Pss_Shmem"] - pss_of(pid, "/memfd:fanwire-log"),
        }
    return result


def idle_sample(build, count):
    """Bytes per idle WebSocket: {process: {kind: bytes}}"""
    server = Fanwire(build)
    try:
        before = memory(server)
        clients = Clients(build, server, count)
        try:
            after = memory(server)
        finally:
            clients.stop()
    finally:
        server.stop()
    return {
        process: {kind: (after[process][kind] - before[process][kind]) / count for kind in kinds}
        for process, kinds in before.items()
    }


def total(sample):
    return sum(sum(kinds.values()) for kinds in sample.values())


def idle_memory(build, plan):
    samples = []
    for i in range(plan.rounds):
        say(f"memory of {IDLE_CLIENTS} idle clients, {i + 1} of {plan.rounds}")
        samples.append(idle_sample(build, IDLE_CLIENTS))
    samples.sort(key=total)
    return {
        "clients": IDLE_CLIENTS,
        "bytes": [total(sample) for sample in samples],
        "breakdown": samples[len(samples) // 2],
    }


# ---- log and iterator ----


def speed(build, program, samples, events):
    """{what: [ns per event]}"""
    say(f"{program}")
    done = spawn(
        cores()[0],
        [f"{build}/bench/{program}", str(samples), str(events)],
        stdout=subprocess.PIPE,
    )
    said, _ = done.communicate()
    if done.returncode != 0:
        raise CannotRun(f"{program} failed")
    result = {}
    for line in said.splitlines():
        what, ns = line.split()
        result.setdefault(what, []).append(float(ns))
    return result


# ---- the report ----


def report_fan_out(rows):
    print("Fan-out: CPU of the sending process per delivery, 64-byte events; median, min, max")
    print(f"{'':39}{'fanwire, µs':^17}   {'bare loop, µs':^17}   {'ratio':^17}", end="")
    print(f"   ≤ {RATIO_BUDGET}")
    for row in rows:
        what = f"{row['clients']:,} clients, " + (
            "one event at a time" if row["burst"] == 1 else f"bursts of {row['burst']}"
        )
        met = statistics.median(row["ratio"]) <= RATIO_BUDGET
        print(
            f"  {what:37}{spread(row['us']['fanwire'], 5, 2)}   {spread(row['us']['bare'], 5, 2)}"
            f"   {spread(row['ratio'], 5, 3)}   {verdict(met)}"
        )


def report_memory(result):
    met = statistics.median(result["bytes"]) <= IDLE_BUDGET
    print(f"\nMemory per idle WebSocket at {result['clients']:,}, all processes, without the log")
    print(f"  {'bytes; median, min, max':37}{spread(result['bytes'], 5, 0)}", end="")
    print(f"{'':26}≤ {IDLE_BUDGET:<11}{verdict(met)}")
    for process, kinds in result["breakdown"].items():
        parts = ", ".join(f"{kind} {size:.1f}" for kind, size in kinds.items())
        print(f"    {process:12}{parts}")


def report_speed(results):
    names = {
        "append": "append to the log",
        "append-many": "append, 1,000 channels in turn",
        "read": "read from the log, with a copy",
        "next": "fw_sub_next()",
    }
    print("\nOne core, 64-byte events; median, min, max")
    print(f"{'':39}{'ns per event':^17}   {'million a second':^17}")
    for what, samples in results.items():
        rates = [1000 / ns for ns in samples]
        met = statistics.median(rates) * 1e6 >= SPEED_BUDGET
        print(f"  {names[what]:37}{spread(samples, 5, 1)}   {spread(rates, 5, 1)}", end="")
        print(f"{'':6}≥ {SPEED_BUDGET / 1e6:<11.0f}{verdict(met)}")


def check(build):
    check_programs(build, "fanwire", "bench/bare", "bench/clients")
    check_programs(build, "bench/log_speed", "bench/iterator")
    check_cores()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < IDLE_CLIENTS + SPARE_FDS:
        raise CannotRun(f"{IDLE_CLIENTS} clients need more descriptors than ulimit -Hn ({hard})")


def measure(build, quick):
    plan = Plan(quick)
    fan_outs = [row for count in plan.clients for row in fan_out(build, plan, count)]
    memory_result = idle_memory(build, plan)
    speeds = speed(build, "log_speed", plan.speed_samples, plan.speed_events)
    speeds.update(speed(build, "iterator", plan.speed_samples, plan.iterator_events))
    return {"fan_out": fan_outs, "idle_memory": memory_result, "ns_per_event": speeds}


def report(result):
    report_fan_out(result["fan_out"])
    report_memory(result["idle_memory"])
    report_speed(result["ns_per_event"])
