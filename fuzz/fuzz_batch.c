/* The packed events of a batch: refused, or events that lie inside and are packed again alike. */
#include "batch.h"
#include "fuzz.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *copy = copy_of(data, size, 0);
    const char *at = copy;
    size_t left = size, n = 0, whole = 0;
    struct buf again = buf_make(size + 1);
    struct batch_event event;
    while (batch_next(&at, &left, &event)) {
        require(event.channel > copy && event.data + event.len < copy + size);
        require(event.channel[event.channel_len] == '\0' && event.key[event.key_len] == '\0' &&
                event.data[event.len] == '\0');
        if (batch_append(&again, &event) < 0)
            break;
        n++;
        whole = size - left;
    }
    require(again.len == 0 || memcmp(again.data, copy, again.len) == 0);
    require(!batch_valid(copy, size, n) || whole == size);
    buf_done(&again);
    free(copy);
    return 0;
}
