/* Up to where in a stream no transaction has had an id from some number on. */
#ifndef SOURCES_PG_HORIZON_H
#define SOURCES_PG_HORIZON_H

#include <stdint.h>

#define PG_HORIZON_MARKS 64

/* A stream in the order of commits has its ids in any order. Each mark says: transactions that
 * commit before `lsn` have ids up to `xid`. When there is no room, every second one goes: close to
 * the stream's end they stand close together. */
struct pg_horizon {
    struct pg_horizon_mark {
        uint64_t lsn, xid;
    } marks[PG_HORIZON_MARKS];
    unsigned n;
    uint64_t newest; /* id so far */
};

/* The stream begins at `lsn`; what stands before it has ids below `next_xid`. */
void pg_horizon_reset(struct pg_horizon *horizon, uint64_t lsn, uint64_t next_xid);
/* The next transaction, whose commit record is at `lsn`. */
void pg_horizon_note(struct pg_horizon *horizon, uint64_t lsn, uint64_t xid);
/* Before this all transactions have ids below `xid`; 0: nobody knows. */
uint64_t pg_horizon_find(const struct pg_horizon *horizon, uint64_t xid);

#endif
