/* Publishes and batches on their way through the source side.
 *
 * A batch is handed to the source as a whole where that makes a transaction of it, else event by
 * event, each after the one before was accepted: the first that is refused ends it. Until its last
 * event is handed out it stands at the front of its reader's `held`, so that nothing overtakes it.
 */
#include "batch.h"
#include "core.h"
#include "meta.h"
#include "pattern.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LOOK_EVERY 64 /* events of a batch, before readers are woken and looked at */

/* ---- answers ---- */

static bool is_of(const void *value, const void *key, size_t len)
{
    const struct publish *p = value;
    return *(const uint64_t *)key - p->id < p->n_events;
}

static void reply(struct engine *engine, const struct publish *p, enum error_code code,
                  const char *message, const char *id)
{
    struct inbox_message m = { .type = INBOX_PUBLISHED,
                               .a = p->request,
                               .b = p->batch ? p->n_answered : 0,
                               .c = code && p->batch && !engine->class->publish_batch,
                               .code = (uint16_t)code,
                               .texts = { inbox_text(id, id ? strlen(id) : 0),
                                          inbox_text(message, message ? strlen(message) : 0) } };
    if (!p->peer)
        return;
    peer_send(p->peer, &m);
    engine->talked = true;
}

static bool all_given(const struct publish *p)
{
    return p->refused || p->n_given == p->n_events;
}

/* Nothing is left to hand out, nor to be answered. */
static bool finished(const struct publish *p)
{
    return all_given(p) && p->n_answered == p->n_given;
}

static void finish(struct engine *engine, struct publish *p)
{
    struct peer *peer = p->peer;
    list_remove(&p->by_peer);
    if (peer) {
        peer->n_charged -= p->charge;
        engine_on_busy(engine, peer); /* it may be read again, and what it has held may go on */
    }
    free(p);
}

/* The answer to the oldest of its events. */
static void take_answer(struct engine *engine, struct publish *p, enum error_code code,
                        const char *message, const char *id)
{
    count(&engine->counters->source_publishes[code], 1);
    if (!p->refused)
        reply(engine, p, code, message, id);
    p->n_answered++;
    p->refused |= code != CODE_OK;
}

/* ---- what may be published ---- */

static enum error_code check_event(const struct engine *engine, const struct batch_event *event,
                                   const char *from)
{
    if (!channel_valid(event->channel, event->channel_len) ||
        channel_reserved(event->channel, event->channel_len))
        return CODE_BAD_CHANNEL;
    if (strlen(event->key) != event->key_len || !meta_fits(event->key, from))
        return CODE_BAD_REQUEST;
    if (event->channel_len + event->key_len + 1 + strlen(from) + event->len >
        log_event_max(engine->log))
        return CODE_TOO_LARGE;
    return CODE_OK;
}

static bool next_event(struct publish *p, struct batch_event *ret)
{
    if (p->batch)
        return batch_next(&p->at, &p->left, ret);
    *ret = p->single;
    return true;
}

/* All of it is looked at before any of it is stored. */
static bool refuse(struct engine *engine, struct publish *p)
{
    const char *at = p->at;
    size_t left = p->left;
    struct batch_event event;
    char text[64];
    enum error_code code = CODE_OK;
    uint32_t i = 0;
    for (; i < p->n_events && code == CODE_OK; i++)
        code = next_event(p, &event) ? check_event(engine, &event, p->from) : CODE_BAD_REQUEST;
    p->at = at;
    p->left = left;
    if (code == CODE_OK)
        return false;
    (void)snprintf(text, sizeof(text), p->batch ? "%s (event %u)" : "%s", code_title(code), i - 1);
    p->n_given = 1;
    take_answer(engine, p, code, text, NULL);
    return true;
}

/* ---- to the source ---- */

static struct fw_publish as_publish(const struct publish *p, const struct batch_event *event,
                                    uint32_t index)
{
    return (struct fw_publish){ .request = p->id + index,
                                .channel = event->channel,
                                .channel_len = event->channel_len,
                                .key = *event->key ? event->key : NULL,
                                .from = *p->from ? p->from : NULL,
                                .data = event->data,
                                .len = event->len };
}

static int expect_answer(struct engine *engine, struct publish *p)
{
    int r = map_put(&engine->publishes, p->id + p->n_given, p);
    if (r == 0)
        p->n_given++;
    return r;
}

static void out_of_memory(struct engine *engine, struct publish *p)
{
    p->n_given++;
    take_answer(engine, p, CODE_OVERLOADED, "out of memory", NULL);
}

static void give_next(struct engine *engine, struct publish *p)
{
    struct batch_event event;
    if (!next_event(p, &event) || expect_answer(engine, p) < 0) {
        out_of_memory(engine, p);
        return;
    }
    const struct fw_publish publish = as_publish(p, &event, p->n_given - 1);
    engine->in_publish = true;
    engine->class->publish(engine->source, &publish);
    engine->in_publish = false;
}

