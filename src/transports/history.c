/* GET /history/CHANNEL: what the log holds of a channel, as JSON. The answer waits up to two
 * seconds for the source to say from where the channel is covered; without that word a `since` is
 * answered with a gap, or, being of a source that keeps events, with itself and nothing else.
 *
 * With `wait` it is a long poll: where there is nothing to tell, the request stays in the channel's
 * list of polls. Ingest looks at that list when an event of the channel passes (it has the channel
 * in hand then, as for the feeds), and resolve() answers in slices. */
#include "control.h"
#include "json.h"
#include "turn.h"

#include <errno.h>
#include <stdlib.h>

#define LIMIT_DEFAULT 100
#define WORD_MS       2000       /* for the source's word */
#define BODY_SOFT_MAX (1u << 20) /* an answer ends after the event that reaches this */

struct page {
    struct buf *out;
    uint64_t next;
    uint32_t count;
    bool more;
    struct resume gap; /* what was met on the way */
    bool asked_gap;    /* there is one, and it begins where the client stands */
};

/* An answer has room for one gap: several are told as one that reaches over all of them. */
static void gap_add(struct resume *gap, const struct resume *other)
{
    if (!gap->reason) {
        *gap = *other;
        return;
    }
    gap->after = other->after < gap->after ? other->after : gap->after; /* 0: unknown */
    gap->before = other->before > gap->before ? other->before : gap->before;
}

/* A gap of the channel itself: an event that was too large, a time in which nobody listened. */
static int page_gap(struct worker *w, struct page *page, struct log_record *record)
{
    page->next = record->next;
    if (record->kind != RECORD_GAP)
        return 0;
    int r = read_body(w, record);
    if (r <= 0)
        return r == 0 ? -ESTALE : r;
    struct resume gap = { .before = record->next };
    if (control_decode(record->data, record->len, &gap.after, &gap.reason) == 0)
        gap_add(&page->gap, &gap);
    return 0;
}

void history_cancel(struct worker *w, struct conn *c)
{
    struct history_request *history = c->more ? c->more->history : NULL;
    if (!history)
        return;
    c->more->history = NULL;
    list_remove(&history->node);
    channel_release(w, history->channel);
    free(history);
}

void history_begin(struct worker *w, struct conn *c, const struct params *params)
{
    struct history_request *history = malloc(sizeof(*history));
    struct channel *channel =
        history ? channel_acquire(w, params->channels[0].name, params->channels[0].len) : NULL;
    if (!channel) {
        free(history);
        http_problem(w, c, CODE_OVERLOADED, "out of memory");
        http_answered(w, c);
        return;
    }
    *history = (struct history_request){
        .conn = c,
        .channel = channel,
        .since = params->has_since || params->wait_s ? params->since
                                                     : (struct since){ .kind = SINCE_OLDEST },
        .last = params->last,
        .limit = params->limit  ? params->limit
                 : params->last ? params->last
                                : LIMIT_DEFAULT,
        .poll = params->wait_s && !w->draining && !(c->flags & CONN_EOF),
    };
    history->claims = params->has_since || history->poll;
    history->asked = history->since;
    history->until_ms = w->now_ms + (history->poll ? params->wait_s * 1000 : WORD_MS);
    c->more->history = history;
    c->state = CONN_WAIT;
    history_advance(w, c);
}

/* One event into the page. 1: taken; 0: not an event; < 0. */
static int page_add(struct worker *w, struct page *page, uint64_t off)
{
    struct log_record record;
    if (log_peek(w->log, off, &record) == 0)
        return -ESTALE;
    if (record.kind != RECORD_MESSAGE)
        return page_gap(w, page, &record);
    int r = read_body(w, &record);
    if (r <= 0)
        return r == 0 ? -ESTALE : r;
    size_t before = page->out->len;
    if (page->count && buf_append_char(page->out, ',') < 0)
        return -ENOMEM;
    if (record_json(w, page->out, &record) < 0) {
        page->out->len = before;
        return -EMSGSIZE;
    }
    page->count++;
    page->next = record.next;
    return 1;
}

/* Fills the page with the offsets given. */
static int page_list(struct worker *w, struct page *page, const uint64_t *offsets, int n,
                     uint32_t limit)
{
    for (int i = 0; i < n; i++) {
        if (page->count >= limit || page->out->len > BODY_SOFT_MAX) {
            page->more = true;
            return 0;
        }
        int r = page_add(w, page, offsets[i]);
        if (r < 0)
            return r;
    }
    return 0;
}

/* Everything of the channel in [from, cut), at most `limit` events; a bounded sweep where the
 * channel's links lead too far. */
