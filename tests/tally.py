#!/usr/bin/python3
"""Counts test cases in meson's testlog.json and prints "PASSED FAILED SKIPPED".

A test is one cmocka program; its cases are counted by the lines cmocka prints. A program that fails
without a failed case (a crash, a time-out, a sanitizer's report) counts as one failure.
"""
import json
import re
import sys

CASE = re.compile(r"^\[ +(OK|SKIPPED|FAILED) +\] (\S+)$", re.MULTILINE)


def count(test):
    output = test.get("stdout", "") + "\n" + test.get("stderr", "")
    results = {name: result for result, name in CASE.findall(output)}
    passed = sum(r == "OK" for r in results.values())
    failed = sum(r == "FAILED" for r in results.values())
    skipped = sum(r == "SKIPPED" for r in results.values())
    if test["result"] == "SKIP":
        return passed, failed, max(skipped, 1)
    if test["result"] in ("OK", "EXPECTEDFAIL"):
        return (passed, failed, skipped) if results else (1, 0, 0)
    return passed, max(failed, 1), skipped


def main():
    totals = [0, 0, 0]
    with open(sys.argv[1], encoding="utf-8", errors="replace") as log:
        for line in log:
            for i, n in enumerate(count(json.loads(line))):
                totals[i] += n
    print(*totals)


main()
