/* The source side of one reader's inbox connection: its page, its requests, its replies.
 *
 * What it holds is bounded: one publish being put together, publishes that wait (for the source's
 * pause or its answer) up to PEER_HELD_MAX, replies up to PEER_REPLIES_MAX. While replies do not
 * fit, or too much waits, its requests are not read: a slow reader slows itself. A reader that
 * sends anything wrong is dropped. Nothing is freed inside a callback: a peer is marked broken, and
 * the engine closes it at the end of its loop's turn. */
#ifndef HUB_PEER_H
#define HUB_PEER_H

#include "batch.h"
#include "buf.h"
#include "inbox.h"
#include "interest.h"
#include "list.h"
#include "log.h"
#include "pace.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#define PEER_HELD_MAX    (2u << 20)
#define PEER_REPLIES_MAX (8u << 20)
#define PEER_TURN_MAX    64 /* messages of one reader per turn of the loop */

struct engine;

/* A publish, or a batch, on its way through the source side. */
struct publish {
    struct list by_peer; /* in peer.held or peer.asked, or engine.orphans */
    struct peer *peer;   /* NULL: its reader has gone, it is carried out all the same */
    uint64_t id;         /* the engine's number for its first event; 0: not looked at yet */
    uint64_t request;    /* the reader's */
    size_t charge;       /* bytes counted against PEER_HELD_MAX */
    bool batch, giving, refused;
    uint32_t n_events, n_given, n_answered; /* to the source, by the source */
    struct batch_event single;              /* not a batch: the event */
    const char *at, *from;                  /* batch: the events not given yet */
    size_t left, len;                       /* of them; of all data */
    char *data;                             /* where fragments go */
    char bytes[];                           /* channel NUL key NUL from NUL data NUL */
};

struct peer {
    struct list node; /* in engine.peers */
    struct list busy; /* in engine.busy: has something to do at the end of the turn */
    struct engine *engine;
    uv_poll_t poll;
    int fd, eventfd, events; /* events: what poll watches */
    struct log_slot *slot;
    struct pace pace;
    struct interest_reader interest;
    struct buf replies;      /* u32 length | packet, … not yet sent */
    struct list rows;        /* of snapshots, on their way to it (snapshots.c) */
    struct list held, asked; /* publishes: not yet wholly, and already, given to the source */
    size_t n_charged;        /* bytes of both */
    struct publish *partial; /* being put together */
    size_t partial_len;
    bool greeted;    /* it has said hello */
    bool deaf;       /* it reads no more; what it sent before is still carried out */
    bool broken;     /* close it at the end of the turn */
    const char *why; /* NULL: end of file */
};

/* Takes the descriptor (also on failure) and greets. Returns 0 or -errno. */
int peer_new(struct engine *engine, uv_loop_t *loop, int fd, struct peer **ret);
/* Stops watching and frees later, by way of the loop. The lists must be empty. */
void peer_close(struct peer *peer);
void peer_break(struct peer *peer, const char *why); /* first reason wins */

/* Sends a reply, or keeps it until it fits. */
void peer_send(struct peer *peer, const struct inbox_message *message);
void peer_is_deaf(struct peer *peer);
/* Sends what is kept. True when all of it is out. */
bool peer_flush(struct peer *peer);
/* Watches what there is to wait for now. */
void peer_watch(struct peer *peer);
/* Wakes the reader if it sleeps; with `always`, even if it does not say so. */
void peer_wake(struct peer *peer, bool always);

/* ---- what the engine does with the requests ---- */

void engine_on_subscribe(struct engine *engine, struct peer *peer, const struct inbox_message *m);
void engine_on_unsubscribe(struct engine *engine, struct peer *peer, const struct inbox_message *m);
/* Complete; owned by the engine from now on. */
void engine_on_publish(struct engine *engine, struct peer *peer, struct publish *publish);
void engine_on_snapshot(struct engine *engine, struct peer *peer, const struct inbox_message *m);
void engine_on_poke(struct engine *engine, struct peer *peer);
void engine_on_busy(struct engine *engine, struct peer *peer); /* look at it when the turn ends */

#endif
