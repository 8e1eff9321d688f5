/* A subscription that begins with rows: what comes in which order, who shares a query, what happens
 * to those who wait when something goes wrong or they leave. */
#include "fake_source.h"
#include "rig.h"
#include "sub.h"

#include <errno.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define RETAIN (1u << 20)

static const struct fw_sub_options with_rows = { .size = sizeof(with_rows), .snapshot = 1 };

static struct fw_hub *open_with_rows(const char *url, size_t retain)
{
    char channel[] = "a", sql[] = " SELECT a ; "; /* to be copied */
    struct fw_snapshot_query queries[] = { { channel, sql }, { "b", "SELECT b" } };
    struct fw_hub_options options = { .size = sizeof(options),
                                      .retain = retain,
                                      .linger_ms = 1,
                                      .snapshots = queries,
                                      .n_snapshots = 2 };
    struct fw_hub *hub;
    struct fw_error err;
    if (hub_open_with(url, &options, fake_sources, &hub, &err) < 0)
        fail_msg("%s", err.message);
    memset(channel, 'x', 1);
    memset(sql, 'x', sizeof(sql) - 1);
    memset(queries, 0, sizeof(queries));
    return hub;
}

static struct fw_hub *open_stored(size_t retain)
{
    fake_begin((struct fake_script){ .identity = 7 });
    struct fw_hub *hub = open_with_rows("stored:", retain);
    fake_expect("open");
    fake_open_stored();
    return hub;
}

static struct fw_sub *join(struct fw_hub *hub, const char *channel)
{
    struct fw_sub *sub;
    struct fw_error err;
    if (fw_sub_open(hub, channel, &with_rows, &sub, &err) < 0)
        fail_msg("%s", err.message);
    return sub;
}

static void add(struct fw_sub *sub, const char *channel)
{
    struct fw_error err;
    if (fw_sub_add(sub, channel, &with_rows, &err) < 0)
        fail_msg("%s", err.message);
}

/* The subscription asks as it goes on. */
static void expect_call(struct fw_sub *sub, const char *call)
{
    struct fw_event ev;
    for (int i = 0; i < PATIENCE_MS && !fake_was_called(call); i++)
        assert_int_equal(fw_sub_next(sub, &ev, 1), 0);
}

static const char rows[] = "{\"n\":1}\0{\"n\":2}";

static void answer(void)
{
    fake_answer(&(struct fake_rows){ fake_question(), rows, sizeof(rows), 0, false });
}

static void next_row(struct fw_sub *sub, const char *channel, const char *text)
{
    struct fw_event *ev = next_step(sub, FW_SNAPSHOT, channel);
    assert_int_equal(ev->len, strlen(text));
    assert_string_equal(ev->data, text);
    assert_string_equal(ev->id, "");
    assert_string_equal(ev->from, "");
}

static void next_rows(struct fw_sub *sub, const char *channel)
{
    next_row(sub, channel, "{\"n\":1}");
    next_row(sub, channel, "{\"n\":2}");
}

/* All that was said until now is there, and is looked at before the log. */
static void look_at_inbox(struct fw_sub *sub)
{
    fake_expect_nothing(); /* a turn of the hub's loop after the one that answered */
    sub_process_inbox(sub);
}

static int no_position(const struct fw_sub *sub)
{
    char place[FW_POSITION_MAX + 1];
    return fw_sub_position(sub, place, sizeof(place));
}

/* ---- in which order ---- */

static void rows_come_first_then_what_they_lack(void **state)
{
    struct fw_hub *hub = open_stored(RETAIN);
    fake_store("a", "1", 1, 50);
    fake_store("a", "2", 2, 120); /* committed and read before others see it */
    struct fw_sub *sub = join(hub, "a");
    expect_call(sub, "snapshot SELECT a");
    assert_int_equal(no_position(sub), -EAGAIN);
    fake_store("a", "3", 3, 70);
    fake_store("b", "4", 4, 130);
    fake_store("a", "5", 5, 140);
    nothing_next(sub);
    answer();
    fake_store("a", "6", 6, 150); /* after the answer, before it is read */
    next_rows(sub, "a");
    assert_int_equal(no_position(sub), -EAGAIN);
    assert_string_equal(next_step(sub, FW_MESSAGE, "a")->id, "p7.2.0");
    next_message(sub, "a", "5");
    assert_int_equal(no_position(sub), -EAGAIN);
    next_message(sub, "a", "6");
    next_step(sub, FW_READY, "a");
    assert_int_equal(no_position(sub), 0);
    fake_store("a", "7", 7, 50);
    next_message(sub, "a", "7");
    nothing_next(sub);
    fw_sub_close(sub);
    fw_hub_close(hub);
}

