/* Resuming, the newest N, marks and positions: by hand, and against a plain model over random
 * operations, with an index that has room and one that overflows. */
#include "layout.h"
#include "log.h"
#include "model.h"
#include "secret.h"
#include "seed.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#define OUT_MAX 4096 /* more than the rings here hold */

static struct log *create(uint64_t size)
{
    struct log *log = NULL;
    assert_int_equal(log_create(size, &log), 0);
    return log;
}

static uint64_t append_kind(struct log *log, const char *channel, enum record_kind kind,
                            uint64_t pos)
{
    return log_append(log, &(struct log_event){ .channel = channel,
                                                .channel_len = strlen(channel),
                                                .data = "x",
                                                .len = 1,
                                                .kind = kind,
                                                .pos = { pos, 0 } });
}

static uint64_t append(struct log *log, const char *channel)
{
    return append_kind(log, channel, RECORD_MESSAGE, 0);
}

static struct log_channel channel_of(const struct log *log, const char *name)
{
    return (struct log_channel){ log_hash(log, name, strlen(name)), name, strlen(name) };
}

static int walk(const struct log *log, const char *name, uint64_t since, uint64_t *out)
{
    const struct log_channel channel = channel_of(log, name);
    return log_walk(log, &channel, since, log_indexed(log), out, OUT_MAX);
}

static int last(const struct log *log, const char *name, size_t n, uint64_t *out)
{
    const struct log_channel channel = channel_of(log, name);
    return log_last(log, &channel, log_indexed(log), n, out);
}

/* Appends other events until `off` is overwritten. */
static void bury(struct log *log, uint64_t off)
{
    while (log_tail(log) <= off)
        (void)append(log, "noise");
}

/* ---- log_walk() ---- */

static void a_walk_begins_at_since(void **state)
{
    struct log *log = create(0);
    uint64_t out[OUT_MAX];
    const uint64_t start = log_indexed(log);
    const uint64_t a1 = append(log, "a"), after_a1 = log_indexed(log);
    const uint64_t b1 = append(log, "b"), a2 = append(log, "a"), after_a2 = log_indexed(log);
    assert_int_equal(walk(log, "a", start, out), 2);
    assert_int_equal(out[0], a1);
    assert_int_equal(out[1], a2);
    assert_int_equal(walk(log, "a", a1, out), 2);
    assert_int_equal(walk(log, "a", a1 + 1, out), 1);
    assert_int_equal(walk(log, "a", after_a1, out), 1);
    assert_int_equal(out[0], a2);
    assert_int_equal(walk(log, "a", after_a2, out), 0);
    assert_int_equal(walk(log, "b", start, out), 1);
    assert_int_equal(out[0], b1);
    assert_int_equal(walk(log, "c", start, out), 0);
    assert_int_equal(walk(log, "", start, out), 0);
    log_close(log);
}

static void a_walk_ends_before_the_cut(void **state)
{
    struct log *log = create(0);
    uint64_t out[OUT_MAX];
    const struct log_channel a = channel_of(log, "a");
    const uint64_t start = log_indexed(log), a1 = append(log, "a"), cut = log_indexed(log);
    const uint64_t a2 = append(log, "a");
    assert_int_equal(log_walk(log, &a, start, cut, out, OUT_MAX), 1);
    assert_int_equal(out[0], a1);
    assert_int_equal(log_walk(log, &a, start, a2 + 1, out, OUT_MAX), 2);
    assert_int_equal(log_walk(log, &a, start, start, out, OUT_MAX), 0);
    assert_int_equal(log_walk(log, &a, cut, cut, out, OUT_MAX), 0);
    log_close(log);
}

