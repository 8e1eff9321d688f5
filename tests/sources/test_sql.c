/* fw_sql(): which kinds and modes are known, and that SQLite takes its text as one call. Postgres
 * does in test_pg_sql.c. */
#include <fanwire.h>
#include <setjmp.h>
#include <sqlite3.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static void knows_kinds_and_modes(void **state)
{
    assert_non_null(fw_sql("postgres", NULL));
    assert_ptr_equal(fw_sql("postgres", "notify"), fw_sql("postgres", NULL));
    assert_non_null(fw_sql("postgres", "outbox"));
    assert_non_null(fw_sql("sqlite", NULL));
    assert_null(fw_sql("postgres", "no-such-mode"));
    assert_null(fw_sql("postgres", ""));
    assert_null(fw_sql("sqlite", "notify"));
    assert_null(fw_sql("mysql", NULL));
    assert_null(fw_sql("", NULL));
}

static void sqlite_takes_it_twice(void **state)
{
    sqlite3 *db;
    assert_int_equal(sqlite3_open(":memory:", &db), SQLITE_OK);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(sqlite3_exec(db, fw_sql("sqlite", NULL), NULL, NULL, NULL), SQLITE_OK);
        assert_int_equal(sqlite3_exec(db,
                                      "INSERT INTO fanwire_outbox (channel, payload) "
                                      "VALUES ('todos', '{}')",
                                      NULL, NULL, NULL),
                         SQLITE_OK);
    }
    assert_int_equal(sqlite3_last_insert_rowid(db), 2);
    sqlite3_close(db);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(knows_kinds_and_modes),
        cmocka_unit_test(sqlite_takes_it_twice),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
