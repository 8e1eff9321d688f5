"""The documentation is true: its examples run; what can be listed is listed, no more, no less."""
import glob
import json
import os
import re
import shutil
import subprocess

import docs
import web
from browser import Browser
from case import Skip, case, equal, eventually
from docs import ROOT, Bench, Document, read

COMMANDS = ["serve", "tail", "pub", "doctor", "sql", "health"]
RUN = ["README.md", "docs/coming-from.md", "docs/library.md", "docs/operations.md",
       "docs/postgres.md", "docs/sources/memory.md", "docs/sources/postgres.md", "docs/sources/sqlite.md",
       "docs/sources/stdin.md", "docs/tutorial.md"]  # each has a test below


def run_all(t, path):
    document = Document(path)
    for name in document.names():
        Bench(t, document, name).run()


# ---- examples ----

def test_every_example_has_its_test(t):
    equal([d.path for d in docs.documents() if d.names()], sorted(RUN))


@case(timeout=120, postgres=True)
def test_readme_in_the_browser(t):
    browser = Browser()
    t.cleanup(browser.close)
    bench = Bench(t, Document("README.md"), "postgres", browser)
    bench.database.psql("create table todos (id int primary key, title text)")  # the reader's own
    bench.run()
    bench.page.eventually("seen.length === 1")
    equal(bench.page.run("seen[0]"), {"op": "hello"})
    bench.database.psql("insert into todos values (1, 'milk')")
    bench.page.eventually("seen.length === 2")
    equal(bench.page.run("[seen[1].op, seen[1].key, seen[1].row]"),
          ["insert", {"id": 1}, {"id": 1, "title": "milk"}])
    bench.database.terminate(bench.database.listening())
    bench.page.eventually("seen.length === 3")
    equal(bench.page.run("seen[2]"), "gap")


@case(timeout=90, postgres=True)
def test_readme_in_c(t):
    bench = Bench(t, Document("README.md"), "c").run()
    todos = bench.start("stdbuf -oL ./todos")

    def printed():
        bench.database.notify("todos", "hello from SQL")
        return "hello from SQL\n" in todos.output
    eventually(printed, 20, "the program prints what is notified", every=0.1)
    bench.database.terminate(bench.database.listening())
    eventually(lambda: "missed events after l" in todos.output, 10, "the program tells its gap")


@case(timeout=180, postgres=True)
def test_tutorial(t):
    browser = Browser()
    t.cleanup(browser.close)
    document = Document("docs/tutorial.md")
    for name in document.names():
        Bench(t, document, name, browser).run()


@case(timeout=180, postgres=True)
def test_coming_from(t):
    browser = Browser()
    t.cleanup(browser.close)
    document = Document("docs/coming-from.md")
    for name in document.names():
        Bench(t, document, name, browser).run()


def test_library(t):
    run_all(t, "docs/library.md")


def test_embed(t):
    """The example that library.md shows, fed until it prints."""
    bench = Bench(t, Document("docs/library.md"), "loop")
    bench.shell("cc %s/examples/embed.c -o embed $(pkg-config --cflags --libs fanwire)" % ROOT)
    embed = bench.start("while echo line; do sleep 0.05; done | ./embed stdin:log log")
    eventually(lambda: embed.output.startswith("line\nline\n"), 10, "it prints lines")


def test_operations(t):
    run_all(t, "docs/operations.md")


def test_source_memory(t):
    run_all(t, "docs/sources/memory.md")


def test_source_sqlite(t):
    run_all(t, "docs/sources/sqlite.md")


def test_source_stdin(t):
    run_all(t, "docs/sources/stdin.md")


@case(timeout=120, postgres=True)
def test_postgres_guide(t):
    run_all(t, "docs/postgres.md")


@case(postgres=True)
def test_source_postgres(t):
    run_all(t, "docs/sources/postgres.md")


def test_blocks(t):
    """What is shown but not run is at least well-formed; what is shown of a file is its text."""
    for document in docs.documents():
        for block in document.blocks:
            if block.kind == "sh":
                done = subprocess.run(["bash", "-n"], input=block.text.encode(),
                                      stderr=subprocess.PIPE)
                equal((done.returncode, done.stderr), (0, b""), block.where)
            elif block.kind == "json":
                for line in block.text.splitlines():
                    assert isinstance(json.loads(line), dict), block.where
            elif "file" in block.options and not block.names:
                equal(block.text, read(block.options["file"]), block.where)


# ---- links ----

