/* Messages between workers and the application process: refused, or read into items that lie inside
 * the message and end in a NUL; header fields that are let through hold nothing that ends a line.
 */
#include "call_message.h"
#include "fuzz.h"

#include <string.h>

static void check_fields(struct slice fields)
{
    struct slice name, value;
    if (!call_fields_allowed(fields))
        return;
    while (call_field_next(&fields, &name, &value)) {
        require(name.len > 0);
        require(!memchr(name.data, ':', name.len));
        require(value.len == 0 ||
                (!memchr(value.data, '\r', value.len) && !memchr(value.data, '\n', value.len) &&
                 !memchr(value.data, '\0', value.len)));
    }
    require(fields.len == 0);
}

static void check_again(const uint8_t *data, size_t size, struct call_message message)
{
    struct buf out = buf_make(size);
    struct slice item;
    call_message_begin(&out, &message);
    while (call_message_next(&message, &item))
        call_message_add(&out, item.data, item.len);
    call_message_end(&out);
    require(!out.failed && out.len == size);
    /* The head's padding is not kept. */
    require(memcmp(out.data + CALL_HEAD_SIZE, data + CALL_HEAD_SIZE, size - CALL_HEAD_SIZE) == 0);
    buf_done(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t *copy = copy_of(data, size, 0);
    check_fields((struct slice){ (const char *)copy, size });
    int64_t whole = call_message_size(copy, size, CALL_REPLY_MAX);
    struct call_message message, walk;
    if (whole > 0 && (size_t)whole <= size &&
        call_message_decode(copy, (size_t)whole, &message) == 0) {
        struct slice item;
        walk = message;
        while (call_message_next(&walk, &item)) {
            require((const uint8_t *)item.data >= copy + CALL_HEAD_SIZE);
            require((const uint8_t *)item.data + item.len < copy + whole);
            require(item.data[item.len] == '\0');
            check_fields(item);
        }
        check_again(copy, (size_t)whole, message);
    }
    free(copy);
    return 0;
}
