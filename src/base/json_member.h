/* The raw text of one member of a JSON object, or of one after the other: what a client sent is
 * passed on as it was sent. */
#ifndef BASE_JSON_MEMBER_H
#define BASE_JSON_MEMBER_H

#include <stdbool.h>
#include <stddef.h>

/* `json` is a valid JSON object (json_valid(), or any parser). Finds the value of the member `key`
 * (written without escapes) at its top level. False: there is none. *ret borrows from json. */
bool json_member(const char *json, size_t len, const char *key, const char **ret, size_t *ret_len);

struct json_text {
    const char *data;
    size_t len;
};

/* Walks the members of a valid JSON object, or the elements of a valid array; borrows from it. */
struct json_walk {
    const char *at, *end;
};

/* False when it is neither an object nor an array. */
bool json_walk_begin(struct json_walk *walk, struct json_text json);
bool json_walk_element(struct json_walk *walk, struct json_text *value);
/* The name as it is written, between its quotes. */
bool json_walk_member(struct json_walk *walk, struct json_text *name, struct json_text *value);

#endif
