"""The to-do program's page in a real browser, on both stores: in step whatever happens."""
import base64
import json
import os
import signal

from axe import fetch
from browser import Browser
from case import case, equal, eventually
from server import alive
from test_snapshot import postgres
from todo import PostgresDatabase, Todo, on_both

ROWS = """[...document.querySelectorAll('#list .row')].map(row => ({
    id: row.dataset.id, title: row.querySelector('.title').textContent,
    completed: row.querySelector('.check').checked}))"""
KIND = "document.getElementById('status').dataset.kind"
MORE = "document.getElementById('status').children[1].textContent"
SAVED = KIND + " === 'live' && " + MORE + " === 'All changes saved'"
IN_DATABASE = {
    "sqlite": "SELECT json_group_array(json_object('id', id, 'title', title, 'completed', "
              "json(iif(completed, 'true', 'false')))) "
              "FROM (SELECT * FROM todos ORDER BY created, id)",
    "postgres": "SELECT coalesce(json_agg(json_build_object('id', id, 'title', title, 'completed', "
                "completed) ORDER BY created, id COLLATE \"C\"), '[]') FROM todos",
}
EXAMPLE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "examples", "todo")
SCREENSHOTS = os.environ.get("FANWIRE_TEST_SCREENSHOTS")  # a directory: there they are written
MARKUP = "<img src=x onerror=document.title='pwned'> & \"quotes\" \\ 👩‍👩‍👧 é\u0301"


def text(value):
    return json.dumps(value)


class Person:
    """Who sits at a page, in a browser of their own unless one is given."""

    def __init__(self, t, url, browser=None):
        if browser is None:
            browser = Browser()
            t.cleanup(browser.close)
        self.browser = browser
        self.page = browser.open(url)
        self.run, self.eventually = self.page.run, self.page.eventually
        self.eventually("document.getElementById('status') && " + SAVED, 30)

    def rows(self):
        return self.run(ROWS)

    def titles(self):
        return [row["title"] for row in self.rows()]

    def add(self, title):
        self.run("""{ const field = document.getElementById('new');
                      field.value = %s; field.dispatchEvent(new Event('input'));
                      document.getElementById('add').requestSubmit(); } true""" % text(title))

    def row(self, title, do):
        """Runs JavaScript on the row with this title; `row` is its element."""
        self.run("""{ const row = [...document.querySelectorAll('#list .row')].find(
                          row => row.querySelector('.title').textContent === %s);
                      %s; } true""" % (text(title), do))

    def toggle(self, title):
        self.row(title, "row.querySelector('.check').click()")

    def delete(self, title):
        self.row(title, "row.querySelector('.delete').click()")

    def edit(self, title, typed):
        """Opens the editor and types, without saving."""
        self.row(title, """row.querySelector('.start').click();
                           row.querySelector('.edit').value = %s;
                           row.querySelector('.edit').dispatchEvent(
                               new Event('input', { bubbles: true }))""" % text(typed))

    def save(self):
        self.run("document.querySelector('.row.editing .save').click(); true")

    def rename(self, title, typed):
        self.edit(title, typed)
        self.save()

    def click(self, selector):
        self.run("document.querySelector(%s).click(); true" % text(selector))

    def key(self, key, code=0, typed="", shift=False):
        """A key pressed and released, as the browser gets it from the keyboard."""
        params = {"key": key, "code": key, "windowsVirtualKeyCode": code,
                  "modifiers": 8 if shift else 0}
        down = dict(params, type="keyDown" if typed else "rawKeyDown", text=typed)
        self.page.commands(("Emulation.setFocusEmulationEnabled", {"enabled": True}),
                           ("Input.dispatchKeyEvent", down),
                           ("Input.dispatchKeyEvent", dict(params, type="keyUp")))

    def write(self, typed):
        self.page.command("Input.insertText", text=typed)


KEYS = {"Tab": 9, "Enter": 13, "Escape": 27, "Space": 32, "ArrowUp": 38, "ArrowDown": 40,
        "Delete": 46, "F2": 113}


