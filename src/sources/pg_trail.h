/* How far the slot may be confirmed: so far back that a server that starts anew finds in the WAL
 * what its log should hold, in bytes and in time. */
#ifndef SOURCES_PG_TRAIL_H
#define SOURCES_PG_TRAIL_H

#include <stdint.h>

#define PG_TRAIL_MAX 1024

struct pg_trail {
    uint64_t bytes;  /* of WAL to keep at most */
    int64_t age_ms;  /* … and for how long */
    uint64_t passed; /* everything before it has been read */
    /* Places that have been passed and are not confirmed yet, a ring. */
    struct {
        uint64_t lsn;
        int64_t at_ms;
    } places[PG_TRAIL_MAX];
    unsigned first, n;
};

void pg_trail_init(struct pg_trail *trail, uint64_t bytes, int64_t age_ms);
void pg_trail_reset(struct pg_trail *trail, uint64_t lsn); /* a stream begins here */
/* Everything before `lsn` has been read: the end of a transaction, or of what the server has. */
void pg_trail_pass(struct pg_trail *trail, uint64_t lsn, int64_t now_ms);
/* The place up to which nothing needs to be kept; 0: nothing new. */
uint64_t pg_trail_confirm(struct pg_trail *trail, int64_t now_ms);

#endif
