/* Positions as text, and what a position means to a channel that resumes. */
#include "position.h"

#include <errno.h>
#include <fanwire.h>
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

/* ---- text ---- */

static struct position parsed(const char *text)
{
    struct position p;
    assert_int_equal(position_parse(text, strlen(text), &p), 0);
    return p;
}

static void local_positions_parse(void **state)
{
    struct position p = parsed("l1f.ab0");
    assert_int_equal(p.kind, POSITION_LOCAL);
    assert_int_equal(p.space, 0x1f);
    assert_int_equal(p.a, 0xab0);
    p = parsed("lffffffffffffffff.ffffffffffffffff");
    assert_true(p.space == UINT64_MAX && p.a == UINT64_MAX);
}

static void durable_positions_parse(void **state)
{
    struct position p = parsed("p7.16b3748.2");
    assert_int_equal(p.kind, POSITION_DURABLE);
    assert_true(p.space == 7 && p.a == 0x16b3748 && p.b == 2);
}

static void other_makes_are_foreign(void **state)
{
    static const char *const texts[] = { "l",
                                         "l.",
                                         "l1",
                                         "l1.",
                                         "l.1",
                                         "l1.2.3",
                                         "lX.1",
                                         "l1.G",
                                         "p1.2",
                                         "p1.2.3.4",
                                         "p1..3",
                                         "q1.2.3",
                                         "0-0",
                                         "1526985058136-0",
                                         "L1.2",
                                         "l1.2~",
                                         "lA.1",
                                         "now.",
                                         "l11111111111111111.1" /* 17 digits */ };
    for (size_t i = 0; i < sizeof(texts) / sizeof(*texts); i++)
        assert_int_equal(parsed(texts[i]).kind, POSITION_FOREIGN);
}

static void what_is_no_position_is_an_error(void **state)
{
    struct position p;
    char text[FW_POSITION_MAX + 1];
    assert_int_equal(position_parse("", 0, &p), -EINVAL);
    for (int c = 0; c < 256; c++) {
        char one = (char)c;
        int expect = c && strchr("0123456789abcdefghijklmnopqrstuvwxyz"
                                 "ABCDEFGHIJKLMNOPQRSTUVWXYZ._~-",
                                 c)
                         ? 0
                         : -EINVAL;
        assert_int_equal(position_parse(&one, 1, &p), expect);
    }
    memset(text, 'a', sizeof(text));
    assert_int_equal(position_parse(text, FW_POSITION_MAX, &p), 0);
    assert_int_equal(position_parse(text, FW_POSITION_MAX + 1, &p), -EINVAL);
}

static void since_words_parse(void **state)
{
    struct since s;
    assert_int_equal(since_parse("now", 3, &s), 0);
    assert_int_equal(s.kind, SINCE_NOW);
    assert_int_equal(since_parse("oldest", 6, &s), 0);
    assert_int_equal(s.kind, SINCE_OLDEST);
    assert_int_equal(since_parse("l1.2", 4, &s), 0);
    assert_int_equal(s.kind, SINCE_POSITION);
    assert_int_equal(s.position.a, 2);
    assert_int_equal(since_parse("", 0, &s), -EINVAL);
    assert_int_equal(since_parse("a b", 3, &s), -EINVAL);
    assert_int_equal(since_parse("nowhere", 7, &s), 0); /* another program's position */
    assert_int_equal(s.position.kind, POSITION_FOREIGN);
}

static struct log *new_log(void)
{
    struct log *log;
    assert_int_equal(log_create(LOG_SIZE_MIN, &log), 0);
    assert_int_equal(log_lock_writer(log), 0);
    return log;
}

static void local_text_reads_back(void **state)
{
    struct log *log = new_log();
    uint64_t off = 1;
    for (int bits = 0; bits < 64; bits++, off = off << 1 | (uint64_t)(bits & 1)) {
        char text[POSITION_TEXT_MAX], expect[POSITION_TEXT_MAX];
        size_t len = position_write(text, log, NULL, off);
        assert_int_equal(len, strlen(text));
        (void)snprintf(expect, sizeof(expect), "l%" PRIx64 ".%" PRIx64, log_epoch(log), off);
        assert_string_equal(text, expect);
        struct position p = parsed(text);
        assert_true(p.kind == POSITION_LOCAL && p.space == log_epoch(log) && p.a == off);
    }
    log_close(log);
}

