/* Snapshots: rows that stand before a channel's events.
 *
 * A worker asks the source process once for all who join a channel while it waits. The answer
 * (inbox.h) is rows, the offsets of those events that the rows do not contain although they stand
 * before offset `until`, and `until`. A join that has its rows is a resume from `until` on, before
 * which it is sent the rows and those events: nothing else in a worker knows of snapshots.
 *
 * One answer is shared by all its joiners, and becomes frames once for each format, piece by piece
 * as the first of them gets on. The events are made frames at once, before the log moves on. */
#include "snapshot.h"

#include "turn.h"

#include <errno.h>
#include <fanwire/source.h>
#include <stdlib.h>
#include <string.h>

#define TEXT_KEEP   (1u << 20)  /* of scratch, after a large row */
#define FRAMES_MAX  (64u << 20) /* bytes of frames in one format */
#define OFFSETS_MAX (1u << 20)  /* bytes of offsets in an answer */

struct frames {
    struct buf bytes;
    uint32_t *ends;
    uint32_t n, cap;
};

struct rendering {
    struct frames rows, events;
    size_t at; /* how much of the rows is rendered */
    bool begun;
};

struct snapshot {
    uint32_t refs;
    struct buf answer; /* rows_len bytes of JSON texts, each followed by a NUL; then offsets */
    size_t rows_len;
    uint64_t until;
    size_t size; /* counted in worker->snapshot_bytes */
    bool lapped; /* some of the events were overwritten before they became frames */
    struct rendering renderings[N_FORMATS];
};

/* ---- memory ---- */

static void frames_done(struct frames *f)
{
    buf_done(&f->bytes);
    free(f->ends);
}

/* What it takes has changed. */
static void weigh(struct worker *w, struct snapshot *s)
{
    size_t size = s->answer.cap;
    for (int i = 0; i < N_FORMATS; i++) {
        const struct rendering *r = &s->renderings[i];
        size += r->rows.bytes.cap + r->events.bytes.cap;
        size += (r->rows.cap + r->events.cap) * sizeof(*r->rows.ends);
    }
    w->snapshot_bytes += size - s->size;
    s->size = size;
}

static struct snapshot *snapshot_new(void)
{
    struct snapshot *s = malloc(sizeof(*s));
    if (!s)
        return NULL;
    *s = (struct snapshot){ .refs = 1, .answer = buf_make(FW_SNAPSHOT_MAX + OFFSETS_MAX) };
    for (int i = 0; i < N_FORMATS; i++) {
        s->renderings[i].rows.bytes = buf_make(FRAMES_MAX);
        s->renderings[i].events.bytes = buf_make(FRAMES_MAX);
    }
    return s;
}

void snapshot_unref(struct worker *w, struct snapshot *s)
{
    if (!s || --s->refs > 0)
        return;
    w->snapshot_bytes -= s->size;
    for (int i = 0; i < N_FORMATS; i++) {
        frames_done(&s->renderings[i].rows);
        frames_done(&s->renderings[i].events);
    }
    buf_done(&s->answer);
    free(s);
}

uint64_t snapshot_until(const struct snapshot *s)
{
    return s->until;
}

bool snapshot_lapped(const struct snapshot *s)
{
    return s->lapped;
}

/* ---- asking ---- */

void snapshots_tell(struct worker *w)
{
    while (w->reader && !list_empty(&w->asks)) {
        struct channel *channel = list_entry(w->asks.next, struct channel, ask);
        uint64_t number = w->last_snapshot + 1;
        if (reader_snapshot(w->reader, number, channel->name, channel->len) < 0)
            return; /* goes on when the inbox takes more, or after the next source's `ready` */
        channel->snapshot_number = w->last_snapshot = number;
        list_remove(&channel->ask);
    }
}

void snapshot_forget(struct worker *w, struct channel *channel)
{
    list_remove(&channel->ask);
    channel->snapshot_number = 0;
    snapshot_unref(w, channel->arriving);
    channel->arriving = NULL;
}