def press(person, *keys):
    for name in keys:
        shift = name.startswith("Shift+")
        name = name[len("Shift+"):] if shift else name
        typed = {"Enter": "\r", "Space": " "}.get(name, "")
        person.key(" " if name == "Space" else name, KEYS[name], typed, shift)


def in_database(todo):
    return json.loads(todo.sql(IN_DATABASE[todo.database.kind]))


def agree(todo, *people, n=None, timeout=40):
    """Waits until all pages show what is in the database (n items), and have nothing to send."""
    found = []

    def same():
        if not all(person.run(SAVED) for person in people):
            return False
        found[:] = [in_database(todo)] + [person.rows() for person in people]
        return all(rows == found[0] for rows in found) and n in (None, len(found[0]))
    try:
        eventually(same, timeout, "all agree", every=0.05)
    except AssertionError as error:
        states = [person.run("[%s, %s]" % (KIND, MORE)) for person in people]
        raise AssertionError("%s; %r; %.3000r" % (error, states, found)) from None


def start(t, kind, people=2, **options):
    todo = Todo(t, kind, **options)
    return [todo] + [Person(t, todo.server.url + "/") for _ in range(people)]


def fill(todo, n):
    if todo.database.kind == "sqlite":
        todo.sql("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < %d) "
                 "INSERT INTO todos (title, created) SELECT 'number ' || i, i FROM n" % n)
    else:
        todo.sql("INSERT INTO todos (title, created) SELECT 'number ' || i, i "
                 "FROM generate_series(1, %d) i" % n)


# ---- in step ----

@on_both(timeout=120)
def test_two_people(t, kind):
    todo, one, two = start(t, kind)
    one.add("tea")
    two.add("  milk ")
    agree(todo, one, two, n=2)
    one.rename("milk", "oat milk")
    two.toggle("tea")
    agree(todo, one, two, n=2)
    equal({row["title"]: row["completed"] for row in one.rows()}, {"tea": True, "oat milk": False})
    equal(two.run("document.getElementById('count').textContent"), "1 item left")
    two.click("#filters a[href='#/completed']")
    equal(two.titles(), ["tea"])
    two.click("#filters a[href='#/active']")
    equal(two.titles(), ["oat milk"])
    two.click("#filters a[href='#/']")
    one.delete("oat milk")
    agree(todo, one, two, n=1)
    two.click("#clear")
    agree(todo, one, two, n=0)


@on_both(timeout=120)
def test_rows_of_others(t, kind):
    """What psql or the sqlite3 shell does is seen."""
    todo, one = start(t, kind, people=1)
    todo.sql("INSERT INTO todos (title) VALUES ('by hand')")
    one.eventually("%s.some(row => row.title === 'by hand')" % ROWS)
    todo.sql("UPDATE todos SET title = 'changed by hand', completed = true")
    agree(todo, one, n=1)
    todo.sql("DELETE FROM todos")
    agree(todo, one, n=0)


@on_both(timeout=120)
def test_all_of_200(t, kind):
    todo = Todo(t, kind)
    fill(todo, 200)
    one, two = Person(t, todo.server.url + "/"), Person(t, todo.server.url + "/")
    agree(todo, one, two, n=200)
    one.click("#all")
    two.eventually("document.querySelectorAll('#list .check:checked').length === 200")
    agree(todo, one, two, n=200)
    two.click("#all")
    agree(todo, one, two, n=200)
    equal(one.run("document.querySelectorAll('#list .check:checked').length"), 0)