/* What they contain and is still before the subscription's place is not returned when it gets
 * there.
 */
static void ready_is_who_has_passed_all_that_they_contain(void **state)
{
    struct fw_hub *hub = open_stored(RETAIN);
    struct fw_sub *sub = open_sub(hub, "x");
    next_step(sub, FW_READY, "x");
    add(sub, "a");
    expect_call(sub, "snapshot SELECT a");
    fake_store("x", "1", 1, 50);
    fake_store("a", "2", 2, 50);
    fake_store("x", "3", 3, 50);
    answer();
    look_at_inbox(sub);
    next_rows(sub, "a");
    next_message(sub, "x", "1");
    assert_int_equal(no_position(sub), -EAGAIN);
    next_message(sub, "x", "3");
    next_step(sub, FW_READY, "a");
    assert_int_equal(no_position(sub), 0);
    nothing_next(sub);
    fw_sub_close(sub);
    fw_hub_close(hub);
}

static void other_channels_go_on_meanwhile(void **state)
{
    struct fw_hub *hub = open_stored(RETAIN);
    struct fw_sub *sub = open_sub(hub, "x");
    next_step(sub, FW_READY, "x");
    add(sub, "a");
    expect_call(sub, "snapshot SELECT a");
    fake_store("x", "1", 1, 50);
    fake_store("a", "2", 2, 50);
    next_message(sub, "x", "1");
    nothing_next(sub);
    fake_store("x", "3", 3, 50);
    answer();
    next_message(sub, "x", "3");
    next_rows(sub, "a");
    next_step(sub, FW_READY, "a");
    fake_store("x", "4", 4, 50);
    fake_store("a", "5", 5, 50);
    next_message(sub, "x", "4");
    next_message(sub, "a", "5");
    fw_sub_close(sub);
    fw_hub_close(hub);
}

static void a_busy_stream_keeps_nobody_from_them(void **state)
{
    enum { N = 1000 };
    struct fw_hub *hub = open_stored(RETAIN);
    struct fw_sub *sub = open_sub(hub, "x");
    next_step(sub, FW_READY, "x");
    add(sub, "a");
    expect_call(sub, "snapshot SELECT a");
    answer();
    fake_expect_nothing();
    for (uint64_t at = 1; at <= N; at++)
        fake_store("x", "x", at, 50);
    int before = 0;
    struct fw_event ev;
    while (fw_sub_next(sub, &ev, PATIENCE_MS) == FW_MESSAGE)
        before++;
    assert_int_equal(ev.kind, FW_SNAPSHOT);
    assert_true(before < N);
    fw_sub_close(sub);
    fw_hub_close(hub);
}

static void no_rows_are_just_ready(void **state)
{
    struct fw_hub *hub = open_stored(RETAIN);
    struct fw_sub *sub = join(hub, "a");
    expect_call(sub, "snapshot SELECT a");
    fake_answer(&(struct fake_rows){ .question = fake_question() });
    next_step(sub, FW_READY, "a");
    nothing_next(sub);
    fw_sub_close(sub);
    fw_hub_close(hub);
}

/* What the source cannot tell is joined by time: what the rows contain may come once more. */
static void without_a_source_that_tells_all_since_the_question_comes(void **state)
{
    fake_begin((struct fake_script){ .open = true, .ready = true });
    struct fw_hub *hub = open_with_rows("demand:", RETAIN);
    struct fw_sub *sub = join(hub, "a");
    expect_call(sub, "open");
    expect_call(sub, "subscribe a");
    expect_call(sub, "snapshot SELECT a");
    fake_append("a", "since");
    fake_answer(&(struct fake_rows){ fake_question(), rows, sizeof(rows), 0, true });
    next_rows(sub, "a");
    next_message(sub, "a", "since");
    next_step(sub, FW_READY, "a");
    nothing_next(sub);
    fw_sub_close(sub);
    fw_hub_close(hub);
}

