/* Why a connection was refused, in any language: what libpq says of it, and the SQLSTATE. */
#ifndef SOURCES_PG_REFUSAL_H
#define SOURCES_PG_REFUSAL_H

#include <stddef.h>

#define PG_SQLSTATE_SIZE 6 /* bytes with the NUL */

/* Reads PQerrorMessage() of a connection that failed under PQERRORS_VERBOSE, which is the only
 * place where libpq tells the SQLSTATE. `out` gets the text as it would be without it, in one line;
 * `state` the last server's SQLSTATE, "" where no server has refused. */
void pg_refusal_read(const char *text, char state[PG_SQLSTATE_SIZE], char *out, size_t size);

#endif
