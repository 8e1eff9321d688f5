/* The keys of the events that the log holds. */
#include "keys.h"

#include "clock.h"
#include "control.h"
#include "meta.h"

#include <stdlib.h>
#include <string.h>

#define BEAT_EVERY 65536 /* records: a recovery that takes long is no hang */

struct entry {
    struct list node;
    uint64_t hash, off;
};

struct question {
    struct keys *keys;
    const struct key_name *name;
    struct log_record *record;
};

static uint64_t hash_of(const struct keys *keys, const struct key_name *name)
{
    return log_hash(keys->log, name->key, strlen(name->key)) ^
           log_hash(keys->log, name->channel, name->channel_len) * 0x9e3779b97f4a7c15;
}

/* 1, or 0 when the record has left the log or there is no memory to look at it. */
static int read_body(struct keys *keys, struct log_record *record)
{
    size_t size = log_body_size(record);
    if (size > keys->body_cap) {
        free(keys->body);
        keys->body = malloc(size);
        keys->body_cap = keys->body ? size : 0;
    }
    return keys->body ? log_body(keys->log, record, keys->body) : 0;
}

static bool is_asked(const void *value, const void *key, size_t len)
{
    const struct entry *entry = value;
    const struct question *q = key;
    struct log_record *record = q->record;
    return entry->off >= log_tail(q->keys->log) && log_peek(q->keys->log, entry->off, record) &&
           record->channel_len == q->name->channel_len && read_body(q->keys, record) &&
           memcmp(record->channel, q->name->channel, record->channel_len) == 0 &&
           strcmp(meta_key(record), q->name->key) == 0;
}

static void forget(struct keys *keys, struct entry *entry)
{
    (void)map_remove(&keys->by_hash, entry->hash, entry);
    list_remove(&entry->node);
    free(entry);
}

void keys_init(struct keys *keys, struct log *log)
{
    *keys = (struct keys){ .log = log };
    list_init(&keys->all);
}

void keys_done(struct keys *keys)
{
    keys_clear(keys);
    free(keys->body);
}

bool keys_find(struct keys *keys, const struct key_name *name, struct log_record *ret)
{
    const struct question question = { keys, name, ret };
    return map_get(&keys->by_hash, hash_of(keys, name), is_asked, &question, sizeof(question));
}

void keys_add(struct keys *keys, const struct key_name *name, uint64_t off)
{
    struct entry *entry = malloc(sizeof(*entry));
    if (!entry)
        return;
    *entry = (struct entry){ .hash = hash_of(keys, name), .off = off };
    if (map_put(&keys->by_hash, entry->hash, entry) < 0)
        free(entry);
    else
        list_push(&keys->all, &entry->node);
}

void keys_expire(struct keys *keys)
{
    uint64_t tail = list_empty(&keys->all) ? 0 : log_tail(keys->log);
    while (!list_empty(&keys->all)) {
        struct entry *oldest = list_entry(keys->all.next, struct entry, node);
        if (oldest->off >= tail)
            return;
        forget(keys, oldest);
    }
}

void keys_clear(struct keys *keys)
{
    for (struct list *node; (node = list_pop(&keys->all));)
        free(list_entry(node, struct entry, node));
    map_done(&keys->by_hash);
}

/* Where fw_host_begin() has begun a stream anew. */
static bool begins(const struct log_record *record)
{
    uint64_t after;
    enum gap_reason reason;
    if (record->kind == RECORD_LIVE)
        return record->history;
    return record->kind == RECORD_GAP &&
           control_decode(record->data, record->len, &after, &reason) == 0 &&
           reason == REASON_NEW_EPOCH;
}

static void recover_record(struct keys *keys, struct log_record *record)
{
    bool keyed = record->kind == RECORD_MESSAGE && record->meta_len > 0;
    bool control = record->channel_len == 0 && record->kind != RECORD_PAD;
    if ((!keyed && !control) || !read_body(keys, record))
        return;
    if (control && begins(record))
        keys_clear(keys);
    const struct key_name name = { record->channel, meta_key(record), record->channel_len };
    if (keyed && *name.key)
        keys_add(keys, &name, record->off);
}

void keys_recover(struct keys *keys)
{
    struct log_record record;
    uint64_t end = log_indexed(keys->log), n = 0;
    for (uint64_t at = log_tail(keys->log); at < end; at = record.next) {
        if (log_peek(keys->log, at, &record) == 0)
            return; /* not of a log that was recovered */
        recover_record(keys, &record);
        if (++n % BEAT_EVERY == 0)
            log_set_beat(keys->log, clock_monotonic_ms());
    }
}
