/* The raw text of one member of a JSON object: what a client sent is passed on as it was sent. */
#ifndef BASE_JSON_MEMBER_H
#define BASE_JSON_MEMBER_H

#include <stdbool.h>
#include <stddef.h>

/* `json` is a valid JSON object (json_valid(), or any parser). Finds the value of the member `key`
 * (written without escapes) at its top level. False: there is none. *ret borrows from json. */
bool json_member(const char *json, size_t len, const char *key, const char **ret, size_t *ret_len);

#endif
