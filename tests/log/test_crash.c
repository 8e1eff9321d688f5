/* kill -9 of the writer, at random and at every store of a counter, also in the middle of recovery.
 * The next writer recovers and goes on with the same stream. Then the log must be what it would be
 * had nobody died: it is compared, word by word and resume by resume, with a twin that was written
 * without a break, and with the full history. Meanwhile a reader in another process follows it.
 *
 * Links with a build of the log that calls log_crash_point() at its crash points. */
#include "child.h"
#include "follow.h"
#include "layout.h"
#include "secret.h"
#include "seed.h"

#include <errno.h>
#include <inttypes.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define SIZE      LOG_SIZE_MIN
#define OUT_MAX   4096
#define WARM_UP   2000
#define PER_CHILD 100000 /* appends after which a crash point must have been met */

/* ---- dying ---- */

/* Where this process, a writer, shall die; set in the child after fork(). */
static struct {
    bool armed;
    enum log_crash_point point;
    unsigned countdown;
} death;

void log_crash_point(enum log_crash_point point)
{
    if (death.armed && point == death.point && --death.countdown == 0)
        (void)raise(SIGKILL);
}

/* ---- one experiment ---- */

struct experiment {
    struct log *log;  /* the one whose writers die */
    struct log *twin; /* the same events without deaths */
    struct log *copy; /* of log, recovered here, so that the next writer finds it unrecovered */
    struct stream stream;
    uint64_t random;
    uint64_t *offs; /* the history: each event's offset, by its number */
    uint64_t n_offs, cap;
    bool exact;
    pid_t reader;
    uint64_t n_kills, n_resumes, n_gaps, n_half;
};

/* The number of the event that comes next in the log: after the newest record held. */
static uint64_t next_number(const struct log *log)
{
    uint64_t number = 0;
    struct log_record record;
    for (uint64_t off = log_tail(log); off < log_indexed(log); off = record.next) {
        if (!log_peek(log, off, &record))
            return UINT64_MAX;
        if (record.kind != RECORD_PAD)
            number = record.xid;
    }
    return number;
}

static uint64_t append(struct log *log, const struct stream *stream, uint64_t number)
{
    struct stream_event e;
    stream_make(stream, number, &e);
    return log_append(log, &e.event);
}

/* A writer's life. Returns only when nothing killed it. */
static int writer(struct experiment *x, uint64_t n_events)
{
    if (log_lock_writer(x->log) < 0)
        return 1;
    log_recover(x->log);
    uint64_t number = next_number(x->log);
    if (number == UINT64_MAX)
        return 2;
    for (; n_events; n_events--)
        if (!append(x->log, &x->stream, number++))
            return 3;
    return 0;
}

static int reader(struct experiment *x)
{
    struct log *log = NULL;
    struct follow f;
    if (log_attach(log_fd(x->log), &log) < 0)
        return 1;
    log_close(x->log);
    int r = follow_init(&f, log, &x->stream, x->random, x->exact);
    if (r == 0)
        r = follow_run(&f);
    fprintf(stderr,
            "reader: %" PRIu64 " events, lapped %" PRIu64 " times, %" PRIu64 " resumes (%" PRIu64
            " gaps, %" PRIu64 " sweeps) %s\n",
            f.n_events, f.n_laps, f.n_resumes, f.n_gaps, f.n_sweeps, f.why);
    follow_done(&f);
    log_close(log);
    return r < 0 ? 2 : 0;
}

/* ---- the truth ---- */

static void note(struct experiment *x, uint64_t off)
{
    if (x->n_offs == x->cap) {
        x->cap = x->cap ? 2 * x->cap : 4096;
        x->offs = realloc(x->offs, x->cap * sizeof(*x->offs));
        assert_non_null(x->offs);
    }
    x->offs[x->n_offs++] = off;
}

static void advance_twin(struct experiment *x, uint64_t to)
{
    while (x->n_offs < to) {
        const uint64_t off = append(x->twin, &x->stream, x->n_offs);
        assert_int_not_equal(off, 0);
        note(x, off);
    }
}

static void assert_sound(const struct log *log)
{
    char why[160] = "";
    if (log_check(log, why, sizeof(why)) < 0)
        fail_msg("%s", why);
}

/* Brings a copy of the dead writer's log and the twin to the same event: at least one more than was
 * written, since the dead writer may have made room for one already. */
static void recover_copy(struct experiment *x)
{
    memcpy(x->copy->header, x->log->header, x->log->map_size);
    x->n_half += log_head(x->copy) != log_indexed(x->copy);
    log_recover(x->copy);
    assert_sound(x->copy);
    uint64_t number = next_number(x->copy);
    advance_twin(x, number + 1);
    for (; number < x->n_offs; number++)
        assert_int_equal(append(x->copy, &x->stream, number), x->offs[number]);
    assert_sound(x->copy);
}

