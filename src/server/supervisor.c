/* Keeps child processes running. One loop around a signalfd; time-outs by poll(). */
#include "supervisor.h"

#include "clock.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#define TICK_MS        1000 /* how often beats are looked at */
#define LIVED_MS       5000 /* a child that lived this long is restarted at once */
#define BACKOFF_MIN_MS 100
#define BACKOFF_MAX_MS 5000
#define GRACE_MS       5000 /* on top of the drain, before children are killed */
#define END_MS         2000 /* after a second signal */

struct child {
    pid_t pid; /* 0: not running */
    int64_t started_ms;
    int64_t due_ms; /* when to start it, while it is not running */
    uint32_t backoff_ms;
    bool killed; /* as hung; its end is still to be reaped */
};

enum state {
    STATE_RUNNING,
    STATE_DRAINING, /* all but the last were told to end */
    STATE_ENDING,   /* they too */
};

struct supervisor {
    const struct supervisor_options *options;
    struct child *children;
    enum state state;
    bool forced;         /* a second signal, or a child that says that all is in vain */
    int64_t deadline_ms; /* while not running: then everything left is killed */
    int64_t watch_ms;    /* beats before this are not judged: we were stopped ourselves */
    int exit_code;
    int signal_fd;
    int life[2];
};

/* ---- starting ---- */

/* In the child: what it must not inherit goes, then its life. */
static _Noreturn void child_main(struct supervisor *s, size_t i, pid_t parent)
{
    close(s->signal_fd);
    close(s->life[1]);
    sigset_t none;
    (void)sigemptyset(&none);
    (void)sigprocmask(SIG_SETMASK, &none, NULL);
    (void)signal(SIGPIPE, SIG_IGN);
    /* The life pipe is what a child watches; this is for one that hangs and can't. */
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        _exit(EXIT_FAILED);
    _exit(s->options->run(s->options->arg, i, s->life[0]));
}

static void start(struct supervisor *s, size_t i, int64_t now)
{
    struct child *child = &s->children[i];
    const char *object, *name;
    s->options->describe(s->options->arg, i, &object, &name);
    pid_t parent = getpid();
    (void)fflush(NULL);
    pid_t pid = fork();
    if (pid == 0)
        child_main(s, i, parent);
    if (pid < 0) {
        log_message(s->options->logger, FW_LOG_ERROR, object, name, "not-started", "fork: %s",
                    strerror(errno));
        child->due_ms = now + TICK_MS;
        return;
    }
    child->pid = pid;
    child->started_ms = now;
    child->killed = false;
    struct logline line;
    logline_begin(&line, s->options->logger, FW_LOG_DEBUG, object, name, "started",
                  clock_realtime_ms());
    logline_int(&line, "pid", pid);
    logline_end(&line);
}

/* Those that end last are needed as long as there are others. */
static bool wanted(const struct supervisor *s, size_t i)
{
    return s->state == STATE_RUNNING ||
           (s->state == STATE_DRAINING && i < s->options->n_last && !s->forced);
}

static void start_due(struct supervisor *s, int64_t now)
{
    for (size_t i = 0; i < s->options->n_children; i++) {
        if (s->children[i].pid == 0 && wanted(s, i) && s->children[i].due_ms <= now)
            start(s, i, now);
    }
}

/* ---- ending ---- */

static void tell_all(const struct supervisor *s, int signo, size_t from, size_t to)
{
    for (size_t i = from; i < to; i++) {
        if (s->children[i].pid > 0)
            (void)kill(s->children[i].pid, signo);
    }
}

static size_t n_running(const struct supervisor *s, size_t from)
{
    size_t n = 0;
    for (size_t i = from; i < s->options->n_children; i++)
        n += s->children[i].pid > 0;
    return n;
}

static void begin_drain(struct supervisor *s, int64_t now)
{
    log_message(s->options->logger, FW_LOG_INFO, "server", "fanwire", "draining",
                "over %u ms; a second signal ends at once", s->options->drain_ms);
    s->state = STATE_DRAINING;
    s->deadline_ms = now + s->options->drain_ms + GRACE_MS;
    s->options->ending(s->options->arg, false);
    tell_all(s, SIGTERM, s->options->n_last, s->options->n_children);
}

