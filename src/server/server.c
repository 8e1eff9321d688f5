/* `fanwire serve`. Everything that must outlive a process is made here, before there are any: the
 * log, the pages of counters, every listening socket, the inbox's address. */
#include "server.h"

#include "application.h"
#include "clock.h"
#include "engine.h"
#include "error.h"
#include "listeners.h"
#include "logline.h"
#include "source_process.h"
#include "supervisor.h"
#include "worker.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define HANG_MS         10000
#define FEW_DESCRIPTORS 65536

/* Which child is what. The source and the application end last: workers need both until the end. */
struct roles {
    size_t source;      /* child 0 */
    size_t application; /* child 1; 0: there is none */
    size_t workers;     /* the first of them */
    size_t count;       /* of all children */
};

struct server {
    struct server_options *options;
    const struct title *title;
    struct logger logger;
    struct log *log;
    struct roles roles;
    char *pages; /* COUNTERS_SIZE each: supervisor, then its children */
    size_t n_pages;
    struct listeners listeners;
    int inbox_fd;
    struct sockaddr_un inbox;
    socklen_t inbox_len;
    int calls_fd; /* where the application takes requests; -1: there is none */
    struct sockaddr_un calls;
    socklen_t calls_len;
    const char *source_kind; /* "postgres" */
    char worker_name[24];    /* of the last describe() */
};

static struct roles make_roles(const struct server_options *options)
{
    struct roles roles = { .application = options->application ? 1 : 0 };
    roles.workers = roles.application + 1;
    roles.count = roles.workers + options->workers;
    return roles;
}

/* 1, 2, …, for people. */
static size_t worker_number(const struct server *s, size_t child)
{
    return child - s->roles.workers + 1;
}

static bool is_application(const struct server *s, size_t child)
{
    return s->roles.application && child == s->roles.application;
}

static struct counters *page(const struct server *s, size_t index)
{
    return (struct counters *)(s->pages + index * COUNTERS_SIZE);
}

static struct counters *child_page(const struct server *s, size_t child)
{
    return page(s, child + 1);
}

/* ---- what is made before there are processes ---- */

static rlim_t raise_descriptor_limit(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
        return 0;
    limit.rlim_cur = limit.rlim_max;
    (void)setrlimit(RLIMIT_NOFILE, &limit);
    return limit.rlim_max;
}

/* Parsing a URL leaves pieces of it behind in freed memory, the password too, and workers are
 * copies of this process: so it is done in one that ends. Returns 0 or -errno with text. */
static int check_url(const char *url, struct fw_error *err)
{
    int pipe_fds[2];
    if (pipe2(pipe_fds, O_CLOEXEC) < 0)
        return error_set(err, -errno, "cannot make a pipe: %s", strerror(errno));
    struct fw_error told = { .code = -EIO, .message = "cannot check the source's URL" };
    pid_t pid = fork();
    if (pid == 0) {
        struct fw_error found = { 0 };
        found.code = engine_check_url(url, &found);
        _exit(write(pipe_fds[1], &found, sizeof(found)) == sizeof(found) ? EXIT_OK : EXIT_FAILED);
    }
    close(pipe_fds[1]);
    struct fw_error found;
    if (pid > 0 && read(pipe_fds[0], &found, sizeof(found)) == sizeof(found))
        told = found;
    close(pipe_fds[0]);
    if (pid > 0)
        (void)waitpid(pid, NULL, 0);
    return told.code < 0 ? error_set(err, told.code, "%s", told.message) : 0;
}

