/* Positions as text, and what a position means for one channel of a log. */
#include "position.h"

#include <endian.h>
#include <errno.h>
#include <fanwire.h>
#include <string.h>

/* ---- text ---- */

/* Eight hex digits at once, the first byte in memory being the highest: the iterator writes a
 * position per event, and a loop of divisions would cost it a third of its speed. */
static uint64_t hex8(uint32_t value)
{
    uint64_t x = value;
    x = (x & 0xffff) << 32 | x >> 16;
    x = (x & 0x0000ff000000ff00) >> 8 | (x & 0x000000ff000000ff) << 16;
    x = (x & 0x00f000f000f000f0) >> 4 | (x & 0x000f000f000f000f) << 8;
    uint64_t letters = (x + 0x0606060606060606) >> 4 & 0x0101010101010101;
    return htole64(x + 0x3030303030303030 + letters * ('a' - '0' - 10));
}

/* Writes the digits without leading zeros; may touch 16 bytes of out. Returns their end. */
static char *write_hex(char *out, uint64_t value)
{
    uint64_t digits[4] = { hex8((uint32_t)(value >> 32)), hex8((uint32_t)value), 0, 0 };
    size_t n = (size_t)(67 - __builtin_clzll(value | 1)) / 4;
    memcpy(out, (const char *)digits + 16 - n, 16);
    return out + n;
}

static const char *read_hex(const char *at, const char *end, uint64_t *ret)
{
    const char *start = at;
    uint64_t value = 0;
    for (; at < end && at - start < 16; at++) {
        if (*at >= '0' && *at <= '9')
            value = value << 4 | (uint64_t)(*at - '0');
        else if (*at >= 'a' && *at <= 'f')
            value = value << 4 | (uint64_t)(*at - 'a' + 10);
        else
            break;
    }
    *ret = value;
    return at > start ? at : NULL;
}

/* Reads n numbers with a dot between; false unless that is the whole text. */
static bool read_numbers(const char *at, const char *end, uint64_t *out, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (i > 0 && (at == end || *at++ != '.'))
            return false;
        if (!(at = read_hex(at, end, &out[i])))
            return false;
    }
    return at == end;
}

static bool position_byte(char c)
{
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '.' ||
           c == '_' || c == '~' || c == '-';
}

int position_parse(const char *text, size_t len, struct position *ret)
{
    if (len == 0 || len > FW_POSITION_MAX)
        return -EINVAL;
    for (size_t i = 0; i < len; i++)
        if (!position_byte(text[i]))
            return -EINVAL;
    uint64_t n[3] = { 0 };
    if (text[0] == 'l' && read_numbers(text + 1, text + len, n, 2))
        *ret = (struct position){ .kind = POSITION_LOCAL, .space = n[0], .a = n[1] };
    else if (text[0] == 'p' && read_numbers(text + 1, text + len, n, 3))
        *ret = (struct position){ .kind = POSITION_DURABLE, .space = n[0], .a = n[1], .b = n[2] };
    else
        *ret = (struct position){ .kind = POSITION_FOREIGN };
    return 0;
}

size_t position_write(char *out, const struct log *log, const struct log_record *record,
                      uint64_t off)
{
    uint64_t identity = record && (record->pos[0] | record->pos[1]) ? log_identity(log) : 0;
    char *at = out;
    if (identity) {
        *at++ = 'p';
        at = write_hex(at, identity);
        *at++ = '.';
        at = write_hex(at, record->pos[0]);
        *at++ = '.';
        at = write_hex(at, record->pos[1]);
    } else {
        *at++ = 'l';
        at = write_hex(at, log_epoch(log));
        *at++ = '.';
        at = write_hex(at, record ? record->next : off);
    }
    *at = '\0';
    return (size_t)(at - out);
}

size_t position_text(char out[POSITION_TEXT_MAX], const struct position *position)
{
    char *at = out;
    if (position->kind != POSITION_FOREIGN) {
        *at++ = position->kind == POSITION_LOCAL ? 'l' : 'p';
        at = write_hex(at, position->space);
        *at++ = '.';
        at = write_hex(at, position->a);
    }
    if (position->kind == POSITION_DURABLE) {
        *at++ = '.';
        at = write_hex(at, position->b);
    }
    *at = '\0';
    return (size_t)(at - out);
}

