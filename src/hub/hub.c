/* The library's hub: an engine in a thread of the calling process, and a way to publish to it. */
#include "hub.h"

#include "clock.h"
#include "engine.h"
#include "error.h"
#include "inbox.h"
#include "list.h"
#include "meta.h"
#include "pattern.h"
#include "position.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define RETAIN_DEFAULT (64u << 20)
#define RETAIN_MAX     (32ull << 30)
#define PAGE_SIZE      4096

/* One thread's publish, on that thread's stack. */
struct request {
    struct list node;
    uint64_t id;
    const char *channel, *key, *from;
    const void *data;
    size_t len;
    bool done;
    enum error_code code;
    char position[FW_POSITION_MAX + 1], message[256];
};

struct fw_hub {
    struct hub_core *core;
    struct engine *engine;
    pthread_t thread;

    /* publishing: many threads, one inbox connection */
    pthread_mutex_t lock;
    pthread_cond_t answered;
    struct reader *reader;
    struct list requests;
    size_t n_outstanding; /* bytes not yet answered: ≤ INBOX_PUBLISH_MAX */
    uint64_t last_request;
    int kick;          /* eventfd: takes that thread out of its wait */
    bool pumping;      /* a thread waits at the connection for all */
    bool pumping_room; /* … and for room to write, too */
};

/* ---- the part that subscriptions share ---- */

static int core_new(size_t retain, struct hub_core **ret)
{
    struct hub_core *core = calloc(1, sizeof(*core));
    if (!core)
        return -ENOMEM;
    atomic_init(&core->refs, 1);
    int r = log_create(retain, &core->log);
    if (r < 0) {
        free(core);
        return r;
    }
    uint8_t *page =
        mmap(NULL, PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (page == MAP_FAILED || madvise(page, PAGE_SIZE, MADV_WIPEONFORK) < 0) {
        r = -errno;
        if (page != MAP_FAILED)
            munmap(page, PAGE_SIZE);
        log_close(core->log);
        free(core);
        return r;
    }
    *page = 1;
    core->here = page;
    core->ahead_ms = AHEAD_MS;
    *ret = core;
    return 0;
}

struct hub_core *hub_core(const struct fw_hub *hub)
{
    return hub->core;
}

void hub_core_ref(struct hub_core *core)
{
    atomic_fetch_add_explicit(&core->refs, 1, memory_order_relaxed);
}

void hub_core_unref(struct hub_core *core)
{
    /* acq_rel: the last one sees everything the others did with the log before they let go */
    if (!core || atomic_fetch_sub_explicit(&core->refs, 1, memory_order_acq_rel) != 1)
        return;
    log_close(core->log);
    snapshot_queries_done(&core->snapshots);
    munmap((void *)(uintptr_t)core->here, PAGE_SIZE);
    free(core);
}

/* ---- opening ---- */

static int check_options(const struct fw_hub_options *options, struct fw_hub_options *ret,
                         struct fw_error *err)
{
    *ret = (struct fw_hub_options){ 0 };
    if (options) {
        size_t size = options->size ? options->size : sizeof(*options);
        memcpy(ret, options, size < sizeof(*ret) ? size : sizeof(*ret));
    }
    if (ret->retain == 0)
        ret->retain = RETAIN_DEFAULT;
    if (ret->retain > RETAIN_MAX)
        return error_set(err, -EINVAL, "retain is %zu bytes; the largest log is 32 GiB",
                         ret->retain);
    return 0;
}

static void *run(void *arg)
{
    (void)engine_run(arg);
    return NULL;
}

/* The application's signals are not for this thread. */
static int start_thread(struct fw_hub *hub)
{
    sigset_t all, before;
    sigfillset(&all);
    int r = pthread_sigmask(SIG_SETMASK, &all, &before);
    if (r != 0)
        return -r;
    r = pthread_create(&hub->thread, NULL, run, hub->engine);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    return -r;
}

static void init_publishing(struct fw_hub *hub)
{
    pthread_condattr_t attr;
    (void)pthread_condattr_init(&attr);
    (void)pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    (void)pthread_cond_init(&hub->answered, &attr);
    (void)pthread_condattr_destroy(&attr);
    (void)pthread_mutex_init(&hub->lock, NULL);
    list_init(&hub->requests);
    hub->kick = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
}

/* Also of a half-made hub; the engine's thread does not run. */
static void free_hub(struct fw_hub *hub)
{
    reader_close(hub->reader);
    if (hub->kick >= 0)
        close(hub->kick);
    engine_free(hub->engine);
    (void)pthread_cond_destroy(&hub->answered);
    (void)pthread_mutex_destroy(&hub->lock);
    hub_core_unref(hub->core);
    free(hub);
}

int hub_connect(struct fw_hub *hub, struct reader **ret)
{
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) < 0)
        return -errno;
    int r = engine_adopt(hub->engine, ends[0]);
    if (r < 0) {
        close(ends[0]);
        close(ends[1]);
        return r;
    }
    return reader_adopt(ends[1], ret);
}

