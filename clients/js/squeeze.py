#!/usr/bin/env python3
"""The module as the server sends it: squeeze.py INPUT OUTPUT drops comments and white space, says
`let` for `const` and the like, and shortens the names that only the module itself uses. fanwire.js
stays the source, and is what the npm package holds.

It knows little of JavaScript, so the source keeps to this: a semicolon ends every statement, strings
have double quotes, and nothing is compared by === for which == would say something else."""
import itertools
import re
import sys

# Never seen from outside: no option, nothing of the platform, no field of a message (also between
# tabs, which may have loaded different versions). The first get the best names; measured: in this
# order it compresses best.
INTERNAL = """
    c settings failure one tab es solo options pass everyone queue what receive argument wire subs
    channels p sub others worker release retry gone tell url up listen Subscription core fails
    answer watchdog elect over at wish denial final held again sent present behind cause alike
    attend flush watch pos end hold publishes reload owner backoff asked turn alive done sockets
    begin why task ended open alone drop loads Core count report stir lead first step heard timer
    apply post Live patience
""".split()

LETTERS = "etadncsrimobkpljfyugvhqwzxETADNCSRIMOBKPLJFYUGVHQWZX"
SHORTER = {"const": "let", "undefined": "void 0", "true": "!0", "false": "!1", "===": "==",
           "!==": "!="}
TOKEN = re.compile(r"""(?P<comment>/\*.*?\*/|//[^\n]*)
    |(?P<string>"(?:[^"\\\n]|\\.)*")
    |(?P<pattern>(?<=[(\s])/(?![*/\s])(?:[^/\\\n]|\\.)+/)
    |(?P<word>[\w$]+)|(?P<space>\s+)|(?P<other>[=!]==|\?\.|.)""", re.S | re.X)


def tokens(text):
    for match in TOKEN.finditer(text):
        if match.lastgroup != "comment":
            yield match.lastgroup, match.group()


def inline(text):
    """Puts the numbers in place of the names of `const NAME = NUMBER, …;`."""
    declaration = re.search(r"^const( [A-Z]+ = \d+,?)+;\n", text, re.M)
    text = text[:declaration.start()] + text[declaration.end():]
    for name, number in re.findall(r"([A-Z]+) = (\d+)", declaration[0]):
        text = re.sub(r"\b%s\b" % name, number, text)
    return text


# ---- names ----

def occurrences(found):
    """Of each word: is it (perhaps) a property, and where does it (perhaps) stand for a variable? In
    a part of the module, a statement or a member of a class; outside of all brackets it is the
    module's, too."""
    code = [token for kind, token in found if kind != "space"]
    brackets, part, in_class = [], 0, False
    for before, token in zip([""] + code, code):
        dotted = before in (".", "?.")
        named = brackets[-1:] == ["{"] and (before in "{,;}*" or before == "async")
        yield token, dotted or named, [] if dotted else [part] if brackets else [part, "module"]
        if token in "({[":
            brackets.append(token)
        elif token in ")}]":
            brackets.pop()
        if not brackets:
            in_class = token == "class" or (in_class and token not in "};")
        if token in "};" and len(brackets) <= in_class:
            part += 1


def short_names(found):
    """The names in INTERNAL → what they are called. Properties have a name of their own each; what
    is only a variable shares it with those that are nowhere in the same part."""
    used = {token for kind, token in found if kind == "word"}
    spoken = set(re.findall(r"\w+", " ".join(token for kind, token in found if kind == "string")))
    properties, parts = set(), {name: set() for name in INTERNAL if name in used}
    for name, is_property, found_in in occurrences(found):
        if name in parts:
            properties.update([name] if is_property else [])
            parts[name].update(found_in)
    pairs = map("".join, itertools.product(LETTERS, LETTERS))
    free = [name for name in itertools.chain(LETTERS, pairs)
            if (name not in used or name in parts) and name not in ("as", "do", "if", "in", "of")]
    short = {}
    for name in parts:
        if name in spoken & properties:
            continue
        taken = {short[other] for other in short
                 if {name, other} <= properties or parts[name] & parts[other]}
        short[name] = next(one for one in free if one not in taken)
    return short


# ---- white space ----

def glue(before, blank, after):
    """What must stay of white space between two tokens."""
    if not before or not blank:
        return ""
    a, b = before[-1], after[0]
    same = (a.isalnum() or a in "_$") and (b.isalnum() or b in "_$")
    return " " if same or (a == b and a in "+-") else ""


def squeeze(text):
    found = list(tokens(inline(text)))
    short = short_names(found)
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
        token = SHORTER.get(token) or short.get(token, token)
        blank = glue(written, blank, token)
        if token == "}":
            written = written.rstrip(",;")
        written += blank + token
        blank = ""
    return written + "\n"


if __name__ == "__main__":
    with open(sys.argv[1], encoding="utf-8") as f:
        source = f.read()
    with open(sys.argv[2], "w", encoding="utf-8") as f:
        f.write(squeeze(source))
