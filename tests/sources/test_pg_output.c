/* pgoutput's messages: each kind, each cut off at every byte, and with something too much. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "pg_output.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* A literal with its NULs, without the last one. */
#define BYTES(text) (text), sizeof(text) - 1

static const char begin[] = "B\0\0\0\1\0\0\0\2\0\2\x85\x51\x5c\xcf\x80\0\0\0\x1c\xf5";
static const char commit[] = "C\0\0\0\0\1\0\0\0\2\0\0\0\1\0\0\0\x30\0\0\0\0\0\0\0\0";
static const char relation[] = "R\0\0\x40\1public\0todos\0d\0\2"
                               "\1id\0\0\0\0\x17\xff\xff\xff\xff"
                               "\0title\0\0\0\0\x19\xff\xff\xff\xff";
static const char insert[] = "I\0\0\x40\1N\0\3t\0\0\0\1"
                             "7nu";
static const char update[] = "U\0\0\x40\1O\0\1t\0\0\0\1"
                             "7N\0\1t\0\0\0\1"
                             "8";
static const char delete[] = "D\0\0\x40\1K\0\2t\0\0\0\1"
                             "7n";
static const char truncate[] = "T\0\0\0\2\0\0\0\x40\1\0\0\x40\2";
static const char message[] = "M\1\0\0\0\0\0\0\0\x10"
                              "fanwire\0\0\0\0\3a\0b";
static const char type[] = "Y\0\0\x40\3\0int4\0";
static const char origin[] = "O\0\0\0\0\0\0\0\1name\0";

static struct pg_output parse(const char *data, size_t len)
{
    struct pg_output m;
    assert_int_equal(pg_output_parse(data, len, &m), 0);
    return m;
}

static void begin_and_commit_carry_the_transaction(void **state)
{
    struct pg_output m = parse(BYTES(begin));
    assert_int_equal(m.kind, PG_BEGIN);
    assert_int_equal(m.lsn, 0x100000002);
    assert_int_equal(m.xid, 0x1cf5);
    assert_int_equal(m.time_ms, 1656219249369);
    m = parse(BYTES(commit));
    assert_int_equal(m.kind, PG_COMMIT);
    assert_int_equal(m.lsn, 0x100000002);
    assert_int_equal(m.end_lsn, 0x100000030);
    assert_int_equal(m.time_ms, 946684800000);
}

static void a_relation_has_columns(void **state)
{
    struct pg_output m = parse(BYTES(relation));
    struct pg_column column;
    assert_int_equal(m.oid, 0x4001);
    assert_string_equal(m.name_space, "public");
    assert_string_equal(m.name, "todos");
    assert_true(pg_column_next(&m.columns, &column));
    assert_string_equal(column.name, "id");
    assert_int_equal(column.type, 23);
    assert_true(column.identity);
    assert_true(pg_column_next(&m.columns, &column));
    assert_string_equal(column.name, "title");
    assert_false(column.identity);
    assert_false(pg_column_next(&m.columns, &column));
}

static void next_value(struct pg_tuple *tuple, char kind, const char *text)
{
    struct pg_value value;
    assert_true(pg_tuple_next(tuple, &value));
    assert_int_equal(value.kind, kind);
    assert_int_equal(value.len, strlen(text));
    assert_memory_equal(value.text, text, value.len);
}

static void changes_have_rows(void **state)
{
    struct pg_value value;
    struct pg_output m = parse(BYTES(insert));
    assert_int_equal(m.old_kind, 0);
    next_value(&m.row, 't', "7");
    next_value(&m.row, 'n', "");
    next_value(&m.row, 'u', "");
    assert_false(pg_tuple_next(&m.row, &value));
    m = parse(BYTES(update));
    assert_int_equal(m.old_kind, 'O');
    next_value(&m.old_row, 't', "7");
    next_value(&m.row, 't', "8");
    m = parse(BYTES(delete));
    assert_int_equal(m.old_kind, 'K');
    assert_int_equal(m.old_row.n, 2);
    assert_int_equal(m.row.n, 0);
}

static void a_truncate_lists_tables(void **state)
{
    struct pg_output m = parse(BYTES(truncate));
    uint32_t oid;
    assert_true(pg_oid_next(&m.tables, &oid));
    assert_int_equal(oid, 0x4001);
    assert_true(pg_oid_next(&m.tables, &oid));
    assert_int_equal(oid, 0x4002);
    assert_false(pg_oid_next(&m.tables, &oid));
}

static void a_message_has_any_bytes(void **state)
{
    struct pg_output m = parse(BYTES(message));
    assert_true(m.transactional);
    assert_int_equal(m.lsn, 0x10);
    assert_string_equal(m.prefix, "fanwire");
    assert_int_equal(m.content_len, 3);
    assert_memory_equal(m.content, "a\0b", 3);
    m = parse(BYTES(type));
    assert_int_equal(m.oid, 0x4003);
    assert_string_equal(m.name_space, "");
    assert_string_equal(m.name, "int4");
    m = parse(BYTES(origin));
    assert_string_equal(m.name, "name");
}

/* In memory that ends with them, so that the sanitizer sees a read beyond. */
static int parse_copy(const char *data, size_t len)
{
    struct pg_output m;
    char *copy = malloc(len ? len : 1);
    assert_non_null(copy);
    memcpy(copy, data, len);
    int r = pg_output_parse(copy, len, &m);
    free(copy);
    return r;
}

static void what_is_cut_or_too_long_is_refused(void **state)
{
    static const struct {
        const char *data;
        size_t len;
    } all[] = {
        { BYTES(begin) },  { BYTES(commit) }, { BYTES(relation) }, { BYTES(insert) },
        { BYTES(update) }, { BYTES(delete) }, { BYTES(truncate) }, { BYTES(message) },
        { BYTES(type) },   { BYTES(origin) },
    };
    char longer[256] = { 0 };
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        for (size_t len = 0; len < all[i].len; len++)
            assert_int_equal(parse_copy(all[i].data, len), -EBADMSG);
        assert_int_equal(parse_copy(all[i].data, all[i].len), 0);
        memcpy(longer, all[i].data, all[i].len);
        assert_int_equal(parse_copy(longer, all[i].len + 1), -EBADMSG);
    }
}

static void what_no_server_sends_is_refused(void **state)
{
    assert_int_equal(parse_copy(BYTES("S\0\0\0\1\1")), -EBADMSG); /* streaming: not asked for */
    assert_int_equal(parse_copy(BYTES("I\0\0\x40\1N\0\1b\0\0\0\1x")), -EBADMSG); /* binary */
    assert_int_equal(parse_copy(BYTES("I\0\0\x40\1K\0\1n")), -EBADMSG);
    assert_int_equal(parse_copy(BYTES("I\0\0\x40\1N\0\1t\xff\xff\xff\xffx")), -EBADMSG);
    assert_int_equal(parse_copy(BYTES("I\0\0\x40\1N\xff\xffn")), -EBADMSG);
    assert_int_equal(parse_copy(BYTES("T\xff\xff\xff\xff\0")), -EBADMSG);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(begin_and_commit_carry_the_transaction),
        cmocka_unit_test(a_relation_has_columns),
        cmocka_unit_test(changes_have_rows),
        cmocka_unit_test(a_truncate_lists_tables),
        cmocka_unit_test(a_message_has_any_bytes),
        cmocka_unit_test(what_is_cut_or_too_long_is_refused),
        cmocka_unit_test(what_no_server_sends_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
