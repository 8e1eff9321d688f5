/* What readers ask of the engine: channels, publishes, a wake-up; and what they are answered. */
#include "core.h"
#include "meta.h"
#include "pattern.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* ---- readers ---- */

int engine_admit(struct engine *engine, int fd)
{
    struct peer *peer;
    int r = peer_new(engine, &engine->loop, fd, &peer);
    if (r < 0)
        return r;
    interest_join(&engine->interest, &peer->interest);
    list_push(&engine->peers, &peer->node);
    if (engine->stream.mode)
        engine_tell_source(engine, peer);
    peer_watch(peer);
    return 0;
}

/* What it has asked to be published is carried out all the same. */
static void orphan_publishes(struct engine *engine, struct peer *peer)
{
    for (struct list *node; (node = list_pop(&peer->held));) {
        struct publish *p = list_entry(node, struct publish, by_peer);
        p->peer = NULL;
        list_push(&engine->orphans, node);
    }
    for (struct list *node; (node = list_pop(&peer->asked));)
        list_entry(node, struct publish, by_peer)->peer = NULL;
}

void engine_dismiss(struct engine *engine, struct peer *peer)
{
    if (peer->why)
        engine_log(engine, FW_LOG_WARNING, "reader-dropped", "%s", peer->why);
    interest_leave(&engine->interest, &peer->interest, engine_now_ms(engine));
    orphan_publishes(engine, peer);
    list_remove(&peer->node);
    list_remove(&peer->busy);
    engine->talked = true; /* it may wait on the futex and has to see the end */
    peer_close(peer);
}

void engine_tell_source(struct engine *engine, struct peer *peer)
{
    const char *kind = engine->class->kind, *mode = engine->stream.mode,
               *guarantee = engine->stream.guarantee;
    struct inbox_message message = { .type = INBOX_SOURCE,
                                     .code = (engine->class->traits & FW_SOURCE_DURABLE) != 0,
                                     .texts = { inbox_text(kind, strlen(kind)),
                                                inbox_text(mode, strlen(mode)),
                                                inbox_text(guarantee, strlen(guarantee)) } };
    if (peer) {
        peer_send(peer, &message);
        return;
    }
    for (struct list *l = engine->peers.next; l != &engine->peers; l = l->next)
        peer_send(list_entry(l, struct peer, node), &message);
}

/* ---- channels ---- */

static void send_refused(struct engine *engine, struct peer *peer, const char *channel, size_t len,
                         enum error_code code, const char *text)
{
    struct inbox_message message = { .type = INBOX_REFUSED,
                                     .code = (uint16_t)code,
                                     .texts = { inbox_text(channel, len),
                                                inbox_text(text, strlen(text)) } };
    peer_send(peer, &message);
    engine->talked = true;
}

void engine_on_subscribe(struct engine *engine, struct peer *peer, const struct inbox_message *m)
{
    const struct inbox_text *name = &m->texts[0];
    if (!channel_valid(name->text, name->len)) {
        send_refused(engine, peer, name->text, name->len, CODE_BAD_CHANNEL, "bad channel name");
        return;
    }
    if (interest_add(&engine->interest, &peer->interest, name->text, name->len, m->a) < 0)
        send_refused(engine, peer, name->text, name->len, CODE_OVERLOADED, "out of memory");
}

void engine_on_unsubscribe(struct engine *engine, struct peer *peer, const struct inbox_message *m)
{
    interest_remove(&engine->interest, &peer->interest, m->texts[0].text, m->texts[0].len,
                    engine_now_ms(engine));
}

static struct peer *peer_of(struct interest_reader *reader)
{
    return list_entry(reader, struct peer, interest);
}

static void hook_subscribe(void *arg, struct channel *channel)
{
    struct engine *engine = arg;
    engine->class->subscribe(engine->source, channel->name, channel->len);
}

static void hook_unsubscribe(void *arg, struct channel *channel)
{
    struct engine *engine = arg;
    engine->class->unsubscribe(engine->source, channel->name, channel->len);
}

