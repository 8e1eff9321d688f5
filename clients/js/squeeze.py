#!/usr/bin/env python3
"""The module as the server sends it: squeeze.py INPUT OUTPUT drops comments and white space, says
`let` for `const` and the like, and shortens the names that only the module itself uses. fanwire.js
stays the source, and is what the npm package holds."""
import itertools
import re
import sys
from collections import Counter

# Never seen from outside: no option, nothing of the platform, no field of a message (also between
# tabs, which may have loaded different versions).
INTERNAL = """
    alive alone answer apply argument at attend backoff begin bytes c cause channels core Core count delay
    denial denied done drop elect end ended es everyone fails failure final flush fresh gone heard held
    here hold lead listen Live loaded loads lost one open options others over owner p pass patience
    plain pos post posted present publishes queue ready receive refs refuse refused release reload
    report retry seen sent settings shut sockets solo step stir sub subs Subscription tab take tell
    then timer toSolo turn up wanted watch watchdog what why wire wish worker
""".split()

SHORTER = {"const": "let", "undefined": "void 0", "true": "!0", "false": "!1"}
TOKEN = re.compile(r"""(?P<comment>/\*.*?\*/|//[^\n]*)
    |(?P<string>"(?:[^"\\\n]|\\.)*")
    |(?P<pattern>(?<=[(\s])/(?![*/\s])(?:[^/\\\n]|\\.)+/)
    |(?P<word>[\w$]+)|(?P<space>\s+)|(?P<other>.)""", re.S | re.X)


def tokens(text):
    for match in TOKEN.finditer(text):
        if match.lastgroup != "comment":
            yield match.lastgroup, match.group()


def glue(before, blank, after):
    """What must stay of white space between two tokens."""
    if not before or not blank:
        return ""
    a, b = before[-1], after[0]
    if "\n" in blank and a not in "{,;([=&|?:<" and b not in ")].&|?:":
        return "" if a == "}" == b or (a in "{;" and b == "}") else "\n"
    same = (a.isalnum() or a in "_$") and (b.isalnum() or b in "_$")
    return " " if same or (a == b and a in "+-") else ""


def inline(text):
    """Puts the numbers in place of the names of `const NAME = NUMBER, …;`."""
    declaration = re.search(r"^const( [A-Z]+ = \d+,?)+;\n", text, re.M)
    text = text[:declaration.start()] + text[declaration.end():]
    for name, number in re.findall(r"([A-Z]+) = (\d+)", declaration[0]):
        text = re.sub(r"\b%s\b" % name, number, text)
    return text


def squeeze(text):
    found = list(tokens(inline(text)))
    used = Counter(token for kind, token in found if kind == "word")
    strings = " ".join(token for kind, token in found if kind == "string")
    spoken = set(re.findall(r"\w+", strings))
    names = [name for name in dict.fromkeys(INTERNAL) if name in used and name not in spoken]
    names.sort(key=lambda name: -used[name])
    letters = "etadncsrimobkpljfyugvhqwzx"  # measured: the order that compresses best
    letters += letters.upper()
    pairs = map("".join, itertools.product(letters, letters))
    free = (name for name in itertools.chain(letters, pairs)
            if (name not in used or name in names) and name not in ("as", "do", "if", "in", "of"))
    short = dict(zip(names, free))
    written, blank = "", ""
    declares = [False]  # per open bracket: is its latest statement a declaration?
    for kind, token in found:
        if kind == "space":
            blank += token
            continue
        if token in ("const", "let"):
            if written.endswith(";") and declares[-1]:
                written = written[:-1] + ","
                blank = ""
                continue
            declares[-1] = True
        elif written.endswith((";", "}", "{")) and token not in (";", ",", ")", "="):
            declares[-1] = False
        if token in "({[":
            declares.append(False)
        elif token in ")}]":
            declares.pop()
        if kind == "word":
            token = SHORTER.get(token) or short.get(token, token)
        blank = glue(written, blank, token)
        if token == "}":
            written = written.rstrip(",;")
        written += blank + token
        blank = ""
    return written + "\n"


with open(sys.argv[1], encoding="utf-8") as f:
    source = f.read()
with open(sys.argv[2], "w", encoding="utf-8") as f:
    f.write(squeeze(source))