def in_step_in_mode(t, mode):
    """What is installed stays, and the page notices no difference."""
    database = PostgresDatabase(postgres(t, mode))
    with open(os.path.join(EXAMPLE, "schema.postgres.sql")) as f:
        database.sql(f.read())
    todo, one, two = start(t, None, database=database)
    equal(todo.sql("SELECT mode FROM fanwire.installation"), mode)
    one.add("tea")
    two.add("🍵" * 10000)
    todo.sql("INSERT INTO todos (title, completed) VALUES ('by hand', true)")
    agree(todo, one, two, n=3)
    kill_connections(todo)
    one.rename("tea", "green tea")
    two.delete("by hand")
    agree(todo, one, two, Person(t, todo.server.url + "/"), n=2)
    todo.sql("TRUNCATE todos")
    agree(todo, one, two, n=0)


@case(timeout=120)
def test_in_step_in_mode_wal(t):
    in_step_in_mode(t, "wal")


@case(timeout=120)
def test_in_step_in_mode_outbox(t):
    in_step_in_mode(t, "outbox")


@on_both(timeout=120, long_only_on=["postgres"])
def test_a_list_that_is_too_large(t, kind):
    """The page says so, and goes on when it has been mended."""
    todo = Todo(t, kind)
    todo.sql("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000) "
             "INSERT INTO todos (id, title) SELECT 'i' || i, %s FROM n"
             % ("repeat('x', 10000)" if kind == "postgres" else "hex(zeroblob(5000))"))
    browser = Browser()
    t.cleanup(browser.close)
    page = browser.open(todo.server.url + "/")
    page.eventually("document.getElementById('status') && %s === 'broken' && %s.includes('16 MiB')"
                    % (KIND, MORE), 30)
    todo.sql("DELETE FROM todos WHERE id <> 'i7'")
    page.eventually("%s && %s.length === 1" % (SAVED, ROWS), 60)


@case(timeout=120)
def test_a_page_that_is_there_before_the_table(t):
    todo, one = start(t, "sqlite", people=1)
    todo.sql("DROP TABLE todos")
    one.run("location.reload(); true")
    one.eventually("document.getElementById('status')?.dataset.kind === 'broken'", 30)
    eventually(lambda: todo.api("POST", "", {"title": "tea"}).status == 201, 10, "there is one again")
    agree(todo, one, n=1)


@case(timeout=120)
def test_ten_tabs_hold_one_connection(t):
    todo, first = start(t, "sqlite", people=1)
    tabs = [first] + [Person(t, todo.server.url + "/", first.browser) for _ in range(9)]
    first.add("seen by all")
    agree(todo, *tabs, n=1)
    equal(todo.server.metric('fanwire_connections{transport="ws"}'), 1.0)
    equal(todo.server.metric('fanwire_connections_opened_total{transport="ws"}'), 1.0)
    equal(todo.server.metric('fanwire_connections{transport="sse"}'), 0.0)


# ---- outages ----

def kill_connections(todo):
    """All that the program has to its database, but for ours."""
    todo.sql("SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
             "WHERE datname = current_database() AND application_name IN ('fanwire', 'todo')")


@case(timeout=120, postgres=True)
def test_database_connections_killed(t):
    todo, one, two = start(t, "postgres")
    for n in range(3):
        one.add("before %d" % n)
        kill_connections(todo)
        two.add("after %d" % n)
        todo.sql("INSERT INTO todos (title) VALUES ('by hand %d')" % n)
    agree(todo, one, two, n=9)


@case(timeout=180)
def test_database_stopped(t):
    """The page says that the database is away, keeps what is done, and brings it later."""
    todo, one, two = start(t, None, database=PostgresDatabase(t.postgres()))
    one.add("tea")
    agree(todo, one, two, n=1)
    todo.database.database.stop()
    one.eventually(KIND + " === 'away'")
    one.add("while it is away")
    two.toggle("tea")
    equal(one.titles(), ["tea", "while it is away"])
    two.eventually(MORE + " === '1 change waiting'")
    todo.database.database.start()
    agree(todo, one, two, n=2, timeout=60)