static void large_answers_come_whole(void **state)
{
    enum { LEN = 8 << 20, ROW = 1000 };
    struct fw_hub *hub = open_stored(RETAIN);
    struct fw_sub *sub = join(hub, "a");
    char *large = malloc(LEN);
    assert_non_null(large);
    for (size_t i = 0; i < LEN; i++)
        large[i] = i % ROW == ROW - 1 || i == LEN - 1 ? '\0' : (char)('0' + i / ROW % 10);
    expect_call(sub, "snapshot SELECT a");
    fake_store("a", "1", 1, 120);
    fake_answer(&(struct fake_rows){ fake_question(), large, LEN, 0, false });
    for (size_t at = 0; at < LEN; at += ROW)
        next_row(sub, "a", large + at);
    next_message(sub, "a", "1");
    next_step(sub, FW_READY, "a");
    free(large);
    fw_sub_close(sub);
    fw_hub_close(hub);
}

/* ---- who shares ---- */

static void simultaneous_joiners_share_one_query(void **state)
{
    enum { N = 5 };
    struct fw_hub *hub = open_stored(RETAIN);
    struct fw_sub *subs[N];
    struct fw_event ev;
    for (int i = 0; i < N; i++)
        subs[i] = join(hub, "a");
    expect_call(subs[0], "snapshot SELECT a");
    for (int i = 1; i < N; i++) {
        struct fw_error err;
        while (!subs[i]->rows.channel)
            assert_int_equal(fw_sub_next(subs[i], &ev, 1), 0);
        assert_int_equal(fw_sub_add(subs[i], "x", NULL, &err), 0); /* is answered after that */
        next_step(subs[i], FW_READY, "x");
    }
    fake_store("a", "1", 1, 120);
    answer();
    for (int i = 0; i < N; i++) {
        next_rows(subs[i], "a");
        next_message(subs[i], "a", "1");
        next_step(subs[i], FW_READY, "a");
        fw_sub_close(subs[i]);
    }
    fake_expect_nothing();
    fw_hub_close(hub);
}

static void channels_of_a_subscription_come_one_after_the_other(void **state)
{
    struct fw_hub *hub = open_stored(RETAIN);
    struct fw_sub *sub = join(hub, "a");
    add(sub, "b");
    expect_call(sub, "snapshot SELECT a");
    answer();
    next_rows(sub, "a");
    fake_expect_nothing();
    next_step(sub, FW_READY, "a");
    expect_call(sub, "snapshot SELECT b");
    answer();
    next_rows(sub, "b");
    next_step(sub, FW_READY, "b");
    fw_sub_close(sub);
    fw_hub_close(hub);
}

/* ---- what goes wrong ---- */

static void expect_failure(struct fw_hub *hub, const char *code, int expected)
{
    struct fw_sub *sub = open_sub(hub, "x");
    struct fw_event ev;
    char text[200];
    next_step(sub, FW_READY, "x");
    add(sub, "a");
    add(sub, "b");
    expect_call(sub, "snapshot SELECT a");
    fake_refuse(code, "no such column");
    assert_int_equal(fw_sub_next(sub, &ev, PATIENCE_MS), expected);
    (void)snprintf(text, sizeof(text),
                   "the rows of channel \"a\" cannot be had (%s): no such column", code);
    assert_string_equal(fw_sub_error(sub), text);
    assert_int_equal(fw_sub_remove(sub, "a"), -ENOENT);
    expect_call(sub, "snapshot SELECT b"); /* the others go on */
    answer();
    next_rows(sub, "b");
    next_step(sub, FW_READY, "b");
    add(sub, "a"); /* once more */
    expect_call(sub, "snapshot SELECT a");
    answer();
    next_rows(sub, "a");
    next_step(sub, FW_READY, "a");
    fw_sub_close(sub);
}

static void a_query_that_fails_costs_its_channel(void **state)
{
    struct fw_hub *hub = open_stored(RETAIN);
    expect_failure(hub, "source-refused", -EIO);
    expect_failure(hub, "too-large", -EMSGSIZE);
    expect_failure(hub, "source-down", -EAGAIN);
    fw_hub_close(hub);
}

