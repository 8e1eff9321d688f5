/* One libpq connection on the hub's loop: names resolved, connected with a time limit, watched. */
#ifndef SOURCES_PG_LINK_H
#define SOURCES_PG_LINK_H

#include "pg_refusal.h"
#include "pg_url.h"

#include <fanwire/source.h>
#include <libpq-fe.h>
#include <stdbool.h>

#define PG_MESSAGE_MAX 400

/* Told by the link. Each may call pg_link_close(). */
struct pg_link_events {
    void (*connected)(void *arg);
    void (*failed)(void *arg, const char *message); /* the link is closed; message is borrowed */
    void (*io)(void *arg, unsigned events);         /* once connected: FW_READABLE, FW_WRITABLE */
};

struct pg_link {
    struct fw_host *host;
    const struct pg_url *url;
    const struct pg_link_events *events;
    void *arg;
    PGconn *conn; /* NULL while closed or resolving; usable from connected() on */
    int fd;       /* our own duplicate of libpq's socket, which libpq closes when it likes */
    struct fw_watch *watch;
    struct fw_timer *timer; /* starts, then limits resolving and connecting */
    bool started;
    bool replication; /* set before pg_link_open(): a connection for the replication protocol */
    struct fw_resolve *resolve;
    struct pg_candidates *candidates;
    unsigned first;                  /* the candidate to begin with: moved on by a time-out */
    char fatal[PG_MESSAGE_MAX];      /* the server's last word, which libpq takes for a notice */
    bool failed;                     /* … or what it could not send: something is missing */
    char sqlstate[PG_SQLSTATE_SIZE]; /* of the server that refused us, at failed(); "": none did */
};

/* `url`, `events` and `arg` are borrowed for the link's life. Does nothing yet. */
void pg_link_init(struct pg_link *link, struct fw_host *host, const struct pg_url *url,
                  const struct pg_link_events *events, void *arg);
/* Starts connecting; ends in connected() or failed(), never from inside this call. The link must be
 * closed. Returns 0, or -errno and nothing was started. */
int pg_link_open(struct pg_link *link);
void pg_link_close(struct pg_link *link); /* idempotent; no event comes any more */
void pg_link_done(struct pg_link *link);  /* closes and releases; not from inside an event */
/* Sets what a connected link waits for. */
void pg_link_watch(struct pg_link *link, unsigned events);
/* Why the link broke, in one line: the server's last word, else libpq's. `out` holds
 * PG_MESSAGE_MAX. Returns out. */
char *pg_link_message(const struct pg_link *link, char *out);

#endif
