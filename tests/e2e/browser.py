"""A headless Chromium, driven by its DevTools protocol over python3-websockets."""
import asyncio
import base64
import json
import os
import shutil
import subprocess
import tempfile
import urllib.parse
import urllib.request

import websockets

from case import Skip, eventually

FLAGS = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
         "--disable-background-networking", "--disable-component-update", "--disable-sync",
         "--disable-dev-shm-usage", "--remote-debugging-port=0", "--window-size=900,700"]


class Browser:
    def __init__(self, *flags):
        path = shutil.which("chromium")
        if not path:
            raise Skip("no chromium is installed")
        self.profile = tempfile.mkdtemp(prefix="fanwire-chromium-")
        self.log = open(os.path.join(self.profile, "log"), "wb")
        self.process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", "--", path, *FLAGS, *flags,
             "--user-data-dir=" + self.profile, "about:blank"],
            stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log)
        self.port = int(eventually(self._port, 30, "chromium listens"))

    def _port(self):
        try:
            with open(os.path.join(self.profile, "DevToolsActivePort")) as f:
                return f.readline().strip()
        except OSError:
            return None

    def open(self, url):
        """A new window."""
        request = urllib.request.Request(
            "http://127.0.0.1:%d/json/new?%s" % (self.port, urllib.parse.quote(url, ":/?=&")),
            method="PUT")
        with urllib.request.urlopen(request, timeout=20) as answer:
            return Page(json.load(answer)["webSocketDebuggerUrl"])

    def close(self):
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.log.close()
        shutil.rmtree(self.profile, ignore_errors=True)


class Page:
    """One window. Each call opens the DevTools socket anew: nothing runs between calls."""

    def __init__(self, socket_url):
        self.socket_url = socket_url

    def commands(self, *calls):
        """Several (method, parameters) in one session: what Emulation sets ends with it. Returns
        their results."""
        async def talk():
            async with websockets.connect(self.socket_url, max_size=None, ping_interval=None) as s:
                answers = []
                for number, (method, params) in enumerate(calls, 1):
                    await s.send(json.dumps({"id": number, "method": method, "params": params}))
                    answers.append(await answer_to(s, number))
                return answers

        async def answer_to(s, number):
            while True:
                answer = json.loads(await s.recv())
                if answer.get("id") == number:
                    return answer
        answers = asyncio.run(asyncio.wait_for(talk(), 20))
        for (method, _), answer in zip(calls, answers):
            if "error" in answer:
                raise AssertionError("%s: %s" % (method, answer["error"]))
        return [answer["result"] for answer in answers]

    def command(self, method, **params):
        return self.commands((method, params))[0]

    def run(self, script):
        """The value of a JavaScript expression; promises are awaited."""
        result = self.command("Runtime.evaluate", expression=script, awaitPromise=True,
                              returnByValue=True)
        if "exceptionDetails" in result:
            raise AssertionError(str(result["exceptionDetails"])[:800])
        return result["result"].get("value")

    def eventually(self, script, timeout=15):
        """Waits until the expression is true."""
        return eventually(lambda: self.run(script), timeout, script, every=0.05)

    def screenshot(self, path):
        with open(path, "wb") as f:
            f.write(base64.b64decode(self.command("Page.captureScreenshot")["data"]))
