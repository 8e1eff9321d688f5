/* Rows that stand before a channel's events.
 *
 * A reader asks for a channel's rows; everybody who asks while the query runs shares its answer. It
 * does not matter that the query began before their question: they are joined to the stream by what
 * the rows show, not by time, and get all that is not in them. The answer is the rows, an offset
 * `until`, and the offsets of those of the channel's events that stand before `until` and are not
 * in the rows. The source answers only when everything that the rows show has been appended, so
 * from `until` on every event is new, and readers need no rule of their own.
 *
 * Which events before `until` are not in the rows? Those that the source's contains() denies. An
 * event can be appended before the query was asked for and yet not be in its rows (a transaction is
 * in the stream a moment before others see it), so where the query began is no bound; `floor` is,
 * the source's word that everything up to there is in the rows. Where the log has been overwritten
 * beyond the floor (a transaction is open that is older than the whole log), the search begins at
 * the log's tail: what stood before it and is not in the rows would be of a transaction whose
 * commit has been in the stream for as long as the log reaches back and is still not seen by
 * others. Only one that waits so long for a synchronous standby is like that.
 *
 * A source that cannot tell what the rows contain is joined by time: everything after the question
 * comes after the rows. There the channel must have been heard before the question was put, so who
 * began to listen later waits for the next query.
 *
 * An answer is kept once, counted, and sent in fragments while its readers take them: a slow one
 * holds no more than one answer for each channel, and nobody up. */
#include "snapshots.h"

#include "core.h"

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define MISSING_MAX   65536 /* events of one channel that came while the query ran */
#define FRAGMENTS_MAX 16    /* for one reader in a turn */
#define TRIES_MAX     3     /* of a query whose answers are spoilt, until its readers are refused */

static const char no_memory[] = "out of memory";

struct snapshot_query {
    const char *channel, *sql;
    size_t channel_len;
    struct list waiting; /* for the next query */
    struct list sharing; /* the one that runs */
    uint64_t asked_at;   /* the log's head when it was asked for */
    struct repeat told;  /* its failures in the log */
    struct backoff spoilt;
    int64_t not_before_ms; /* it is not asked again */
};

struct snapshot_request {
    struct list node;
    struct peer *peer;
    uint64_t number;
};

/* An answer, shared by those who get it. */
struct snapshot_answer {
    unsigned refs;
    size_t rows_len, len;
    uint64_t until;
    uint8_t data[];
};

struct snapshot_delivery {
    struct list node; /* in peer->rows */
    struct snapshot_answer *answer;
    const struct snapshot_query *query;
    uint64_t number;
    size_t at;
};

int snapshots_init(struct snapshots *s, struct engine *engine, const struct engine_snapshot *list,
                   size_t n)
{
    *s = (struct snapshots){ .engine = engine, .n = n };
    s->queries = n ? calloc(n, sizeof(*s->queries)) : NULL;
    if (n && !s->queries)
        return -ENOMEM;
    for (size_t i = 0; i < n; i++) {
        struct snapshot_query *q = &s->queries[i];
        q->channel = list[i].channel;
        q->channel_len = strlen(list[i].channel);
        q->sql = list[i].sql;
        list_init(&q->waiting);
        list_init(&q->sharing);
    }
    return 0;
}

void snapshots_done(struct snapshots *s)
{
    free(s->queries);
    *s = (struct snapshots){ 0 };
}

/* ---- asking ---- */

static void ask(struct snapshots *s, struct snapshot_query *q)
{
    s->asked = q;
    s->running = true;
    q->asked_at = log_head(s->engine->log);
    list_move_all(&q->sharing, &q->waiting);
    s->engine->class->snapshot(s->engine->source, ++s->last, q->sql);
}

static void on_later(uv_timer_t *timer)
{
    struct engine *engine = timer->data;
    snapshots_ask(&engine->snapshots);
}

static void ask_later(struct snapshots *s, int64_t wait_ms)
{
    uv_update_time(&s->engine->loop);
    (void)uv_timer_start(&s->engine->ask, on_later, (uint64_t)wait_ms, 0);
}

void snapshots_ask(struct snapshots *s)
{
    int64_t now_ms = engine_now_ms(s->engine), later_ms = INT64_MAX;
    for (size_t i = 0; i < s->n && s->engine->stream.up && !s->running; i++) {
        struct snapshot_query *q = &s->queries[s->next];
        s->next = (s->next + 1) % s->n;
        if (list_empty(&q->waiting))
            continue;
        if (now_ms >= q->not_before_ms)
            ask(s, q);
        else if (q->not_before_ms < later_ms)
            later_ms = q->not_before_ms;
    }
    if (!s->running && later_ms < INT64_MAX)
        ask_later(s, later_ms - now_ms);
}

