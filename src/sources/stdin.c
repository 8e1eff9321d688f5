/* stdin: — lines from standard input as events.
 *
 *   stdin:           CHANNEL <TAB> payload
 *   stdin:CHANNEL    the whole line is the payload (percent-encoded: "stdin:a%3Fb")
 *
 * A thread reads, so that pipes, files and terminals are all the same and O_NONBLOCK is never set
 * on a descriptor that other processes share. It fills one of two chunks while the loop takes the
 * other apart; a line that crosses chunks is put together, up to the largest event there may be. */
#include "error.h"
#include "text.h"

#include <errno.h>
#include <fanwire/source.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define CHUNK_SIZE  (256u * 1024)
#define N_CHUNKS    2
#define FLUSH_EVERY 256 /* events */

struct chunk {
    size_t len;
    bool full; /* the loop's; else the thread's */
    char data[CHUNK_SIZE];
};

struct fw_source {
    struct fw_host *host;
    char channel[FW_CHANNEL_MAX + 1]; /* "" = on each line */
    size_t channel_len;

    /* the loop's */
    struct fw_waker *waker;
    size_t next, at; /* chunk and place in it */
    unsigned n_unflushed;
    bool paused, ended;
    char *line; /* the beginning of a line that a chunk cut off */
    size_t line_len, line_cap;
    size_t line_lost; /* bytes of it beyond the largest event */

    /* shared */
    pthread_mutex_t lock;
    pthread_cond_t freed;
    struct chunk *chunks;
    bool eof, stop;
    int error;

    pthread_t thread;
    bool started;
    int stop_fd;
};

/* ---- the thread that reads ---- */

/* Waits for input or for the end. False when told to stop. */
static bool wait_for_input(const struct fw_source *source)
{
    struct pollfd polls[] = { { .fd = STDIN_FILENO, .events = POLLIN },
                              { .fd = source->stop_fd, .events = POLLIN } };
    while (poll(polls, 2, -1) < 0 && errno == EINTR)
        ;
    return polls[1].revents == 0;
}

/* Returns the chunk to fill, or NULL when told to stop. */
static struct chunk *free_chunk(struct fw_source *source, size_t index)
{
    struct chunk *chunk = &source->chunks[index];
    pthread_mutex_lock(&source->lock);
    while (chunk->full && !source->stop)
        pthread_cond_wait(&source->freed, &source->lock);
    bool stop = source->stop;
    pthread_mutex_unlock(&source->lock);
    return stop ? NULL : chunk;
}

static void hand_over(struct fw_source *source, struct chunk *chunk, ssize_t n, int error)
{
    pthread_mutex_lock(&source->lock);
    if (n > 0) {
        chunk->len = (size_t)n;
        chunk->full = true;
    } else {
        source->eof = true;
        source->error = n < 0 ? error : 0;
    }
    pthread_mutex_unlock(&source->lock);
    fw_waker_wake(source->waker);
}

static void *read_input(void *arg)
{
    struct fw_source *source = arg;
    for (size_t i = 0;; i = (i + 1) % N_CHUNKS) {
        struct chunk *chunk = free_chunk(source, i);
        ssize_t n;
        do {
            if (!chunk || !wait_for_input(source))
                return NULL;
            n = read(STDIN_FILENO, chunk->data, CHUNK_SIZE);
        } while (n < 0 && (errno == EINTR || errno == EAGAIN));
        hand_over(source, chunk, n, errno);
        if (n <= 0)
            return NULL;
    }
}

/* ---- lines ---- */

static void refuse(struct fw_source *source)
{
    fw_host_refuse_event(source->host, "a line without CHANNEL<TAB> in front");
}

/* `lost`: bytes of the line that were not kept; then the event is too large, and only its length
 * matters to the hub. */
