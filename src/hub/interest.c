/* Who wants which channel, and what the source has confirmed of it. */
#include "interest.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Whoever may read everything may ask for new names without end: they must not grow this process,
 * nor what the backend has to listen to. */
#define LINGERING_MAX 10000
#define CHANNELS_MAX  1000000

/* ---- looking up ---- */

static bool channel_equal(const void *value, const void *key, size_t len)
{
    const struct channel *c = value;
    return c->len == len && memcmp(c->name, key, len) == 0;
}

static bool want_equal(const void *value, const void *key, size_t len)
{
    const struct want *w = value, *k = key;
    return w->channel == k->channel && w->reader == k->reader;
}

static uint64_t want_hash(const struct channel *channel, const struct interest_reader *reader)
{
    return channel->hash ^ reader->id * 0x9e3779b97f4a7c15;
}

static struct channel *find_channel(const struct interest *in, const char *name, size_t len)
{
    return map_get(&in->channels, log_hash(in->log, name, len), channel_equal, name, len);
}

static struct want *find_want(const struct interest *in, struct interest_reader *reader,
                              struct channel *channel)
{
    struct want key = { .reader = reader, .channel = channel };
    return map_get(&in->wants, want_hash(channel, reader), want_equal, &key, sizeof(key));
}

uint64_t interest_covered_from(const struct interest *in, const char *name, size_t len)
{
    const struct channel *channel = find_channel(in, name, len);
    return channel && channel->state == CHANNEL_READY ? channel->covered_from : UINT64_MAX;
}

/* ---- channels ---- */

static bool wanted(const struct channel *channel)
{
    return !list_empty(&channel->wants);
}

static struct channel *new_channel(struct interest *in, const char *name, size_t len)
{
    if (in->channels.count >= CHANNELS_MAX)
        return NULL;
    struct channel *c = malloc(sizeof(*c) + len + 1);
    if (!c)
        return NULL;
    *c = (struct channel){ .hash = log_hash(in->log, name, len), .len = (uint8_t)len };
    memcpy(c->name, name, len);
    c->name[len] = '\0';
    list_init(&c->wants);
    if (map_put(&in->channels, c->hash, c) < 0) {
        free(c);
        return NULL;
    }
    list_push(&in->all, &c->all);
    return c;
}

static void stop_settling(struct interest *in, struct channel *channel)
{
    if (!channel->settling)
        return;
    channel->settling = false;
    in->n_settling--;
}

static void stop_lingering(struct interest *in, struct channel *channel)
{
    if (!list_linked(&channel->linger))
        return;
    list_remove(&channel->linger);
    in->n_lingering--;
}

static void free_channel(struct interest *in, struct channel *channel)
{
    stop_lingering(in, channel);
    stop_settling(in, channel);
    (void)map_remove(&in->channels, channel->hash, channel);
    list_remove(&channel->all);
    free(channel);
}

/* Listening goes on for a while: the next visitor of a page often comes within a minute, and a
 * position from just before must not have become a gap by then. */
static void unwanted(struct interest *in, struct channel *channel, int64_t now_ms)
{
    if (!in->on_demand) {
        free_channel(in, channel);
        return;
    }
    channel->linger_until_ms = now_ms + in->linger_ms;
    list_push(&in->lingering, &channel->linger);
    if (++in->n_lingering > LINGERING_MAX) /* the longest without anybody goes early */
        list_entry(in->lingering.next, struct channel, linger)->linger_until_ms = now_ms;
}

static void ask(struct interest *in, struct channel *channel, bool settling)
{
    channel->state = CHANNEL_ASKED;
    if (settling && !channel->settling) {
        channel->settling = true;
        in->n_settling++;
    }
    in->hooks->subscribe(in->arg, channel);
}

static void cover_everything(struct interest *in, struct channel *channel)
{
    channel->state = CHANNEL_READY;
    channel->covered_from = log_size(in->log); /* the first record of all */
}

/* ---- wants ---- */

