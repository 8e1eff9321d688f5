/* Server-sent events as a client reads them (WHATWG HTML, 9.2.6): bytes in, events out; no I/O. */
#ifndef CLI_SSE_CLIENT_H
#define CLI_SSE_CLIENT_H

#include "buf.h"

#include <fanwire.h>

#include <stdbool.h>
#include <stddef.h>

struct sse_client {
    struct buf line;                   /* an incomplete line */
    struct buf data;                   /* of the event in the making, each line with its LF */
    char event[64];                    /* its name; "" = message */
    char id[FW_POSITION_MAX + 1];      /* last id seen; takes effect with the event's end */
    char last_id[FW_POSITION_MAX + 1]; /* Last-Event-ID for the next connection */
    unsigned retry_ms;                 /* 0: never told */
    bool after_cr;                     /* an LF that comes now belongs to the CR before it */
    bool begun;                        /* a byte order mark can only come first */
};

/* Called for each event with data. Borrowed during the call. false: stop. */
typedef bool (*sse_event_fn)(void *arg, const char *event, const char *data, size_t len);

void sse_client_init(struct sse_client *client, size_t max_data);
void sse_client_done(struct sse_client *client);
/* A new connection: forgets what was incomplete, keeps last_id and retry_ms. */
void sse_client_restart(struct sse_client *client);
/* Returns 0, 1 when fn said stop, -EMSGSIZE (too long a line or event) or -ENOMEM. */
int sse_client_feed(struct sse_client *client, const char *data, size_t len, sse_event_fn fn,
                    void *arg);

#endif
