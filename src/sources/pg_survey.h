/* What mode wal has to know, and to find fault with, before it asks for the stream. */
#ifndef SOURCES_PG_SURVEY_H
#define SOURCES_PG_SURVEY_H

#include "pg_mode.h"

struct pg_survey {
    bool replication; /* the role itself may replicate; where not, it may have the right in another
                         way */
    bool publication;
    bool slot, here; /* the slot is there; it is of this database, and of pgoutput */
    bool slot_lost;  /* the server has given its WAL up */
    bool slots_full, senders_full;
    uint64_t confirmed; /* of the slot */
    uint64_t next_xid;
    uint64_t holder; /* process that has the slot, 0: none */
    char holder_name[64], holder_address[64], role[64];
};

#define PG_WATCHING_SQL                                                                            \
    "SELECT id, tbl::oid AS relation, channel, columns, keys, ended FROM fanwire.watching"

/* Writes the question about the slot: one row of pg_survey_read(), then those of fanwire.watching.
 * Returns sql. */
char *pg_survey_sql(char *sql, size_t size, const char *slot);
#define PG_SURVEY_SQL_MAX 3072

/* Reads a result; false if it is not the survey's row. */
bool pg_survey_read(const PGresult *result, struct pg_survey *ret);

enum pg_fault { PG_FAULT_NONE, PG_FAULT_PASSING, PG_FAULT_MISCONFIGURED };
/* What stands in the way as far as an ordinary connection tells; `out` gets the text. */
enum pg_fault pg_survey_server(const struct pg_server *server, int version, char *out, size_t size);
/* The same of the survey; whether the role may replicate is found out by trying. */
enum pg_fault pg_survey_judge(const struct pg_survey *survey, const char *slot, char *out,
                              size_t size);
/* What to say where the role itself may not replicate, and trying has failed. */
void pg_survey_tell_refused(const struct pg_survey *survey, const char *why, char *out,
                            size_t size);

#endif
