/* The load of the latency benchmark: a crowd of WebSockets (crowd.h) and the publisher, which
 * commits one event at a time in Postgres, the next when every client has the one before. The clock
 * starts when COMMIT is sent, and stops for each client when it has read the event's last byte.
 *
 * Usage: latency PORT PATH COUNT CONNINFO CHANNEL. It connects, prints "connected N", then obeys
 * lines of standard input:
 *
 *     run EVENTS            publishes so many events; prints "EVENTS"
 *     report                prints the quantiles of all latencies in ns, by thousandths: 1,001
 *                           numbers in one line, from the smallest to the largest; forgets them */
#include "crowd.h"

#include <libpq-fe.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define EVENTS_MAX 100000 /* between two reports */
#define QUANTILES  1000

struct load {
    struct crowd *crowd;
    PGconn *conn;
    const char *channel;
    uint64_t committed; /* when COMMIT was sent */
    uint64_t *samples;
    size_t n_samples, size;
};

static void take_sample(void *arg)
{
    struct load *l = arg;
    l->samples[l->n_samples++] = crowd_now_ns(CLOCK_MONOTONIC) - l->committed;
}

static void check(const struct load *l, PGresult *result)
{
    ExecStatusType status = PQresultStatus(result);
    if (status != PGRES_COMMAND_OK && status != PGRES_TUPLES_OK)
        crowd_fail("Postgres: %s", PQerrorMessage(l->conn));
    PQclear(result);
}

static void publish(struct load *l)
{
    const char *const values[] = { l->channel, l->crowd->lines };
    l->crowd->lines[CROWD_PAYLOAD] = '\0';
    check(l, PQexec(l->conn, "BEGIN"));
    check(l, PQexecPrepared(l->conn, "publish", 2, values, NULL, NULL, 0));
    l->committed = crowd_now_ns(CLOCK_MONOTONIC);
    if (!PQsendQuery(l->conn, "COMMIT")) /* blocks until it is written */
        crowd_fail("Postgres: %s", PQerrorMessage(l->conn));
}

static void end_publish(const struct load *l)
{
    PGresult *result;
    while ((result = PQgetResult(l->conn)))
        check(l, result);
}

static void make_room(struct load *l, size_t more)
{
    if (l->size - l->n_samples >= more)
        return;
    l->size = l->n_samples + more;
    l->samples = realloc(l->samples, l->size * sizeof(uint64_t));
    if (!l->samples)
        crowd_fail("out of memory");
}

static void run(struct load *l, size_t events)
{
    make_room(l, events * l->crowd->count);
    for (size_t i = 0; i < events; i++) {
        crowd_expect(l->crowd, 1);
        publish(l);
        crowd_receive(l->crowd, true);
        end_publish(l);
    }
    (void)printf("%zu\n", events);
    (void)fflush(stdout);
}

static int compare(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static void report(struct load *l)
{
    if (l->n_samples == 0)
        crowd_fail("nothing to report");
    qsort(l->samples, l->n_samples, sizeof(uint64_t), compare);
    for (size_t i = 0; i <= QUANTILES; i++)
        (void)printf("%llu%c", (unsigned long long)l->samples[(l->n_samples - 1) * i / QUANTILES],
                     i < QUANTILES ? ' ' : '\n');
    (void)fflush(stdout);
    l->n_samples = 0;
}

static void connect_postgres(struct load *l, const char *conninfo)
{
    l->conn = PQconnectdb(conninfo);
    if (PQstatus(l->conn) != CONNECTION_OK)
        crowd_fail("Postgres: %s", PQerrorMessage(l->conn));
    check(l, PQprepare(l->conn, "publish", "SELECT fanwire_publish($1::text, $2::text)", 2, NULL));
}

int main(int argc, char **argv)
{
    if (argc != 6)
        crowd_fail("usage: latency PORT PATH COUNT CONNINFO CHANNEL");
    struct load l = { .channel = argv[5] };
    l.crowd = crowd_new((uint16_t)strtoul(argv[1], NULL, 10), argv[2], strtoul(argv[3], NULL, 10));
    l.crowd->completed = take_sample;
    l.crowd->arg = &l;
    connect_postgres(&l, argv[4]);
    crowd_connect(l.crowd);
    (void)printf("connected %zu\n", l.crowd->open);
    (void)fflush(stdout);

    char command[128];
    while (fgets(command, sizeof(command), stdin)) {
        size_t events;
        if (sscanf(command, "run %zu", &events) == 1 && events <= EVENTS_MAX)
            run(&l, events);
        else if (strcmp(command, "report\n") == 0)
            report(&l);
        else
            crowd_fail("not a command: %s", command);
    }
    return 0;
}
