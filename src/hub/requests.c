/* What readers ask of the engine, but for publishes: channels, a wake-up; and what they are
 * answered. */
#include "core.h"
#include "pattern.h"

#include <errno.h>
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

void engine_dismiss(struct engine *engine, struct peer *peer)
{
    if (peer->why)
        engine_log(engine, FW_LOG_WARNING, "reader-dropped", "%s", peer->why);
    interest_leave(&engine->interest, &peer->interest, engine_now_ms(engine));
    snapshots_leave(&engine->snapshots, peer);
    engine_orphan_publishes(engine, peer); /* carried out all the same */
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
                                     .code = (engine->traits & FW_SOURCE_DURABLE) != 0,
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

static void send_refused(struct engine *engine, struct peer *peer, const struct inbox_text *name,
                         uint64_t question, enum error_code code, const char *text)
{
    struct inbox_message message = { .type = INBOX_REFUSED,
                                     .code = (uint16_t)code,
                                     .c = question,
                                     .texts = { *name, inbox_text(text, strlen(text)) } };
    peer_send(peer, &message);
    engine->talked = true;
}

void engine_on_subscribe(struct engine *engine, struct peer *peer, const struct inbox_message *m)
{
    const struct inbox_text *name = &m->texts[0];
    if (!channel_valid(name->text, name->len)) {
        send_refused(engine, peer, name, m->c, CODE_BAD_CHANNEL, "bad channel name");
        return;
    }
    if (interest_add(&engine->interest, &peer->interest, name->text, name->len, m->a, m->c) < 0)
        send_refused(engine, peer, name, m->c, CODE_OVERLOADED, "out of memory");
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

static void hook_refused(void *arg, const struct want *want, enum error_code code,
                         const char *message)
{
    const struct inbox_text name = inbox_text(want->channel->name, want->channel->len);
    send_refused(arg, peer_of(want->reader), &name, want->question, code, message);
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
        (engine->traits & FW_SOURCE_DURABLE))
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
                                         .c = want->question,
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
    if (!peer->broken && peer_flush(peer)) {
        answer_due(engine, peer);
        snapshots_send(engine, peer);
    }
    bool more = !peer->broken && engine_publish_held(engine, peer);
    if (!peer->broken)
        peer_watch(peer);
    if (peer->broken)
        engine_dismiss(engine, peer);
    else if (more)
        engine_on_busy(engine, peer);
}

bool engine_tend(struct engine *engine)
{
    struct list todo;
    bool more = engine_publish_held(engine, NULL);
    /* Tending may make others busy, and itself again: those come with the next turn. */
    list_init(&todo);
    while (!list_empty(&engine->busy))
        list_push(&todo, list_pop(&engine->busy));
    for (struct list *node; (node = list_pop(&todo));)
        tend(engine, list_entry(node, struct peer, busy));
    return more || !list_empty(&engine->busy);
}