static void compare_entries(const struct log_bucket *a, const struct log_bucket *b)
{
    assert_int_equal(a->floor, b->floor);
    for (int i = 0; i < LOG_BUCKET_ENTRIES; i++) {
        assert_int_equal(a->entries[i].hash, b->entries[i].hash);
        assert_int_equal(a->entries[i].last, b->entries[i].last);
    }
}

static void compare_marks(const struct log_mark *a, const struct log_mark *b)
{
    assert_int_equal(a->off, b->off);
    assert_int_equal(a->pos[0], b->pos[0]);
    assert_int_equal(a->pos[1], b->pos[1]);
    assert_int_equal(a->time_ms, b->time_ms);
}

static void compare_with_twin(const struct log *a, const struct log *b)
{
    assert_int_equal(log_tail(a), log_tail(b));
    assert_int_equal(log_head(a), log_head(b));
    assert_int_equal(log_indexed(a), log_indexed(b));
    for (uint64_t i = 0; i <= a->bucket_mask; i++)
        compare_entries(&a->buckets[i], &b->buckets[i]);
    for (int i = 0; i < LOG_MARKS; i++)
        compare_marks(&a->marks[i], &b->marks[i]);
    for (uint64_t off = log_tail(a); off < log_head(a); off += 8)
        assert_int_equal(*log_words(a, off), *log_words(b, off));
}

static void compare_with_history(struct experiment *x, unsigned channel, uint64_t since,
                                 const uint64_t *out, size_t n)
{
    uint64_t low = 0, high = x->n_offs;
    while (low < high) {
        const uint64_t middle = (low + high) / 2;
        if (x->offs[middle] < since)
            low = middle + 1;
        else
            high = middle;
    }
    size_t found = 0;
    for (uint64_t number = low; number < x->n_offs; number++)
        if (stream_channel(&x->stream, number) == channel) {
            assert_true(found < n);
            assert_int_equal(out[found++], x->offs[number]);
        }
    assert_int_equal(found, n);
}

static void compare_resume(struct experiment *x)
{
    static uint64_t out[OUT_MAX], twins[OUT_MAX];
    char name[STREAM_NAME_MAX];
    const uint64_t back = random_below(&x->random, x->n_offs < 3000 ? x->n_offs : 3000);
    const uint64_t since = x->offs[x->n_offs - 1 - back];
    const unsigned c = stream_channel(&x->stream, random_next(&x->random));
    struct log_channel channel = { .name = name, .len = stream_name(c, name) };
    channel.hash = log_hash(x->log, name, channel.len);

    const uint64_t cut = log_indexed(x->copy);
    const int n = log_walk(x->copy, &channel, since, cut, out, OUT_MAX);
    assert_int_equal(n, log_walk(x->twin, &channel, since, cut, twins, OUT_MAX));
    if (n >= 0) {
        compare_with_history(x, c, since, out, (size_t)n);
    } else if (n == -ESTALE) {
        assert_true(since < log_tail(x->copy));
        x->n_gaps++;
    } else {
        assert_int_equal(n, -E2BIG);
        assert_true(since >= log_tail(x->copy));
    }
    x->n_resumes++;
}

static void verify(struct experiment *x)
{
    recover_copy(x);
    compare_with_twin(x->copy, x->twin);
    for (int i = 0; i < 200; i++)
        compare_resume(x);
}

/* ---- killing ---- */

static pid_t start_writer(struct experiment *x, uint64_t n_events)
{
    const pid_t pid = fork_child();
    assert_true(pid >= 0);
    if (pid == 0)
        _exit(writer(x, n_events));
    return pid;
}

static void reap(struct experiment *x, pid_t pid, const char *what)
{
    int status = -1;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL)
        fail_msg("%s: the writer ended with status %x", what, (unsigned)status);
    x->n_kills++;
    verify(x);
}

/* From outside, after a random number of bytes. */
static void kill_anywhere(struct experiment *x)
{
    const uint64_t goal = log_head(x->log) + random_below(&x->random, 4 * SIZE);
    const pid_t pid = start_writer(x, UINT64_MAX);
    while (log_head(x->log) < goal)
        (void)sched_yield();
    for (uint64_t n = random_below(&x->random, 1000); n; n--)
        (void)log_head(x->log);
    assert_int_equal(kill(pid, SIGKILL), 0);
    reap(x, pid, "at random");
}

