/* A question that is asked now and then, on a connection of its own. */
#ifndef SOURCES_PG_QUESTION_H
#define SOURCES_PG_QUESTION_H

#include "pg_session.h"

/* A replication connection takes no questions while it streams, nor while its slot is being made.
 * So what is to be known meanwhile is asked beside it. The connection is closed again after each
 * answer. One that fails is not told: the stream's own says so, if there is a reason. */
struct pg_question {
    struct pg_session session;
    struct fw_timer *timer;
    const char *sql;
    unsigned every_ms;
    void (*answered)(void *arg, const PGresult *result); /* borrowed; neither starts nor stops it */
    void *arg;
};

/* `url` and `arg` are borrowed. Returns 0 or -ENOMEM; pg_question_done() in either case. */
int pg_question_init(struct pg_question *question, struct fw_host *host, const struct pg_url *url,
                     void (*answered)(void *arg, const PGresult *result), void *arg);
void pg_question_done(struct pg_question *question);
/* Asks after first_ms, then every every_ms; `sql` is borrowed until it is stopped. */
void pg_question_start(struct pg_question *question, const char *sql, unsigned first_ms,
                       unsigned every_ms);
void pg_question_stop(struct pg_question *question); /* idempotent */

#endif
