/* Packed events of a batch: what is packed comes out again, anything else is no batch. */
#include "batch.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const struct batch_event samples[] = {
    { .channel = "a", .key = "k", .data = "x\0y", .channel_len = 1, .key_len = 1, .len = 3 },
    { .channel = "other", .channel_len = 5 },
    { .channel = "a", .data = "{}", .channel_len = 1, .len = 2 },
};

static struct buf packed(size_t max)
{
    struct buf b = buf_make(max);
    for (size_t i = 0; i < 3; i++)
        assert_int_equal(batch_append(&b, &samples[i]), 0);
    return b;
}

static void events_come_out_as_they_went_in(void **state)
{
    struct buf b = packed(1000);
    const char *at = (const char *)b.data;
    size_t left = b.len;
    struct batch_event event;
    assert_true(batch_valid(at, left, 3));
    for (size_t i = 0; i < 3; i++) {
        assert_true(batch_next(&at, &left, &event));
        assert_string_equal(event.channel, samples[i].channel);
        assert_string_equal(event.key, samples[i].key ? samples[i].key : "");
        assert_int_equal(event.len, samples[i].len);
        if (event.len)
            assert_memory_equal(event.data, samples[i].data, event.len);
        assert_int_equal(event.data[event.len], '\0');
    }
    assert_false(batch_next(&at, &left, &event));
    buf_done(&b);
}

static void any_other_number_of_them_is_refused(void **state)
{
    struct buf b = packed(1000);
    assert_false(batch_valid((const char *)b.data, b.len, 2));
    assert_false(batch_valid((const char *)b.data, b.len, 4));
    assert_true(batch_valid((const char *)b.data, 0, 0));
    buf_done(&b);
}

/* In a copy exactly as long, so that a sanitizer sees any step beyond. */
static void cut_and_changed_bytes_never_lead_outside(void **state)
{
    struct buf b = packed(1000);
    for (size_t cut = 0; cut < b.len; cut++) {
        char *part = malloc(cut ? cut : 1);
        memcpy(part, b.data, cut);
        assert_false(batch_valid(part, cut, 3));
        free(part);
    }
    char *whole = malloc(b.len);
    for (size_t i = 0; i < b.len; i++)
        for (unsigned value = 0; value < 256; value += 3) {
            memcpy(whole, b.data, b.len);
            whole[i] = (char)value;
            (void)batch_valid(whole, b.len, 3);
        }
    free(whole);
    buf_done(&b);
}

static void what_does_not_fit_is_left_out_whole(void **state)
{
    struct buf b = buf_make(2 * (8 + 1 + 1 + 3 + 3));
    assert_int_equal(batch_append(&b, &samples[0]), 0);
    assert_int_equal(batch_append(&b, &samples[1]), 0);
    size_t len = b.len;
    assert_int_equal(batch_append(&b, &samples[0]), -EMSGSIZE);
    assert_int_equal(b.len, len);
    const struct batch_event endless = { .channel = "a", .channel_len = UINT16_MAX + 1 };
    assert_int_equal(batch_append(&b, &endless), -EMSGSIZE);
    buf_done(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(events_come_out_as_they_went_in),
        cmocka_unit_test(any_other_number_of_them_is_refused),
        cmocka_unit_test(cut_and_changed_bytes_never_lead_outside),
        cmocka_unit_test(what_does_not_fit_is_left_out_whole),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
