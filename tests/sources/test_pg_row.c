/* Rows as events, from scripted messages: which channel, which columns, old values, what is
 * missing, what is watched and what no more. test_wal.py holds real ones against mode notify's. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "buf.h"
#include "pg_row.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define EVENT_MAX 1000

struct heard {
    char channel[300], data[EVENT_MAX + 1];
    size_t len;
    uint32_t sub;
};

struct bench {
    struct pg_rows *rows;
    struct buf message;
    struct heard events[8];
    unsigned n_events, n_refused;
    char why[500]; /* of the last one that was refused */
};

/* ---- the server ---- */

static void put_n(struct bench *b, uint64_t value, int n)
{
    while (n-- > 0)
        (void)buf_append_char(&b->message, (char)(value >> (8 * n)));
}

static void put_text(struct bench *b, const char *text)
{
    (void)buf_append(&b->message, text, strlen(text) + 1);
}

/* Values are texts; NULL: null; "u": unchanged. */
static void put_row(struct bench *b, char kind, const char *const *values, unsigned n)
{
    put_n(b, (uint8_t)kind, 1);
    put_n(b, n, 2);
    for (unsigned i = 0; i < n; i++) {
        bool unchanged = values[i] && !strcmp(values[i], "u");
        put_n(b, !values[i] ? 'n' : unchanged ? 'u' : 't', 1);
        if (!values[i] || unchanged)
            continue;
        put_n(b, strlen(values[i]), 4);
        (void)buf_append(&b->message, values[i], strlen(values[i]));
    }
}

static void on_event(void *arg, const struct pg_row_event *event)
{
    struct bench *b = arg;
    assert_in_range(b->n_events, 0, 7);
    struct heard *h = &b->events[b->n_events++];
    *h = (struct heard){ .len = event->len, .sub = event->sub };
    snprintf(h->channel, sizeof h->channel, "%.*s", (int)event->channel_len, event->channel);
    if (event->data)
        memcpy(h->data, event->data, event->len);
}

static void on_refused(void *arg, const char *why)
{
    struct bench *b = arg;
    snprintf(b->why, sizeof b->why, "%s", why);
    b->n_refused++;
}

static int send_message(struct bench *b)
{
    const struct pg_row_sink sink = { on_event, on_refused, b };
    struct pg_output m;
    assert_int_equal(pg_output_parse(b->message.data, b->message.len, &m), 0);
    b->n_events = b->n_refused = 0;
    int r = pg_rows_take(b->rows, &m, 7413, &sink);
    buf_clear(&b->message);
    return r;
}

static void send_relation(struct bench *b, uint32_t oid, const char *name, const char *const *names,
                          const uint32_t *types, unsigned n, unsigned identity)
{
    put_n(b, 'R', 1);
    put_n(b, oid, 4);
    put_text(b, !strcmp(name, "watching") ? "fanwire" : "public");
    put_text(b, name);
    put_n(b, identity == (1u << n) - 1 ? 'f' : 'd', 1);
    put_n(b, n, 2);
    for (unsigned i = 0; i < n; i++) {
        put_n(b, identity >> i & 1, 1);
        put_text(b, names[i]);
        put_n(b, types[i], 4);
        put_n(b, UINT32_MAX, 4);
    }
    assert_int_equal(send_message(b), 0);
}

/* kind: I, U, D; old_kind: K, O, 0 */
static int send_change(struct bench *b, char kind, char old_kind, const char *const *old,
                       const char *const *row, unsigned n)
{
    put_n(b, (uint8_t)kind, 1);
    put_n(b, 100, 4);
    if (old_kind)
        put_row(b, old_kind, old, n);
    if (row)
        put_row(b, 'N', row, n);
    return send_message(b);
}

#define ROW(...) ((const char *const[]){ __VA_ARGS__ })

/* ---- the bench: public.todos (id, list, title) as table 100 ---- */

static void describe(struct bench *b, unsigned identity)
{
    static const uint32_t types[] = { 23, 23, 25 };
    send_relation(b, 100, "todos", ROW("id", "list", "title"), types, 3, identity);
}