/* A quiet channel's client is complete however far the log has moved on. */
static void a_quiet_channel_has_no_gap(void **state)
{
    struct log *log = create(0);
    uint64_t out[OUT_MAX];
    const uint64_t start = log_indexed(log), off = append(log, "quiet"), after = log_indexed(log);
    bury(log, off);
    assert_int_equal(walk(log, "quiet", after, out), 0);
    assert_int_equal(walk(log, "quiet", off, out), -ESTALE);
    assert_int_equal(walk(log, "quiet", start, out), -ESTALE);
    assert_int_equal(walk(log, "never", start, out), 0);
    const uint64_t again = append(log, "quiet");
    assert_int_equal(walk(log, "quiet", after, out), 1);
    assert_int_equal(out[0], again);
    assert_int_equal(walk(log, "quiet", off, out), -ESTALE);
    log_close(log);
}

static void any_number_is_a_safe_since(void **state)
{
    struct log *log = create(0);
    uint64_t out[OUT_MAX], random = mix(test_seed());
    bury(log, append(log, "a"));
    static const uint64_t numbers[] = { 0, 1, 7, UINT64_MAX, UINT64_MAX - 7, UINT64_MAX / 2 };
    for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++)
        (void)walk(log, "a", numbers[i], out);
    for (int i = 0; i < 1000; i++)
        (void)walk(log, "a", random_next(&random) >> random_below(&random, 64), out);
    assert_int_equal(walk(log, "a", 0, out), -ESTALE);
    assert_int_equal(walk(log, "never", 0, out), 0);
    assert_int_equal(walk(log, "a", UINT64_MAX, out), 0);
    log_close(log);
}

static void too_much_for_a_walk_is_a_sweep(void **state)
{
    struct log *log = create(1 << 20);
    uint64_t out[OUT_MAX], start = log_indexed(log);
    const struct log_channel a = channel_of(log, "a");
    for (int i = 0; i < 10; i++)
        (void)append(log, "a");
    assert_int_equal(log_walk(log, &a, start, log_indexed(log), out, 10), 10);
    assert_int_equal(log_walk(log, &a, start, log_indexed(log), out, 9), -E2BIG);
    for (int i = 10; i < LOG_HOPS_MAX; i++)
        (void)append(log, "a");
    assert_int_equal(walk(log, "a", start, out), LOG_HOPS_MAX);
    (void)append(log, "a");
    assert_int_equal(walk(log, "a", start, out), -E2BIG);
    bury(log, start); /* and what cannot be swept is a gap */
    assert_int_equal(walk(log, "a", start, out), -ESTALE);
    log_close(log);
}

/* Two channels of one hash share an entry and a chain; the names tell them apart. */
static void names_are_compared(void **state)
{
    struct log *log = create(0);
    uint64_t out[OUT_MAX];
    const uint64_t start = log_indexed(log);
    static const char long_a[] =
        "a name that is longer than one chunk of the comparison, in fact two 1";
    static const char long_b[] =
        "a name that is longer than one chunk of the comparison, in fact two 2";
    (void)append(log, "a");
    (void)append(log, long_a);
    struct log_channel other = { log_hash(log, "a", 1), "b", 1 };
    assert_int_equal(log_walk(log, &other, start, log_indexed(log), out, OUT_MAX), 0);
    assert_int_equal(log_last(log, &other, log_indexed(log), 10, out), 0);
    other = (struct log_channel){ log_hash(log, "a", 1), "aa", 2 };
    assert_int_equal(log_walk(log, &other, start, log_indexed(log), out, OUT_MAX), 0);
    other = (struct log_channel){ log_hash(log, long_a, strlen(long_a)), long_b, strlen(long_b) };
    assert_int_equal(log_walk(log, &other, start, log_indexed(log), out, OUT_MAX), 0);
    other.name = long_a;
    assert_int_equal(log_walk(log, &other, start, log_indexed(log), out, OUT_MAX), 1);
    log_close(log);
}

/* Three channels of one bucket and a fourth that drives the first out. */
static void find_bucket_mates(const struct log *log, char names[][16], int n)
{
    uint64_t bucket = 0;
    for (int found = 0, i = 0; found < n; i++) {
        const int len = snprintf(names[found], 16, "m%d", i);
        const uint64_t mine = log_hash(log, names[found], (size_t)len) & log->bucket_mask;
        if (found == 0)
            bucket = mine;
        if (mine == bucket)
            found++;
    }
}