static int page_range(struct worker *w, struct page *page, const struct log_channel *name,
                      uint64_t from, uint64_t cut, uint32_t limit)
{
    uint64_t offsets[LOG_HOPS_MAX];
    page->next = from;
    int n = log_walk(w->log, name, from, cut, offsets, LOG_HOPS_MAX);
    if (n >= 0) {
        int r = page_list(w, page, offsets, n, limit);
        page->next = r == 0 && !page->more ? cut : page->next;
        return r;
    }
    uint64_t at = from;
    if (n == -ESTALE || log_seek(w->log, from, &at) < 0)
        return -ESTALE;
    for (unsigned i = 0; i < (1u << 16) && at < cut; i++) {
        struct log_record record;
        if (log_peek(w->log, at, &record) == 0)
            return -ESTALE;
        if (record.kind != RECORD_PAD && record.hash == name->hash) {
            if (page->count >= limit || page->out->len > BODY_SOFT_MAX)
                break;
            int r = page_add(w, page, at);
            if (r < 0)
                return r;
        }
        page->next = at = record.next;
    }
    page->more = at < cut;
    return 0;
}

/* `asked`: where the client stands, for a gap that begins there; "" for another. */
static void write_gap(struct worker *w, struct buf *out, const struct resume *gap,
                      const char *asked)
{
    char after[POSITION_TEXT_MAX];
    if (!*asked && gap->after)
        (void)position_write_place(after, w->log, gap->after);
    if (*asked || gap->after)
        buf_printf(out, "{\"after\":\"%s\"", *asked ? asked : after);
    else
        buf_append_str(out, "{\"after\":null");
    buf_printf(out, ",\"before\":\"%s\",\"reason\":\"%s\"}", worker_place(w, gap->before),
               reason_text(gap->reason));
}

static struct resume history_resume(struct worker *w, const struct history_request *history,
                                    const struct log_channel *name, uint64_t cut)
{
    const struct channel *channel = history->channel;
    uint64_t covered = channel->state == CHANNEL_READY ? channel->covered_from : cut;
    struct resume r = resume_channel(w->log, name, &history->since, covered, cut);
    if (r.reason == REASON_NONE) {
        struct resume control = resume_control(w, &history->since, cut);
        if (control.reason) {
            control.from = r.from;
            return control;
        }
    }
    return r;
}

/* The events for the answer into page->out. 0 or -errno; *ret_resume: the gap on the way, if any.
 */
static int collect(struct worker *w, const struct history_request *history, struct page *page,
                   struct resume *ret_resume)
{
    const struct channel *channel = history->channel;
    struct log_channel name = { channel->hash, channel->name, channel->len };
    uint64_t cut = page->next;
    int r;
    if (history->last) {
        uint64_t offsets[1000];
        int n = log_last(w->log, &name, cut, history->last, offsets);
        uint32_t skip = n > (int)history->limit ? (uint32_t)n - history->limit : 0;
        if (n > 0) {
            const struct since first = since_offset(w->log, offsets[skip]);
            *ret_resume = resume_control(w, &first, cut);
        }
        r = page_list(w, page, offsets + skip, n - (int)skip, history->limit);
        page->next = r == 0 && !page->more ? cut : page->next;
    } else {
        struct resume resume = history_resume(w, history, &name, cut);
        r = page_range(w, page, &name, resume.from, cut, history->limit);
        page->asked_gap = resume.reason != REASON_NONE;
        if (r == -ESTALE) /* overtaken while reading: the rest is for the next request */
            gap_add(&resume, &(struct resume){ cut, REASON_LAPPED, resume.from, cut });
        *ret_resume = resume;
    }
    if (r == -ESTALE) {
        page->next = cut;
        r = 0;
    }
    if (page->gap.reason)
        gap_add(ret_resume, &page->gap);
    return r;
}

static void body_begin(struct buf *body, const struct channel *channel)
{
    buf_append_str(body, "{\"channel\":");
    json_append_string(body, channel->name, channel->len);
    buf_append_str(body, ",\"events\":[");
}

/* `next`: a position. */
static void body_end(struct worker *w, struct buf *body, const char *next, bool more,
                     const struct resume *gap, const char *asked)
{
    buf_printf(body, "],\"next\":\"%s\",\"more\":%s,\"gap\":", next, more ? "true" : "false");
    if (gap->reason)
        write_gap(w, body, gap, asked);
    else
        buf_append_str(body, "null");
    buf_append_str(body, "}\n");
}

static void answer(struct worker *w, struct conn *c, const struct buf *body, int r)
{
    history_cancel(w, c);
    c->state = CONN_HTTP;
    if (r < 0 || body->failed)
        http_problem(w, c, CODE_OVERLOADED, "not enough memory for this answer; ask for less");
    else
        http_respond(w, c, 200, "application/json", c->more->fields, body->data, body->len);
    http_answered(w, c);
}

