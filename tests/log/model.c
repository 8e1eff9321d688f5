#include "model.h"

#include <errno.h>
#include <stdlib.h>

void model_done(struct model *m)
{
    free(m->records);
    *m = (struct model){ 0 };
}

void model_append(struct model *m, const struct log *log, uint64_t off, unsigned channel,
                  const struct log_event *event)
{
    if (m->n == m->cap) {
        m->cap = m->cap ? 2 * m->cap : 1024;
        m->records = realloc(m->records, m->cap * sizeof(*m->records));
        if (!m->records)
            abort();
    }
    m->records[m->n++] = (struct model_record){ .off = off,
                                                .next = log_indexed(log),
                                                .pos = { event->pos[0], event->pos[1] },
                                                .time_ms = event->time_ms,
                                                .channel = channel,
                                                .kind = event->kind };
}

/* The first record at or after off. */
static size_t first_from(const struct model *m, uint64_t off)
{
    size_t low = 0, high = m->n;
    while (low < high) {
        const size_t middle = low + (high - low) / 2;
        if (m->records[middle].off < off)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

size_t model_between(const struct model *m, unsigned channel, uint64_t since, uint64_t cut,
                     uint64_t *out)
{
    size_t n = 0;
    for (size_t i = first_from(m, since); i < m->n && m->records[i].off < cut; i++)
        if (m->records[i].channel == channel)
            out[n++] = m->records[i].off;
    return n;
}

size_t model_last(const struct model *m, unsigned channel, uint64_t tail, uint64_t cut, size_t max,
                  uint64_t *out)
{
    size_t n = 0;
    for (size_t i = first_from(m, cut); i-- > 0 && m->records[i].off >= tail && n < max;) {
        const struct model_record *r = &m->records[i];
        if (r->channel == channel && (r->kind == RECORD_MESSAGE || r->kind == RECORD_GAP))
            out[n++] = r->off;
    }
    for (size_t i = 0; i < n / 2; i++) {
        const uint64_t off = out[i];
        out[i] = out[n - 1 - i];
        out[n - 1 - i] = off;
    }
    return n;
}

uint64_t model_boundary(const struct model *m, uint64_t since)
{
    const size_t i = first_from(m, since);
    if (i > 0 && m->records[i - 1].next >= since)
        return m->records[i - 1].next;
    return i < m->n ? m->records[i].off : since;
}

static int compare(const uint64_t a[2], const uint64_t b[2])
{
    for (int i = 0; i < 2; i++)
        if (a[i] != b[i])
            return a[i] < b[i] ? -1 : 1;
    return 0;
}

int model_seek_position(const struct model *m, uint64_t from, const uint64_t pos[2], uint64_t *ret)
{
    const struct model_record *newest = NULL, *found = NULL;
    for (size_t i = first_from(m, from); i < m->n; i++) {
        const struct model_record *r = &m->records[i];
        if (r->pos[0] == 0 && r->pos[1] == 0)
            continue;
        newest = r;
        if (compare(r->pos, pos) <= 0)
            found = r;
    }
    if (!found)
        return -ESTALE;
    *ret = found->next;
    return found == newest && compare(found->pos, pos) < 0 ? -ERANGE : 0;
}

int model_position_before(const struct model *m, uint64_t from, uint64_t off, uint64_t ret[2])
{
    for (size_t i = first_from(m, off); i-- > 0 && m->records[i].off >= from;) {
        const struct model_record *r = &m->records[i];
        if (r->next > off || (r->pos[0] == 0 && r->pos[1] == 0))
            continue;
        ret[0] = r->pos[0];
        ret[1] = r->pos[1];
        return 0;
    }
    return -ENOENT;
}
