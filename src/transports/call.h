/* A request that the application process is to answer (call.c), and its answer (call_answer.c). */
#ifndef TRANSPORTS_CALL_H
#define TRANSPORTS_CALL_H

#include "http_session.h"

struct call {
    uint64_t id;
    struct conn *conn; /* NULL: gone, while its bytes are half sent */
    const struct route *route;
    enum { CALL_HELD, CALL_QUEUED, CALL_SENT } phase;
    struct list node; /* in app.held or app.queued */
    uint8_t *bytes;   /* the message, until it is sent */
    size_t size, sent;
    /* a stream */
    bool websocket; /* else SSE */
    char accept[WS_ACCEPT_LEN + 1];
    struct channel *channel; /* held */
    uint64_t place;
};

static inline bool call_stream(const struct call *call)
{
    return call->route->kind == ROUTE_STREAM;
}

/* ---- call.c ---- */
struct call *call_find(struct worker *w, uint64_t id);
/* Takes the call off its connection, which may get another then, and frees it. */
void call_detach(struct worker *w, struct call *call);
/* Answers in the server's own name, and ends the call. */
void call_fail(struct worker *w, struct call *call, enum error_code code, const char *detail);

/* ---- call_answer.c ---- */
/* Says to the connection of a call that has ended what became of it. */
void call_refuse(struct worker *w, struct conn *c, const struct call *ended, enum error_code code,
                 const char *detail);

#endif
