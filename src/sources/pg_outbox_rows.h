/* The outbox table in SQL, and what it answers. */
#ifndef SOURCES_PG_OUTBOX_ROWS_H
#define SOURCES_PG_OUTBOX_ROWS_H

#include <fanwire/source.h>
#include <libpq-fe.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define OUTBOX_SQL_MAX 2560
#define OUTBOX_ID_MAX  80

/* Which outbox it is, and how far it was pruned. The id is another after TRUNCATE, DELETE, a new
 * CREATE TABLE, when an older copy was put in its place, or when another mode was installed. */
struct outbox_state {
    char id[OUTBOX_ID_MAX];
    uint64_t floor[2];
};

/* What a role finds at the start. */
struct outbox_start {
    struct outbox_state state;
    bool there;     /* false: no state at all */
    bool overtaken; /* rows or the floor are of transactions that this cluster has not had yet */
    bool may_publish, may_prune;
    uint64_t next_xid; /* no transaction has had this one yet */
};
extern const char outbox_start_sql[];
void outbox_read_start(const PGresult *result, struct outbox_start *ret);

/* Is this position of this outbox? One column, t or f. */
const char *outbox_known_sql(char *out, const uint64_t pos[2]);
const char *outbox_renew_sql(char *out, const struct outbox_state *state);

/* After which row the newest `budget` bytes of log begin; no row: after the floor. */
const char *outbox_floor_sql(char *out, uint64_t budget);
bool outbox_read_position(const PGresult *result, uint64_t ret_pos[2]); /* false: no row */

/* The next rows after a position, bounded in number and bytes, and at once (in one snapshot) what
 * the state is and since when rows wait above the horizon. `event_max`: larger payloads stay where
 * they are. `judge`: each row is looked at first; of one that has no form in UTF-8, with which the
 * query would fail, nothing comes but its position. */
const char *outbox_rows_sql(char *out, const uint64_t pos[2], size_t event_max, bool judge);
struct outbox_rows {
    struct outbox_state state;
    bool standby;
    uint64_t held_ms; /* 0: none is held */
    unsigned n;
    bool more;
};
void outbox_read_rows(const PGresult *result, struct outbox_rows *ret);
/* Row i < n as an event. Returns NULL, or why it is none (static); the position is set in any case.
 * The event borrows from the result and from *ret_decoded, which is to be freed. */
const char *outbox_read_event(const PGresult *result, unsigned i, struct fw_source_event *ret,
                              void **ret_decoded);

/* Removes some old rows; columns `removed` and `bytes`, of the table as it is. */
extern const char outbox_prune_sql[];
#define OUTBOX_PRUNE_ROWS 1000
/* How long rows are kept from now on, whoever prunes; UINT64_MAX: for good. */
const char *outbox_keep_sql(char *out, uint64_t keep_ms);
uint64_t outbox_read_number(const PGresult *result, const char *column);

#endif
