/* Appending and reading: every size, every alignment, the end of the ring, the checks themselves.
 */
#include "layout.h"
#include "log.h"
#include "seed.h"

#include <setjmp.h>
#include <stdalign.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

static struct log *create(uint64_t size)
{
    struct log *log = NULL;
    assert_int_equal(log_create(size, &log), 0);
    return log;
}

static void assert_sound(const struct log *log)
{
    char why[160] = "";
    if (log_check(log, why, sizeof(why)) < 0)
        fail_msg("%s", why);
}

static uint64_t append(struct log *log, const char *channel, const void *data, size_t len)
{
    return log_append(log, &(struct log_event){ .channel = channel,
                                                .channel_len = strlen(channel),
                                                .data = data,
                                                .len = len });
}

static uint64_t append_text(struct log *log, const char *channel, const char *text)
{
    return append(log, channel, text, strlen(text));
}

/* Reads a record that must be there; the body in *ret_buf, owned. */
static struct log_record read_whole(const struct log *log, uint64_t off, void **ret_buf)
{
    struct log_record record;
    assert_int_equal(log_peek(log, off, &record), 1);
    assert_int_equal(record.off, off);
    *ret_buf = malloc(log_body_size(&record));
    assert_non_null(*ret_buf);
    assert_int_equal(log_body(log, &record, *ret_buf), 1);
    return record;
}

/* ---- one record ---- */

static void every_field_comes_back(void **state)
{
    struct log *log = create(0);
    const struct log_event event = {
        .channel = "todos",
        .channel_len = 5,
        .meta = "{\"key\":1}",
        .meta_len = 9,
        .data = "payload",
        .len = 7,
        .time_ms = 1795334400123,
        .pos = { 0x16B3748, 2 },
        .xid = 7413,
        .kind = RECORD_GAP,
        .history = true,
    };
    void *buf;
    const uint64_t off = log_append(log, &event);
    const struct log_record record = read_whole(log, off, &buf);
    assert_int_equal(record.next, log_indexed(log));
    assert_int_equal(record.hash, log_hash(log, "todos", 5));
    assert_int_equal(record.time_ms, 1795334400123);
    assert_int_equal(record.pos[0], 0x16B3748);
    assert_int_equal(record.pos[1], 2);
    assert_int_equal(record.xid, 7413);
    assert_int_equal(record.kind, RECORD_GAP);
    assert_true(record.history);
    assert_int_equal(record.channel_len, 5);
    assert_int_equal(record.meta_len, 9);
    assert_int_equal(record.len, 7);
    assert_string_equal(record.channel, "todos");
    assert_string_equal(record.meta, "{\"key\":1}");
    assert_string_equal((const char *)record.data, "payload");
    free(buf);
    assert_sound(log);
    log_close(log);
}

static void all_kinds_and_flags_come_back(void **state)
{
    struct log *log = create(0);
    for (int kind = RECORD_MESSAGE; kind < RECORD_PAD; kind++)
        for (int history = 0; history < 2; history++) {
            struct log_record record;
            const struct log_event event = { .channel = "", .kind = kind, .history = history };
            assert_int_equal(log_peek(log, log_append(log, &event), &record), 1);
            assert_int_equal(record.kind, kind);
            assert_int_equal(record.history, history);
        }
    assert_sound(log);
    log_close(log);
}

/* Channel, meta and payload of all lengths around the 8-byte words, from unaligned memory. */
static void every_alignment_comes_back(void **state)
{
    struct log *log = create(1 << 20);
    static const char text[] = "0123456789abcdefghijklmnopqrstuvwxyz";
    for (size_t a = 0; a < 18; a++)
        for (size_t b = 0; b < 18; b++)
            for (size_t c = 0; c < 18; c++) {
                void *buf;
                const struct log_event event = { .channel = text + 1,
                                                 .channel_len = a,
                                                 .meta = text + 2,
                                                 .meta_len = b,
                                                 .data = text + 3,
                                                 .len = c };
                const struct log_record record = read_whole(log, log_append(log, &event), &buf);
                assert_memory_equal(record.channel, text + 1, a);
                assert_memory_equal(record.meta, text + 2, b);
                assert_memory_equal(record.data, text + 3, c);
                assert_int_equal(record.channel[a] | record.meta[b] | record.data[c], 0);
                assert_int_equal(log_body_size(&record) % 8, 0);
                free(buf);
            }
    assert_sound(log);
    log_close(log);
}

