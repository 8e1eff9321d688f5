/* Rows that stand before a channel's events, for a subscription that asked for them.
 *
 * They are asked for when the source has confirmed the channel, by one channel of the subscription
 * after the other: so it holds one answer at most, and what was asked for is returned while it is
 * fresh. The answer (inbox.h) is rows, the offsets of those events that the rows do not contain
 * although they stand before offset `until`, and `until`. Who has it is one who resumes from
 * `until`, and before that is returned the rows and those events. */
#include "sub.h"

#include <errno.h>
#include <string.h>

int rows_ask(struct fw_sub *sub)
{
    struct rows *rows = &sub->rows;
    if (rows->channel || list_empty(&sub->rowless))
        return 0;
    struct sub_channel *channel = list_entry(sub->rowless.next, struct sub_channel, queue);
    uint64_t request = sub->last_question + 1;
    int r = reader_snapshot(sub->reader, request, channel->name, channel->len);
    if (r < 0)
        return r;
    list_remove(&channel->queue);
    rows->channel = channel;
    rows->request = sub->last_question = request;
    return 0;
}

void rows_drop(struct fw_sub *sub)
{
    buf_done(&sub->rows.answer);
    sub->rows = (struct rows){ .answer = sub->rows.answer };
}

/* ---- the answer ---- */

/* The source still has the channel. Where the inbox is full it keeps it until the subscription
 * ends: costs listening, never an event. */
static void refuse(struct fw_sub *sub, enum error_code code, const char *message)
{
    struct sub_channel *channel = sub->rows.channel;
    (void)reader_unsubscribe(sub->reader, channel->name, channel->len);
    channel->rows_refused = true;
    sub_refuse(sub, channel, code, message);
}

static bool is_sound(const struct rows *rows)
{
    size_t len = rows->answer.len, rows_len = rows->rows_len;
    return rows_len <= len && (len - rows_len) % sizeof(uint64_t) == 0 &&
           (rows_len == 0 || rows->answer.data[rows_len - 1] == '\0');
}

void rows_take(void *arg, const struct reader_rows *part)
{
    struct fw_sub *sub = arg;
    struct rows *rows = &sub->rows;
    if (!rows->channel || rows->whole || rows->request != part->request)
        return; /* nobody wants it any more */
    if (part->code != CODE_OK) {
        refuse(sub, part->code, part->message);
        return;
    }
    rows->rows_len = part->rows_len;
    rows->until = part->until;
    if (part->len && buf_append(&rows->answer, part->data, part->len) < 0) {
        refuse(sub, CODE_OVERLOADED, "out of memory for them");
        return;
    }
    if (part->more)
        return;
    if (!is_sound(rows)) {
        refuse(sub, CODE_INTERNAL, "they are not whole");
        return;
    }
    rows->whole = true;
    list_push(&sub->answered, &rows->channel->queue);
    sub->attention = true;
}

/* ---- what is returned ---- */

static int row(struct rows *rows, struct fw_event *ev)
{
    const char *text = (const char *)rows->answer.data + rows->at;
    *ev = (struct fw_event){ .kind = FW_SNAPSHOT,
                             .channel = rows->channel->name,
                             .data = text,
                             .len = strlen(text),
                             .id = "",
                             .after = "",
                             .before = "",
                             .reason = "",
                             .from = "" };
    rows->at += ev->len + 1;
    return FW_SNAPSHOT;
}

/* An event that the rows lack: its kind, 0 when the log has overwritten it, or -ENOMEM. */
static int event(struct fw_sub *sub, uint64_t off, struct fw_event *ev)
{
    struct log_record record;
    int r = log_peek(sub->log, off, &record) ? sub_read_body(sub, &record) : 0;
    if (r <= 0)
        return r;
    return record.kind == RECORD_GAP ? sub_gap_record(sub, &record, sub->rows.channel->name, ev)
                                     : sub_message(sub, &record, ev);
}

int rows_next(struct fw_sub *sub, struct fw_event *ev)
{
    struct rows *rows = &sub->rows;
    uint64_t off;
    if (rows->at < rows->rows_len)
        return row(rows, ev);
    if (rows->at == rows->answer.len)
        return 0;
    memcpy(&off, rows->answer.data + rows->at, sizeof(off));
    int r = event(sub, off, ev);
    if (r < 0)
        return r;
    rows->at += sizeof(off);
    if (r > 0)
        return r;
    rows->at = rows->answer.len; /* those after it are at best some */
    return sub_gap(sub, rows->channel->name, 0, rows->until, REASON_LAPPED, ev);
}
