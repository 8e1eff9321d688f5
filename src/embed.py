#!/usr/bin/env python3
"""Writes text files, one after the other, as a C header: embed.py INPUT… NAME OUTPUT gives
`static const char NAME[]`, and its entity tag as the macro NAME_etag. In SQL a line `\\ir FILE` stands
for the lines of that file, as in psql."""
import hashlib
import os
import re
import sys


def read(path):
    with open(path, "rb") as f:
        data = f.read()
    if not path.endswith(".sql"):
        return data
    directory = os.path.dirname(path)
    return re.sub(rb"^\\ir (\S+)\n", lambda m: read(os.path.join(directory, m[1].decode())), data,
                  flags=re.MULTILINE)


*sources, name, target = sys.argv[1:]
data = b"".join(read(source) for source in sources) + b"\0"
rows = (data[i:i + 20] for i in range(0, len(data), 20))
with open(target, "w") as f:
    f.write("static const char %s[] = {\n" % name)
    for row in rows:
        f.write("    " + "".join("%d," % (b - 256 if b > 127 else b) for b in row) + "\n")
    f.write("};\n")
    f.write('#define %s_etag "\\"%s\\""\n' % (name, hashlib.sha256(data).hexdigest()[:16]))
