/* A client's request in the application process: what fanwire/server.h calls fw_request. */
#ifndef SERVER_REQUEST_H
#define SERVER_REQUEST_H

#include "application.h"
#include "buf.h"
#include "call_message.h"
#include "list.h"

struct worker_link;

struct fw_request {
    struct list node;         /* in the crew's queue */
    struct worker_link *link; /* where the answer goes; counted */
    uint64_t id;
    const struct route *route;
    struct handler handler;
    uint8_t *bytes; /* the message that it came as, `size` bytes */
    size_t size;
    struct slice items[REQUEST_PARAMS], params[ROUTE_PARAMS_MAX];
    char *query, *fields; /* decoded: name NUL value NUL … NUL */
    struct buf answer_fields;
    struct buf messages; /* of a stream: an ACCEPT in the making */
};

/* Makes a request of a whole message. Returns 0, -EPROTO (a worker would not send that) or -ENOMEM.
 * Ownership: the message is copied, the link referenced. */
int request_new(const struct application *application, struct worker_link *link,
                const uint8_t *message, size_t size, struct fw_request **ret);
void request_run(struct fw_request *request); /* hands it to its handler */

#endif
