/* Decides whether a reader holds the source. */
#include "pace.h"

#define STRIDE_MAX     (4u << 20)
#define PATIENT_STRIDE (64u << 10)

static void note_progress(struct pace *pace, uint64_t cursor, uint64_t log_size, int64_t now_ms,
                          bool patient)
{
    uint64_t max = patient ? PATIENT_STRIDE : STRIDE_MAX;
    uint64_t stride = log_size / 16 < max ? log_size / 16 : max;
    if (cursor == pace->cursor)
        return;
    pace->cursor = cursor;
    pace->moved_ms = now_ms;
    if (cursor <
        pace->mark) { /* no progress: the average of a crowd, when its first ones are done */
        pace->mark = cursor;
    } else if (cursor - pace->mark >= stride) {
        pace->mark = cursor;
        pace->held_ms = 0;
    }
}

bool pace_holds(struct pace *pace, uint64_t cursor, uint64_t head, uint64_t log_size,
                int64_t now_ms, int64_t waited_ms, bool patient)
{
    note_progress(pace, cursor, log_size, now_ms, patient);
    /* Who had nothing to read did not stand still. */
    if (cursor <= head && head - cursor <= log_size / 4)
        pace->moved_ms = now_ms;
    /* The cursor is the reader's word: one beyond the head, or lapped already, holds nothing. */
    if (cursor == 0 || cursor > head || head - cursor <= log_size / 4 || head - cursor > log_size) {
        if (cursor <= head && head - cursor <= log_size / 16)
            pace->slow = false;
        return false;
    }
    if (pace->slow || now_ms - pace->moved_ms > (patient ? PACE_PATIENT_MS : PACE_ALIVE_MS))
        return false;
    pace->held_ms += waited_ms;
    if (pace->held_ms > (patient ? PACE_PATIENT_MS : PACE_HELD_MS))
        pace->slow = true;
    return !pace->slow;
}
