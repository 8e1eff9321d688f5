/* What the hub writes beside payloads: control records, and an event's key and sender. */
#include "control.h"
#include "meta.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

static void control_reads_back(void **state)
{
    char buf[CONTROL_MAX];
    for (unsigned reason = 0; reason < N_REASONS; reason++) {
        uint64_t after = 0;
        enum gap_reason back = REASON_HUNG;
        size_t len =
            control_encode(buf, UINT64_C(0x123456789abcdef0) + reason, (enum gap_reason)reason);
        assert_in_range(len, 8, CONTROL_MAX);
        assert_int_equal(control_decode(buf, len, &after, &back), 0);
        assert_true(after == UINT64_C(0x123456789abcdef0) + reason);
        assert_int_equal(back, reason);
    }
}

static void bad_control_is_refused(void **state)
{
    char buf[CONTROL_MAX + 1] = { 0 };
    uint64_t after = 1;
    enum gap_reason reason = REASON_HUNG;
    for (size_t len = 0; len < 8; len++)
        assert_int_equal(control_decode(buf, len, &after, &reason), -EINVAL);
    assert_int_equal(control_decode(buf, sizeof(buf), &after, &reason), -EINVAL);
    assert_int_equal(after, 0);
    assert_int_equal(reason, REASON_NONE);
    memcpy(buf + 8, "nonsense", 8);
    assert_int_equal(control_decode(buf, 16, &after, &reason), 0);
    assert_int_equal(reason, REASON_CONNECTION_LOST); /* a reason of another version */
}

static struct log_record record_with(const char *meta, size_t len)
{
    return (struct log_record){ .meta = meta, .meta_len = (uint16_t)len };
}

static void assert_meta(const char *key, const char *from, const char *key_back,
                        const char *from_back)
{
    char buf[META_MAX + 1];
    size_t len = meta_encode(buf, key, from);
    assert_in_range(len, 0, META_MAX);
    buf[len] = '\0'; /* as the log does */
    struct log_record record = record_with(buf, len);
    assert_string_equal(meta_key(&record), key_back);
    assert_string_equal(meta_from(&record), from_back);
}

static void meta_reads_back(void **state)
{
    assert_meta(NULL, NULL, "", "");
    assert_meta("", "", "", "");
    assert_meta("k", NULL, "k", "");
    assert_meta(NULL, "f", "", "f");
    assert_meta("key", "from", "key", "from");
}

static void meta_leaves_out_what_is_too_long(void **state)
{
    char key[META_KEY_MAX + 2], from[META_FROM_MAX + 2];
    memset(key, 'k', sizeof(key));
    memset(from, 'f', sizeof(from));
    key[META_KEY_MAX + 1] = from[META_FROM_MAX + 1] = '\0';
    assert_false(meta_fits(key, NULL));
    assert_false(meta_fits(NULL, from));
    assert_meta(key, "f", "", "f");
    assert_meta("k", from, "k", "");
    key[META_KEY_MAX] = from[META_FROM_MAX] = '\0';
    assert_true(meta_fits(key, from));
    assert_meta(key, from, key, from);
}

static void meta_without_a_nul_has_no_sender(void **state)
{
    struct log_record record = record_with("garbage", 7);
    assert_string_equal(meta_key(&record), "garbage");
    assert_string_equal(meta_from(&record), "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(control_reads_back),
        cmocka_unit_test(bad_control_is_refused),
        cmocka_unit_test(meta_reads_back),
        cmocka_unit_test(meta_leaves_out_what_is_too_long),
        cmocka_unit_test(meta_without_a_nul_has_no_sender),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
