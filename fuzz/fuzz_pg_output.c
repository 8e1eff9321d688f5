/* pgoutput: any messages, one after the other (each behind its length in two bytes), into rows.
 * What comes out is JSON in a channel of the right size. */
#include "fuzz.h"
#include "json.h"
#include "pg_row.h"

#define EVENT_MAX 4096

static void on_event(void *arg, const struct pg_row_event *event)
{
    require(event->channel_len >= 1 && event->channel_len <= 255);
    require(event->data ? event->len <= EVENT_MAX : event->len == EVENT_MAX + 1);
    require(!event->data || json_valid(event->data, event->len, NULL));
    require(event->sub < 1u << PG_ROW_SUB_BITS);
}

static void on_refused(void *arg, const char *why)
{
    require(why);
}

static void take(struct pg_rows *rows, const uint8_t *data, size_t size)
{
    const struct pg_row_sink sink = { on_event, on_refused, NULL };
    struct pg_output message;
    void *copy = copy_of(data, size, 0);
    if (pg_output_parse(copy, size, &message) == 0)
        (void)pg_rows_take(rows, &message, 7, &sink);
    free(copy);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const struct pg_watch_row all = {
        .id = "1", .relation = "100", .channel = "all", .keys = "{id}"
    };
    const struct pg_watch_row some = {
        .id = "2", .relation = "100", .channel = "some:{id}:{a}", .columns = "{a}", .ended = "x"
    };
    struct pg_rows *rows = pg_rows_new(EVENT_MAX);
    require(rows);
    require(pg_rows_watch(rows, &all) == 0 && pg_rows_watch(rows, &some) == 0);
    while (size >= 2) {
        size_t len = (size_t)(data[0] << 8 | data[1]);
        data += 2;
        size -= 2;
        len = len < size ? len : size;
        take(rows, data, len);
        data += len;
        size -= len;
    }
    pg_rows_settle(rows);
    pg_rows_free(rows);
    return 0;
}
