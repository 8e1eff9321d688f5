/* The library's subscription: its channels, its inbox, its life. next.c is the iterator. */
#include "sub.h"

#include "error.h"
#include "pattern.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define LAST_MAX 1000

/* ---- channels ---- */

bool sub_same_name(const void *value, const void *key, size_t len)
{
    const struct sub_channel *c = value;
    return c->len == len && memcmp(c->name, key, len) == 0;
}

static struct sub_channel *find(const struct fw_sub *sub, const char *name, size_t len)
{
    return map_get(&sub->by_hash, log_hash(sub->log, name, len), sub_same_name, name, len);
}

void sub_free_channel(struct fw_sub *sub, struct sub_channel *channel)
{
    if (sub->replay.channel == channel)
        replay_stop(sub);
    if (sub->rows.channel == channel)
        rows_drop(sub);
    if (channel->asked)
        sub->n_asked--;
    (void)map_remove(&sub->by_hash, channel->hash, channel);
    list_remove(&channel->node);
    list_remove(&channel->queue);
    free(channel);
    sub->n_channels--;
    sub->only =
        sub->n_channels == 1 ? list_entry(sub->channels.next, struct sub_channel, node) : NULL;
}

/* ---- the inbox ---- */

/* The channel that this is the answer for; NULL: it was left meanwhile, and maybe asked for again.
 */
static struct sub_channel *answered(const struct fw_sub *sub, const struct reader_channel *answer)
{
    struct sub_channel *channel = find(sub, answer->name, answer->len);
    return channel && channel->question == answer->question ? channel : NULL;
}

static void on_ready(void *arg, const struct reader_channel *answer, uint64_t covered_from,
                     uint64_t ready_at)
{
    struct fw_sub *sub = arg;
    struct sub_channel *channel = answered(sub, answer);
    if (!channel || !channel->asked)
        return;
    channel->asked = false;
    sub->n_asked--;
    channel->covered_from = covered_from;
    channel->ready_at = ready_at;
    sub_requeue(channel, channel->rows ? &sub->rowless : &sub->answered);
    sub->attention = true;
}

void sub_refuse(struct fw_sub *sub, struct sub_channel *channel, enum error_code code,
                const char *message)
{
    channel->live_from = UINT64_MAX;
    channel->refused = code;
    (void)snprintf(channel->message, sizeof(channel->message), "%s", message);
    if (sub->replay.channel == channel)
        replay_stop(sub);
    if (sub->rows.channel == channel)
        rows_drop(sub);
    sub_requeue(channel, &sub->refused);
    sub->attention = true;
}

static void on_refused(void *arg, const struct reader_channel *answer, enum error_code code,
                       const char *message)
{
    struct fw_sub *sub = arg;
    struct sub_channel *channel = answered(sub, answer);
    if (!channel)
        return;
    if (channel->asked)
        sub->n_asked--;
    channel->asked = false;
    sub_refuse(sub, channel, code, message);
}

static const struct reader_handlers handlers = { .ready = on_ready,
                                                 .refused = on_refused,
                                                 .rows = rows_take };

static void watch_eventfd(struct fw_sub *sub)
{
    if (sub->epoll_fd < 0 || sub->epoll_eventfd || reader_eventfd(sub->reader) < 0)
        return;
    struct epoll_event e = { .events = EPOLLIN };
    int fd = reader_eventfd(sub->reader);
    sub->epoll_eventfd = epoll_ctl(sub->epoll_fd, EPOLL_CTL_ADD, fd, &e) == 0;
    (void)eventfd_write(fd, 1); /* until fw_sub_next() has returned 0 there may be something */
}

static void watch_room(struct fw_sub *sub, bool room)
{
    if (sub->epoll_fd < 0 || sub->epoll_room == room)
        return;
    struct epoll_event e = { .events = room ? EPOLLIN | EPOLLOUT : EPOLLIN };
    if (epoll_ctl(sub->epoll_fd, EPOLL_CTL_MOD, reader_fd(sub->reader), &e) == 0)
        sub->epoll_room = room;
}

