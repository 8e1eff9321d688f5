/* Many threads on one hub: everybody sees every event once, in one order, or an explicit gap. */
#include "rig.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define WRITERS 4
#define READERS 10

struct reader_thread {
    struct fw_hub *hub;
    pthread_t thread;
    struct fw_sub *sub;
    int n_expected, n_read, n_gaps;
    uint64_t order; /* a hash of what was read, in order */
    const char *wrong;
};

struct writer_thread {
    struct fw_hub *hub;
    pthread_t thread;
    int index, n;
    int result;
};

static void *write_numbers(void *arg)
{
    struct writer_thread *w = arg;
    char text[64];
    for (int i = 0; i < w->n && w->result == 0; i++) {
        int len = snprintf(text, sizeof(text), "%d %d", w->index, i);
        w->result = fw_hub_publish(w->hub, "a", text, (size_t)len, -1, NULL, NULL);
    }
    return NULL;
}

static void *read_numbers(void *arg)
{
    struct reader_thread *r = arg;
    int next[WRITERS] = { 0 };
    struct fw_event ev;
    while (r->n_read < r->n_expected && !r->wrong) {
        int kind = fw_sub_next(r->sub, &ev, PATIENCE_MS);
        if (kind == FW_GAP)
            r->n_gaps++;
        if (kind <= 0)
            r->wrong = kind ? fw_sub_error(r->sub) : "nothing came";
        if (kind != FW_MESSAGE)
            continue;
        char *end;
        long writer = strtol(ev.data, &end, 10), n = strtol(end, NULL, 10);
        if (n != next[writer]++)
            r->wrong = "an event is missing, twice or out of order";
        r->order = (r->order ^ (uint64_t)(writer << 32 | n)) * 0x100000001b3;
        r->n_read++;
    }
    return NULL;
}

static void all_readers_see_the_same(void **state)
{
    enum { EACH = 400 };
    struct fw_hub *hub = open_hub("memory:", 4u << 20, 0);
    struct writer_thread writers[WRITERS];
    struct reader_thread readers[READERS];
    for (int i = 0; i < READERS; i++) {
        readers[i] = (struct reader_thread){ .hub = hub, .n_expected = WRITERS * EACH };
        readers[i].sub = open_sub(hub, "a");
        next_step(readers[i].sub, FW_READY, "a");
        assert_int_equal(pthread_create(&readers[i].thread, NULL, read_numbers, &readers[i]), 0);
    }
    for (int i = 0; i < WRITERS; i++) {
        writers[i] = (struct writer_thread){ .hub = hub, .index = i, .n = EACH };
        assert_int_equal(pthread_create(&writers[i].thread, NULL, write_numbers, &writers[i]), 0);
    }
    for (int i = 0; i < WRITERS; i++) {
        pthread_join(writers[i].thread, NULL);
        assert_int_equal(writers[i].result, 0);
    }
    for (int i = 0; i < READERS; i++) {
        pthread_join(readers[i].thread, NULL);
        if (readers[i].wrong)
            fail_msg("%s", readers[i].wrong);
        assert_int_equal(readers[i].n_gaps, 0);
        assert_true(readers[i].order == readers[0].order);
        fw_sub_close(readers[i].sub);
    }
    fw_hub_close(hub);
}