static void hook_due(void *arg, struct interest_reader *reader)
{
    engine_on_busy(arg, peer_of(reader));
}

static void hook_refused(void *arg, struct interest_reader *reader, struct channel *channel,
                         enum error_code code, const char *message)
{
    send_refused(arg, peer_of(reader), channel->name, channel->len, code, message);
}

static void hook_settled(void *arg)
{
    stream_settle(arg);
}

const struct interest_hooks engine_interest_hooks = { .subscribe = hook_subscribe,
                                                      .unsubscribe = hook_unsubscribe,
                                                      .due = hook_due,
                                                      .refused = hook_refused,
                                                      .settled = hook_settled };

/* A reader that had the channel before the source process was replaced, and now has it from a later
 * place: the hole between is told by a gap record, once for all readers, unless a gap of all
 * channels already stands after it. */
static void tell_hole(struct engine *engine, const struct want *want)
{
    struct channel *c = want->channel;
    if (want->covered_from == 0 || want->covered_from == c->covered_from ||
        (engine->class->traits & FW_SOURCE_DURABLE))
        return;
    if (engine->gap_at >= c->covered_from || c->gap_at >= c->covered_from)
        return;
    c->gap_at = stream_append_control(engine, RECORD_GAP, c->name, c->len, engine->stream.lost_at,
                                      REASON_RESTART);
}

static void answer_due(struct engine *engine, struct peer *peer)
{
    for (struct want *want; (want = interest_next_due(&engine->interest, &peer->interest));) {
        tell_hole(engine, want);
        struct inbox_message message = { .type = INBOX_READY,
                                         .a = want->channel->covered_from,
                                         .b = log_head(engine->log),
                                         .texts = { inbox_text(want->channel->name,
                                                               want->channel->len) } };
        int r = peer->deaf ? 0 : inbox_send(peer->fd, &message, NULL, 0);
        if (r == -EAGAIN) {
            interest_put_back(want);
            return;
        }
        if (r < 0)
            peer_is_deaf(peer);
        engine->talked = true;
    }
}

void engine_on_poke(struct engine *engine, struct peer *peer)
{
    engine->talked = true;
    peer_wake(peer, true);
}

/* ---- publishes ---- */

static bool publish_equal(const void *value, const void *key, size_t len)
{
    return ((const struct publish *)value)->id == *(const uint64_t *)key;
}

static void answer_publish(struct engine *engine, struct publish *publish, enum error_code code,
                           const char *message, const char *id)
{
    struct peer *peer = publish->peer;
    struct inbox_message reply = { .type = INBOX_PUBLISHED,
                                   .a = publish->request,
                                   .code = (uint16_t)code,
                                   .texts = {
                                       inbox_text(id, id ? strlen(id) : 0),
                                       inbox_text(message, message ? strlen(message) : 0) } };
    count(&engine->counters->source_publishes[code], 1);
    if (peer) {
        peer->n_charged -= publish->charge;
        list_remove(&publish->by_peer);
        peer_send(peer, &reply);
        engine_on_busy(engine, peer);
        engine->talked = true;
    }
    free(publish);
}

void fw_host_published(struct fw_host *host, uint64_t request, const char *code,
                       const char *message, const char *id)
{
    struct engine *engine = engine_of(host);
    struct publish *p =
        map_get(&engine->publishes, request, publish_equal, &request, sizeof(request));
    if (!p)
        return;
    (void)map_remove(&engine->publishes, request, p);
    answer_publish(engine, p, code_from_text(code), message, id);
}

static enum error_code check_publish(struct engine *engine, const struct publish *p,
                                     const char *key, const char *from)
{
    const char *channel = p->bytes;
    if (!channel_valid(channel, p->channel_len) || channel_reserved(channel, p->channel_len))
        return CODE_BAD_CHANNEL;
    if (!meta_fits(key, from))
        return CODE_BAD_REQUEST;
    if (p->channel_len + strlen(key) + 1 + strlen(from) + p->len > log_event_max(engine->log))
        return CODE_TOO_LARGE;
    return CODE_OK;
}