static void ask_again(struct snapshots *s)
{
    s->running = false;
    list_move_all(&s->asked->sharing, &s->asked->waiting); /* who came first stays first */
    list_move_all(&s->asked->waiting, &s->asked->sharing);
}

void snapshots_lost(struct snapshots *s)
{
    if (s->running)
        ask_again(s);
}

/* ---- requests ---- */

static struct snapshot_query *find_query(const struct snapshots *s, const struct inbox_text *name)
{
    for (size_t i = 0; i < s->n; i++) {
        struct snapshot_query *q = &s->queries[i];
        if (q->channel_len == name->len && memcmp(q->channel, name->text, name->len) == 0)
            return q;
    }
    return NULL;
}

static void refuse(struct engine *engine, struct peer *peer, uint64_t number,
                   const struct inbox_text *channel, enum error_code code, const char *why)
{
    struct inbox_message m = { .type = INBOX_ROWS,
                               .a = number,
                               .code = (uint16_t)code,
                               .texts = { *channel, inbox_text(why, strlen(why)) } };
    peer_send(peer, &m);
    engine->talked = true;
}

static bool may_share(const struct snapshots *s, const struct snapshot_query *q)
{
    const struct interest *in = &s->engine->interest;
    return s->running && s->asked == q &&
           interest_covered_from(in, q->channel, q->channel_len) <= q->asked_at;
}

static struct snapshot_request *find_request(struct list *requests, const struct peer *peer)
{
    for (struct list *l = requests->next; l != requests; l = l->next) {
        struct snapshot_request *r = list_entry(l, struct snapshot_request, node);
        if (r->peer == peer)
            return r;
    }
    return NULL;
}

void engine_on_snapshot(struct engine *engine, struct peer *peer, const struct inbox_message *m)
{
    struct snapshots *s = &engine->snapshots;
    struct snapshot_query *q = find_query(s, &m->texts[0]);
    struct list *requests = q && may_share(s, q) ? &q->sharing : q ? &q->waiting : NULL;
    struct snapshot_request *r = q ? find_request(requests, peer) : NULL;
    if (!r && q && (r = malloc(sizeof(*r)))) {
        *r = (struct snapshot_request){ .peer = peer };
        list_push(requests, &r->node);
    }
    if (!r) {
        refuse(engine, peer, m->a, &m->texts[0], q ? CODE_OVERLOADED : CODE_NOT_SUPPORTED,
               q ? no_memory : "the channel has no query");
        return;
    }
    r->number = m->a; /* who asks once more gets one answer, for the newer question */
    snapshots_ask(s);
}

static void drop_requests(struct list *requests, const struct peer *peer)
{
    for (struct list *l = requests->next, *next; l != requests; l = next) {
        struct snapshot_request *r = list_entry(l, struct snapshot_request, node);
        next = l->next;
        if (r->peer == peer) {
            list_remove(l);
            free(r);
        }
    }
}

static void unref(struct snapshot_answer *answer)
{
    if (answer && --answer->refs == 0)
        free(answer);
}

/* The first of them. */
static void drop_delivery(struct peer *peer)
{
    struct list *node = list_pop(&peer->rows);
    if (!node)
        return;
    struct snapshot_delivery *d = list_entry(node, struct snapshot_delivery, node);
    unref(d->answer);
    free(d);
}

void snapshots_leave(struct snapshots *s, struct peer *peer)
{
    for (size_t i = 0; i < s->n; i++) {
        drop_requests(&s->queries[i].waiting, peer);
        drop_requests(&s->queries[i].sharing, peer);
    }
    while (!list_empty(&peer->rows))
        drop_delivery(peer);
}

/* ---- which events the rows do not contain ---- */

struct search {
    const struct log *log;
    const struct snapshot_query *query;
    const struct fw_snapshot *snapshot;
    uint64_t hash;
    uint64_t *offsets;
    size_t n, cap;
};

