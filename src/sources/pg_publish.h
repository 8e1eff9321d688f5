/* The command connection: publishes, many in flight, each answered on its own. */
#ifndef SOURCES_PG_PUBLISH_H
#define SOURCES_PG_PUBLISH_H

#include "buf.h"
#include "pg_link.h"

#include <fanwire/source.h>
#include <stdint.h>

struct pg_queue {
    struct pg_request *first, *last;
};

/* How a mode publishes. */
struct pg_publish_form {
    const char *sql;       /* one statement; $1 is the event in its envelope, as text */
    size_t max;            /* bytes of the envelope; 0: what the log takes */
    const char *too_large; /* what to do about a larger one */
    /* Finds the event's position in what the statement returns, for its id; false if there is none.
     * NULL: the statement does not tell. */
    bool (*position)(const PGresult *result, uint64_t ret_pos[2]);
};

struct pg_publisher {
    struct fw_host *host;
    const struct pg_publish_form *form; /* NULL: not known yet, publishes wait */
    bool blocked;                       /* nothing can be published: `error` says why */
    struct pg_link link;
    enum { PUBLISHER_CLOSED, PUBLISHER_CONNECTING, PUBLISHER_OPEN } state;
    struct pg_queue waiting;    /* not sent yet */
    struct pg_queue flight;     /* sent, in order; the answer to the first comes next */
    struct pg_request *current; /* … within what one sync ends, the one that was answered last */
    unsigned n_flight;
    struct fw_timer *timer;
    int64_t heard_ms; /* when something was last sent or received */
    int64_t retry_ms; /* not before this time after a failure to connect */
    struct buf scratch;
    char error[2 * PG_MESSAGE_MAX]; /* of the last failure to connect, or why it is blocked */
};

/* `url` is borrowed for the publisher's life. No I/O. */
void pg_publisher_init(struct pg_publisher *publisher, struct fw_host *host,
                       const struct pg_url *url);
/* From now on publish like this; borrowed for the publisher's life. What waits is sent. */
void pg_publisher_use(struct pg_publisher *publisher, const struct pg_publish_form *form);
/* Nothing can be published until pg_publisher_use(): what waits, and what comes, is refused. */
void pg_publisher_block(struct pg_publisher *publisher, const char *why);
/* Sends n events in one transaction, connecting first if need be. Ends in an fw_host_published()
 * for each, for what is refused here before this returns. */
void pg_publisher_send(struct pg_publisher *publisher, const struct fw_publish *events, size_t n);
/* Answers everything that is under way ("source-down") and releases. */
void pg_publisher_done(struct pg_publisher *publisher);

#endif
