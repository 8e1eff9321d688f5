"""The Postgres source, each on a private throw-away Postgres.

Commits: pgbench commits fanwire_publish() from many connections while fanwire reads, in each mode
in turn, and fanwire has to get all of the events. With the disk out of the way (fsync off) what
counts is CPU and locks. With fsync on it is the disk; there each transaction writes a row as well,
as applications do. One that does nothing but publish is told, too, but it compares little: Postgres
waits for the disk in mode wal, and in mode notify it does not.

Latency: one event at a time is committed, a thousand WebSockets get it; fanwire's mode wal and the
bare send loop behind the same kind of slot (bare_postgres.c), each with a database of its own in
one server. Both are up at the same time and take turns in short blocks; each round starts new
processes. The server under test has one core; Postgres, publisher and clients have the other.

Ingest: a backlog in a slot, read by pg_recvlogical and by fanwire in turn, each from a copy of the
slot, from the start of the program to the last event.
"""

import contextlib
import os
import re
import shutil
import statistics
import subprocess
import sys
import time

import plots
from machine import CannotRun, check_cores, check_programs, cores, say, spread, verdict
from servers import CHANNEL, Bare, Fanwire, Load

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "tests", "sources"))
from private_postgres import PrivatePostgres  # noqa: E402

COMMIT_BUDGETS = {8: 2.0, 32: 2.5}  # wal / notify, by writers
LATENCY_RATIO = 1.15  # of the bare loop's,
LATENCY_EXTRA = 0.3  # ms more
INGEST_BUDGET = 0.8  # of pg_recvlogical's

MODES = ["notify", "outbox", "wal"]
PAYLOAD = "x" * 64
PUBLISH = f"SELECT fanwire_publish('{CHANNEL}', '{PAYLOAD}');\n"
ROW = f"BEGIN;\nINSERT INTO bench_rows (content) VALUES ('{PAYLOAD}');\n{PUBLISH}COMMIT;\n"
WORK = {  # fsync, what pgbench does
    "publish": ("off", PUBLISH),
    "publish, fsync": ("on", PUBLISH),
    "row and publish, fsync": ("on", ROW),
}
BUDGETED = "publish"
SUBSCRIBERS = 1_000
TRANSACTION = 100  # events of one, in the backlog
PATIENCE_S = 60

SETTINGS = {
    "wal_level": "logical",
    "shared_buffers": "256MB",
    "max_connections": "100",
    # No checkpoint falls into a measurement.
    "max_wal_size": "16GB",
    "checkpoint_timeout": "1h",
}
EVENTS = "fanwire_source_events_total"


class Plan:
    def __init__(self, quick):
        self.commit_rounds = 3
        self.commit_s = 2 if quick else 4
        self.work = [BUDGETED] if quick else list(WORK)
        self.latency_rounds = 3 if quick else 5
        self.latency_pairs = 4
        self.latency_events = 50 if quick else 100  # of a block
        self.backlog = 500_000 if quick else 1_000_000
        self.ingest_rounds = 3 if quick else 5


# ---- the database ----


@contextlib.contextmanager
def postgres_server(core=None):
    """A private server; on this core only, if one is given."""
    usable = os.sched_getaffinity(0)
    if core is not None:
        os.sched_setaffinity(0, {core})  # what it starts inherits it
    try:
        with PrivatePostgres(settings=SETTINGS) as server:
            os.sched_setaffinity(0, usable)
            yield server
    finally:
        os.sched_setaffinity(0, usable)


def environment(server, database):
    """By TCP, as url()."""
    way = {"PGHOST": "127.0.0.1", "PGDATABASE": database}
    return {**os.environ, **server.environment, **way}


def url(server, database):
    return f"postgres://postgres@127.0.0.1:{server.port}/{database}"


def make_database(build, server, database, mode):
    """With fanwire's SQL of this mode."""
    server.psql(f"create database {database}")
    command = [f"{build}/fanwire", "sql", "postgres", "--mode", mode]
    sql = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    server.psql(sql, "-1", "-d", database)


