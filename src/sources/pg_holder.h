/* Transactions that others wait for: who they are, for the operator. */
#ifndef SOURCES_PG_HOLDER_H
#define SOURCES_PG_HOLDER_H

#include <libpq-fe.h>
#include <stdbool.h>
#include <stddef.h>

#define PG_HOLDER_SQL_MAX 1280

/* Writes the question for the oldest transaction that writes, in any database of the cluster:
 * whoever holds the horizon back. Returns sql. */
char *pg_holder_sql(char *sql, size_t size);
/* The same among those that the server process `pid` waits for. */
char *pg_holder_of_sql(char *sql, size_t size, int pid);

/* Writes one line: "pid 4711 (worker), role …, database …, idle in transaction, open for 12 s".
 * What the role may not see is left out. False: nobody now. */
bool pg_holder_read(const PGresult *result, char *out, size_t size);
/* The transaction alone, "pid 4711"; "" for none. Borrowed from the result. */
const char *pg_holder_name(const PGresult *result);

#endif
