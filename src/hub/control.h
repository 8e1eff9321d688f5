/* The payload of control records (gap, down, up): where the stream was last whole, and why it
 * broke. u64 after (host byte order, an offset of the same log, 0 = unknown) | the reason's text
 * Records of kind GAP stand on the reserved channel "" (they concern every channel) or on a channel
 * of their own (too large an event; coverage that began again); DOWN and UP on "" only. */
#ifndef HUB_CONTROL_H
#define HUB_CONTROL_H

#include "codes.h"

#include <stddef.h>
#include <stdint.h>

#define CONTROL_MAX 64 /* bytes control_encode() writes at most */

/* Returns the length. */
size_t control_encode(void *buf, uint64_t after, enum gap_reason reason);
/* Returns 0, or -EINVAL when it is no such payload (then after = 0, reason = REASON_NONE). */
int control_decode(const void *data, size_t len, uint64_t *ret_after, enum gap_reason *ret_reason);

#endif