static void take_back(struct engine *engine, struct publish *p)
{
    while (p->n_given > 0)
        (void)map_remove(&engine->publishes, p->id + --p->n_given, p);
}

static void give_batch(struct engine *engine, struct publish *p)
{
    struct fw_publish *events = calloc(p->n_events, sizeof(*events));
    struct batch_event event;
    while (events && p->n_given < p->n_events && next_event(p, &event) &&
           expect_answer(engine, p) == 0)
        events[p->n_given - 1] = as_publish(p, &event, p->n_given - 1);
    if (events && p->n_given == p->n_events) {
        engine->in_publish = true;
        engine->class->publish_batch(engine->source, events, p->n_events);
        engine->in_publish = false;
    } else {
        take_back(engine, p);
        out_of_memory(engine, p);
    }
    free(events);
}

/* A source whose publish is an append would lap the very readers that its pause is for. */
static bool must_wait(const struct engine *engine)
{
    return engine->ending || (engine->paused && engine->publish_appends);
}

/* Between two events of a batch: the source has answered the last one. */
static bool may_go_on(const struct engine *engine, const struct publish *p)
{
    return !all_given(p) && p->n_answered == p->n_given && !must_wait(engine);
}

static void give_events(struct engine *engine, struct publish *p)
{
    while (may_go_on(engine, p)) {
        if (p->n_given % LOOK_EVERY == LOOK_EVERY - 1)
            (void)fw_host_flush(&engine->host);
        give_next(engine, p);
    }
}

static struct list *held_of(struct engine *engine, const struct publish *p)
{
    return p->peer ? &p->peer->held : &engine->orphans;
}

/* Hands out what may be handed out now of one that is in no list; its bytes are borrowed for these
 * calls only. The source may answer inside them. */
static void give(struct engine *engine, struct publish *p)
{
    p->giving = true;
    if (p->id == 0 && !refuse(engine, p)) {
        p->id = engine->last_publish + 1;
        engine->last_publish += p->n_events;
    }
    if (p->id && p->batch && engine->class->publish_batch)
        give_batch(engine, p);
    else if (p->id)
        give_events(engine, p);
    p->giving = false;
    if (finished(p))
        finish(engine, p);
    else if (!all_given(p))
        list_insert_before(&p->by_peer, held_of(engine, p)->next);
    else if (p->peer)
        list_push(&p->peer->asked, &p->by_peer);
}

void fw_host_published(struct fw_host *host, uint64_t request, const char *code,
                       const char *message, const char *id)
{
    struct engine *engine = engine_of(host);
    struct publish *p = map_get(&engine->publishes, request, is_of, &request, sizeof(request));
    if (!p)
        return;
    (void)map_remove(&engine->publishes, request, p);
    take_answer(engine, p, code_from_text(code), message, id);
    if (p->giving)
        return;
    if (finished(p)) {
        finish(engine, p);
    } else if (may_go_on(engine, p)) {
        list_remove(&p->by_peer);
        give(engine, p);
    }
}

/* ---- readers ---- */

static bool can_publish(const struct engine *engine, const struct list *held)
{
    return !list_empty(held) && may_go_on(engine, list_entry(held->next, struct publish, by_peer));
}

static void publish_held(struct engine *engine, struct list *held)
{
    for (int n = 0; n < PEER_TURN_MAX && can_publish(engine, held); n++)
        give(engine, list_entry(list_pop(held), struct publish, by_peer));
}

void engine_on_publish(struct engine *engine, struct peer *peer, struct publish *publish)
{
    bool first = list_empty(&peer->held);
    list_push(&peer->held, &publish->by_peer);
    if (first)
        publish_held(engine, &peer->held);
}

bool engine_publish_held(struct engine *engine, struct peer *peer)
{
    struct list *held = peer ? &peer->held : &engine->orphans;
    publish_held(engine, held);
    return can_publish(engine, held);
}

void engine_unhold(struct engine *engine)
{
    for (struct list *l = engine->peers.next; l != &engine->peers; l = l->next) {
        struct peer *peer = list_entry(l, struct peer, node);
        if (!list_empty(&peer->held))
            engine_on_busy(engine, peer);
    }
}

void engine_orphan_publishes(struct engine *engine, struct peer *peer)
{
    for (struct list *node; (node = list_pop(&peer->held));) {
        list_entry(node, struct publish, by_peer)->peer = NULL;
        list_push(&engine->orphans, node);
    }
    for (struct list *node; (node = list_pop(&peer->asked));)
        list_entry(node, struct publish, by_peer)->peer = NULL;
}

void engine_drop_publishes(struct engine *engine)
{
    for (struct list *node; (node = list_pop(&engine->orphans));) {
        struct publish *p = list_entry(node, struct publish, by_peer);
        if (p->n_answered == p->n_given) /* else it is among the others, too */
            free(p);
    }
    size_t at = 0;
    for (struct publish *p; (p = map_next(&engine->publishes, &at));)
        if (++p->n_answered == p->n_given) /* a batch stands there once for each event */
            free(p);
    map_done(&engine->publishes);
}
