/* The source side of a hub: one source, one log's writer, the control inbox of its readers. Runs on
 * a libuv loop of its own, in the source process or in a thread of a library's user. */
#ifndef HUB_ENGINE_H
#define HUB_ENGINE_H

#include "counters.h"
#include "log.h"

#include <fanwire/source.h>
#include <stdbool.h>
#include <sys/types.h>

struct engine;

/* The query whose rows stand before the events of a channel, for readers that ask for them. */
struct engine_snapshot {
    const char *channel, *sql;
};

struct engine_options {
    const char *url;
    const struct fw_source_class *const *sources; /* NULL-terminated; NULL: fw_sources */
    struct log *log;                              /* writable; borrowed for the engine's life */
    uint32_t linger_ms;                           /* default 60,000 when 0 */
    bool patient; /* readers are a server's workers: a durable source waits for them (pace.h) */
    const struct engine_snapshot *snapshots; /* borrowed for the engine's life */
    size_t n_snapshots;
    struct counters *counters; /* borrowed; NULL: the engine's own */
    int listen_fd; /* readers' SOCK_SEQPACKET listener, borrowed; -1: engine_adopt() only */
    bool (*peer_allowed)(void *arg, pid_t pid); /* NULL: all of this user */
    /* `text` is a sentence; that of the event "opened" is mode=… guarantee="…". */
    void (*log_line)(void *arg, enum fw_log_level level, const char *event, const char *text);
    void *arg;
};

/* Finds the source for the URL, takes the writer lock, recovers a used log (and says `down` in it).
 * The source's connection is opened by engine_run(). Returns 0 or -errno with text. */
int engine_new(const struct engine_options *options, struct engine **ret, struct fw_error *err);
/* Runs until engine_stop(). Blocks. Returns 0 or -errno. */
int engine_run(struct engine *engine);
void engine_stop(struct engine *engine); /* thread: any; async-signal-safe */
/* Hands over one end of a SOCK_SEQPACKET pair: a new reader. Thread: any. 0 or -errno. */
int engine_adopt(struct engine *engine, int fd);
void engine_free(struct engine *engine); /* after engine_run() has returned */

const char *engine_kind(const struct engine *engine); /* "postgres"; static */
/* Checks a URL without starting anything. 0 or -EINVAL with text that names the known schemes. */
int engine_check_url(const char *url, struct fw_error *err);
/* What engine_kind() of an engine for this URL would be; NULL if no source knows it. */
const char *engine_url_kind(const char *url);
bool engine_url_has_snapshots(const char *url); /* does its source run queries? */

#endif