static void make_due(struct interest *in, struct want *want)
{
    struct interest_reader *reader = want->reader;
    if (want->answered || list_linked(&want->due))
        return;
    bool first = list_empty(&reader->due);
    list_push(&reader->due, &want->due);
    if (first)
        in->hooks->due(in->arg, reader);
}

static void make_all_due(struct interest *in, struct channel *channel)
{
    for (struct list *l = channel->wants.next, *next; l != &channel->wants; l = next) {
        next = l->next;
        make_due(in, list_entry(l, struct want, by_channel));
    }
}

static void free_want(struct interest *in, struct want *want)
{
    (void)map_remove(&in->wants, want_hash(want->channel, want->reader), want);
    list_remove(&want->by_channel);
    list_remove(&want->by_reader);
    list_remove(&want->due);
    free(want);
}

static struct want *new_want(struct interest *in, struct interest_reader *reader,
                             struct channel *channel)
{
    struct want *w = calloc(1, sizeof(*w));
    if (!w)
        return NULL;
    w->reader = reader;
    w->channel = channel;
    if (map_put(&in->wants, want_hash(channel, reader), w) < 0) {
        free(w);
        return NULL;
    }
    list_push(&channel->wants, &w->by_channel);
    list_push(&reader->wants, &w->by_reader);
    return w;
}

static void drop_want(struct interest *in, struct want *want, int64_t now_ms)
{
    struct channel *channel = want->channel;
    free_want(in, want);
    if (!wanted(channel))
        unwanted(in, channel, now_ms);
}

/* ---- readers ---- */

void interest_init(struct interest *in, const struct log *log, bool on_demand, uint32_t linger_ms,
                   const struct interest_hooks *hooks, void *arg)
{
    *in = (struct interest){
        .log = log, .hooks = hooks, .arg = arg, .linger_ms = linger_ms, .on_demand = on_demand
    };
    list_init(&in->all);
    list_init(&in->lingering);
}

void interest_done(struct interest *in)
{
    for (struct list *node; (node = list_pop(&in->all));)
        free_channel(in, list_entry(node, struct channel, all));
    map_done(&in->channels);
    map_done(&in->wants);
}

void interest_join(struct interest *in, struct interest_reader *reader)
{
    reader->id = ++in->last_reader;
    list_init(&reader->wants);
    list_init(&reader->due);
}

void interest_leave(struct interest *in, struct interest_reader *reader, int64_t now_ms)
{
    for (struct list *node; (node = list_pop(&reader->wants));)
        drop_want(in, list_entry(node, struct want, by_reader), now_ms);
}

int interest_add(struct interest *in, struct interest_reader *reader, const char *name, size_t len,
                 uint64_t covered_from, uint64_t question)
{
    struct channel *channel = find_channel(in, name, len);
    bool fresh = !channel;
    if (fresh && !(channel = new_channel(in, name, len)))
        return -ENOMEM;
    struct want *want = find_want(in, reader, channel);
    if (!want && !(want = new_want(in, reader, channel))) {
        if (fresh)
            free_channel(in, channel);
        return -ENOMEM;
    }
    want->covered_from = covered_from;
    want->question = question;
    want->answered = false;
    stop_lingering(in, channel);
    if (fresh && !in->on_demand)
        cover_everything(in, channel);
    if (channel->state == CHANNEL_READY && in->answering)
        make_due(in, want);
    else if (channel->state == CHANNEL_NONE && in->on_demand && in->open)
        ask(in, channel, in->settling);
    return 0;
}

void interest_remove(struct interest *in, struct interest_reader *reader, const char *name,
                     size_t len, int64_t now_ms)
{
    struct channel *channel = find_channel(in, name, len);
    struct want *want = channel ? find_want(in, reader, channel) : NULL;
    if (want)
        drop_want(in, want, now_ms);
}

struct want *interest_next_due(struct interest *in, struct interest_reader *reader)
{
    for (;;) {
        struct list *node = list_pop(&reader->due);
        if (!node)
            return NULL;
        struct want *want = list_entry(node, struct want, due);
        if (want->channel->state == CHANNEL_READY && in->answering) {
            want->answered = true;
            return want;
        }
        /* The source was lost before the answer could go out: it waits for the next `up`. */
    }
}

