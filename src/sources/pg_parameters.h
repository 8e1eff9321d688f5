/* What a connection is made with: libpq's names and values, side by side. */
#ifndef SOURCES_PG_PARAMETERS_H
#define SOURCES_PG_PARAMETERS_H

#include "pg_url.h"

#include <stddef.h>

#define PG_PARAMETERS_MAX 96

struct pg_parameters { /* zeroed: none; both lists end in NULL */
    const char *names[PG_PARAMETERS_MAX], *values[PG_PARAMETERS_MAX];
    size_t n;
};

/* The last value set under a name counts. Names and values are borrowed. */
void pg_parameters_set(struct pg_parameters *p, const char *name, const char *value);
/* What the URL says, then what it may not change: the name by which operators find us, the encoding
 * of events, and GSSAPI, whose libraries resolve names on their own. */
void pg_parameters_set_url(struct pg_parameters *p, const struct pg_url *url,
                           const char *application_name);

#endif