static void ask(struct worker *w, struct channel *channel)
{
    if (channel->snapshot_number || list_linked(&channel->ask))
        return;
    list_push(&w->asks, &channel->ask);
    snapshots_tell(w);
}

bool snapshot_waits(struct worker *w, struct join *join)
{
    struct channel *channel = join->sub->channel;
    if (!join->rows || join->snapshot || channel->state != CHANNEL_READY)
        return false;
    ask(w, channel);
    return true;
}

/* ---- the answer ---- */

/* Everybody who waits for the rows gets on with them, as one who resumes. */
static void hand_out(struct worker *w, struct channel *channel, struct snapshot *s)
{
    for (uint32_t i = 0; i < channel->waiting.count; i++) {
        struct join *join = join_of(channel->waiting.items[i]);
        if (!join || !join->rows || join->snapshot)
            continue;
        s->refs++;
        join->snapshot = s;
        join->since = since_offset(w->log, s->until);
    }
    channel_resolved(w, channel);
}

/* From the end: who leaves is replaced by one that was looked at already. */
static void refuse_all(struct worker *w, struct channel *channel, enum error_code code)
{
    const char *why = code == CODE_OVERLOADED ? "the rows cannot be had now; try again later"
                                              : "the rows cannot be had; the server's log says why";
    channel->users++;
    for (uint32_t i = channel->waiting.count; i > 0; i--) {
        struct sub *sub = i <= channel->waiting.count ? channel->waiting.items[i - 1] : NULL;
        struct join *join = sub ? join_of(sub) : NULL;
        struct conn *c = sub ? sub->conn : NULL;
        if (!join || !join->rows || join->snapshot || c->state != CONN_STREAM)
            continue;
        sub_end(w, sub, code, why);
        joins_advance(w, c); /* its other channels may have waited for this one */
    }
    channel_release(w, channel);
}

static int take_part(struct worker *w, struct channel *channel, const struct reader_rows *part)
{
    if (!channel->arriving && !(channel->arriving = snapshot_new()))
        return -ENOMEM;
    struct snapshot *s = channel->arriving;
    s->until = part->until;
    s->rows_len = part->rows_len;
    int r = part->len ? buf_append(&s->answer, part->data, part->len) : 0;
    weigh(w, s);
    if (r == 0 && !part->more && s->rows_len > s->answer.len)
        return -EPROTO;
    return r;
}

void on_rows(void *worker, const struct reader_rows *part)
{
    struct worker *w = worker;
    uint64_t hash = log_hash(w->log, part->name, part->name_len);
    struct channel *channel =
        map_get(&w->channels, hash, channel_named, part->name, part->name_len);
    if (!channel || channel->snapshot_number != part->request)
        return; /* nobody wants it any more */
    bool full = w->snapshot_bytes > SNAPSHOTS_MAX;
    enum error_code code = full ? CODE_OVERLOADED : part->code;
    if (code == CODE_OK && take_part(w, channel, part) < 0)
        code = CODE_OVERLOADED;
    if (code == CODE_OK && part->more)
        return;
    struct snapshot *s = channel->arriving;
    channel->arriving = NULL;
    channel->snapshot_number = 0;
    if (code == CODE_OK)
        hand_out(w, channel, s);
    else
        refuse_all(w, channel, code);
    snapshot_unref(w, s);
}

/* ---- frames ---- */

static int frames_add(struct frames *f)
{
    if (f->n == f->cap) {
        uint32_t cap = f->cap ? f->cap * 2 : 64;
        uint32_t *ends = realloc(f->ends, cap * sizeof(*ends));
        if (!ends)
            return -ENOMEM;
        f->ends = ends;
        f->cap = cap;
    }
    f->ends[f->n++] = (uint32_t)f->bytes.len;
    return 0;
}