static int make_pages(struct server *s, struct fw_error *err)
{
    s->n_pages = 1 + s->roles.count;
    s->pages = mmap(NULL, s->n_pages * COUNTERS_SIZE, PROT_READ | PROT_WRITE,
                    MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (s->pages == MAP_FAILED) {
        s->pages = NULL;
        return error_set(err, -ENOMEM, "cannot map %zu pages of counters", s->n_pages);
    }
    atomic_store_explicit(&page(s, 0)->pid, (uint64_t)getpid(), memory_order_relaxed);
    atomic_store_explicit(&page(s, 0)->started_ms, (uint64_t)clock_realtime_ms(),
                          memory_order_relaxed);
    return 0;
}

static int make_log(struct server *s, struct fw_error *err)
{
    int r = log_create(s->options->retain, &s->log);
    if (r < 0)
        return error_set(err, r,
                         "cannot allocate %llu bytes of shared memory for recent events "
                         "(--retain): %s",
                         (unsigned long long)s->options->retain, strerror(-r));
    return 0;
}

/* An abstract address of the kernel's choice; who connects is checked by pid. */
static int listen_abstract(int type, int *ret_fd, struct sockaddr_un *ret, socklen_t *ret_len)
{
    *ret = (struct sockaddr_un){ .sun_family = AF_UNIX };
    *ret_len = sizeof(*ret);
    *ret_fd = socket(AF_UNIX, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (*ret_fd < 0 || bind(*ret_fd, (struct sockaddr *)ret, sizeof(sa_family_t)) < 0 ||
        listen(*ret_fd, 1024) < 0 || getsockname(*ret_fd, (struct sockaddr *)ret, ret_len) < 0)
        return -errno;
    return 0;
}

static int make_inboxes(struct server *s, struct fw_error *err)
{
    int r = listen_abstract(SOCK_SEQPACKET, &s->inbox_fd, &s->inbox, &s->inbox_len);
    if (r == 0 && s->roles.application)
        r = listen_abstract(SOCK_STREAM, &s->calls_fd, &s->calls, &s->calls_len);
    return r < 0 ? error_set(err, r, "cannot open the control inbox: %s", strerror(-r)) : 0;
}

/* ---- the children ---- */

static void describe(void *arg, size_t child, const char **ret_object, const char **ret_name)
{
    struct server *s = arg;
    if (child == s->roles.source) {
        *ret_object = "source";
        *ret_name = s->source_kind;
    } else if (is_application(s, child)) {
        *ret_object = "application";
        *ret_name = s->options->application->name;
    } else {
        *ret_object = "worker";
        *ret_name = s->worker_name;
        (void)snprintf(s->worker_name, sizeof(s->worker_name), "%zu", worker_number(s, child));
    }
}

static bool is_own_worker(void *arg, pid_t pid)
{
    const struct server *s = arg;
    for (size_t i = s->roles.workers; i < s->roles.count; i++) {
        if (counted(&child_page(s, i)->pid) == (uint64_t)pid)
            return true;
    }
    return false;
}

static bool may_stop(void *arg)
{
    return counted(&page(arg, 0)->draining) == 2;
}

static void drop_fd(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

static struct child make_child(struct server *s, size_t child, int life_fd)
{
    return (struct child){ .counters = child_page(s, child),
                           .life_fd = life_fd,
                           .logger = &s->logger,
                           .title = s->title,
                           .peer_allowed = is_own_worker,
                           .may_stop = may_stop,
                           .arg = s };
}

static int run_source(struct server *s, int life_fd)
{
    listeners_drop(&s->listeners);
    drop_fd(&s->calls_fd);
    application_forget_secret(s->options->application);
    struct source_process process = {
        .url = s->options->source,
        .log = s->log,
        .linger_ms = s->options->linger_ms,
        .snapshots = s->options->snapshots,
        .n_snapshots = s->options->n_snapshots,
        .inbox_fd = s->inbox_fd,
        .child = make_child(s, s->roles.source, life_fd),
    };
    return source_process_run(&process);
}

/* It is the program's own process: its environment and memory are left alone, but for the URL. */
static int run_application(struct server *s, int life_fd)
{
    listeners_drop(&s->listeners);
    drop_fd(&s->inbox_fd);
    log_close(s->log);
    s->log = NULL;
    server_options_forget_url(s->options);
    struct application_process process = {
        .application = s->options->application,
        .listen_fd = s->calls_fd,
        .child = make_child(s, s->roles.application, life_fd),
    };
    return application_process_run(&process);
}

/* A worker holds no credentials, can't write the log and doesn't keep a pipe's reader alive. */
static int drop_privileges(struct server *s, struct log **ret_log)
{
    server_options_forget_source(s->options);
    application_forget_secret(s->options->application);
    drop_fd(&s->inbox_fd);
    drop_fd(&s->calls_fd);
    int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (null >= 0) {
        (void)dup2(null, STDIN_FILENO);
        close(null);
    }
    int r = log_attach(log_fd(s->log), ret_log);
    log_close(s->log);
    s->log = NULL;
    return r;
}

static void warn_of_worker(void *arg, const char *event, const char *message)
{
    const struct server *s = arg;
    log_message(&s->logger, FW_LOG_WARNING, "worker", s->worker_name, event, "%s", message);
}

static int run_worker(struct server *s, size_t child, int life_fd)
{
    size_t worker = worker_number(s, child);
    char title[48];
    (void)snprintf(title, sizeof(title), "fanwire: worker %zu", worker);
    (void)snprintf(s->worker_name, sizeof(s->worker_name), "%zu", worker);
    title_set(s->title, title);
    struct worker_options options = {
        .settings = &s->options->settings,
        .inbox = s->inbox,
        .inbox_len = s->inbox_len,
        .application = s->calls,
        .application_len = s->calls_len,
        .admin_fd = s->listeners.admin.n_fds ? s->listeners.admin.fds[0] : -1,
        .life_fd = life_fd,
        .counters = child_page(s, child),
        .all = page(s, 0),
        .n_all = s->n_pages,
        .index = (unsigned)worker,
        .warn = warn_of_worker,
        .arg = s,
    };
    options.n_listeners = listeners_keep(&s->listeners, worker, options.listeners);
    int r = drop_privileges(s, &options.log);
    if (r < 0) {
        log_message(&s->logger, FW_LOG_ERROR, "worker", title + strlen("fanwire: worker "),
                    "failed", "cannot attach the log: %s", strerror(-r));
        return EXIT_FAILED;
    }
    return worker_run(&options);
}

static int run_child(void *arg, size_t child, int life_fd)
{
    struct server *s = arg;
    /* First of all: the source process lets only these pids in. */
    atomic_store_explicit(&child_page(s, child)->pid, (uint64_t)getpid(), memory_order_release);
    atomic_store_explicit(&child_page(s, child)->started_ms, (uint64_t)clock_realtime_ms(),
                          memory_order_relaxed);
    if (child == s->roles.source)
        return run_source(s, life_fd);
    return is_application(s, child) ? run_application(s, life_fd) : run_worker(s, child, life_fd);
}

static bool may_refuse(void *arg, size_t child)
{
    return !is_application(arg, child);
}

static int64_t beat_ms(void *arg, size_t child)
{
    const struct server *s = arg;
    return child == s->roles.source ? log_beat(s->log)
                                    : (int64_t)counted(&child_page(s, child)->beat_ms);
}

/* Totals go on over a restart; what a dead process held is gone. */
static void reaped(void *arg, size_t child, bool restarts)
{
    struct server *s = arg;
    struct counters *c = child_page(s, child);
    _Atomic uint64_t *gauges[] = {
        &c->pid,      &c->started_ms,    &c->beat_ms,          &c->behind,
        &c->channels, &c->subscriptions, &c->source_lingering, &c->calls_waiting
    };
    for (size_t i = 0; i < sizeof(gauges) / sizeof(gauges[0]); i++)
        atomic_store_explicit(gauges[i], 0, memory_order_relaxed);
    for (size_t i = 0; i < N_TRANSPORTS; i++)
        atomic_store_explicit(&c->connections[i], 0, memory_order_relaxed);
    if (!restarts)
        return;
    struct counters *own = page(s, 0);
    count(child == s->roles.source   ? &own->restarts_source
          : is_application(s, child) ? &own->restarts_application
                                     : &own->restarts_worker,
          1);
}

/* The workers decide how long they go on accepting: they hold the sockets too. */
static void ending(void *arg, bool everybody)
{
    struct server *s = arg;
    atomic_store_explicit(&page(s, 0)->draining, everybody ? 2 : 1, memory_order_relaxed);
    listeners_close_public(&s->listeners);
}

/* ---- what it says at the start ---- */

static void say_where(const struct server *s)
{
    const struct server_options *o = s->options;
    char url[256], places[512] = "";
    size_t len = 0;
    for (size_t i = 0; i < s->listeners.n_http && len < sizeof(places); i++)
        len += (size_t)snprintf(places + len, sizeof(places) - len, "%s%s", i ? "," : "",
                                s->listeners.http[i].text);
    struct logline line;
    logline_begin(&line, &s->logger, FW_LOG_INFO, "server", "fanwire", "started",
                  clock_realtime_ms());
    logline_text(&line, "version", FANWIRE_VERSION);
    logline_text(&line, "source", url_redact(url, sizeof(url), o->source));
    logline_text(&line, "http", places);
    logline_text(&line, "admin", s->listeners.admin.n_fds ? s->listeners.admin.text : "off");
    logline_int(&line, "workers", o->workers);
    logline_int(&line, "retain_bytes", (int64_t)log_size(s->log));
    logline_end(&line);
    for (size_t i = 0; o->settings.dev && !o->log_json && i < s->listeners.n_http; i++) {
        if (!s->listeners.http[i].path[0])
            (void)dprintf(STDERR_FILENO, "\n  Open %s in two browser windows.\n\n",
                          s->listeners.http[i].text);
    }
}

static void warn(const struct server *s, rlim_t limit)
{
    const struct server_options *o = s->options;
    if (limit < FEW_DESCRIPTORS) {
        unsigned long long fit = limit > WORKER_RESERVED_FDS ? limit - WORKER_RESERVED_FDS : 0;
        log_message(&s->logger, FW_LOG_WARNING, "server", "fanwire", "few-descriptors",
                    "the hard limit of open files is %llu: at most %llu clients fit (%u workers of "
                    "%llu); raise it with LimitNOFILE=1048576 (systemd), --ulimit nofile=1048576 "
                    "(Docker) or /etc/security/limits.conf",
                    (unsigned long long)limit, fit * o->workers, o->workers, fit);
    }
    if (!o->settings.dev && o->settings.public_read.count == 0 && !o->application)
        log_message(&s->logger, FW_LOG_WARNING, "server", "fanwire", "nothing-public",
                    "no channel can be read by anybody: say which with --public PATTERN "
                    "(\"**\" for all), or try --dev");
}

/* ---- the whole ---- */

static int make_all(struct server *s, struct fw_error *err)
{
    int r = check_url(s->options->source, err);
    if (r < 0)
        return r == -EINVAL ? EXIT_USAGE : EXIT_FAILED;
    s->source_kind = engine_url_kind(s->options->source);
    if (s->options->n_snapshots && !engine_url_has_snapshots(s->options->source)) {
        (void)error_set(err, -EINVAL,
                        "--snapshot is for databases, postgres:// and sqlite:; source %s has no "
                        "rows to ask for: leave it out",
                        s->source_kind);
        return EXIT_USAGE;
    }
    r = make_log(s, err);
    if (r == 0)
        r = make_pages(s, err);
    if (r == 0)
        r = make_inboxes(s, err);
    if (r < 0)
        return EXIT_FAILED;
    return listeners_open(&s->listeners, s->options, err) < 0 ? EXIT_ADDRESS : EXIT_OK;
}

static void release(struct server *s)
{
    listeners_close(&s->listeners);
    drop_fd(&s->inbox_fd);
    drop_fd(&s->calls_fd);
    if (s->pages)
        (void)munmap(s->pages, s->n_pages * COUNTERS_SIZE);
    log_close(s->log);
}

int server_run(struct server_options *options, const struct title *title, struct fw_error *err)
{
    struct server s = { .options = options,
                        .title = title,
                        .roles = make_roles(options),
                        .inbox_fd = -1,
                        .calls_fd = -1,
                        .logger = logger_make(options->log_level, options->log_json) };
    title_set(title, "fanwire: supervisor");
    (void)signal(SIGPIPE, SIG_IGN); /* who reads the log may go away */
    rlim_t limit = raise_descriptor_limit();
    int code = make_all(&s, err);
    if (code == EXIT_OK) {
        supervisor_hold_signals(); /* who reads that it has started may stop it at once */
        say_where(&s);
        warn(&s, limit);
        struct supervisor_options supervise = {
            .logger = &s.logger,
            .n_children = s.roles.count,
            .n_last = s.roles.workers,
            .drain_ms = options->settings.drain_ms,
            .hang_ms = HANG_MS,
            .arg = &s,
            .describe = describe,
            .run = run_child,
            .may_refuse = may_refuse,
            .beat_ms = beat_ms,
            .reaped = reaped,
            .ending = ending,
        };
        code = supervisor_run(&supervise);
    }
    release(&s);
    return code;
}
