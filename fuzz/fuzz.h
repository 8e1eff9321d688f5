/* What a fuzz target offers; libFuzzer or replay.c calls it. */
#ifndef FUZZ_FUZZ_H
#define FUZZ_FUZZ_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* assert() that no build type leaves out. */
#define require(condition)                                                                         \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            (void)fprintf(stderr, "%s:%d: not true: %s\n", __FILE__, __LINE__, #condition);        \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

/* A copy that ends where its memory ends, so that the sanitizer sees reads beyond. */
static inline void *copy_of(const void *data, size_t size, size_t extra)
{
    char *copy = malloc(size + extra + (size + extra == 0));
    require(copy);
    for (size_t i = 0; i < size; i++)
        copy[i] = ((const char *)data)[i];
    return copy;
}

#endif
