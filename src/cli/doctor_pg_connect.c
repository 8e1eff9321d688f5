/* Reaching a Postgres server: each thing that can go wrong on the way, with what to do about it. */
#include "doctor_pg.h"

#include "doctor_quote.h"

#include <netdb.h>
#include <stdio.h>
#include <string.h>

struct trouble {
    const char *state; /* SQLSTATE, NULL: any */
    const char *words; /* in the text, NULL: any */
    const char *title, *advice;
};

/* The first that fits. Texts of libpq's own are matched in the C locale, which is ours. */
static const struct trouble troubles[] = {
    { NULL, "Connection refused", "nobody listens there",
      "Is the server running, is this its port, and does its listen_addresses include this "
      "address?" },
    { NULL, "Is the server running locally", "there is no server at that socket",
      "Without a host in the URL libpq looks for a Unix socket. Write the host: "
      "postgres://localhost/app." },
    { NULL, "timeout expired", "no answer in time",
      "A firewall that drops packets, a wrong address, or a server that hangs. ?connect_timeout= "
      "changes how long is waited." },
    { NULL, "could not translate host name", "the name has no address", "Is it spelled right?" },
    { NULL, "expected authentication request", "what listens there is no PostgreSQL server",
      "Is it the right port?" },
    { NULL, "invalid response to SSL negotiation", "what listens there is no PostgreSQL server",
      "Is it the right port?" },
    { NULL, "server does not support SSL", "the server has no TLS",
      "The URL's sslmode demands it: switch ssl on in the server, or use sslmode=prefer where the "
      "network is trusted." },
    { NULL, "certificate", "the server's certificate is not trusted",
      "Give the authority's certificate by ?sslrootcert=FILE, and the name that stands in the "
      "server's certificate as the host." },
    { NULL, "no password supplied", "a password is wanted and none is there",
      "Put it into ~/.pgpass or PGPASSFILE, or into the URL by FANWIRE_SOURCE." },
    { NULL, "password authentication failed", "the password is wrong",
      "In a URL / is written %2F, @ %40, # %23, ? %3F, : %3A and % %25." },
    { "28P01", NULL, "the password is wrong",
      "In a URL / is written %2F, @ %40, # %23, ? %3F, : %3A and % %25." },
    { NULL, "pg_hba.conf", "the server lets nobody in this way",
      "pg_hba.conf on the server needs a line for this user, database and address; reload it "
      "afterwards." },
    { "28000", NULL, "the server does not let this role in",
      "There is no such role, it may not log in, or pg_hba.conf asks for something else." },
    { "3D000", NULL, "there is no such database", "What stands after the host is its name." },
    { NULL, "no such database", "the pooler does not know this database",
      "What stands after the host is its name in the pooler's configuration." },
    { "53300", NULL, "all connections of the server or role are taken",
      "Fanwire needs two. Raise max_connections, the role's CONNECTION LIMIT, or end others." },
    { "57P03", NULL, "the server is starting, stopping or recovering", "Try again in a moment." },
    { NULL, "session is read-only", "the server is a standby",
      "target_session_attrs asks for another." },
    { NULL, "unsupported startup parameter", "a pooler refuses libpq's parameters",
      "Connect to the server itself." },
    /* Poolers have a SQLSTATE of their own for everything, and hand texts on. */
    { NULL, "does not exist", "there is no such database or role", "Are both spelled right?" },
    { NULL, "authentication failed", "the role or its password is refused",
      "A pooler needs to know both, too." },
    { NULL, "not allowed", "the pooler does not let this role in",
      "The database pgbouncer is PgBouncer's own console." },
    { NULL, NULL, "the server cannot be reached", "" },
};

static const struct trouble *explain(const struct exam_failure *failure)
{
    const struct trouble *t = troubles;
    while ((t->state && strcmp(t->state, failure->state) != 0) ||
           (t->words && !strstr(failure->text, t->words)))
        t++;
    return t;
}

static void show_place(char *out, size_t size, const struct pg_place *place)
{
    const char *host = place->host[0] ? place->host : place->address;
    (void)snprintf(out, size, "%s%s%s", host[0] ? host : "libpq's default socket",
                   place->port[0] ? " port " : "", place->port);
}

/* Names are resolved by themselves first: it is the commonest typo, and libpq's text for it is
 * shared with others. */
static bool resolves(struct exam *exam, const struct pg_place *place, struct exam_failure *failure)
{
    const struct addrinfo hints = { .ai_socktype = SOCK_STREAM };
    struct addrinfo *found = NULL;
    if (!pg_place_needs_address(place))
        return true;
    int r = getaddrinfo(place->host, NULL, &hints, &found);
    if (r == 0) {
        freeaddrinfo(found);
        return true;
    }
    *failure = (struct exam_failure){ 0 };
    (void)snprintf(failure->text, sizeof(failure->text),
                   "could not translate host name \"%.255s\" to an address: %s", place->host,
                   gai_strerror(r));
    return false;
}

static void report_failure(struct exam *exam, const struct pg_place *place,
                           const struct exam_failure *failure, enum level level)
{
    char where[384];
    const struct trouble *t = explain(failure);
    show_place(where, sizeof(where), place);
    struct finding *f =
        report_add(exam->report, level, "connect", "cannot connect to %s: %s", where, t->title);
    finding_quote(f, failure->text);
    if (t->advice[0])
        finding_detail(f, "%s", t->advice);
    finding_text(f, "sqlstate", failure->state[0] ? failure->state : NULL);
}

static bool is_local(const PGconn *conn)
{
    const char *address = PQhostaddr(conn), *host = PQhost(conn);
    return host[0] == '/' || host[0] == '@' || !strncmp(address, "127.", 4) ||
           !strcmp(address, "::1");
}

static void report_success(struct exam *exam)
{
    const char *host = PQhost(exam->conn), *tls = PQsslAttribute(exam->conn, "protocol");
    const char *joint = host[0] == '/' ? "" : " port ";
    struct finding *f =
        report_add(exam->report, LEVEL_OK, "connect", "connected to %s%s%s%s%s", host, joint,
                   *joint ? PQport(exam->conn) : "", tls ? ", " : "", tls ? tls : ", without TLS");
    finding_text(f, "host", host);
    finding_text(f, "tls", tls);
    if (tls || is_local(exam->conn))
        return;
    f = report_add(exam->report, LEVEL_WARNING, "tls", "the connection is not encrypted");
    finding_detail(f, "Everybody on the way can read the events. Add ?sslmode=require to the URL "
                      "(verify-full, to be sure of the server), and switch ssl on in the server.");
}

static void report_ignored(struct exam *exam)
{
    if (exam->url->ignored[0])
        (void)report_add(exam->report, LEVEL_NOTE, "url",
                         "ignored in the URL, as other programs' parameters: %s",
                         exam->url->ignored);
}

void exam_connect(struct exam *exam)
{
    const struct pg_url *url = exam->url;
    struct exam_failure failures[PG_HOSTS_MAX] = { 0 };
    unsigned i = 0;
    report_ignored(exam);
    for (; i < url->n_places && !exam->conn; i++)
        if (resolves(exam, &url->places[i], &failures[i]))
            exam->conn = exam_open(url, &url->places[i], NULL, NULL, &failures[i]);
    unsigned n_failed = exam->conn ? i - 1 : i;
    for (i = 0; i < n_failed; i++)
        report_failure(exam, &url->places[i], &failures[i],
                       exam->conn ? LEVEL_WARNING : LEVEL_PROBLEM);
    if (exam->conn)
        report_success(exam);
    else
        exam->report->unreachable = true;
}
