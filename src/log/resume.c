/* Resuming: what does a channel have in [since, cut), and where does a position stand?
 *
 * `since` is a client's number: it is compared, never dereferenced. Offsets that are dereferenced
 * come from the index, from records and from marks. */
#include "layout.h"

#include <errno.h>

/* ---- one channel ---- */

/* The name on the record, against collisions of the hash. 1 the same, 0 another, -ESTALE lapped. */
static int is_of(const struct log *log, const struct log_record *record,
                 const struct log_channel *channel)
{
    uint64_t part[8];
    const _Atomic uint64_t *words = log_words(log, record->off) + LOG_HEAD_WORDS;
    bool same = record->hash == channel->hash && record->channel_len == channel->len;
    for (size_t at = 0; same && at < channel->len; at += sizeof(part)) {
        const size_t rest = channel->len - at, n = rest < sizeof(part) ? rest : sizeof(part);
        log_words_load(part, words + at / 8, (n + 7) / 8);
        same = memcmp(part, channel->name + at, n) == 0;
    }
    if (log_lapped(log, record->off))
        return -ESTALE;
    return same;
}

static void reverse(uint64_t *offs, size_t n)
{
    for (size_t i = 0; i < n / 2; i++) {
        const uint64_t off = offs[i];
        offs[i] = offs[n - 1 - i];
        offs[n - 1 - i] = off;
    }
}

/* The links don't tell. What is still held can be swept; what is gone may have been the channel's.
 */
static int unknown(const struct log *log, uint64_t since)
{
    return since < log_tail(log) ? -ESTALE : -E2BIG;
}

/* Fills out[] newest first. A record found at or after `since` and lapped is a gap, even when it is
 * beyond the cut: what lies before it is gone as well. */
static int walk_back(const struct log *log, const struct log_channel *channel, uint64_t since,
                     uint64_t cut, uint64_t *out, size_t max)
{
    struct log_at at = log_index_get(log, channel->hash);
    size_t n = 0;
    for (int hops = 0; at.off >= since && at.off != 0; hops++) {
        struct log_record record;
        if (!at.exact || hops == LOG_HOPS_MAX)
            return unknown(log, since);
        if (!log_peek(log, at.off, &record))
            return -ESTALE;
        if (at.off < cut) {
            const int same = is_of(log, &record, channel);
            if (same < 0)
                return same;
            if (same && n == max)
                return unknown(log, since);
            if (same)
                out[n++] = at.off;
        }
        at = (struct log_at){ record.prev, record.prev_exact };
    }
    return (int)n;
}

int log_walk(const struct log *log, const struct log_channel *channel, uint64_t since, uint64_t cut,
             uint64_t *out, size_t max)
{
    const int n = walk_back(log, channel, since, cut, out, max);
    if (n > 0)
        reverse(out, (size_t)n);
    return n;
}

static bool is_content(const struct log_record *record)
{
    return record->kind == RECORD_MESSAGE || record->kind == RECORD_GAP;
}

/* The newest `room` of the channel's records before `end`, newest first, by reading all of the log
 * before it. Returns their number. */
static size_t sweep_newest(const struct log *log, const struct log_channel *channel, uint64_t end,
                           uint64_t *out, size_t room)
{
    size_t n = 0; /* out[] is a ring */
    struct log_record record;
    for (uint64_t off = log_tail(log); off < end; off = record.next) {
        if (!log_peek(log, off, &record)) {
            record.next = log_tail(log); /* lapped: go on at what is held */
            if (record.next <= off)
                break;
            continue;
        }
        if (is_content(&record) && is_of(log, &record, channel) == 1)
            out[n++ % room] = off;
    }
    if (n < room) {
        reverse(out, n);
        return n;
    }
    reverse(out, n % room);
    reverse(out + n % room, room - n % room);
    return room;
}

int log_last(const struct log *log, const struct log_channel *channel, uint64_t cut, size_t max,
             uint64_t *out)
{
    const uint64_t indexed = log_indexed(log);
    struct log_at at = log_index_get(log, channel->hash);
    size_t n = 0;
    if (cut > indexed)
        cut = indexed;
    for (int hops = 0; n < max && at.off >= log_tail(log); hops++) {
        struct log_record record;
        if (!at.exact || hops == LOG_HOPS_MAX) {
            const uint64_t end = at.off < cut ? at.off + 1 : cut; /* at most there is one at off */
            n += sweep_newest(log, channel, end, out + n, max - n);
            break;
        }
        if (!log_peek(log, at.off, &record))
            break;
        if (at.off < cut && is_content(&record) && is_of(log, &record, channel) == 1)
            out[n++] = at.off;
        at = (struct log_at){ record.prev, record.prev_exact };
    }
    reverse(out, n);
    return (int)n;
}