static void begin_end(struct supervisor *s, int64_t now)
{
    s->options->ending(s->options->arg, true);
    s->state = STATE_DRAINING;
    s->forced = true;
    s->deadline_ms = now + END_MS;
    tell_all(s, SIGTERM, 0, s->options->n_children);
}

/* Nobody is left who needs those that end last. */
static void end_last(struct supervisor *s, int64_t now)
{
    if (s->state != STATE_DRAINING || n_running(s, s->options->n_last) > 0)
        return;
    s->state = STATE_ENDING;
    if (!s->forced) {
        s->deadline_ms = now + GRACE_MS;
        s->options->ending(s->options->arg, true);
        tell_all(s, SIGTERM, 0, s->options->n_last);
    }
}

static void enforce_deadline(struct supervisor *s, int64_t now)
{
    if (s->state == STATE_RUNNING || now < s->deadline_ms)
        return;
    if (n_running(s, 0) > 0 && !s->forced)
        log_message(s->options->logger, FW_LOG_WARNING, "server", "fanwire", "killing",
                    "%zu processes did not end in time", n_running(s, 0));
    s->forced = true;
    tell_all(s, SIGKILL, 0, s->options->n_children);
}

/* ---- reaping and hanging ---- */

static void log_end(const struct supervisor *s, size_t i, int status, bool restarts)
{
    const struct child *child = &s->children[i];
    bool expected = s->state != STATE_RUNNING && WIFEXITED(status) && WEXITSTATUS(status) == 0;
    const char *object, *name;
    s->options->describe(s->options->arg, i, &object, &name);
    struct logline line;
    logline_begin(&line, s->options->logger, expected ? FW_LOG_DEBUG : FW_LOG_WARNING, object, name,
                  "exited", clock_realtime_ms());
    logline_int(&line, "pid", child->pid);
    if (WIFSIGNALED(status))
        logline_int(&line, "signal", WTERMSIG(status));
    else
        logline_int(&line, "code", WEXITSTATUS(status));
    if (restarts)
        logline_int(&line, "restart_ms", child->backoff_ms);
    logline_end(&line);
}

static bool refuses(const struct supervisor *s, size_t i, int status)
{
    const struct supervisor_options *o = s->options;
    return WIFEXITED(status) && WEXITSTATUS(status) == EXIT_USAGE &&
           (!o->may_refuse || o->may_refuse(o->arg, i));
}

static void reap_one(struct supervisor *s, size_t i, int status, int64_t now)
{
    struct child *child = &s->children[i];
    if (s->state == STATE_RUNNING && refuses(s, i, status)) {
        s->exit_code = EXIT_USAGE;
        begin_end(s, now);
    }
    if (now - child->started_ms >= LIVED_MS)
        child->backoff_ms = 0;
    bool restarts = wanted(s, i);
    log_end(s, i, status, restarts);
    child->pid = 0;
    child->due_ms = now + child->backoff_ms;
    child->backoff_ms = child->backoff_ms == 0 ? BACKOFF_MIN_MS : child->backoff_ms * 2;
    if (child->backoff_ms > BACKOFF_MAX_MS)
        child->backoff_ms = BACKOFF_MAX_MS;
    s->options->reaped(s->options->arg, i, restarts);
}

static void reap(struct supervisor *s, int64_t now)
{
    int status;
    pid_t pid;
    while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
        for (size_t i = 0; i < s->options->n_children; i++) {
            if (s->children[i].pid == pid)
                reap_one(s, i, status, now);
        }
    }
    end_last(s, now);
}

/* A hung process is told apart from an idle one by its beat. One that has not beaten since it was
 * started is not judged: a big log takes time to recover. */
static void kill_hung(struct supervisor *s, int64_t now)
{
    for (size_t i = 0; i < s->options->n_children; i++) {
        struct child *child = &s->children[i];
        int64_t beat = s->options->beat_ms(s->options->arg, i);
        if (child->pid <= 0 || child->killed || beat < child->started_ms)
            continue;
        int64_t since = beat > s->watch_ms ? beat : s->watch_ms;
        if (now - since <= s->options->hang_ms)
            continue;
        const char *object, *name;
        s->options->describe(s->options->arg, i, &object, &name);
        log_message(s->options->logger, FW_LOG_ERROR, object, name, "hung",
                    "no sign of life for %lld ms: killed", (long long)(now - beat));
        child->killed = true;
        (void)kill(child->pid, SIGKILL);
    }
}

