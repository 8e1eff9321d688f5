/* Randomness of a test that can be repeated: FANWIRE_SEED=n, and FANWIRE_LONG=1 for the long form.
 */
#ifndef TESTS_LOG_SEED_H
#define TESTS_LOG_SEED_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

/* splitmix64 (Steele, Lea, Flood 2014): good as a generator and as a hash of a counter. */
static inline uint64_t mix(uint64_t x)
{
    x += 0x9e3779b97f4a7c15;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9;
    x = (x ^ x >> 27) * 0x94d049bb133111eb;
    return x ^ x >> 31;
}

static inline uint64_t random_next(uint64_t *state)
{
    return mix((*state)++);
}

static inline uint64_t random_below(uint64_t *state, uint64_t n)
{
    return random_next(state) % n;
}

static inline bool test_long(void)
{
    const char *text = getenv("FANWIRE_LONG");
    return text && strcmp(text, "1") == 0;
}

/* FANWIRE_SEED, else a fixed seed, in the long form a new one each time. Printed, so that a failure
 * can be repeated. */
static inline uint64_t test_seed(void)
{
    const char *text = getenv("FANWIRE_SEED");
    uint64_t seed = 1;
    if (text && *text)
        seed = strtoull(text, NULL, 0);
    else if (test_long() && getrandom(&seed, 4, 0) != 4)
        seed = 2;
    fprintf(stderr, "repeat with FANWIRE_SEED=%llu\n", (unsigned long long)seed);
    return seed;
}

#endif
