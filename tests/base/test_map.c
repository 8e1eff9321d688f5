/* The hash table against a plain array, with hashes that collide much and ones that never do. */
#include "map.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#define N_ITEMS 2000

struct item {
    uint32_t key;
    bool in;
};

static bool equal(const void *value, const void *key, size_t len)
{
    const struct item *item = value;
    return len == sizeof(item->key) && memcmp(&item->key, key, len) == 0;
}

static uint64_t random_next(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

static uint64_t hash_one(uint32_t key)
{
    return 42;
}

static uint64_t hash_few(uint32_t key)
{
    return key % 7;
}

static uint64_t hash_high(uint32_t key)
{
    return (uint64_t)key << 48;
}

static uint64_t hash_good(uint32_t key)
{
    uint64_t x = key + 1;
    return random_next(&x) * 0x2545F4914F6CDD1D;
}

static void check_all(const struct map *m, struct item *items, size_t n, uint64_t (*hash)(uint32_t))
{
    size_t count = 0, seen = 0, at = 0;
    for (size_t i = 0; i < n; i++) {
        void *found = map_get(m, hash(items[i].key), equal, &items[i].key, sizeof(items[i].key));
        assert_ptr_equal(found, items[i].in ? &items[i] : NULL);
        count += items[i].in;
    }
    for (struct item *item; (item = map_next(m, &at)); seen++)
        assert_true(item->in);
    assert_int_equal(seen, count);
    assert_int_equal(m->count, count);
}

static void run_model(size_t n, uint64_t (*hash)(uint32_t), unsigned rounds)
{
    static struct item items[N_ITEMS];
    struct map m = { 0 };
    uint64_t seed = 88172645463325252u;
    for (size_t i = 0; i < n; i++)
        items[i] = (struct item){ .key = (uint32_t)i };
    for (unsigned round = 0; round < rounds; round++) {
        /* fuller and emptier in turns, so that it grows and shrinks */
        bool filling = round / (rounds / 4) % 2 == 0;
        struct item *item = &items[random_next(&seed) % n];
        if (!item->in && (filling || random_next(&seed) % 4 == 0)) {
            assert_int_equal(map_put(&m, hash(item->key), item), 0);
            item->in = true;
        } else if (item->in && (!filling || random_next(&seed) % 4 == 0)) {
            assert_true(map_remove(&m, hash(item->key), item));
            assert_false(map_remove(&m, hash(item->key), item));
            item->in = false;
        }
        if (round % (rounds / 40) == 0)
            check_all(&m, items, n, hash);
    }
    check_all(&m, items, n, hash);
    map_done(&m);
    assert_int_equal(m.count, 0);
    assert_null(m.entries);
}

static void behaves_like_an_array(void **state)
{
    run_model(N_ITEMS, hash_good, 40000);
    run_model(N_ITEMS, hash_high, 40000);
}

static void behaves_when_hashes_collide(void **state)
{
    run_model(100, hash_one, 4000);
    run_model(300, hash_few, 8000);
}

static void an_empty_map_answers(void **state)
{
    struct map m = { 0 };
    size_t at = 0;
    uint32_t key = 1;
    assert_null(map_get(&m, 1, equal, &key, sizeof(key)));
    assert_false(map_remove(&m, 1, &key));
    assert_null(map_next(&m, &at));
    map_done(&m);
}

static void shrinks_when_a_crowd_has_left(void **state)
{
    static struct item items[N_ITEMS];
    struct map m = { 0 };
    for (uint32_t i = 0; i < N_ITEMS; i++) {
        items[i].key = i;
        assert_int_equal(map_put(&m, hash_good(i), &items[i]), 0);
    }
    size_t full = m.cap;
    for (uint32_t i = 0; i < N_ITEMS - 1; i++)
        assert_true(map_remove(&m, hash_good(i), &items[i]));
    assert_true(m.cap <= full / 64);
    map_done(&m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(behaves_like_an_array),
        cmocka_unit_test(behaves_when_hashes_collide),
        cmocka_unit_test(an_empty_map_answers),
        cmocka_unit_test(shrinks_when_a_crowd_has_left),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