/* What says that something may be missing has no transaction: it counts from the question on. */
static bool is_missing(const struct search *s, const struct log_record *record)
{
    bool placed = record->pos[0] != 0 || record->pos[1] != 0;
    if (record->hash != s->hash || (record->kind != RECORD_MESSAGE && record->kind != RECORD_GAP))
        return false;
    return placed ? !s->snapshot->contains(s->snapshot->arg, record->pos, record->xid)
                  : record->off >= s->query->asked_at;
}

static int keep(struct search *s, uint64_t off)
{
    if (s->n == MISSING_MAX)
        return -EMSGSIZE;
    if (s->n == s->cap) {
        size_t cap = s->cap ? s->cap * 2 : 64;
        uint64_t *offsets = realloc(s->offsets, cap * sizeof(*offsets));
        if (!offsets)
            return -ENOMEM;
        s->offsets = offsets;
        s->cap = cap;
    }
    s->offsets[s->n++] = off;
    return 0;
}

static int look_at(struct search *s, uint64_t off, uint64_t *ret_next)
{
    struct log_record record;
    if (log_peek(s->log, off, &record) == 0)
        return -ESTALE; /* never: we are the writer */
    *ret_next = record.next;
    return is_missing(s, &record) ? keep(s, off) : 0;
}

/* By the channel's links where that is short, else through all records. */
static int search(struct search *s, uint64_t from, uint64_t until)
{
    uint64_t found[LOG_HOPS_MAX] = { 0 }, next = until;
    const struct log_channel name = { s->hash, s->query->channel, s->query->channel_len };
    int n = log_walk(s->log, &name, from, until, found, LOG_HOPS_MAX), r = 0;
    for (int i = 0; i < n && r == 0; i++)
        r = look_at(s, found[i], &next);
    if (n >= 0)
        return r;
    for (uint64_t at = from; at < until && r == 0; at = next)
        r = look_at(s, at, &next);
    return r;
}

/* Where the search begins. */
static uint64_t search_from(const struct log *log, const struct fw_snapshot *snapshot,
                            uint64_t until)
{
    uint64_t from = until;
    int r = log_seek_position(log, snapshot->floor, &from);
    return r == -ERANGE ? until : r < 0 ? log_tail(log) : from;
}

/* ---- answers ---- */

static struct snapshot_answer *new_answer(const struct fw_snapshot *snapshot,
                                          const struct search *search, uint64_t until)
{
    size_t offsets = search->n * sizeof(*search->offsets);
    struct snapshot_answer *a = malloc(sizeof(*a) + snapshot->len + offsets);
    if (!a)
        return NULL;
    *a = (struct snapshot_answer){
        .refs = 1, .rows_len = snapshot->len, .len = snapshot->len + offsets, .until = until
    };
    if (snapshot->len)
        memcpy(a->data, snapshot->rows, snapshot->len);
    if (offsets)
        memcpy(a->data + snapshot->len, search->offsets, offsets);
    return a;
}

static void deliver(struct engine *engine, const struct snapshot_query *q,
                    const struct snapshot_request *r, struct snapshot_answer *answer)
{
    const struct inbox_text channel = inbox_text(q->channel, q->channel_len);
    struct snapshot_delivery *d = malloc(sizeof(*d));
    if (!d) {
        refuse(engine, r->peer, r->number, &channel, CODE_OVERLOADED, no_memory);
        return;
    }
    *d = (struct snapshot_delivery){ .answer = answer, .query = q, .number = r->number };
    answer->refs++;
    list_push(&r->peer->rows, &d->node);
    engine_on_busy(engine, r->peer);
}

/* `answer` NULL: refused. */
static void answer_all(struct snapshots *s, struct snapshot_answer *answer, enum error_code code,
                       const char *why)
{
    struct snapshot_query *q = s->asked;
    const struct inbox_text channel = inbox_text(q->channel, q->channel_len);
    s->running = false;
    for (struct list *node; (node = list_pop(&q->sharing));) {
        struct snapshot_request *r = list_entry(node, struct snapshot_request, node);
        if (answer)
            deliver(s->engine, q, r, answer);
        else
            refuse(s->engine, r->peer, r->number, &channel, code, why);
        free(r);
    }
    snapshots_ask(s);
}

static void log_refusal(struct snapshots *s, const char *message)
{
    uint64_t repeats;
    if (engine_repeat(s->engine, &s->asked->told, &repeats))
        engine_log(s->engine, FW_LOG_WARNING, "snapshot-failed",
                   "the rows of channel %s: %s (%llu more since the last line)", s->asked->channel,
                   message, (unsigned long long)repeats);
}

