/* The source side's table of wanted channels: who wants what, what the source has confirmed, and
 * from where in the log each channel has been heard without a break.
 *
 * A channel is wanted while a reader has it, and lingers for a while after. With a source that must
 * be told channels (on demand) its life is
 *
 *     none → asked → ready → (nobody wants it: lingering) → unsubscribed, forgotten
 *                  ↘ refused: told and forgotten
 *
 * and after a loss all go back to none and are asked again. `covered_from` survives that: the gap
 * record of the loss, which every resume reads, tells of the hole. Other sources hear everything:
 * every channel is ready, covered from the log's first record.
 *
 * Replies are held back until the source is said to be up; a reader that comes to a ready channel
 * is answered at once. Every operation is O(1) in the number of channels and of readers, but for
 * those that concern all. */
#ifndef HUB_INTEREST_H
#define HUB_INTEREST_H

#include "codes.h"
#include "list.h"
#include "log.h"
#include "map.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum channel_state { CHANNEL_NONE, CHANNEL_ASKED, CHANNEL_READY };

struct channel {
    struct list all, linger;
    struct list wants;
    uint64_t hash;
    uint64_t covered_from;
    uint64_t gap_at; /* offset of the newest gap record of this channel alone, 0 = none */
    int64_t linger_until_ms;
    enum channel_state state;
    bool settling; /* counted in interest.n_settling */
    uint8_t len;
    char name[]; /* NUL-terminated */
};

/* What one reader wants: embedded in its peer, zeroed and given to interest_join() at birth. */
struct interest_reader {
    uint64_t id;
    struct list wants;
    struct list due; /* wants that can be answered now */
};

struct want {
    struct list by_channel, by_reader, due;
    struct interest_reader *reader;
    struct channel *channel;
    uint64_t covered_from; /* what the reader was told before a reconnect, 0 = nothing */
    uint64_t question;     /* the reader's number for its newest one */
    bool answered;
};

/* None of them may call back into the table, but for the source's word inside subscribe. */
struct interest_hooks {
    void (*subscribe)(void *arg, struct channel *channel);   /* may answer at once */
    void (*unsubscribe)(void *arg, struct channel *channel); /* borrowed during the call */
    void (*due)(void *arg, struct interest_reader *reader);  /* `due` is no longer empty */
    void (*refused)(void *arg, const struct want *want, enum error_code code, const char *message);
    void (*settled)(void *arg); /* the last settling channel was answered */
};

struct interest {
    struct map channels, wants;
    struct list all, lingering; /* lingering: in order of linger_until_ms */
    const struct log *log;
    const struct interest_hooks *hooks;
    void *arg;
    uint32_t linger_ms;
    uint64_t last_reader;
    size_t n_settling, n_lingering;
    bool on_demand; /* the source must be told channels */
    bool open;      /* the source can be told channels now */
    bool answering; /* replies may go out */
    bool settling;  /* new channels count as settling, too */
};

void interest_init(struct interest *in, const struct log *log, bool on_demand, uint32_t linger_ms,
                   const struct interest_hooks *hooks, void *arg);
void interest_done(struct interest *in); /* after all readers have left */

void interest_join(struct interest *in, struct interest_reader *reader);
void interest_leave(struct interest *in, struct interest_reader *reader, int64_t now_ms);

/* The reader wants the channel; a second time is the same as once, but for the question that is
 * answered. 0 or -ENOMEM. */
int interest_add(struct interest *in, struct interest_reader *reader, const char *name, size_t len,
                 uint64_t covered_from, uint64_t question);
void interest_remove(struct interest *in, struct interest_reader *reader, const char *name,
                     size_t len, int64_t now_ms);
/* Where the channel's coverage begins; UINT64_MAX while it is not confirmed. */
uint64_t interest_covered_from(const struct interest *in, const char *name, size_t len);
/* The next want to answer, taken off `due` and marked answered; NULL when there is none. */
struct want *interest_next_due(struct interest *in, struct interest_reader *reader);
/* Undoes that: the answer did not fit. */
void interest_put_back(struct want *want);

/* The source's word. */
/* Whether it must be told channels; not while it is open. What was asked before counts as asked of
 * the source as it is now. */
void interest_set_on_demand(struct interest *in, bool on_demand);
void interest_opened(struct interest *in); /* asks for every channel again */
void interest_lost(struct interest *in);
void interest_ready(struct interest *in, const char *name, size_t len);
void interest_refused(struct interest *in, const char *name, size_t len, enum error_code code,
                      const char *message);
/* The source is said to be up (or has ended): everything ready is answered. */
void interest_answer(struct interest *in, bool answering);
/* Un-listens what has lingered long enough. */
void interest_expire(struct interest *in, int64_t now_ms);

#endif
