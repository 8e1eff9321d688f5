/* One libpq connection on the hub's loop: names resolved, connected with a time limit, watched.
 *
 * libpq resolves names by blocking, even in its asynchronous mode, and ignores connect_timeout
 * there. So every name is resolved by the hub first and handed over as hostaddr= beside host=
 * (which certificates and password files need), and the time limit is ours. A time-out does not
 * tell which of several candidates hung: the next attempt begins with another one. */
#include "pg_link.h"

#include "buf.h"
#include "pg_parameters.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CANDIDATES_MAX 64
#define LIST_MAX       32768

struct pg_candidate {
    const struct pg_place *place;
    char *address; /* "" where libpq needs none */
};

/* Where to connect: the URL's places with every address of their names. */
struct pg_candidates {
    struct pg_candidate list[CANDIDATES_MAX];
    unsigned n;
    unsigned at; /* the place of the URL that is looked at */
    char error[PG_MESSAGE_MAX];
};

void pg_link_init(struct pg_link *link, struct fw_host *host, const struct pg_url *url,
                  const struct pg_link_events *events, void *arg)
{
    *link = (struct pg_link){ .host = host, .url = url, .events = events, .arg = arg, .fd = -1 };
}

static void candidates_free(struct pg_candidates *c)
{
    for (unsigned i = 0; c && i < c->n; i++)
        free(c->list[i].address);
    free(c);
}

static void unwatch(struct pg_link *link)
{
    fw_watch_free(link->watch);
    link->watch = NULL;
    if (link->fd >= 0)
        (void)close(link->fd);
    link->fd = -1;
}

void pg_link_close(struct pg_link *link)
{
    unwatch(link);
    if (link->timer)
        fw_timer_stop(link->timer);
    if (link->resolve)
        fw_resolve_cancel(link->resolve);
    link->resolve = NULL;
    candidates_free(link->candidates);
    link->candidates = NULL;
    PQfinish(link->conn);
    link->conn = NULL;
}

void pg_link_done(struct pg_link *link)
{
    pg_link_close(link);
    if (link->timer)
        fw_timer_free(link->timer);
    link->timer = NULL;
}

char *pg_link_message(const struct pg_link *link, char *out)
{
    const char *text = link->fatal[0] ? link->fatal : PQerrorMessage(link->conn);
    pg_one_line(out, PG_MESSAGE_MAX, text);
    if (!out[0])
        snprintf(out, PG_MESSAGE_MAX, "the connection to the server broke");
    return out;
}

static void fail(struct pg_link *link, const char *message)
{
    char line[PG_MESSAGE_MAX];
    pg_one_line(line, sizeof line, message);
    pg_link_close(link);
    link->events->failed(link->arg, line);
}

/* With the SQLSTATE, should a server have refused us. */
static void fail_refused(struct pg_link *link)
{
    char line[PG_MESSAGE_MAX];
    pg_refusal_read(PQerrorMessage(link->conn), link->sqlstate, line, sizeof line);
    fail(link, line);
}

static void fail_errno(struct pg_link *link, const char *what, int error)
{
    char line[PG_MESSAGE_MAX];
    snprintf(line, sizeof line, "%s: %s", what, strerror(-error));
    fail(link, line);
}

static void on_notice(void *arg, const PGresult *result)
{
    struct pg_link *link = arg;
    const char *severity = PQresultErrorField(result, PG_DIAG_SEVERITY_NONLOCALIZED);
    const char *text = PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY);
    char line[PG_MESSAGE_MAX - 16];
    pg_one_line(line, sizeof line, text ? text : "");
    /* Where nothing was asked, an ERROR is a notice, too: of notifications that the server could
     * not send, and that are gone. */
    bool error = severity && !strcmp(severity, "ERROR");
    link->failed |= error;
    if (error || (severity && (!strcmp(severity, "FATAL") || !strcmp(severity, "PANIC"))))
        snprintf(link->fatal, sizeof link->fatal, "%s: %s", severity, line);
    else if (severity && !strcmp(severity, "WARNING"))
        fw_host_log(link->host, FW_LOG_WARNING, "server-warning", "%s", line);
}

