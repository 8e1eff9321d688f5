/* What the tests of the Postgres source share: a source on a fake hub, and a connection of their
 * own to the private server of private_postgres.py. */
#ifndef TESTS_PG_FIXTURE_H
#define TESTS_PG_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "fake_host.h"

#include <libpq-fe.h>

struct pg_fixture {
    struct fw_host *host;
    struct fw_source *source;
    PGconn *admin;
    char url[512];
};

/* For cmocka: *state becomes a fixture without a source. */
int pg_fixture_setup(void **state);
int pg_fixture_teardown(void **state);

/* Creates the source. The URL is that of the server over TCP with `rest` appended ("?foreign=off"),
 * or `rest` itself where it begins with a scheme; %PORT% is replaced. */
void pg_fixture_source(struct pg_fixture *f, const char *rest);
void pg_fixture_open(struct pg_fixture *f, const char *rest); /* … and opens it, until opened */
void pg_fixture_subscribe(struct pg_fixture *f, const char *channel); /* … until ready */

/* Runs SQL on the test's own connection; returns the first value (static buffer), "" if none. */
const char *pg_fixture_sql(struct pg_fixture *f, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* Runs SQL that must fail; returns its message. */
const char *pg_fixture_sql_fails(struct pg_fixture *f, const char *sql);
void pg_fixture_server(struct pg_fixture *f, const char *verb); /* start, stop or crash */

#endif
