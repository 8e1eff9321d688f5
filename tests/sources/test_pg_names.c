/* The set of names to LISTEN to: batches, refusals, and every order of wishes against a model. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "pg_names.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct record {
    struct pg_names names;
    PGconn *conn; /* never connected: only quotes */
    struct buf sql;
    unsigned n_ready, n_refused;
    char last_ready[300], last_refused[300], message[100];
};

static void on_ready(void *arg, const char *name, size_t len)
{
    struct record *r = arg;
    r->n_ready++;
    snprintf(r->last_ready, sizeof r->last_ready, "%.*s", (int)len, name);
}

static void on_refused(void *arg, const char *name, size_t len, const char *message)
{
    struct record *r = arg;
    r->n_refused++;
    snprintf(r->last_refused, sizeof r->last_refused, "%.*s", (int)len, name);
    snprintf(r->message, sizeof r->message, "%s", message);
}

static int setup(void **state)
{
    struct record *r = calloc(1, sizeof *r);
    assert_non_null(r);
    pg_names_init(&r->names);
    r->names.on_ready = on_ready;
    r->names.on_refused = on_refused;
    r->names.arg = r;
    r->sql = buf_make(1 << 20);
    r->conn = PQconnectStart("hostaddr=127.0.0.1 port=1");
    *state = r;
    return 0;
}

static int teardown(void **state)
{
    struct record *r = *state;
    pg_names_reset(&r->names);
    buf_done(&r->sql);
    PQfinish(r->conn);
    free(r);
    return 0;
}

static void want(struct record *r, const char *name)
{
    assert_int_equal(pg_names_want(&r->names, name, strlen(name)), 0);
}

static void drop(struct record *r, const char *name)
{
    pg_names_drop(&r->names, name, strlen(name));
}

/* The next query, "" if there is none. */
static const char *next(struct record *r)
{
    buf_clear(&r->sql);
    return pg_names_next(&r->names, r->conn, &r->sql) > 0 ? (char *)r->sql.data : "";
}

static void listens_once(void **state)
{
    struct record *r = *state;
    want(r, "a \"b\"");
    want(r, "a \"b\"");
    assert_string_equal(next(r), "LISTEN \"a \"\"b\"\"\";");
    assert_int_equal(r->n_ready, 0);
    pg_names_settle(&r->names, true, "");
    assert_int_equal(r->n_ready, 1);
    assert_string_equal(next(r), "");
    want(r, "a \"b\""); /* still listened to: ready at once */
    assert_string_equal(next(r), "");
    assert_int_equal(r->n_ready, 2);
    drop(r, "a \"b\"");
    assert_string_equal(next(r), "UNLISTEN \"a \"\"b\"\"\";");
    pg_names_settle(&r->names, true, "");
    assert_string_equal(next(r), "");
    assert_int_equal(r->names.map.count, 0);
}

static void forgets_a_wish_withdrawn_before_it_was_sent(void **state)
{
    struct record *r = *state;
    want(r, "a");
    drop(r, "a");
    drop(r, "never wanted");
    assert_string_equal(next(r), "");
    assert_int_equal(r->names.map.count, 0);
}

static void follows_wishes_while_a_query_runs(void **state)
{
    struct record *r = *state;
    want(r, "a");
    assert_string_equal(next(r), "LISTEN \"a\";");
    drop(r, "a");
    pg_names_settle(&r->names, true, "");
    assert_int_equal(r->n_ready, 0);
    assert_string_equal(next(r), "UNLISTEN \"a\";");
    want(r, "a");
    pg_names_settle(&r->names, true, "");
    assert_int_equal(r->n_ready, 0); /* the server no longer listens: not yet */
    assert_string_equal(next(r), "LISTEN \"a\";");
    drop(r, "a");
    want(r, "a");
    pg_names_settle(&r->names, true, "");
    assert_int_equal(r->n_ready, 1);
    assert_string_equal(next(r), "");
}

static void cuts_batches_at_500(void **state)
{
    struct record *r = *state;
    for (int i = 0; i < 1201; i++) {
        char name[16];
        snprintf(name, sizeof name, "c%d", i);
        want(r, name);
    }
    unsigned expected[] = { 500, 500, 201, 0 };
    for (int i = 0; i < 4; i++) {
        buf_clear(&r->sql);
        assert_int_equal(pg_names_next(&r->names, r->conn, &r->sql), expected[i]);
        pg_names_settle(&r->names, true, "");
    }
    assert_int_equal(r->n_ready, 1201);
}

