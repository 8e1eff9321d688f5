/* The index of newest records, one bucket at a time: what it keeps, what it forgets and still
 * knows, and every state in which a writer may die in it. */
#include "layout.h"
#include "log.h"
#include "seed.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#define BUCKET 5u /* hashes below fall into this one */

static uint64_t hash_of(uint64_t n)
{
    return n << 32 | BUCKET;
}

static int setup(void **state)
{
    struct log *log = NULL;
    if (log_create(0, &log) < 0)
        return -1;
    *state = log;
    return 0;
}

static int teardown(void **state)
{
    log_close(*state);
    return 0;
}

static void assert_at(const struct log *log, uint64_t n, uint64_t off, bool exact)
{
    const struct log_at at = log_index_get(log, hash_of(n)), own = log_index_own(log, hash_of(n));
    assert_int_equal(at.off, off);
    assert_int_equal(at.exact, exact);
    assert_int_equal(own.off, off);
    assert_int_equal(own.exact, exact);
}

static void what_was_never_put_has_nothing_after_0(void **state)
{
    assert_at(*state, 1, 0, false);
}

static void the_newest_offset_is_kept(void **state)
{
    log_index_put(*state, hash_of(1), 100);
    assert_at(*state, 1, 100, true);
    log_index_put(*state, hash_of(1), 200);
    assert_at(*state, 1, 200, true);
    assert_at(*state, 2, 0, false);
}

static void the_quietest_leaves_and_raises_the_floor(void **state)
{
    for (uint64_t n = 1; n <= LOG_BUCKET_ENTRIES; n++)
        log_index_put(*state, hash_of(n), 100 * n);
    log_index_put(*state, hash_of(1), 400); /* 2 is the quietest now */
    log_index_put(*state, hash_of(9), 500);
    assert_at(*state, 1, 400, true);
    assert_at(*state, 2, 200, false); /* the floor: nothing of it after 200 */
    assert_at(*state, 3, 300, true);
    assert_at(*state, 9, 500, true);
    log_index_put(*state, hash_of(2), 600); /* evicts 3 */
    assert_at(*state, 3, 300, false);
    assert_at(*state, 7, 300, false);
    assert_at(*state, 2, 600, true);
}

static void buckets_are_apart(void **state)
{
    struct log *log = *state;
    for (uint64_t n = 1; n < 100; n++)
        log_index_put(log, hash_of(n), n);
    const struct log_at at = log_index_get(log, hash_of(1) + 1);
    assert_int_equal(at.off, 0);
    assert_false(at.exact);
}

/* Against a plain model: for each hash the newest offset; never less than it is told. */
static void random_puts_tell_the_truth(void **state)
{
    struct log *log = *state;
    uint64_t newest[64] = { 0 }, random = mix(test_seed());
    const uint64_t n_puts = test_long() ? 10000000 : 100000;
    for (uint64_t off = 1; off < n_puts; off++) {
        const uint64_t n = random_below(&random, random_below(&random, 2) ? 3 : 64);
        log_index_put(log, hash_of(n), off);
        newest[n] = off;
        assert_at(log, n, off, true);
        const uint64_t other = random_below(&random, 64);
        const struct log_at at = log_index_get(log, hash_of(other));
        if (at.exact)
            assert_int_equal(at.off, newest[other]);
        else
            assert_true(at.off >= newest[other]);
    }
}

/* Whoever waits for a dead writer gives up: unknown. */
static void a_half_written_bucket_is_unknown(void **state)
{
    struct log *log = *state;
    log_index_put(log, hash_of(1), 100);
    atomic_fetch_add(&log_bucket_of(log, BUCKET)->seq, 1);
    const struct log_at at = log_index_get(log, hash_of(1));
    assert_int_equal(at.off, UINT64_MAX);
    assert_false(at.exact);
    const struct log_at fine = log_index_get(log, hash_of(1) + 1);
    assert_int_equal(fine.off, 0);
}

/* The stores of a replacement, done up to `steps` of them by hand: 4 (off 1000) replaces 1 (100).
 */
static void die_in_replacement(struct log *log, int steps)
{
    struct log_bucket *bucket = log_bucket_of(log, BUCKET);
    for (uint64_t n = 1; n <= LOG_BUCKET_ENTRIES; n++)
        log_index_put(log, hash_of(n), 100 * n);
    atomic_fetch_add(&bucket->seq, 1);
    if (steps > 0)
        atomic_store(&bucket->floor, 100);
    if (steps > 1)
        atomic_store(&bucket->entries[0].last, 1000);
    if (steps > 2)
        atomic_store(&bucket->entries[0].hash, hash_of(4));
}

static void a_repaired_bucket_is_as_if_nobody_died(void **state)
{
    for (int steps = 0; steps <= 3; steps++) {
        struct log *log = NULL;
        assert_int_equal(log_create(0, &log), 0);
        die_in_replacement(log, steps);
        log_index_repair(log, 1000);
        log_index_put(log, hash_of(4), 1000); /* as recovery does */
        assert_at(log, 4, 1000, true);
        assert_at(log, 1, 100, false);
        assert_at(log, 2, 200, true);
        assert_at(log, 3, 300, true);
        assert_int_equal(atomic_load(&log_bucket_of(log, BUCKET)->seq) % 2, 0);
        log_close(log);
    }
}

/* The repairer dies as well: between freeing the entry and clearing its offset, and before. */
static void a_repair_can_be_repaired(void **state)
{
    for (int steps = 0; steps < 3; steps++) {
        struct log *log = NULL;
        assert_int_equal(log_create(0, &log), 0);
        struct log_bucket *bucket = log_bucket_of(log, BUCKET);
        die_in_replacement(log, 3);
        if (steps > 0)
            atomic_store(&bucket->entries[0].hash, 0);
        if (steps > 1)
            atomic_store(&bucket->entries[0].last, 0);
        log_index_repair(log, 1000);
        assert_at(log, 1, 100, false);
        assert_at(log, 4, 100, false);
        assert_at(log, 2, 200, true);
        log_index_put(log, hash_of(4), 1000);
        assert_at(log, 4, 1000, true);
        assert_at(log, 3, 300, true);
        log_close(log);
    }
}

static void repair_leaves_whole_buckets_alone(void **state)
{
    struct log *log = *state;
    log_index_put(log, hash_of(1), 5000);
    log_index_repair(log, 1000);
    assert_at(log, 1, 5000, true);
}

static void no_channel_has_the_hash_of_a_free_entry(void **state)
{
    struct log *log = *state;
    char name[24];
    for (unsigned i = 0; i < 100000; i++) {
        const int len = snprintf(name, sizeof(name), "%u", i);
        assert_int_not_equal(log_hash(log, name, (size_t)len), 0);
    }
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(what_was_never_put_has_nothing_after_0),
        TEST(the_newest_offset_is_kept),
        TEST(the_quietest_leaves_and_raises_the_floor),
        TEST(buckets_are_apart),
        TEST(random_puts_tell_the_truth),
        TEST(a_half_written_bucket_is_unknown),
        TEST(a_repaired_bucket_is_as_if_nobody_died),
        TEST(a_repair_can_be_repaired),
        TEST(repair_leaves_whole_buckets_alone),
        TEST(no_channel_has_the_hash_of_a_free_entry),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
