"""The documentation as tests read it: fenced blocks, tables, links; and a bench on which blocks are
run as a reader would.

What follows a block's language says what is done with it:

    sh run=NAME        a shell script. Blocks of one NAME share a directory, a server, a database
    sh run=NAME &      goes on in the background; with `fanwire serve`, until its source is opened
    sql run=NAME       by psql
    js run=NAME        in a browser, on a page of http://localhost:8000
    js run=NAME file=F the same, as a module; the page F shows what it hands to show()
    c run=NAME file=F  is written to F, for a shell block to compile; so are html and python
    c file=F           is the text of F in the repository
    text output        what the block before it has printed; … stands for anything
    text run=NAME page=F     what the page http://localhost:8000/F shows: each line is one of its
    text run=NAME stop=WORD  what the reader presses to end the background that has WORD in it

A block may belong to several scenarios: run=NAME,NAME. A server that is started again has the
addresses it had.

Addresses in them are what a reader sees, 127.0.0.1:4600 and 4601 for the server, localhost:8000 for
a page, postgres://localhost/app for the database; each is replaced by the real one."""
import glob
import http.server
import os
import re
import signal
import socket
import subprocess
import threading

from case import equal, eventually
from server import address_of, alive, parse_line, title_of

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
FENCE = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.M | re.S)
# Events begin when the channel is ready; in a worker or another tab nobody could watch for that.
PAGE_HTML = """<!doctype html><title>a page of the application</title><body><script>
delete window.SharedWorker;
Object.defineProperty(navigator, "locks", { value: undefined });
window.show = x => document.body.append(typeof x === "string" ? x : JSON.stringify(x),
                                        document.createElement("br"));
const note = e => { window.ready ||= e.type === "ready" || String(e.data).includes('"ready"'); };
window.WebSocket = class extends WebSocket {
    constructor(...a) { super(...a); this.addEventListener("message", note); }
};
window.EventSource = class extends EventSource {
    constructor(...a) { super(...a); this.addEventListener("ready", note); }
};
</script>"""
HTTP, ADMIN, PAGE = "127.0.0.1:4600", "127.0.0.1:4601", "localhost:8000"
DATABASE = "postgres://localhost/app"


def read(path):
    with open(os.path.join(ROOT, path), encoding="utf-8") as f:
        return f.read()


def documents():
    """Every Markdown file, as Document."""
    found = [path for pattern in ("*.md", "docs/**/*.md")
             for path in glob.glob(pattern, root_dir=ROOT, recursive=True)]
    return [Document(path) for path in sorted(found)]


class Block:
    def __init__(self, info, text, where):
        words = info.split()
        self.kind = words[0] if words else ""
        self.options = dict(w.partition("=")[::2] for w in words[1:])
        self.text = text
        self.where = where

    @property
    def names(self):
        """Of the scenarios it belongs to."""
        return self.options["run"].split(",") if "run" in self.options else []


