/* SipHash-2-4: two rounds per 8-byte word, four at the end. */
#include "siphash.h"

#include <endian.h>
#include <string.h>

static inline uint64_t rotate(uint64_t x, unsigned bits)
{
    return x << bits | x >> (64 - bits);
}

static inline void mix(uint64_t v[4])
{
    v[0] += v[1];
    v[2] += v[3];
    v[1] = rotate(v[1], 13) ^ v[0];
    v[3] = rotate(v[3], 16) ^ v[2];
    v[0] = rotate(v[0], 32);
    v[2] += v[1];
    v[0] += v[3];
    v[1] = rotate(v[1], 17) ^ v[2];
    v[3] = rotate(v[3], 21) ^ v[0];
    v[2] = rotate(v[2], 32);
}

static inline void absorb(uint64_t v[4], uint64_t word)
{
    v[3] ^= word;
    mix(v);
    mix(v);
    v[0] ^= word;
}

static inline uint64_t load_word(const uint8_t *bytes)
{
    uint64_t word;
    memcpy(&word, bytes, sizeof(word));
    return le64toh(word);
}

/* The last 0–7 bytes, little-endian, with the length in the top byte. Not a memcpy of a variable
 * length: this is on the path of every append. */
static inline uint64_t last_word(const uint8_t *bytes, size_t len)
{
    const size_t at = len & ~(size_t)7;
    uint64_t word = (uint64_t)len << 56;
    switch (len & 7) {
    case 7:
        word |= (uint64_t)bytes[at + 6] << 48;
        __attribute__((fallthrough));
    case 6:
        word |= (uint64_t)bytes[at + 5] << 40;
        __attribute__((fallthrough));
    case 5:
        word |= (uint64_t)bytes[at + 4] << 32;
        __attribute__((fallthrough));
    case 4:
        word |= (uint64_t)bytes[at + 3] << 24;
        __attribute__((fallthrough));
    case 3:
        word |= (uint64_t)bytes[at + 2] << 16;
        __attribute__((fallthrough));
    case 2:
        word |= (uint64_t)bytes[at + 1] << 8;
        __attribute__((fallthrough));
    case 1:
        word |= bytes[at];
        break;
    default:
        break;
    }
    return word;
}

uint64_t siphash(const uint64_t key[2], const void *data, size_t len)
{
    uint64_t v[4] = { key[0] ^ 0x736f6d6570736575, key[1] ^ 0x646f72616e646f6d,
                      key[0] ^ 0x6c7967656e657261, key[1] ^ 0x7465646279746573 };
    const uint8_t *bytes = data;

    for (size_t at = 0; at + 8 <= len; at += 8)
        absorb(v, load_word(bytes + at));
    absorb(v, last_word(bytes, len));
    v[2] ^= 0xff;
    for (int round = 0; round < 4; round++)
        mix(v);
    return v[0] ^ v[1] ^ v[2] ^ v[3];
}
