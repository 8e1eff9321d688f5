/* A connection's subscriptions: each is first waiting at its channel, then in its feed. */
#include "turn.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static struct sub *find_sub(const struct conn *c, const char *name, size_t len)
{
    for (uint32_t i = 0; i < c->n_subs; i++) {
        if (channel_named(c->subs[i]->channel, name, len))
            return c->subs[i];
    }
    return NULL;
}

static int subs_append(struct conn *c, struct sub *sub)
{
    if (c->n_subs == 0) {
        c->subs = &c->only;
        c->cap_subs = 1;
    } else if (c->n_subs == c->cap_subs) {
        uint32_t cap = c->cap_subs * 2;
        struct sub **subs = malloc(cap * sizeof(*subs));
        if (!subs)
            return -ENOMEM;
        memcpy(subs, c->subs, c->n_subs * sizeof(*subs));
        if (c->subs != &c->only)
            free(c->subs);
        c->subs = subs;
        c->cap_subs = cap;
    }
    c->subs[c->n_subs++] = sub;
    return 0;
}

static void subs_remove(struct conn *c, struct sub *sub)
{
    for (uint32_t i = 0; i < c->n_subs; i++) {
        if (c->subs[i] == sub) {
            c->subs[i] = c->subs[--c->n_subs];
            break;
        }
    }
    if (c->n_subs == 0 && c->subs != &c->only) {
        free(c->subs);
        c->subs = &c->only;
    }
}

static void sub_leave(struct worker *w, struct sub *sub)
{
    struct channel *channel = sub->channel;
    struct feed *feed = sub->feed;
    if (!feed) {
        sub_set_remove(&channel->waiting, sub);
        return;
    }
    sub_set_remove(&feed->subs, sub);
    if (w->gathered.feed == feed)
        w->gathered.feed = NULL;
    if (feed->subs.count == 0)
        feed_free(&w->arena, channel, feed->format);
    else
        walker_disturbed(&feed->walker, feed->subs.count);
}

void sub_free(struct worker *w, struct sub *sub)
{
    sub_leave(w, sub);
    subs_remove(sub->conn, sub);
    count(&w->counters->subscriptions, (uint64_t)-1);
    channel_release(w, sub->channel);
    free(sub);
}

/* From waiting into the feed: from now on its frames are made. */
int sub_enter(struct worker *w, struct sub *sub)
{
    struct feed *feed = channel_feed(sub->channel, sub->conn->format, w->frontier);
    if (!feed)
        return -ENOMEM;
    sub_set_remove(&sub->channel->waiting, sub);
    int r = sub_set_add(&feed->subs, sub);
    if (r < 0) {
        (void)sub_set_add(&sub->channel->waiting, sub); /* fits: it was in there */
        if (feed->subs.count == 0)
            feed_free(&w->arena, sub->channel, feed->format);
        return r;
    }
    walker_grown(&feed->walker);
    sub->feed = feed;
    return 0;
}

static struct sub *sub_new(struct worker *w, struct conn *c, const char *name, size_t len)
{
    struct sub *sub = malloc(sizeof(*sub));
    struct channel *channel = sub ? channel_acquire(w, name, len) : NULL;
    if (!channel)
        goto fail;
    *sub = (struct sub){ .conn = c, .channel = channel };
    if (sub_set_add(&channel->waiting, sub) < 0)
        goto fail_channel;
    if (subs_append(c, sub) < 0) {
        sub_set_remove(&channel->waiting, sub);
        goto fail_channel;
    }
    count(&w->counters->subscriptions, 1);
    return sub;

fail_channel:
    channel_release(w, channel);
fail:
    free(sub);
    return NULL;
}

int subscribe(struct worker *w, struct conn *c, const char *name, size_t len,
              const struct start *start, const char *ref)
{
    if (find_sub(c, name, len))
        return -EEXIST;
    if (c->n_subs >= w->settings->max_channels)
        return -EMFILE;
    struct conn_more *more = conn_more(c);
    struct join *join = malloc(sizeof(*join) + strlen(ref) + 1);
    struct sub *sub = more && join ? sub_new(w, c, name, len) : NULL;
    if (!sub) {
        free(join);
        return -ENOMEM;
    }
    *join = (struct join){
        .sub = sub, .conn = c, .since = start->since, .last = start->last, .rows = start->rows
    };
    memcpy(join->ref, ref, strlen(ref) + 1);
    list_push(&more->joins, &join->node);
    return 0;
}

struct join *join_of(const struct sub *sub)
{
    const struct conn *c = sub->conn;
    if (!c->more)
        return NULL;
    for (struct list *n = c->more->joins.next; n != &c->more->joins; n = n->next) {
        struct join *join = list_entry(n, struct join, node);
        if (join->sub == sub)
            return join;
    }
    return NULL;
}

int unsubscribe(struct worker *w, struct conn *c, const char *name, size_t len)
{
    struct sub *sub = find_sub(c, name, len);
    if (!sub)
        return -ENOENT;
    struct join *join = join_of(sub);
    if (join)
        join_free(w, join);
    sub_free(w, sub);
    return 0;
}

void unsubscribe_all(struct worker *w, struct conn *c)
{
    joins_free(w, c);
    while (c->n_subs)
        sub_free(w, c->subs[c->n_subs - 1]);
}

/* The source refuses the channel: in path form that is the end of the connection. */
void sub_refused(struct worker *w, struct sub *sub)
{
    sub_end(w, sub, sub->channel->refused_code, "the source refuses this channel");
}

void sub_end(struct worker *w, struct sub *sub, enum error_code code, const char *message)
{
    struct conn *c = sub->conn;
    struct join *join = join_of(sub);
    const char *ref = join && join->ref[0] ? join->ref : NULL;
    if (c->format == FORMAT_WS_BARE || c->format == FORMAT_SSE_BARE) {
        conn_refuse(w, c, code, message);
        return;
    }
    struct buf *json = &w->text;
    buf_clear(json);
    json_unsubscribed(json, sub->channel->name, sub->channel->len, code, message, ref);
    if (join)
        join_free(w, join);
    sub_free(w, sub);
    send_control(w, c, "unsubscribed", json);
}