static void watch(struct bench *b, const char *id, const char *channel, const char *columns,
                  const char *ended)
{
    const struct pg_watch_row row = { .id = id,
                                      .relation = "100",
                                      .channel = channel,
                                      .columns = columns,
                                      .keys = "{id}",
                                      .ended = ended };
    assert_int_equal(pg_rows_watch(b->rows, &row), 0);
}

static int setup(void **state)
{
    static struct bench bench;
    bench = (struct bench){ .rows = pg_rows_new(EVENT_MAX), .message = buf_make(1 << 20) };
    assert_non_null(bench.rows);
    describe(&bench, 7);
    *state = &bench;
    return 0;
}

static int teardown(void **state)
{
    struct bench *b = *state;
    pg_rows_free(b->rows);
    buf_done(&b->message);
    return 0;
}

static void expect(struct bench *b, unsigned i, const char *channel, const char *data)
{
    assert_true(b->n_events > i);
    assert_string_equal(b->events[i].channel, channel);
    assert_string_equal(b->events[i].data, data);
}

static void each_kind_of_change(void **state)
{
    struct bench *b = *state;
    watch(b, "3", "list:{list}", NULL, NULL);
    (void)send_change(b, 'I', 0, NULL, ROW("7", "1", "milk"), 3);
    expect(b, 0, "list:1",
           "{\"op\":\"insert\",\"table\":\"public.todos\",\"key\":{\"id\":7},\"row\":{\"id\":7,"
           "\"list\":1,\"title\":\"milk\"},\"tx\":\"7413\"}");
    (void)send_change(b, 'U', 'O', ROW("7", "1", "milk"), ROW("7", "2", "milk"), 3);
    static const char moved[] =
        "{\"op\":\"update\",\"table\":\"public.todos\",\"key\":{\"id\":7},\"row\":{\"id\":7,"
        "\"list\":"
        "2,\"title\":\"milk\"},\"old\":{\"id\":7,\"list\":1,\"title\":\"milk\"},\"tx\":\"7413\"}";
    assert_int_equal(b->n_events, 2);
    expect(b, 0, "list:2", moved);
    expect(b, 1, "list:1", moved);
    assert_int_equal(b->events[0].sub, 6);
    assert_int_equal(b->events[1].sub, 7);
    (void)send_change(b, 'D', 'O', ROW("7", "2", NULL), NULL, 3);
    expect(b, 0, "list:2",
           "{\"op\":\"delete\",\"table\":\"public.todos\",\"key\":{\"id\":7},\"old\":{\"id\":7,"
           "\"list\":2,\"title\":null},\"tx\":\"7413\"}");
    (void)send_change(b, 'I', 0, NULL, ROW("8", NULL, "no channel"), 3);
    assert_int_equal(b->n_events + b->n_refused, 0);
}

static void templates_stand_side_by_side_in_the_order_of_their_ids(void **state)
{
    struct bench *b = *state;
    watch(b, "9", "b", "{id}", NULL);
    watch(b, "2", "a", "{list,id}", NULL);
    (void)send_change(b, 'I', 0, NULL, ROW("7", "1", "milk"), 3);
    assert_int_equal(b->n_events, 2);
    assert_string_equal(b->events[0].channel, "a");
    assert_non_null(strstr(b->events[0].data, "\"row\":{\"id\":7,\"list\":1}"));
    assert_string_equal(b->events[1].channel, "b");
    assert_non_null(strstr(b->events[1].data, "\"row\":{\"id\":7}"));
    assert_true(b->events[0].sub < b->events[1].sub);
}