static void kill_at(struct experiment *x, enum log_crash_point point, unsigned countdown)
{
    char what[32];
    (void)snprintf(what, sizeof(what), "crash point %d", (int)point);
    death.point = point;
    death.countdown = countdown;
    death.armed = true; /* for the child; verify() below needs it off */
    const pid_t pid = start_writer(x, PER_CHILD);
    death.armed = false;
    reap(x, pid, what);
}

/* A crash point in recovery is met only after a death that leaves it something to mend. */
static void kill_in_recovery(struct experiment *x, enum log_crash_point point)
{
    switch (point) {
    case LOG_CRASH_REPAIR_MARK:
        kill_at(x, LOG_CRASH_MARK_OFF, 1 + (unsigned)random_below(&x->random, 50));
        break;
    case LOG_CRASH_REPAIR_PUT:
        kill_at(x, LOG_CRASH_HEAD, 1 + (unsigned)random_below(&x->random, 50));
        break;
    default:
        kill_at(x, random_below(&x->random, 2) ? LOG_CRASH_BUCKET_LAST : LOG_CRASH_BUCKET_HASH,
                1 + (unsigned)random_below(&x->random, 50));
    }
    kill_at(x, point, 1);
}

static void kill_at_point(struct experiment *x, enum log_crash_point point)
{
    if (point >= LOG_CRASH_REPAIR_HASH)
        kill_in_recovery(x, point);
    else
        kill_at(x, point, 1 + (unsigned)random_below(&x->random, 100));
}

/* Does the stream come to this point in a log whose index has all channels already? */
static bool met_without_replacement(enum log_crash_point point)
{
    switch (point) {
    case LOG_CRASH_BUCKET_ODD:
    case LOG_CRASH_BUCKET_FLOOR:
    case LOG_CRASH_BUCKET_LAST:
    case LOG_CRASH_BUCKET_HASH:
    case LOG_CRASH_BUCKET_EVEN:
    case LOG_CRASH_REPAIR_HASH:
    case LOG_CRASH_REPAIR_LAST:
    case LOG_CRASH_REPAIR_EVEN:
        return false;
    default:
        return true;
    }
}

/* ---- the experiments ---- */

static struct log *create(uint64_t seed)
{
    struct log *log = NULL;
    assert_int_equal(log_create(SIZE, &log), 0);
    secret_set(log, seed);
    return log;
}

static void begin(struct experiment *x, unsigned n_channels)
{
    const uint64_t seed = test_seed();
    *x = (struct experiment){ .random = mix(seed) };
    x->stream = (struct stream){ .seed = seed, .n_channels = n_channels, .event_max = SIZE / 16 };
    uint64_t secret = seed;
    do { /* few channels never overflow a bucket, with nearly all secrets */
        log_close(x->log);
        x->log = create(secret);
        x->exact = follow_is_exact(x->log, &x->stream);
    } while (n_channels < 50 && !x->exact && secret++ < seed + 100);
    x->twin = create(secret);
    x->copy = create(secret);
    for (uint64_t number = 0; number < WARM_UP; number++)
        assert_int_not_equal(append(x->log, &x->stream, number), 0);
    log_set_up(x->log, true);
    x->reader = fork_child();
    assert_true(x->reader >= 0);
    if (x->reader == 0)
        _exit(reader(x));
}

static void end(struct experiment *x)
{
    int status = -1;
    log_set_up(x->log, false);
    assert_int_equal(waitpid(x->reader, &status, 0), x->reader);
    fprintf(stderr,
            "%" PRIu64 " kills (%" PRIu64 " with a record not indexed), %" PRIu64
            " events, %" PRIu64 " resumes (%" PRIu64 " gaps)\n",
            x->n_kills, x->n_half, x->n_offs, x->n_resumes, x->n_gaps);
    assert_int_equal(status, 0);
    log_close(x->log);
    log_close(x->twin);
    log_close(x->copy);
    free(x->offs);
}

static void kill_everywhere(unsigned n_channels)
{
    struct experiment x;
    const uint64_t n_kills = test_long() ? 1000 : 50;
    begin(&x, n_channels);
    do {
        for (int point = 0; point < LOG_CRASH_POINTS; point++)
            if (!x.exact || met_without_replacement(point))
                kill_at_point(&x, point);
        for (int i = 0; i < 15; i++)
            kill_anywhere(&x);
    } while (x.n_kills < n_kills);
    assert_true(x.n_half > 0 && x.n_gaps > 0);
    end(&x);
}

/* Every channel's newest record is known: whatever is called a gap must be one. */
static void killed_writers_with_few_channels(void **state)
{
    kill_everywhere(24);
}

/* Each append may evict a channel from the index. */
static void killed_writers_with_an_overflowing_index(void **state)
{
    kill_everywhere(3000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(killed_writers_with_few_channels),
        cmocka_unit_test(killed_writers_with_an_overflowing_index),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
