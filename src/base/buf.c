/* A byte buffer that grows by doubling, never beyond its maximum. */
#include "buf.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BUF_CAP_MIN 64

void buf_done(struct buf *b)
{
    free(b->data);
    *b = buf_make(b->max);
}

void buf_clear(struct buf *b)
{
    b->len = 0;
    b->failed = 0;
}

static int fail(struct buf *b, int code)
{
    b->failed = code;
    return code;
}

/* One byte more than `cap` is allocated, so that buf_printf() may fill the buffer to the brim
 * although vsnprintf() always writes a NUL. */
static int grow(struct buf *b, size_t need)
{
    size_t cap = b->cap < BUF_CAP_MIN ? BUF_CAP_MIN : b->cap;
    while (cap < need)
        cap = cap > SIZE_MAX / 2 ? need : cap * 2;
    if (cap > b->max)
        cap = b->max;
    if (cap == SIZE_MAX)
        return fail(b, -ENOMEM);
    uint8_t *data = realloc(b->data, cap + 1);
    if (!data)
        return fail(b, -ENOMEM);
    b->data = data;
    b->cap = cap;
    return 0;
}

int buf_reserve(struct buf *b, size_t extra)
{
    if (b->failed)
        return b->failed;
    if (extra <= b->cap - b->len)
        return 0;
    if (extra > b->max || b->len > b->max - extra)
        return fail(b, -EMSGSIZE);
    return grow(b, b->len + extra);
}

int buf_append(struct buf *b, const void *data, size_t len)
{
    int r = buf_reserve(b, len);
    if (r < 0 || !len)
        return r;
    memcpy(b->data + b->len, data, len);
    b->len += len;
    return 0;
}

int buf_append_str(struct buf *b, const char *s)
{
    return buf_append(b, s, strlen(s));
}

int buf_append_char(struct buf *b, char c)
{
    return buf_append(b, &c, 1);
}

/* Formats into the room there is; returns the length wanted, written only if it is ≤ that room. */
static int format_into(struct buf *b, const char *format, va_list args)
{
    if (!b->data)
        return vsnprintf(NULL, 0, format, args);
    return vsnprintf((char *)b->data + b->len, b->cap - b->len + 1, format, args);
}

int buf_printf(struct buf *b, const char *format, ...)
{
    if (b->failed)
        return b->failed;
    va_list args, again;
    va_start(args, format);
    va_copy(again, args);
    int n = format_into(b, format, args);
    int r = n < 0 ? fail(b, -EMSGSIZE) : 0;
    if (r == 0 && (!b->data || (size_t)n > b->cap - b->len)) {
        r = buf_reserve(b, (size_t)n);
        if (r == 0 && b->data)
            n = format_into(b, format, again);
    }
    if (r == 0)
        b->len += (size_t)n;
    va_end(again);
    va_end(args);
    return r;
}

void buf_consume(struct buf *b, size_t n)
{
    if (!n)
        return;
    b->len -= n;
    memmove(b->data, b->data + n, b->len);
}
