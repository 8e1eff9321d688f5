/* Noticing that a database file may have changed.
 *
 * In WAL mode a commit is written to the -wal file first and becomes visible after that, by a word
 * in shared memory, which inotify does not see; with a rollback journal the file is written and the
 * commit is the end of the journal. So a sign of life is a hint, followed by looks after 0.1, 0.2,
 * 0.4 … ms, until something is found or nothing has come for a while. Behind that, a look every
 * IDLE_US finds what was not told at all. Where that happens again and again (inotify is blind to
 * other machines' writes, on network file systems), looks every few milliseconds take its place:
 * one costs some 5 µs. */
#include "sqlite_watch.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <unistd.h>

#define FIRST_US      100
#define STEPS         12 /* the last after 200 ms */
#define IDLE_US       250000
#define POLL_US       4000  /* without inotify, while something happens */
#define POLL_QUIET_US 20000 /* … and when nothing has for … */
#define QUIET_US      10000000
#define UNNOTICED_MAX 3

static const char *const suffixes[] = { "", "-wal", "-journal" };

/* Watches of files that do not exist (yet) fail; the directory tells when they come. */
static void watch_files(struct sqlite_watch *watch)
{
    char path[sizeof(watch->directory) + sizeof(watch->name) + 16];
    for (size_t i = 0; i < sizeof(suffixes) / sizeof(suffixes[0]); i++) {
        (void)snprintf(path, sizeof(path), "%s/%s%s", watch->directory, watch->name, suffixes[i]);
        watch->files[i] = inotify_add_watch(watch->fd, path, IN_MODIFY);
    }
}

void sqlite_watch_open(struct sqlite_watch *watch, const char *path)
{
    char real[PATH_MAX];
    *watch = (struct sqlite_watch){ .fd = -1, .dir = -1, .files = { -1, -1, -1 } };
    const char *slash = realpath(path, real) ? strrchr(real, '/') : NULL;
    if (!slash || strlen(slash + 1) >= sizeof(watch->name))
        return;
    (void)snprintf(watch->directory, sizeof(watch->directory), "%.*s",
                   slash == real ? 1 : (int)(slash - real), real);
    (void)snprintf(watch->name, sizeof(watch->name), "%s", slash + 1);
    watch->fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
    if (watch->fd < 0)
        return;
    watch->dir = inotify_add_watch(watch->fd, watch->directory,
                                   IN_CREATE | IN_MOVED_TO | IN_MOVED_FROM | IN_DELETE);
    watch_files(watch);
    if (watch->dir < 0 || watch->files[0] < 0) /* no watches left: fs.inotify.max_user_watches */
        sqlite_watch_close(watch);
}

void sqlite_watch_close(struct sqlite_watch *watch)
{
    if (watch->fd >= 0)
        (void)close(watch->fd);
    watch->fd = -1;
}

static unsigned meaning(const struct sqlite_watch *watch, const struct inotify_event *event)
{
    if (event->mask & IN_Q_OVERFLOW)
        return WATCH_WRITTEN | WATCH_DIRECTORY;
    if (event->wd != watch->dir)
        return WATCH_WRITTEN;
    size_t len = strlen(watch->name);
    return event->len > 0 && strncmp(event->name, watch->name, len) == 0
               ? WATCH_WRITTEN | WATCH_DIRECTORY
               : 0;
}

unsigned sqlite_watch_take(struct sqlite_watch *watch)
{
    _Alignas(struct inotify_event) char buf[16384];
    unsigned seen = 0;
    for (ssize_t n; watch->fd >= 0 && (n = read(watch->fd, buf, sizeof(buf))) > 0;) {
        for (const char *at = buf; at < buf + n;) {
            const struct inotify_event *event = (const void *)at;
            seen |= meaning(watch, event);
            at += sizeof(*event) + event->len;
        }
    }
    if (seen & WATCH_DIRECTORY)
        watch_files(watch);
    if (seen)
        watch->step = 1;
    return seen;
}

bool sqlite_watch_looked(struct sqlite_watch *watch, bool changed, int64_t now_us)
{
    bool told = watch->step > 0 && watch->step <= STEPS;
    if (!changed) {
        watch->step += told;
        return false;
    }
    watch->step = 1;
    watch->changed_us = now_us;
    watch->unnoticed = told ? 0 : watch->unnoticed + 1;
    if (watch->fd < 0 || watch->blind || watch->unnoticed < UNNOTICED_MAX)
        return false;
    watch->blind = true;
    return true;
}

int64_t sqlite_watch_wait_us(const struct sqlite_watch *watch, int64_t now_us)
{
    if (watch->step > 0 && watch->step <= STEPS)
        return (int64_t)FIRST_US << (watch->step - 1);
    if (watch->fd >= 0 && !watch->blind)
        return IDLE_US;
    return now_us - watch->changed_us < QUIET_US ? POLL_US : POLL_QUIET_US;
}
