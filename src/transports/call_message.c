/* The messages between workers and the application process. */
#include "call_message.h"

#include <errno.h>
#include <string.h>
#include <strings.h>

struct head {
    uint32_t size;
    uint8_t type, pad;
    uint16_t status;
    uint32_t route, n_items;
    uint64_t id;
};
_Static_assert(sizeof(struct head) == CALL_HEAD_SIZE, "it is sent as it is");

/* ---- reading ---- */

int64_t call_message_size(const void *data, size_t len, size_t max)
{
    uint32_t size;
    if (len < sizeof(size))
        return 0;
    memcpy(&size, data, sizeof(size));
    if (size < CALL_HEAD_SIZE || size > max)
        return -EPROTO;
    return len < CALL_HEAD_SIZE ? 0 : size;
}

/* The item at `at`; its end, or NULL when it does not fit before `end`. */
static const uint8_t *read_item(const uint8_t *at, const uint8_t *end, struct slice *ret)
{
    uint32_t len;
    if ((size_t)(end - at) < sizeof(len))
        return NULL;
    memcpy(&len, at, sizeof(len));
    at += sizeof(len);
    if ((size_t)(end - at) <= len || at[len] != 0)
        return NULL;
    *ret = (struct slice){ (const char *)at, len };
    return at + len + 1;
}

int call_message_decode(const void *data, size_t size, struct call_message *ret)
{
    struct head head;
    if (size < sizeof(head))
        return -EPROTO;
    memcpy(&head, data, sizeof(head));
    if (head.size != size || head.type < CALL_HELLO || head.type >= CALL_N_TYPES)
        return -EPROTO;
    const uint8_t *items = (const uint8_t *)data + sizeof(head), *at = items;
    const uint8_t *end = (const uint8_t *)data + size;
    struct slice item;
    for (uint32_t i = 0; i < head.n_items; i++) {
        at = read_item(at, end, &item);
        if (!at)
            return -EPROTO;
    }
    if (at != end)
        return -EPROTO;
    *ret = (struct call_message){
        .type = head.type,
        .status = head.status,
        .route = head.route,
        .n_items = head.n_items,
        .id = head.id,
        .items = items,
    };
    return 0;
}

bool call_message_next(struct call_message *message, struct slice *ret)
{
    if (message->n_items == 0)
        return false;
    uint32_t len;
    memcpy(&len, message->items, sizeof(len));
    *ret = (struct slice){ (const char *)message->items + sizeof(len), len };
    message->items += sizeof(len) + len + 1;
    message->n_items--;
    return true;
}

/* ---- writing ---- */

void call_message_begin(struct buf *out, const struct call_message *head)
{
    struct head wire = {
        .type = (uint8_t)head->type, .status = head->status, .route = head->route, .id = head->id
    };
    buf_clear(out);
    (void)buf_append(out, &wire, sizeof(wire));
}

void call_message_add(struct buf *out, const void *data, size_t len)
{
    if (len > UINT32_MAX - CALL_ITEM_EXTRA) {
        out->failed = -EMSGSIZE;
        return;
    }
    if (out->failed || buf_reserve(out, len + CALL_ITEM_EXTRA) < 0)
        return;
    uint32_t wire = (uint32_t)len, n;
    (void)buf_append(out, &wire, sizeof(wire));
    if (len)
        (void)buf_append(out, data, len);
    (void)buf_append_char(out, '\0');
    memcpy(&n, out->data + offsetof(struct head, n_items), sizeof(n));
    n++;
    memcpy(out->data + offsetof(struct head, n_items), &n, sizeof(n));
}

void call_message_end(struct buf *out)
{
    uint32_t size = (uint32_t)out->len;
    if (out->failed)
        return;
    if (out->len > UINT32_MAX)
        out->failed = -EMSGSIZE;
    else
        memcpy(out->data + offsetof(struct head, size), &size, sizeof(size));
}

/* ---- header fields ---- */

/* What the server says of every answer, and what would change how it is read. */
static const char *const own_names[] = {
    "Content-Length",
    "Content-Type",
    "Transfer-Encoding",
    "Connection",
    "Keep-Alive",
    "Upgrade",
    "Trailer",
    "Date",
    "TE",
    "Proxy-Connection",
    "X-Content-Type-Options",
};
static const char *const own_prefixes[] = { "Sec-WebSocket-", "Access-Control-" };

static bool is_own(const char *name, size_t len)
{
    for (size_t i = 0; i < sizeof(own_names) / sizeof(own_names[0]); i++) {
        if (strlen(own_names[i]) == len && strncasecmp(own_names[i], name, len) == 0)
            return true;
    }
    for (size_t i = 0; i < sizeof(own_prefixes) / sizeof(own_prefixes[0]); i++) {
        size_t prefix = strlen(own_prefixes[i]);
        if (len >= prefix && strncasecmp(own_prefixes[i], name, prefix) == 0)
            return true;
    }
    return false;
}

static bool token_valid(const char *text, size_t len)
{
    static const char marks[] = "!#$%&'*+-.^_`|~";
    for (size_t i = 0; i < len; i++) {
        char c = text[i];
        bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
        if (!letter && (c == 0 || !strchr(marks, c)))
            return false;
    }
    return len > 0;
}

/* RFC 9110 5.5, without obs-fold. */
static bool value_valid(const char *text, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char)text[i];
        if ((c < 0x20 && c != '\t') || c == 0x7F)
            return false;
    }
    return true;
}

bool call_field_allowed(const char *name, size_t name_len, const char *value, size_t value_len)
{
    return token_valid(name, name_len) && value_valid(value, value_len) && !is_own(name, name_len);
}

bool call_field_next(struct slice *fields, struct slice *name, struct slice *value)
{
    const char *end = fields->len ? memmem(fields->data, fields->len, "\r\n", 2) : NULL;
    size_t len = end ? (size_t)(end - fields->data) : fields->len;
    const char *colon = len ? memchr(fields->data, ':', len) : NULL;
    if (!colon)
        return false;
    *name = (struct slice){ fields->data, (size_t)(colon - fields->data) };
    *value = (struct slice){ colon + 1, len - name->len - 1 };
    while (value->len && (*value->data == ' ' || *value->data == '\t'))
        *value = (struct slice){ value->data + 1, value->len - 1 };
    while (value->len &&
           (value->data[value->len - 1] == ' ' || value->data[value->len - 1] == '\t'))
        value->len--;
    size_t taken = end ? len + 2 : len;
    *fields = (struct slice){ fields->data + taken, fields->len - taken };
    return true;
}

bool call_fields_allowed(struct slice fields)
{
    struct slice name, value;
    if (fields.len == 0)
        return true;
    if (fields.len > CALL_FIELDS_MAX || fields.len < 2 ||
        memcmp(fields.data + fields.len - 2, "\r\n", 2) != 0)
        return false;
    while (call_field_next(&fields, &name, &value)) {
        if (!call_field_allowed(name.data, name.len, value.data, value.len))
            return false;
    }
    return fields.len == 0;
}

bool call_type_allowed(struct slice type)
{
    return type.len <= 256 && value_valid(type.data, type.len);
}
