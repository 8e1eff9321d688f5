/* A source that the test scripts from its own thread: it tells which of its functions were called,
 * and says to the hub what the test wants it to. One at a time per process. */
#ifndef TESTS_FAKE_SOURCE_H
#define TESTS_FAKE_SOURCE_H

#include <fanwire/source.h>

/* "plain:" hears everything; "demand:" must be told channels; "durable:" is on demand and resumes;
 * "stored:" hears everything and resumes; "whole:" publishes batches as one, never at once. */
extern const struct fw_source_class *const fake_sources[];

struct fake_script {
    bool open;    /* open() succeeds at once */
    bool ready;   /* subscribe() is confirmed at once */
    bool publish; /* publish() appends and answers */
    unsigned identity;
};

/* Before the hub is opened. Forgets what the last one was called. */
void fake_begin(struct fake_script script);

/* The next call the source got, in order, within seconds: "open", "subscribe a", "unsubscribe a",
 * "publish a", "batch of 3", "snapshot SELECT", "pause", "go on". */
void fake_expect(const char *call);
/* Whether there is a next call; then it is this one. */
bool fake_was_called(const char *call);
/* That nothing was called since, once all that was said before has been handled. */
void fake_expect_nothing(void);

/* Runs on the hub's loop and waits for it. */
void fake_run(void (*fn)(struct fw_host *host, void *arg), void *arg);
void fake_opened(void);
void fake_lost(const char *reason);
void fake_ended(void);
void fake_ready(const char *channel);
void fake_refused(const char *channel);
void fake_append(const char *channel, const char *text);
uint64_t fake_question(void); /* the number of the last snapshot that was asked for; 0: none */
/* Answers the publishes that are open, oldest first. */
void fake_published(const char *code, const char *id);

/* ---- "stored:" ---- */

void fake_open_stored(void); /* of identity 7, goes on where the log is */
void fake_store(const char *channel, const char *text, uint64_t at, uint64_t xid);

struct fake_rows {
    uint64_t question;
    const char *rows; /* each with its NUL */
    size_t len;
    uint64_t floor;
    bool inexact; /* it cannot tell what they contain; else they contain transactions below 100 */
};
void fake_answer(const struct fake_rows *rows);
void fake_refuse(const char *code, const char *message); /* the last snapshot */

#endif
