/* A hub as its subscriptions see it. It outlives fw_hub_close() while a subscription is open. */
#ifndef HUB_HUB_H
#define HUB_HUB_H

#include "log.h"
#include "reader.h"
#include "snapshot_query.h"

#include <fanwire.h>
#include <stdatomic.h>
#include <stdbool.h>

/* What fw_hub_close() leaves to the last subscription. */
struct hub_core {
    _Atomic unsigned refs;
    struct log *log;
    const volatile uint8_t *here; /* 1; a page that is wiped in a forked child */
    struct snapshot_queries snapshots;
    int ahead_ms; /* how long a position may be ahead of the log; tests set it, before they ask */
};

struct hub_core *hub_core(const struct fw_hub *hub);
void hub_core_ref(struct hub_core *core);
void hub_core_unref(struct hub_core *core); /* NULL allowed */

/* A new connection to the source side. 0 or -errno. */
int hub_connect(struct fw_hub *hub, struct reader **ret);

static inline bool hub_forked(const struct hub_core *core)
{
    return !*core->here;
}

#define HUB_FORKED_TEXT                                                                            \
    "this hub was opened before fork(): its source lives in the parent process; open another in "  \
    "the child"

/* Hubs with other sources than this build's (tests). */
struct fw_source_class;
int hub_open_with(const char *url, const struct fw_hub_options *options,
                  const struct fw_source_class *const *sources, struct fw_hub **ret_hub,
                  struct fw_error *err);

#endif