static void unchanged_values_come_from_the_old_row_or_are_missing(void **state)
{
    struct bench *b = *state;
    watch(b, "1", "x", NULL, NULL);
    (void)send_change(b, 'U', 'O', ROW("7", "1", "large"), ROW("7", "2", "u"), 3);
    assert_non_null(strstr(b->events[0].data, "\"row\":{\"id\":7,\"list\":2,\"title\":\"large\"}"));
    assert_null(strstr(b->events[0].data, "partial"));
    describe(b, 1); /* the key alone */
    (void)send_change(b, 'U', 0, NULL, ROW("7", "3", "u"), 3);
    expect(b, 0, "x",
           "{\"op\":\"update\",\"table\":\"public.todos\",\"key\":{\"id\":7},\"row\":{\"id\":7,"
           "\"list\":3},\"tx\":\"7413\",\"partial\":true}");
    (void)send_change(b, 'U', 'K', ROW("7", NULL, NULL), ROW("8", "3", "u"), 3);
    assert_non_null(strstr(b->events[0].data, "\"old\":{\"id\":7},"));
}

static void a_row_whose_channel_is_not_known_is_counted(void **state)
{
    struct bench *b = *state;
    watch(b, "1", "list:{list}", NULL, NULL);
    describe(b, 1);
    (void)send_change(b, 'D', 'K', ROW("7", NULL, NULL), NULL, 3);
    assert_int_equal(b->n_events, 0);
    assert_int_equal(b->n_refused, 1);
}

static void channels_that_are_none_are_counted(void **state)
{
    struct bench *b = *state;
    char title[400];
    memset(title, 'x', 399);
    title[399] = '\0';
    watch(b, "1", "{title}", "{id}", NULL);
    (void)send_change(b, 'I', 0, NULL, ROW("7", "1", title), 3);
    assert_int_equal(b->n_refused, 1);
    (void)send_change(b, 'I', 0, NULL, ROW("7", "1", ""), 3);
    assert_int_equal(b->n_refused, 1);
    (void)send_change(b, 'I', 0, NULL, ROW("7", "1", "$fanwire/x"), 3);
    assert_int_equal(b->n_refused, 1);
    title[255] = '\0';
    (void)send_change(b, 'I', 0, NULL, ROW("7", "1", title), 3);
    assert_int_equal(b->n_events, 1);
    assert_string_equal(b->events[0].channel, title);
}

static void too_large_a_row_is_passed_on_as_such(void **state)
{
    struct bench *b = *state;
    static char title[2 * EVENT_MAX];
    memset(title, 'x', sizeof title - 1);
    watch(b, "1", "x", NULL, NULL);
    (void)send_change(b, 'I', 0, NULL, ROW("7", "1", title), 3);
    assert_int_equal(b->events[0].len, EVENT_MAX + 1);
    assert_string_equal(b->events[0].data, "");
}

static void a_truncate_is_told_where_no_column_is_named(void **state)
{
    struct bench *b = *state;
    watch(b, "1", "list:{list}", NULL, NULL);
    watch(b, "2", "todos", NULL, NULL);
    put_n(b, 'T', 1);
    put_n(b, 2, 4);
    put_n(b, 0, 1);
    put_n(b, 99, 4);
    put_n(b, 100, 4);
    assert_int_equal(send_message(b), 0);
    assert_int_equal(b->n_events, 1);
    expect(b, 0, "todos", "{\"op\":\"truncate\",\"table\":\"public.todos\",\"tx\":\"7413\"}");
}

/* ---- what the identity does not have ---- */

static void an_update_without_an_old_row_may_have_moved_it(void **state)
{
    struct bench *b = *state;
    watch(b, "1", "{id}", NULL, NULL);
    watch(b, "2", "list:{list}", NULL, NULL);
    describe(b, 1);
    (void)send_change(b, 'U', 0, NULL, ROW("7", "1", "milk"), 3);
    assert_int_equal(b->n_events, 2); /* where it is now */
    assert_string_equal(b->events[0].channel, "7");
    assert_string_equal(b->events[1].channel, "list:1");
    assert_int_equal(b->n_refused, 1);
    assert_non_null(strstr(b->why, "\"list:{list}\""));
    assert_non_null(strstr(b->why, "call fanwire_watch() again"));
}

/* Table 100 has all of its old rows logged, partition 101 has the key only; another one may have
 * all. */
static void describe_partition(struct bench *b, unsigned identity)
{
    static const uint32_t types[] = { 23, 23, 25 };
    describe(b, 7);
    send_relation(b, 101, "todos_1", ROW("id", "list", "title"), types, 3, identity);
}

