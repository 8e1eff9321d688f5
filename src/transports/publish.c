/* Publishing: from a client, by the inbox, to the source process; the answer back to the client.
 * An answer means that the backend has the event. */
#include "turn.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define OUTSTANDING_MAX (1u << 20) /* bytes of a worker's unanswered publishes */

struct publishing {
    uint64_t request;
    struct conn *conn; /* NULL: gone meanwhile */
    size_t size;
    struct list unsent; /* in worker->unsent until the inbox takes it */
    const char *channel, *data;
    size_t channel_len, len;
    char from[24];
    char ref[]; /* then, only while unsent, channel and payload */
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
    if (!w->reader)
        return -EPIPE;
    return reader_publish(w->reader, p->request, p->channel, p->channel_len, p->data, p->len, NULL,
                          p->from);
}

static void finish(struct worker *w, struct publishing *p)
{
    map_remove(&w->publishes, hash_of(p->request), p);
    list_remove(&p->unsent);
    w->publish_bytes -= p->size;
    free(p);
}

static void answer(struct worker *w, struct publishing *p, enum error_code code,
                   const char *message, const char *id)
{
    struct conn *c = p->conn;
    count(&w->counters->publishes[code], 1);
    if (c && c->state != CONN_DEAD) {
        c->more->n_publishes--;
        if (c->state == CONN_WAIT)
            http_published(w, c, code, message, id);
        else if (c->state == CONN_STREAM)
            ws_published(w, c, code, message, id, p->ref[0] ? p->ref : NULL);
    }
    finish(w, p);
}

int publish(struct worker *w, struct conn *c, const char *channel, size_t channel_len,
            const void *data, size_t len, const char *ref)
{
    size_t ref_len = strlen(ref) + 1;
    struct conn_more *more = conn_more(c);
    struct publishing *p = malloc(sizeof(*p) + ref_len + channel_len + len);
    if (!p || !more) {
        free(p);
        return -ENOMEM;
    }
    *p = (struct publishing){
        .request = ++w->next_request,
        .conn = c,
        .size = sizeof(*p) + ref_len + channel_len + len,
        .channel = p->ref + ref_len,
        .data = p->ref + ref_len + channel_len,
        .channel_len = channel_len,
        .len = len,
    };
    memcpy(p->ref, ref, ref_len);
    memcpy((char *)p->channel, channel, channel_len);
    if (len)
        memcpy((char *)p->data, data, len);
    if (c->state == CONN_STREAM) /* a POST has no client to filter by */
        client_name(w, c, p->from);
    if (map_put(&w->publishes, hash_of(p->request), p) < 0) {
        free(p);
        return -ENOMEM;
    }
    w->publish_bytes += p->size;
    more->n_publishes++;
    int r = list_empty(&w->unsent) ? send_one(w, p) : -EAGAIN;
    if (r == -EAGAIN)
        list_push(&w->unsent, &p->unsent);
    else if (r < 0)
        answer(w, p, CODE_SOURCE_DOWN, "the source process is restarting; nothing was stored",
               NULL);
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
            answer(w, p, CODE_SOURCE_DOWN, "the source process is restarting; nothing was stored",
                   NULL);
    }
}

void on_published(void *worker, uint64_t request, enum error_code code, const char *message,
                  const char *id)
{
    struct worker *w = worker;
    struct publishing *p =
        map_get(&w->publishes, hash_of(request), same_request, &request, sizeof(request));
    if (p)
        answer(w, p, code, message, id);
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
        answer(w, p, CODE_SOURCE_DOWN,
               list_linked(&p->unsent)
                   ? "the source process has gone; nothing was stored"
                   : "the source process has gone; the event may have been stored",
               NULL);
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
