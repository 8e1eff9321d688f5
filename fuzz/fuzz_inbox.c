/* Packets of the control inbox: refused, or read into texts and data that lie inside the packet. */
#include "fuzz.h"
#include "inbox.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct inbox_message message, again;
    char head[INBOX_REPLY_MAX];
    if (inbox_decode(data, size, &message) < 0)
        return 0;
    const char *begin = (const char *)data, *end = begin + size;
    for (int i = 0; i < INBOX_TEXTS; i++) {
        const struct inbox_text *text = &message.texts[i];
        require(text->len <= INBOX_TEXT_MAX);
        require(text->text >= begin && text->text + text->len < end);
        require(text->text[text->len] == '\0');
    }
    require((const char *)message.data + message.len == end);
    /* What was read is written the same way. */
    size_t head_size = inbox_encode_head(head, &message);
    require(head_size == size - message.len);
    char *packet = malloc(size);
    require(packet);
    memcpy(packet, head, head_size);
    memcpy(packet + head_size, message.data, message.len);
    require(inbox_decode(packet, size, &again) == 0);
    require(again.type == message.type && again.len == message.len && again.a == message.a);
    free(packet);
    return 0;
}
