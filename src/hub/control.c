/* Encodes and decodes the payload of control records. */
#include "control.h"

#include <errno.h>
#include <string.h>

size_t control_encode(void *buf, uint64_t after, enum gap_reason reason)
{
    const char *text = reason_text(reason);
    size_t len = strnlen(text, CONTROL_MAX - sizeof(after));
    memcpy(buf, &after, sizeof(after));
    memcpy((char *)buf + sizeof(after), text, len);
    return sizeof(after) + len;
}

int control_decode(const void *data, size_t len, uint64_t *ret_after, enum gap_reason *ret_reason)
{
    *ret_after = 0;
    *ret_reason = REASON_NONE;
    if (len < sizeof(*ret_after) || len > CONTROL_MAX)
        return -EINVAL;
    memcpy(ret_after, data, sizeof(*ret_after));
    if (len > sizeof(*ret_after))
        *ret_reason = reason_from_text((const char *)data + sizeof(*ret_after),
                                       (uint32_t)(len - sizeof(*ret_after)));
    return 0;
}