@on_both(timeout=180)
def test_server_killed(t, kind):
    """kill -9 of all of it; what is done meanwhile arrives when it is back."""
    todo, one, two = start(t, kind, exits_expected=True)
    one.add("tea")
    one.add("milk")
    agree(todo, one, two, n=2)
    http, children = "%s:%d" % todo.server.address, todo.server.children()
    os.kill(todo.server.pid, signal.SIGKILL)
    todo.server.process.wait(10)
    eventually(lambda: not any(alive(pid) for pid in children), 10, "all processes have left")
    for person in (one, two):
        person.eventually(KIND + " === 'offline'", 30)
    one.rename("tea", "green tea")
    one.add("made offline")
    two.toggle("tea")
    two.delete("milk")
    todo.sql("INSERT INTO todos (title) VALUES ('by hand')")
    equal(one.titles(), ["green tea", "milk", "made offline"])
    again = Todo(t, kind, database=todo.database, http=http)
    agree(again, one, two, n=3, timeout=60)
    found = {row["title"]: row["completed"] for row in one.rows()}
    equal(found, {"green tea": True, "made offline": False, "by hand": False})


@on_both(timeout=180)
def test_network_cut(t, kind):
    """Both go on while cut off from each other, reload included, and agree afterwards."""
    todo = Todo(t, kind)
    proxy = t.proxy(todo.server.address[1])
    far = Person(t, "http://127.0.0.1:%d/" % proxy.port)
    near = Person(t, todo.server.url + "/")
    near.add("tea")
    agree(todo, far, near, n=1)
    proxy.refuse()
    proxy.cut()
    far.eventually(KIND + " === 'offline'", 30)
    far.add("from far")
    far.toggle("tea")
    near.add("from near")
    near.rename("tea", "green tea")
    far.eventually(MORE + " === '2 changes waiting'")
    equal(far.titles(), ["tea", "from far"])
    proxy.refuse(False)
    agree(todo, far, near, n=3, timeout=60)
    equal({row["title"] for row in near.rows() if row["completed"]}, {"green tea"})
    for _ in range(3):
        far.add("between two cuts")
        proxy.cut()
    agree(todo, far, near, n=6, timeout=60)


@on_both(timeout=120, long_only_on=["postgres"])
def test_a_late_clear_means_what_was_seen(t, kind):
    """Said while cut off: what others have done since is left alone."""
    todo = Todo(t, kind)
    proxy = t.proxy(todo.server.address[1])
    far = Person(t, "http://127.0.0.1:%d/" % proxy.port)
    near = Person(t, todo.server.url + "/")
    for title in ("done", "again", "open"):
        near.add(title)
    near.toggle("done")
    near.toggle("again")
    agree(todo, far, near, n=3)
    proxy.refuse()
    proxy.cut()
    far.eventually(KIND + " === 'offline'", 30)
    far.click("#clear")
    far.eventually(MORE + " === '1 change waiting'")
    near.toggle("again")
    near.toggle("open")
    agree(todo, near, n=3)
    proxy.refuse(False)
    agree(todo, far, near, n=2, timeout=60)
    equal({row["title"]: row["completed"] for row in near.rows()}, {"again": False, "open": True})


@case(timeout=120)
def test_below_a_path(t):
    todo = Todo(t, "sqlite", "--base-path", "/live", up=False)
    person = Person(t, todo.server.url + "/live")
    person.add("tea")
    agree(todo, person, n=1)


@case(timeout=120)
def test_a_change_of_another_version(t):
    """It can never be sent: it is told of, and does not keep the others."""
    todo, one = start(t, "sqlite", people=1)
    one.run("localStorage.setItem('todos:change:0000000000000001-x', "
            "JSON.stringify({ op: 'paint', ids: ['a'] })); true")
    one.add("tea")
    one.eventually("document.querySelector('.notice')?.textContent.includes('could not be made')")
    agree(todo, one, n=1)


@case(timeout=120)
def test_application_killed(t):
    todo, one, two = start(t, "sqlite", exits_expected=True)
    for n in range(3):
        one.add("item %d" % n)
        pid = eventually(todo.application_pid, 20, "the application process runs")
        os.kill(pid, signal.SIGKILL)
        eventually(lambda: not alive(pid), 10, "it is dead")
    two.add("the last")
    agree(todo, one, two, n=4, timeout=60)