static void append(struct fw_source *source, const char *line, size_t len, size_t lost)
{
    struct fw_source_event event = {
        .channel = source->channel, .channel_len = source->channel_len, .data = line, .len = len
    };
    if (!source->channel_len) {
        const char *tab = memchr(line, '\t', len < FW_CHANNEL_MAX + 1 ? len : FW_CHANNEL_MAX + 1);
        if (!tab) {
            refuse(source);
            return;
        }
        event.channel = line;
        event.channel_len = (size_t)(tab - line);
        event.data = tab + 1;
        event.len = len - event.channel_len - 1;
    }
    if (lost > 0) {
        event.data = NULL;
        event.len += lost;
    }
    (void)fw_host_append(source->host, &event);
}

static void keep(struct fw_source *source, const char *part, size_t len)
{
    /* One byte more than the largest event is enough to know that the line is larger. */
    size_t most = fw_host_event_max(source->host) + 2;
    size_t room = most - source->line_len, taken = len < room ? len : room;
    if (source->line_len + taken > source->line_cap) {
        size_t cap = source->line_cap ? source->line_cap : 4096;
        while (cap < source->line_len + taken)
            cap *= 2;
        char *line = realloc(source->line, cap);
        if (line) {
            source->line = line;
            source->line_cap = cap;
        } else {
            taken = source->line_cap - source->line_len;
        }
    }
    if (taken > 0)
        memcpy(source->line + source->line_len, part, taken);
    source->line_len += taken;
    source->line_lost += len - taken;
}

/* The line that was put together is complete. */
static void append_kept(struct fw_source *source)
{
    /* Bytes were lost only beyond the largest event, or for want of memory: that is a gap, too. */
    size_t lost = source->line_lost;
    if (lost > 0 && source->line_len + lost <= fw_host_event_max(source->host))
        lost = fw_host_event_max(source->host) + 1;
    append(source, source->line ? source->line : "", source->line_len, lost);
    free(source->line);
    source->line = NULL;
    source->line_len = source->line_cap = source->line_lost = 0;
}

static bool line_begun(const struct fw_source *source)
{
    return source->line_len > 0 || source->line_lost > 0;
}

/* Takes the next line of the chunk, or what is left of it. */
static void take_line(struct fw_source *source, const struct chunk *chunk)
{
    const char *start = chunk->data + source->at;
    size_t left = chunk->len - source->at;
    const char *end = memchr(start, '\n', left);
    size_t len = end ? (size_t)(end - start) : left;
    source->at += end ? len + 1 : len;
    if (end && !line_begun(source)) {
        append(source, start, len, 0);
        return;
    }
    keep(source, start, len);
    if (end)
        append_kept(source);
}

/* ---- the loop's side ---- */

static struct chunk *full_chunk(struct fw_source *source, bool *ret_eof)
{
    struct chunk *chunk = &source->chunks[source->next];
    pthread_mutex_lock(&source->lock);
    bool full = chunk->full;
    *ret_eof = source->eof;
    pthread_mutex_unlock(&source->lock);
    return full ? chunk : NULL;
}

static void give_back(struct fw_source *source, struct chunk *chunk)
{
    pthread_mutex_lock(&source->lock);
    chunk->full = false;
    pthread_cond_signal(&source->freed);
    pthread_mutex_unlock(&source->lock);
    source->next = (source->next + 1) % N_CHUNKS;
    source->at = 0;
}

static void end(struct fw_source *source)
{
    if (line_begun(source))
        append_kept(source);
    (void)fw_host_flush(source->host);
    if (source->error)
        fw_host_log(source->host, FW_LOG_ERROR, "read-failed", "standard input: %s",
                    strerror(source->error));
    source->ended = true;
    fw_host_ended(source->host);
}

/* Takes one chunk at most: the loop has readers to serve in between. */
static void on_input(void *arg)
{
    struct fw_source *source = arg;
    bool eof;
    if (source->paused || source->ended)
        return;
    struct chunk *chunk = full_chunk(source, &eof);
    while (chunk && source->at < chunk->len) {
        take_line(source, chunk);
        if (++source->n_unflushed < FLUSH_EVERY)
            continue;
        source->n_unflushed = 0;
        if (!fw_host_flush(source->host)) {
            source->paused = true;
            return;
        }
    }
    if (chunk) {
        give_back(source, chunk);
        fw_waker_wake(source->waker); /* the other one may be full, too */
    } else if (eof) {
        end(source);
    }
}

