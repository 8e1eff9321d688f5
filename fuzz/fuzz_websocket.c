/* WebSocket frames: the same events and the same failure, however the bytes arrive. The first byte
 * says in what steps, the second how large a message may be. */
#include "fuzz.h"
#include "text.h"
#include "websocket.h"

#include <string.h>

struct outcome {
    int result;    /* 0 or the negated close code */
    uint64_t hash; /* of all events */
    size_t events;
};

static void note(struct outcome *o, const struct ws_event *event)
{
    uint64_t h = o->hash + event->opcode + event->close_code * 31u + event->len * 1009u;
    for (size_t i = 0; i < event->len; i++)
        h = (h ^ event->data[i]) * 0x100000001B3u;
    if (event->opcode == WS_TEXT || event->opcode == WS_CLOSE)
        require(utf8_valid(event->data, event->len));
    if (event->opcode >= WS_CLOSE)
        require(event->len <= 125);
    o->hash = h;
    o->events++;
}

/* Decodes what is held; *held becomes what is left. False when nothing may follow. */
static bool decode(struct ws_decoder *d, uint8_t *held, size_t *len, struct outcome *o)
{
    size_t done = 0, consumed;
    do {
        struct ws_event event;
        o->result = ws_decode(d, held + done, *len - done, &consumed, &event);
        done += consumed;
        require(done <= *len);
        if (o->result == 1)
            note(o, &event);
        if (o->result < 0 || (o->result == 1 && event.opcode == WS_CLOSE))
            return false;
    } while (consumed);
    *len -= done;
    memmove(held, held + done, *len);
    return true;
}

static struct outcome run(const uint8_t *data, size_t size, size_t step, size_t message_max)
{
    struct outcome o = { 0 };
    struct ws_decoder d;
    uint8_t *held = copy_of("", 0, 0);
    size_t len = 0;
    ws_decoder_init(&d, message_max);
    for (size_t at = 0; at < size; at += step) {
        size_t n = size - at < step ? size - at : step;
        uint8_t *more = copy_of(held, len, n);
        memcpy(more + len, data + at, n);
        free(held);
        held = more;
        len += n;
        if (!decode(&d, held, &len, &o))
            break;
        require(len <= (message_max > 125 ? message_max : 125) + 14);
    }
    free(held);
    ws_decoder_done(&d);
    return o;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 3)
        return 0;
    size_t step = data[0] % 32 + 1, message_max = (size_t)data[1] * 16;
    struct outcome whole = run(data + 2, size - 2, size, message_max);
    struct outcome parts = run(data + 2, size - 2, step, message_max);
    require(whole.result == parts.result && whole.events == parts.events);
    require(whole.hash == parts.hash);
    return 0;
}
