/* An engine in a thread of the test, readers of its inbox, and steps of subscriptions. Everything
 * that waits gives up after seconds, loudly. */
#ifndef TESTS_RIG_H
#define TESTS_RIG_H

#include "engine.h"
#include "hub.h"
#include "reader.h"

#include <pthread.h>

#define PATIENCE_MS 20000

/* ---- an engine ---- */

struct rig {
    const char *url;
    uint32_t linger_ms;
    bool snapshots; /* channels "a" and "b" have rows: "SELECT a" and "SELECT b" */
    struct log *log;
    struct engine *engine;
    struct counters counters;
    pthread_t thread;
    pthread_mutex_t lock;
    char lines[4096]; /* its log lines, as "event: text\n" */
};

/* With the scripted sources (fake_source.h). */
void rig_start(struct rig *rig, const char *url, uint64_t log_size, uint32_t linger_ms);
/* The engine is replaced by another one on the same log, as of the next source process. */
void rig_start_with_snapshots(struct rig *rig, const char *url, uint64_t log_size);
void rig_restart(struct rig *rig);
void rig_stop(struct rig *rig); /* stops and frees all, checks the log */
bool rig_has_line(struct rig *rig, const char *part);

/* ---- a reader of an inbox ---- */

struct probe {
    struct reader *reader;
    char answers[1024]
                [256]; /* "ready a", "refused a bad-channel", "published 7 ok 0", "source … " */
    size_t n_answers, n_expected;
    uint64_t covered_from, ready_at; /* of the last ready */
    uint64_t question;               /* of the last ready or refused */
    char id[256];                    /* of the last published */
    uint8_t *rows;                   /* of the last "rows NUMBER CODE": all its bytes */
    size_t n_rows, rows_len;         /* rows_len of them are rows, the rest is offsets */
    uint64_t until;
    bool gone;
};

void probe_join(struct probe *probe, struct rig *rig);
void probe_adopt(struct probe *probe, struct reader *reader);
void probe_leave(struct probe *probe);
void probe_subscribe(struct probe *probe, const char *channel);
void probe_ask(struct probe *probe, const char *channel, uint64_t question);
void probe_ask_again(struct probe *probe, const char *channel, uint64_t covered_from);
void probe_unsubscribe(struct probe *probe, const char *channel);
/* The next answer begins like this, within seconds. */
void probe_expect(struct probe *probe, const char *answer);
void probe_expect_gone(struct probe *probe);
/* Handles what is there now. */
void probe_look(struct probe *probe);

/* A raw end of a connection, for what a reader would never send. */
int rig_raw(struct rig *rig);

/* ---- a subscription's steps ---- */

struct fw_hub *open_hub(const char *url, size_t retain, unsigned linger_ms); /* scripted sources */
struct fw_sub *open_sub(struct fw_hub *hub, const char *channel);            /* since now */
struct fw_sub *open_sub_since(struct fw_hub *hub, const char *channel, const char *since,
                              unsigned last);
/* The next step is of this kind; returns it (borrowed). `channel` NULL: any. */
struct fw_event *next_step(struct fw_sub *sub, int kind, const char *channel);
void next_message(struct fw_sub *sub, const char *channel, const char *text);
void next_gap(struct fw_sub *sub, const char *channel, const char *reason);
void next_down(struct fw_sub *sub, const char *reason);
void nothing_next(struct fw_sub *sub); /* nothing to return at the moment */
void publish(struct fw_hub *hub, const char *channel, const char *text);

#endif
