#!/usr/bin/python3
"""A private throw-away Postgres for tests, as a module and as a command.

    with PrivatePostgres() as pg:  pg.psql("select 1");  pg.restart()

    private_postgres.py run [--set NAME=VALUE]… COMMAND…
                                          starts one, runs COMMAND with PGHOST, PGPORT, PGDATABASE,
                                          PGUSER and FANWIRE_TEST_PG (its directory) set, stops it
    private_postgres.py start|stop|crash DIRECTORY   for COMMAND

It listens on a Unix socket in its directory and on a free port of 127.0.0.1. Everybody is trusted,
except the role `secret` over TCP (password `s3cr3t/pass@word`). Run by root, the server runs as the
system's user postgres. Exit code 77 (skipped) where no Postgres is installed."""
import glob
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

SKIP = 77


def _bin():
    found = sorted(glob.glob("/usr/lib/postgresql/*/bin/postgres"),
                   key=lambda p: int(p.split("/")[4]))
    path = found[-1] if found else shutil.which("postgres")
    return os.path.dirname(path) if path else None


def _as_postgres():
    """The words before a command of the server; it refuses to run as root."""
    if os.geteuid() != 0:
        try:
            pwd.getpwuid(os.geteuid())
        except KeyError:
            sys.exit("private_postgres: this user id has no entry in passwd, initdb refuses it")
        return []
    return ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups", "--"]


def _free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class PrivatePostgres:
    def __init__(self, directory=None, settings=None, environment=None):
        """Takes over `directory` of another PrivatePostgres, or makes one of its own with these
        settings: {name: value}; the server runs with these in its environment, too."""
        self.bin = _bin()
        self.dir = directory
        self.settings = settings or {}
        self.server_environment = dict(environment or {}, LC_ALL="C")
        if directory:
            with open(directory + "/port") as f:
                self.port = int(f.read())

    def create(self):
        self.dir = tempfile.mkdtemp(prefix="fanwire-pg-")
        if os.geteuid() == 0:
            shutil.chown(self.dir, "postgres", "postgres")
        os.chmod(self.dir, 0o755)
        self._server(["initdb", "-D", self.data, "-U", "postgres", "-E", "UTF8", "--no-locale",
                      "-A", "trust", "--no-sync"])
        with open(self.data + "/pg_hba.conf", "w") as f:
            f.write("local all all trust\n"
                    "host all secret 127.0.0.1/32 scram-sha-256\n"
                    "host all all 127.0.0.1/32 trust\n")
        self._listen_on(_free_port())

    @property
    def data(self):
        return self.dir + "/data"

    def _listen_on(self, port):
        self.port = port
        with open(self.data + "/postgresql.auto.conf", "w") as f:
            f.write("unix_socket_directories = '%s'\nlisten_addresses = '127.0.0.1'\nport = %d\n"
                    "fsync = off\nmax_connections = 50\nshared_buffers = '16MB'\n"
                    "log_min_messages = fatal\n" % (self.dir, port))
            for name, value in self.settings.items():
                f.write("%s = '%s'\n" % (name, value))
        with open(self.dir + "/port", "w") as f:
            f.write(str(port))

    def _server(self, command):
        done = subprocess.run(_as_postgres() + [self.bin + "/" + command[0]] + command[1:],
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                              cwd=self.dir, env=dict(os.environ, **self.server_environment))
        if done.returncode != 0:
            raise RuntimeError("%s: %s" % (command[0], done.stdout))

    def start(self):
        """Starts the server and waits until it accepts connections."""
        self._server(["pg_ctl", "-D", self.data, "-l", self.dir + "/log", "-w", "-s", "start"])

    def stop(self, mode="fast"):
        self._server(["pg_ctl", "-D", self.data, "-w", "-s", "-m", mode, "stop"])

    def restart(self):
        self.stop()
        self.start()

    @property
    def pid(self):
        with open(self.data + "/postmaster.pid") as f:
            return int(f.readline())

    @property
    def url(self):
        return "postgres://postgres@127.0.0.1:%d/postgres" % self.port

    @property
    def environment(self):
        return {"PGHOST": self.dir, "PGPORT": str(self.port), "PGDATABASE": "postgres",
                "PGUSER": "postgres", "FANWIRE_TEST_PG": self.dir}

    def psql(self, sql, *arguments):
        """Runs SQL; returns its output, unaligned, without the final line end."""
        done = subprocess.run(["psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", *arguments],
                              input=sql, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              text=True, env=dict(os.environ, **self.environment))
        if done.returncode != 0:
            raise RuntimeError("psql: " + done.stderr)
        return done.stdout.rstrip("\n")

    def __enter__(self):
        if not self.bin:
            raise FileNotFoundError("no Postgres is installed")
        for attempt in range(5):  # somebody else may have taken the port meanwhile
            self.create()
            try:
                self.start()
                break
            except RuntimeError:
                if attempt == 4:
                    raise
                shutil.rmtree(self.dir)
        self.psql("create role secret login password 's3cr3t/pass@word'")
        return self

    def __exit__(self, *_):
        try:
            pid = self.pid
            self.stop("immediate")
        except (RuntimeError, FileNotFoundError):
            pid = None  # a test has stopped it
        for _ in range(100):
            if not pid or not os.path.exists("/proc/%d" % pid):
                break
            time.sleep(0.05)
        shutil.rmtree(self.dir, ignore_errors=True)


def run(command):
    settings = {}
    while command[0] == "--set":
        name, _, value = command[1].partition("=")
        settings[name] = value
        command = command[2:]
    if not _bin():
        print("no Postgres is installed: skipped")
        return SKIP
    with PrivatePostgres(settings=settings) as pg:
        return subprocess.run(command, env=dict(os.environ, **pg.environment)).returncode


def main(arguments):
    if len(arguments) >= 2 and arguments[0] == "run":
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # leaves no server behind
        return run(arguments[1:])
    if len(arguments) == 2 and arguments[0] in ("start", "stop", "crash"):
        pg = PrivatePostgres(arguments[1])
        if arguments[0] == "start":
            pg.start()
        else:
            pg.stop("fast" if arguments[0] == "stop" else "immediate")
        return 0
    print(__doc__, file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