/* Nobody listens to a channel that was left for want of rows. */
static void a_channel_without_its_rows_is_not_wanted(void **state)
{
    fake_begin((struct fake_script){ .open = true, .ready = true });
    struct fw_hub *hub = open_with_rows("demand:", RETAIN);
    struct fw_sub *sub = join(hub, "a");
    struct fw_event ev;
    expect_call(sub, "open");
    expect_call(sub, "subscribe a");
    expect_call(sub, "snapshot SELECT a");
    fake_refuse("source-refused", "no such column");
    assert_int_equal(fw_sub_next(sub, &ev, PATIENCE_MS), -EIO);
    fake_expect("unsubscribe a");
    fw_sub_close(sub);
    fw_hub_close(hub);
}

static void a_lost_stream_is_asked_again(void **state)
{
    struct fw_hub *hub = open_stored(RETAIN);
    struct fw_sub *sub = join(hub, "a");
    expect_call(sub, "snapshot SELECT a");
    uint64_t first = fake_question();
    fake_lost("connection-lost");
    next_down(sub, "connection-lost");
    fake_expect("open");
    fake_open_stored();
    next_step(sub, FW_UP, "");
    fake_expect("snapshot SELECT a");
    fake_answer(&(struct fake_rows){ first, rows, sizeof(rows), 0, false }); /* too late */
    nothing_next(sub);
    answer();
    next_rows(sub, "a");
    next_step(sub, FW_READY, "a");
    fw_sub_close(sub);
    fw_hub_close(hub);
}

static void do_gap(struct fw_host *host, void *arg)
{
    fw_host_gap(host, "expired", (const uint64_t[2]){ 9, 0 }, false);
    (void)fw_host_flush(host);
}

/* The rows are from before it: who has them must not think that they are from after it. */
static void a_gap_that_was_told_before_them_is_told_again(void **state)
{
    struct fw_hub *hub = open_stored(RETAIN);
    struct fw_sub *sub = join(hub, "a");
    expect_call(sub, "snapshot SELECT a");
    answer();
    fake_store("a", "1", 1, 50);
    fake_run(do_gap, NULL);
    fake_store("a", "10", 10, 50);
    next_gap(sub, "", "expired");
    next_rows(sub, "a");
    next_message(sub, "a", "1");
    next_gap(sub, "a", "expired");
    next_message(sub, "a", "10");
    next_step(sub, FW_READY, "a");
    nothing_next(sub);
    fw_sub_close(sub);
    fw_hub_close(hub);
}

/* Rows that have come are returned before it. */
static void a_gap_after_them_is_told_once(void **state)
{
    struct fw_hub *hub = open_stored(RETAIN);
    struct fw_sub *sub = join(hub, "a");
    expect_call(sub, "snapshot SELECT a");
    answer();
    look_at_inbox(sub);
    fake_run(do_gap, NULL);
    next_rows(sub, "a");
    next_step(sub, FW_READY, "a");
    next_gap(sub, "", "expired");
    nothing_next(sub);
    fw_sub_close(sub);
    fw_hub_close(hub);
}

static void who_joins_while_the_source_is_down_waits(void **state)
{
    struct fw_hub *hub = open_stored(RETAIN);
    fake_lost("connection-lost");
    fake_expect("open");
    struct fw_sub *sub = join(hub, "a");
    next_down(sub, "connection-lost");
    nothing_next(sub);
    fake_open_stored();
    next_step(sub, FW_UP, "");
    expect_call(sub, "snapshot SELECT a");
    answer();
    next_rows(sub, "a");
    next_step(sub, FW_READY, "a");
    fw_sub_close(sub);
    fw_hub_close(hub);
}

static void what_the_rows_lack_may_be_overwritten(void **state)
{
    struct fw_hub *hub = open_stored(1 << 16);
    struct fw_sub *sub = join(hub, "a");
    char big[3001];
    memset(big, 'x', sizeof(big) - 1);
    big[sizeof(big) - 1] = '\0';
    expect_call(sub, "snapshot SELECT a");
    fake_store("a", "1", 1, 120);
    fake_store("a", "2", 2, 120);
    answer();
    look_at_inbox(sub);
    for (uint64_t at = 3; at < 60; at++)
        fake_store("x", big, at, 50);
    next_rows(sub, "a");
    next_gap(sub, "a", "lapped");
    next_gap(sub, "", "lapped"); /* it stood still */
    next_step(sub, FW_READY, "a");
    fake_store("a", "60", 60, 50);
    next_message(sub, "a", "60");
    fw_sub_close(sub);
    fw_hub_close(hub);
}

