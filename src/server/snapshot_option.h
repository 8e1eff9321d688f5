/* --snapshot CHANNEL=SELECT …: a channel and the query whose rows stand before its events. */
#ifndef SERVER_SNAPSHOT_OPTION_H
#define SERVER_SNAPSHOT_OPTION_H

#include "engine.h"

#include <stddef.h>

struct fw_error;

/* Cuts the text in two; the result borrows it. `others`: n that there are already. Returns 0 or
 * -EINVAL with text. */
int snapshot_option_parse(char *text, const struct engine_snapshot *others, size_t n,
                          struct engine_snapshot *ret, struct fw_error *err);

#endif
