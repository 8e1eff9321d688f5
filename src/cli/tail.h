/* What `fanwire tail` prints, wherever the events come from. */
#ifndef CLI_TAIL_H
#define CLI_TAIL_H

#include "settings.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct tail {
    /* told by flags */
    const char *where, *since;
    uint32_t last, count; /* count 0: without end */
    bool json, exit_on_gap;
    struct strings channels;
    /* state */
    uint32_t n_printed;
    bool out_is_terminal, err_is_terminal;
    bool done; /* leave, with `code` */
    int code;
};

/* Each prints, and sets done when that was all. Envelopes are printed with --json. */
void tail_message(struct tail *tail, const char *channel, size_t channel_len, const void *data,
                  size_t len);
void tail_envelope(struct tail *tail, const char *json, size_t len);
void tail_counted(struct tail *tail);
/* Tells standard error. */
void tail_note(struct tail *tail, const char *format, ...) __attribute__((format(printf, 2, 3)));
void tail_gap(struct tail *tail, const char *channel, const char *after, const char *reason);
void tail_flush(struct tail *tail);
/* Nobody reads standard output any more: done. */
bool tail_is_wanted(struct tail *tail);
void tail_fail(struct tail *tail, int code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

int tail_server(struct tail *tail); /* over HTTP; the exit code */
int tail_source(struct tail *tail); /* by the library; the exit code */

#endif