/* ---- who leaves ---- */

static void a_late_answer_is_for_nobody(void **state)
{
    struct fw_hub *hub = open_stored(RETAIN);
    struct fw_sub *sub = join(hub, "a"), *other = join(hub, "b");
    expect_call(sub, "snapshot SELECT a");
    assert_int_equal(fw_sub_remove(sub, "a"), 0);
    answer();
    nothing_next(sub);
    add(sub, "a");
    expect_call(sub, "snapshot SELECT a");
    answer();
    next_row(sub, "a", "{\"n\":1}");
    assert_int_equal(fw_sub_remove(sub, "a"), 0); /* in the middle */
    nothing_next(sub);
    expect_call(other, "snapshot SELECT b");
    add(sub, "b");
    fw_sub_close(sub);
    answer();
    next_rows(other, "b");
    fw_sub_close(other);
    fw_hub_close(hub);
}

static void removing_lets_the_next_ask(void **state)
{
    struct fw_hub *hub = open_stored(RETAIN);
    struct fw_sub *sub = join(hub, "a");
    struct fw_event ev;
    add(sub, "b");
    expect_call(sub, "snapshot SELECT a");
    while (list_empty(&sub->rowless))
        assert_int_equal(fw_sub_next(sub, &ev, 1), 0);
    assert_int_equal(fw_sub_remove(sub, "a"), 0);
    answer();
    fake_expect("snapshot SELECT b"); /* also of who waits at the descriptor */
    answer();
    next_rows(sub, "b");
    next_step(sub, FW_READY, "b");
    fw_sub_close(sub);
    fw_hub_close(hub);
}

static void waiting_ends_by_cancelling_and_with_the_hub(void **state)
{
    struct fw_hub *hub = open_stored(RETAIN);
    struct fw_sub *sub = join(hub, "a"), *other = join(hub, "a");
    struct fw_event ev;
    expect_call(sub, "snapshot SELECT a");
    fw_sub_cancel(sub);
    assert_int_equal(fw_sub_next(sub, &ev, -1), -ECANCELED);
    fw_sub_close(sub);
    nothing_next(other);
    fw_hub_close(hub);
    int kind;
    while ((kind = fw_sub_next(other, &ev, -1)) == FW_DOWN)
        ;
    assert_int_equal(kind, -EPIPE);
    fw_sub_close(other);
}

static void the_descriptor_shows_them(void **state)
{
    struct fw_hub *hub = open_stored(RETAIN);
    struct fw_sub *sub = join(hub, "a");
    struct pollfd p = { .fd = fw_sub_fd(sub), .events = POLLIN };
    struct fw_event ev;
    bool asked = false;
    int kind;
    while ((kind = fw_sub_next(sub, &ev, 0)) == 0) {
        if (!asked && fake_was_called("snapshot SELECT a")) {
            asked = true;
            answer();
        }
        int n = poll(&p, 1, asked ? PATIENCE_MS : 1);
        assert_true(n == 1 || !asked);
    }
    assert_int_equal(kind, FW_SNAPSHOT);
    next_row(sub, "a", "{\"n\":2}");
    next_step(sub, FW_READY, "a");
    nothing_next(sub);
    assert_int_equal(poll(&p, 1, 0), 0);
    fw_sub_close(sub);
    fw_hub_close(hub);
}

/* ---- options ---- */

static void expect_bad_sub(struct fw_hub *hub, const char *channel,
                           const struct fw_sub_options *options, const char *text)
{
    struct fw_sub *sub;
    struct fw_error err = { 0 };
    assert_int_equal(fw_sub_open(hub, channel, options, &sub, &err), -EINVAL);
    assert_non_null(strstr(err.message, text));
}

