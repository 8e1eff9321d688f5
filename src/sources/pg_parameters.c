/* Parameters of a connection. */
#include "pg_parameters.h"

#include <string.h>

void pg_parameters_set(struct pg_parameters *p, const char *name, const char *value)
{
    size_t i = 0;
    while (i < p->n && strcmp(p->names[i], name) != 0)
        i++;
    if (i == PG_PARAMETERS_MAX - 1)
        return;
    p->names[i] = name;
    p->values[i] = value;
    p->n = i == p->n ? p->n + 1 : p->n;
}

void pg_parameters_set_url(struct pg_parameters *p, const struct pg_url *url,
                           const char *application_name)
{
    for (const PQconninfoOption *o = url->options; o->keyword; o++)
        if (o->val && *o->val)
            pg_parameters_set(p, o->keyword, o->val);
    pg_parameters_set(p, "application_name", application_name);
    pg_parameters_set(p, "client_encoding", "UTF8");
    pg_parameters_set(p, "gssencmode", "disable");
}
