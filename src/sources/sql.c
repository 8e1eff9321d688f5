/* The SQL that a database needs for a source. */
#include "sql_postgres.h"
#include "sql_postgres_outbox.h"
#include "sql_postgres_wal.h"
#include "sqlite_outbox_sql.h"

#include <fanwire.h>
#include <stddef.h>
#include <string.h>

static const struct {
    const char *kind, *mode, *text;
} known[] = {
    { "postgres", "notify", sql_postgres }, /* the first of a kind is what mode NULL means */
    { "postgres", "wal", sql_postgres_wal },
    { "postgres", "outbox", sql_postgres_outbox },
    { "sqlite", NULL, sqlite_outbox_sql },
};

const char *fw_sql(const char *kind, const char *mode)
{
    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
        if (strcmp(known[i].kind, kind) != 0)
            continue;
        if (!mode || (known[i].mode && strcmp(known[i].mode, mode) == 0))
            return known[i].text;
    }
    return NULL;
}
