#include "follow.h"

#include "layout.h"
#include "seed.h"

#include <errno.h>
#include <inttypes.h>
#include <sched.h>

#define FOUND_MAX 32768 /* more than the rings of the tests hold */
#define OLD       100000 /* events after which a place is forgotten: looking for the truth takes time */

/* The first failure is the one to tell. */
static int fail(struct follow *f, const char *what, uint64_t off, uint64_t number)
{
    if (!f->why[0])
        (void)snprintf(f->why, sizeof(f->why), "%s (at %" PRIu64 ", number %" PRIu64 ")", what, off,
                       number);
    return -1;
}

bool follow_is_exact(const struct log *log, const struct stream *stream)
{
    for (unsigned a = 0; a < stream->n_channels; a++) {
        char name[STREAM_NAME_MAX];
        unsigned same = 0;
        const uint64_t bucket = log_hash(log, name, stream_name(a, name)) & log->bucket_mask;
        for (unsigned b = 0; b < stream->n_channels; b++)
            same += (log_hash(log, name, stream_name(b, name)) & log->bucket_mask) == bucket;
        if (same > LOG_BUCKET_ENTRIES)
            return false;
    }
    return true;
}

int follow_init(struct follow *f, const struct log *log, const struct stream *stream, uint64_t seed,
                bool exact)
{
    *f = (struct follow){
        .log = log, .stream = stream, .random = mix(seed), .exact = exact, .off = log_tail(log)
    };
    f->buf = malloc(stream->event_max + 64);
    f->found = malloc(FOUND_MAX * sizeof(*f->found));
    return f->buf && f->found ? 0 : -1;
}

void follow_done(struct follow *f)
{
    free(f->buf);
    free(f->found);
}

/* 1 a whole record, 0 lapped, -1. */
static int read_whole(struct follow *f, uint64_t off, struct log_record *record)
{
    if (!log_peek(f->log, off, record))
        return 0;
    if (record->kind == RECORD_PAD)
        return 1;
    if (log_body_size(record) > f->stream->event_max + 16)
        return fail(f, "too large a record", off, record->xid);
    if (!log_body(f->log, record, f->buf))
        return 0;
    const char *wrong = stream_check(f->stream, f->log, record);
    if (wrong)
        return fail(f, wrong, off, record->xid - 1);
    return 1;
}

/* Goes on at the oldest record, where the writer is at work, or at the newest. */
static int jump(struct follow *f)
{
    const uint64_t tail = log_tail(f->log);
    if (tail <= f->off)
        return fail(f, "lapped, though tail has not come by", f->off, tail);
    f->n_laps++;
    f->known = false;
    f->off = random_below(&f->random, 4) ? tail : log_indexed(f->log);
    return 0;
}

static void remember(struct follow *f)
{
    if (random_below(&f->random, 16))
        return;
    f->places[random_below(&f->random, FOLLOW_PLACES)] =
        (struct follow_place){ .off = f->off,
                               .number = f->number,
                               .channel = stream_channel(f->stream, random_next(&f->random)) };
}

static int take(struct follow *f, const struct log_record *record)
{
    const uint64_t number = record->xid - 1;
    if (f->known ? number != f->number : number < f->number)
        return fail(f, "another event than the next one", f->off, number);
    f->number = number + 1;
    f->known = true;
    f->n_events++;
    return 0;
}

static int read_to(struct follow *f, uint64_t end, unsigned max)
{
    for (; f->off < end && max; max--) {
        struct log_record record;
        const int r = read_whole(f, f->off, &record);
        if (r < 0)
            return r;
        if (r == 0) {
            if (jump(f) < 0)
                return -1;
            continue;
        }
        if (record.kind != RECORD_PAD && take(f, &record) < 0)
            return -1;
        f->off = record.next;
        if (f->known)
            remember(f);
    }
    return 0;
}

int follow_read(struct follow *f, unsigned max)
{
    return read_to(f, log_indexed(f->log), max);
}

/* ---- resumes ---- */

/* The channel's next event that is `number` or later; at least `end` if there is none before. */
static uint64_t next_of(const struct follow *f, unsigned channel, uint64_t number, uint64_t end)
{
    while (number < end && stream_channel(f->stream, number) != channel)
        number++;
    return number;
}

/* Do found[] begin with the channel's events from place->number on, without a hole? 0 and the
 * number after the last one, or -1; *ret_lapped when that could not be seen to the end. */
static int check_found(struct follow *f, const struct follow_place *place, int n,
                       uint64_t *ret_next, bool *ret_lapped)
{
    uint64_t number = place->number;
    for (int i = 0; i < n; i++) {
        struct log_record record;
        const int r = read_whole(f, f->found[i], &record);
        if (r < 0)
            return r;
        if (r == 0) {
            *ret_lapped = true;
            break;
        }
        number = next_of(f, place->channel, number, number + 10 * OLD);
        if (record.kind == RECORD_PAD || record.xid - 1 != number)
            return fail(f, "a resume got another event than the next one", place->off, number);
        number++;
    }
    *ret_next = number;
    return 0;
}

