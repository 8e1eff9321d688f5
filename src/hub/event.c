/* Copies of events that outlive their subscription's next step. */
#include <errno.h>
#include <fanwire.h>
#include <stdlib.h>
#include <string.h>

static size_t text_size(const char *text)
{
    return text ? strlen(text) + 1 : 0;
}

static const char *copy_text(char **at, const char *text)
{
    size_t size = text_size(text);
    char *copy = *at;
    if (!text)
        return NULL;
    memcpy(copy, text, size);
    *at += size;
    return copy;
}

int fw_event_copy(const struct fw_event *ev, struct fw_event **ret_copy)
{
    size_t size = sizeof(*ev) + ev->len + 1 + text_size(ev->channel) + text_size(ev->id) +
                  text_size(ev->after) + text_size(ev->before) + text_size(ev->reason) +
                  text_size(ev->from);
    struct fw_event *copy = malloc(size);
    if (!copy)
        return -ENOMEM;
    char *at = (char *)(copy + 1);
    *copy = *ev;
    copy->data = at;
    if (ev->len > 0)
        memcpy(at, ev->data, ev->len);
    at[ev->len] = '\0';
    at += ev->len + 1;
    copy->channel = copy_text(&at, ev->channel);
    copy->id = copy_text(&at, ev->id);
    copy->after = copy_text(&at, ev->after);
    copy->before = copy_text(&at, ev->before);
    copy->reason = copy_text(&at, ev->reason);
    copy->from = copy_text(&at, ev->from);
    *ret_copy = copy;
    return 0;
}

void fw_event_free(struct fw_event *copy)
{
    free(copy);
}