size_t position_write_place(char *out, const struct log *log, uint64_t off)
{
    struct log_record place = { .next = off };
    if (log_identity(log) == 0 || log_position_before(log, off, place.pos) < 0)
        place.pos[0] = place.pos[1] = 0;
    return position_write(out, log, &place, off);
}

int since_parse(const char *text, size_t len, struct since *ret)
{
    *ret = (struct since){ .kind = SINCE_POSITION };
    if (len == 3 && memcmp(text, "now", 3) == 0)
        ret->kind = SINCE_NOW;
    else if (len == 6 && memcmp(text, "oldest", 6) == 0)
        ret->kind = SINCE_OLDEST;
    else
        return position_parse(text, len, &ret->position);
    return 0;
}

/* ---- resuming ---- */

/* Looked up once for all who ask before the next event: it sweeps a little. */
static const uint64_t *look_up(const struct log *log, struct newest_position *newest)
{
    uint64_t indexed = log_indexed(log);
    if (newest->off != indexed) {
        newest->known = log_position_before(log, indexed, newest->pos) == 0;
        newest->off = indexed;
    }
    return newest->known ? newest->pos : NULL;
}

bool since_is_ahead(const struct log *log, const struct since *since,
                    struct newest_position *newest)
{
    const struct position *p = &since->position;
    uint64_t identity = log_identity(log);
    if (since->kind != SINCE_POSITION || p->kind != POSITION_DURABLE || identity == 0 ||
        p->space != identity)
        return false;
    const uint64_t *pos = look_up(log, newest);
    return pos && (p->a > pos[0] || (p->a == pos[0] && p->b > pos[1]));
}

/* The offset a position stands for in this log. Returns REASON_NONE, or why there is none. */
static enum gap_reason locate(const struct log *log, const struct position *position, uint64_t cut,
                              uint64_t *ret)
{
    uint64_t identity = log_identity(log);
    switch (position->kind) {
    case POSITION_LOCAL:
        if (position->space != log_epoch(log))
            return REASON_NEW_EPOCH;
        *ret = position->a;
        return *ret > cut ? REASON_FOREIGN_POSITION : REASON_NONE;
    case POSITION_DURABLE:
        if (identity == 0 || position->space != identity)
            return REASON_FOREIGN_POSITION;
        switch (log_seek_position(log, (const uint64_t[2]){ position->a, position->b }, ret)) {
        case 0:
            return REASON_NONE;
        case -ESTALE:
            return REASON_EXPIRED;
        default: /* from the future: a gap, never a wait */
            return REASON_FOREIGN_POSITION;
        }
    case POSITION_FOREIGN:
        break;
    }
    return REASON_FOREIGN_POSITION;
}

/* A record boundary from which reading on misses nothing of the channel that is held. The client's
 * number itself never becomes one: it could point into a payload that looks like a record. */
static uint64_t boundary(const struct log *log, const struct log_channel *channel, uint64_t since,
                         uint64_t cut, bool *ret_lost)
{
    uint64_t offsets[LOG_HOPS_MAX], from;
    int n = log_walk(log, channel, since, cut, offsets, LOG_HOPS_MAX);
    *ret_lost = false;
    if (n > 0)
        return offsets[0];
    if (n == 0)
        return cut;
    if (n == -E2BIG && log_seek(log, since, &from) == 0)
        return from < cut ? from : cut;
    *ret_lost = true;
    from = log_tail(log);
    return from < cut ? from : cut;
}

struct resume resume_channel(const struct log *log, const struct log_channel *channel,
                             const struct since *since, uint64_t covered_from, uint64_t cut)
{
    uint64_t tail = log_tail(log), off = 0;
    struct resume resume = { .from = tail < cut ? tail : cut, .before = cut };
    if (since->kind == SINCE_OLDEST)
        return resume;
    if (since->kind == SINCE_NOW) {
        resume.from = cut;
        return resume;
    }
    resume.reason = locate(log, &since->position, cut, &off);
    if (resume.reason != REASON_NONE)
        return resume;
    if (off > cut) { /* a durable position of an event that came after the cut was made */
        resume.from = off;
        return resume;
    }
    bool lost;
    resume.from = boundary(log, channel, off, cut, &lost);
    if (off < covered_from)
        resume.reason = REASON_NOT_COVERED;
    else if (lost)
        resume.reason = REASON_EXPIRED;
    if (resume.reason != REASON_NONE)
        resume.after = off;
    return resume;
}