static void refuses_the_bad_one_alone(void **state)
{
    struct record *r = *state;
    want(r, "a");
    want(r, "bad");
    want(r, "c");
    assert_string_equal(next(r), "LISTEN \"a\";LISTEN \"bad\";LISTEN \"c\";");
    want(r, "d");
    pg_names_settle(&r->names, false, "no");
    assert_int_equal(r->n_refused, 0);
    assert_string_equal(next(r), "LISTEN \"d\";"); /* not together with one that may be bad */
    pg_names_settle(&r->names, true, "");
    assert_string_equal(next(r), "LISTEN \"a\";");
    pg_names_settle(&r->names, true, "");
    assert_string_equal(next(r), "LISTEN \"bad\";");
    pg_names_settle(&r->names, false, "truly no");
    assert_string_equal(next(r), "LISTEN \"c\";");
    pg_names_settle(&r->names, true, "");
    assert_int_equal(r->n_ready, 3);
    assert_int_equal(r->n_refused, 1);
    assert_string_equal(r->last_refused, "bad");
    assert_string_equal(r->message, "truly no");
    assert_string_equal(next(r), "");
    want(r, "bad"); /* a new wish is a new try */
    assert_string_equal(next(r), "LISTEN \"bad\";");
    pg_names_settle(&r->names, true, "");
    assert_string_equal(r->last_ready, "bad");
}

static void answers_what_needs_no_server(void **state)
{
    struct record *r = *state;
    char name[66];
    memset(name, 'x', sizeof name);
    name[64] = '\0';
    want(r, name);
    want(r, "fanwire");
    assert_int_equal(pg_names_want(&r->names, "a\0b", 3), 0);
    assert_string_equal(next(r), "");
    assert_int_equal(r->n_ready, 3);
    name[63] = '\0';
    want(r, name);
    assert_int_equal(strlen(next(r)), strlen("LISTEN \"\";") + 63);
    pg_names_settle(&r->names, true, "");
    drop(r, "fanwire");
    assert_string_equal(next(r), "");
}

/* ---- against a model: 20 names, wishes and queries in random order, some queries fail ---- */

#define N 20

struct model {
    bool wanted[N], listened[N];
};

/* Does to the model what the server would do with the query. */
static void execute(struct model *m, const char *sql)
{
    for (const char *p = sql; *p; p = strchr(p, ';') + 1) {
        unsigned i;
        bool listen = *p == 'L';
        assert_int_equal(sscanf(strchr(p, '"'), "\"n%u\"", &i), 1);
        m->listened[i] = listen;
    }
}

/* The server refuses to listen to n0 and n1 at times. */
static bool has_bad_name(const char *sql)
{
    for (const char *p = sql; *p; p = strchr(p, ';') + 1)
        if (!strncmp(p, "LISTEN \"n0\"", 11) || !strncmp(p, "LISTEN \"n1\"", 11))
            return true;
    return false;
}

static void flip(struct record *r, struct model *m, unsigned i)
{
    char name[16];
    snprintf(name, sizeof name, "n%u", i);
    m->wanted[i] = !m->wanted[i];
    if (m->wanted[i])
        want(r, name);
    else
        drop(r, name);
}

static void run_one_query(struct record *r, struct model *m, bool may_fail)
{
    char sql[4096];
    snprintf(sql, sizeof sql, "%s", next(r));
    for (int k = rand() % 3; k > 0; k--) /* wishes while it runs */
        flip(r, m, (unsigned)rand() % N);
    if (!sql[0])
        return;
    bool ok = !(may_fail && has_bad_name(sql));
    if (ok)
        execute(m, sql);
    pg_names_settle(&r->names, ok, "no");
}

static void finish(struct record *r, struct model *m)
{
    const char *sql;
    for (unsigned i = 0; i < 2; i++) /* a refused wish is forgotten: wish again */
        if (m->wanted[i]) {
            flip(r, m, i);
            flip(r, m, i);
        }
    while (*(sql = next(r))) {
        execute(m, sql);
        pg_names_settle(&r->names, true, "");
    }
    for (unsigned i = 0; i < N; i++)
        assert_int_equal(m->wanted[i], m->listened[i]);
}

static void ends_as_wished(void **state)
{
    struct record *r = *state;
    srand(7);
    for (int round = 0; round < 5000; round++) {
        struct model m = { 0 };
        for (int step = rand() % 40; step > 0; step--) {
            flip(r, &m, (unsigned)rand() % N);
            if (rand() % 4 == 0)
                run_one_query(r, &m, rand() % 2);
        }
        finish(r, &m);
        pg_names_reset(&r->names);
    }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(listens_once),
        TEST(forgets_a_wish_withdrawn_before_it_was_sent),
        TEST(follows_wishes_while_a_query_runs),
        TEST(cuts_batches_at_500),
        TEST(refuses_the_bad_one_alone),
        TEST(answers_what_needs_no_server),
        TEST(ends_as_wished),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
