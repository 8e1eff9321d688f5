/* What the tests of the SQLite source share: a source on a fake hub, a directory of its own, and a
 * connection of the test's to the same file, as an application has one. */
#ifndef TESTS_SQLITE_FIXTURE_H
#define TESTS_SQLITE_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "fake_host.h"

#include <sqlite3.h>

struct sqlite_fixture {
    struct fw_host *host;
    struct fw_source *source;
    sqlite3 *db; /* the test's own; NULL until used */
    char directory[64], path[128], url[256];
};

/* For cmocka: *state becomes a fixture without a source. */
int sqlite_fixture_setup(void **state);
int sqlite_fixture_teardown(void **state);

/* Creates the source for the fixture's file, with parameters ("?keep=3"). */
void sqlite_fixture_source(struct sqlite_fixture *f, const char *parameters);
void sqlite_fixture_open(struct sqlite_fixture *f, const char *parameters); /* … until opened */
void sqlite_fixture_reopen(struct sqlite_fixture *f); /* as the hub does after a loss */
void sqlite_fixture_destroy(struct sqlite_fixture *f);

/* Runs SQL on the test's own connection; returns the first value (static buffer), "" if none. */
const char *sqlite_fixture_sql(struct sqlite_fixture *f, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
void sqlite_fixture_install(struct sqlite_fixture *f); /* the tables, without the source */
void sqlite_fixture_close(struct sqlite_fixture *f);   /* the test's own connection */
void sqlite_fixture_insert(struct sqlite_fixture *f, const char *channel, const char *payload);
/* Events number `first` … are these payloads, NULL-terminated; waits for them. */
void sqlite_fixture_expect(struct sqlite_fixture *f, size_t first, const char *const *payloads);
void sqlite_fixture_file(struct sqlite_fixture *f, const char *name, char *out, size_t size);

extern const struct fw_source_class source_sqlite;

#endif