/* One that does not read is lapped and told so; the others, and the writer, are not held up. */
static void one_that_does_not_read_is_lapped_alone(void **state)
{
    enum { N = 3000 };
    struct fw_hub *hub = open_hub("memory:", 1 << 16, 0);
    struct fw_sub *idle = open_sub(hub, "a");
    struct reader_thread busy = { .hub = hub, .n_expected = N };
    struct writer_thread writer = { .hub = hub, .n = N };
    next_step(idle, FW_READY, "a");
    busy.sub = open_sub(hub, "a");
    next_step(busy.sub, FW_READY, "a");
    assert_int_equal(pthread_create(&busy.thread, NULL, read_numbers, &busy), 0);
    assert_int_equal(pthread_create(&writer.thread, NULL, write_numbers, &writer), 0);
    pthread_join(writer.thread, NULL);
    pthread_join(busy.thread, NULL);
    if (busy.wrong)
        fail_msg("%s", busy.wrong);
    assert_int_equal(busy.n_gaps, 0);
    next_gap(idle, "", "lapped");
    nothing_next(idle);
    publish(hub, "a", "x");
    next_message(idle, "a", "x");
    fw_sub_close(idle);
    fw_sub_close(busy.sub);
    fw_hub_close(hub);
}

static void *wait_for_ever(void *arg)
{
    struct reader_thread *r = arg;
    struct fw_event ev;
    while ((r->n_read = fw_sub_next(r->sub, &ev, -1)) > 0)
        ;
    return NULL;
}

static void waiting_threads_are_cancelled(void **state)
{
    struct fw_hub *hub = open_hub("memory:", 1 << 16, 0);
    struct reader_thread readers[READERS];
    for (int round = 0; round < 5; round++) {
        for (int i = 0; i < READERS; i++) {
            readers[i] = (struct reader_thread){ .hub = hub };
            readers[i].sub = open_sub(hub, i % 2 ? "a" : NULL);
            if (i % 3 == 0)
                assert_true(fw_sub_fd(readers[i].sub) >= 0);
            assert_int_equal(pthread_create(&readers[i].thread, NULL, wait_for_ever, &readers[i]),
                             0);
        }
        for (int i = 0; i < READERS; i++)
            fw_sub_cancel(readers[i].sub);
        for (int i = 0; i < READERS; i++) {
            pthread_join(readers[i].thread, NULL);
            assert_int_equal(readers[i].n_read, -ECANCELED);
            fw_sub_close(readers[i].sub);
        }
    }
    fw_hub_close(hub);
}

static void *come_and_go(void *arg)
{
    struct reader_thread *r = arg;
    struct fw_event ev;
    unsigned seed = (unsigned)r->n_expected;
    for (int i = 0; i < 60 && !r->wrong; i++) {
        struct fw_sub *sub;
        struct fw_sub_options o = { .size = sizeof(o), .last = rand_r(&seed) % 3 };
        if (fw_sub_open(r->hub, "a", &o, &sub, NULL) < 0) {
            r->wrong = "open";
            break;
        }
        int kind;
        while ((kind = fw_sub_next(sub, &ev, PATIENCE_MS)) > 0 && kind != FW_READY)
            ;
        if (kind != FW_READY)
            r->wrong = "never ready";
        fw_sub_close(sub);
    }
    return NULL;
}

static void subscriptions_come_and_go_meanwhile(void **state)
{
    struct fw_hub *hub = open_hub("memory:", 1 << 16, 0);
    struct reader_thread readers[READERS];
    struct writer_thread writer = { .hub = hub, .n = 2000 };
    assert_int_equal(pthread_create(&writer.thread, NULL, write_numbers, &writer), 0);
    for (int i = 0; i < READERS; i++) {
        readers[i] = (struct reader_thread){ .hub = hub, .n_expected = i };
        assert_int_equal(pthread_create(&readers[i].thread, NULL, come_and_go, &readers[i]), 0);
    }
    for (int i = 0; i < READERS; i++) {
        pthread_join(readers[i].thread, NULL);
        if (readers[i].wrong)
            fail_msg("%s", readers[i].wrong);
    }
    pthread_join(writer.thread, NULL);
    assert_int_equal(writer.result, 0);
    fw_hub_close(hub);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_readers_see_the_same),
        cmocka_unit_test(one_that_does_not_read_is_lapped_alone),
        cmocka_unit_test(waiting_threads_are_cancelled),
        cmocka_unit_test(subscriptions_come_and_go_meanwhile),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
