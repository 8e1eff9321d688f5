/* What a client says of an item: a JSON object, checked. */
#include "draft.h"

#include <errno.h>
#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#define CREATED_MAX 8640000000000000 /* the latest time that JavaScript knows */

struct complaint {
    char *text;
    size_t size;
};

__attribute__((format(printf, 2, 3))) static int refuse(const struct complaint *why,
                                                        const char *format, ...)
{
    va_list args;
    va_start(args, format);
    (void)vsnprintf(why->text, why->size, format, args);
    va_end(args);
    return -EINVAL;
}

bool id_is_valid(const char *id)
{
    size_t len = strspn(id, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-");
    return len > 0 && len <= ID_MAX && id[len] == '\0';
}

struct draft draft_make(const char *id)
{
    struct draft draft = { .completed = -1, .created = -1 };
    (void)snprintf(draft.id, sizeof(draft.id), "%s", id);
    return draft;
}

int draft_make_id(struct draft *draft)
{
    uint8_t bytes[16];
    if (getrandom(bytes, sizeof(bytes), 0) != (ssize_t)sizeof(bytes))
        return -EIO;
    for (size_t i = 0; i < sizeof(bytes); i++)
        (void)snprintf(draft->id + 2 * i, 3, "%02x", bytes[i]);
    return 0;
}

/* ---- titles: UTF-8 that jansson has found valid ---- */

/* The bytes of the white space that `text` begins with, 0 if it begins with something else:
 * Unicode's White_Space, and U+FEFF, which JavaScript's trim() takes away, too. */
static size_t space_at(const char *text)
{
    static const char *const wide[] = { "\xc2\x85", "\u00a0", "\u1680", "\u2000", "\u2001",
                                        "\u2002",   "\u2003", "\u2004", "\u2005", "\u2006",
                                        "\u2007",   "\u2008", "\u2009", "\u200a", "\u2028",
                                        "\u2029",   "\u202f", "\u205f", "\u3000", "\ufeff" };
    if (*text == ' ' || (*text >= '\t' && *text <= '\r'))
        return 1;
    for (size_t i = 0; i < sizeof(wide) / sizeof(wide[0]); i++) {
        size_t len = strlen(wide[i]);
        if (strncmp(text, wide[i], len) == 0)
            return len;
    }
    return 0;
}

/* The bytes of the character at `at`. */
static size_t character_at(const char *at)
{
    size_t len = 1;
    while (((unsigned char)at[len] & 0xc0) == 0x80)
        len++;
    return len;
}

/* Counts the characters of the title without the white space around it, which it skips. */
static size_t trim(const char **text, size_t *ret_len)
{
    size_t n = 0, n_trimmed = 0;
    *ret_len = 0;
    for (size_t space; (space = space_at(*text)) > 0;)
        *text += space;
    for (const char *at = *text; *at;) {
        bool space = space_at(at) > 0;
        at += character_at(at);
        n++;
        if (!space) {
            n_trimmed = n;
            *ret_len = (size_t)(at - *text);
        }
    }
    return n_trimmed;
}

static int read_title(struct draft *draft, const char *text, const struct complaint *why)
{
    size_t len, n = trim(&text, &len);
    if (n == 0)
        return refuse(why, "A title needs at least one character that is not white space.");
    if (n > TITLE_MAX)
        return refuse(why, "The title has %zu characters; at most %d fit.", n, TITLE_MAX);
    draft->title = strndup(text, len);
    return draft->title ? 0 : -ENOMEM;
}

/* ---- members ---- */

static int read_id(struct draft *draft, const char *text, const struct complaint *why)
{
    if (!id_is_valid(text))
        return refuse(why, "An id is 1 to %d of the characters A-Z, a-z, 0-9, _ and -.", ID_MAX);
    (void)snprintf(draft->id, sizeof(draft->id), "%s", text);
    return 0;
}

static int read_created(struct draft *draft, json_int_t ms, const struct complaint *why)
{
    if (ms < 0 || ms > CREATED_MAX)
        return refuse(why, "\"created\" is a time in milliseconds since 1970.");
    draft->created = ms;
    return 0;
}

static int read_ids(struct draft *draft, const json_t *array, const struct complaint *why)
{
    size_t i;
    json_t *id;
    if (json_array_size(array) > IDS_MAX)
        return refuse(why, "At most %d \"ids\" can be said at once.", IDS_MAX);
    json_array_foreach(array, i, id)
    {
        if (!json_is_string(id) || !id_is_valid(json_string_value(id)))
            return refuse(why,
                          "\"ids\" are texts of 1 to %d of the characters A-Z, a-z, 0-9, _ and -.",
                          ID_MAX);
    }
    draft->ids = json_dumps(array, JSON_COMPACT);
    return draft->ids ? 0 : -ENOMEM;
}

static int read_member(struct draft *draft, unsigned member, const json_t *value,
                       const struct complaint *why)
{
    switch (member) {
    case DRAFT_ID:
        return json_is_string(value) ? read_id(draft, json_string_value(value), why)
                                     : refuse(why, "\"id\" is a text.");
    case DRAFT_TITLE:
        return json_is_string(value) ? read_title(draft, json_string_value(value), why)
                                     : refuse(why, "\"title\" is a text.");
    case DRAFT_COMPLETED:
        draft->completed = json_is_true(value);
        return json_is_boolean(value) ? 0 : refuse(why, "\"completed\" is true or false.");
    case DRAFT_IDS:
        return json_is_array(value) ? read_ids(draft, value, why)
                                    : refuse(why, "\"ids\" is an array of texts.");
    default:
        return json_is_integer(value) ? read_created(draft, json_integer_value(value), why)
                                      : refuse(why, "\"created\" is a whole number.");
    }
}

/* Returns DRAFT_… or 0. */
static unsigned member_of(const char *name)
{
    static const char *const names[] = { "id", "title", "completed", "created", "ids" };
    for (unsigned i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if (strcmp(name, names[i]) == 0)
            return 1u << i;
    }
    return 0;
}

static int read_members(struct draft *draft, json_t *object, unsigned allowed, unsigned needed,
                        const struct complaint *why)
{
    const char *name;
    json_t *value;
    if (!json_is_object(object))
        return refuse(why, "The body is JSON, but not an object like {\"title\": \"tea\"}.");
    json_object_foreach(object, name, value)
    {
        unsigned member = member_of(name);
        if (!(member & allowed)) /* cut between characters, or it would not be UTF-8 any more */
            return refuse(why, "\"%s\" cannot be said here.", strlen(name) <= 40 ? name : "…");
        int r = read_member(draft, member, value, why);
        if (r < 0)
            return r;
        needed &= ~member;
    }
    if (needed & DRAFT_TITLE)
        return refuse(why, "A \"title\" is missing.");
    if (needed & DRAFT_IDS)
        return refuse(why, "\"ids\" is missing: which?");
    return needed == 0 ? 0 : refuse(why, "\"completed\" is missing: true or false?");
}

int draft_read(struct draft *ret, const void *body, size_t len, unsigned allowed, unsigned needed,
               char *why, size_t size)
{
    *ret = draft_make("");
    const struct complaint complaint = { why, size };
    json_error_t error;
    json_t *object = json_loadb(body, len, JSON_REJECT_DUPLICATES, &error);
    if (!object)
        return refuse(&complaint, "The body is not JSON (line %d, column %d).", error.line,
                      error.column);
    int r = read_members(ret, object, allowed, needed, &complaint);
    json_decref(object);
    return r;
}

void draft_done(struct draft *draft)
{
    free(draft->title);
    free(draft->ids);
    draft->title = draft->ids = NULL;
}