class Document:
    def __init__(self, path):
        self.path = path
        self.text = read(path)
        self.blocks = [Block(m[1], m[2], "%s:%d" % (path, self.text.count("\n", 0, m.start()) + 1))
                       for m in FENCE.finditer(self.text)]

    def names(self):
        """Of the scenarios, in order."""
        return list(dict.fromkeys(name for b in self.blocks for name in b.names))

    def scenario(self, name):
        """Its blocks, and the outputs that follow one of them."""
        found, inside = [], False
        for block in self.blocks:
            inside = name in block.names or (inside and "output" in block.options)
            if inside:
                found.append(block)
        return found

    def prose(self):
        """The text without fenced blocks."""
        return FENCE.sub("", self.text)

    def rows(self, heading):
        """The cells of all table rows in the section with this heading."""
        section = re.search(r"^#+ %s$(.*?)(^#+ |\Z)" % re.escape(heading), self.prose(),
                            re.M | re.S)
        assert section, "%s has no section %r" % (self.path, heading)
        lines = [line for line in section[1].splitlines() if line.startswith("|")]
        cells = [[c.strip() for c in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
        return [row for row in cells if not set(row[0]) <= {"-"}]

    def anchors(self):
        """Of its headings, as GitHub makes them."""
        headings = re.findall(r"^#+ (.*)$", self.prose(), re.M)
        return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}

    def links(self):
        """The targets of all relative links."""
        found = re.findall(r"\]\(([^)\s]+)\)", self.prose())
        return [target for target in found if not re.match(r"[a-z]+:", target)]


def matches(expected, found):
    """… stands for anything within a line."""
    parts = [re.escape(part) for part in expected.strip("\n").split("…")]
    return re.search("^%s$" % "[^\n]*".join(parts), found.strip("\n"), re.M) is not None


class Background:
    """A shell script that goes on; its output is kept."""

    def __init__(self, bench, text):
        self.text = text
        self.lines = []
        self.family = []  # its processes, as far as known
        self.process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", "--", "bash", "-eu", "-c", text],
            cwd=bench.directory, env=bench.environment, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        for line in self.process.stdout:
            self.lines.append(line.decode(errors="replace"))

    @property
    def output(self):
        return "".join(self.lines)

    def event(self, name):
        """Waits for a log line of the server."""
        def look():
            assert self.process.poll() is None, "it ended: " + self.output
            return [e for e in map(parse_line, self.lines) if e.get("event") == name]
        return eventually(look, 15, "event=" + name)[0]

    def _family(self, pid):
        try:
            with open("/proc/%d/task/%d/children" % (pid, pid)) as f:
                children = [int(child) for child in f.read().split()]
        except OSError:
            children = []
        return [pid] + [p for child in children for p in self._family(child)]

    def note_family(self):
        self.family = self._family(self.process.pid)

    def stop(self):
        self.note_family()
        for pid in self.family:
            title = title_of(pid)
            if title == "fanwire: supervisor" or not title.startswith("fanwire: "):
                try:
                    os.kill(pid, signal.SIGTERM)
                except ProcessLookupError:
                    pass
        self.process.wait(15)
        self.gone()

    def gone(self):
        eventually(lambda: not any(alive(pid) for pid in self.family), 10,
                   "the background has ended")


class Bench:
    """Runs the blocks of one scenario; js blocks need a browser."""

    def __init__(self, t, document, name, browser=None):
        self.t = t
        self.blocks = document.scenario(name)
        self.directory = os.path.join(t.directory, os.path.basename(document.path) + "-" + name)
        os.mkdir(self.directory)
        self.browser = browser
        self.page = self.database = None
        self.background = []
        self.replacements = {}
        build = os.path.dirname(t.binary)
        self.environment = dict(
            os.environ, PATH=build + ":" + os.environ["PATH"], FANWIRE_HTTP="127.0.0.1:0",
            FANWIRE_ADMIN="127.0.0.1:0", FANWIRE_DRAIN="0s", FANWIRE_WORKERS="2",
            PKG_CONFIG_PATH=build + "/meson-uninstalled", LD_RUN_PATH=build,
            C_INCLUDE_PATH=ROOT + "/include")
        if any(b.kind == "sql" or DATABASE in b.text for b in self.blocks):
            self.database = self._take_database(t)
            self.replacements[DATABASE] = self.database.url
        self.pages = {}
        if any(b.kind == "html" for b in self.blocks):  # files that are written name both
            port = self._reserve_port()
            self.replacements[PAGE] = "localhost:%d" % port
            self.replacements['"localhost", 8000'] = '"localhost", %d' % port
            self.replacements[HTTP] = "127.0.0.1:%d" % self._reserve_port()
        elif any(b.kind == "js" for b in self.blocks):
            self.replacements[PAGE] = self._serve_page()

    def _take_database(self, t):
        """Mode wal needs a server that is set up for it."""
        if any("--mode wal" in b.text for b in self.blocks):
            return t.postgres(wal_level="logical")
        return t.database()

    def _reserve_port(self):
        """Bound, not listened to: no other program gets it, one with SO_REUSEADDR may listen."""
        held = socket.socket()
        self.t.cleanup(held.close)
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind(("localhost", 0))
        return held.getsockname()[1]

    def _serve_page(self):
        class Page(http.server.BaseHTTPRequestHandler):
            directory = self.directory

            def do_GET(self):
                if self.path.endswith(".js"):
                    kind, body = "text/javascript", read(os.path.join(self.directory, self.path[1:]))
                else:
                    kind, body = "text/html", PAGE_HTML
                    if self.path != "/":
                        body += '<script type="module" src="%s.js"></script>' % self.path
                self.send_response(200)
                self.send_header("Content-Type", kind)
                self.end_headers()
                self.wfile.write(body.encode())

            def log_message(self, *_):
                pass
        server = http.server.ThreadingHTTPServer(("localhost", 0), Page)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self.t.cleanup(server.server_close)
        self.t.cleanup(server.shutdown)
        return "localhost:%d" % server.server_port

    def real(self, text):
        for shown, real in self.replacements.items():
            text = text.replace(shown, real)
        return text

    def run(self):
        for block in self.blocks:
            try:
                self._run_one(block)
            except BaseException:
                print("this was %s" % block.where)
                raise
        return self

    def _run_one(self, block):
        text = self.real(block.text)
        if "output" in block.options:
            self._compare(text)
        elif "page" in block.options:
            self._compare_page(block.options["page"], text)
        elif "stop" in block.options:
            self._find(block.options["stop"]).stop()
        elif "&" in block.options:
            self.start(text)
        elif block.kind == "sh":
            self.printed = self.shell(text)
        elif block.kind == "sql":
            self.printed = self.database.psql(text)
        elif "file" in block.options:
            self._write(block.options["file"], text)
            if block.kind == "js":
                self._open_module(block.options["file"])
        elif block.kind == "js":
            self._open_page(text)
        else:
            raise AssertionError("nobody knows how to run %s" % block.kind)

    def shell(self, text):
        done = subprocess.run(["bash", "-eu", "-o", "pipefail", "-c", text], cwd=self.directory,
                              env=self.environment, stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=40)
        assert done.returncode == 0, "exit code %d: %s" % (done.returncode, done.stderr.decode())
        return done.stdout.decode()

    def start(self, text):
        serves = "fanwire serve" in text
        if serves and HTTP in self.replacements:
            for before in self.background:
                if before.process.poll() is not None:
                    before.gone()
            self.environment["FANWIRE_HTTP"] = self.replacements[HTTP]
        for address in (HTTP, ADMIN):
            text = text.replace(address, "127.0.0.1:0")
        background = Background(self, text)
        self.t.cleanup(background.stop)
        self.background.append(background)
        self.printed = None
        if serves:
            started = background.event("started")
            for shown, word in ((HTTP, "http"), (ADMIN, "admin")):
                self.replacements[shown] = "%s:%d" % address_of(started[word])
            background.event("opened")
            background.note_family()
            self.environment["FANWIRE_SERVER"] = "http://" + self.replacements[HTTP]
        return background

    def _find(self, word):
        """The latest background with the word in it."""
        return [b for b in self.background if word in b.text][-1]

    def _compare(self, expected):
        if self.printed is not None:
            assert matches(expected, self.printed), \
                "expected:\n%s\nprinted:\n%s" % (expected, self.printed)
            return
        try:
            eventually(lambda: any(matches_lines(expected, b.output) for b in self.background), 10)
        except AssertionError:
            equal("\n".join(b.output for b in self.background), expected, "in the background")

    def _write(self, name, text):
        path = os.path.join(self.directory, name)
        with open(path, "w") as f:
            f.write(text)
        if not name.endswith(".c"):
            return
        subprocess.run(["gcc", "-std=c99", "-Wall", "-Wextra", "-Werror", "-fsyntax-only",
                        "-I", ROOT + "/include", path], check=True)

    def _compare_page(self, name, expected):
        if name not in self.pages:
            address = self.replacements[PAGE]
            eventually(lambda: listens(address), 10, "the page is served")
            self.pages[name] = self.browser.open("http://%s/%s" % (address, name))

        def shown():
            return self.pages[name].run("document.body?.innerText ?? ''")
        try:
            eventually(lambda: matches_lines(expected, shown()), 15, every=0.05)
        except AssertionError:
            equal(shown(), expected, "the page " + name)

    def _open_module(self, name):
        url = "http://%s/%s" % (self.replacements[PAGE], name.removesuffix(".js"))
        self.pages[name] = self.browser.open(url)
        self.pages[name].eventually("window.ready === true")

    def _open_page(self, script):
        """window.seen gets what the page is told; the events begin when the channel is ready."""
        self.page = self.browser.open("http://" + self.replacements[PAGE])
        self.page.eventually("document.title !== ''")
        self.page.run("window.seen = []; window.apply = x => seen.push(x);"
                      "window.reload = () => seen.push('gap'); true")
        self.page.run(script + "\nes.addEventListener('ready', () => window.ready = true); true")
        self.page.eventually("window.ready === true")


def listens(address):
    host, port = address.split(":")
    try:
        socket.create_connection((host, int(port)), 5).close()
        return True
    except OSError:
        return False


def matches_lines(expected, found):
    """Each expected line is among those found."""
    lines = found.splitlines()
    return all(any(matches(wanted, line) for line in lines) for wanted in expected.splitlines())
