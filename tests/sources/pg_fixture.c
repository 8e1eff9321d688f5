/* What the tests of the Postgres source share. PRIVATE_POSTGRES is the script's path. */
#include "pg_fixture.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

extern const struct fw_source_class source_postgres;

static void connect_admin(struct pg_fixture *f)
{
    PQfinish(f->admin);
    f->admin = PQconnectdb("application_name=test");
    if (PQstatus(f->admin) != CONNECTION_OK)
        fail_msg("run me by private_postgres.py: %s", PQerrorMessage(f->admin));
}

int pg_fixture_setup(void **state)
{
    struct pg_fixture *f = calloc(1, sizeof *f);
    assert_non_null(f);
    f->host = host_new();
    connect_admin(f);
    *state = f;
    return 0;
}

int pg_fixture_teardown(void **state)
{
    struct pg_fixture *f = *state;
    if (f->source)
        source_postgres.destroy(f->source);
    host_free(f->host);
    PQfinish(f->admin);
    free(f);
    return 0;
}

static void write_url(struct pg_fixture *f, const char *rest)
{
    const char *port = getenv("PGPORT");
    const char *mark = strstr(rest, "%PORT%");
    if (mark)
        snprintf(f->url, sizeof f->url, "%.*s%s%s", (int)(mark - rest), rest, port, mark + 6);
    else if (strstr(rest, "://"))
        snprintf(f->url, sizeof f->url, "%s", rest);
    else
        snprintf(f->url, sizeof f->url, "postgres://postgres@127.0.0.1:%s/postgres%s", port, rest);
}

void pg_fixture_source(struct pg_fixture *f, const char *rest)
{
    struct fw_error err = { 0 };
    write_url(f, rest);
    if (source_postgres.create(f->host, f->url, &f->source, &err) < 0)
        fail_msg("%s: %s", f->url, err.message);
}

void pg_fixture_open(struct pg_fixture *f, const char *rest)
{
    unsigned n = f->host->n_opened;
    if (!f->source)
        pg_fixture_source(f, rest);
    source_postgres.open(f->source);
    RUN_UNTIL(f->host, f->host->n_opened > n || f->host->n_lost > 0);
    if (f->host->n_opened == n)
        fail_msg("lost instead of opened: %s", f->host->lost_message);
}

void pg_fixture_subscribe(struct pg_fixture *f, const char *channel)
{
    unsigned n = f->host->n_ready;
    source_postgres.subscribe(f->source, channel, strlen(channel));
    RUN_UNTIL(f->host, f->host->n_ready > n);
    assert_string_equal(f->host->last_ready, channel);
}

const char *pg_fixture_sql(struct pg_fixture *f, const char *format, ...)
{
    static char value[16384];
    char sql[16384];
    va_list args;
    va_start(args, format);
    int n = vsnprintf(sql, sizeof sql, format, args);
    va_end(args);
    assert_in_range(n, 0, sizeof sql - 1);
    PGresult *result = PQexec(f->admin, sql);
    ExecStatusType status = PQresultStatus(result);
    if (status != PGRES_COMMAND_OK && status != PGRES_TUPLES_OK)
        fail_msg("%.200s: %s", sql, PQerrorMessage(f->admin));
    snprintf(value, sizeof value, "%s", PQntuples(result) > 0 ? PQgetvalue(result, 0, 0) : "");
    PQclear(result);
    return value;
}

const char *pg_fixture_sql_fails(struct pg_fixture *f, const char *sql)
{
    static char message[1024];
    PGresult *result = PQexec(f->admin, sql);
    if (PQresultStatus(result) != PGRES_FATAL_ERROR)
        fail_msg("should fail: %.200s", sql);
    snprintf(message, sizeof message, "%s", PQresultErrorMessage(result));
    PQclear(result);
    return message;
}

void pg_fixture_server(struct pg_fixture *f, const char *verb)
{
    char command[1024];
    snprintf(command, sizeof command, "/usr/bin/python3 %s %s %s", PRIVATE_POSTGRES, verb,
             getenv("FANWIRE_TEST_PG"));
    assert_int_equal(system(command), 0);
    if (!strcmp(verb, "start"))
        connect_admin(f);
}
