/* Which mode the Postgres source reads in: what the URL says, what is installed, and both. */
#include "pg_fixture.h"

#include <stdio.h>
#include <string.h>

extern const struct fw_source_class source_postgres;

/* As if fanwire's SQL of this mode were installed; columns as of the first version. */
static void install(struct pg_fixture *f, const char *mode)
{
    pg_fixture_sql(f,
                   "CREATE OR REPLACE FUNCTION public.fanwire_status() RETURNS TABLE(version int, "
                   "mode text) LANGUAGE sql AS $$ SELECT 1, '%s' $$",
                   mode);
}

static int teardown(void **state)
{
    struct pg_fixture *f = *state;
    pg_fixture_sql(f, "DROP FUNCTION IF EXISTS public.fanwire_status()");
    return pg_fixture_teardown(state);
}

static void publish(struct pg_fixture *f, uint64_t request)
{
    struct fw_publish event = {
        .request = request, .channel = "c", .channel_len = 1, .data = "x", .len = 1
    };
    source_postgres.publish(f->source, &event);
}

static const char *expect_misconfigured(struct pg_fixture *f, const char *rest)
{
    if (!f->source)
        pg_fixture_source(f, rest);
    f->host->n_misconfigured = 0;
    source_postgres.open(f->source);
    RUN_UNTIL(f->host, f->host->n_misconfigured + f->host->n_opened > 0);
    assert_int_equal(f->host->n_misconfigured, 1);
    assert_null(strchr(f->host->lost_message, '\n'));
    return f->host->lost_message;
}

static void nothing_installed_means_notify(void **state)
{
    struct pg_fixture *f = *state;
    pg_fixture_source(f, "");
    assert_int_equal(f->host->n_traits, 0); /* not known before it is connected */
    pg_fixture_open(f, "");
    assert_string_equal(f->host->mode, "notify");
    assert_int_equal(f->host->n_traits, 1);
    assert_int_equal(f->host->traits, FW_SOURCE_ON_DEMAND);
}

static void auto_obeys_what_is_installed(void **state)
{
    struct pg_fixture *f = *state;
    install(f, "notify");
    pg_fixture_open(f, "?mode=auto");
    assert_string_equal(f->host->mode, "notify");
    assert_int_equal(f->host->n_warnings, 0);
}

static void a_mode_of_the_url_is_known_from_the_start(void **state)
{
    struct pg_fixture *f = *state;
    pg_fixture_source(f, "?mode=notify");
    assert_int_equal(f->host->n_traits, 1);
    assert_int_equal(f->host->traits, FW_SOURCE_ON_DEMAND);
    install(f, "notify");
    pg_fixture_open(f, "");
    assert_string_equal(f->host->mode, "notify");
    assert_int_equal(f->host->n_traits, 1);
}

static void installed_sql_that_is_not_read_is_said_and_found_mended(void **state)
{
    struct pg_fixture *f = *state;
    install(f, "telepathy");
    const char *why = expect_misconfigured(f, "");
    assert_non_null(strstr(why, "for mode \"telepathy\""));
    assert_non_null(strstr(why, "other SQL: fanwire sql postgres | psql"));
    publish(f, 1); /* nobody would hear it */
    assert_int_equal(f->host->n_answers, 1);
    assert_string_equal(f->host->answers[0].code, "source-down");
    assert_non_null(strstr(f->host->answers[0].message, "not stored"));
    assert_non_null(strstr(f->host->answers[0].message, "telepathy"));
    install(f, "notify");
    f->host->n_lost = 0;
    pg_fixture_open(f, "");
    publish(f, 2);
    RUN_UNTIL(f->host, f->host->n_answers == 2 && f->host->n_events == 1);
    assert_null(f->host->answers[1].code);
}

