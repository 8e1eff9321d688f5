/* The reader of server-sent events: the standard's examples, cut at every place, and garbage. */
#include "sse_client.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* Events as "name|data;" in one text. */
struct seen {
    char text[4096];
    size_t len;
    bool stop;
};

static bool on_event(void *arg, const char *event, const char *data, size_t len)
{
    struct seen *seen = arg;
    int n = snprintf(seen->text + seen->len, sizeof(seen->text) - seen->len, "%s|%.*s;", event,
                     (int)len, data);
    seen->len += (size_t)n;
    return !seen->stop;
}

/* Feeds the whole in pieces of `step` bytes. */
static int feed(struct sse_client *c, struct seen *seen, const char *text, size_t len, size_t step)
{
    int r = 0;
    for (size_t at = 0; at < len && r == 0; at += step)
        r = sse_client_feed(c, text + at, at + step < len ? step : len - at, on_event, seen);
    return r;
}

static void check(const char *text, const char *events, const char *last_id)
{
    for (size_t step = 1; step <= strlen(text); step++) {
        struct sse_client c;
        struct seen seen = { 0 };
        sse_client_init(&c, 1000);
        assert_int_equal(feed(&c, &seen, text, strlen(text), step), 0);
        assert_string_equal(seen.text, events);
        assert_string_equal(c.last_id, last_id);
        sse_client_done(&c);
    }
}

static void reads_what_the_standard_says(void **state)
{
    check("data: YHOO\ndata: +2\ndata: 10\n\n", "|YHOO\n+2\n10;", "");
    check(": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third\n\n",
          "|first event;|second event;| third;", "");
    check("data\n\ndata\ndata\n\ndata:", "|;|\n;", "");
    check("data:test\n\ndata: test\n\n", "|test;|test;", "");
    check("event: add\ndata: 73857293\n\nevent: remove\ndata: 2153\n\n",
          "add|73857293;remove|2153;", "");
}

static void takes_all_line_ends_and_a_byte_order_mark(void **state)
{
    check("\xEF\xBB\xBF"
          "data: a\r\ndata: b\rdata: c\n\r\ndata: d\r\rid: 7\r\n\r\n",
          "|a\nb\nc;|d;", "7");
}

static void an_id_alone_moves_the_position(void **state)
{
    check("id: p1\n\n", "", "p1");
    check("id: p1\ndata: x\n\nid: p2\n\n", "|x;", "p2");
    check("id: p1\n\nid: p2\ndata: never finished\n", "", "p1");
    check("event: gap\n\ndata: x\n\n", "|x;", ""); /* a name without data names nothing */
}

static void reads_retry_and_ignores_what_it_does_not_know(void **state)
{
    struct sse_client c;
    struct seen seen = { 0 };
    static const char text[] =
        "retry: 1500\nfoo: bar\n: comment\nretry: 1x\nretry: 99999999999\n\n";
    sse_client_init(&c, 1000);
    assert_int_equal(feed(&c, &seen, text, strlen(text), 7), 0);
    assert_int_equal(c.retry_ms, 1500);
    assert_string_equal(seen.text, "");
    sse_client_done(&c);
}

static void a_new_connection_forgets_the_unfinished(void **state)
{
    struct sse_client c;
    struct seen seen = { 0 };
    sse_client_init(&c, 1000);
    static const char first[] = "id: 1\ndata: a\n\nid: 2\ndata: b";
    assert_int_equal(feed(&c, &seen, first, strlen(first), 100), 0);
    sse_client_restart(&c);
    static const char second[] = "data: c\n\n";
    assert_int_equal(feed(&c, &seen, second, strlen(second), 100), 0);
    assert_string_equal(seen.text, "|a;|c;");
    assert_string_equal(c.last_id, "1");
    sse_client_done(&c);
}

static void stops_when_told_and_refuses_what_is_too_large(void **state)
{
    struct sse_client c;
    struct seen seen = { .stop = true };
    sse_client_init(&c, 100);
    static const char two[] = "data: a\n\ndata: b\n\n";
    assert_int_equal(feed(&c, &seen, two, strlen(two), 100), 1);
    assert_string_equal(seen.text, "|a;");
    sse_client_done(&c);

    char line[300];
    memset(line, 'x', sizeof(line));
    sse_client_init(&c, 100);
    assert_int_equal(sse_client_feed(&c, line, sizeof(line), on_event, &seen), -EMSGSIZE);
    sse_client_done(&c);

    static const char half[] = "data: 0123456789012345678901234567890123456789\n";
    sse_client_init(&c, 100);
    assert_int_equal(feed(&c, &seen, half, strlen(half), 100), 0);
    assert_int_equal(feed(&c, &seen, half, strlen(half), 100), 0);
    assert_int_equal(feed(&c, &seen, half, strlen(half), 100), -EMSGSIZE);
    sse_client_done(&c);
}

static void survives_any_bytes(void **state)
{
    static const char alphabet[] = "data:id retry event\n\r\n\r: \0\xEF\xBB\xBF\xff";
    unsigned seed = 4600;
    for (size_t round = 0; round < 2000; round++) {
        char text[200];
        for (size_t i = 0; i < sizeof(text); i++) {
            seed = seed * 1103515245 + 12345;
            text[i] = alphabet[(seed >> 16) % (sizeof(alphabet) - 1)];
        }
        struct sse_client c;
        struct seen seen = { 0 };
        sse_client_init(&c, 1000);
        (void)feed(&c, &seen, text, sizeof(text), 1 + round % 20);
        sse_client_done(&c);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_what_the_standard_says),
        cmocka_unit_test(takes_all_line_ends_and_a_byte_order_mark),
        cmocka_unit_test(an_id_alone_moves_the_position),
        cmocka_unit_test(reads_retry_and_ignores_what_it_does_not_know),
        cmocka_unit_test(a_new_connection_forgets_the_unfinished),
        cmocka_unit_test(stops_when_told_and_refuses_what_is_too_large),
        cmocka_unit_test(survives_any_bytes),
    };
    return cmocka_run_group_tests_name("sse_client", tests, NULL, NULL);
}
