/* Publishing: from a client, by the inbox, to the source process; the answer back to the client.
 * An answer means that the backend has the event. */
#include "turn.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define OUTSTANDING_MAX (1u << 20) /* bytes of a worker's unanswered publishes */

#define ID_JSON_MAX (POSITION_TEXT_MAX + 3) /* an id of a batch, with quotes and comma */

struct publishing {
    uint64_t request;
    struct conn *conn; /* NULL: gone meanwhile */
    size_t size;
    struct list unsent; /* in worker->unsent until the inbox takes it */
    struct publication what;
    struct buf ids; /* of a batch: those that came so far, as JSON */
    size_t n_ids;
    char bytes[]; /* everything that `what` points to */
};

static uint64_t hash_of(uint64_t request)
{
    return request * 0x9e3779b97f4a7c15u;
}

static bool same_request(const void *value, const void *key, size_t len)
{
    (void)len;
    return ((const struct publishing *)value)->request == *(const uint64_t *)key;
}

bool publish_full(const struct worker *w)
{
    return w->publish_bytes >= OUTSTANDING_MAX || !list_empty(&w->unsent);
}

static int send_one(struct worker *w, struct publishing *p)
{
    const struct publication *what = &p->what;
    if (!w->reader)
        return -EPIPE;
    if (what->n_events > 0)
        return reader_publish_batch(w->reader, p->request, what->data, what->len, what->n_events,
                                    what->from);
    return reader_publish(w->reader, p->request, what->channel, what->channel_len, what->data,
                          what->len, what->key, what->from);
}

static void finish(struct worker *w, struct publishing *p)
{
    map_remove(&w->publishes, hash_of(p->request), p);
    list_remove(&p->unsent);
    w->publish_bytes -= p->size;
    buf_done(&p->ids);
    free(p);
}

static void answer_http(struct worker *w, struct publishing *p, const struct reader_published *a)
{
    struct conn *c = p->conn;
    if (p->what.n_events == 0)
        http_published(w, c, a->code, a->message, a->id);
    else if (a->code)
        http_batch_refused(w, c, a);
    else
        http_batch_published(w, c, &p->ids);
}

/* Answers the client; of a batch, when all of it is known. */
static void answer(struct worker *w, struct publishing *p, const struct reader_published *a)
{
    struct conn *c = p->conn;
    count(&w->counters->publishes[a->code], 1);
    if (c && c->state != CONN_DEAD) {
        c->more->n_publishes--;
        if (c->state == CONN_WAIT)
            answer_http(w, p, a);
        else if (c->state == CONN_STREAM)
            ws_published(w, c, a->code, a->message, a->id, *p->what.ref ? p->what.ref : NULL);
    }
    finish(w, p);
}

static void answer_down(struct worker *w, struct publishing *p, const char *message)
{
    const struct reader_published down = {
        .request = p->request, .code = CODE_SOURCE_DOWN, .message = message, .id = ""
    };
    answer(w, p, &down);
}

/* One event of a batch has been accepted. True: that was the last. */
static bool note_id(struct worker *w, struct publishing *p, const struct reader_published *a)
{
    (void)buf_printf(&p->ids, *a->id ? "%s\"%s\"" : "%snull", p->n_ids ? "," : "", a->id);
    p->n_ids++;
    if (p->n_ids == p->what.n_events)
        return true;
    count(&w->counters->publishes[CODE_OK], 1);
    return false;
}

static const void *put(char **at, const void *data, size_t len)
{
    char *start = *at;
    if (len > 0)
        memcpy(start, data, len);
    start[len] = '\0';
    *at += len + 1;
    return start;
}

static const char *put_text(char **at, const char *text)
{
    return put(at, text, strlen(text));
}

static struct publishing *publishing_new(struct worker *w, struct conn *c,
                                         const struct publication *what)
{
    size_t bytes = what->channel_len + what->len + strlen(what->key) + strlen(what->from) +
                   strlen(what->ref) + 5;
    struct publishing *p = malloc(sizeof(*p) + bytes);
    if (!p)
        return NULL;
    *p = (struct publishing){ .request = ++w->next_request,
                              .conn = c,
                              .size = sizeof(*p) + bytes + what->n_events * ID_JSON_MAX,
                              .what = *what,
                              .ids = buf_make(what->n_events * ID_JSON_MAX + 1) };
    char *at = p->bytes;
    p->what.channel = put(&at, what->channel, what->channel_len);
    p->what.data = put(&at, what->data, what->len);
    p->what.key = put_text(&at, what->key);
    p->what.from = put_text(&at, what->from);
    p->what.ref = put_text(&at, what->ref);
    return p;
}

int publish(struct worker *w, struct conn *c, const struct publication *what)
{
    struct conn_more *more = conn_more(c);
    struct publishing *p = more ? publishing_new(w, c, what) : NULL;
    if (!p || map_put(&w->publishes, hash_of(p->request), p) < 0) {
        free(p);
        return -ENOMEM;
    }
    w->publish_bytes += p->size;
    more->n_publishes++;
    int r = list_empty(&w->unsent) ? send_one(w, p) : -EAGAIN;
    if (r == -EAGAIN)
        list_push(&w->unsent, &p->unsent);
    else if (r < 0)
        answer_down(w, p, "the source process is restarting; nothing was stored");
    return 0;
}

void publish_resend(struct worker *w)
{
    while (!list_empty(&w->unsent)) {
        struct publishing *p = list_entry(w->unsent.next, struct publishing, unsent);
        int r = send_one(w, p);
        if (r == -EAGAIN)
            return;
        list_remove(&p->unsent);
        if (r < 0)
            answer_down(w, p, "the source process is restarting; nothing was stored");
    }
}

void on_published(void *worker, const struct reader_published *reply)
{
    struct worker *w = worker;
    uint64_t request = reply->request;
    struct publishing *p =
        map_get(&w->publishes, hash_of(request), same_request, &request, sizeof(request));
    if (p && (reply->code || p->what.n_events == 0 || note_id(w, p, reply)))
        answer(w, p, reply);
}

/* Any one of the table; NULL when it is empty. */
static struct publishing *any_publishing(struct worker *w)
{
    size_t at = 0;
    return map_next(&w->publishes, &at);
}

void publishes_fail(struct worker *w)
{
    struct publishing *p;
    while ((p = any_publishing(w)))
        answer_down(w, p,
                    list_linked(&p->unsent) ? "the source process has gone; nothing was stored"
                    : p->what.n_events > 0
                        ? "the source process has gone; the events may have been stored"
                        : "the source process has gone; the event may have been stored");
}

void publishes_forget(struct worker *w, struct conn *c)
{
    if (!c->more || c->more->n_publishes == 0)
        return;
    struct publishing *p;
    for (size_t at = 0; (p = map_next(&w->publishes, &at));) {
        if (p->conn == c)
            p->conn = NULL;
    }
    c->more->n_publishes = 0;
}

void publish_done(struct worker *w)
{
    struct publishing *p;
    while ((p = any_publishing(w)))
        finish(w, p);
    map_done(&w->publishes);
}
