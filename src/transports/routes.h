/* The routes that a program adds to the server: templates of paths, and what is behind them. Made
 * before there are processes, read-only afterwards: an index means the same everywhere. */
#ifndef TRANSPORTS_ROUTES_H
#define TRANSPORTS_ROUTES_H

#include "http.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct fw_error;

#define ROUTE_PARAMS_MAX 8
#define ROUTE_PATH_MAX   1024

enum route_kind {
    ROUTE_HANDLER, /* forwarded to the application process */
    ROUTE_STREAM,  /* the same, then the events of a channel */
    ROUTE_ASSET,   /* fixed bytes */
};

struct route {
    enum route_kind kind;
    char *method;  /* "GET" of streams and assets */
    char *path;    /* "/api/todos/{id}/" */
    char *channel; /* STREAM: "todos:{id}" */
    uint32_t n_params;
    struct slice params[ROUTE_PARAMS_MAX]; /* names, in `path` */
    /* ASSET */
    char *type;
    const void *data; /* borrowed */
    size_t len;
    char etag[24];
};

struct routes {
    struct route *items;
    size_t count;
    size_t n_calls; /* handlers and streams: those need the application process */
};

/* Adds a copy of what `route` says (kind, method, path, channel, type, data, len). Returns its
 * index, -EINVAL, -EEXIST or -ENOMEM, with text. */
int routes_add(struct routes *routes, const struct route *route, struct fw_error *err);
void routes_done(struct routes *routes);

struct route_match {
    const struct route *route;
    uint32_t index;
    struct slice params[ROUTE_PARAMS_MAX]; /* as sent, still encoded */
};

/* The best route of this path (below the base path) and method; `stream`: of streams alone, else of
 * the others. HEAD finds GET. */
bool routes_match(const struct routes *routes, struct slice path, struct slice method, bool stream,
                  struct route_match *ret);
/* The methods that the path's routes take: "GET, HEAD, OPTIONS"; "" when there is no such path.
 * Returns out. */
char *routes_methods(const struct routes *routes, struct slice path, char *out, size_t size);

/* The channel of a stream, with these decoded parameters. Returns its length, or -EMSGSIZE. */
int64_t route_channel(const struct route *route, const struct slice *params, char *out,
                      size_t size);

#endif