static void a_forgotten_channel_is_swept(void **state)
{
    struct log *log = create(0);
    char names[4][16];
    uint64_t out[OUT_MAX];
    struct log_record record;
    find_bucket_mates(log, names, 4);
    const uint64_t start = log_indexed(log), first = append(log, names[0]);
    const uint64_t after = log_indexed(log);
    for (int i = 1; i < 4; i++)
        (void)append(log, names[i]);
    /* Known: nothing after the floor. At or before it: unknown. */
    assert_int_equal(walk(log, names[0], after, out), 0);
    assert_int_equal(walk(log, names[0], start, out), -E2BIG);
    assert_int_equal(last(log, names[0], 5, out), 1);
    assert_int_equal(out[0], first);
    const uint64_t second = append(log, names[0]);
    assert_int_equal(log_peek(log, second, &record), 1);
    assert_false(record.prev_exact);
    assert_true(record.prev >= first);
    assert_int_equal(walk(log, names[0], log_indexed(log), out), 0);
    assert_int_equal(walk(log, names[0], second, out), 1);
    assert_int_equal(walk(log, names[0], start, out), -E2BIG);
    assert_int_equal(last(log, names[0], 5, out), 2);
    assert_int_equal(out[0], first);
    assert_int_equal(out[1], second);
    bury(log, second);
    assert_int_equal(walk(log, names[0], start, out), -ESTALE);
    assert_int_equal(last(log, names[0], 5, out), 0);
    log_close(log);
}

/* A reader that meets a bucket which a dead writer left half written: a sweep, not a loss. */
static void a_half_written_bucket_is_swept(void **state)
{
    struct log *log = create(0);
    uint64_t out[OUT_MAX];
    const uint64_t start = log_indexed(log), off = append(log, "a");
    atomic_fetch_add(&log_bucket_of(log, log_hash(log, "a", 1))->seq, 1);
    assert_int_equal(walk(log, "a", start, out), -E2BIG);
    assert_int_equal(last(log, "a", 5, out), 1);
    assert_int_equal(out[0], off);
    log_recover(log);
    assert_int_equal(walk(log, "a", start, out), 1);
    log_close(log);
}

/* ---- log_last() ---- */

static void the_last_are_messages_and_gaps(void **state)
{
    struct log *log = create(0);
    uint64_t out[OUT_MAX];
    const uint64_t a = append(log, "a"), b = append_kind(log, "a", RECORD_GAP, 0);
    (void)append_kind(log, "a", RECORD_UP, 0);
    const uint64_t c = append(log, "a"), cut = log_indexed(log), d = append(log, "a");
    const struct log_channel channel = channel_of(log, "a");
    assert_int_equal(last(log, "a", 10, out), 4);
    assert_int_equal(out[0], a);
    assert_int_equal(out[1], b);
    assert_int_equal(out[2], c);
    assert_int_equal(out[3], d);
    assert_int_equal(last(log, "a", 2, out), 2);
    assert_int_equal(out[0], c);
    assert_int_equal(last(log, "a", 0, out), 0);
    assert_int_equal(log_last(log, &channel, cut, 2, out), 2);
    assert_int_equal(out[0], b);
    assert_int_equal(out[1], c);
    assert_int_equal(log_last(log, &channel, UINT64_MAX, 1, out), 1);
    assert_int_equal(out[0], d);
    assert_int_equal(log_last(log, &channel, 0, 9, out), 0);
    assert_int_equal(last(log, "never", 9, out), 0);
    log_close(log);
}

/* ---- positions ---- */