void interest_put_back(struct want *want)
{
    want->answered = false;
    list_insert_before(&want->due, want->reader->due.next);
}

/* ---- the source's word ---- */

void interest_set_on_demand(struct interest *in, bool on_demand)
{
    if (on_demand == in->on_demand)
        return;
    in->on_demand = on_demand;
    for (struct list *l = in->all.next, *next; l != &in->all; l = next) {
        next = l->next;
        struct channel *channel = list_entry(l, struct channel, all);
        if (!on_demand && !wanted(channel)) {
            free_channel(in, channel); /* it lingered, and need not */
        } else if (!on_demand) {
            cover_everything(in, channel);
        } else {
            channel->state = CHANNEL_NONE;
            channel->covered_from = 0;
        }
    }
}

void interest_opened(struct interest *in)
{
    struct list todo;
    in->open = true;
    if (!in->on_demand)
        return;
    /* The source may answer, refuse or be lost inside each call: take one after the other. */
    list_init(&todo);
    while (!list_empty(&in->all))
        list_push(&todo, list_pop(&in->all));
    for (struct list *node; (node = list_pop(&todo));) {
        struct channel *channel = list_entry(node, struct channel, all);
        list_push(&in->all, node);
        if (in->open && channel->state == CHANNEL_NONE)
            ask(in, channel, wanted(channel)); /* `up` does not wait for what nobody wants */
    }
}

void interest_lost(struct interest *in)
{
    in->open = false;
    in->answering = false;
    if (!in->on_demand)
        return;
    for (struct list *l = in->all.next; l != &in->all; l = l->next) {
        struct channel *channel = list_entry(l, struct channel, all);
        channel->state = CHANNEL_NONE;
        stop_settling(in, channel);
    }
}

static void check_settled(struct interest *in, bool was_settling)
{
    if (was_settling && in->n_settling == 0)
        in->hooks->settled(in->arg);
}

void interest_ready(struct interest *in, const char *name, size_t len)
{
    struct channel *channel = find_channel(in, name, len);
    if (!channel || channel->state != CHANNEL_ASKED)
        return;
    bool was_settling = channel->settling;
    channel->state = CHANNEL_READY;
    if (!channel->covered_from)
        channel->covered_from = log_head(in->log);
    stop_settling(in, channel);
    if (in->answering)
        make_all_due(in, channel);
    check_settled(in, was_settling);
}

void interest_refused(struct interest *in, const char *name, size_t len, enum error_code code,
                      const char *message)
{
    struct channel *channel = find_channel(in, name, len);
    if (!channel || channel->state != CHANNEL_ASKED)
        return;
    bool was_settling = channel->settling;
    for (struct list *node; (node = list_pop(&channel->wants));) {
        struct want *want = list_entry(node, struct want, by_channel);
        in->hooks->refused(in->arg, want, code, message);
        free_want(in, want);
    }
    free_channel(in, channel);
    check_settled(in, was_settling);
}

void interest_answer(struct interest *in, bool answering)
{
    in->answering = answering;
    if (!answering)
        return;
    for (struct list *l = in->all.next; l != &in->all; l = l->next) {
        struct channel *channel = list_entry(l, struct channel, all);
        if (channel->state == CHANNEL_READY)
            make_all_due(in, channel);
    }
}

void interest_expire(struct interest *in, int64_t now_ms)
{
    for (struct list *l = in->lingering.next, *next; l != &in->lingering; l = next) {
        next = l->next;
        struct channel *channel = list_entry(l, struct channel, linger);
        if (channel->linger_until_ms > now_ms)
            return;
        /* Un-listening before the answer would let that answer vouch for a later question. */
        if (channel->state == CHANNEL_ASKED)
            continue;
        if (channel->state == CHANNEL_READY && in->open)
            in->hooks->unsubscribe(in->arg, channel);
        free_channel(in, channel);
    }
}