/* ---- watching ---- */

static void on_connecting(void *arg, unsigned events);

static void on_io(void *arg, unsigned events)
{
    struct pg_link *link = arg;
    link->events->io(link->arg, events);
}

/* Watches libpq's present socket. While connecting it may be another one after every call (next
 * address, no TLS after all), possibly under the same number. */
static int watch_anew(struct pg_link *link, fw_watch_fn fn, unsigned events)
{
    unwatch(link);
    link->fd = fcntl(PQsocket(link->conn), F_DUPFD_CLOEXEC, 0);
    if (link->fd < 0)
        return -errno;
    return fw_host_watch(link->host, link->fd, events, fn, link, &link->watch);
}

void pg_link_watch(struct pg_link *link, unsigned events)
{
    if (link->watch) /* even if nothing changes: after an error the hub has to be told again */
        (void)fw_watch_set(link->watch, events);
}

/* ---- connecting ---- */

static void connected(struct pg_link *link)
{
    fw_timer_stop(link->timer);
    link->first = 0;
    candidates_free(link->candidates);
    link->candidates = NULL;
    (void)PQsetErrorVerbosity(link->conn, PQERRORS_DEFAULT);
    int r = watch_anew(link, on_io, FW_READABLE);
    if (r < 0)
        fail_errno(link, "cannot watch the connection", r);
    else if (PQsetnonblocking(link->conn, 1) < 0)
        fail(link, PQerrorMessage(link->conn));
    else
        link->events->connected(link->arg);
}

static void go_on(struct pg_link *link, PostgresPollingStatusType status)
{
    if (status == PGRES_POLLING_OK) {
        connected(link);
    } else if (status == PGRES_POLLING_READING || status == PGRES_POLLING_WRITING) {
        unsigned events = status == PGRES_POLLING_READING ? FW_READABLE : FW_WRITABLE;
        int r = watch_anew(link, on_connecting, events);
        if (r < 0)
            fail_errno(link, "cannot watch the connection", r);
    } else {
        fail_refused(link);
    }
}

static void on_connecting(void *arg, unsigned events)
{
    struct pg_link *link = arg;
    go_on(link, PQconnectPoll(link->conn));
}

static void time_out(struct pg_link *link)
{
    char text[PG_MESSAGE_MAX];
    const char *host = link->conn ? PQhost(link->conn) : NULL;
    snprintf(text, sizeof text, "%s%s%s not within %u s",
             link->resolve ? "resolving the server's name succeeded" : "connecting succeeded",
             host && *host ? " at " : "", host ? host : "", link->url->connect_timeout_ms / 1000);
    link->first++;
    fail(link, text);
}

static void set_from_url(struct pg_parameters *p, const struct pg_url *url, bool replication)
{
    /* What the URL may change: how fast a dead peer is noticed. */
    pg_parameters_set(p, "keepalives", "1");
    pg_parameters_set(p, "keepalives_idle", "10");
    pg_parameters_set(p, "keepalives_interval", "5");
    pg_parameters_set(p, "keepalives_count", "3");
    pg_parameters_set(p, "tcp_user_timeout", "20000");
    pg_parameters_set_url(p, url, "fanwire");
    /* What it may not, either: which protocol is spoken. */
    pg_parameters_set(p, "replication", replication ? "database" : "");
}

/* The candidates as libpq's three parallel lists, beginning with the one whose turn it is. */
static int write_lists(const struct pg_link *link, struct buf *hosts, struct buf *addresses,
                       struct buf *ports)
{
    const struct pg_candidates *c = link->candidates;
    for (unsigned i = 0; i < c->n; i++) {
        const struct pg_candidate *candidate = &c->list[(link->first + i) % c->n];
        const char *comma = i > 0 ? "," : "";
        (void)buf_printf(hosts, "%s%s", comma, candidate->place->host);
        (void)buf_printf(addresses, "%s%s", comma, candidate->address);
        (void)buf_printf(ports, "%s%s", comma, candidate->place->port);
    }
    (void)buf_append_char(hosts, '\0');
    (void)buf_append_char(addresses, '\0');
    (void)buf_append_char(ports, '\0');
    return hosts->failed || addresses->failed || ports->failed ? -ENOMEM : 0;
}

