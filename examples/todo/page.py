#!/usr/bin/env python3
"""Writes the page's files as one C table: page.py OUTPUT FILE… gives `page_files`, with their paths
and types. index.html is what "/" shows."""
import os
import sys

TYPES = {".html": "text/html; charset=utf-8", ".js": "text/javascript; charset=utf-8",
         ".css": "text/css; charset=utf-8", ".svg": "image/svg+xml", ".png": "image/png",
         ".webmanifest": "application/manifest+json"}

target, *sources = sys.argv[1:]
rows = []
with open(target, "w") as out:
    for i, source in enumerate(sources):
        name = os.path.basename(source)
        path = "/" if name == "index.html" else "/" + name
        with open(source, "rb") as f:
            data = f.read()
        out.write("static const unsigned char page_file_%d[] = {%s};\n"
                  % (i, ",".join(map(str, data))))
        rows.append('    { "%s", "%s", page_file_%d, sizeof(page_file_%d) },\n'
                    % (path, TYPES[os.path.splitext(name)[1]], i, i))
    out.write("static const struct page_file {\n"
              "    const char *path, *type;\n    const void *data;\n    size_t len;\n"
              "} page_files[] = {\n%s};\n" % "".join(rows))