/* What was looked at need not be looked at again. */
static void wait_from(struct worker *w, struct history_request *history, uint64_t off)
{
    history->since = since_offset(w->log, off);
    list_push(&history->channel->polls, &history->node);
    conn_arm(w, history->conn);
}

/* Where the client stands, in its own words if it had some. */
static const char *own_place(struct worker *w, const struct history_request *history,
                             char text[POSITION_TEXT_MAX])
{
    if (history->asked.kind != SINCE_POSITION)
        return worker_place(w, history->since.position.a);
    (void)position_text(text, &history->asked.position);
    return text;
}

/* Where a client goes on that has missed nothing. While the log is just being recovered, the place
 * has no position that another server would understand; the client's own may be one. */
static const char *quiet_place(struct worker *w, const struct history_request *history,
                               uint64_t off, char text[POSITION_TEXT_MAX])
{
    const struct since *asked = &history->asked;
    const char *place = worker_place(w, off);
    bool better = asked->kind == SINCE_POSITION && asked->position.kind == POSITION_DURABLE;
    return place[0] == 'l' && better ? own_place(w, history, text) : place;
}

/* Answers with what there is; or, where a poll may wait on and there is nothing, does not. */
static void answer_or_wait(struct worker *w, struct conn *c, bool may_wait)
{
    struct history_request *history = c->more->history;
    struct buf body = buf_make(RESPONSE_MAX / 2);
    struct page page = { .out = &body, .next = log_indexed(w->log) };
    struct resume gap = { 0 };
    body_begin(&body, history->channel);
    int r = collect(w, history, &page, &gap);
    bool nothing = r == 0 && !page.count && !page.more && !gap.reason;
    if (may_wait && nothing) {
        wait_from(w, history, page.next);
    } else {
        char text[POSITION_TEXT_MAX], asked[POSITION_TEXT_MAX] = "";
        if (page.asked_gap && history->asked.kind == SINCE_POSITION)
            (void)position_text(asked, &history->asked.position);
        const char *next =
            nothing ? quiet_place(w, history, page.next, text) : worker_place(w, page.next);
        body_end(w, &body, next, page.more, &gap, asked);
        answer(w, c, &body, r);
    }
    buf_done(&body);
}

/* The source has not said what became of the channel since then: nothing is claimed, and the client
 * goes on from where it is. */
static void answer_unheard(struct worker *w, struct conn *c)
{
    struct history_request *history = c->more->history;
    struct buf body = buf_make(4096);
    struct resume none = { 0 };
    char text[POSITION_TEXT_MAX];
    const char *next = own_place(w, history, text);
    body_begin(&body, history->channel);
    body_end(w, &body, next, false, &none, "");
    answer(w, c, &body, 0);
    buf_done(&body);
}

void history_advance(struct worker *w, struct conn *c)
{
    struct history_request *history = c->more->history;
    if (c->state == CONN_DEAD) {
        history_cancel(w, c);
    } else if (history->claims && history->channel->state == CHANNEL_ASKING) {
        list_push(&history->channel->histories, &history->node);
        conn_arm(w, c);
    } else if (history->poll && history->channel->state == CHANNEL_REFUSED) {
        enum error_code code = history->channel->refused_code;
        history_cancel(w, c);
        http_problem(w, c, code, code_title(code));
        http_answered(w, c);
    } else if (!page_waits(w, history)) {
        answer_or_wait(w, c, history->poll);
    }
}

void http_answer_history(struct worker *w, struct conn *c)
{
    const struct history_request *history = c->more->history;
    const struct since *since = &history->since;
    /* Without `wait`, a local position may be of a source that keeps nothing: that is a gap. */
    bool unheard = history->channel->state == CHANNEL_ASKING && since->kind == SINCE_POSITION &&
                   (history->poll ? since->position.kind != POSITION_FOREIGN
                                  : since->position.kind == POSITION_DURABLE);
    /* Ahead of this log: a gap only when its time is up, not when the drain cuts the wait short. */
    bool waiting = w->down || w->now_ms < history->until_ms;
    if (unheard || (waiting && is_ahead(w, &history->since)))
        answer_unheard(w, c);
    else
        answer_or_wait(w, c, false);
}

void history_answer_polls(struct worker *w)
{
    for (uint32_t i = 0; i < w->n_conns; i++) {
        struct conn *c = w->conns[i];
        if (c->state != CONN_DEAD && c->more && c->more->history && c->more->history->poll)
            http_answer_history(w, c);
    }
}
