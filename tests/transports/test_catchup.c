/* Catch-up of one slow connection with several channels, by a log that moves on under it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "turn.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define LOG_SIZE (256u << 10) /* holds more records than a walk follows links */
#define FAR      (LOG_HOPS_MAX + 50)
#define SERVICES 1000 /* of which each moves a connection on */

/* As much of a worker as catching up needs, and a connection that has begun with two channels. */
struct rig {
    struct settings settings;
    struct counters counters;
    struct worker w;
    struct conn *conn;
    struct sub *busy, *quiet;
    int peer;
    struct buf seen; /* what the peer has read, with NULs as spaces */
};

static struct sub *begin(struct rig *rig, const char *channel)
{
    static const struct start live;
    struct conn *c = rig->conn;
    assert_int_equal(subscribe(&rig->w, c, channel, strlen(channel), &live, ""), 0);
    struct sub *sub = c->subs[c->n_subs - 1];
    join_free(&rig->w, join_of(sub));
    assert_int_equal(sub_enter(&rig->w, sub), 0);
    return sub;
}

static void open_worker(struct rig *rig)
{
    struct worker *w = &rig->w;
    rig->settings = (struct settings){ .stall_ms = 30000, .behind_ms = 60000, .max_channels = 8 };
    w->settings = &rig->settings;
    w->counters = &rig->counters;
    w->event_fd = -1;
    struct list *lists[] = { &w->tell,       &w->asks,  &w->everyone.dirty, &w->readable,
                             &w->behind,     &w->dirty, &w->unblocked,      &w->doomed,
                             &w->tails,      &w->ahead, &w->settling,       &w->resolved,
                             &w->ahead_pages };
    for (size_t i = 0; i < sizeof(lists) / sizeof(lists[0]); i++)
        list_init(lists[i]);
    wheel_init(&w->wheel, 0);
    w->encode = buf_make(1u << 20);
    w->text = buf_make(1u << 20);
    w->response = buf_make(1u << 20);
    assert_int_equal(log_create(LOG_SIZE, &w->log), 0);
    assert_int_equal(arena_init(&w->arena), 0);
    w->control = (struct channel){ .hash = log_hash(w->log, "", 0), .name = (char *)"" };
    assert_non_null(channel_feed(&w->control, FORMAT_WS_JSON, 0));
}

static int setup(void **state)
{
    struct rig *rig = calloc(1, sizeof(*rig));
    int fds[2];
    assert_non_null(rig);
    open_worker(rig);
    rig->seen = buf_make(4u << 20);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds), 0);
    rig->peer = fds[1];
    rig->conn = conn_new(&rig->w, fds[0], false);
    assert_non_null(rig->conn);
    rig->conn->state = CONN_STREAM;
    rig->conn->format = FORMAT_WS_JSON;
    rig->conn->heartbeat_s = 25;
    rig->busy = begin(rig, "busy");
    rig->quiet = begin(rig, "quiet");
    *state = rig;
    return 0;
}

static int teardown(void **state)
{
    struct rig *rig = *state;
    struct worker *w = &rig->w;
    conn_kill(w, rig->conn, 1000);
    conns_reap(w);
    close(rig->peer);
    feed_free(&w->arena, &w->control, FORMAT_WS_JSON);
    arena_done(&w->arena);
    frame_cache_done(&w->cache);
    catch_up_done(w);
    map_done(&w->channels);
    buf_done(&w->encode);
    buf_done(&w->text);
    buf_done(&w->response);
    buf_done(&rig->seen);
    log_close(w->log);
    free(w->conns);
    free(w->body);
    free(rig);
    return 0;
}

/* Numbered events, each of about `size` bytes. */
static void append(struct rig *rig, const char *channel, unsigned n, int size)
{
    for (unsigned i = 0; i < n; i++) {
        char text[2048];
        int len = snprintf(text, sizeof(text), "%s%u.%*s", channel, i, size, "");
        assert_true(log_append(rig->w.log, &(struct log_event){ .channel = channel,
                                                                .channel_len = strlen(channel),
                                                                .data = text,
                                                                .len = (size_t)len,
                                                                .time_ms = 1 }));
    }
    rig->w.frontier = log_indexed(rig->w.log);
}