static void a_position_is_found_by_its_record(void **state)
{
    struct log *log = create(0);
    uint64_t ret, offs[5];
    log_set_identity(log, 1);
    assert_int_equal(log_seek_position(log, (uint64_t[2]){ 10, 0 }, &ret), -ESTALE);
    for (uint64_t i = 0; i < 4; i++)
        offs[i] = append_kind(log, "a", RECORD_MESSAGE, 10 * i + 10);
    offs[4] = log_indexed(log);
    for (uint64_t i = 0; i < 4; i++) {
        assert_int_equal(log_seek_position(log, (uint64_t[2]){ 10 * i + 10, 0 }, &ret), 0);
        assert_int_equal(ret, offs[i + 1]);
        if (i == 3)
            break;
        assert_int_equal(log_seek_position(log, (uint64_t[2]){ 10 * i + 10, 5 }, &ret), 0);
        assert_int_equal(ret, offs[i + 1]);
    }
    assert_int_equal(log_seek_position(log, (uint64_t[2]){ 9, UINT64_MAX }, &ret), -ESTALE);
    assert_int_equal(log_seek_position(log, (uint64_t[2]){ 40, 1 }, &ret), -ERANGE);
    assert_int_equal(log_seek_position(log, (uint64_t[2]){ UINT64_MAX, 0 }, &ret), -ERANGE);
    log_close(log);
}

static void the_newest_position_before_an_offset(void **state)
{
    struct log *log = create(0);
    uint64_t pos[2], offs[40];
    log_set_identity(log, 1);
    assert_int_equal(log_position_before(log, log_indexed(log), pos), -ENOENT);
    for (uint64_t i = 0; i < 40; i++) /* every fourth without a position */
        offs[i] = append_kind(log, "a", i % 4 ? RECORD_MESSAGE : RECORD_DOWN, i % 4 ? i : 0);
    assert_int_equal(log_position_before(log, offs[1], pos), -ENOENT);
    for (uint64_t i = 2; i < 40; i++) {
        assert_int_equal(log_position_before(log, offs[i], pos), 0);
        assert_int_equal(pos[0], (i - 1) % 4 ? i - 1 : i - 2);
        assert_int_equal(log_position_before(log, offs[i] + 1, pos), 0); /* inside of it */
        assert_int_equal(pos[0], (i - 1) % 4 ? i - 1 : i - 2);
    }
    assert_int_equal(log_position_before(log, UINT64_MAX, pos), 0);
    assert_int_equal(pos[0], 39);
    assert_int_equal(log_position_before(log, 0, pos), -ENOENT);
    log_set_identity(log, 2); /* those of before are another stream's */
    assert_int_equal(log_position_before(log, log_indexed(log), pos), -ENOENT);
    for (uint64_t i = 1; i < 5000; i++)
        (void)append_kind(log, "a", RECORD_MESSAGE, i);
    assert_int_equal(log_position_before(log, log_indexed(log), pos), 0);
    assert_int_equal(pos[0], 4999);
    assert_int_equal(log_position_before(log, log_tail(log), pos), -ENOENT);
    log_close(log);
}

/* A gap that was told after an event must reach whoever resumes from that event. */
static void what_has_no_position_comes_after_it(void **state)
{
    struct log *log = create(0);
    uint64_t ret;
    log_set_identity(log, 1);
    (void)append_kind(log, "a", RECORD_MESSAGE, 10);
    const uint64_t gap = append_kind(log, "", RECORD_GAP, 0);
    assert_int_equal(log_seek_position(log, (uint64_t[2]){ 10, 0 }, &ret), 0);
    assert_int_equal(ret, gap);
    (void)append_kind(log, "a", RECORD_MESSAGE, 20);
    assert_int_equal(log_seek_position(log, (uint64_t[2]){ 15, 0 }, &ret), 0);
    assert_int_equal(ret, gap);
    log_close(log);
}

