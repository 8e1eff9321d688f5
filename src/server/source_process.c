/* The source process. The engine has the main thread; a second thread, which only waits, turns
 * SIGTERM into engine_stop() and the supervisor's end into our own, even while the
 * engine's loop hangs. */
#include "source_process.h"

#include "clock.h"
#include "engine.h"
#include "supervisor.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <unistd.h>

struct source {
    const struct source_process *process;
    struct engine *engine;
    int signal_fd;
    int done_fd; /* eventfd: the engine has ended, the watching thread may */
};

/* ---- log lines ---- */

static void log_engine_line(void *arg, enum fw_log_level level, const char *event, const char *text)
{
    const struct source *source = arg;
    struct logline line;
    logline_begin(&line, source->process->child.logger, level, "source",
                  source->engine ? engine_kind(source->engine) : "starting", event,
                  clock_realtime_ms());
    if (strcmp(event, "opened") == 0)
        logline_words(&line, text);
    else
        logline_text(&line, "msg", text); /* may quote the backend: never taken apart */
    logline_end(&line);
}

static bool peer_allowed(void *arg, pid_t pid)
{
    const struct source *source = arg;
    return source->process->child.peer_allowed(source->process->child.arg, pid);
}

/* ---- the watching thread ---- */

/* A terminal and systemd signal every process of the server; only the supervisor knows when it is
 * this one's turn (after the last worker). */
static bool told_to_stop(const struct source *source)
{
    struct signalfd_siginfo info;
    while (read(source->signal_fd, &info, sizeof(info)) == sizeof(info))
        ;
    return source->process->child.may_stop(source->process->child.arg);
}

static void *watch(void *arg)
{
    struct source *source = arg;
    struct pollfd fds[] = {
        { .fd = source->process->child.life_fd, .events = POLLIN },
        { .fd = source->signal_fd, .events = POLLIN },
        { .fd = source->done_fd, .events = POLLIN },
    };
    for (;;) {
        if (poll(fds, 3, -1) < 0 && errno != EINTR)
            _exit(EXIT_FAILED);
        if (fds[0].revents) /* nothing is ever written to it */
            _exit(EXIT_OK);
        if (fds[2].revents)
            return NULL;
        if (fds[1].revents && told_to_stop(source))
            engine_stop(source->engine);
    }
}

static int start_watching(struct source *source, pthread_t *ret)
{
    sigset_t term;
    (void)sigemptyset(&term);
    (void)sigaddset(&term, SIGTERM);
    if (pthread_sigmask(SIG_BLOCK, &term, NULL) != 0)
        return -EINVAL;
    source->signal_fd = signalfd(-1, &term, SFD_CLOEXEC | SFD_NONBLOCK);
    source->done_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (source->signal_fd < 0 || source->done_fd < 0)
        return -errno;
    return -pthread_create(ret, NULL, watch, source);
}

/* ---- the process ---- */

static int fail(const struct source *source, int code, const char *message)
{
    log_message(source->process->child.logger, FW_LOG_ERROR, "source", "starting", "failed", "%s",
                message);
    return code == -EINVAL ? EXIT_USAGE : EXIT_FAILED;
}

static int run_engine(struct source *source)
{
    char title[64];
    (void)snprintf(title, sizeof(title), "fanwire: source %s", engine_kind(source->engine));
    title_set(source->process->child.title, title);

    pthread_t watcher = 0;
    int r = start_watching(source, &watcher);
    if (r < 0)
        return fail(source, -EIO, strerror(-r));
    r = engine_run(source->engine);
    (void)eventfd_write(source->done_fd, 1);
    (void)pthread_join(watcher, NULL);
    if (r < 0)
        return fail(source, -EIO, strerror(-r));
    return EXIT_OK;
}

int source_process_run(const struct source_process *process)
{
    struct source source = { .process = process, .signal_fd = -1, .done_fd = -1 };
    struct engine_options options = {
        .url = process->url,
        .log = process->log,
        .linger_ms = process->linger_ms,
        .snapshots = process->snapshots,
        .n_snapshots = process->n_snapshots,
        .counters = process->child.counters,
        .patient = true,
        .listen_fd = process->inbox_fd,
        .peer_allowed = peer_allowed,
        .log_line = log_engine_line,
        .arg = &source,
    };
    (void)signal(SIGINT, SIG_IGN);
    (void)signal(SIGHUP, SIG_IGN);
    title_set(process->child.title, "fanwire: source");
    struct fw_error err = { 0 };
    int r = engine_new(&options, &source.engine, &err);
    if (r < 0)
        return fail(&source, r, err.message);
    int code = run_engine(&source);
    engine_free(source.engine);
    return code;
}