static void durable_text_reads_back(void **state)
{
    struct log *log = new_log();
    struct log_record record = { .next = 99, .pos = { UINT64_MAX, 0 } };
    char text[POSITION_TEXT_MAX];
    log_set_identity(log, 0xdeadbeef);
    (void)position_write(text, log, &record, 0);
    assert_string_equal(text, "pdeadbeef.ffffffffffffffff.0");
    record.pos[0] = 0; /* a gap, a down: no position of its own */
    (void)position_write(text, log, &record, 0);
    assert_int_equal(parsed(text).kind, POSITION_LOCAL);
    assert_int_equal(parsed(text).a, 99);
    log_close(log);
}

static void what_was_parsed_is_written_again(void **state)
{
    static const char *const texts[] = { "l1.0", "lffffffffffffffff.ffffffffffffffff",
                                         "p0.16b3748.2",
                                         "pffffffffffffffff.ffffffffffffffff.ffffffffffffffff" };
    char out[POSITION_TEXT_MAX];
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        struct position p = parsed(texts[i]);
        assert_int_equal(position_text(out, &p), strlen(texts[i]));
        assert_string_equal(out, texts[i]);
    }
    struct position foreign = parsed("of-another-make");
    assert_int_equal(position_text(out, &foreign), 0);
    assert_string_equal(out, "");
}

/* ---- resuming ---- */

static uint64_t put(struct log *log, const char *channel, uint64_t pos, size_t len)
{
    static const char zeros[4096];
    struct log_event event = { .channel = channel,
                               .channel_len = strlen(channel),
                               .data = zeros,
                               .len = len,
                               .time_ms = 1,
                               .pos = { pos, 0 },
                               .kind = RECORD_MESSAGE };
    uint64_t off = log_append(log, &event);
    assert_true(off > 0);
    return off;
}

static struct log_channel channel_named(const struct log *log, const char *name)
{
    return (struct log_channel){ log_hash(log, name, strlen(name)), name, strlen(name) };
}

static struct resume resume_at(const struct log *log, const char *name, uint64_t off,
                               uint64_t covered_from)
{
    struct log_channel c = channel_named(log, name);
    struct since since = { .kind = SINCE_POSITION,
                           .position = { POSITION_LOCAL, log_epoch(log), off, 0 } };
    return resume_channel(log, &c, &since, covered_from, log_indexed(log));
}

static void now_and_oldest_are_whole(void **state)
{
    struct log *log = new_log();
    struct log_channel c = channel_named(log, "a");
    (void)put(log, "a", 0, 10);
    uint64_t cut = log_indexed(log);
    struct resume r = resume_channel(log, &c, &(struct since){ .kind = SINCE_NOW }, 0, cut);
    assert_int_equal(r.reason, REASON_NONE);
    assert_true(r.from == cut);
    r = resume_channel(log, &c, &(struct since){ .kind = SINCE_OLDEST }, cut, cut);
    assert_int_equal(r.reason, REASON_NONE);
    assert_true(r.from == log_tail(log));
    log_close(log);
}

static void a_resume_begins_at_the_first_event_missed(void **state)
{
    struct log *log = new_log();
    uint64_t a1 = put(log, "a", 0, 10), b1 = put(log, "b", 0, 10), a2 = put(log, "a", 0, 10);
    uint64_t cut = log_indexed(log);
    struct resume r = resume_at(log, "a", b1, 0); /* right after a1 */
    assert_int_equal(r.reason, REASON_NONE);
    assert_true(r.from == a2 && r.before == cut);
    assert_true(resume_at(log, "a", a1, 0).from == a1);
    r = resume_at(log, "a", cut, 0);
    assert_true(r.reason == REASON_NONE && r.from == cut);
    r = resume_at(log, "quiet", a1, 0); /* nothing of it in between */
    assert_true(r.reason == REASON_NONE && r.from == cut);
    log_close(log);
}

