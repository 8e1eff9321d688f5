/* Connections in a worker's lists, when their sockets block, and block again before their turn. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "turn.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define N_CONNS 3

/* As much of a worker as connections need. */
struct rig {
    struct settings settings;
    struct counters counters;
    struct worker w;
    struct conn *conns[N_CONNS];
    int peers[N_CONNS];
};

static struct conn *add_stream(struct worker *w, int *ret_peer)
{
    int fds[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds), 0);
    struct conn *c = conn_new(w, fds[0], false);
    assert_non_null(c);
    c->state = CONN_STREAM;
    c->format = FORMAT_WS_JSON;
    c->heartbeat_s = 25;
    *ret_peer = fds[1];
    return c;
}

static int setup(void **state)
{
    struct rig *rig = calloc(1, sizeof(*rig));
    assert_non_null(rig);
    struct worker *w = &rig->w;
    rig->settings = (struct settings){ .stall_ms = 30000, .behind_ms = 60000 };
    w->settings = &rig->settings;
    w->counters = &rig->counters;
    struct list *lists[] = { &w->everyone.dirty, &w->readable, &w->behind,   &w->unblocked,
                             &w->doomed,         &w->tails,    &w->settling, &w->dirty };
    for (size_t i = 0; i < sizeof(lists) / sizeof(lists[0]); i++)
        list_init(lists[i]);
    wheel_init(&w->wheel, 0);
    for (int i = 0; i < N_CONNS; i++)
        rig->conns[i] = add_stream(w, &rig->peers[i]);
    *state = rig;
    return 0;
}

static int teardown(void **state)
{
    struct rig *rig = *state;
    struct worker *w = &rig->w;
    while (w->n_conns) {
        conn_kill(w, w->conns[w->n_conns - 1], 1000);
        conns_reap(w);
    }
    for (int i = 0; i < N_CONNS; i++)
        close(rig->peers[i]);
    free(w->conns);
    free(rig);
    return 0;
}

/* The socket is full, and something is left to be sent. */
static void block(struct rig *rig, struct conn *c)
{
    static const char bytes[4096];
    while (send(c->fd, bytes, sizeof(bytes), MSG_DONTWAIT | MSG_NOSIGNAL) > 0)
        continue;
    assert_int_equal(errno, EAGAIN);
    conn_send(&rig->w, c, "answer", 6);
    assert_true(c->flags & CONN_BLOCKED);
    assert_true(conn_has_unsent(c));
}

/* The peer reads everything, and the worker hears of it. */
static void unblock(struct rig *rig, int i)
{
    char bytes[4096];
    while (recv(rig->peers[i], bytes, sizeof(bytes), 0) > 0)
        continue;
    intake_event(&rig->w, rig->conns[i], false, true);
    assert_false(rig->conns[i]->flags & CONN_BLOCKED);
    assert_false(conn_has_unsent(rig->conns[i]));
}

/* The list holds exactly these, in both directions. */
static void holds(const struct list *list, struct conn *const *conns, size_t n)
{
    const struct list *node = list;
    for (size_t i = 0; i < n; i++) {
        assert_ptr_equal(node->next, &conns[i]->work);
        assert_ptr_equal(node->next->prev, node);
        node = node->next;
    }
    assert_ptr_equal(node->next, list);
    assert_ptr_equal(list->prev, node);
}

static void one_that_blocks_twice_before_its_turn_stands_in_one_list(void **state)
{
    struct rig *rig = *state;
    struct worker *w = &rig->w;
    for (int i = 0; i < N_CONNS; i++) {
        block(rig, rig->conns[i]);
        unblock(rig, i);
    }
    holds(&w->unblocked, rig->conns, N_CONNS);
    block(rig, rig->conns[0]);
    unblock(rig, 0);
    struct conn *expected[] = { rig->conns[1], rig->conns[2], rig->conns[0] };
    holds(&w->unblocked, expected, N_CONNS);
    conn_kill(w, rig->conns[0], 1000);
    conns_reap(w);
    holds(&w->unblocked, expected, N_CONNS - 1);
}

/* Live when it became writable, behind when it did so again. */
static void one_that_fell_behind_between_stands_there_only(void **state)
{
    struct rig *rig = *state;
    struct worker *w = &rig->w;
    struct conn *c = rig->conns[0];
    block(rig, c);
    unblock(rig, 0);
    holds(&w->unblocked, &c, 1);
    block(rig, c);
    set_behind(w, c, true);
    assert_false(
        list_linked(&c->work)); /* it can be served no more than any other that is blocked */
    unblock(rig, 0);
    holds(&w->unblocked, NULL, 0);
    holds(&w->behind, &c, 1);
    assert_int_equal(counted(&rig->counters.behind), 1);
    block(rig, c);
    holds(&w->behind, NULL, 0);
    unblock(rig, 0);
    holds(&w->behind, &c, 1);
    set_behind(w, c, false);
    holds(&w->behind, NULL, 0);
    assert_int_equal(counted(&rig->counters.behind), 0);
}

static void one_that_dies_leaves_every_list(void **state)
{
    struct rig *rig = *state;
    struct worker *w = &rig->w;
    block(rig, rig->conns[0]);
    unblock(rig, 0);
    block(rig, rig->conns[0]);
    close(rig->peers[0]);
    rig->peers[0] = -1;
    intake_event(w, rig->conns[0], true, true); /* the send fails */
    assert_int_equal(rig->conns[0]->state, CONN_DEAD);
    holds(&w->unblocked, NULL, 0);
    holds(&w->readable, NULL, 0);
    holds(&w->doomed, rig->conns, 1);
    conns_reap(w);
    assert_int_equal(w->n_conns, N_CONNS - 1);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(one_that_blocks_twice_before_its_turn_stands_in_one_list),
        TEST(one_that_fell_behind_between_stands_there_only),
        TEST(one_that_dies_leaves_every_list),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
