/* Server-sent events as a client reads them. */
#include "sse_client.h"

#include "text.h"

#include <errno.h>
#include <string.h>

void sse_client_init(struct sse_client *client, size_t max_data)
{
    *client = (struct sse_client){ .line = buf_make(max_data), .data = buf_make(max_data) };
}

void sse_client_done(struct sse_client *client)
{
    buf_done(&client->line);
    buf_done(&client->data);
}

void sse_client_restart(struct sse_client *client)
{
    buf_clear(&client->line);
    buf_clear(&client->data);
    client->event[0] = '\0';
    client->after_cr = client->begun = false;
    memcpy(client->id, client->last_id, sizeof(client->id));
}

/* An empty line ends the event; without data it only moves the id. */
static int dispatch(struct sse_client *c, sse_event_fn fn, void *arg)
{
    memcpy(c->last_id, c->id, sizeof(c->last_id));
    bool go_on = true;
    if (c->data.len > 0)
        go_on = fn(arg, c->event, (const char *)c->data.data, c->data.len - 1);
    buf_clear(&c->data);
    c->event[0] = '\0';
    return go_on ? 0 : 1;
}

static void copy_value(char *out, size_t size, const char *value, size_t len)
{
    if (len >= size || memchr(value, '\0', len))
        return; /* the standard ignores an id with NUL; one too long is none of ours */
    memcpy(out, value, len);
    out[len] = '\0';
}

static int take_field(struct sse_client *c, const char *name, size_t name_len, const char *value,
                      size_t len)
{
    if (name_len == 4 && memcmp(name, "data", 4) == 0) {
        int r = len > 0 ? buf_append(&c->data, value, len) : 0;
        return r < 0 ? r : buf_append_char(&c->data, '\n');
    }
    if (name_len == 5 && memcmp(name, "event", 5) == 0) {
        copy_value(c->event, sizeof(c->event), value, len);
    } else if (name_len == 2 && memcmp(name, "id", 2) == 0) {
        copy_value(c->id, sizeof(c->id), value, len);
    } else if (name_len == 5 && memcmp(name, "retry", 5) == 0) {
        char text[16] = "";
        uint64_t ms;
        copy_value(text, sizeof(text), value, len);
        if (parse_uint(text, 3600 * 1000, &ms) == 0)
            c->retry_ms = (unsigned)ms;
    }
    return 0;
}

static int take_line(struct sse_client *c, sse_event_fn fn, void *arg)
{
    const char *line = (const char *)c->line.data;
    size_t len = c->line.len;
    if (!c->begun && len >= 3 && memcmp(line, "\xEF\xBB\xBF", 3) == 0) {
        line += 3;
        len -= 3;
    }
    c->begun = true;
    if (len == 0)
        return dispatch(c, fn, arg);
    const char *colon = memchr(line, ':', len);
    if (colon == line)
        return 0; /* a comment */
    size_t name_len = colon ? (size_t)(colon - line) : len;
    const char *value = colon ? colon + 1 : line + len;
    size_t value_len = (size_t)(line + len - value);
    if (value_len > 0 && value[0] == ' ') {
        value++;
        value_len--;
    }
    return take_field(c, line, name_len, value, value_len);
}

int sse_client_feed(struct sse_client *c, const char *data, size_t len, sse_event_fn fn, void *arg)
{
    const char *end = data + len;
    while (data < end) {
        if (c->after_cr && *data == '\n')
            data++;
        c->after_cr = false;
        const char *stop = data;
        while (stop < end && *stop != '\n' && *stop != '\r')
            stop++;
        if (stop > data) {
            int r = buf_append(&c->line, data, (size_t)(stop - data));
            if (r < 0)
                return r;
        }
        if (stop == end)
            return 0;
        c->after_cr = *stop == '\r';
        data = stop + 1;
        int r = take_line(c, fn, arg);
        buf_clear(&c->line);
        if (r != 0)
            return r;
    }
    return 0;
}
