/* The envelope of NOTIFY: any text is refused or opened, and what was opened can be sent again. */
#include "fuzz.h"
#include "pg_envelope.h"

#include <string.h>

static bool same_text(const char *a, const char *b)
{
    return a && b ? !strcmp(a, b) : a == b;
}

static void send_again(const struct fw_source_event *event)
{
    struct fw_publish publish = { .channel = event->channel,
                                  .channel_len = event->channel_len,
                                  .key = event->key,
                                  .from = event->from,
                                  .data = event->data,
                                  .len = event->len };
    struct buf b = buf_make(1 << 24);
    struct pg_envelope again;
    require(pg_envelope_write(&b, &publish) == 0);
    require(strlen((char *)b.data) == b.len - 1); /* it has to travel as a C string */
    require(!pg_envelope_parse((char *)b.data, b.len - 1, &again));
    require(again.event.channel_len == event->channel_len);
    require(!memcmp(again.event.channel, event->channel, event->channel_len));
    require(same_text(again.event.key, event->key));
    require(same_text(again.event.from, event->from));
    require(again.event.len == event->len);
    require(event->len == 0 || !memcmp(again.event.data, event->data, event->len));
    pg_envelope_done(&again);
    buf_done(&b);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct pg_envelope envelope;
    if (!pg_envelope_parse((const char *)data, size, &envelope))
        send_again(&envelope.event);
    pg_envelope_done(&envelope);
    return 0;
}
