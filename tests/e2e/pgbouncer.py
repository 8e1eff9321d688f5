"""A PgBouncer of a test's own, before a private Postgres. `postgres` may use its console."""
import os
import pwd
import shutil
import socket
import subprocess

from case import Skip, eventually

CONFIGURATION = """
[databases]
* = host=127.0.0.1 port={server}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = trust
auth_file = {directory}/users
admin_users = postgres
pool_mode = {mode}
default_pool_size = 5
logfile = {directory}/log
pidfile = {directory}/pid
"""


def _program():
    for path in ("/usr/sbin/pgbouncer", shutil.which("pgbouncer") or ""):
        if os.path.exists(path):
            return path
    raise Skip("no pgbouncer is installed")


class PgBouncer:
    def __init__(self, test, server_port, mode="transaction"):
        directory = os.path.join(test.directory, "pgbouncer-" + mode)
        os.mkdir(directory)
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            self.port = s.getsockname()[1]
        with open(directory + "/users", "w") as f:
            f.write('"postgres" ""\n"guest" ""\n')
        with open(directory + "/ini", "w") as f:
            f.write(CONFIGURATION.format(server=server_port, port=self.port, mode=mode,
                                         directory=directory))
        command = [_program(), directory + "/ini"]
        if os.geteuid() == 0:  # it refuses to run as root
            user = pwd.getpwnam("postgres")
            os.chown(directory, user.pw_uid, user.pw_gid)
            command = ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups",
                       "--pdeathsig", "KILL", "--"] + command
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL,
                                         stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        test.cleanup(self.close)
        eventually(self._listens, 10, "pgbouncer listens")

    def _listens(self):
        assert self._process.poll() is None, "pgbouncer has ended"
        with socket.socket() as s:
            return s.connect_ex(("127.0.0.1", self.port)) == 0

    def close(self):
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
