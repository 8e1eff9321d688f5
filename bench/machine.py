"""What all benchmarks stand on: the machine's cores, processes, figures."""

import os
import re
import statistics
import subprocess
import sys


class CannotRun(Exception):
    pass


def say(text):
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


def cores():
    """(the server's core, the clients' core)"""
    usable = sorted(os.sched_getaffinity(0))
    return usable[-1], usable[0]


def spawn(core, command, **options):
    """A process on this core; None: on all."""
    if core is not None:
        options["preexec_fn"] = lambda: os.sched_setaffinity(0, {core})
    return subprocess.Popen(command, text=True, **options)


def spread(samples, width, digits):
    """Median, least, most."""
    numbers = (statistics.median(samples), min(samples), max(samples))
    return " ".join(f"{number:{width}.{digits}f}" for number in numbers)


def verdict(met):
    return "PASS" if met else "OVER"


def describe_machine():
    """One line: figures mean little without it, and a busy machine widens min and max."""
    models = re.findall(r"model name\s*: (.*)", open("/proc/cpuinfo").read())
    model = models[0] if models else os.uname().machine
    load = os.getloadavg()[0]
    return f"{os.cpu_count()} × {model}, Linux {os.uname().release}, load {load:.1f}"


def check_programs(build, *programs):
    for program in programs:
        if not os.access(f"{build}/{program}", os.X_OK):
            raise CannotRun(f"there is no {build}/{program}; ./dev bench builds all of it")


def check_cores():
    if len(os.sched_getaffinity(0)) < 2:
        raise CannotRun("it takes two cores: one for the server, one for the clients")