/* Positions of another identity are not compared, even when their numbers fit. */
static void another_identity_begins_anew(void **state)
{
    struct log *log = create(0);
    uint64_t ret;
    log_set_identity(log, 1);
    for (uint64_t i = 1; i < 50; i++)
        (void)append_kind(log, "a", RECORD_MESSAGE, i);
    log_set_identity(log, 1); /* no change, no new beginning */
    assert_int_equal(log_seek_position(log, (uint64_t[2]){ 20, 0 }, &ret), 0);
    log_set_identity(log, 2);
    assert_int_equal(log_seek_position(log, (uint64_t[2]){ 20, 0 }, &ret), -ESTALE);
    for (uint64_t i = 30; i < 60; i++)
        (void)append_kind(log, "a", RECORD_MESSAGE, i);
    char why[128] = "";
    assert_int_equal(log_check(log, why, sizeof(why)), 0);
    assert_int_equal(log_seek_position(log, (uint64_t[2]){ 20, 0 }, &ret), -ESTALE);
    assert_int_equal(log_seek_position(log, (uint64_t[2]){ 40, 0 }, &ret), 0);
    assert_int_equal(log_seek_position(log, (uint64_t[2]){ 60, 0 }, &ret), -ERANGE);
    log_close(log);
}

static void the_position_before_an_offset(void **state)
{
    struct log *log = create(0);
    uint64_t pos[2];
    log_set_identity(log, 1);
    assert_int_equal(log_position_before(log, log_indexed(log), pos), -ENOENT);
    const uint64_t first = append_kind(log, "a", RECORD_MESSAGE, 10);
    for (int i = 0; i < 100; i++)
        (void)append_kind(log, "", RECORD_GAP, 0);
    const uint64_t second = append_kind(log, "a", RECORD_MESSAGE, 20), end = log_indexed(log);
    assert_int_equal(log_position_before(log, first, pos), -ENOENT);
    assert_int_equal(log_position_before(log, second, pos), 0);
    assert_int_equal(pos[0], 10);
    assert_int_equal(log_position_before(log, end, pos), 0);
    assert_int_equal(pos[0], 20);
    log_set_identity(log, 2);
    (void)append_kind(log, "", RECORD_GAP, 0);
    assert_int_equal(log_position_before(log, log_indexed(log), pos), -ENOENT);
    log_close(log);
}

/* ---- against the model ---- */

struct trial {
    struct log *log;
    struct model model;
    uint64_t random, position, found[OUT_MAX], want[OUT_MAX];
    unsigned n_channels;
    bool exact; /* no bucket overflows: nothing is ever unknown */
    unsigned n_walks, n_sweeps, n_gaps;
};

static unsigned pick_channel(struct trial *t)
{
    return (unsigned)random_below(&t->random, random_below(&t->random, 2) ? t->n_channels
                                                                          : t->n_channels / 16 + 1);
}

static size_t name_of(unsigned channel, char name[16])
{
    return channel ? (size_t)snprintf(name, 16, "c%u", channel) : 0;
}

static void append_random(struct trial *t)
{
    static const char zeros[4096];
    char name[16] = "";
    const unsigned channel = pick_channel(t);
    struct log_event event = { .channel = name,
                               .channel_len = name_of(channel, name),
                               .data = zeros,
                               .len = random_below(&t->random,
                                                   random_below(&t->random, 64) ? 128 : 4000),
                               .time_ms = (int64_t)t->model.n };
    if (random_below(&t->random, 16) == 0)
        event.kind = RECORD_GAP + (enum record_kind)random_below(&t->random, 3);
    if (channel) {
        t->position += random_below(&t->random, 3);
        event.pos[0] = t->position / 4;
        event.pos[1] = t->position % 4 + 1;
    }
    const uint64_t off = log_append(t->log, &event);
    assert_int_not_equal(off, 0);
    model_append(&t->model, t->log, off, channel, &event);
}

/* An offset of interest: of a record held or gone, right after one, or any. */
static uint64_t pick_offset(struct trial *t)
{
    const size_t recent = t->model.n < 2000 ? t->model.n : 2000;
    const struct model_record *r =
        &t->model.records[t->model.n - 1 - random_below(&t->random, recent)];
    switch (random_below(&t->random, 8)) {
    case 0:
        return r->off;
    case 1:
        return r->off + random_below(&t->random, r->next - r->off);
    case 2:
        return log_tail(t->log);
    case 3:
        return log_indexed(t->log);
    default:
        return r->next;
    }
}