/* ---- signals and the loop ---- */

static void take_signal(struct supervisor *s, int signo, int64_t now)
{
    switch (signo) {
    case SIGCHLD:
        reap(s, now);
        return;
    case SIGHUP:
        log_message(s->options->logger, FW_LOG_WARNING, "server", "fanwire", "not-reloaded",
                    "this version cannot reload its configuration; restart it instead");
        return;
    default:
        if (s->state == STATE_RUNNING)
            begin_drain(s, now);
        else if (!s->forced)
            begin_end(s, now);
        else
            s->deadline_ms = now; /* a third one */
        end_last(s, now);
    }
}

static void take_signals(struct supervisor *s)
{
    struct signalfd_siginfo info;
    while (read(s->signal_fd, &info, sizeof(info)) == sizeof(info))
        take_signal(s, (int)info.ssi_signo, clock_monotonic_ms());
}

static int next_timeout(const struct supervisor *s, int64_t now)
{
    int64_t next = now + TICK_MS;
    if (s->state != STATE_RUNNING && s->deadline_ms < next)
        next = s->deadline_ms;
    for (size_t i = 0; i < s->options->n_children; i++) {
        const struct child *child = &s->children[i];
        if (child->pid == 0 && wanted(s, i) && child->due_ms < next)
            next = child->due_ms;
    }
    return next <= now ? 1 : (int)(next - now);
}

static void loop(struct supervisor *s)
{
    struct pollfd poll_signal = { .fd = s->signal_fd, .events = POLLIN };
    int64_t now = clock_monotonic_ms();
    while (s->state != STATE_ENDING || n_running(s, 0) > 0) {
        start_due(s, now);
        int timeout = next_timeout(s, now);
        (void)poll(&poll_signal, 1, timeout);
        int64_t before = now;
        now = clock_monotonic_ms();
        if (now - before > timeout + 2 * TICK_MS)
            s->watch_ms = now; /* the whole group was stopped: nobody could beat */
        take_signals(s);
        kill_hung(s, now);
        enforce_deadline(s, now);
    }
}

static sigset_t own_signals(void)
{
    static const int signals[] = { SIGCHLD, SIGTERM, SIGINT, SIGHUP };
    sigset_t set;
    (void)sigemptyset(&set);
    for (size_t i = 0; i < sizeof(signals) / sizeof(signals[0]); i++)
        (void)sigaddset(&set, signals[i]);
    return set;
}

/* An ignored SIGCHLD survives exec: the kernel would then reap our children without a word, and an
 * ignored SIGTERM would never reach a signalfd. */
void supervisor_hold_signals(void)
{
    sigset_t set = own_signals();
    (void)signal(SIGCHLD, SIG_DFL);
    (void)signal(SIGTERM, SIG_DFL);
    (void)signal(SIGINT, SIG_DFL);
    (void)signal(SIGHUP, SIG_DFL);
    (void)sigprocmask(SIG_BLOCK, &set, NULL);
}

int supervisor_run(const struct supervisor_options *options)
{
    struct supervisor s = { .options = options, .signal_fd = -1, .life = { -1, -1 } };
    sigset_t set = own_signals();
    supervisor_hold_signals();
    s.children = calloc(options->n_children, sizeof(*s.children));
    s.signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    if (!s.children || s.signal_fd < 0 || pipe2(s.life, O_CLOEXEC | O_NONBLOCK) < 0) {
        log_message(options->logger, FW_LOG_ERROR, "server", "fanwire", "not-started", "%s",
                    strerror(errno));
        s.exit_code = EXIT_FAILED;
    } else {
        loop(&s);
    }
    for (size_t i = 0; i < 2; i++) {
        if (s.life[i] >= 0)
            close(s.life[i]);
    }
    if (s.signal_fd >= 0)
        close(s.signal_fd);
    free(s.children);
    return s.exit_code;
}