@contextlib.contextmanager
def attached(build, server, database, mode, **options):
    """fanwire that reads this database; in mode wal by a durable slot, dropped in the end."""
    node = ["--node", database] if mode == "wal" else []
    fanwire = Fanwire(build, url(server, database), "--mode", mode, *node, admin=True, **options)
    try:
        fanwire.wait_for("fanwire_source_up", 1, PATIENCE_S)
        yield fanwire
    finally:
        fanwire.stop()
        drop_slot(server, f"fanwire_{database}")


def drop_slot(server, name):
    """As soon as Postgres has noticed that its reader is gone; if there is such a slot."""
    server.psql(f"""DO $$ BEGIN
        WHILE EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = '{name}' AND active) LOOP
            PERFORM pg_sleep(0.01);
        END LOOP;
        PERFORM pg_drop_replication_slot(slot_name) FROM pg_replication_slots
            WHERE slot_name = '{name}';
    END $$""")


# ---- commits ----


def pgbench(server, database, script, writers, seconds):
    """(commits, commits a second)"""
    file_name = f"{server.dir}/pgbench.sql"
    with open(file_name, "w") as file:
        file.write(script)
    command = ["pgbench", "--no-vacuum", "--protocol=prepared", f"--file={file_name}"]
    command += [f"--client={writers}", "--jobs=2", f"--time={seconds}"]
    done = subprocess.run(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment(server, database),
    )
    count = re.search(r"actually processed: (\d+)", done.stdout)
    rate = re.search(r"tps = ([\d.]+)", done.stdout)
    if done.returncode != 0 or not count or not rate:
        raise CannotRun(f"pgbench:\n{done.stdout}")
    return int(count[1]), float(rate[1])


def commit_sample(build, server, mode, script, writers, plan):
    """(commits a second, seconds until fanwire had all)"""
    with attached(build, server, mode, mode, pinned=False) as fanwire:
        before = fanwire.metric(EVENTS)
        count, rate = pgbench(server, mode, script, writers, plan.commit_s)
        return rate, fanwire.wait_for(EVENTS, before + count, PATIENCE_S)


def commit_row(build, server, work, writers, plan):
    fsync, script = WORK[work]
    server.psql(f"ALTER SYSTEM SET fsync = {fsync}")
    server.psql("SELECT pg_reload_conf()")
    samples = {mode: [] for mode in MODES}
    for i in range(plan.commit_rounds):
        say(f"commits: {work}, {writers} writers, {i + 1} of {plan.commit_rounds}")
        for mode in MODES[:: -1 if i % 2 else 1]:
            samples[mode].append(commit_sample(build, server, mode, script, writers, plan))
    return {
        "work": work,
        "writers": writers,
        "rate": {mode: [rate for rate, _ in pairs] for mode, pairs in samples.items()},
        "behind_s": {mode: [behind for _, behind in pairs] for mode, pairs in samples.items()},
    }


def commits(build, plan):
    with postgres_server() as server:
        for mode in MODES:
            make_database(build, server, mode, mode)
            make_table = "CREATE TABLE bench_rows (id bigserial PRIMARY KEY, content text)"
            server.psql(make_table, "-d", mode)
        return [
            commit_row(build, server, work, writers, plan)
            for work in plan.work
            for writers in COMMIT_BUDGETS
        ]


# ---- latency ----


def latency_round(build, server, plan, swap):
    """{side: the 1,001 quantiles in ms}"""
    with contextlib.ExitStack() as stack:

        def start_bare():
            bare = Bare(build, "bare_postgres", url(server, "bare"))
            stack.callback(bare.stop)
            return bare

        def start_fanwire():
            return stack.enter_context(attached(build, server, "fanwire", "wal"))

        sides = {}
        for start in (start_bare, start_fanwire)[:: -1 if swap else 1]:
            one = start()
            load = Load(build, "latency", one, SUBSCRIBERS, url(server, one.name), CHANNEL)
            stack.callback(load.stop)
            sides[one.name] = load
        for load in sides.values():  # warm up
            load.ask("run 10")
            load.ask("report")
        order = list(sides)
        for _ in range(plan.latency_pairs):
            for name in order:
                sides[name].ask(f"run {plan.latency_events}")
            order.reverse()
        return {name: [ns / 1e6 for ns in load.ask("report")] for name, load in sides.items()}


