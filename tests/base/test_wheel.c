/* The timer wheel against a plain array of deadlines: never early, at most a tick late, once. */
#include "wheel.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#define N_TIMERS 300
#define ROUND_MS (WHEEL_SLOTS * WHEEL_TICK_MS)

static struct wheel wheel;

struct item {
    struct wheel_timer timer;
    int64_t deadline; /* 0: not set */
};

static uint64_t random_next(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

static void fires_at_the_time_or_up_to_a_tick_later(void **state)
{
    for (int64_t start = 1000; start < 1000 + 2 * WHEEL_TICK_MS; start++) {
        for (uint32_t timeout = 0; timeout < 700; timeout += 53) {
            struct wheel_timer t = { 0 };
            wheel_init(&wheel, start);
            wheel_set(&wheel, &t, start, timeout);
            int64_t due = start + timeout;
            if (timeout)
                assert_null(wheel_expire(&wheel, due - 1));
            assert_ptr_equal(wheel_expire(&wheel, due + WHEEL_TICK_MS), &t);
            assert_null(wheel_expire(&wheel, due + WHEEL_TICK_MS));
            assert_false(list_linked(&t.node));
        }
    }
}

static void waits_more_than_a_round(void **state)
{
    struct wheel_timer t = { 0 };
    int64_t now = 5 * ROUND_MS + 17, due = now + 3 * ROUND_MS + 1000;
    wheel_init(&wheel, now);
    wheel_set(&wheel, &t, now, 3 * ROUND_MS + 1000);
    for (; now < due; now += 100)
        assert_null(wheel_expire(&wheel, now));
    assert_ptr_equal(wheel_expire(&wheel, due + WHEEL_TICK_MS), &t);
}

static void setting_again_replaces_and_clearing_forgets(void **state)
{
    struct wheel_timer a = { 0 }, b = { 0 }, never = { 0 };
    wheel_init(&wheel, 0);
    wheel_set(&wheel, &a, 0, 1000);
    wheel_set(&wheel, &a, 0, 5000);
    wheel_set(&wheel, &b, 0, 1000);
    wheel_clear(&b);
    wheel_clear(&b);
    wheel_clear(&never);
    assert_null(wheel_expire(&wheel, 4000));
    assert_ptr_equal(wheel_expire(&wheel, 5200), &a);
    assert_int_equal(wheel_next_ms(&wheel, 5200), -1);
}

static void a_timer_set_by_its_own_expiry_ends_the_loop(void **state)
{
    struct wheel_timer t = { 0 };
    unsigned fired = 0;
    wheel_init(&wheel, 0);
    wheel_set(&wheel, &t, 0, 0);
    for (int64_t now = 0; now <= 10 * WHEEL_TICK_MS; now += WHEEL_TICK_MS)
        while (wheel_expire(&wheel, now)) {
            wheel_set(&wheel, &t, now, 0);
            fired++;
        }
    assert_int_equal(fired, 10);
}

/* One that has expired but was not returned yet may still be cleared or set by another's expiry. */
static void expired_timers_can_be_changed_before_they_are_returned(void **state)
{
    struct wheel_timer t[3] = { 0 };
    wheel_init(&wheel, 0);
    for (unsigned i = 0; i < 3; i++)
        wheel_set(&wheel, &t[i], 0, 1000);
    assert_ptr_equal(wheel_expire(&wheel, 2000), &t[0]);
    assert_int_equal(wheel_next_ms(&wheel, 2000), 0);
    wheel_clear(&t[1]);
    wheel_set(&wheel, &t[2], 2000, 1000);
    assert_null(wheel_expire(&wheel, 2000));
    assert_ptr_equal(wheel_expire(&wheel, 3200), &t[2]);
}

static void time_that_stands_or_goes_back_is_harmless(void **state)
{
    struct wheel_timer t = { 0 };
    wheel_init(&wheel, 100000);
    wheel_set(&wheel, &t, 90000, 10);
    assert_null(wheel_expire(&wheel, 90000));
    assert_null(wheel_expire(&wheel, 100000));
    assert_ptr_equal(wheel_expire(&wheel, 100000 + WHEEL_TICK_MS), &t);
}

static void ticks_may_wrap(void **state)
{
    struct wheel_timer t = { 0 };
    int64_t now = ((int64_t)UINT32_MAX - 2) * WHEEL_TICK_MS;
    wheel_init(&wheel, now);
    wheel_set(&wheel, &t, now, 10 * WHEEL_TICK_MS);
    assert_int_equal(wheel_next_ms(&wheel, now), 10 * WHEEL_TICK_MS);
    assert_null(wheel_expire(&wheel, now + 9 * WHEEL_TICK_MS));
    assert_int_equal(wheel_next_ms(&wheel, now + 9 * WHEEL_TICK_MS), WHEEL_TICK_MS);
    assert_ptr_equal(wheel_expire(&wheel, now + 10 * WHEEL_TICK_MS), &t);
}

static void a_pause_of_hours_fires_everything_once(void **state)
{
    static struct item items[N_TIMERS];
    wheel_init(&wheel, 0);
    for (unsigned i = 0; i < N_TIMERS; i++)
        wheel_set(&wheel, &items[i].timer, 0, i * 997);
    unsigned fired = 0;
    while (wheel_expire(&wheel, 10 * 3600 * 1000))
        fired++;
    assert_int_equal(fired, N_TIMERS);
    assert_int_equal(wheel_next_ms(&wheel, 10 * 3600 * 1000), -1);
}

/* The next tick is no later than any deadline's, and asking for it never oversleeps. */
static void check_next(const struct item *items, int64_t now)
{
    int next = wheel_next_ms(&wheel, now);
    int64_t earliest = 0;
    for (unsigned i = 0; i < N_TIMERS; i++)
        if (items[i].deadline && (!earliest || items[i].deadline < earliest))
            earliest = items[i].deadline;
    if (!earliest)
        assert_int_equal(next, -1);
    else
        assert_true(next >= 0 && now + next <= earliest + WHEEL_TICK_MS);
}

static void behaves_like_an_array(void **state)
{
    static struct item items[N_TIMERS];
    uint64_t seed = 42;
    int64_t now = 123456789;
    wheel_init(&wheel, now);
    for (unsigned step = 0; step < 20000; step++) {
        struct item *item = &items[random_next(&seed) % N_TIMERS];
        uint32_t timeout = random_next(&seed) % (random_next(&seed) % 8 ? 3000 : 3 * ROUND_MS);
        if (random_next(&seed) % 5 == 0) {
            wheel_clear(&item->timer);
            item->deadline = 0;
        } else {
            wheel_set(&wheel, &item->timer, now, timeout);
            item->deadline = now + timeout;
        }
        check_next(items, now);
        now += (int64_t)(random_next(&seed) % (random_next(&seed) % 500 ? 60 : 2 * ROUND_MS));
        for (struct wheel_timer *t; (t = wheel_expire(&wheel, now));) {
            struct item *fired = list_entry(&t->node, struct item, timer.node);
            assert_true(fired->deadline && fired->deadline <= now);
            fired->deadline = 0;
        }
        for (unsigned i = 0; i < N_TIMERS; i++)
            assert_true(!items[i].deadline || items[i].deadline + WHEEL_TICK_MS > now);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fires_at_the_time_or_up_to_a_tick_later),
        cmocka_unit_test(waits_more_than_a_round),
        cmocka_unit_test(setting_again_replaces_and_clearing_forgets),
        cmocka_unit_test(a_timer_set_by_its_own_expiry_ends_the_loop),
        cmocka_unit_test(expired_timers_can_be_changed_before_they_are_returned),
        cmocka_unit_test(time_that_stands_or_goes_back_is_harmless),
        cmocka_unit_test(ticks_may_wrap),
        cmocka_unit_test(a_pause_of_hours_fires_everything_once),
        cmocka_unit_test(behaves_like_an_array),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