static void nothing_at_all_is_an_event(void **state)
{
    struct log *log = create(0);
    void *buf;
    const struct log_record record =
        read_whole(log, log_append(log, &(struct log_event){ .channel = NULL }), &buf);
    assert_int_equal(record.len, 0);
    assert_string_equal(record.channel, "");
    assert_string_equal(record.meta, "");
    assert_string_equal((const char *)record.data, "");
    free(buf);
    log_close(log);
}

static void the_largest_event_fits_and_no_larger(void **state)
{
    struct log *log = create(0);
    const size_t max = log_event_max(log);
    uint8_t *data = malloc(max + 1), *copy;
    void *buf;
    assert_non_null(data);
    for (size_t i = 0; i <= max; i++)
        data[i] = (uint8_t)(i * 7);
    for (int round = 0; round < 100; round++) {
        const struct log_record record = read_whole(log, append(log, "c", data, max - 1), &buf);
        copy = (uint8_t *)record.data;
        assert_memory_equal(copy, data, max - 1);
        free(buf);
        assert_int_equal(append(log, "c", data, max), 0);
        assert_sound(log);
    }
    assert_int_equal(append(log, "", data, max + 1), 0);
    assert_int_not_equal(append(log, "", data, max), 0);
    free(data);
    log_close(log);
}

static void absurd_lengths_are_refused(void **state)
{
    struct log *log = create(1 << 22);
    const uint64_t head = log_head(log);
    struct log_event event = { .channel = "c", .channel_len = 1, .data = "", .len = SIZE_MAX };
    assert_int_equal(log_append(log, &event), 0);
    event.len = SIZE_MAX - 1;
    assert_int_equal(log_append(log, &event), 0);
    event = (struct log_event){ .channel = "c", .channel_len = UINT16_MAX + 1 };
    assert_int_equal(log_append(log, &event), 0);
    event = (struct log_event){ .meta = "c", .meta_len = UINT16_MAX + 1 };
    assert_int_equal(log_append(log, &event), 0);
    assert_int_equal(log_head(log), head);
    log_close(log);
}

static void links_point_to_the_channels_previous_record(void **state)
{
    struct log *log = create(0);
    struct log_record record;
    const uint64_t a1 = append_text(log, "a", "1"), b1 = append_text(log, "b", "1");
    const uint64_t a2 = append_text(log, "a", "2"), b2 = append_text(log, "b", "2");
    assert_int_equal(log_peek(log, a2, &record), 1);
    assert_int_equal(record.prev, a1);
    assert_true(record.prev_exact);
    assert_int_equal(log_peek(log, b2, &record), 1);
    assert_int_equal(record.prev, b1);
    assert_int_equal(log_peek(log, a1, &record), 1);
    assert_int_equal(record.prev, 0); /* nothing after 0: nothing at all */
    log_close(log);
}

/* ---- the ring ---- */