/* What the hub does on -E2BIG. */
static int sweep(struct follow *f, const struct follow_place *place, uint64_t cut)
{
    struct log_record record;
    int n = 0;
    f->n_sweeps++;
    const uint64_t start = log_mark_before(f->log, place->off);
    if (start > place->off)
        return -ESTALE;
    for (uint64_t off = start; off < cut; off = record.next) {
        if (!log_peek(f->log, off, &record)) {
            if (log_tail(f->log) > place->off)
                return -ESTALE;
            record.next = log_tail(f->log); /* lapped before the place */
            continue;
        }
        if (record.kind == RECORD_PAD || off < place->off)
            continue;
        if (stream_channel(f->stream, record.xid - 1) == place->channel && n < FOUND_MAX)
            f->found[n++] = off;
    }
    return n;
}

/* A gap is true when something of the channel may be gone. */
static int check_gap(struct follow *f, const struct follow_place *place, bool at_cut)
{
    f->n_gaps++;
    if (place->off >= log_tail(f->log))
        return fail(f, "a gap where all is held", place->off, place->number);
    if (f->exact && at_cut && next_of(f, place->channel, place->number, f->number) >= f->number)
        return fail(f, "a false gap", place->off, place->number);
    return 0;
}

static int check_too_big(struct follow *f, const struct follow_place *place)
{
    unsigned n = 0;
    if (!f->exact)
        return 0;
    for (uint64_t i = place->number; i < place->number + 10 * OLD && n <= LOG_HOPS_MAX; i++)
        n += stream_channel(f->stream, i) == place->channel;
    return n > LOG_HOPS_MAX ? 0 : fail(f, "a sweep for few events", place->off, n);
}

static int resume_at(struct follow *f, const struct follow_place *place)
{
    char name[STREAM_NAME_MAX];
    struct log_channel channel = { .name = name, .len = stream_name(place->channel, name) };
    channel.hash = log_hash(f->log, name, channel.len);
    const uint64_t cut = log_indexed(f->log);
    uint64_t next = 0;
    bool lapped = false, swept = false;

    int n = log_walk(f->log, &channel, place->off, cut, f->found, FOUND_MAX);
    if (n == -E2BIG) {
        if (check_too_big(f, place) < 0)
            return -1;
        n = sweep(f, place, cut);
        swept = true;
    }
    if (n >= 0 && check_found(f, place, n, &next, &lapped) < 0)
        return -1;

    /* The truth: read on to the cut. */
    if (read_to(f, cut, UINT32_MAX) < 0)
        return -1;
    const bool at_cut = f->known && f->off == cut;
    if (n == -ESTALE)
        return check_gap(f, place, at_cut && !swept);
    if (n >= 0 && !lapped && at_cut && next_of(f, place->channel, next, f->number) < f->number)
        return fail(f, "a resume lost an event", place->off,
                    next_of(f, place->channel, next, f->number));
    return 0;
}

/* Until the writer has just told of a record: that is when its index might not know it yet. */
static void wait_for_news(const struct follow *f, unsigned max)
{
    const uint64_t indexed = log_indexed(f->log);
    while (max-- && log_indexed(f->log) == indexed)
        ;
}

int follow_resume(struct follow *f)
{
    const unsigned i = (unsigned)random_below(&f->random, FOLLOW_PLACES);
    const struct follow_place place = f->places[i]; /* a copy: reading on replaces places */
    if (!place.off)
        return 0;
    if (place.number + OLD < f->number) {
        f->places[i].off = 0;
        return 0;
    }
    f->n_resumes++;
    wait_for_news(f, 1000);
    return resume_at(f, &place);
}

/* Looks at the next record until the writer overwrites it: each look must show the same or nothing.
 * A look that shows a head half overwritten is hard to come by otherwise. */
static int watch(struct follow *f, unsigned max)
{
    struct log_record first, record;
    if (!log_peek(f->log, f->off, &first))
        return 0;
    while (max-- && log_peek(f->log, f->off, &record))
        if (record.next != first.next || record.hash != first.hash || record.xid != first.xid ||
            record.time_ms != first.time_ms || record.len != first.len || record.kind != first.kind)
            return fail(f, "a record changed", f->off, record.xid);
    return 0;
}

/* Stands still until the writer is about to lap it, or has. */
static int dawdle(struct follow *f)
{
    const uint64_t size = log_size(f->log);
    const uint64_t lag = size - size / 32 + random_below(&f->random, size / 16);
    while (log_up(f->log) && log_indexed(f->log) - f->off < lag)
        (void)sched_yield();
    return watch(f, 3000);
}

int follow_run(struct follow *f)
{
    for (;;) {
        const bool last = !log_up(f->log);
        if (random_below(&f->random, 100) == 0 && dawdle(f) < 0)
            return -1;
        if (follow_read(f, 1 + (unsigned)random_below(&f->random, 200)) < 0)
            return -1;
        if (random_below(&f->random, 4) == 0 && follow_resume(f) < 0)
            return -1;
        if (f->off == log_indexed(f->log)) {
            if (last)
                return 0;
            (void)sched_yield();
        }
    }
}
