/* The body of a batch: a JSON array of {channel | channels, data | text | base64, key?}. All of it
 * is checked before any of it is published. */
#ifndef TRANSPORTS_BATCH_BODY_H
#define TRANSPORTS_BATCH_BODY_H

#include "buf.h"
#include "codes.h"

#include <stddef.h>

struct batch_body {
    const char *key; /* of the whole request, "" = none: event i then has the key "KEY/i" */
    /* May this channel be published to? */
    enum error_code (*check)(void *arg, const char *channel, size_t len, char *detail, size_t size);
    void *arg;
    struct buf events; /* packed (batch.h), in order; buf_done() it in every case */
    size_t n;          /* of them: each event once for each of its channels */
    char detail[640];  /* what is wrong, and with which event */
};

/* Fills events and n, at most INBOX_EVENTS_MAX of INBOX_BATCH_MAX bytes. Returns CODE_OK or why it
 * is refused. A payload that came as `data` is passed on as it was written. */
enum error_code batch_body_read(struct batch_body *body, const char *json, size_t len);

#endif
