/* A subscription: a cursor on the log and the channels it wants.
 *
 * The cursor moves over the log once, for all channels. A channel is asked for at one place of the
 * log (asked_at) and answered at another; what lies between, and what its `since` or `last` ask
 * for, is replayed when the answer comes, up to the cursor. From there on its records are returned
 * as the cursor meets them, and FW_READY when it has reached ready_at:
 *
 *     unsent → asked → answered → replaying → confirming → live
 *
 * Two kinds wait between the answer and the replay: those whose rows are asked for, one channel
 * after the other (rows.c), and those whose position the log has not come to (since_is_ahead()).
 *
 * Records of the reserved channel "" (gap, down, up) are met by the cursor, too. Down and up are a
 * state: the header's word and the records may tell it twice, it is returned once. */
#ifndef HUB_SUB_H
#define HUB_SUB_H

#include "buf.h"
#include "hub.h"
#include "list.h"
#include "map.h"
#include "position.h"

#include <fanwire/source.h>

struct sub_channel {
    struct list node;  /* in fw_sub.channels */
    struct list queue; /* in fw_sub.unsent, rowless, ahead, answered, confirming or refused */
    uint64_t hash;
    uint64_t live_from; /* its records are returned from here on; UINT64_MAX until answered */
    uint64_t asked_at, covered_from, ready_at;
    struct since since;
    unsigned last;
    uint64_t question; /* its number, as asked last */
    bool asked;        /* sent, not answered */
    bool rows;         /* it begins with rows */
    bool rows_refused; /* refused are the rows, not the channel */
    int64_t until_ms;  /* ahead: how long it waits; 0 until it does */
    enum error_code refused;
    size_t len;
    char name[FW_CHANNEL_MAX + 1];
    char message[200]; /* of the refusal */
};

/* The events of a channel up to the cursor: a list of offsets, or a sweep from `at` to `end`. */
struct replay {
    struct sub_channel *channel; /* NULL: none */
    uint64_t *offsets;
    size_t n, next;
    bool sweep;
    uint64_t at, end;   /* sweep: where it is; both: where it ends */
    uint64_t gaps_from; /* gaps of all channels in [gaps_from, gaps_until) belong to it */
    uint64_t gaps_until;
    enum gap_reason reason; /* to be told first */
    uint64_t gap_after, gap_before;
};

/* The rows of one channel and those events that they lack: asked for, arriving, being returned. */
struct rows {
    struct sub_channel *channel; /* NULL: none */
    uint64_t request;
    bool whole;        /* all of the answer is here */
    struct buf answer; /* rows_len bytes of JSON texts, each followed by a NUL; then offsets */
    size_t rows_len, at;
    uint64_t until;
};
/* Rows, and the offsets of what they lack. */
#define ROWS_MAX (FW_SNAPSHOT_MAX + (1u << 20))

struct fw_sub {
    struct hub_core *core;
    const struct log *log;
    struct reader *reader;
    uint64_t cursor, limit; /* limit: log_indexed() as last seen */
    uint64_t last_pos[2];   /* of the newest record before the cursor; 0 = none */
    struct log_slot *slot;  /* the reader's page once greeted, own_slot before */
    struct log_slot own_slot;

    /* the body of the record returned last */
    uint64_t *body;
    size_t body_cap;
    char id[POSITION_TEXT_MAX], after[POSITION_TEXT_MAX], before[POSITION_TEXT_MAX];

    struct list channels, unsent, rowless, ahead, answered, confirming, refused;
    struct map by_hash;
    size_t n_channels, n_asked;
    uint64_t last_question;
    struct sub_channel *only; /* while there is just one */
    unsigned ticks;           /* records read since the inbox was looked at */

    bool attention; /* something of the following, or of the lists, may be due */
    bool armed;     /* fw_sub_next() returned 0 and the descriptor has to wake up */
    bool check_state, down;
    struct replay replay;
    struct rows rows;
    struct newest_position newest;