static void nulls_of_a_partition_that_logs_less_are_not_known(void **state)
{
    struct bench *b = *state;
    watch(b, "1", "all", NULL, NULL);
    watch(b, "2", "list:{list}", NULL, NULL);
    describe_partition(b, 1);
    (void)send_change(b, 'D', 'O', ROW("7", NULL, NULL), NULL, 3);
    assert_int_equal(b->n_events, 1);
    expect(b, 0, "all",
           "{\"op\":\"delete\",\"table\":\"public.todos\",\"key\":{\"id\":7},\"old\":{\"id\":7},"
           "\"tx\":\"7413\",\"partial\":true}");
    assert_int_equal(b->n_refused, 1);
    (void)send_change(b, 'U', 'O', ROW("7", NULL, NULL), ROW("8", "1", "milk"), 3);
    assert_int_equal(b->n_events, 2);
    assert_int_equal(b->n_refused, 1);
    assert_non_null(
        strstr(b->events[1].data, "\"old\":{\"id\":7},\"tx\":\"7413\",\"partial\":true}"));
    (void)send_change(b, 'U', 0, NULL, ROW("8", "2", "milk"), 3); /* the key has not changed */
    assert_int_equal(b->n_events, 2);
    assert_int_equal(b->n_refused, 1);
    assert_non_null(strstr(b->events[0].data, "\"partial\":true"));
    /* of another partition: a value beside the key shows that all of it is there */
    (void)send_change(b, 'D', 'O', ROW("7", NULL, "milk"), NULL, 3);
    assert_int_equal(b->n_refused, 0);
    expect(b, 0, "all",
           "{\"op\":\"delete\",\"table\":\"public.todos\",\"key\":{\"id\":7},\"old\":{\"id\":7,"
           "\"list\":null,\"title\":\"milk\"},\"tx\":\"7413\"}");
    /* mended */
    describe_partition(b, 7);
    (void)send_change(b, 'D', 'O', ROW("7", NULL, NULL), NULL, 3);
    assert_int_equal(b->n_refused, 0);
    assert_null(strstr(b->events[0].data, "partial"));
}

static void a_table_that_is_told_itself_is_nobodys_partition(void **state)
{
    struct bench *b = *state;
    static const uint32_t types[] = { 23, 23, 25 };
    const struct pg_watch_row other = { .id = "9", .relation = "101", .channel = "x" };
    assert_int_equal(pg_rows_watch(b->rows, &other), 0);
    watch(b, "1", "all", NULL, NULL);
    describe_partition(b, 1);
    (void)send_change(b, 'D', 'O', ROW("7", NULL, NULL), NULL, 3);
    assert_null(strstr(b->events[0].data, "partial"));
    send_relation(b, 102, "other", ROW("id", "list", "title"), types, 3,
                  1); /* a change in between */
    (void)send_change(b, 'D', 'O', ROW("7", NULL, NULL), NULL, 3);
    assert_null(strstr(b->events[0].data, "partial"));
}

static void columns_that_are_gone_are_said(void **state)
{
    struct bench *b = *state;
    watch(b, "1", "{id}/{a b}", NULL, NULL);
    (void)send_change(b, 'I', 0, NULL, ROW("7", "1", "milk"), 3);
    assert_int_equal(b->n_events, 0);
    assert_int_equal(b->n_refused, 1);
    assert_string_equal(
        b->why, "the table \"public.todos\" no longer has the column a b; call fanwire_watch() "
                "with the name that it has now, and fanwire_unwatch() with \"{id}/{a b}\"");
    watch(b, "2", "few", "{id,gone}", NULL);
    (void)send_change(b, 'I', 0, NULL, ROW("7", "1", "milk"), 3);
    expect(b, 0, "few",
           "{\"op\":\"insert\",\"table\":\"public.todos\",\"key\":{\"id\":7},\"row\":{\"id\":7},"
           "\"tx\":\"7413\",\"partial\":true}");
}

