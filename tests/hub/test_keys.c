/* The keys that the log holds: found as long as their records stand, and again by a new writer. */
#include "keys.h"

#include "control.h"
#include "meta.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

struct fixture {
    struct log *log;
    struct keys keys;
};

static void begin(struct fixture *f)
{
    assert_int_equal(log_create(LOG_SIZE_MIN, &f->log), 0);
    keys_init(&f->keys, f->log);
}

static void end(struct fixture *f)
{
    keys_done(&f->keys);
    log_close(f->log);
}

static uint64_t append(struct fixture *f, const char *channel, const char *key)
{
    char meta[META_MAX];
    struct log_event event = { .channel = channel,
                               .channel_len = strlen(channel),
                               .meta = meta,
                               .meta_len = meta_encode(meta, key, "someone"),
                               .data = "payload",
                               .len = 7,
                               .kind = RECORD_MESSAGE };
    uint64_t off = log_append(f->log, &event);
    assert_true(off > 0);
    return off;
}

static uint64_t add(struct fixture *f, const char *channel, const char *key)
{
    uint64_t off = append(f, channel, key);
    keys_add(&f->keys, &(struct key_name){ channel, key, strlen(channel) }, off);
    return off;
}

/* Offset of the record that has it, 0 = none. */
static uint64_t find(struct fixture *f, const char *channel, const char *key)
{
    struct log_record record = { 0 };
    bool found = keys_find(&f->keys, &(struct key_name){ channel, key, strlen(channel) }, &record);
    return found ? record.off : 0;
}

static void a_key_is_of_its_channel(void **state)
{
    struct fixture f;
    begin(&f);
    assert_int_equal(find(&f, "a", "k"), 0);
    uint64_t a = add(&f, "a", "k"), b = add(&f, "b", "k"), other = add(&f, "a", "kk");
    assert_int_equal(find(&f, "a", "k"), a);
    assert_int_equal(find(&f, "b", "k"), b);
    assert_int_equal(find(&f, "a", "kk"), other);
    assert_int_equal(find(&f, "ak", "k"), 0);
    assert_int_equal(find(&f, "a", "K"), 0);
    end(&f);
}

/* A hash proves nothing: the record decides. */
static void an_entry_whose_record_says_otherwise_is_not_believed(void **state)
{
    struct fixture f;
    begin(&f);
    uint64_t off = append(&f, "a", "other");
    keys_add(&f.keys, &(struct key_name){ "a", "k", 1 }, off);
    assert_int_equal(find(&f, "a", "k"), 0);
    end(&f);
}

static void what_the_log_forgets_is_forgotten(void **state)
{
    struct fixture f;
    char key[32];
    begin(&f);
    uint64_t first = add(&f, "a", "first");
    for (int i = 0; log_tail(f.log) <= first; i++) {
        assert_int_equal(find(&f, "a", "first"), first);
        (void)snprintf(key, sizeof(key), "%d", i);
        add(&f, "a", key);
    }
    assert_int_equal(find(&f, "a", "first"), 0);
    keys_expire(&f.keys);
    size_t held = f.keys.by_hash.count;
    assert_true(held > 100);
    for (int i = 0; i < 5000; i++) {
        (void)snprintf(key, sizeof(key), "again %d", i);
        keys_expire(&f.keys);
        add(&f, "a", key);
    }
    assert_true(f.keys.by_hash.count <= held + 1); /* bounded by the log */
    for (int i = 0; i < 2000; i++)
        append(&f, "a", "");
    keys_expire(&f.keys);
    assert_int_equal(f.keys.by_hash.count, 0);
    end(&f);
}

static void append_begin(struct fixture *f, enum record_kind kind, bool history)
{
    char payload[CONTROL_MAX];
    struct log_event event = { .channel = "", .data = payload, .kind = kind, .history = history };
    event.len = control_encode(payload, 0, kind == RECORD_GAP ? REASON_NEW_EPOCH : REASON_NONE);
    assert_true(log_append(f->log, &event) > 0);
}

static void a_new_writer_finds_all_that_stand(void **state)
{
    struct fixture f;
    char key[32];
    begin(&f);
    for (int i = 0; i < 2000; i++) {
        (void)snprintf(key, sizeof(key), "%d", i);
        add(&f, i % 2 ? "a" : "b", i % 5 ? key : "");
    }
    keys_expire(&f.keys);
    struct fixture next = { .log = f.log };
    keys_init(&next.keys, next.log);
    keys_recover(&next.keys);
    size_t found = 0;
    for (int i = 0; i < 2000; i++) {
        (void)snprintf(key, sizeof(key), "%d", i);
        uint64_t off = i % 5 ? find(&f, i % 2 ? "a" : "b", key) : 0;
        assert_int_equal(i % 5 ? find(&next, i % 2 ? "a" : "b", key) : 0, off);
        found += off > 0;
    }
    assert_true(found > 100);
    keys_done(&next.keys);
    end(&f);
}

static void what_a_stream_had_before_it_began_anew_does_not_count(void **state)
{
    static const struct {
        enum record_kind kind;
        bool history, anew;
    } cases[] = { { RECORD_GAP, false, true },
                  { RECORD_LIVE, true, true },
                  { RECORD_UP, false, false },
                  { RECORD_DOWN, false, false } };
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        struct fixture f;
        begin(&f);
        uint64_t before = append(&f, "a", "before");
        append_begin(&f, cases[i].kind, cases[i].history);
        uint64_t after = append(&f, "a", "after");
        keys_recover(&f.keys);
        assert_int_equal(find(&f, "a", "before"), cases[i].anew ? 0 : before);
        assert_int_equal(find(&f, "a", "after"), after);
        end(&f);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_key_is_of_its_channel),
        cmocka_unit_test(an_entry_whose_record_says_otherwise_is_not_believed),
        cmocka_unit_test(what_the_log_forgets_is_forgotten),
        cmocka_unit_test(a_new_writer_finds_all_that_stand),
        cmocka_unit_test(what_a_stream_had_before_it_began_anew_does_not_count),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
