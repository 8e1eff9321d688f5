/* A hashed timer wheel. A timer lives in the slot of its tick modulo the slots; when a tick comes,
 * those of its slot that are due move to one list, so that a slot is walked once per tick however
 * many of its timers wait for a later round. Ticks are compared by difference and may wrap. */
#include "wheel.h"

#include <stddef.h>

static uint32_t tick_at(int64_t ms)
{
    return (uint32_t)((uint64_t)ms / WHEEL_TICK_MS);
}

static bool is_after(uint32_t tick, uint32_t other)
{
    return (int32_t)(tick - other) > 0;
}

void wheel_init(struct wheel *w, int64_t now_ms)
{
    for (size_t i = 0; i < WHEEL_SLOTS; i++)
        list_init(&w->slots[i]);
    list_init(&w->expired);
    w->tick = tick_at(now_ms);
}

void wheel_set(struct wheel *w, struct wheel_timer *t, int64_t now_ms, uint32_t timeout_ms)
{
    uint32_t due = tick_at(now_ms + timeout_ms + WHEEL_TICK_MS - 1);
    if (!is_after(due, w->tick))
        due = w->tick + 1;
    list_remove(&t->node);
    t->due_tick = due;
    list_push(&w->slots[due % WHEEL_SLOTS], &t->node);
}

void wheel_clear(struct wheel_timer *t)
{
    list_remove(&t->node);
}

static void collect_slot(struct wheel *w, struct list *slot, uint32_t tick)
{
    for (struct list *node = slot->next, *next; node != slot; node = next) {
        next = node->next;
        if (is_after(list_entry(node, struct wheel_timer, node)->due_tick, tick))
            continue;
        list_remove(node);
        list_push(&w->expired, node);
    }
}

/* After a pause longer than a round each slot is still visited once only. */
static void advance(struct wheel *w, uint32_t tick)
{
    uint32_t n = tick - w->tick;
    if (n > WHEEL_SLOTS)
        n = WHEEL_SLOTS;
    for (uint32_t i = 1; i <= n; i++)
        collect_slot(w, &w->slots[(w->tick + i) % WHEEL_SLOTS], tick);
    w->tick = tick;
}

struct wheel_timer *wheel_expire(struct wheel *w, int64_t now_ms)
{
    uint32_t tick = tick_at(now_ms);
    if (list_empty(&w->expired) && is_after(tick, w->tick))
        advance(w, tick);
    struct list *node = list_pop(&w->expired);
    return node ? list_entry(node, struct wheel_timer, node) : NULL;
}

int wheel_next_ms(const struct wheel *w, int64_t now_ms)
{
    if (!list_empty(&w->expired))
        return 0;
    for (uint32_t i = 1; i <= WHEEL_SLOTS; i++) {
        if (list_empty(&w->slots[(w->tick + i) % WHEEL_SLOTS]))
            continue;
        int32_t ticks = (int32_t)(w->tick + i - tick_at(now_ms));
        int64_t ms = (int64_t)ticks * WHEEL_TICK_MS - now_ms % WHEEL_TICK_MS;
        return ms > 0 ? (int)ms : 0;
    }
    return -1;
}