# ---- people ----

@case(timeout=120)
def test_keyboard_only(t):
    todo, one = start(t, "sqlite", people=1)
    equal(one.run("document.activeElement.id"), "new", "one can type at once")
    for title in ("tea", "milk", "bread"):
        one.write(title)
        press(one, "Enter")
    agree(todo, one, n=3)
    press(one, "ArrowDown", "ArrowDown", "Space")
    one.eventually("%s[1].completed" % ROWS)
    press(one, "Enter")
    equal(one.run("document.activeElement.className"), "edit")
    one.write(" from oats")
    press(one, "Enter")
    one.eventually("%s[1].title === 'milk from oats'" % ROWS)
    press(one, "F2")
    one.write(" never")
    press(one, "Escape", "ArrowDown", "Delete")
    one.eventually("%s.length === 2" % ROWS)
    agree(todo, one, n=2)
    equal(one.titles(), ["tea", "milk from oats"])
    equal(one.run("document.activeElement.className"), "check", "the focus is on what is left")
    press(one, "ArrowUp", "ArrowUp")
    equal(one.run("document.activeElement.id"), "new")
    seen = []
    for _ in range(20):
        press(one, "Tab")
        seen.append(one.run("""(e => e.id || e.getAttribute('aria-label') || e.textContent.trim())
                               (document.activeElement)"""))
    for name in ("all", "All", "Active", "Completed", "clear", "Edit tea", "Delete tea"):
        assert any(name == found for found in seen), "%s is not reached: %r" % (name, seen)


@case(timeout=180)
def test_accessibility(t):
    """axe-core finds nothing, whatever the page shows."""
    script = fetch(os.path.join(os.path.dirname(t.binary), "cache"))
    todo, one = start(t, "sqlite", people=1)

    def look(what, scheme):
        result = one.page.commands(
            ("Emulation.setEmulatedMedia",
             {"features": [{"name": "prefers-color-scheme", "value": scheme},
                           {"name": "prefers-reduced-motion", "value": "reduce"}]}),
            ("Runtime.evaluate", {"expression": script}),
            ("Runtime.evaluate", {"expression": "axe.run(document)", "awaitPromise": True}),
            ("Runtime.evaluate", {"awaitPromise": True, "returnByValue": True,
                                  "expression": """axe.run(document).then(found => ({
                passes: found.passes.length,
                violations: found.violations.map(v => ({ id: v.id, help: v.help,
                    nodes: v.nodes.map(n => n.html.slice(0, 200) + ' ' + n.failureSummary) })) }))"""}))
        found = result[3]["result"]["value"]
        equal(found["violations"], [], "%s, %s" % (what, scheme))
        assert found["passes"] > 15, found
    for scheme in ("light", "dark"):
        look("empty", scheme)
    one.add("tea")
    one.add(MARKUP)
    one.add("long " * 300)
    agree_on_titles(todo, one, 3)
    one.toggle("tea")
    one.run("document.querySelector('details').open = true")
    for scheme in ("light", "dark"):
        look("some", scheme)
    one.edit(MARKUP, "changed")
    todo.sql("DELETE FROM todos WHERE title LIKE '<img%'")
    one.eventually("document.querySelector('.row.editing .problem').textContent.includes('Deleted')")
    for scheme in ("light", "dark"):
        look("an editor with a hint", scheme)


def agree_on_titles(todo, one, n):
    """For titles that the page does not show letter by letter."""
    one.eventually("%s && %s.length === %d" % (SAVED, ROWS, n))
    eventually(lambda: len(todo.items()) == n, 10, "all are saved")


