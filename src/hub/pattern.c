/* Channel names and patterns. A pattern is run as a set of places in it that the name read so far
 * can have led to, one byte of the name at a time: no backtracking, so that nobody can write a
 * pattern that costs more than its length times the name's. */
#include "pattern.h"

#include "text.h"

#include <fanwire.h>
#include <string.h>

#define RESERVED "$fanwire/"

bool channel_valid(const char *name, size_t len)
{
    if (len < 1 || len > FW_CHANNEL_MAX)
        return false;
    for (size_t i = 0; i < len; i++)
        if ((unsigned char)name[i] < 0x20 || name[i] == 0x7F)
            return false;
    return utf8_valid(name, len);
}

bool channel_reserved(const char *name, size_t len)
{
    return len >= strlen(RESERVED) && memcmp(name, RESERVED, strlen(RESERVED)) == 0;
}

/* Three stars in a row could be read in two ways: refused. */
bool pattern_valid(const char *pattern, size_t len)
{
    return channel_valid(pattern, len) && !memmem(pattern, len, "***", 3);
}

static bool is_separator(char c)
{
    return c == '.' || c == ':' || c == '/';
}

/* places[i]: the name so far has led to before pattern[i]. places[len]: it matches. */
struct places {
    bool at[FW_CHANNEL_MAX + 1];
    size_t count;
};

/* ** may be nothing, so that a place before it is one after it too. */
static void add(struct places *places, const char *pattern, size_t i)
{
    while (!places->at[i]) {
        places->at[i] = true;
        places->count++;
        if (pattern[i] != '*' || pattern[i + 1] != '*')
            break;
        i += 2;
    }
}

/* Where the byte c leads to from the place before pattern[i]. */
static void step(struct places *next, const char *pattern, size_t i, char c)
{
    if (pattern[i] == '\0')
        return;
    if (pattern[i] != '*') {
        if (pattern[i] == c)
            add(next, pattern, i + 1);
        return;
    }
    if (pattern[i + 1] == '*') {
        add(next, pattern, i);
        return;
    }
    if (!is_separator(c)) {
        add(next, pattern, i);
        add(next, pattern, i + 1);
    }
}

bool pattern_match(const char *pattern, const char *name, size_t len)
{
    size_t pattern_len = strlen(pattern);
    if (pattern_len > FW_CHANNEL_MAX || len > FW_CHANNEL_MAX)
        return false;
    if (channel_reserved(name, len) && !channel_reserved(pattern, pattern_len))
        return false;
    size_t literal = 0;
    while (literal < len && pattern[literal] && pattern[literal] != '*' &&
           pattern[literal] == name[literal])
        literal++;
    struct places places = { 0 };
    add(&places, pattern, literal);
    for (size_t n = literal; n < len && places.count; n++) {
        struct places next = { 0 };
        for (size_t i = literal; i < pattern_len; i++)
            if (places.at[i])
                step(&next, pattern, i, name[n]);
        places = next;
    }
    return places.at[pattern_len];
}