/* ---- fanwire.watching ---- */

static void describe_watching(struct bench *b)
{
    static const uint32_t types[] = { 23, 26, 25, 1009, 1009, 1184 };
    send_relation(b, 200, "watching", ROW("id", "relation", "channel", "columns", "keys", "ended"),
                  types, 6, 6);
}

static void change_watching(struct bench *b, char kind, const char *channel, const char *ended)
{
    put_n(b, (uint8_t)kind, 1);
    put_n(b, 200, 4);
    if (kind == 'D')
        put_row(b, 'K', ROW(NULL, "100", channel, NULL, NULL, NULL), 6);
    else
        put_row(b, 'N', ROW("5", "100", channel, NULL, "{id}", ended), 6);
    assert_int_equal(send_message(b), 0);
    assert_int_equal(b->n_events, 0);
}

static unsigned told(struct bench *b)
{
    (void)send_change(b, 'I', 0, NULL, ROW("7", "1", "milk"), 3);
    return b->n_events;
}

static void what_is_watched_changes_with_the_stream(void **state)
{
    struct bench *b = *state;
    describe_watching(b);
    assert_int_equal(told(b), 0);
    change_watching(b, 'I', "x", NULL);
    assert_int_equal(told(b), 1);
    change_watching(b, 'U', "x", "2026-11-22 08:15:02+00");
    assert_int_equal(told(b), 0);
    change_watching(b, 'U', "x", NULL);
    change_watching(b, 'U', "x", NULL);
    assert_int_equal(told(b), 1);
    change_watching(b, 'D', "x", NULL);
    assert_int_equal(told(b), 0);
}

/* The stream begins before it was asked what is watched: what had ended by then is told until its
 * end comes by, or till the stream is where it was asked. */
static void what_had_ended_is_told_until_then(void **state)
{
    struct bench *b = *state;
    describe_watching(b);
    watch(b, "4", "ended", NULL, "2026-11-22 08:15:02+00");
    watch(b, "5", "x", NULL, "2026-11-22 08:15:02+00");
    assert_int_equal(told(b), 2);
    change_watching(b, 'U', "x", "2026-11-22 08:15:02+00");
    assert_int_equal(told(b), 1);
    change_watching(b, 'U', "x", NULL);
    pg_rows_settle(b->rows);
    assert_int_equal(told(b), 1);
    assert_string_equal(b->events[0].channel, "x");
}

static void what_does_not_fit_together_is_refused(void **state)
{
    struct bench *b = *state;
    watch(b, "1", "x", NULL, NULL);
    assert_int_equal(send_change(b, 'I', 0, NULL, ROW("7"), 1), -EBADMSG);
    pg_rows_reset(b->rows);
    assert_int_equal(send_change(b, 'I', 0, NULL, ROW("7", "1", "x"), 3), -EBADMSG);
    const struct pg_watch_row bad = { .id = "x", .relation = "1", .channel = "c" };
    assert_int_equal(pg_rows_watch(b->rows, &bad), -EINVAL);
    const struct pg_watch_row broken = {
        .id = "1", .relation = "1", .channel = "c", .columns = "{a"
    };
    assert_int_equal(pg_rows_watch(b->rows, &broken), -EINVAL);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(each_kind_of_change),
        TEST(templates_stand_side_by_side_in_the_order_of_their_ids),
        TEST(unchanged_values_come_from_the_old_row_or_are_missing),
        TEST(a_row_whose_channel_is_not_known_is_counted),
        TEST(channels_that_are_none_are_counted),
        TEST(too_large_a_row_is_passed_on_as_such),
        TEST(a_truncate_is_told_where_no_column_is_named),
        TEST(an_update_without_an_old_row_may_have_moved_it),
        TEST(nulls_of_a_partition_that_logs_less_are_not_known),
        TEST(a_table_that_is_told_itself_is_nobodys_partition),
        TEST(columns_that_are_gone_are_said),
        TEST(what_is_watched_changes_with_the_stream),
        TEST(what_had_ended_is_told_until_then),
        TEST(what_does_not_fit_together_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
