/* The channels that somebody here wants, and what the source process knows and says of them: asked
 * for once per channel, whoever wants it; answered with the place from which it is covered. */
#include "clock.h"
#include "turn.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

bool channel_named(const void *value, const void *key, size_t len)
{
    const struct channel *channel = value;
    return channel->len == len && memcmp(channel->name, key, len) == 0;
}

struct channel *channel_acquire(struct worker *w, const char *name, size_t len)
{
    uint64_t hash = log_hash(w->log, name, len);
    struct channel *channel = map_get(&w->channels, hash, channel_named, name, len);
    if (channel) {
        channel->users++;
        return channel;
    }
    channel = malloc(sizeof(*channel) + len + 1);
    if (!channel)
        return NULL;
    *channel = (struct channel){ .hash = hash, .len = len, .users = 1 };
    channel->name = (char *)(channel + 1);
    memcpy(channel->name, name, len);
    channel->name[len] = 0;
    list_init(&channel->histories);
    list_init(&channel->polls);
    if (map_put(&w->channels, hash, channel) < 0) {
        free(channel);
        return NULL;
    }
    count(&w->counters->channels, 1);
    list_push(&w->tell, &channel->tell);
    tell_source(w);
    return channel;
}

static void channel_free(struct worker *w, struct channel *channel)
{
    for (int f = 0; f < N_FORMATS; f++)
        feed_free(&w->arena, channel, f);
    sub_set_done(&channel->waiting);
    list_remove(&channel->tell);
    snapshot_forget(w, channel);
    map_remove(&w->channels, channel->hash, channel);
    count(&w->counters->channels, (uint64_t)-1);
    free(channel);
}

void channel_release(struct worker *w, struct channel *channel)
{
    if (--channel->users == 0) {
        if (!list_linked(&channel->tell))
            list_push(&w->tell, &channel->tell);
        tell_source(w);
    }
}

/* Tells one interest or its end. -EAGAIN: later. */
static int tell_channel(struct worker *w, struct channel *channel)
{
    bool wanted = channel->users > 0;
    if (wanted == channel->told)
        return 0;
    const struct reader_channel name = { channel->name, channel->len, w->last_question + 1 };
    int r;
    if (!wanted)
        r = reader_unsubscribe(w->reader, channel->name, channel->len);
    else if (channel->covered_from) /* of the source process before this one */
        r = reader_resubscribe(w->reader, &name, channel->covered_from);
    else
        r = reader_subscribe(w->reader, &name);
    if (r == 0 && wanted)
        channel->question = ++w->last_question;
    if (r == 0)
        channel->told = wanted;
    return r;
}

void tell_source(struct worker *w)
{
    while (!list_empty(&w->tell)) {
        struct channel *channel = list_entry(w->tell.next, struct channel, tell);
        if (w->reader ? tell_channel(w, channel) < 0 : channel->users > 0)
            return; /* goes on when the inbox takes more, or when there is one */
        list_remove(&channel->tell);
        if (channel->users == 0)
            channel_free(w, channel);
    }
}

void channels_forget_source(struct worker *w)
{
    struct channel *channel;
    for (size_t at = 0; (channel = map_next(&w->channels, &at));) {
        channel->told = channel->confirmed = false;
        channel->state = CHANNEL_ASKING;
        snapshot_forget(w, channel);
        if (!list_linked(&channel->tell))
            list_push(&w->tell, &channel->tell);
    }
}

static void to_resolve(struct worker *w, struct channel *channel)
{
    list_move_all(&channel->histories, &channel->polls);
    if (!list_linked(&channel->resolved)) {
        channel->users++; /* stays while its waiters get on */
        list_push(&w->resolved, &channel->resolved);
    }
}

/* Everybody who waits for the source's word on this channel gets on, in slices: after an outage
 * that may be every client there is. */
void channel_resolved(struct worker *w, struct channel *channel)
{
    channel->next_waiting = channel->waiting.count;
    to_resolve(w, channel);
}

void channel_wake_polls(struct worker *w, struct channel *channel)
{
    if (!list_empty(&channel->polls) && channel->state != CHANNEL_ASKING)
        to_resolve(w, channel); /* else the source's word wakes them */
}

/* From the end: who leaves is replaced by one that was looked at already. */
static bool resolve_channel(struct worker *w, struct channel *channel, int64_t deadline)
{
    while (channel->next_waiting > 0) {
        uint32_t i = --channel->next_waiting;
        if (i < channel->waiting.count)
            joins_advance(w, channel->waiting.items[i]->conn);
        if (i % 16 == 0 && clock_monotonic_us() > deadline)
            return false;
    }
    struct list *node;
    for (unsigned i = 1; (node = list_pop(&channel->histories)); i++) {
        history_advance(w, list_entry(node, struct history_request, node)->conn);
        if (i % 16 == 0 && clock_monotonic_us() > deadline)
            return list_empty(&channel->histories);
    }
    return true;
}

/* What a durable source re-reads stands before ready_at, and the frontier passes it unseen, as
 * nobody has it live. A resume that opened amid of it would get the rest from nobody. */
static bool reached(const struct worker *w, struct channel *channel)
{
    if (!channel->confirmed)
        return true;
    if (w->frontier < channel->ready_at)
        return false;
    channel->confirmed = false;
    channel->state = CHANNEL_READY;
    channel->next_waiting = channel->waiting.count;
    return true;
}

void resolve(struct worker *w, int64_t budget_us)
{
    int64_t deadline = clock_monotonic_us() + budget_us;
    while (!list_empty(&w->resolved)) {
        struct channel *channel = list_entry(w->resolved.next, struct channel, resolved);
        if (!reached(w, channel))
            return;
        /* The source may have gone meanwhile: then its successor's word comes. */
        if (channel->state != CHANNEL_ASKING && !resolve_channel(w, channel, deadline))
            return;
        list_remove(&channel->resolved);
        channel_release(w, channel);
    }
}

/* The channel that this is the answer for; NULL: it was withdrawn meanwhile, and maybe asked for
 * again. */
static struct channel *answered(struct worker *w, const struct reader_channel *answer)
{
    uint64_t hash = log_hash(w->log, answer->name, answer->len);
    struct channel *channel = map_get(&w->channels, hash, channel_named, answer->name, answer->len);
    return channel && channel->told && channel->question == answer->question ? channel : NULL;
}

void on_ready(void *worker, const struct reader_channel *answer, uint64_t covered_from,
              uint64_t ready_at)
{
    struct worker *w = worker;
    struct channel *channel = answered(w, answer);
    if (!channel)
        return;
    channel->confirmed = true;
    channel->covered_from = covered_from;
    channel->ready_at = ready_at;
    channel_resolved(w, channel);
}

void on_refused(void *worker, const struct reader_channel *answer, enum error_code code,
                const char *message)
{
    struct worker *w = worker;
    struct channel *channel = answered(w, answer);
    if (!channel)
        return;
    channel->state = CHANNEL_REFUSED;
    channel->confirmed = false;
    channel->refused_code = code;
    (void)message; /* already in the source process's log; not for strangers */
    channel->users++;
    for (int f = 0; f < N_FORMATS; f++) { /* who had it from the source process before this one */
        while (channel->feeds[f]) {
            struct conn *c = channel->feeds[f]->subs.items[0]->conn;
            if (c->state == CONN_STREAM)
                sub_refused(w, channel->feeds[f]->subs.items[0]);
            else
                unsubscribe_all(w, c);
        }
    }
    channel_release(w, channel);
    channel_resolved(w, channel);
}