    int epoll_fd;
    int timer_fd;                   /* in it; -1 until a channel is ahead */
    bool epoll_eventfd, epoll_room; /* what it watches besides the inbox's replies */
    bool gone;                      /* end of file of the inbox */
    _Atomic bool cancelled;
    struct fw_error error;
};

/* ---- sub.c ---- */

/* Moves a channel to another queue. */
static inline void sub_requeue(struct sub_channel *channel, struct list *queue)
{
    list_remove(&channel->queue);
    list_push(queue, &channel->queue);
}

/* For map_get() by name. */
bool sub_same_name(const void *value, const void *key, size_t len);
void sub_free_channel(struct fw_sub *sub, struct sub_channel *channel);
/* Reads the replies there are, sends the requests that did not fit. */
void sub_process_inbox(struct fw_sub *sub);
/* A request that the inbox did not take yet. */
bool sub_has_unsent(const struct fw_sub *sub);
/* Sends what there is to ask. */
void sub_ask(struct fw_sub *sub);
/* It is told, and removed, by the next fw_sub_next(). */
void sub_refuse(struct fw_sub *sub, struct sub_channel *channel, enum error_code code,
                const char *message);

/* ---- next.c ---- */

/* Puts the cursor at the end of the log. */
void sub_seek_end(struct fw_sub *sub);
/* Reads the record's body into sub->body. 1, 0 when lapped, -ENOMEM. */
int sub_read_body(struct fw_sub *sub, struct log_record *record);
int sub_message(struct fw_sub *sub, const struct log_record *record, struct fw_event *ev);
/* A step that is no message: everything but kind, channel and reason is empty. `id` is the place of
 * the cursor. */
int sub_step(struct fw_sub *sub, enum fw_kind kind, const char *channel, enum gap_reason reason,
             struct fw_event *ev);
int sub_gap(struct fw_sub *sub, const char *channel, uint64_t after, uint64_t before,
            enum gap_reason reason, struct fw_event *ev);
/* A gap record as an event of `channel`. */
int sub_gap_record(struct fw_sub *sub, const struct log_record *record, const char *channel,
                   struct fw_event *ev);
bool sub_is_of(const struct log_record *record, const struct sub_channel *channel);

/* ---- due.c ---- */

/* The next step that is not in the log at the cursor: its kind, 0 when there is none, or -errno. */
int sub_due(struct fw_sub *sub, struct fw_event *ev);
/* Is a channel ready where the cursor is? Then that is the next step. */
bool sub_ready_due(const struct fw_sub *sub);
int sub_ready_step(struct fw_sub *sub, struct fw_event *ev);

/* ---- replay.c ---- */

/* Begins to replay an answered channel up to the cursor. 0 or -ENOMEM. */
int replay_start(struct fw_sub *sub, struct sub_channel *channel);
/* The next step: its kind, 0 when the replay is over, or -errno. */
int replay_next(struct fw_sub *sub, struct fw_event *ev);
void replay_stop(struct fw_sub *sub);
/* Does this channel's position still have to come? Then it waits. */
bool replay_waits(struct fw_sub *sub, struct sub_channel *channel, int64_t now_ms);
/* Takes up those whose position has come, or whose time is over. True when there are such. */
bool replay_look_ahead(struct fw_sub *sub);
/* When the first of them gives up; -1: nobody waits, or the time does not run. */
int64_t replay_deadline_ms(const struct fw_sub *sub);
void replay_up(struct fw_sub *sub); /* the source is back: the time runs anew */

/* ---- rows.c ---- */

/* Asks for the rows of the first channel that waits for its own. 0, -EAGAIN or -EPIPE. */
int rows_ask(struct fw_sub *sub);
void rows_take(void *sub, const struct reader_rows *part); /* for struct reader_handlers */
/* The next row, or event that they lack: its kind, 0 at the end, -ENOMEM (it comes again). */
int rows_next(struct fw_sub *sub, struct fw_event *ev);
void rows_drop(struct fw_sub *sub);

#endif
