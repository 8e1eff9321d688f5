/* Arena and feeds: eviction, `gone`, finding a cursor's place; walkers under churn. */
#include "channel.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct frame frame_at(struct feed *feed, uint64_t off, uint32_t len)
{
    return (struct frame){ .off = off, .next = off + 8, .feed = feed, .len = len };
}

static void add(struct arena *arena, struct feed *feed, uint64_t off, uint32_t len)
{
    uint8_t *data = malloc(len);
    memset(data, (int)(off % 251), len);
    struct frame frame = frame_at(feed, off, len);
    assert_int_equal(feed_add(arena, feed, &frame, data), 0);
    free(data);
}

static void check_bytes(const struct arena *arena, const struct feed *feed)
{
    uint64_t last = 0;
    for (uint32_t i = 0; i < feed->count; i++) {
        const struct frame *frame = arena_frame(arena, feed_seq(feed, i));
        assert_ptr_equal(frame->feed, feed);
        assert_true(frame->off > last);
        assert_true(frame->off >= feed->gone || frame->next > feed->gone);
        last = frame->off;
        const uint8_t *bytes = arena_bytes(arena, frame);
        for (uint32_t k = 0; k < frame->len; k += 97)
            assert_int_equal(bytes[k], frame->off % 251);
    }
}

static void test_frames_come_back(void **state)
{
    (void)state;
    struct arena arena;
    struct channel channel = { 0 };
    assert_int_equal(arena_init(&arena), 0);
    struct feed *feed = channel_feed(&channel, FORMAT_WS_BARE, 1000);
    assert_int_equal(feed->gone, 1000);
    for (uint64_t off = 1000; off < 2000; off += 8)
        add(&arena, feed, off, 40);
    assert_int_equal(feed->count, 125);
    assert_int_equal(feed->newest, 2000);
    assert_int_equal(feed_find(&arena, feed, 0), 0);
    assert_int_equal(feed_find(&arena, feed, 1001), 1);
    assert_int_equal(feed_find(&arena, feed, 1992), 124);
    assert_int_equal(feed_find(&arena, feed, 2000), 125);
    check_bytes(&arena, feed);
    feed_free(&arena, &channel, FORMAT_WS_BARE);
    arena_done(&arena);
}

/* Frames of random sizes in several feeds, many times the arena: the oldest go, `gone` says so. */
static void test_eviction(void **state)
{
    (void)state;
    struct arena arena;
    struct channel channels[3] = { 0 };
    assert_int_equal(arena_init(&arena), 0);
    srand(7);
    for (uint64_t off = 8; off < 8 * 30000; off += 8) {
        struct feed *feed = channel_feed(&channels[rand() % 3], FORMAT_WS_JSON, off);
        uint32_t len = rand() % 50 == 0 ? ARENA_FRAME_MAX + 1 + (uint32_t)rand() % 5000
                                        : 1 + (uint32_t)rand() % 3000;
        add(&arena, feed, off, len);
        if (off % 800 == 0) {
            for (int i = 0; i < 3; i++) {
                if (channels[i].feeds[FORMAT_WS_JSON])
                    check_bytes(&arena, channels[i].feeds[FORMAT_WS_JSON]);
            }
        }
        if (rand() % 2000 == 0)
            feed_free(&arena, &channels[rand() % 3], FORMAT_WS_JSON);
    }
    for (int i = 0; i < 3; i++) {
        struct feed *feed = channels[i].feeds[FORMAT_WS_JSON];
        if (feed && feed->count)
            assert_true(arena_frame(&arena, feed_seq(feed, 0))->off >= feed->gone);
        feed_free(&arena, &channels[i], FORMAT_WS_JSON);
    }
    arena_done(&arena);
}

/* More frames than the table holds, each of one byte. */
static void test_frame_table_wraps(void **state)
{
    (void)state;
    struct arena arena;
    struct channel channel = { 0 };
    assert_int_equal(arena_init(&arena), 0);
    struct feed *feed = channel_feed(&channel, FORMAT_SSE_BARE, 8);
    for (uint64_t off = 8; off < 8 * (ARENA_FRAMES + 1000ull); off += 8)
        add(&arena, feed, off, 1);
    assert_int_equal(feed->count, ARENA_FRAMES);
    assert_true(feed->gone > 8);
    assert_int_equal(arena_frame(&arena, feed_seq(feed, 0))->off, feed->gone);
    check_bytes(&arena, feed);
    feed_free(&arena, &channel, FORMAT_SSE_BARE);
    arena_done(&arena);
}

/* A walker visits everyone at least once per round, whoever leaves meanwhile. */
static void test_walker_misses_nobody(void **state)
{
    (void)state;
    struct list dirty;
    list_init(&dirty);
    srand(11);
    for (int round = 0; round < 500; round++) {
        struct walker walker = { 0 };
        list_init(&walker.dirty);
        struct sub subs[64] = { 0 };
        bool visited[64] = { false }, left[64] = { false };
        struct sub_set set = { 0 };
        uint32_t n = 1 + (uint32_t)rand() % 64;
        for (uint32_t i = 0; i < n; i++)
            assert_int_equal(sub_set_add(&set, &subs[i]), 0);
        walker.at = (uint32_t)rand() % 70;
        walker_start(&walker, &dirty, set.count);
        int64_t at;
        while ((at = walker_next(&walker, set.count)) >= 0) {
            visited[set.items[at] - subs] = true;
            if (rand() % 4 == 0 && set.count > 1) {
                struct sub *gone = set.items[(uint32_t)rand() % set.count];
                left[gone - subs] = true;
                sub_set_remove(&set, gone);
                walker_disturbed(&walker, set.count);
            }
        }
        assert_true(list_empty(&dirty));
        for (uint32_t i = 0; i < n; i++)
            assert_true(visited[i] || left[i]);
        sub_set_done(&set);
    }
}

static void test_sub_set(void **state)
{
    (void)state;
    struct sub subs[200] = { 0 };
    struct sub_set set = { 0 };
    for (int i = 0; i < 200; i++)
        assert_int_equal(sub_set_add(&set, &subs[i]), 0);
    for (int i = 0; i < 200; i += 2)
        sub_set_remove(&set, &subs[i]);
    assert_int_equal(set.count, 100);
    for (uint32_t i = 0; i < set.count; i++)
        assert_int_equal(set.items[i]->slot, i);
    for (int i = 1; i < 200; i += 2)
        sub_set_remove(&set, &subs[i]);
    assert_null(set.items);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_frames_come_back),  cmocka_unit_test(test_eviction),
        cmocka_unit_test(test_frame_table_wraps), cmocka_unit_test(test_walker_misses_nobody),
        cmocka_unit_test(test_sub_set),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