@on_both(timeout=120)
def test_bad_input(t, kind):
    todo, one, two = start(t, kind)
    longest = "🍵" * 10000
    for title in (MARKUP, longest, "x" * 10000):
        one.add(title)
    agree(todo, one, two, n=3)
    equal(two.titles()[0], MARKUP)
    assert two.run("document.title").startswith("Todos"), "markup is text"
    equal(two.run("document.querySelectorAll('#list img').length"), 0)
    two.rename(longest, longest[:-2] + "☕☕")
    agree(todo, one, two, n=3)
    for title in ("", " \t\u3000", "x" * 10001):
        one.add(title)
    one.eventually("document.getElementById('new-problem').textContent.includes('10,001')")
    equal(one.run("document.getElementById('new').value.length"), 10001, "what was typed stays")
    todo.sql("INSERT INTO todos (id, title, created) VALUES ('spaces', '   ', 1)")
    two.eventually("%s[0].title === 'No title'" % ROWS)
    todo.sql("DELETE FROM todos WHERE id = 'spaces'")
    agree(todo, one, two, n=3)


@on_both(timeout=120, long_only_on=["postgres"])
def test_edited_by_two(t, kind):
    """Nobody loses what they type: the other's change is told beside it."""
    todo, one, two = start(t, kind)
    one.add("tea")
    agree(todo, one, two, n=1)
    one.edit("tea", "green tea, and")
    two.rename("tea", "black tea")
    one.eventually("document.querySelector('.row.editing .problem')"
                   ".textContent.includes('Changed elsewhere to “black tea”')")
    equal(one.run("document.querySelector('.row.editing .edit').value"), "green tea, and")
    one.save()
    agree(todo, one, two, n=1)
    equal(two.titles(), ["green tea, and"])


@on_both(timeout=120, long_only_on=["postgres"])
def test_deleted_while_edited(t, kind):
    todo, one, two = start(t, kind)
    one.add("tea")
    one.add("milk")
    agree(todo, one, two, n=2)
    for title, keep in (("tea", True), ("milk", False)):
        one.edit(title, title + " with sugar")
        two.delete(title)
        one.eventually("document.querySelector('.row.editing .problem')"
                       ".textContent.includes('Deleted by someone else')")
        equal(one.run("document.querySelector('.row.editing .edit').value"), title + " with sugar")
        one.click(".row.editing .save" if keep else ".row.editing .leave")
        agree(todo, one, two, n=2 if keep else 1)
    equal(two.titles(), ["tea with sugar"])


# ---- for people to look at ----

def take_screenshots(t):
    os.makedirs(SCREENSHOTS, exist_ok=True)
    todo, one = start(t, "sqlite", people=1, exits_expected=True)

    def shot(name):
        for size, width, height in (("wide", 1100, 800), ("narrow", 360, 740)):
            for scheme in ("light", "dark"):
                result = one.page.commands(
                    ("Emulation.setDeviceMetricsOverride",
                     {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}),
                    ("Emulation.setEmulatedMedia",
                     {"features": [{"name": "prefers-color-scheme", "value": scheme},
                                   {"name": "prefers-reduced-motion", "value": "reduce"}]}),
                    ("Page.captureScreenshot", {}))
                with open(os.path.join(SCREENSHOTS, "%s-%s-%s.png" % (name, size, scheme)), "wb") as f:
                    f.write(base64.b64decode(result[2]["data"]))
    shot("empty")
    for title in ("Buy tea", "Call the dentist", "A longer one, which needs more than a line on a "
                  "telephone and may need two on a desk", MARKUP):
        one.add(title)
    one.toggle("Buy tea")
    agree(todo, one, n=4)
    shot("some")
    one.edit("Call the dentist", "Call the dentist at nine")
    shot("editing")
    one.save()
    fill(todo, 200)
    one.eventually("%s.length === 204" % ROWS)
    shot("many")
    os.kill(todo.server.pid, signal.SIGKILL)
    one.eventually(KIND + " === 'offline'", 30)
    one.add("Written offline")
    one.run("scrollTo(0, 0)")
    shot("offline")


if SCREENSHOTS:
    @case(timeout=180)
    def test_screenshots(t):
        take_screenshots(t)
