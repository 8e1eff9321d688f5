/* When the outbox is read, by a clock of the test's own. */
#include "pg_outbox_pace.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static const struct outbox_found nothing = { 0 }, rows = { .rows = true },
                                 more = { .rows = true, .more = true }, held = { .held = true };

/* Reads when it is due. Returns how long it waited; *now is moved. */
static int64_t read_when_due(struct outbox_pace *p, const struct outbox_found *found, int64_t *now)
{
    int64_t wait = outbox_pace_wait(p, *now);
    *now += wait > 0 ? wait : 0;
    outbox_pace_sent(p);
    (void)outbox_pace_took(p, found, *now);
    return wait;
}

static void a_notify_says_when(void **state)
{
    struct outbox_pace p;
    int64_t now = 1000;
    outbox_pace_start(&p, true, now);
    assert_int_equal(read_when_due(&p, &nothing, &now), 0); /* what was before */
    assert_int_equal(outbox_pace_wait(&p, now), 5000);
    outbox_pace_heard(&p);
    assert_true(outbox_pace_wait(&p, now) <= 0);
    assert_true(read_when_due(&p, &rows, &now) <= 0);
    assert_int_equal(outbox_pace_wait(&p, now), 5000);
}

/* One that comes while a read is under way may be of rows that the read did not see. */
static void a_notify_during_a_read_means_another(void **state)
{
    struct outbox_pace p;
    outbox_pace_start(&p, true, 1000);
    outbox_pace_sent(&p);
    outbox_pace_heard(&p);
    (void)outbox_pace_took(&p, &rows, 1001);
    assert_true(outbox_pace_wait(&p, 1001) <= 0);
}

static void what_is_left_is_read_at_once(void **state)
{
    struct outbox_pace p;
    int64_t now = 1000;
    for (int listens = 0; listens < 2; listens++) {
        outbox_pace_start(&p, listens, now);
        (void)read_when_due(&p, &more, &now);
        assert_true(outbox_pace_wait(&p, now) <= 0);
    }
}

static void polling_follows_the_rhythm(void **state)
{
    struct outbox_pace p;
    int64_t now = 1000, last, n = 0;
    outbox_pace_start(&p, false, now);
    (void)read_when_due(&p, &rows, &now);
    last = now;
    assert_int_equal(read_when_due(&p, &nothing, &now), 5);
    for (; now - last < 4000; n++) {
        int64_t quiet = now - last, wait = read_when_due(&p, &nothing, &now);
        assert_in_range(wait, 5, 250);
        assert_true(wait <= 5 || wait * 8 <= quiet); /* an event is late by an eighth at most */
    }
    assert_in_range(n, 20, 60); /* and these few polls are all that it takes */
    assert_int_equal(outbox_pace_wait(&p, now), 250);
    (void)read_when_due(&p, &rows, &now);
    assert_int_equal(outbox_pace_wait(&p, now), 5);
}

/* Rows above the horizon: no NOTIFY tells of the end of the transaction that they wait for. */
static void held_rows_are_polled_with_back_off(void **state)
{
    struct outbox_pace p;
    int64_t now = 1000, last = 0;
    outbox_pace_start(&p, true, now);
    (void)read_when_due(&p, &held, &now);
    for (int i = 0; i < 10; i++) {
        outbox_pace_heard(&p); /* of more that is held, too: no reason to hurry */
        int64_t wait = read_when_due(&p, &held, &now);
        assert_true(wait >= last && wait >= 2 && wait <= 100);
        last = wait;
    }
    assert_int_equal(last, 100);
    (void)read_when_due(&p, &rows, &now);
    (void)read_when_due(&p, &held, &now);
    assert_int_equal(outbox_pace_wait(&p, now), 2);
    assert_int_equal(p.poll_until_ms, 0); /* they were announced, long ago */
}

/* A look after 5 s finds rows that nobody has announced: true when it is polled from now on. */
static bool find_unannounced(struct outbox_pace *p, int64_t *now, bool late_notify)
{
    (void)read_when_due(p, &rows, now);
    if (late_notify)
        outbox_pace_heard(p);
    for (int i = 0; i < 3; i++) {
        *now += outbox_pace_wait(p, *now) > 0 ? outbox_pace_wait(p, *now) : 0;
        outbox_pace_sent(p);
        if (outbox_pace_took(p, &nothing, *now))
            return true;
    }
    return false;
}

static void rows_without_a_notify_are_noticed(void **state)
{
    struct outbox_pace p;
    int64_t now = 1000;
    outbox_pace_start(&p, true, now);
    (void)read_when_due(&p, &rows, &now); /* of before: nothing to wonder at */
    (void)read_when_due(&p, &nothing, &now);
    assert_false(
        find_unannounced(&p, &now, true)); /* the look was first, the NOTIFY a little late */
    assert_int_equal(outbox_pace_wait(&p, now), 5000);
    int64_t before = now;
    assert_true(find_unannounced(&p, &now, false));
    assert_in_range(now - before, 6000, 6100);
    while (now - before < 50000)
        assert_in_range(read_when_due(&p, &nothing, &now), 5, 250);
    while (now - before < 80000) /* none came since: it is relied on again */
        (void)read_when_due(&p, &nothing, &now);
    assert_int_equal(read_when_due(&p, &nothing, &now), 5000);
    assert_true(find_unannounced(&p, &now, false));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_notify_says_when),
        cmocka_unit_test(a_notify_during_a_read_means_another),
        cmocka_unit_test(what_is_left_is_read_at_once),
        cmocka_unit_test(polling_follows_the_rhythm),
        cmocka_unit_test(held_rows_are_polled_with_back_off),
        cmocka_unit_test(rows_without_a_notify_are_noticed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
