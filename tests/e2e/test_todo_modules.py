"""The to-do page's modules that need no browser, by node's own test runner."""
import glob
import json
import os
import shutil
import subprocess

from case import equal
from node_client import HERE, NODE, need_node

PAGE = os.path.join(os.path.dirname(os.path.dirname(HERE)), "examples", "todo", "page")


def node_test(t, name):
    """Beside copies of the modules: node takes .js for a module where a package.json says so."""
    need_node()
    shutil.copytree(PAGE, os.path.join(t.directory, "page"))
    shutil.copy(os.path.join(HERE, "node", name), t.directory)
    with open(os.path.join(t.directory, "package.json"), "w") as f:
        json.dump({"type": "module"}, f)
    done = subprocess.run([NODE, "--test", name], cwd=t.directory, timeout=60, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert done.returncode == 0, done.stdout
    assert "# pass 0" not in done.stdout and "pass 0\n" not in done.stdout, done.stdout


def test_todos(t):
    node_test(t, "todos.test.mjs")


def test_outbox(t):
    node_test(t, "outbox.test.mjs")


def test_all_modules_are_loaded(t):
    """What the page imports is there, and nothing else is."""
    names = {os.path.basename(path) for path in glob.glob(os.path.join(PAGE, "*.js"))}
    imported = {"main.js"}
    for name in names:
        with open(os.path.join(PAGE, name)) as f:
            imported.update(line.split('"./')[1].split('"')[0] for line in f if 'from "./' in line)
    equal(imported, names | {"fanwire.js"}, "the client is the server's")
