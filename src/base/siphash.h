/* SipHash-2-4 (Aumasson, Bernstein 2012): a keyed hash that an attacker cannot collide. */
#ifndef BASE_SIPHASH_H
#define BASE_SIPHASH_H

#include <stddef.h>
#include <stdint.h>

uint64_t siphash(const uint64_t key[2], const void *data, size_t len);

#endif