static void start_libpq(struct pg_link *link)
{
    struct pg_parameters p = { .n = 0 };
    struct buf hosts = buf_make(LIST_MAX), addresses = buf_make(LIST_MAX),
               ports = buf_make(LIST_MAX);
    set_from_url(&p, link->url, link->replication);
    if (write_lists(link, &hosts, &addresses, &ports) == 0) {
        pg_parameters_set(&p, "host", (char *)hosts.data);
        pg_parameters_set(&p, "hostaddr", (char *)addresses.data);
        pg_parameters_set(&p, "port", (char *)ports.data);
        link->conn = PQconnectStartParams(p.names, p.values, 0);
    }
    buf_done(&hosts);
    buf_done(&addresses);
    buf_done(&ports);
    if (!link->conn) {
        fail(link, "cannot connect: out of memory");
        return;
    }
    (void)PQsetNoticeReceiver(link->conn, on_notice, link);
    (void)PQsetErrorVerbosity(link->conn, PQERRORS_VERBOSE); /* see fail_refused() */
    go_on(link,
          PQstatus(link->conn) == CONNECTION_BAD ? PGRES_POLLING_FAILED : PGRES_POLLING_WRITING);
}

/* ---- resolving ---- */

static void look_at_places(struct pg_link *link);

static bool add_candidate(struct pg_candidates *c, const struct pg_place *place,
                          const char *address)
{
    if (c->n == CANDIDATES_MAX)
        return true; /* enough to try */
    char *copy = strdup(address);
    if (copy)
        c->list[c->n++] = (struct pg_candidate){ .place = place, .address = copy };
    return copy;
}

static void on_resolved(void *arg, const char *const *addresses, unsigned n, const char *error)
{
    struct pg_link *link = arg;
    struct pg_candidates *c = link->candidates;
    const struct pg_place *place = &link->url->places[c->at++];
    link->resolve = NULL;
    bool ok = true;
    for (unsigned i = 0; i < n && ok; i++)
        ok = add_candidate(c, place, addresses[i]);
    if (n == 0)
        snprintf(c->error, sizeof c->error, "cannot resolve the server's name \"%s\": %s",
                 place->host, error ? error : "no address");
    if (ok)
        look_at_places(link);
    else
        fail(link, "cannot connect: out of memory");
}

/* Goes on with the next place; when all are known, connects. */
static void look_at_places(struct pg_link *link)
{
    struct pg_candidates *c = link->candidates;
    for (; c->at < link->url->n_places; c->at++) {
        const struct pg_place *place = &link->url->places[c->at];
        if (pg_place_needs_address(place)) {
            int r = fw_host_resolve(link->host, place->host, on_resolved, link, &link->resolve);
            if (r < 0)
                fail_errno(link, "cannot resolve the server's name", r);
            return;
        }
        const char *host = place->host;
        bool numeric = host[0] && host[0] != '/' && host[0] != '@' && !place->address[0];
        if (!add_candidate(c, place, numeric ? host : place->address)) {
            fail(link, "cannot connect: out of memory");
            return;
        }
    }
    if (c->n > 0)
        start_libpq(link);
    else
        fail(link, c->error);
}

static void on_timer(void *arg)
{
    struct pg_link *link = arg;
    if (link->started) {
        time_out(link);
        return;
    }
    link->started = true;
    fw_timer_start(link->timer, link->url->connect_timeout_ms);
    look_at_places(link);
}

int pg_link_open(struct pg_link *link)
{
    int r = link->timer ? 0 : fw_host_timer(link->host, on_timer, link, &link->timer);
    if (r < 0)
        return r;
    link->candidates = calloc(1, sizeof *link->candidates);
    if (!link->candidates)
        return -ENOMEM;
    link->started = false;
    link->fatal[0] = link->sqlstate[0] = '\0';
    link->failed = false;
    fw_timer_start(link->timer, 0);
    return 0;
}
