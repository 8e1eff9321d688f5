/* A subscription: a cursor on the log and the channels it wants.
 *
 * The cursor moves over the log once, for all channels. A channel is asked for at one place of the
 * log (asked_at) and answered at another; what lies between, and what its `since` or `last` ask
 * for, is replayed when the answer comes, up to the cursor. From there on its records are returned
 * as the cursor meets them, and FW_READY when it has reached ready_at:
 *
 *     unsent → asked → answered → replaying → confirming → live
 *
 * Records of the reserved channel "" (gap, down, up) are met by the cursor, too. Down and up are a
 * state: the header's word and the records may tell it twice, it is returned once. */
#ifndef HUB_SUB_H
#define HUB_SUB_H

#include "hub.h"
#include "list.h"
#include "map.h"
#include "position.h"

struct sub_channel {
    struct list node;  /* in fw_sub.channels */
    struct list queue; /* in fw_sub.unsent, answered, confirming or refused */
    uint64_t hash;
    uint64_t live_from; /* its records are returned from here on; UINT64_MAX until answered */
    uint64_t asked_at, covered_from, ready_at;
    struct since since;
    unsigned last;
    uint64_t question; /* its number, as asked last */
    bool asked;        /* sent, not answered */
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

    struct list channels, unsent, answered, confirming, refused;
    struct map by_hash;
    size_t n_channels, n_asked;
    uint64_t last_question;
    struct sub_channel *only; /* while there is just one */
    unsigned ticks;           /* records read since the inbox was looked at */

    bool attention; /* something of the following, or of the lists, may be due */
    bool armed;     /* fw_sub_next() returned 0 and the descriptor has to wake up */
    bool check_state, down;
    struct replay replay;

    int epoll_fd;
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

/* ---- next.c ---- */

/* Puts the cursor at the end of the log. */
void sub_seek_end(struct fw_sub *sub);
/* Reads the record's body into sub->body. 1, 0 when lapped, -ENOMEM. */
int sub_read_body(struct fw_sub *sub, struct log_record *record);
int sub_message(struct fw_sub *sub, const struct log_record *record, struct fw_event *ev);
int sub_gap(struct fw_sub *sub, const char *channel, uint64_t after, uint64_t before,
            enum gap_reason reason, struct fw_event *ev);
/* A gap record as an event of `channel`. */
int sub_gap_record(struct fw_sub *sub, const struct log_record *record, const char *channel,
                   struct fw_event *ev);
bool sub_is_of(const struct log_record *record, const struct sub_channel *channel);

/* ---- replay.c ---- */

/* Begins to replay an answered channel up to the cursor. 0 or -ENOMEM. */
int replay_start(struct fw_sub *sub, struct sub_channel *channel);
/* The next step: its kind, 0 when the replay is over, or -errno. */
int replay_next(struct fw_sub *sub, struct fw_event *ev);
void replay_stop(struct fw_sub *sub);

#endif