/* Why there is none; NULL when there is. */
static const char *answer_exact(struct snapshots *s, const struct fw_snapshot *snapshot,
                                struct snapshot_answer **ret)
{
    const struct log *log = s->engine->log;
    uint64_t until = log_head(log);
    struct search search_of = { .log = log,
                                .query = s->asked,
                                .snapshot = snapshot,
                                .hash = log_hash(log, s->asked->channel, s->asked->channel_len) };
    int r = search(&search_of, search_from(log, snapshot, until), until);
    *ret = r == 0 ? new_answer(snapshot, &search_of, until) : NULL;
    free(search_of.offsets);
    if (r == -EMSGSIZE)
        return "too many events came while the query ran; make it quicker";
    return *ret ? NULL : no_memory;
}

/* Has something been lost since the question? Then so may be what the rows should have been joined
 * to: the next ones may be whole. What; NULL: nothing. */
static const char *what_is_lost(const struct snapshots *s)
{
    uint64_t asked_at = s->asked->asked_at;
    if (log_tail(s->engine->log) > asked_at)
        return "the log is overwritten while the query runs; "
               "make the log larger (--retain) or the query quicker";
    return s->engine->gap_at >= asked_at ? "events were lost while the query ran" : NULL;
}

/* Where the log is too small for the query, every answer is like this: the database is not asked
 * without end, nor at once by those who come after the refused. */
static void spoilt(struct snapshots *s, const char *why)
{
    struct snapshot_query *q = s->asked;
    q->not_before_ms = engine_now_ms(s->engine) + engine_back_off(s->engine, &q->spoilt);
    if (q->spoilt.attempts % TRIES_MAX == 0) {
        log_refusal(s, why);
        answer_all(s, NULL, CODE_OVERLOADED, why);
        return;
    }
    ask_again(s);
    snapshots_ask(s);
}

void fw_host_snapshot(struct fw_host *host, uint64_t request, const struct fw_snapshot *snapshot)
{
    struct snapshots *s = &engine_of(host)->snapshots;
    struct snapshot_answer *answer = NULL;
    if (!s->running || request != s->last)
        return;
    const char *why = what_is_lost(s);
    if (why) {
        spoilt(s, why);
        return;
    }
    backoff_reset(&s->asked->spoilt);
    if (snapshot->contains)
        why = answer_exact(s, snapshot, &answer);
    else if (!(answer = new_answer(snapshot, &(struct search){ 0 }, s->asked->asked_at)))
        why = no_memory;
    if (why)
        log_refusal(s, why);
    count(&s->engine->counters->source_snapshots, 1);
    answer_all(s, answer, CODE_OVERLOADED, why);
    unref(answer);
}

void fw_host_snapshot_refused(struct fw_host *host, uint64_t request, const char *code,
                              const char *message)
{
    struct snapshots *s = &engine_of(host)->snapshots;
    if (!s->running || request != s->last)
        return;
    log_refusal(s, message);
    answer_all(s, NULL, code_from_text(code), message);
}

/* ---- sending ---- */

/* One fragment. 1 when it was the last, 0, -EAGAIN, -EPIPE. */
static int send_fragment(struct peer *peer, struct snapshot_delivery *d)
{
    const struct snapshot_answer *a = d->answer;
    struct inbox_message m = { .type = INBOX_ROWS,
                               .a = d->number,
                               .b = a->rows_len,
                               .c = a->until,
                               .texts = { inbox_text(d->query->channel, d->query->channel_len) } };
    size_t room = INBOX_FRAGMENT_MAX - inbox_head_size(&m), left = a->len - d->at;
    m.more = left > room;
    m.len = m.more ? room : left;
    m.data = a->data + d->at;
    int r = inbox_send(peer->fd, &m, NULL, 0);
    if (r < 0)
        return r;
    d->at += m.len;
    return !m.more;
}

void snapshots_send(struct engine *engine, struct peer *peer)
{
    for (int i = 0; i < FRAGMENTS_MAX && !peer->deaf && !list_empty(&peer->rows); i++) {
        int r = send_fragment(peer, list_entry(peer->rows.next, struct snapshot_delivery, node));
        if (r == -EPIPE)
            peer_is_deaf(peer);
        if (r < 0)
            break;
        engine->talked = true;
        if (r == 1)
            drop_delivery(peer);
    }
    while (peer->deaf && !list_empty(&peer->rows))
        drop_delivery(peer);
}