/* An EventSource that is cut off before `ready` has to begin anew: no id may stand there yet. */
static void drop_id(struct buf *bytes, size_t start)
{
    uint8_t *frame = bytes->data + start;
    size_t len = bytes->len - start;
    uint8_t *end = len > 4 && memcmp(frame, "id: ", 4) == 0 ? memchr(frame, '\n', len) : NULL;
    if (!end)
        return;
    size_t head = (size_t)(end + 1 - frame);
    memmove(frame, end + 1, len - head);
    bytes->len -= head;
}

static int render_event(struct worker *w, struct snapshot *s, enum frame_format format,
                        uint64_t off)
{
    struct frames *f = &s->renderings[format].events;
    struct log_record record;
    size_t start = f->bytes.len;
    int r = log_peek(w->log, off, &record) ? read_body(w, &record) : 0;
    if (r == 0)
        s->lapped = true;
    if (r <= 0)
        return r;
    r = encode_record(w, &f->bytes, format, &record);
    if (r < 0)
        return r;
    if (format == FORMAT_SSE_JSON)
        drop_id(&f->bytes, start);
    return frames_add(f);
}

static int render_events(struct worker *w, struct snapshot *s, enum frame_format format)
{
    int r = 0;
    s->renderings[format].begun = true;
    for (size_t at = s->rows_len; r >= 0 && at + sizeof(uint64_t) <= s->answer.len;
         at += sizeof(uint64_t)) {
        uint64_t off;
        memcpy(&off, s->answer.data + at, sizeof(off));
        r = render_event(w, s, format, off);
    }
    return r < 0 ? r : 0;
}

static int render_row(struct worker *w, struct snapshot *s, const struct channel *channel,
                      enum frame_format format)
{
    struct rendering *r = &s->renderings[format];
    char *row = (char *)s->answer.data + r->at;
    size_t len = strnlen(row, s->rows_len - r->at);
    for (size_t i = 0; i < len; i++) /* line ends stand only between tokens */
        row[i] = row[i] == '\n' || row[i] == '\r' ? ' ' : row[i];
    struct buf *json = &w->text;
    buf_clear(json);
    int e = json_snapshot(json, channel->name, channel->len, row, len);
    if (e == 0)
        e = frame_control(&r->rows.bytes, format, "snapshot", (const char *)json->data, json->len);
    r->at += len + 1 < s->rows_len - r->at ? len + 1 : s->rows_len - r->at;
    return e < 0 ? e : frames_add(&r->rows);
}

static uint32_t frame_start(const struct frames *f, uint32_t at)
{
    return at ? f->ends[at - 1] : 0;
}

static void parcel_of(const struct frames *f, uint32_t at, struct snapshot_parcel *ret)
{
    uint32_t base = frame_start(f, at), n = 0;
    while (at + n < f->n && (n == 0 || f->ends[at + n] - base <= VISIT_BYTES))
        n++;
    *ret = (struct snapshot_parcel){ .base = base, .n = n };
    if (n == 0)
        return;
    ret->bytes = f->bytes.data + base;
    ret->ends = f->ends + at;
    ret->len = f->ends[at + n - 1] - base;
}

int snapshot_frames(struct worker *w, struct snapshot *s, const struct channel *channel,
                    enum frame_format format, uint32_t at, struct snapshot_parcel *ret)
{
    struct rendering *r = &s->renderings[format];
    struct frames *rows = &r->rows;
    int e = r->begun ? 0 : render_events(w, s, format);
    while (e == 0 && r->at < s->rows_len &&
           (at >= rows->n || rows->bytes.len - frame_start(rows, at) < VISIT_BYTES))
        e = render_row(w, s, channel, format);
    if (w->text.cap > TEXT_KEEP)
        buf_done(&w->text);
    weigh(w, s);
    if (e < 0)
        return e;
    if (at < rows->n)
        parcel_of(rows, at, ret);
    else
        parcel_of(&r->events, at - rows->n, ret);
    return 0;
}