static void stdin_pause(struct fw_source *source, bool paused)
{
    source->paused = paused;
    if (!paused && source->waker)
        fw_waker_wake(source->waker);
}

/* ---- life ---- */

static int parse(struct fw_source *source, const char *url, struct fw_error *err)
{
    const char *name = strchr(url, ':') + 1;
    size_t len = strcspn(name, "?");
    if (name[len])
        return error_set(
            err, -EINVAL,
            "stdin: takes no parameters (found \"%.40s\"); a \"?\" in a channel's name "
            "is written %%3F",
            name + len);
    if (len > 3 * FW_CHANNEL_MAX)
        return error_set(err, -EINVAL, "the channel's name has more than %d bytes", FW_CHANNEL_MAX);
    char decoded[3 * FW_CHANNEL_MAX + 1];
    int64_t n = percent_decode(decoded, name, len, false);
    if (n < 0 || n > FW_CHANNEL_MAX || !utf8_valid(decoded, (size_t)n))
        return error_set(err, -EINVAL, "bad channel name after stdin: (1 to %d bytes of UTF-8)",
                         FW_CHANNEL_MAX);
    for (int64_t i = 0; i < n; i++)
        if ((unsigned char)decoded[i] < 0x20 || decoded[i] == 0x7f)
            return error_set(err, -EINVAL, "control characters in the channel's name after stdin:");
    memcpy(source->channel, decoded, (size_t)n);
    source->channel_len = (size_t)n;
    return 0;
}

static void stdin_destroy(struct fw_source *source)
{
    if (source->started) {
        pthread_mutex_lock(&source->lock);
        source->stop = true;
        pthread_cond_signal(&source->freed);
        pthread_mutex_unlock(&source->lock);
        (void)eventfd_write(source->stop_fd, 1);
        (void)pthread_join(source->thread, NULL);
    }
    if (source->stop_fd >= 0)
        close(source->stop_fd);
    fw_waker_free(source->waker);
    (void)pthread_mutex_destroy(&source->lock);
    (void)pthread_cond_destroy(&source->freed);
    free(source->chunks);
    free(source->line);
    free(source);
}

static int stdin_create(struct fw_host *host, const char *url, struct fw_source **ret,
                        struct fw_error *err)
{
    struct fw_source *source = calloc(1, sizeof(*source));
    if (!source)
        return error_set(err, -ENOMEM, "out of memory for the source");
    source->host = host;
    source->stop_fd = -1;
    (void)pthread_mutex_init(&source->lock, NULL);
    (void)pthread_cond_init(&source->freed, NULL);
    int r = parse(source, url, err);
    if (r < 0) {
        stdin_destroy(source);
        return r;
    }
    *ret = source;
    return 0;
}

/* The application's signals are not for this thread. */
static int start_thread(struct fw_source *source)
{
    sigset_t all, before;
    sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &before);
    int r = -pthread_create(&source->thread, NULL, read_input, source);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    source->started = r == 0;
    return r;
}

static int start(struct fw_source *source)
{
    source->chunks = calloc(N_CHUNKS, sizeof(struct chunk));
    if (!source->chunks)
        return -ENOMEM;
    source->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (source->stop_fd < 0)
        return -errno;
    int r = fw_host_waker(source->host, on_input, source, &source->waker);
    return r < 0 ? r : start_thread(source);
}

static void stdin_open(struct fw_source *source)
{
    fw_host_opened(source->host, "lines", "lines live in this process's memory and end with it", 0);
    int r = start(source);
    if (r < 0) {
        source->error = -r;
        end(source);
    }
}

static void stdin_publish(struct fw_source *source, const struct fw_publish *publish)
{
    fw_host_published(source->host, publish->request, "not-supported",
                      "standard input can only be read", NULL);
}

extern const struct fw_source_class source_stdin;
const struct fw_source_class source_stdin = { .kind = "stdin",
                                              .schemes = "stdin",
                                              .create = stdin_create,
                                              .open = stdin_open,
                                              .publish = stdin_publish,
                                              .pause = stdin_pause,
                                              .destroy = stdin_destroy };