static int ask(struct fw_sub *sub, const struct sub_channel *channel)
{
    return reader_subscribe(sub->reader, &(struct reader_channel){ channel->name, channel->len,
                                                                   channel->question });
}

bool sub_has_unsent(const struct fw_sub *sub)
{
    return !list_empty(&sub->unsent) || (!sub->rows.channel && !list_empty(&sub->rowless));
}

void sub_ask(struct fw_sub *sub)
{
    while (!list_empty(&sub->unsent)) {
        struct sub_channel *c = list_entry(sub->unsent.next, struct sub_channel, queue);
        if (ask(sub, c) < 0)
            break;
        list_remove(&c->queue);
    }
    (void)rows_ask(sub);
    watch_room(sub, sub_has_unsent(sub));
}

void sub_process_inbox(struct fw_sub *sub)
{
    if (!sub->gone && reader_process(sub->reader, &handlers, sub) < 0) {
        sub->gone = true;
        return;
    }
    if (reader_slot(sub->reader))
        sub->slot = reader_slot(sub->reader);
    watch_eventfd(sub);
    sub_ask(sub);
}

/* ---- opening and closing ---- */

static int check_options(const struct fw_sub_options *options,
                         const struct snapshot_queries *queries, struct sub_channel *channel,
                         struct fw_error *err)
{
    struct fw_sub_options o = { 0 };
    if (options) {
        size_t size = options->size ? options->size : sizeof(*options);
        memcpy(&o, options, size < sizeof(o) ? size : sizeof(o));
    }
    channel->since = (struct since){ .kind = SINCE_NOW };
    channel->last = o.last;
    channel->rows = o.snapshot;
    if (o.snapshot && (o.since || o.last))
        return error_set(err, -EINVAL, "snapshot and %s exclude each other",
                         o.since ? "since" : "last");
    if (o.snapshot && !snapshot_queries_have(queries, channel->name))
        return error_set(err, -EINVAL,
                         "channel \"%s\" has no rows: the snapshots of the hub's options name no "
                         "query for it",
                         channel->name);
    if (o.last > LAST_MAX)
        return error_set(err, -EINVAL, "last is %u; the most is %d", o.last, LAST_MAX);
    if (o.last && o.since)
        return error_set(err, -EINVAL, "since and last exclude each other");
    if (o.since && since_parse(o.since, strlen(o.since), &channel->since) < 0)
        return error_set(err, -EINVAL,
                         "bad position: \"now\", \"oldest\" or the id of an event "
                         "(letters, digits and . _ ~ -)");
    return 0;
}

static int add(struct fw_sub *sub, struct sub_channel *channel)
{
    int r = map_put(&sub->by_hash, channel->hash, channel);
    if (r < 0)
        return r;
    list_push(&sub->channels, &channel->node);
    sub->only = ++sub->n_channels == 1 ? channel : NULL;
    channel->asked = true;
    sub->n_asked++;
    channel->question = ++sub->last_question;
    if (list_empty(&sub->unsent) && ask(sub, channel) != -EAGAIN)
        return 0; /* an end of file shows in fw_sub_next() */
    list_push(&sub->unsent, &channel->queue);
    watch_room(sub, true);
    return 0;
}

int fw_sub_add(struct fw_sub *sub, const char *name, const struct fw_sub_options *options,
               struct fw_error *err)
{
    size_t len = name ? strlen(name) : 0;
    if (hub_forked(sub->core))
        return error_set(err, -ECHILD, HUB_FORKED_TEXT);
    if (!channel_valid(name, len))
        return error_set(err, -EINVAL,
                         "bad channel name: 1 to 255 bytes of UTF-8 without control characters");
    if (find(sub, name, len))
        return error_set(err, -EEXIST, "the subscription has channel \"%s\" already", name);
    struct sub_channel *channel = calloc(1, sizeof(*channel));
    if (!channel)
        return error_set(err, -ENOMEM, "out of memory for a channel");
    channel->hash = log_hash(sub->log, name, len);
    channel->live_from = UINT64_MAX;
    channel->asked_at = sub->cursor;
    channel->len = len;
    memcpy(channel->name, name, len);
    int r = check_options(options, &sub->core->snapshots, channel, err);
    if (r == 0 && (r = add(sub, channel)) < 0)
        (void)error_set(err, r, "out of memory for a channel");
    if (r != 0)
        free(channel);
    return r;
}

