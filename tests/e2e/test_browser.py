"""The page of --dev in a real browser, as the first minute of a new user."""
import json
import signal
import os

from browser import Browser
from case import case, equal

STATE = "document.getElementById('state')?.textContent"
EVENTS = "[...document.querySelectorAll('#events li span')].map(e => e.textContent)"


def browser_of(t):
    browser = Browser()
    t.cleanup(browser.close)
    return browser


def publish(page, text):
    page.run("""document.getElementById('payload').value = %s;
                document.getElementById('publish').requestSubmit(); true""" % json.dumps(text))


def see(page, text):
    page.eventually("%s.includes(%s)" % (EVENTS, json.dumps(text)))


@case(timeout=120)
def test_two_windows(t):
    server = t.server("memory:", "--dev", public=(), public_write=())
    browser = browser_of(t)
    one, two = browser.open(server.url + "/"), browser.open(server.url + "/")
    for page in (one, two):
        page.eventually(STATE + " === 'live'")
    publish(one, "from the first <b>window</b> ✓")
    publish(two, "from the second")
    for page in (one, two):
        see(page, "from the first <b>window</b> ✓")
        see(page, "from the second")
    late = browser.open(server.url + "/")
    see(late, "from the second")
    other = browser.open(server.url + "/#other%20channel")
    other.eventually(STATE + " === 'live'")
    equal(other.run(EVENTS), [], "another channel is quiet")
    if t.long:
        one.screenshot("/tmp/fanwire-dev-page.png")


@case(timeout=120)
def test_a_worker_and_the_source_die(t):
    server = t.server("memory:", "--dev", public=(), public_write=(), exits_expected=True)
    browser = browser_of(t)
    page = browser.open(server.url + "/")
    page.eventually(STATE + " === 'live'")
    publish(page, "before")
    see(page, "before")
    for pid in server.workers().values():
        os.kill(pid, signal.SIGKILL)
    page.eventually(STATE + " !== 'live'")
    page.eventually(STATE + " === 'live'")
    publish(page, "between")
    see(page, "between")
    os.kill(server.source_pid(), signal.SIGKILL)
    page.eventually("%s.some(text => text.startsWith('down'))" % EVENTS)
    page.eventually(STATE + " === 'live'")
    publish(page, "after")
    see(page, "after")
    found = [text for text in reversed(page.run(EVENTS)) if text in ("before", "between", "after")]
    equal(found, ["before", "between", "after"], "each once, in order")