static void compare_offsets(const uint64_t *found, size_t n, const uint64_t *want, size_t n_want)
{
    assert_int_equal(n, n_want);
    for (size_t i = 0; i < n; i++)
        assert_int_equal(found[i], want[i]);
}

/* As the hub does after -E2BIG. */
static size_t sweep(struct trial *t, const struct log_channel *channel, uint64_t since,
                    uint64_t cut)
{
    size_t n = 0;
    struct log_record record;
    for (uint64_t off = log_mark_before(t->log, since); off < cut; off = record.next) {
        assert_int_equal(log_peek(t->log, off, &record), 1);
        if (record.kind != RECORD_PAD && off >= since && record.hash == channel->hash)
            t->found[n++] = off;
    }
    return n;
}

static void try_walk(struct trial *t)
{
    char name[16];
    const unsigned c = pick_channel(t);
    struct log_channel channel = { .name = name, .len = name_of(c, name) };
    uint64_t since = pick_offset(t), cut = pick_offset(t);
    if (since > cut) {
        const uint64_t swap = since;
        since = cut;
        cut = swap;
    }
    channel.hash = log_hash(t->log, name, channel.len);
    const size_t n_want = model_between(&t->model, c, since, cut, t->want);
    const int n = log_walk(t->log, &channel, since, cut, t->found, OUT_MAX);
    t->n_walks++;
    if (n >= 0) {
        compare_offsets(t->found, (size_t)n, t->want, n_want);
    } else if (n == -E2BIG) {
        assert_false(t->exact);
        assert_true(since >= log_tail(t->log));
        t->n_sweeps++;
        compare_offsets(t->found, sweep(t, &channel, since, cut), t->want, n_want);
    } else {
        assert_int_equal(n, -ESTALE);
        assert_true(since < log_tail(t->log));
        t->n_gaps++;
        const size_t lost = model_between(&t->model, c, since, log_tail(t->log), t->want);
        assert_true(!t->exact || lost > 0);
    }
}

static void try_last(struct trial *t)
{
    char name[16];
    const unsigned c = pick_channel(t);
    struct log_channel channel = { .name = name, .len = name_of(c, name) };
    const uint64_t cut = pick_offset(t);
    const size_t max = random_below(&t->random, 20);
    channel.hash = log_hash(t->log, name, channel.len);
    const int n = log_last(t->log, &channel, cut, max, t->found);
    assert_true(n >= 0);
    compare_offsets(t->found, (size_t)n, t->want,
                    model_last(&t->model, c, log_tail(t->log), cut, max, t->want));
}

static void try_marks(struct trial *t)
{
    const uint64_t tail = log_tail(t->log), slot = log_size(t->log) / LOG_MARKS;
    uint64_t off = pick_offset(t);
    if (off < tail)
        off = tail;
    const uint64_t before = log_mark_before(t->log, off);
    assert_true(before >= tail && before <= off);
    assert_int_equal(model_boundary(&t->model, before), before);
    /* The rest of a slot, and the largest record and PAD that may reach into it. */
    assert_true(off - before <= 2 * slot + 2 * (log_event_max(t->log) + 80) || before == tail);
}

static void try_seek(struct trial *t)
{
    uint64_t ret = 0;
    const uint64_t since = pick_offset(t);
    const int r = log_seek(t->log, since, &ret);
    if (since < log_tail(t->log)) {
        assert_int_equal(r, -ESTALE);
    } else {
        assert_int_equal(r, 0);
        assert_int_equal(ret, model_boundary(&t->model, since));
    }
    assert_int_equal(log_seek(t->log, log_indexed(t->log) + 1, &ret), -ERANGE);
}

