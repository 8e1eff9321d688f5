/* Up to where in a stream no transaction has had an id from some number on. */
#include "pg_horizon.h"

static void push(struct pg_horizon *h, uint64_t lsn)
{
    if (h->n == PG_HORIZON_MARKS) {
        for (h->n = 0; h->n < PG_HORIZON_MARKS / 2; h->n++)
            h->marks[h->n] = h->marks[2 * h->n];
    }
    h->marks[h->n++] = (struct pg_horizon_mark){ lsn, h->newest };
}

void pg_horizon_reset(struct pg_horizon *h, uint64_t lsn, uint64_t next_xid)
{
    *h = (struct pg_horizon){ .newest = next_xid ? next_xid - 1 : 0 };
    push(h, lsn);
}

void pg_horizon_note(struct pg_horizon *h, uint64_t lsn, uint64_t xid)
{
    push(h, lsn);
    if (xid > h->newest)
        h->newest = xid;
}

uint64_t pg_horizon_find(const struct pg_horizon *h, uint64_t xid)
{
    for (unsigned i = h->n; i > 0; i--) {
        if (h->marks[i - 1].xid < xid)
            return h->marks[i - 1].lsn;
    }
    return 0;
}
