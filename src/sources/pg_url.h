/* A Postgres URL: our own parameters taken out, those of other programs dropped, the rest libpq's.
 */
#ifndef SOURCES_PG_URL_H
#define SOURCES_PG_URL_H

#include <fanwire.h>
#include <libpq-fe.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PG_HOSTS_MAX 32

/* One place where the server may be. All strings are owned by the URL and never NULL. */
struct pg_place {
    char *host;    /* name, directory of a socket, or "" for libpq's default */
    char *address; /* numeric, "" when the name has yet to be resolved or needs no resolving */
    char *port;    /* "" for libpq's default */
};

struct pg_url {
    PQconninfoOption *options; /* what libpq made of the URL */
    struct pg_place places[PG_HOSTS_MAX];
    unsigned n_places;
    unsigned connect_timeout_ms;
    char mode[16];         /* mode=, "" for auto; one that some version of fanwire knows */
    bool keep_given;       /* keep-for= is there: */
    uint64_t keep_ms;      /* … mode outbox removes what is older; UINT64_MAX: nothing */
    char node[41];         /* node=: mode wal has a durable slot of this name; "" for none */
    int64_t retain_for_ms; /* retain-for=: how much of the past mode wal keeps in its slot */
    bool foreign;          /* foreign=on: LISTEN to plain names of others on demand */
    char ignored[256];     /* names of parameters of other programs, "" if none */
};

/* Parses `url`. Never does I/O, never quotes a password. Returns 0, -EINVAL or -ENOMEM with text;
 * after a failure there is nothing to release. */
int pg_url_parse(const char *url, struct pg_url *ret, struct fw_error *err);
void pg_url_done(struct pg_url *url);

/* True if the place's name has to be resolved before libpq may see it. */
bool pg_place_needs_address(const struct pg_place *place);

/* Writes libpq's text as one line, its lines joined by "; ", cut to size (≥ 4). Returns out. */
char *pg_one_line(char *out, size_t size, const char *text);

#endif
