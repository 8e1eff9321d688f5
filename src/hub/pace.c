/* Decides whether a reader holds the source. */
#include "pace.h"

#define STRIDE_MAX (4u << 20)

static void note_progress(struct pace *pace, uint64_t cursor, uint64_t log_size, int64_t now_ms)
{
    uint64_t stride = log_size / 16 < STRIDE_MAX ? log_size / 16 : STRIDE_MAX;
    if (cursor == pace->cursor)
        return;
    pace->cursor = cursor;
    pace->moved_ms = now_ms;
    if (cursor < pace->mark || cursor - pace->mark >= stride) {
        pace->mark = cursor;
        pace->held_ms = 0;
    }
}

bool pace_holds(struct pace *pace, uint64_t cursor, uint64_t head, uint64_t log_size,
                int64_t now_ms, int64_t waited_ms)
{
    note_progress(pace, cursor, log_size, now_ms);
    /* The cursor is the reader's word: one beyond the head, or lapped already, holds nothing. */
    if (cursor == 0 || cursor > head || head - cursor <= log_size / 4 || head - cursor > log_size) {
        if (cursor <= head && head - cursor <= log_size / 16)
            pace->slow = false;
        return false;
    }
    if (pace->slow || now_ms - pace->moved_ms > PACE_ALIVE_MS)
        return false;
    pace->held_ms += waited_ms;
    if (pace->held_ms > PACE_HELD_MS)
        pace->slow = true;
    return !pace->slow;
}
