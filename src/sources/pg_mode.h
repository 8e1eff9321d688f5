/* A mode of the Postgres source: how events are read and published, once it is known which.
 *
 * postgres.c connects, asks what is installed, chooses a mode, and hands the session over to it:
 *
 *     start(reader)  on an ordinary connection; then queries, maybe pg_session_reopen() for the
 *                    replication protocol, maybe fw_host_continue() or fw_host_begin() and history
 *     pg_session_opened(session, mode->name, mode->guarantee, identity)
 *     events, subscribe, unsubscribe …
 *     lost(reader)   after any loss (pg_session_lose() and others), in whatever state; then start()
 *                    again, on a new connection
 *
 * A mode is one file and one line in the table of postgres.c. */
#ifndef SOURCES_PG_MODE_H
#define SOURCES_PG_MODE_H

#include "pg_publish.h"
#include "pg_session.h"
#include "pg_snapshot.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PG_MODE_MAX 16 /* bytes of a mode's name with its NUL */
#define PG_SLOT_MAX 64

/* What the server said when it was reached. */
struct pg_server {
    bool pooled;             /* a connection pooler is in between: LISTEN does not work */
    bool standby, installed; /* installed: fanwire's SQL */
    bool sql_ascii;          /* the database's encoding is none; so is the connection's */
    char wal_level[16];      /* "replica", "logical", … */
    char mode[PG_MODE_MAX];  /* of the installed SQL, "" if none */
    char slot[PG_SLOT_MAX];  /* of the installed SQL, "" if none */
    unsigned sql_version;    /* of the installed SQL, 0 if none */
    uint32_t database;       /* its oid */
    /* Modes with FW_SOURCE_ORDERED only; 0 where the role may not ask (some managed databases). */
    uint64_t system;
    uint32_t timeline;
};

struct pg_reader; /* a mode's own object; each mode's file defines its own */

struct pg_mode {
    const char *name, *guarantee;
    unsigned traits;
    bool needs_sql; /* nothing works before fanwire's SQL for this mode is installed */
    struct pg_publish_form publish;
    struct pg_join join;             /* rows to its events */
    struct pg_session_events events; /* `arg` is the reader */
    /* Makes the reader; all are borrowed for its life. No I/O. NULL: out of memory. */
    struct pg_reader *(*create)(struct pg_session *session, const struct pg_server *server,
                                const struct pg_url *url);
    void (*destroy)(struct pg_reader *reader);
    void (*start)(struct pg_reader *reader);
    void (*lost)(struct pg_reader *reader); /* may be NULL */
    /* With FW_SOURCE_ON_DEMAND, while open. */
    void (*subscribe)(struct pg_reader *reader, const char *channel, size_t len);
    void (*unsubscribe)(struct pg_reader *reader, const char *channel, size_t len);
};

/* An identity of positions, never 0: server, timeline, database, mode, and `more` (a slot's name,
 * an installation's id; may be ""). */
uint64_t pg_identity(const struct pg_server *server, const char *mode, const char *more);

extern const struct pg_mode pg_notify;
extern const struct pg_mode pg_outbox;
extern const struct pg_mode pg_wal;

#endif
