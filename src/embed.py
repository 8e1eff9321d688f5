#!/usr/bin/env python3
"""Writes text files, one after the other, as a C header: embed.py INPUT… NAME OUTPUT gives
`static const char NAME[]`, and its entity tag as the macro NAME_etag."""
import hashlib
import sys

*sources, name, target = sys.argv[1:]
data = b""
for source in sources:
    with open(source, "rb") as f:
        data += f.read()
data += b"\0"
rows = (data[i:i + 20] for i in range(0, len(data), 20))
with open(target, "w") as f:
    f.write("static const char %s[] = {\n" % name)
    for row in rows:
        f.write("    " + "".join("%d," % (b - 256 if b > 127 else b) for b in row) + "\n")
    f.write("};\n")
    f.write('#define %s_etag "\\"%s\\""\n' % (name, hashlib.sha256(data).hexdigest()[:16]))
