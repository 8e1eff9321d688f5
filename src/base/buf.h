/* A byte buffer that grows up to a maximum set at birth. */
#ifndef BASE_BUF_H
#define BASE_BUF_H

#include <stddef.h>
#include <stdint.h>

struct buf {
    uint8_t *data; /* NULL while empty and never written */
    size_t len, cap, max;
    int failed; /* 0, or why an append did nothing (-EMSGSIZE, -ENOMEM); sticky until buf_clear() */
};

static inline struct buf buf_make(size_t max)
{
    return (struct buf){ .max = max };
}

void buf_done(struct buf *b);                 /* frees; the buffer may be used again */
void buf_clear(struct buf *b);                /* len = 0, failed = 0, memory kept */
int buf_reserve(struct buf *b, size_t extra); /* 0, -EMSGSIZE, -ENOMEM; sets failed */
/* All append wholly or not at all, and return what buf_reserve() returns. */
int buf_append(struct buf *b, const void *data, size_t len);
int buf_append_str(struct buf *b, const char *s);
int buf_append_char(struct buf *b, char c);
int buf_printf(struct buf *b, const char *format, ...) __attribute__((format(printf, 2, 3)));
void buf_consume(struct buf *b, size_t n); /* drops n ≤ len bytes from the front */

#endif
