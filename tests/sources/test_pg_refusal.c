/* What libpq says of a refused connection: in one line, and the SQLSTATE in any language. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "pg_refusal.h"

#include <string.h>

static void expect(const char *text, const char *state, const char *line)
{
    char found_state[PG_SQLSTATE_SIZE], found[400];
    pg_refusal_read(text, found_state, found, sizeof found);
    assert_string_equal(found_state, state);
    assert_string_equal(found, line);
}

static void a_refusal_has_its_sqlstate(void **state)
{
    (void)state;
    expect("connection to server at \"::1\", port 5432 failed: FATAL:  28P01: password "
           "authentication failed for user \"u\"\nLOCATION:  auth_failed, auth.c:326\n",
           "28P01",
           "connection to server at \"::1\", port 5432 failed: FATAL: password authentication "
           "failed for user \"u\"");
    expect("connection to server on socket \"/s\" failed: FATAL:  42501: keine Berechtigung\n"
           "DETAIL:  Nur bestimmte Rollen.\nLOCATION:  f, p.c:1\n",
           "42501",
           "connection to server on socket \"/s\" failed: FATAL: keine Berechtigung; DETAIL: Nur "
           "bestimmte Rollen.");
}

static void of_several_servers_the_last_one_counts(void **state)
{
    (void)state;
    expect("server a: FATAL:  57P03: the database system is starting up\nLOCATION:  f, p.c:1\n"
           "server b: FATAL:  3D000: database \"d\" does not exist\nLOCATION:  g, q.c:2\n",
           "3D000",
           "server a: FATAL: the database system is starting up; server b: FATAL: database \"d\" "
           "does not exist");
}

static void what_no_server_has_said_has_none(void **state)
{
    (void)state;
    expect("connection to server at \"h\" failed: Connection refused\n\tIs it running?\n", "",
           "connection to server at \"h\" failed: Connection refused; Is it running?");
    expect("", "", "");
    expect("FATAL:  2", "", "FATAL: 2");
    expect("FATAL:  28P01:", "", "FATAL: 28P01:");
    expect("a:  28p01: b", "", "a: 28p01: b");
    expect("x:  28P01: ", "28P01", "x:");
}

/* The server's text is anybody's: what does not fit is cut. */
static void texts_of_any_length(void **state)
{
    static char text[20000];
    char found_state[PG_SQLSTATE_SIZE], found[400];
    (void)state;
    for (size_t len = 0; len < sizeof text - 1; len += 97) {
        memset(text, 'x', len);
        text[len] = '\0';
        pg_refusal_read(text, found_state, found, sizeof found);
        assert_int_equal(strlen(found), len + 3 < sizeof found ? len : sizeof found - 3);
        assert_string_equal(found_state, "");
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_refusal_has_its_sqlstate),
        cmocka_unit_test(of_several_servers_the_last_one_counts),
        cmocka_unit_test(what_no_server_has_said_has_none),
        cmocka_unit_test(texts_of_any_length),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
