"""The npm package in Node: installed as a user would, driven as a browser's page is."""
import json
import os
import select
import shutil
import subprocess

from case import Skip, eventually

HERE = os.path.dirname(os.path.abspath(__file__))
CLIENT = os.path.join(os.path.dirname(os.path.dirname(HERE)), "clients", "js")
NODE = "/usr/bin/node"


def need_node():
    if not os.path.exists(NODE):
        raise Skip("no node is installed")


def npm(directory, *arguments):
    """Runs npm without a network and returns what it prints."""
    if not shutil.which("npm"):
        raise Skip("no npm is installed")
    env = dict(os.environ, HOME=directory, npm_config_cache=os.path.join(directory, "cache"),
               npm_config_offline="true", npm_config_audit="false", npm_config_fund="false",
               npm_config_update_notifier="false")
    done = subprocess.run(["npm", *arguments], cwd=directory, env=env, timeout=60,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def install(directory):
    """The package's files where npm would put them: for machines that have node and no npm."""
    with open(os.path.join(CLIENT, "package.json")) as f:
        names = json.load(f)["files"]
    target = os.path.join(directory, "node_modules", "fanwire")
    os.makedirs(target)
    for name in ["package.json", *names]:
        shutil.copy(os.path.join(CLIENT, name), target)


class Node:
    """run() and eventually() as of a browser's Page."""

    def __init__(self, test):
        need_node()
        directory = test.directory
        if not os.path.exists(os.path.join(directory, "node_modules")):
            install(directory)
        for name in ("driver.mjs", "sockets.mjs"):
            shutil.copy(os.path.join(HERE, "node", name), directory)
        self.process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", "--", NODE, "driver.mjs"], cwd=directory,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        test.cleanup(self.close)

    def run(self, script, timeout=20):
        """The value of a JavaScript expression; promises are awaited."""
        self.process.stdin.write(json.dumps(script).encode() + b"\n")
        self.process.stdin.flush()
        ready, _, _ = select.select([self.process.stdout], [], [], timeout)
        assert ready, "no answer to " + script
        answer = json.loads(self.process.stdout.readline())
        assert "error" not in answer, answer["error"]
        return answer.get("value")

    def eventually(self, script, timeout=15):
        return eventually(lambda: self.run(script), timeout, script, every=0.03)

    def close(self):
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()