static void bad_subscriptions_are_refused(void **state)
{
    struct fw_hub *hub = open_stored(RETAIN);
    struct fw_sub_options o = { .size = sizeof(o), .snapshot = 1, .since = "oldest" };
    expect_bad_sub(hub, "a", &o, "snapshot and since exclude each other");
    o = (struct fw_sub_options){ .size = sizeof(o), .snapshot = 1, .last = 3 };
    expect_bad_sub(hub, "a", &o, "snapshot and last exclude each other");
    expect_bad_sub(hub, "c", &with_rows, "channel \"c\" has no rows");
    fw_hub_close(hub);
}

static void expect_bad_hub(const char *url, const struct fw_snapshot_query *queries, size_t n,
                           const char *text)
{
    struct fw_hub_options options = {
        .size = sizeof(options), .retain = 1 << 16, .snapshots = queries, .n_snapshots = n
    };
    struct fw_hub *hub;
    struct fw_error err = { 0 };
    assert_int_equal(fw_hub_open(url, &options, &hub, &err), -EINVAL);
    if (!strstr(err.message, text))
        fail_msg("\"%s\" is not in: %s", text, err.message);
}

static void bad_queries_are_refused(void **state)
{
    static const struct fw_snapshot_query good = { "a", "select 1" };
    expect_bad_hub("memory:", &good, 1, "source memory has no rows");
    expect_bad_hub("memory:", NULL, 1, "snapshots is NULL");
    expect_bad_hub("memory:", (struct fw_snapshot_query[]){ good, { "b", NULL } }, 2,
                   "query 1 lacks");
    expect_bad_hub("memory:", (struct fw_snapshot_query[]){ good, good }, 2, "has two");
    expect_bad_hub("memory:", &(struct fw_snapshot_query){ "a", "drop table a" }, 1, "no query");
    expect_bad_hub("memory:", &(struct fw_snapshot_query){ "$fanwire/a", "select 1" }, 1,
                   "is no channel");
}

/* Programs that were compiled when the structures were smaller. */
static void what_lies_behind_a_smaller_structure_is_not_read(void **state)
{
    struct fw_hub_options o = { .size = offsetof(struct fw_hub_options, snapshots),
                                .retain = RETAIN,
                                .snapshots = NULL,
                                .n_snapshots = 1 };
    struct fw_sub_options s = { .size = offsetof(struct fw_sub_options, snapshot), .snapshot = 1 };
    struct fw_hub *hub;
    struct fw_sub *sub;
    struct fw_error err;
    assert_int_equal(fw_hub_open("memory:", &o, &hub, &err), 0);
    assert_int_equal(fw_sub_open(hub, "a", &s, &sub, &err), 0);
    next_step(sub, FW_READY, "a");
    fw_sub_close(sub);
    fw_hub_close(hub);
}

/* ---- against a plain model ---- */

/* Two channels of numbered events, each either in the rows of the next answer or not. Whatever is
 * added, removed, answered and returned in whatever order: who has rows then gets, in order, the
 * events that they lack and all after the answer, each once. */
struct model {
    uint64_t at;           /* of the newest event */
    uint8_t visible[4096]; /* was it in the rows when it was stored? */
    char channel[4096];
    uint64_t upto[2]; /* … of the answer being returned: events up to here existed */
    uint64_t next[2]; /* looks for the next one from here on */
    bool has[2], rows[2];
};

static uint64_t next_expected(const struct model *m, int c)
{
    uint64_t at = m->next[c];
    while (at <= m->at && (m->channel[at] != 'a' + c || (at <= m->upto[c] && m->visible[at])))
        at++;
    return at;
}

static void take(struct model *m, const struct fw_event *ev)
{
    assert_true(ev->kind == FW_SNAPSHOT || ev->kind == FW_MESSAGE || ev->kind == FW_READY);
    if (ev->kind == FW_READY)
        return;
    int c = ev->channel[0] - 'a';
    assert_true(m->has[c]);
    if (ev->kind == FW_SNAPSHOT) { /* tells what existed when it was answered */
        m->upto[c] = strtoull(ev->data, NULL, 10);
        m->next[c] = 1;
        m->rows[c] = true;
        return;
    }
    assert_true(m->rows[c]);
    assert_int_equal(strtoull(ev->data, NULL, 10), next_expected(m, c));
    m->next[c] = strtoull(ev->data, NULL, 10) + 1;
}

