/* A hub for tests of sources: a small poll loop, a clock that can be moved, and a record of
 * everything the source has said. */
#ifndef TESTS_FAKE_HOST_H
#define TESTS_FAKE_HOST_H

#include <fanwire/source.h>
#include <stdbool.h>
#include <stddef.h>

struct fake_event {
    char *channel, *key, *from, *data; /* NUL-terminated copies; key and from may be NULL */
    size_t channel_len, len;
    uint64_t pos[2];
    int64_t time_ms;
    bool history;
};

struct fake_gap {
    char reason[32];
    uint64_t pos[2];
    bool history;
    size_t before; /* how many events had come */
};

struct fake_answer {
    uint64_t request;
    const char *code; /* NULL: accepted */
    char message[900], id[64];
    size_t n_events; /* that had come by then */
};

struct fake_name {
    const char *name;
    const char *addresses[4]; /* none: resolving fails */
};

struct fw_host {
    /* what the test sets */
    const struct fake_name *names; /* NULL-terminated; other names fail to resolve */
    void (*on_event)(void *arg, const struct fw_source_event *event); /* instead of recording */
    void (*on_answer)(void *arg, uint64_t request, const char *code);
    void *arg;
    unsigned flushes_until_full;       /* the flush after so many says stop; 0: never */
    size_t event_max;                  /* 1 MiB */
    uint64_t log_identity, log_pos[2]; /* what the log holds; also what the source makes of it */
    /* what the source has said */
    unsigned n_opened, n_lost, n_refused_events, n_flushes, n_lookups, n_warnings;
    char mode[32], guarantee[128], lost_reason[32], lost_message[900], log[4096];
    char refused_event[128], refused_channel[300], refused_code[32], refused_message[600];
    char last_ready[300];
    unsigned traits, n_traits, n_misconfigured; /* the latter counts as lost, too */
    unsigned n_ready, n_refused, max_unflushed, unflushed;
    struct fake_event *events;
    size_t n_events, cap_events;
    struct fake_gap gaps[16];
    unsigned n_gaps, n_begun, n_marks;
    uint64_t gauges[2];          /* by enum fw_gauge */
    uint64_t identity, floor[2]; /* as opened, as begun */
    struct fake_answer *answers;
    size_t n_answers, cap_answers;
    struct {
        uint64_t request, floor[2];
        char rows[4096]; /* with LF for NUL */
        size_t len;
        char code[32], message[600]; /* "": answered */
        bool contained[64];          /* transactions 0 to 63, at position {number, 0} */
        bool exact;
        unsigned n;
    } snapshot;
    /* the loop */
    struct fw_watch *watches;
    struct fw_timer *timers;
    struct fw_resolve *resolves;
    int64_t skew_ms;
};

struct fw_host *host_new(void);
void host_free(struct fw_host *host); /* fails if the source has left anything open */
void host_run_ms(struct fw_host *host, int ms);
void host_advance(struct fw_host *host, int64_t ms); /* moves the clock; timers fire in the loop */
unsigned host_watched(const struct fw_host *host);   /* what the source waits for, all together */
/* Waits until something can be read, whether or not the source wants to. */
bool host_await_input(const struct fw_host *host);
void host_forget_events(struct fw_host *host);

/* Runs until `condition`, an expression, is true. */
#define RUN_UNTIL(host, condition)                                                                 \
    do {                                                                                           \
        int64_t end_ = host_real_ms() + 20000;                                                     \
        while (!(condition)) {                                                                     \
            if (host_real_ms() > end_)                                                             \
                fail_msg("not within 20 s: %s (log: %s, lost: %s)", #condition, (host)->log,       \
                         (host)->lost_message);                                                    \
            host_turn(host, 100);                                                                  \
        }                                                                                          \
    } while (0)

int64_t host_real_ms(void);
void host_turn(struct fw_host *host, int timeout_ms); /* one turn of the loop */

#endif