static int start(struct fw_hub *hub, const char *url, const struct fw_source_class *const *sources,
                 unsigned linger_ms, struct fw_error *err)
{
    struct engine_options e = { .url = url,
                                .sources = sources,
                                .log = hub->core->log,
                                .linger_ms = linger_ms,
                                .snapshots = hub->core->snapshots.items,
                                .n_snapshots = hub->core->snapshots.n,
                                .listen_fd = -1 };
    int r = engine_new(&e, &hub->engine, err);
    if (r == 0 && hub->kick < 0)
        r = error_set(err, -EMFILE, "no descriptor left for the hub");
    else if (r == 0 && ((r = hub_connect(hub, &hub->reader)) < 0 || (r = start_thread(hub)) < 0))
        (void)error_set(err, r, "the hub's thread could not be started: %s", strerror(-r));
    return r;
}

int hub_open_with(const char *url, const struct fw_hub_options *options,
                  const struct fw_source_class *const *sources, struct fw_hub **ret_hub,
                  struct fw_error *err)
{
    struct fw_hub_options o;
    int r = check_options(options, &o, err);
    if (r < 0)
        return r;
    struct fw_hub *hub = calloc(1, sizeof(*hub));
    if (!hub)
        return error_set(err, -ENOMEM, "out of memory for a hub");
    init_publishing(hub);
    r = core_new(o.retain, &hub->core);
    if (r < 0)
        (void)error_set(err, r, "no log of %zu bytes: %s; ask for less by retain", o.retain,
                        strerror(-r));
    else
        r = snapshot_queries_copy(o.snapshots, o.n_snapshots, &hub->core->snapshots, err);
    if (r == 0)
        r = start(hub, url, sources, o.linger_ms, err);
    if (r < 0) {
        free_hub(hub);
        return r;
    }
    *ret_hub = hub;
    return 0;
}

int fw_hub_open(const char *url, const struct fw_hub_options *options, struct fw_hub **ret_hub,
                struct fw_error *err)
{
    return hub_open_with(url, options, NULL, ret_hub, err);
}

void fw_hub_close(struct fw_hub *hub)
{
    if (!hub)
        return;
    if (hub_forked(hub->core)) {
        /* The engine is the parent's: even closing its epoll watches would end them there. */
        hub_core_unref(hub->core);
        free(hub);
        return;
    }
    engine_stop(hub->engine);
    (void)pthread_join(hub->thread, NULL);
    free_hub(hub);
}

/* ---- publishing ---- */

static void on_published(void *arg, const struct reader_published *answer)
{
    struct fw_hub *hub = arg;
    for (struct list *l = hub->requests.next; l != &hub->requests; l = l->next) {
        struct request *request = list_entry(l, struct request, node);
        if (request->id != answer->request)
            continue;
        request->done = true;
        request->code = answer->code;
        (void)snprintf(request->position, sizeof(request->position), "%s", answer->id);
        (void)snprintf(request->message, sizeof(request->message), "%s", answer->message);
        return;
    }
}

static const struct reader_handlers handlers = { .published = on_published };

static int wait_for_others(struct fw_hub *hub, int64_t deadline_ms)
{
    if (deadline_ms < 0) {
        (void)pthread_cond_wait(&hub->answered, &hub->lock);
        return 0;
    }
    struct timespec until = { .tv_sec = deadline_ms / 1000,
                              .tv_nsec = deadline_ms % 1000 * 1000000L };
    return pthread_cond_timedwait(&hub->answered, &hub->lock, &until) == ETIMEDOUT ? -ETIMEDOUT : 0;
}

static int poll_timeout(int64_t deadline_ms)
{
    if (deadline_ms < 0)
        return -1;
    int64_t left = deadline_ms - clock_monotonic_ms();
    return left < 0 ? 0 : left > INT32_MAX ? INT32_MAX : (int)left;
}

/* Waits at the connection on behalf of all threads that publish. */
static int wait_for_reader(struct fw_hub *hub, int64_t deadline_ms)
{
    short events = reader_blocked(hub->reader) ? POLLIN | POLLOUT : POLLIN;
    struct pollfd polls[] = { { .fd = reader_fd(hub->reader), .events = events },
                              { .fd = hub->kick, .events = POLLIN } };
    eventfd_t kicks;
    hub->pumping = true;
    hub->pumping_room = events & POLLOUT;
    pthread_mutex_unlock(&hub->lock);
    int n = poll(polls, 2, poll_timeout(deadline_ms));
    pthread_mutex_lock(&hub->lock);
    hub->pumping = hub->pumping_room = false;
    (void)eventfd_read(hub->kick, &kicks);
    int r = reader_process(hub->reader, &handlers, hub);
    (void)pthread_cond_broadcast(&hub->answered);
    return r < 0 ? r : n == 0 ? -ETIMEDOUT : 0;
}

/* Moves the connection on, or waits while another thread does. Returns 0 when something may have
 * changed. */
static int pump(struct fw_hub *hub, int64_t deadline_ms)
{
    if (!hub->pumping)
        return wait_for_reader(hub, deadline_ms);
    if (reader_blocked(hub->reader) && !hub->pumping_room) {
        hub->pumping_room = true; /* it will */
        (void)eventfd_write(hub->kick, 1);
    }
    return wait_for_others(hub, deadline_ms);
}

