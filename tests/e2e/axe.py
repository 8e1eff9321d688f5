"""axe-core, which looks for what keeps people out of a page: fetched once by npm, one pinned version."""
import hashlib
import os
import shutil
import subprocess
import tarfile
import tempfile

from case import Skip

NAME = "axe-core-4.10.3"
SHA512 = ("5e6edba515e70d25f6604d9815f064d859c5d1ea7ab661bbc4f87c88779ef0c2"
          "1cae0abbeb636471ef39e9d62d2582e4b88a1866f19f4ecfcf6d986275e4dc12")


def fetch(cache):
    """axe.min.js as text; Skip where npm is not installed or cannot reach the registry."""
    tarball = os.path.join(cache, NAME + ".tgz")
    if not os.path.exists(tarball):
        download(cache, tarball)
    with open(tarball, "rb") as f:
        found = hashlib.sha512(f.read()).hexdigest()
    assert found == SHA512, "%s is not what it should be: sha512 %s" % (tarball, found)
    with tarfile.open(tarball) as tar:
        return tar.extractfile("package/axe.min.js").read().decode()


def download(cache, tarball):
    if not shutil.which("npm"):
        raise Skip("no npm is installed, to fetch %s" % NAME)
    os.makedirs(cache, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as directory:
        name, _, version = NAME.rpartition("-")
        done = subprocess.run(
            ["npm", "pack", "--silent", "--fetch-retries=0", "%s@%s" % (name, version)],
            cwd=directory, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=50,
            env=dict(os.environ, npm_config_update_notifier="false"))
        if done.returncode != 0:
            raise Skip("npm cannot fetch %s: %s" % (NAME, done.stderr.strip()[-200:]))
        os.rename(os.path.join(directory, NAME + ".tgz"), tarball)
