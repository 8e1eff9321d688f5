/* SipHash-2-4 against the official vectors (Aumasson, Bernstein: key 00…0f, messages "", 00, 00 01,
 * …), read as little-endian numbers. */
#include "siphash.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static const uint64_t key[2] = { 0x0706050403020100, 0x0f0e0d0c0b0a0908 };

static const uint64_t vectors[64] = {
    0x726fdb47dd0e0e31, 0x74f839c593dc67fd, 0x0d6c8009d9a94f5a, 0x85676696d7fb7e2d,
    0xcf2794e0277187b7, 0x18765564cd99a68d, 0xcbc9466e58fee3ce, 0xab0200f58b01d137,
    0x93f5f5799a932462, 0x9e0082df0ba9e4b0, 0x7a5dbbc594ddb9f3, 0xf4b32f46226bada7,
    0x751e8fbc860ee5fb, 0x14ea5627c0843d90, 0xf723ca908e7af2ee, 0xa129ca6149be45e5,
    0x3f2acc7f57c29bdb, 0x699ae9f52cbe4794, 0x4bc1b3f0968dd39c, 0xbb6dc91da77961bd,
    0xbed65cf21aa2ee98, 0xd0f2cbb02e3b67c7, 0x93536795e3a33e88, 0xa80c038ccd5ccec8,
    0xb8ad50c6f649af94, 0xbce192de8a85b8ea, 0x17d835b85bbb15f3, 0x2f2e6163076bcfad,
    0xde4daaaca71dc9a5, 0xa6a2506687956571, 0xad87a3535c49ef28, 0x32d892fad841c342,
    0x7127512f72f27cce, 0xa7f32346f95978e3, 0x12e0b01abb051238, 0x15e034d40fa197ae,
    0x314dffbe0815a3b4, 0x027990f029623981, 0xcadcd4e59ef40c4d, 0x9abfd8766a33735c,
    0x0e3ea96b5304a7d0, 0xad0c42d6fc585992, 0x187306c89bc215a9, 0xd4a60abcf3792b95,
    0xf935451de4f21df2, 0xa9538f0419755787, 0xdb9acddff56ca510, 0xd06c98cd5c0975eb,
    0xe612a3cb9ecba951, 0xc766e62cfcadaf96, 0xee64435a9752fe72, 0xa192d576b245165a,
    0x0a8787bf8ecb74b2, 0x81b3e73d20b49b6f, 0x7fa8220ba3b2ecea, 0x245731c13ca42499,
    0xb78dbfaf3a8d83bd, 0xea1ad565322a1a0b, 0x60e61c23a3795013, 0x6606d7e446282b93,
    0x6ca4ecb15c5f91e1, 0x9f626da15c9625f3, 0xe51b38608ef25f57, 0x958a324ceb064572,
};

static void fill(uint8_t *message, size_t len)
{
    for (size_t i = 0; i < len; i++)
        message[i] = (uint8_t)i;
}

static void official_vectors(void **state)
{
    uint8_t message[64];
    fill(message, sizeof(message));
    for (size_t len = 0; len < 64; len++)
        assert_int_equal(siphash(key, message, len), vectors[len]);
}

/* Names come from the middle of requests: any alignment must give the same hash. */
static void any_alignment(void **state)
{
    uint8_t buffer[64 + 8];
    for (size_t shift = 0; shift < 8; shift++) {
        fill(buffer + shift, 64);
        for (size_t len = 0; len < 64; len++)
            assert_int_equal(siphash(key, buffer + shift, len), vectors[len]);
    }
}

static void empty_needs_no_memory(void **state)
{
    assert_int_equal(siphash(key, NULL, 0), vectors[0]);
}

/* The length is part of the hash: trailing zero bytes are not lost. */
static void zeros_of_different_length_differ(void **state)
{
    const uint8_t zeros[32] = { 0 };
    uint64_t seen[33];
    for (size_t len = 0; len <= 32; len++) {
        seen[len] = siphash(key, zeros, len);
        for (size_t i = 0; i < len; i++)
            assert_int_not_equal(seen[i], seen[len]);
    }
}

static void every_key_bit_matters(void **state)
{
    const uint64_t plain = siphash(key, "todos", 5);
    for (unsigned bit = 0; bit < 128; bit++) {
        uint64_t other[2] = { key[0], key[1] };
        other[bit / 64] ^= UINT64_C(1) << bit % 64;
        assert_int_not_equal(siphash(other, "todos", 5), plain);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(official_vectors),      cmocka_unit_test(any_alignment),
        cmocka_unit_test(empty_needs_no_memory), cmocka_unit_test(zeros_of_different_length_differ),
        cmocka_unit_test(every_key_bit_matters),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