/* All remainders at the end of the ring: none, one too short for a PAD, one that is just a PAD. */
static void the_end_of_the_ring_is_filled(void **state)
{
    struct log *log = create(0);
    const uint64_t size = log_size(log);
    static const char zeros[1024];
    for (size_t rest = 0; rest <= 400; rest += 8) {
        while (size - log_head(log) % size > 2000)
            assert_int_not_equal(append(log, "c", zeros, 500), 0);
        const size_t head_and_name = sizeof(struct log_record_head) + 1 + LOG_BODY_NULS;
        size_t left = size - log_head(log) % size - rest;
        while (left > 1000) {
            (void)append(log, "c", zeros, 500 - 500 % 8 - head_and_name % 8);
            left = size - log_head(log) % size - rest;
        }
        assert_int_not_equal(append(log, "c", zeros, left - head_and_name), 0);
        const uint64_t end = log_head(log);
        assert_int_equal(end % size, rest < sizeof(struct log_record_head) ? 0 : size - rest);

        struct log_record record;
        const uint64_t off = append(log, "c", zeros, 400);
        assert_int_equal(off % size, 0);
        assert_true(off - end < rest + 8);
        if (off != end) {
            assert_int_equal(log_peek(log, end, &record), 1);
            assert_int_equal(record.kind, RECORD_PAD);
            assert_int_equal(record.next, off);
        }
        assert_sound(log);
    }
    log_close(log);
}

static void overwritten_records_are_lapped(void **state)
{
    struct log *log = create(0);
    struct log_record record;
    uint64_t buf[16];
    const uint64_t first = append_text(log, "c", "first");
    assert_int_equal(log_peek(log, first, &record), 1);
    while (log_tail(log) == first)
        assert_int_not_equal(append_text(log, "c", "more"), 0);
    assert_int_equal(log_body(log, &record, buf), 0);
    assert_int_equal(log_peek(log, first, &record), 0);
    assert_int_equal(log_peek(log, log_tail(log), &record), 1);
    log_close(log);
}

/* Room is given up by 1/64 of the ring, not by the record: readers at the end are lapped rarely. */
static void room_is_made_in_steps(void **state)
{
    struct log *log = create(0);
    uint64_t steps = 0, appended = 0, tail = log_tail(log);
    while (log_head(log) < 100 * log_size(log)) {
        (void)append_text(log, "c", "some text of no importance");
        appended++;
        if (log_tail(log) != tail) {
            steps++;
            assert_true(log_tail(log) - tail >= log_size(log) / 64);
            assert_true(log_tail(log) - tail < log_size(log) / 32);
        }
        tail = log_tail(log);
    }
    assert_true(steps * 5 < appended);
    assert_sound(log);
    log_close(log);
}

static void whatever_is_no_record_is_not_read(void **state)
{
    struct log *log = create(0);
    struct log_record record;
    const uint64_t off = append_text(log, "c", "text");
    const uint64_t size = log_size(log);
    assert_int_equal(log_peek(log, off + 8, &record), 0);
    assert_int_equal(log_peek(log, off + 1, &record), 0);
    assert_int_equal(log_peek(log, off - 8, &record), 0);
    assert_int_equal(log_peek(log, off + size, &record), 0);
    assert_int_equal(log_peek(log, 0, &record), 0);
    assert_int_equal(log_peek(log, UINT64_MAX, &record), 0);
    assert_int_equal(log_peek(log, UINT64_MAX - 7, &record), 0);
    assert_int_equal(log_peek(log, 2 * size - 8, &record), 0);
    log_close(log);
}

/* ---- random ---- */

static void random_appends_keep_the_invariants(void **state)
{
    uint64_t random = mix(test_seed());
    const int rounds = test_long() ? 400 : 40;
    for (int round = 0; round < rounds; round++) {
        struct log *log = create(LOG_SIZE_MIN << round % 3);
        static const char zeros[1 << 14];
        const uint64_t n_channels = 1 + random_below(&random, round % 2 ? 8 : 5000);
        uint64_t position = 0;
        log_set_identity(log, 1);
        for (int i = 0; i < 5000; i++) {
            char name[24];
            position += random_below(&random, 3);
            const int name_len =
                snprintf(name, sizeof(name), "c%u", (unsigned)random_below(&random, n_channels));
            const struct log_event event = {
                .channel = name,
                .channel_len = (size_t)name_len,
                .data = zeros,
                .len = random_below(&random, random_below(&random, 32) ? 200 : 4000),
                .pos = { position, 1 },
            };
            assert_int_not_equal(log_append(log, &event), 0);
            if (random_below(&random, 500) == 0)
                assert_sound(log);
        }
        assert_sound(log);
        log_recover(log); /* of a log that is in order: changes nothing */
        assert_sound(log);
        log_close(log);
    }
}

