/* The application process.
 *
 * The main thread runs a loop that reads requests from the workers and writes answers to them
 * (worker_link.c); the crew's threads run handlers. A full crew stops the reading, so that the
 * workers' queues fill and they refuse: nothing here grows without bound.
 *
 * Its end: SIGTERM (once the last worker has gone) stops the reading; what runs and what waits is
 * finished, answers are flushed, stop() is called. A thread of the program that holds a request
 * may still answer it afterwards, so what an answer needs is never freed: the process ends. */
#include "application.h"

#include "clock.h"
#include "crew.h"
#include "supervisor.h"
#include "worker_link.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>
#include <uv.h>

#define BEAT_MS 500

struct app {
    const struct application_process *process;
    struct crew crew;
    struct links links;
    uv_loop_t loop;
    uv_poll_t signal, life;
    uv_timer_t beat;
    int signal_fd;
    bool ending; /* the loop's thread, as all above */
};

/* ---- the end ---- */

static void stop_when_done(struct app *app)
{
    if (app->ending && crew_idle(&app->crew) && links_flushed(&app->links))
        uv_stop(&app->loop);
}

static void on_written(void *arg)
{
    struct app *app = arg;
    if (!app->ending)
        links_resume(&app->links);
    stop_when_done(app);
}

static bool peer_allowed(void *arg, pid_t pid)
{
    const struct app *app = arg;
    return app->process->child.peer_allowed(app->process->child.arg, pid);
}

/* A terminal and systemd signal every process; only the supervisor knows when it is our turn. */
static void on_signal(uv_poll_t *poll, int status, int events)
{
    struct app *app = poll->data;
    struct signalfd_siginfo info;
    (void)status;
    (void)events;
    while (read(app->signal_fd, &info, sizeof(info)) == sizeof(info))
        continue;
    if (app->ending || !app->process->child.may_stop(app->process->child.arg))
        return;
    app->ending = true;
    links_pause(&app->links);
    crew_end(&app->crew);
    stop_when_done(app);
}

static void on_life(uv_poll_t *poll, int status, int events)
{
    (void)poll;
    (void)status;
    (void)events;
    _exit(EXIT_OK); /* nothing is ever written to it: the supervisor is gone */
}

static void on_beat(uv_timer_t *timer)
{
    struct app *app = timer->data;
    uint64_t now = (uint64_t)clock_monotonic_ms();
    atomic_store_explicit(&app->process->child.counters->beat_ms, now, memory_order_relaxed);
}

/* ---- the process ---- */

static void relieved(void *arg)
{
    struct app *app = arg;
    (void)uv_async_send(&app->links.wake);
}

/* SIGTERM is taken by the loop; blocked before start() makes threads of its own. */
static int hold_signals(struct app *app)
{
    sigset_t term;
    (void)sigemptyset(&term);
    (void)sigaddset(&term, SIGTERM);
    (void)signal(SIGINT, SIG_IGN);
    (void)signal(SIGHUP, SIG_IGN);
    (void)sigprocmask(SIG_BLOCK, &term, NULL);
    app->signal_fd = signalfd(-1, &term, SFD_CLOEXEC | SFD_NONBLOCK);
    return app->signal_fd < 0 ? -errno : 0;
}

static int watch(struct app *app, uv_poll_t *poll, int fd, uv_poll_cb on_event)
{
    poll->data = app;
    int r = uv_poll_init(&app->loop, poll, fd);
    return r < 0 ? r : uv_poll_start(poll, UV_READABLE, on_event);
}

static int open_loop(struct app *app)
{
    app->beat.data = app;
    int r = uv_loop_init(&app->loop);
    if (r == 0)
        r = watch(app, &app->signal, app->signal_fd, on_signal);
    if (r == 0)
        r = watch(app, &app->life, app->process->child.life_fd, on_life);
    if (r == 0)
        r = uv_timer_init(&app->loop, &app->beat);
    if (r == 0)
        r = uv_timer_start(&app->beat, on_beat, 0, BEAT_MS);
    return r == 0 ? links_open(&app->links, &app->loop, app->process->listen_fd) : r;
}

static int fail(const struct app *app, const char *what, int error)
{
    log_message(app->process->child.logger, FW_LOG_ERROR, "application",
                app->process->application->name, "not-started", "%s: %s", what,
                error < 0 ? strerror(-error) : "it says no");
    return EXIT_FAILED;
}

static int run(struct app *app)
{
    struct application *a = app->process->application;
    a->logger = app->process->child.logger;
    int r = hold_signals(app);
    if (r < 0)
        return fail(app, "signals", r);
    r = a->start ? a->start(a->arg) : 0;
    if (r != 0)
        return fail(app, "start() failed", r);
    r = open_loop(app);
    if (r == 0) /* the loop does not run yet: nobody is woken too early */
        r = crew_start(&app->crew, a->n_threads, relieved, app);
    if (r < 0)
        return fail(app, "the loop and its threads", r);
    (void)uv_run(&app->loop, UV_RUN_DEFAULT);
    crew_join(&app->crew);
    if (a->stop)
        a->stop(a->arg);
    return EXIT_OK;
}

void application_forget_secret(struct application *application)
{
    if (application && application->secret)
        explicit_bzero(application->secret, strlen(application->secret));
}

int application_process_run(const struct application_process *process)
{
    char title[64];
    struct app *app = calloc(1, sizeof(*app));
    if (!app)
        return EXIT_FAILED;
    app->process = process;
    app->links = (struct links){ .application = process->application,
                                 .crew = &app->crew,
                                 .peer_allowed = peer_allowed,
                                 .written = on_written,
                                 .arg = app };
    (void)snprintf(title, sizeof(title), "fanwire: %s", process->application->name);
    title_set(process->child.title, title);
    return run(app);
}