def test_links(t):
    anchors = {d.path: d.anchors() for d in docs.documents()}
    for document in docs.documents():
        for target in document.links():
            path, _, anchor = target.partition("#")
            found = os.path.normpath(os.path.join(os.path.dirname(document.path), path)) \
                if path else document.path
            assert os.path.exists(os.path.join(ROOT, found)), \
                "%s links to %s" % (document.path, target)
            assert not anchor or anchor in anchors[found], \
                "%s links to %s; there is %r" % (document.path, target, sorted(anchors[found]))


# ---- options ----

def options_of(t, command):
    """{"--http": its default or None} of --help."""
    text = subprocess.run([t.binary, command, "--help"], stdout=subprocess.PIPE,
                          check=True).stdout.decode()
    found = {}
    for line in re.sub(r"\n {20,}", " ", text).splitlines():
        option = re.match(r"  (?:-\w, )?(--[a-z-]+)", line)
        default = re.search(r"\(default ([^:)][^)]*)\)$", line)
        if option:
            found[option[1]] = default and default[1]
    return found


def manual(name):
    """A manual page's source with its hyphens and quotes as plain ones, no fonts."""
    text = read("docs/man/" + name).replace("\\-", "-").replace("\\(aq", "'")
    return re.sub(r"\\f[RBIP]", "", text)


def section(text, title):
    return re.search(r"^\.SH %s\n(.*?)(^\.SH |\Z)" % title, text, re.M | re.S)[1]


def documented_options(text):
    """{"--http": the text of its paragraph}"""
    found = {}
    for paragraph in section(text, "OPTIONS").split(".TP\n")[1:]:
        tag, _, rest = paragraph.partition("\n")
        for option in re.findall(r"--[a-z-]+", tag):
            found[option] = rest
    return found


def test_options_are_in_the_manual_pages(t):
    for command in COMMANDS:
        options = options_of(t, command)
        described = documented_options(manual("fanwire-%s.1" % command))
        equal(sorted(described), sorted(set(options) | {"--help"}), command)
        for option, default in options.items():
            assert not default or "Default %s." % default in described[option], \
                "%s %s: its default is %s" % (command, option, default)


def test_options_are_in_operations(t):
    rows = Document("docs/operations.md").rows("Configuration")[1:]
    described = {re.match(r"`(--[a-z-]+)", row[0])[1]: row[1] for row in rows}
    options = options_of(t, "serve")
    equal(sorted(described), sorted(options))
    for option, default in options.items():
        assert not default or described[option] == default, \
            "%s: its default is %s, not %s" % (option, default, described[option])


def test_options_that_are_mentioned_exist(t):
    known = {"--help", "--version", "--nofile", "--ulimit",  # of fanwire as a whole, of others
             "--cflags", "--libs", "--line-buffered", "--data-binary", "--long"}
    for command in COMMANDS:
        known |= set(options_of(t, command))
    known |= set(re.findall("--[a-z]+", subprocess.run(
        [os.path.join(ROOT, "dev"), "help"], stdout=subprocess.PIPE, check=True).stdout.decode()))
    later = re.findall(r'"([a-z-]+)", LATER', read("src/server/options.c"))
    assert later
    known |= {"--" + name for name in later}
    for document in docs.documents():
        for option in re.findall(r"(?<![\w-])(--[a-z]+(?:-[a-z]+)*)", document.text):
            assert option in known, "%s mentions %s" % (document.path, option)


# ---- metrics and log lines ----

def test_metrics_are_documented(t):
    server = t.server("memory:", workers=1)
    text = web.request(server.admin, "GET", "/metrics").body.decode()
    exposed = dict(re.findall(r"^# TYPE (\w+) (\w+)$", text, re.M))
    described = {}
    for row in Document("docs/operations.md").rows("Metrics")[1:]:
        for name in re.findall(r"`(fanwire_\w+)`", row[0]):
            described[name] = row[1]
    equal(described, exposed)


def arguments(text):
    """The arguments of a C call, from behind its parenthesis."""
    found, depth, start, at = [], 0, 0, 0
    while True:
        c = text[at]
        if c == '"':
            at = re.compile(r'"(?:[^"\\]|\\.)*"').match(text, at).end()
            continue
        if c == ")" and depth == 0:
            return [a.strip() for a in found + [text[start:at]]]
        if c == "," and depth == 0:
            found.append(text[start:at])
            start = at + 1
        depth += (c in "([{") - (c in ")]}")
        at += 1


def logged_events():
    """The event of every call that logs, where it is a literal."""
    place = {"engine_log": 2, "fw_host_log": 2, "log_message": 4, "logline_begin": 5, "warn": 1}
    found = set()
    for path in glob.glob(ROOT + "/src/**/*.c", recursive=True):
        text = read(path)
        for call in re.finditer(r"\b(%s)\(" % "|".join(place), text):
            words = arguments(text[call.end():])
            index = place[call[1]]
            if len(words) > index and words[index].startswith('"'):
                found.add(words[index].strip('"'))
    return found


