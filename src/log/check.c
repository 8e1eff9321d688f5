/* Verifies the invariants of layout.h on a quiet log. For tests; costs memory by the record held.
 */
#include "layout.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

/* What was seen of a channel so far. */
struct seen {
    uint64_t hash, last;
};

struct check {
    const struct log *log;
    uint64_t tail, head;
    struct seen *table;
    size_t table_mask;
    uint64_t pos[2]; /* the newest so far */
    char *why;
    size_t why_size;
};

static int fail(struct check *c, const char *what, uint64_t off, uint64_t other)
{
    if (c->why && c->why_size)
        (void)snprintf(c->why, c->why_size, "%s (at %" PRIu64 ": %" PRIu64 ")", what, off, other);
    return -EINVAL;
}

static struct seen *seen_of(struct check *c, uint64_t hash)
{
    size_t i = (size_t)(hash ^ hash >> 32) & c->table_mask;
    while (c->table[i].hash && c->table[i].hash != hash)
        i = (i + 1) & c->table_mask;
    c->table[i].hash = hash;
    return &c->table[i];
}

static int check_counters(struct check *c)
{
    const uint64_t indexed = log_indexed(c->log);
    if (c->tail > c->head || c->head - c->tail > log_size(c->log))
        return fail(c, "I3: tail and head are too far apart", c->tail, c->head);
    if (indexed != c->head)
        return fail(c, "indexed is not head", indexed, c->head);
    return 0;
}

/* I6: what was seen of the channel in [tail, off) is what prev tells. */
static int check_prev(struct check *c, const struct log_record *r, const struct seen *seen)
{
    if (r->prev_exact && seen->last && r->prev != seen->last)
        return fail(c, "I6: a link passes a record of its channel", r->off, r->prev);
    if (r->prev_exact && !seen->last && r->prev >= c->tail)
        return fail(c, "I6: a link to no record of its channel", r->off, r->prev);
    if (!r->prev_exact && r->prev < seen->last)
        return fail(c, "I6: a bound before a record of its channel", r->off, r->prev);
    return 0;
}

static int check_order(struct check *c, const struct log_record *r)
{
    const struct log_header *header = c->log->header;
    if (atomic_load_explicit(&header->identity, memory_order_relaxed) == 0 ||
        r->off < atomic_load_explicit(&header->identity_from, memory_order_relaxed) ||
        log_pos_none(r->pos))
        return 0;
    if (!log_pos_le(c->pos, r->pos))
        return fail(c, "I7: the position falls", r->off, r->pos[0]);
    c->pos[0] = r->pos[0];
    c->pos[1] = r->pos[1];
    return 0;
}

/* The mark of the record's 1/1024 is this record's or an earlier one's there, unless head has come
 * round to where tail is. */
static int check_mark(struct check *c, const struct log_record *r)
{
    const uint64_t slot = r->off >> c->log->mark_shift;
    struct log_mark_copy mark;
    if ((c->head - 1) >> c->log->mark_shift >= slot + LOG_MARKS)
        return 0;
    if (!log_mark_get(c->log, slot, &mark) || mark.off > r->off)
        return fail(c, "a record without a mark before it", r->off, mark.off);
    if (mark.off == r->off &&
        (mark.pos[0] != r->pos[0] || mark.pos[1] != r->pos[1] || mark.time_ms != r->time_ms))
        return fail(c, "the mark tells another position", r->off, mark.pos[0]);
    return 0;
}

static int check_record(struct check *c, const struct log_record *r)
{
    if (r->kind == RECORD_PAD)
        return 0;
    struct seen *seen = seen_of(c, r->hash);
    int result = check_prev(c, r, seen);
    if (result == 0)
        result = check_order(c, r);
    if (result == 0)
        result = check_mark(c, r);
    seen->last = r->off;
    return result;
}

/* I1, I2, I4: from tail to head there are whole records and nothing else. */
static int check_records(struct check *c)
{
    uint64_t off = c->tail;
    while (off < c->head) {
        struct log_record record;
        if (!log_peek(c->log, off, &record))
            return fail(c, "I2: no record", off, c->head);
        const int result = check_record(c, &record);
        if (result < 0)
            return result;
        off = record.next;
    }
    return off == c->head ? 0 : fail(c, "I4: head is inside a record", off, c->head);
}

static int check_entry(struct check *c, const struct log_entry *entry)
{
    const uint64_t hash = atomic_load_explicit(&entry->hash, memory_order_relaxed);
    const uint64_t last = atomic_load_explicit(&entry->last, memory_order_relaxed);
    struct log_record record;
    if (hash == 0 || (last && last < c->tail))
        return 0;
    if (last == 0 || last >= c->head || !log_peek(c->log, last, &record) || record.hash != hash)
        return fail(c, "I5: the index tells of no record of the channel", last, hash);
    return 0;
}

static int check_buckets(struct check *c)
{
    for (uint64_t i = 0; i <= c->log->bucket_mask; i++) {
        const struct log_bucket *bucket = &c->log->buckets[i];
        if (atomic_load_explicit(&bucket->seq, memory_order_relaxed) % 2)
            return fail(c, "a bucket is half written", i, 0);
        for (int k = 0; k < LOG_BUCKET_ENTRIES; k++) {
            const int result = check_entry(c, &bucket->entries[k]);
            if (result < 0)
                return result;
        }
    }
    return 0;
}

/* I5 from the other side: of each channel held, the index tells the newest or a bound not before
 * it. */
static int check_channels(struct check *c)
{
    for (size_t i = 0; i <= c->table_mask; i++) {
        const struct seen *seen = &c->table[i];
        if (!seen->hash)
            continue;
        const struct log_at at = log_index_get(c->log, seen->hash);
        if (at.exact ? at.off != seen->last : at.off < seen->last)
            return fail(c, "I5: the index tells of another than the newest", seen->last, at.off);
    }
    return 0;
}

int log_check(const struct log *log, char *why, size_t size)
{
    struct check c = {
        .log = log, .tail = log_tail(log), .head = log_head(log), .why = why, .why_size = size
    };
    int result = check_counters(&c);
    if (result < 0)
        return result;

    size_t slots = 2; /* more than twice the records that can be held */
    while (slots < 2 * ((c.head - c.tail) / sizeof(struct log_record_head) + 1))
        slots *= 2;
    c.table_mask = slots - 1;
    c.table = calloc(slots, sizeof(*c.table));
    if (!c.table)
        return fail(&c, "no memory for the check", slots, 0);
    result = check_records(&c);
    if (result == 0)
        result = check_buckets(&c);
    if (result == 0)
        result = check_channels(&c);
    free(c.table);
    return result;
}
