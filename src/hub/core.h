/* The engine as its own files see it: engine.c (life cycle), requests.c (what readers ask),
 * publishing.c (publishes and batches), stream.c (the source's word), host.c (what the source is
 * offered). Everything runs on one loop, but for engine_stop(), engine_adopt()
 * and fw_waker_wake(). */
#ifndef HUB_CORE_H
#define HUB_CORE_H

#include "backoff.h"
#include "engine.h"
#include "interest.h"
#include "keys.h"
#include "peer.h"
#include "position.h"
#include "snapshots.h"

#include <pthread.h>
#include <uv.h>

struct fw_host {
    struct engine *engine;
};

/* The source's stream: closed → open → up, and back by a loss; ended stays.
 *
 * Open is the source's word, up is ours: it is said (after the gap, where the backend forgets) when
 * every channel that was wanted has been confirmed. After a replacement of the source process
 * readers need a moment to repeat their channels, so `up` waits that long (SETTLE_MS): otherwise
 * each of those channels would have a hole, and a gap, of its own right after the common one. */
struct stream {
    bool open, up, ended;
    bool opening;     /* inside fw_host_opened(): channels are being asked */
    bool told_down;   /* the log's last word is `down` */
    bool gap_due;     /* something may have been missed since lost_at */
    bool recovered;   /* this engine found a used log, and has not been up yet */
    uint64_t lost_at; /* the log's head when it was first lost, or recovered */
    enum gap_reason lost_why;
    int64_t opened_ms, settle_until_ms;
    struct backoff backoff;
    const char *mode, *guarantee; /* static; NULL until opened */
};

struct adopted {
    struct list node;
    int fd;
};

struct engine {
    struct engine_options options;
    const struct fw_source_class *class;
    unsigned traits; /* the class's, or what the source said since */
    struct fw_host host;
    struct fw_source *source;
    struct log *log;
    struct counters *counters, *own_counters;
    struct stream stream;
    struct interest interest;
    struct keys keys;
    uint64_t last_pos[2], last_next; /* of the event appended, or found to stand there, last */
    char last_id[POSITION_TEXT_MAX];
    uint64_t gap_at; /* offset of the newest gap record of all channels that this engine wrote */

    struct list peers, busy;
    struct list orphans;  /* publishes whose reader has gone while they were held */
    struct map publishes; /* by id */
    uint64_t last_publish;
    bool in_publish, publish_appends; /* the source's publish is an append: pacing concerns it */
    bool ending;                      /* the source is being destroyed: it is given nothing more */

    struct snapshots snapshots;

    bool coverage_marked; /* in this turn, see fw_host_ready() */
    bool dirty;           /* appended since the last wake-up */
    bool talked;          /* replies went out: readers that wait on the futex must look */
    bool paused;
    int64_t paced_ms; /* when pacing was looked at last */

    /* repeats are counted, not printed: when each was told last, how many since */
    struct repeat {
        int64_t told_ms;
        uint64_t count;
    } lost, misconfigured, refused, strangers;

    uv_loop_t loop;
    bool loop_made;
    uv_poll_t listener;
    bool listening;
    uv_timer_t beat, retry, settle, pace, ask;
    uv_async_t control; /* stop and adopt */
    uv_prepare_t prepare;
    uv_check_t check;
    uv_idle_t again; /* keeps the loop from sleeping while something is left to do */

    pthread_mutex_t adopt_lock;
    struct list adopted;
    _Atomic bool stop;
};

static inline struct engine *engine_of(struct fw_host *host)
{
    return host->engine;
}

int64_t engine_now_ms(const struct engine *engine); /* monotonic */

/* requests.c */
extern const struct interest_hooks engine_interest_hooks;
int engine_admit(struct engine *engine, int fd); /* a new reader; takes the descriptor */
void engine_dismiss(struct engine *engine, struct peer *peer);
void engine_tell_source(struct engine *engine, struct peer *peer); /* NULL: all readers */
/* Does what the turn left to do: replies, peers that broke, publishes that were held. True when
 * something is left for another turn. */
bool engine_tend(struct engine *engine);

/* publishing.c */
/* Hands out what a reader (NULL: those that have gone) has held. True: more for another turn. */
bool engine_publish_held(struct engine *engine, struct peer *peer);
void engine_unhold(struct engine *engine);                              /* the pause is over */
void engine_orphan_publishes(struct engine *engine, struct peer *peer); /* it has gone */
void engine_drop_publishes(struct engine *engine);

/* stream.c */
void stream_recover(struct engine *engine); /* finds a used log */
void stream_settle(struct engine *engine);  /* says `up` when nothing is left to wait for */
void stream_down(struct engine *engine, enum gap_reason reason);
uint64_t stream_append_control(struct engine *engine, enum record_kind kind, const char *channel,
                               size_t len, uint64_t after, enum gap_reason reason);

/* engine.c */
void engine_log(struct engine *engine, enum fw_log_level level, const char *event,
                const char *format, ...) __attribute__((format(printf, 4, 5)));
/* Counts; true at most once a minute, with the number of repeats since in *ret. */
bool engine_repeat(struct engine *engine, struct repeat *repeat, uint64_t *ret);
/* Notes a failure; the ms to wait until the next try. */
unsigned engine_back_off(struct engine *engine, struct backoff *backoff);
void engine_wake(struct engine *engine);
/* After appends: may the source go on? `tell`: call its pause(). */
void engine_pace(struct engine *engine, bool tell);

#endif