def test_log_events_are_documented(t):
    rows = Document("docs/operations.md").rows("Log lines")[1:]
    described = {name for row in rows for name in re.findall(r"`([a-z-]+)`", row[0])}
    equal(sorted(described), sorted(logged_events()))


# ---- codes ----

def test_codes_are_documented(t):
    text = read("src/hub/codes.h")
    codes = {m[0]: (m[1], m[2]) for m in
             re.findall(r'X\([A-Z_]+, "([a-z-]+)", (\d+), (\d+), "', text)}
    assert len(codes) >= 20, codes
    protocol = Document("docs/protocol.md")
    rows = protocol.rows("Close codes and errors")
    described = {re.match("`([a-z-]+)`", row[0])[1]: (row[1], row[2])
                 for row in rows if len(row) == 4 and row[0].startswith("`")}
    equal(described, codes)

    closes = {code for row in rows if len(row) == 2 for code in re.findall(r"\d{4}", row[0])}
    counted = re.search(r"close_codes\[[^]]*\] = {([^}]*)}", read("src/hub/counters.c"))[1]
    needed = set(re.findall(r"\d{4}", counted)) | {close for _, close in codes.values()}
    equal(sorted(needed - closes), [], "close codes without a line")

    reasons = re.findall(r'X\([A-Z_]+, "([a-z-]+)"\)', text)
    assert len(reasons) >= 11, reasons
    for reason in reasons:
        assert "`%s`" % reason in protocol.prose(), "the reason %s" % reason


# ---- manual pages ----

def test_manual_pages_are_installed(t):
    pages = sorted(glob.glob("docs/man/*", root_dir=ROOT))
    listed = re.search(r"install_man\((.*?)\)", read("meson.build"), re.S)[1]
    equal(sorted(re.findall(r"'([^']+)'", listed)), pages)
    version = re.search(r"version: '([\d.]+)'", read("meson.build"))[1]
    for page in pages:
        assert '"fanwire %s"' % version in read(page).splitlines()[0], page


def public_headers():
    return read("include/fanwire.h") + read("include/fanwire/server.h")


def prototypes(text):
    """{name: prototype with single spaces}"""
    found = re.findall(r"\b((?:const )?(?:int|void|char) \*?(fw_\w+)\([^;{]*\));", text)
    return {name: re.sub(r"\s+", " ", prototype) for prototype, name in found}


def test_manual_pages_have_every_function(t):
    header = re.sub(r"/\*.*?\*/", "", public_headers(), flags=re.S)
    header = re.sub(r"\s*__attribute__\(\(.*?\)\)\)", "", header)
    declared = prototypes(header.replace("FW_API ", ""))
    described = {}
    for path in glob.glob("docs/man/*.3", root_dir=ROOT):
        text = manual(os.path.basename(path))
        synopsis = re.sub(r"^\.B[IR]? (.*)$", lambda m: unquote(m[1]), section(text, "SYNOPSIS"),
                          flags=re.M)
        described.update(prototypes(synopsis))
        for name in prototypes(synopsis):
            assert name in section(text, "NAME") + section(text, "DESCRIPTION"), (path, name)
    equal(described, declared)


def members(text):
    """{structure: its members, without comments}"""
    text = re.sub(r"/\*.*?\*/", "", text, flags=re.S)
    return {name: re.sub(r"\s+", " ", body).strip()
            for name, body in re.findall(r"^struct (fw_\w+) {\n(.*?)^};", text, re.M | re.S)}


def test_manual_pages_have_every_structure(t):
    described = {}
    for path in glob.glob("docs/man/*.3", root_dir=ROOT):
        described.update(members(manual(os.path.basename(path))))
    equal(described, members(public_headers()))


def unquote(words):
    """The text of a macro's arguments, set without spaces between them."""
    return "".join(re.sub('^"|"$', "", w) for w in re.findall(r'"[^"]*"|\S+', words))


def test_manual_pages_render(t):
    if not shutil.which("groff"):
        raise Skip("no groff is installed")
    for page in sorted(glob.glob(ROOT + "/docs/man/*")):
        done = subprocess.run(["groff", "-man", "-Tutf8", "-ww", "-rLL=80n", page],
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        equal((done.returncode, done.stderr), (0, b""), page)
        assert b"SEE ALSO" in re.sub(b".\x08|\x1b\\[[0-9;]*m", b"", done.stdout), page
