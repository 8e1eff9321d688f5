/* The command connection: publishes by pg_notify(), many in flight, each answered on its own. */
#ifndef SOURCES_PG_PUBLISH_H
#define SOURCES_PG_PUBLISH_H

#include "buf.h"
#include "pg_link.h"

#include <fanwire/source.h>
#include <stdint.h>

struct pg_queue {
    struct pg_request *first, *last;
};

struct pg_publisher {
    struct fw_host *host;
    struct pg_link link;
    enum { PUBLISHER_CLOSED, PUBLISHER_CONNECTING, PUBLISHER_OPEN } state;
    struct pg_queue waiting; /* not sent yet */
    struct pg_queue flight;  /* sent, in order; the answer to the first comes next */
    unsigned n_flight;
    struct fw_timer *timer;
    int64_t heard_ms; /* when something was last sent or received */
    int64_t retry_ms; /* not before this time after a failure to connect */
    struct buf scratch;
    char error[PG_MESSAGE_MAX]; /* of the last failure to connect */
};

/* `url` is borrowed for the publisher's life. No I/O. */
void pg_publisher_init(struct pg_publisher *publisher, struct fw_host *host,
                       const struct pg_url *url);
/* Sends an event, connecting first if need be. Ends in fw_host_published(), for what is refused
 * here before this returns. */
void pg_publisher_send(struct pg_publisher *publisher, const struct fw_publish *publish);
/* Answers everything that is under way ("source-down") and releases. */
void pg_publisher_done(struct pg_publisher *publisher);

#endif