/* A reader of a log that is garbage stays inside its mapping and comes to an end. */
static void a_broken_ring_leads_nowhere(void **state)
{
    uint64_t random = mix(test_seed()), out[64], pos[2] = { 50, 0 }, at;
    const int rounds = test_long() ? 20000 : 500;
    struct log *log = create(0);
    const size_t words = log_size(log) / 8;
    void *buf = malloc(log_size(log));
    assert_non_null(buf);
    for (int round = 0; round < rounds; round++) {
        const struct log_channel c = { log_hash(log, "c", 1), "c", 1 };
        for (int i = 0; i < 60; i++)
            (void)log_append(log, &(struct log_event){ .channel = "c",
                                                       .channel_len = 1,
                                                       .pos = { (uint64_t)round * 60 + i, 1 } });
        const uint64_t tail = log_tail(log), end = log_indexed(log);
        uint64_t saved[8], places[8];
        for (int i = 0; i < 8; i++) {
            places[i] = random_below(&random, words);
            saved[i] = atomic_load(&log->ring[places[i]]);
            atomic_store(&log->ring[places[i]], i % 2
                                                    ? random_next(&random)
                                                    : saved[i] ^ 1ull << random_below(&random, 64));
        }
        struct log_record record;
        for (uint64_t off = tail; off < end && log_peek(log, off, &record); off = record.next)
            if (record.kind != RECORD_PAD)
                (void)log_body(log, &record, buf);
        (void)log_walk(log, &c, tail, end, out, 64);
        (void)log_last(log, &c, end, 64, out);
        (void)log_seek(log, tail + random_below(&random, end - tail), &at);
        (void)log_seek_position(log, pos, &at);
        (void)log_oldest_time_ms(log);
        for (int i = 7; i >= 0; i--)
            atomic_store(&log->ring[places[i]], saved[i]);
    }
    assert_sound(log);
    free(buf);
    log_close(log);
}

/* ---- the header ---- */

static void the_header_words_are_kept(void **state)
{
    struct log *log = create(0);
    log_set_beat(log, INT64_MIN);
    assert_int_equal(log_beat(log), INT64_MIN);
    log_set_up(log, true);
    assert_true(log_up(log));
    log_set_up(log, false);
    assert_false(log_up(log));
    log_set_identity(log, UINT64_MAX);
    assert_int_equal(log_identity(log), UINT64_MAX);
    assert_false(log_used(log));
    (void)append_text(log, "", "");
    assert_true(log_used(log));
    log_close(log);
}

static void the_oldest_time_is_the_oldest_records(void **state)
{
    struct log *log = create(0);
    for (int64_t i = 1; i < 5000; i++) {
        (void)log_append(log,
                         &(struct log_event){ .channel = "c", .channel_len = 1, .time_ms = i });
        struct log_record record;
        uint64_t off = log_tail(log);
        while (log_peek(log, off, &record) && record.kind == RECORD_PAD)
            off = record.next;
        assert_int_equal(log_oldest_time_ms(log), record.time_ms);
    }
    log_close(log);
}

/* ---- log_check() itself ---- */

static void assert_unsound(const struct log *log, const char *what)
{
    char why[160] = "";
    assert_int_not_equal(log_check(log, why, sizeof(why)), 0);
    if (!strstr(why, what))
        fail_msg("\"%s\" does not tell of %s", why, what);
    assert_int_not_equal(log_check(log, NULL, 0), 0);
}