int fw_sub_remove(struct fw_sub *sub, const char *name)
{
    struct sub_channel *channel = name ? find(sub, name, strlen(name)) : NULL;
    if (!channel)
        return -ENOENT;
    /* One that was never sent, or that the source refused, is not wanted over there. A full inbox
     * keeps the interest until the subscription ends: costs listening, never an event. */
    bool sent = !channel->refused && !(channel->asked && list_linked(&channel->queue));
    if (sent && !hub_forked(sub->core))
        (void)reader_unsubscribe(sub->reader, channel->name, channel->len);
    sub_free_channel(sub, channel);
    if (!hub_forked(sub->core))
        sub_ask(sub); /* another's rows may have waited for these */
    return 0;
}

int fw_sub_open(struct fw_hub *hub, const char *channel, const struct fw_sub_options *options,
                struct fw_sub **ret_sub, struct fw_error *err)
{
    struct hub_core *core = hub_core(hub);
    if (hub_forked(core))
        return error_set(err, -ECHILD, HUB_FORKED_TEXT);
    struct fw_sub *sub = calloc(1, sizeof(*sub));
    if (!sub)
        return error_set(err, -ENOMEM, "out of memory for a subscription");
    hub_core_ref(core);
    sub->core = core;
    sub->log = core->log;
    sub->slot = &sub->own_slot;
    sub->epoll_fd = sub->timer_fd = -1;
    sub->rows.answer = buf_make(ROWS_MAX);
    sub_seek_end(sub); /* before the state's word is looked at */
    sub->check_state = sub->attention = true;
    list_init(&sub->channels);
    list_init(&sub->unsent);
    list_init(&sub->rowless);
    list_init(&sub->ahead);
    list_init(&sub->answered);
    list_init(&sub->confirming);
    list_init(&sub->refused);
    int r = hub_connect(hub, &sub->reader);
    if (r < 0)
        (void)error_set(err, r, "no connection to the hub: %s", strerror(-r));
    if (r == 0 && channel)
        r = fw_sub_add(sub, channel, options, err);
    if (r < 0) {
        fw_sub_close(sub);
        return r;
    }
    *ret_sub = sub;
    return 0;
}

int fw_sub_fd(struct fw_sub *sub)
{
    if (hub_forked(sub->core))
        return -ECHILD;
    if (sub->epoll_fd >= 0)
        return sub->epoll_fd;
    int fd = epoll_create1(EPOLL_CLOEXEC);
    if (fd < 0)
        return -errno;
    struct epoll_event e = { .events = EPOLLIN };
    if (epoll_ctl(fd, EPOLL_CTL_ADD, reader_fd(sub->reader), &e) < 0) {
        int error = errno;
        close(fd);
        return -error;
    }
    sub->epoll_fd = fd;
    sub_process_inbox(sub); /* the greeting may have come, and with it the eventfd */
    return fd;
}

void fw_sub_cancel(struct fw_sub *sub)
{
    atomic_store_explicit(&sub->cancelled, true, memory_order_release); /* interrupted() loads */
    if (!hub_forked(sub->core) && reader_poke(sub->reader) < 0)
        reader_hang_up(sub->reader); /* no room to say it: an end of file wakes as well */
}

const char *fw_sub_error(const struct fw_sub *sub)
{
    return sub->error.message;
}

void fw_sub_close(struct fw_sub *sub)
{
    if (!sub)
        return;
    while (!list_empty(&sub->channels))
        sub_free_channel(sub, list_entry(sub->channels.next, struct sub_channel, node));
    map_done(&sub->by_hash);
    reader_close(sub->reader);
    if (sub->epoll_fd >= 0)
        close(sub->epoll_fd);
    if (sub->timer_fd >= 0)
        close(sub->timer_fd);
    hub_core_unref(sub->core);
    free(sub->body);
    free(sub);
}