static void the_future_and_strangers_are_gaps(void **state)
{
    struct log *log = new_log();
    struct log_channel c = channel_named(log, "a");
    (void)put(log, "a", 0, 10);
    uint64_t cut = log_indexed(log);
    struct resume r = resume_at(log, "a", cut + 1, 0);
    assert_int_equal(r.reason, REASON_FOREIGN_POSITION);
    assert_true(r.after == 0 && r.before == cut && r.from == log_tail(log));
    static const struct {
        const char *text;
        enum gap_reason reason;
    } cases[] = { { "l0.10000", REASON_NEW_EPOCH },
                  { "p1.2.3", REASON_FOREIGN_POSITION },
                  { "1526985058136-0", REASON_FOREIGN_POSITION } };
    for (size_t i = 0; i < 3; i++) {
        struct since since = { .kind = SINCE_POSITION, .position = parsed(cases[i].text) };
        r = resume_channel(log, &c, &since, 0, cut);
        assert_int_equal(r.reason, cases[i].reason);
        assert_true(r.after == 0);
        assert_true(r.from == log_tail(log));
    }
    log_close(log);
}

static void what_was_not_covered_is_a_gap(void **state)
{
    struct log *log = new_log();
    uint64_t a1 = put(log, "a", 0, 10), a2 = put(log, "a", 0, 10);
    struct resume r = resume_at(log, "a", a2, a2 + 8);
    assert_int_equal(r.reason, REASON_NOT_COVERED);
    assert_true(r.after == a2 && r.from == a2 && r.before == log_indexed(log));
    assert_int_equal(resume_at(log, "a", a2, a2).reason, REASON_NONE);
    assert_int_equal(resume_at(log, "a", a1, a2).reason, REASON_NOT_COVERED);
    /* also where nothing of the channel is known at all */
    assert_int_equal(resume_at(log, "quiet", a1, a2).reason, REASON_NOT_COVERED);
    log_close(log);
}

static void what_was_overwritten_is_a_gap_but_quiet_channels_are_whole(void **state)
{
    struct log *log = new_log();
    uint64_t busy = put(log, "busy", 0, 10), quiet = put(log, "quiet", 0, 10);
    uint64_t after_quiet = log_indexed(log);
    for (int i = 0; i < 200; i++)
        (void)put(log, "busy", 0, 1000);
    assert_true(log_tail(log) > quiet);
    struct resume r = resume_at(log, "busy", busy + 8, 0);
    assert_int_equal(r.reason, REASON_EXPIRED);
    assert_true(r.after == busy + 8 && r.from == log_tail(log));
    r = resume_at(log, "quiet", after_quiet, 0);
    assert_int_equal(r.reason, REASON_NONE);
    assert_int_equal(resume_at(log, "quiet", quiet, 0).reason, REASON_EXPIRED);
    log_close(log);
}

/* A client's number is compared, never used as a place to read from. */
static void a_made_up_offset_never_becomes_a_place(void **state)
{
    struct log *log = new_log();
    uint64_t boundaries[64], n = 0;
    for (int i = 0; i < 40; i++)
        boundaries[n++] = put(log, i % 2 ? "a" : "b", 0, 100);
    uint64_t cut = log_indexed(log);
    boundaries[n++] = cut;
    for (uint64_t off = log_tail(log); off <= cut; off += 1) {
        struct resume r = resume_at(log, "a", off, 0);
        bool known = false;
        for (uint64_t i = 0; i < n; i++)
            known |= r.from == boundaries[i];
        assert_true(known);
        assert_int_equal(r.reason, REASON_NONE);
        assert_true(r.from >= off);
    }
    log_close(log);
}

/* More events than links are followed: a sweep from a boundary at or before. */
static void many_events_are_swept(void **state)
{
    struct log *log;
    assert_int_equal(log_create(1 << 20, &log), 0);
    assert_int_equal(log_lock_writer(log), 0);
    uint64_t first = put(log, "a", 0, 10), second = put(log, "a", 0, 10);
    for (int i = 0; i < 3 * LOG_HOPS_MAX; i++)
        (void)put(log, "a", 0, 10);
    struct resume r = resume_at(log, "a", second, 0);
    assert_true(r.reason == REASON_NONE && r.from == second);
    r = resume_at(log, "a", first + 3, 0);
    assert_true(r.reason == REASON_NONE && r.from == second);
    log_close(log);
}