static struct log *create_used(void)
{
    struct log *log = create(0);
    static const char *const names[] = { "a", "b", "c", "d" };
    log_set_identity(log, 9);
    for (uint64_t i = 0; i < 3000; i++)
        assert_int_not_equal(log_append(log, &(struct log_event){ .channel = names[i % 4],
                                                                  .channel_len = 1,
                                                                  .pos = { i + 1, 0 } }),
                             0);
    assert_sound(log);
    return log;
}

static void set_word(struct log *log, uint64_t off, size_t field, uint64_t value)
{
    atomic_store(log_words(log, off) + field / 8, value);
}

static void the_check_finds_what_is_wrong(void **state)
{
    struct log *log = create_used();
    struct log_record record;
    assert_int_equal(log_peek(log, log_tail(log), &record), 1);
    const uint64_t second = record.next;
    const struct log_record_head head = log_record_head_at(log, second);

    set_word(log, second, offsetof(struct log_record_head, off), second + 8);
    assert_unsound(log, "I2");
    set_word(log, second, offsetof(struct log_record_head, off), second);
    set_word(log, second, offsetof(struct log_record_head, prev), second - 8);
    assert_unsound(log, "I6");
    set_word(log, second, offsetof(struct log_record_head, prev), head.prev);
    set_word(log, second, offsetof(struct log_record_head, pos), head.pos[0] - 100);
    assert_unsound(log, "I7");
    set_word(log, second, offsetof(struct log_record_head, pos), head.pos[0]);
    assert_sound(log);

    const uint64_t hash = log_hash(log, "a", 1);
    const uint64_t last = log_index_own(log, hash).off;
    log_index_put(log, hash, last - 8);
    assert_unsound(log, "I5");
    log_index_put(log, hash, log_head(log));
    assert_unsound(log, "I5");
    log_index_put(log, hash, last);
    assert_sound(log);

    atomic_fetch_add(&log_bucket_of(log, hash)->seq, 1);
    assert_unsound(log, "half written");
    atomic_fetch_add(&log_bucket_of(log, hash)->seq, 1);
    atomic_fetch_add(&log->marks[(second >> log->mark_shift) % LOG_MARKS].seq, 1);
    assert_unsound(log, "mark");
    atomic_fetch_add(&log->marks[(second >> log->mark_shift) % LOG_MARKS].seq, 1);
    assert_sound(log);

    const uint64_t tail = log_tail(log), indexed = log_indexed(log);
    atomic_store(&log->header->indexed, indexed - 8);
    assert_unsound(log, "indexed");
    atomic_store(&log->header->indexed, indexed);
    atomic_store(&log->header->tail, tail - log_size(log));
    assert_unsound(log, "I3");
    atomic_store(&log->header->tail, tail + 8);
    assert_unsound(log, "I2");
    atomic_store(&log->header->tail, tail);
    assert_sound(log);
    log_close(log);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_field_comes_back),
        cmocka_unit_test(all_kinds_and_flags_come_back),
        cmocka_unit_test(every_alignment_comes_back),
        cmocka_unit_test(nothing_at_all_is_an_event),
        cmocka_unit_test(the_largest_event_fits_and_no_larger),
        cmocka_unit_test(absurd_lengths_are_refused),
        cmocka_unit_test(links_point_to_the_channels_previous_record),
        cmocka_unit_test(the_end_of_the_ring_is_filled),
        cmocka_unit_test(overwritten_records_are_lapped),
        cmocka_unit_test(room_is_made_in_steps),
        cmocka_unit_test(whatever_is_no_record_is_not_read),
        cmocka_unit_test(random_appends_keep_the_invariants),
        cmocka_unit_test(a_broken_ring_leads_nowhere),
        cmocka_unit_test(the_header_words_are_kept),
        cmocka_unit_test(the_oldest_time_is_the_oldest_records),
        cmocka_unit_test(the_check_finds_what_is_wrong),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