static void a_contradiction_names_the_command_that_mends_it(void **state)
{
    struct pg_fixture *f = *state;
    install(f, "telepathy");
    const char *why = expect_misconfigured(f, "?mode=notify");
    assert_non_null(strstr(why, "mode=notify was asked for"));
    assert_non_null(strstr(why, "mode \"telepathy\""));
    assert_non_null(strstr(
        why, "fanwire sql postgres --mode notify | psql -1 -v ON_ERROR_STOP=1 \"$DATABASE_URL\""));
    publish(f, 1);
    assert_string_equal(f->host->answers[0].code, "source-down");
    (void)expect_misconfigured(f, ""); /* and again, until it is mended */
}

/* Another SQL was installed while we read: the next connection sees it. */
static void each_connection_asks_anew(void **state)
{
    struct pg_fixture *f = *state;
    pg_fixture_open(f, "");
    install(f, "telepathy");
    pg_fixture_sql(f, "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE "
                      "application_name = 'fanwire'");
    RUN_UNTIL(f->host, f->host->n_lost == 1);
    f->host->n_opened = 0;
    (void)expect_misconfigured(f, "");
}

static void a_status_that_fails_is_a_warning(void **state)
{
    struct pg_fixture *f = *state;
    pg_fixture_sql(f, "CREATE FUNCTION public.fanwire_status() RETURNS int LANGUAGE sql AS "
                      "$$ SELECT 1/0 $$");
    pg_fixture_open(f, "");
    assert_string_equal(f->host->mode, "notify");
    assert_int_equal(f->host->n_warnings, 1);
    assert_non_null(strstr(f->host->log, "division by zero"));
}

/* Until the mode is known nobody knows how to publish. */
static void publishes_wait_for_the_mode(void **state)
{
    struct pg_fixture *f = *state;
    pg_fixture_source(f, "");
    publish(f, 1);
    publish(f, 2);
    host_run_ms(f->host, 50);
    assert_int_equal(f->host->n_answers, 0);
    pg_fixture_open(f, "");
    RUN_UNTIL(f->host, f->host->n_answers == 2);
    assert_null(f->host->answers[0].code);
    assert_null(f->host->answers[1].code);
}

static void what_waited_may_be_too_large_for_the_mode(void **state)
{
    struct pg_fixture *f = *state;
    static char data[9000];
    struct fw_publish event = {
        .request = 1, .channel = "c", .channel_len = 1, .data = data, .len = sizeof data
    };
    memset(data, 'x', sizeof data);
    pg_fixture_source(f, "");
    source_postgres.publish(f->source, &event);
    publish(f, 2);
    pg_fixture_open(f, "");
    RUN_UNTIL(f->host, f->host->n_answers == 2);
    assert_string_equal(f->host->answers[0].code, "too-large");
    assert_non_null(strstr(f->host->answers[0].message, "7999"));
    assert_null(f->host->answers[1].code);
}

static void what_waits_is_refused_when_the_mode_cannot_be_asked(void **state)
{
    struct pg_fixture *f = *state;
    pg_fixture_source(f, "postgres://postgres@127.0.0.1:%PORT%/no-such-database");
    publish(f, 1);
    source_postgres.open(f->source);
    RUN_UNTIL(f->host, f->host->n_lost == 1 && f->host->n_answers == 1);
    assert_string_equal(f->host->answers[0].code, "source-down");
    assert_non_null(strstr(f->host->answers[0].message, "not stored"));
    assert_non_null(strstr(f->host->answers[0].message, "does not exist"));
    publish(f, 2); /* before the next attempt: at once */
    assert_int_equal(f->host->n_answers, 2);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, pg_fixture_setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(nothing_installed_means_notify),
        TEST(auto_obeys_what_is_installed),
        TEST(a_mode_of_the_url_is_known_from_the_start),
        TEST(installed_sql_that_is_not_read_is_said_and_found_mended),
        TEST(a_contradiction_names_the_command_that_mends_it),
        TEST(each_connection_asks_anew),
        TEST(a_status_that_fails_is_a_warning),
        TEST(publishes_wait_for_the_mode),
        TEST(what_waited_may_be_too_large_for_the_mode),
        TEST(what_waits_is_refused_when_the_mode_cannot_be_asked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