static void read_all(struct rig *rig)
{
    char bytes[65536];
    ssize_t n;
    while ((n = recv(rig->peer, bytes, sizeof(bytes), 0)) > 0) {
        for (ssize_t i = 0; i < n; i++)
            bytes[i] = bytes[i] ? bytes[i] : ' ';
        assert_int_equal(buf_append(&rig->seen, bytes, (size_t)n), 0);
    }
    intake_event(&rig->w, rig->conn, false, true);
}

/* Serves it until it is live, as a client that reads everything. */
static void catch_up_all(struct rig *rig)
{
    set_behind(&rig->w, rig->conn, true);
    for (int i = 0; i < SERVICES && rig->conn->flags & CONN_BEHIND; i++) {
        catch_up(&rig->w, 0); /* one service */
        read_all(rig);
    }
    assert_false(rig->conn->flags & CONN_BEHIND);
    assert_int_equal(rig->conn->cursor, rig->w.frontier);
    assert_int_equal(buf_append(&rig->seen, "", 1), 0);
}

static unsigned n_seen(const struct rig *rig, const char *text)
{
    unsigned n = 0;
    for (const char *at = (const char *)rig->seen.data; (at = strstr(at, text)); at++)
        n++;
    return n;
}

/* All n of the channel's events, once each, in order. */
static void saw_all(const struct rig *rig, const char *channel, unsigned n)
{
    const char *at = (const char *)rig->seen.data;
    for (unsigned i = 0; i < n; i++) {
        char text[32];
        (void)snprintf(text, sizeof(text), "\"%s%u.", channel, i);
        at = strstr(at, text);
        assert_non_null(at);
        assert_int_equal(n_seen(rig, text), 1);
    }
}

/* The cursor was overtaken: by events of the one channel that were told as its gap, while the
 * other's are all held. */
static void lap_busy(struct rig *rig)
{
    rig->conn->cursor = rig->w.frontier = log_indexed(rig->w.log);
    while (log_tail(rig->w.log) <= rig->conn->cursor)
        append(rig, "busy", 100, 400);
    rig->busy->from = rig->w.frontier;
}

static void a_channel_far_ahead_of_an_overtaken_cursor_holds_nobody_up(void **state)
{
    struct rig *rig = *state;
    lap_busy(rig);
    append(rig, "quiet", 100, 0);
    append(rig, "busy", FAR, 0);
    assert_true(log_tail(rig->w.log) > rig->conn->cursor);
    assert_true(log_tail(rig->w.log) <= rig->busy->from);
    catch_up_all(rig);
    assert_int_equal(n_seen(rig, "\"gap\""), 0);
    saw_all(rig, "quiet", 100);
    saw_all(rig, "busy", FAR);
}

static void one_that_was_lapped_behind_a_far_one_is_told(void **state)
{
    struct rig *rig = *state;
    rig->conn->cursor = rig->w.frontier = log_indexed(rig->w.log);
    append(rig, "quiet", 1, 0);
    while (log_tail(rig->w.log) <= rig->conn->cursor)
        append(rig, "busy", 100, 400);
    rig->busy->from = rig->w.frontier;
    append(rig, "busy", FAR, 0);
    assert_true(log_tail(rig->w.log) <= rig->busy->from);
    catch_up_all(rig);
    assert_int_equal(n_seen(rig, "\"gap\""), 1);
    assert_int_equal(n_seen(rig, "\"channel\":\"quiet\""), 1);
    saw_all(rig, "busy", FAR);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_channel_far_ahead_of_an_overtaken_cursor_holds_nobody_up),
        TEST(one_that_was_lapped_behind_a_far_one_is_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
