/* A log's channel hash made repeatable: its random secret replaced by one of the seed. */
#ifndef TESTS_LOG_SECRET_H
#define TESTS_LOG_SECRET_H

#include "layout.h"
#include "seed.h"

/* Only on a log that is empty and not yet shared. */
static inline void secret_set(struct log *log, uint64_t seed)
{
    for (int i = 0; i < 2; i++)
        log->header->secret[i] = log->secret[i] = mix(seed + (uint64_t)i);
}

#endif