/* Hands a publish to the source; its bytes are borrowed for the call only. */
static void give_to_source(struct engine *engine, struct publish *p)
{
    const char *key = p->bytes + p->channel_len + 1, *from = key + strlen(key) + 1;
    enum error_code code = check_publish(engine, p, key, from);
    if (code != CODE_OK) {
        answer_publish(engine, p, code, code_title(code), NULL);
        return;
    }
    p->id = ++engine->last_publish;
    if (map_put(&engine->publishes, p->id, p) < 0) {
        answer_publish(engine, p, CODE_OVERLOADED, "out of memory", NULL);
        return;
    }
    if (p->peer)
        list_push(&p->peer->asked, &p->by_peer);
    struct fw_publish publish = { .request = p->id,
                                  .channel = p->bytes,
                                  .channel_len = p->channel_len,
                                  .key = *key ? key : NULL,
                                  .from = *from ? from : NULL,
                                  .data = p->bytes + p->data_at,
                                  .len = p->len };
    engine->in_publish = true;
    engine->class->publish(engine->source, &publish);
    engine->in_publish = false;
}

/* A source whose publish is an append would lap the very readers that its pause is for. */
static bool must_wait(const struct engine *engine)
{
    return engine->paused && engine->publish_appends;
}

void engine_on_publish(struct engine *engine, struct peer *peer, struct publish *publish)
{
    if (must_wait(engine) || !list_empty(&peer->held))
        list_push(&peer->held, &publish->by_peer);
    else
        give_to_source(engine, publish);
}

static void publish_held(struct engine *engine, struct list *held)
{
    for (int n = 0; n < PEER_TURN_MAX && !must_wait(engine); n++) {
        struct list *node = list_pop(held);
        if (!node)
            return;
        give_to_source(engine, list_entry(node, struct publish, by_peer));
    }
}

void engine_drop_publishes(struct engine *engine)
{
    for (struct list *node; (node = list_pop(&engine->orphans));)
        free(list_entry(node, struct publish, by_peer));
    size_t at = 0;
    for (struct publish *p; (p = map_next(&engine->publishes, &at));)
        free(p);
    map_done(&engine->publishes);
}

/* ---- the end of a turn ---- */

void engine_on_busy(struct engine *engine, struct peer *peer)
{
    if (!list_linked(&peer->busy))
        list_push(&engine->busy, &peer->busy);
}

static void tend(struct engine *engine, struct peer *peer)
{
    if (peer->replies.len)
        engine->talked = true; /* what was kept goes out now: readers on the futex must look */
    if (!peer->broken && peer_flush(peer))
        answer_due(engine, peer);
    if (!peer->broken)
        publish_held(engine, &peer->held);
    if (!peer->broken)
        peer_watch(peer);
    if (peer->broken)
        engine_dismiss(engine, peer);
    else if (!list_empty(&peer->held) && !must_wait(engine))
        engine_on_busy(engine, peer);
}

bool engine_tend(struct engine *engine)
{
    struct list todo;
    publish_held(engine, &engine->orphans);
    /* Tending may make others busy, and itself again: those come with the next turn. */
    list_init(&todo);
    while (!list_empty(&engine->busy))
        list_push(&todo, list_pop(&engine->busy));
    for (struct list *node; (node = list_pop(&todo));)
        tend(engine, list_entry(node, struct peer, busy));
    return !list_empty(&engine->busy) || (!list_empty(&engine->orphans) && !must_wait(engine));
}

void engine_unhold(struct engine *engine)
{
    for (struct list *l = engine->peers.next; l != &engine->peers; l = l->next) {
        struct peer *peer = list_entry(l, struct peer, node);
        if (!list_empty(&peer->held))
            engine_on_busy(engine, peer);
    }
}