/* ---- offsets and positions ---- */

int log_seek(const struct log *log, uint64_t since, uint64_t *ret)
{
    const uint64_t indexed = log_indexed(log);
    if (since > indexed)
        return -ERANGE;
    uint64_t off = since == indexed ? since : log_mark_before(log, since);
    while (off < since) {
        struct log_record record;
        if (log_peek(log, off, &record))
            off = record.next;
        else if (log_tail(log) > off)
            off = log_tail(log); /* lapped on the way */
        else
            return -ESTALE;
    }
    *ret = off;
    return since < log_tail(log) ? -ESTALE : 0;
}

/* A record boundary in [from, end] before which all positions are ≤ pos: the newest mark with a
 * position ≤ pos. Binary search; a 1/1024 without a usable mark is skipped towards `from`. */
static uint64_t mark_at_most(const struct log *log, const uint64_t pos[2], uint64_t from,
                             uint64_t end)
{
    uint64_t low = from >> log->mark_shift, high = (end >> log->mark_shift) + 1, best = from;
    while (low < high) {
        const uint64_t middle = low + (high - low) / 2;
        struct log_mark_copy mark;
        uint64_t slot = middle;
        bool found = false;
        for (;; slot--) {
            found = log_mark_get(log, slot, &mark) && mark.off >= from && mark.off < end &&
                    !log_pos_none(mark.pos);
            if (found || slot == low)
                break;
        }
        if (found && !log_pos_le(mark.pos, pos)) {
            high = slot;
            continue;
        }
        if (found)
            best = mark.off;
        low = middle + 1;
    }
    return best;
}

/* One try; -EAGAIN when lapped on the way. */
static int seek_position(const struct log *log, const uint64_t pos[2], uint64_t *ret)
{
    const uint64_t first = atomic_load_explicit(&log->header->identity_from, memory_order_relaxed);
    const uint64_t indexed = log_indexed(log), tail = log_tail(log);
    uint64_t found = 0;
    bool exact = false, newer = false;
    struct log_record record;

    for (uint64_t off = mark_at_most(log, pos, tail > first ? tail : first, indexed);
         off < indexed && !newer; off = record.next) {
        if (!log_peek(log, off, &record))
            return log_tail(log) > off ? -EAGAIN : -ESTALE;
        if (record.kind == RECORD_PAD || log_pos_none(record.pos))
            continue;
        newer = !log_pos_le(record.pos, pos);
        if (!newer) {
            found = record.next;
            exact = log_pos_le(pos, record.pos);
        }
    }
    *ret = found;
    if (!found)
        return -ESTALE;
    return newer || exact ? 0 : -ERANGE;
}

/* Ends: whoever is lapped finds fewer positions before pos, and at last none. */
int log_seek_position(const struct log *log, const uint64_t pos[2], uint64_t *ret)
{
    int r;
    do
        r = seek_position(log, pos, ret);
    while (r == -EAGAIN);
    return r;
}

/* The newest position in [from, end), both record boundaries but for a made-up end. */
static int newest_position(const struct log *log, uint64_t from, uint64_t end, uint64_t ret[2])
{
    int r = -ENOENT;
    struct log_record record;
    for (uint64_t off = from; off < end; off = record.next) {
        if (!log_peek(log, off, &record))
            return -ESTALE;
        if (record.kind == RECORD_PAD || log_pos_none(record.pos) || record.next > end)
            continue;
        ret[0] = record.pos[0];
        ret[1] = record.pos[1];
        r = 0;
    }
    return r;
}

int log_position_before(const struct log *log, uint64_t off, uint64_t ret[2])
{
    const uint64_t indexed = log_indexed(log), tail = log_tail(log);
    const uint64_t first = atomic_load_explicit(&log->header->identity_from, memory_order_relaxed);
    const uint64_t bottom = tail > first ? tail : first;
    uint64_t end = off < indexed ? off : indexed;
    int r = -ENOENT;
    while (r == -ENOENT && end > bottom) {
        const uint64_t mark = log_mark_before(log, end - 1), from = mark > bottom ? mark : bottom;
        if (from >= end)
            return -ESTALE; /* the writer has passed all of it */
        r = newest_position(log, from, end, ret);
        end = from;
    }
    return r;
}

int64_t log_oldest_time_ms(const struct log *log)
{
    uint64_t off = log_tail(log);
    while (off < log_indexed(log)) {
        struct log_record record;
        if (!log_peek(log, off, &record)) {
            const uint64_t tail = log_tail(log);
            if (tail <= off)
                break;
            off = tail;
            continue;
        }
        if (record.kind != RECORD_PAD)
            return (int64_t)record.time_ms;
        off = record.next;
    }
    return 0;
}