static int send_request(struct fw_hub *hub, struct request *request, int64_t deadline_ms)
{
    int r = 0;
    while (r == 0 && hub->n_outstanding > 0 &&
           hub->n_outstanding + request->len > INBOX_PUBLISH_MAX)
        r = pump(hub, deadline_ms);
    if (r < 0)
        return r == -ETIMEDOUT ? -EAGAIN : r;
    request->id = ++hub->last_request;
    while ((r = reader_publish(hub->reader, request->id, request->channel, strlen(request->channel),
                               request->data, request->len, request->key, request->from)) ==
           -EAGAIN)
        if ((r = pump(hub, deadline_ms)) < 0)
            return r == -ETIMEDOUT ? -EAGAIN : r;
    return r;
}

static int await_answer(struct fw_hub *hub, struct request *request, int64_t deadline_ms)
{
    int r = 0;
    list_push(&hub->requests, &request->node);
    hub->n_outstanding += request->len;
    while (!request->done && r == 0)
        r = pump(hub, deadline_ms);
    list_remove(&request->node);
    hub->n_outstanding -= request->len;
    return request->done ? 0 : r;
}

/* `message` tells the two kinds of source-down apart, see fw_host_published(). */
static int publish_error(enum error_code code, const char *message)
{
    static const char maybe[] = "may have been stored";
    switch (code) {
    case CODE_OK:
        return 0;
    case CODE_BAD_CHANNEL:
    case CODE_BAD_REQUEST:
        return -EINVAL;
    case CODE_TOO_LARGE:
        return -EMSGSIZE;
    case CODE_SOURCE_DOWN:
        return strncmp(message, maybe, sizeof(maybe) - 1) == 0 ? -ETIMEDOUT : -EAGAIN;
    case CODE_OVERLOADED:
        return -EAGAIN;
    default:
        return -EIO;
    }
}

static int publish(struct fw_hub *hub, struct request *request, int64_t deadline_ms,
                   struct fw_error *err)
{
    int r = send_request(hub, request, deadline_ms);
    if (r == -EAGAIN)
        return error_set(err, r, "the source takes no publishes at the moment; nothing was stored");
    if (r == 0)
        r = await_answer(hub, request, deadline_ms);
    if (r == -ETIMEDOUT)
        return error_set(err, r,
                         "no answer from the source in time; the event may have been stored");
    if (r < 0)
        return error_set(err, r, "the hub's source has ended; the event may have been stored");
    r = publish_error(request->code, request->message);
    if (r < 0)
        return error_set(err, r, "the source did not take the event (%s): %s",
                         code_text(request->code), request->message);
    return 0;
}

static int check_request(const struct request *request, struct fw_error *err)
{
    const char *channel = request->channel;
    if (!channel || !channel_valid(channel, strlen(channel)) ||
        channel_reserved(channel, strlen(channel)))
        return error_set(err, -EINVAL,
                         "bad channel name: 1 to 255 bytes of UTF-8 without control characters, "
                         "not below $fanwire/");
    if ((request->key && !*request->key) || !meta_fits(request->key, request->from))
        return error_set(err, -EINVAL, "a key is 1 to %d bytes, and a sender at most %d",
                         META_KEY_MAX, META_FROM_MAX);
    if (request->len > INBOX_PUBLISH_MAX)
        return error_set(err, -EMSGSIZE, "a payload of %zu bytes; the most is %d", request->len,
                         INBOX_PUBLISH_MAX);
    return 0;
}

int fw_hub_publish_with(struct fw_hub *hub, const char *channel, const void *data, size_t len,
                        const struct fw_publish_options *options, int timeout_ms, char *id,
                        struct fw_error *err)
{
    struct fw_publish_options o = { 0 };
    if (options) {
        size_t size = options->size ? options->size : sizeof(*options);
        memcpy(&o, options, size < sizeof(o) ? size : sizeof(o));
    }
    struct request request = {
        .channel = channel, .data = data, .len = len, .key = o.key, .from = o.from
    };
    if (hub_forked(hub->core))
        return error_set(err, -ECHILD, HUB_FORKED_TEXT);
    int r = check_request(&request, err);
    if (r < 0)
        return r;
    int64_t deadline_ms = timeout_ms < 0 ? -1 : clock_monotonic_ms() + timeout_ms;
    pthread_mutex_lock(&hub->lock);
    r = publish(hub, &request, deadline_ms, err);
    pthread_mutex_unlock(&hub->lock);
    if (r == 0 && id)
        memcpy(id, request.position, strlen(request.position) + 1);
    return r;
}

int fw_hub_publish(struct fw_hub *hub, const char *channel, const void *data, size_t len,
                   int timeout_ms, char *id, struct fw_error *err)
{
    return fw_hub_publish_with(hub, channel, data, len, NULL, timeout_ms, id, err);
}

const char *fw_version(void)
{
    return FANWIRE_VERSION;
}