static void try_position(struct trial *t)
{
    uint64_t ret = 0, want = 0;
    const uint64_t spread = random_below(&t->random, 4000);
    const uint64_t p = t->position + 5 > spread ? t->position + 5 - spread : 0;
    const uint64_t pos[2] = { p / 4, p % 4 + random_below(&t->random, 2) };
    const int r = log_seek_position(t->log, pos, &ret);
    assert_int_equal(r, model_seek_position(&t->model, log_tail(t->log), pos, &want));
    if (r == 0)
        assert_int_equal(ret, want);
}

static void try_position_before(struct trial *t)
{
    uint64_t found[2] = { 0 }, want[2] = { 0 };
    const uint64_t off = random_below(&t->random, 32) ? pick_offset(t) : UINT64_MAX;
    const int r = log_position_before(t->log, off, found);
    assert_int_equal(r, model_position_before(&t->model, log_tail(t->log), off, want));
    assert_int_equal(found[0], want[0]);
    assert_int_equal(found[1], want[1]);
}

static bool overflows(const struct log *log, unsigned n_channels)
{
    static unsigned in_bucket[1 << 16];
    memset(in_bucket, 0, sizeof(in_bucket));
    for (unsigned c = 0; c < n_channels; c++) {
        char name[16];
        const uint64_t hash = log_hash(log, name, name_of(c, name));
        if (++in_bucket[hash & log->bucket_mask] > LOG_BUCKET_ENTRIES)
            return true;
    }
    return false;
}

static void try_random(uint64_t size, unsigned n_channels)
{
    static struct trial t;
    const uint64_t seed = test_seed();
    t = (struct trial){ .log = create(size), .random = mix(seed), .n_channels = n_channels };
    secret_set(t.log, seed);
    const int n_operations = test_long() ? 2000000 : 40000;
    t.exact = !overflows(t.log, n_channels);
    log_set_identity(t.log, 1);
    append_random(&t);
    for (int i = 0; i < n_operations; i++) {
        switch (random_below(&t.random, 16)) {
        case 0:
        case 1:
            try_walk(&t);
            break;
        case 2:
            try_last(&t);
            break;
        case 3:
            try_marks(&t);
            try_seek(&t);
            break;
        case 4:
            try_position(&t);
            try_position_before(&t);
            break;
        default:
            append_random(&t);
        }
    }
    char why[128] = "";
    if (log_check(t.log, why, sizeof(why)) < 0)
        fail_msg("%s", why);
    fprintf(stderr, "%u walks, %u gaps, %u sweeps\n", t.n_walks, t.n_gaps, t.n_sweeps);
    assert_true(t.n_gaps > 0);
    assert_true(t.n_sweeps > 0 || n_channels < 1000);
    model_done(&t.model);
    log_close(t.log);
}

static void random_operations_on_few_channels(void **state)
{
    try_random(LOG_SIZE_MIN, 8);
}

static void random_operations_on_many_channels(void **state)
{
    try_random(1 << 18, 200);
}

static void random_operations_with_an_overflowing_index(void **state)
{
    try_random(LOG_SIZE_MIN, 3000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_walk_begins_at_since),
        cmocka_unit_test(a_walk_ends_before_the_cut),
        cmocka_unit_test(a_quiet_channel_has_no_gap),
        cmocka_unit_test(any_number_is_a_safe_since),
        cmocka_unit_test(too_much_for_a_walk_is_a_sweep),
        cmocka_unit_test(names_are_compared),
        cmocka_unit_test(a_forgotten_channel_is_swept),
        cmocka_unit_test(a_half_written_bucket_is_swept),
        cmocka_unit_test(the_last_are_messages_and_gaps),
        cmocka_unit_test(a_position_is_found_by_its_record),
        cmocka_unit_test(the_newest_position_before_an_offset),
        cmocka_unit_test(what_has_no_position_comes_after_it),
        cmocka_unit_test(another_identity_begins_anew),
        cmocka_unit_test(the_position_before_an_offset),
        cmocka_unit_test(random_operations_on_few_channels),
        cmocka_unit_test(random_operations_on_many_channels),
        cmocka_unit_test(random_operations_with_an_overflowing_index),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