def latency(build, plan):
    rounds = []
    with postgres_server(cores()[1]) as server:
        for side in (Bare.name, Fanwire.name):
            make_database(build, server, side, "wal")
        for i in range(plan.latency_rounds):
            say(f"latency, {i + 1} of {plan.latency_rounds}")
            rounds.append(latency_round(build, server, plan, swap=i % 2))
    return {
        "subscribers": SUBSCRIBERS,
        "events": plan.latency_pairs * plan.latency_events,
        "quantiles_ms": {
            side: [r[side] for r in rounds] for side in (Fanwire.name, Bare.name)
        },
    }


# ---- ingest ----


def make_backlog(server, database, count):
    """Returns the position behind it."""
    server.psql(
        f"""DO $$ BEGIN FOR i IN 1..{count // TRANSACTION} LOOP
            PERFORM fanwire_publish('{CHANNEL}', '{PAYLOAD}')
                FROM generate_series(1, {TRANSACTION});
            COMMIT;
        END LOOP; END $$""",
        "-d",
        database,
    )
    return server.psql("SELECT pg_current_wal_lsn()")


def recvlogical(server, database, end):
    """The seconds that it takes."""
    command = ["pg_recvlogical", "--start", "--no-loop", "--slot=copy", f"--endpos={end}"]
    command += ["--file=/dev/null", "-o", "proto_version=1", "-o", "publication_names=fanwire"]
    command += ["-o", "messages=true", f"--dbname={database}"]
    begin = time.monotonic()
    if subprocess.run(command, env=environment(server, database)).returncode != 0:
        raise CannotRun("pg_recvlogical failed")
    return time.monotonic() - begin


def fanwire_ingest(build, server, database, count):
    """The seconds until its log has had all."""
    begin = time.monotonic()
    with attached(build, server, database, "wal", pinned=False) as fanwire:
        fanwire.wait_for(EVENTS, count, PATIENCE_S)
        return time.monotonic() - begin


def ingest(build, plan):
    database, seconds = "ingest", {"fanwire": [], "pg_recvlogical": []}

    def copy_slot(name):
        server.psql(f"SELECT pg_copy_logical_replication_slot('first', '{name}')", "-d", database)

    def one_recvlogical():
        copy_slot("copy")
        seconds["pg_recvlogical"].append(recvlogical(server, database, end))
        drop_slot(server, "copy")

    def one_fanwire():
        copy_slot(f"fanwire_{database}")
        seconds["fanwire"].append(fanwire_ingest(build, server, database, plan.backlog))

    with postgres_server() as server:
        make_database(build, server, database, "wal")
        make_slot = "SELECT pg_create_logical_replication_slot('first', 'pgoutput')"
        server.psql(make_slot, "-d", database)
        say(f"ingest, a backlog of {plan.backlog:,}")
        end = make_backlog(server, database, plan.backlog)
        for i in range(plan.ingest_rounds):
            say(f"ingest, {i + 1} of {plan.ingest_rounds}")
            for one in (one_recvlogical, one_fanwire)[:: -1 if i % 2 else 1]:
                one()
    rates = {side: [plan.backlog / s for s in samples] for side, samples in seconds.items()}
    return {"events": plan.backlog, "transaction": TRANSACTION, "rate": rates}


# ---- the report ----


def report_commits(rows):
    print("Commits a second, each with one fanwire_publish() of 64 bytes; median, min, max")
    print(f"{'':36}" + "".join(f"{mode:^22}" for mode in MODES) + "wal / notify")
    for row in rows:
        rates = {mode: statistics.median(samples) for mode, samples in row["rate"].items()}
        ratio = rates["wal"] / rates["notify"]
        spreads = "".join(f"{spread(row['rate'][mode], 6, 0)}  " for mode in MODES)
        print(f"  {row['work'] + ', ' + str(row['writers']) + ' writers':34}", end="")
        print(f"{spreads}{ratio:6.2f}", end="")
        budget = COMMIT_BUDGETS[row["writers"]]
        print(f"   ≥ {budget}  {verdict(ratio >= budget)}" if row["work"] == BUDGETED else "")
    print("  seconds until fanwire had all of them, at most:", end="")
    for mode in MODES:
        print(f" {mode} {max(s for row in rows for s in row['behind_s'][mode]):.2f}", end="")
    print()