static struct resume resume_durable(const struct log *log, uint64_t identity, uint64_t pos)
{
    struct log_channel c = channel_named(log, "a");
    struct since since = { .kind = SINCE_POSITION,
                           .position = { POSITION_DURABLE, identity, pos, 0 } };
    return resume_channel(log, &c, &since, 0, log_indexed(log));
}

static void durable_positions_are_found(void **state)
{
    struct log *log = new_log();
    log_set_identity(log, 5);
    (void)put(log, "a", 10, 10);
    uint64_t second = put(log, "a", 20, 10);
    (void)put(log, "a", 30, 10);
    struct resume r = resume_durable(log, 5, 10);
    assert_true(r.reason == REASON_NONE && r.from == second);
    r = resume_durable(log, 5, 15); /* between two */
    assert_true(r.reason == REASON_NONE && r.from == second);
    r = resume_durable(log, 5, 30);
    assert_true(r.reason == REASON_NONE && r.from == log_indexed(log));
    assert_int_equal(resume_durable(log, 5, 31).reason, REASON_FOREIGN_POSITION); /* the future */
    assert_int_equal(resume_durable(log, 5, 9).reason, REASON_EXPIRED);
    assert_int_equal(resume_durable(log, 6, 10).reason, REASON_FOREIGN_POSITION);
    /* a local position of the same log is as good */
    r = resume_at(log, "a", second, 0);
    assert_true(r.reason == REASON_NONE && r.from == second);
    log_close(log);
}

static bool is_ahead(const struct log *log, struct newest_position *newest, const char *text)
{
    struct since since;
    assert_int_equal(since_parse(text, strlen(text), &since), 0);
    return since_is_ahead(log, &since, newest);
}

static void what_the_log_will_come_to_is_ahead(void **state)
{
    struct log *log = new_log();
    struct newest_position newest = { 0 };
    assert_false(is_ahead(log, &newest, "p5.1.0")); /* positions are local */
    log_set_identity(log, 5);
    assert_false(is_ahead(log, &newest, "p5.1.0")); /* nothing is known yet */
    (void)put(log, "a", 10, 10);
    assert_false(is_ahead(log, &newest, "p5.9.ff"));
    assert_false(is_ahead(log, &newest, "p5.a.0"));
    assert_true(is_ahead(log, &newest, "p5.a.1"));
    assert_true(is_ahead(log, &newest, "p5.b.0"));
    assert_false(is_ahead(log, &newest, "p6.b.0"));
    assert_false(is_ahead(log, &newest, "of-another-make"));
    assert_false(is_ahead(log, &newest, "now"));
    assert_false(is_ahead(log, &newest, "oldest"));
    (void)put(log, "b", 11, 10);
    assert_false(is_ahead(log, &newest, "p5.b.0")); /* looked up anew */
    log_close(log);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(local_positions_parse),
        cmocka_unit_test(durable_positions_parse),
        cmocka_unit_test(other_makes_are_foreign),
        cmocka_unit_test(what_is_no_position_is_an_error),
        cmocka_unit_test(since_words_parse),
        cmocka_unit_test(local_text_reads_back),
        cmocka_unit_test(durable_text_reads_back),
        cmocka_unit_test(what_was_parsed_is_written_again),
        cmocka_unit_test(now_and_oldest_are_whole),
        cmocka_unit_test(a_resume_begins_at_the_first_event_missed),
        cmocka_unit_test(the_future_and_strangers_are_gaps),
        cmocka_unit_test(what_was_not_covered_is_a_gap),
        cmocka_unit_test(what_was_overwritten_is_a_gap_but_quiet_channels_are_whole),
        cmocka_unit_test(a_made_up_offset_never_becomes_a_place),
        cmocka_unit_test(many_events_are_swept),
        cmocka_unit_test(durable_positions_are_found),
        cmocka_unit_test(what_the_log_will_come_to_is_ahead),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