static void store_next(struct model *m, unsigned random)
{
    char channel[2] = { (char)('a' + random % 2) }, text[24];
    m->at++;
    m->visible[m->at] = random / 2 % 3 > 0;
    m->channel[m->at] = channel[0];
    (void)snprintf(text, sizeof(text), "%llu", (unsigned long long)m->at);
    fake_store(channel, text, m->at, m->visible[m->at] ? 50 : 150);
}

static void answer_now(const struct model *m, uint64_t *answered)
{
    char row[24];
    if (fake_question() == *answered)
        return;
    *answered = fake_question();
    int len = snprintf(row, sizeof(row), "%llu", (unsigned long long)m->at);
    fake_answer(&(struct fake_rows){ *answered, row, (size_t)len + 1, 0, false });
}

static void toggle(struct model *m, struct fw_sub *sub, int c)
{
    const char *name = c ? "b" : "a";
    if (m->has[c])
        assert_int_equal(fw_sub_remove(sub, name), 0);
    else
        add(sub, name);
    m->has[c] = !m->has[c];
    m->rows[c] = false;
}

static void joins_at_random_are_exact(void **state)
{
    enum { STEPS = 8000 };
    struct fw_hub *hub = open_stored(RETAIN);
    struct fw_sub *sub = open_sub(hub, NULL);
    struct model *m = calloc(1, sizeof(*m));
    uint64_t answered = 0;
    unsigned seed = 4711;
    struct fw_event ev;
    assert_non_null(m);
    for (int i = 0; i < STEPS; i++) {
        unsigned what = (unsigned)rand_r(&seed) % 32, random = (unsigned)rand_r(&seed);
        if (what < 8 && m->at < 4000)
            store_next(m, random);
        else if (what < 10)
            answer_now(m, &answered);
        else if (what < 11)
            toggle(m, sub, random % 2);
        else if (fw_sub_next(sub, &ev, 0) > 0)
            take(m, &ev);
    }
    for (int c = 0; c < 2; c++)
        if (!m->has[c])
            toggle(m, sub, c);
    for (bool ready = false; !ready;) {
        answer_now(m, &answered);
        if (fw_sub_next(sub, &ev, 1) > 0)
            take(m, &ev);
        ready =
            m->rows[0] && m->rows[1] && next_expected(m, 0) > m->at && next_expected(m, 1) > m->at;
    }
    free(m);
    fw_sub_close(sub);
    fw_hub_close(hub);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_come_first_then_what_they_lack),
        cmocka_unit_test(ready_is_who_has_passed_all_that_they_contain),
        cmocka_unit_test(other_channels_go_on_meanwhile),
        cmocka_unit_test(a_busy_stream_keeps_nobody_from_them),
        cmocka_unit_test(no_rows_are_just_ready),
        cmocka_unit_test(without_a_source_that_tells_all_since_the_question_comes),
        cmocka_unit_test(large_answers_come_whole),
        cmocka_unit_test(simultaneous_joiners_share_one_query),
        cmocka_unit_test(channels_of_a_subscription_come_one_after_the_other),
        cmocka_unit_test(a_query_that_fails_costs_its_channel),
        cmocka_unit_test(a_channel_without_its_rows_is_not_wanted),
        cmocka_unit_test(a_lost_stream_is_asked_again),
        cmocka_unit_test(a_gap_that_was_told_before_them_is_told_again),
        cmocka_unit_test(a_gap_after_them_is_told_once),
        cmocka_unit_test(who_joins_while_the_source_is_down_waits),
        cmocka_unit_test(what_the_rows_lack_may_be_overwritten),
        cmocka_unit_test(a_late_answer_is_for_nobody),
        cmocka_unit_test(removing_lets_the_next_ask),
        cmocka_unit_test(waiting_ends_by_cancelling_and_with_the_hub),
        cmocka_unit_test(the_descriptor_shows_them),
        cmocka_unit_test(bad_subscriptions_are_refused),
        cmocka_unit_test(bad_queries_are_refused),
        cmocka_unit_test(what_lies_behind_a_smaller_structure_is_not_read),
        cmocka_unit_test(joins_at_random_are_exact),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
