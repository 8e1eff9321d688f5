/* The bare send loop (bare_loop.h) with lines of standard input as events: all complete lines of
 * one read go out together. Usage: bare; prints "port N", ends at the end of its input. */
#include "bare_loop.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define READ_MAX   (64u << 10)
#define LINE_BYTES 65535 /* the longest line */

struct input {
    struct bare *bare;
    size_t len;
    char lines[LINE_BYTES + READ_MAX];
};

static void read_lines(void *arg)
{
    struct input *in = arg;
    ssize_t n = read(STDIN_FILENO, in->lines + in->len, READ_MAX);
    if (n == 0)
        exit(0);
    if (n < 0)
        bare_fail("standard input: %s", strerror(errno));
    size_t end = in->len + (size_t)n, at = 0;
    for (char *nl; (nl = memchr(in->lines + at, '\n', end - at)); at = (size_t)(nl - in->lines) + 1)
        bare_put(in->bare, in->lines + at, (size_t)(nl - in->lines) - at);
    bare_flush(in->bare);
    in->len = end - at;
    if (in->len > LINE_BYTES)
        bare_fail("a line of more than %d bytes", LINE_BYTES);
    memmove(in->lines, in->lines + at, in->len);
}

int main(void)
{
    struct input *in = calloc(1, sizeof(*in));
    if (!in)
        bare_fail("out of memory");
    in->bare = bare_new();
    bare_run(in->bare, STDIN_FILENO, read_lines, in);
}
