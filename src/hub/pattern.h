/* Channel names and patterns: literal text; * = one or more characters without . : /; ** = anything
 * (also nothing). Patterns never match names below $fanwire/ unless that prefix is literal. */
#ifndef HUB_PATTERN_H
#define HUB_PATTERN_H

#include <stdbool.h>
#include <stddef.h>

/* 1–255 bytes of UTF-8 without C0 and DEL. (C1 controls are allowed.) */
bool channel_valid(const char *name, size_t len);
bool channel_reserved(const char *name, size_t len); /* below "$fanwire/" */
bool pattern_valid(const char *pattern, size_t len);
/* Linear time in len(pattern) * len(name) at worst; no recursion. */
bool pattern_match(const char *pattern, const char *name, size_t len);

#endif