def latency_figures(result, quantile):
    """{side: [ms]}, [how many times the bare loop's, the extra taken off]"""
    at = {
        side: [quantiles[round(quantile * (len(quantiles) - 1))] for quantiles in rounds]
        for side, rounds in result["quantiles_ms"].items()
    }
    ratios = [(f - LATENCY_EXTRA) / b for f, b in zip(at[Fanwire.name], at[Bare.name])]
    return at, ratios


def report_latency(result):
    print(f"\nFrom COMMIT to {result['subscribers']:,} WebSockets, mode wal; median, min, max")
    print(f"{'':24}{'fanwire, ms':^20}{'bare loop, ms':^20}", end="")
    print(f"(fanwire − {LATENCY_EXTRA}) / bare")
    for name, quantile in (("median", 0.5), ("p99", 0.99)):
        at, ratios = latency_figures(result, quantile)
        met = statistics.median(ratios) <= LATENCY_RATIO
        print(f"  {name:22}{spread(at['fanwire'], 5, 2)}   {spread(at['bare'], 5, 2)}", end="")
        print(f"   {spread(ratios, 5, 2)}   ≤ {LATENCY_RATIO}  {verdict(met)}")


def report_ingest(result):
    print(f"\nIngest of {result['events']:,} events, {result['transaction']} to a transaction,")
    print("in thousands a second; median, min, max")
    print(f"{'':24}{'fanwire':^20}{'pg_recvlogical':^20}fanwire / pg_recvlogical")
    rates = {side: [rate / 1e3 for rate in rates] for side, rates in result["rate"].items()}
    ratios = [f / p for f, p in zip(rates["fanwire"], rates["pg_recvlogical"])]
    met = statistics.median(ratios) >= INGEST_BUDGET
    print(f"  {'one slot':22}{spread(rates['fanwire'], 5, 0)}   ", end="")
    print(f"{spread(rates['pg_recvlogical'], 5, 0)}   {spread(ratios, 5, 2)}   ", end="")
    print(f"≥ {INGEST_BUDGET}   {verdict(met)}")


def report(result):
    report_commits(result["commits"])
    report_latency(result["latency"])
    report_ingest(result["ingest"])


# ---- the figures of the documentation ----


def plot(result, directory):
    os.makedirs(directory, exist_ok=True)
    rows = [row for row in result["commits"] if row["work"] == BUDGETED]
    plots.write_bars(
        f"{directory}/postgres-commits.svg",
        "Commits a second with fanwire attached, by mode",
        [f"{row['writers']} writers" for row in rows],
        {mode: [row["rate"][mode] for row in rows] for mode in MODES},
    )
    curves = {
        side: [statistics.median(at) for at in zip(*rounds)]
        for side, rounds in result["latency"]["quantiles_ms"].items()
    }
    limit = [LATENCY_RATIO * ms + LATENCY_EXTRA for ms in curves[Bare.name]]
    plots.write_curves(
        f"{directory}/postgres-latency.svg",
        f"From COMMIT to {SUBSCRIBERS:,} WebSockets: share of deliveries within a time",
        "ms",
        {"fanwire": curves[Fanwire.name], "bare send loop": curves[Bare.name], "budget": limit},
    )


# ---- all of it ----


def check(build):
    check_programs(build, "fanwire", "bench/bare_postgres", "bench/latency")
    check_cores()
    for program in ("psql", "pgbench", "pg_recvlogical"):
        if not shutil.which(program):
            raise CannotRun(f"there is no {program}; Debian's package postgresql has it")


def measure(build, quick):
    plan = Plan(quick)
    return {
        "commits": commits(build, plan),
        "latency": latency(build, plan),
        "ingest": ingest(build, plan),
    }
