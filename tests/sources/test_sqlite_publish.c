/* Publishing through the SQLite source: rows of its own, stored before they are answered. */
#include "sqlite_fixture.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void publish_bytes(struct sqlite_fixture *f, uint64_t request, const char *channel,
                          const void *data, size_t len)
{
    struct fw_publish publish = { .request = request,
                                  .channel = channel,
                                  .channel_len = strlen(channel),
                                  .data = data,
                                  .len = len };
    source_sqlite.publish(f->source, &publish);
}

static void publish(struct sqlite_fixture *f, uint64_t request, const char *channel,
                    const char *data)
{
    publish_bytes(f, request, channel, data, strlen(data));
}

static const struct fake_answer *expect_answer(struct sqlite_fixture *f, size_t i)
{
    RUN_UNTIL(f->host, f->host->n_answers > i);
    return &f->host->answers[i];
}

static void stores_and_hears_it(void **state)
{
    struct sqlite_fixture *f = *state;
    sqlite_fixture_open(f, "");
    struct fw_publish event = { .request = 7,
                                .channel = "Some 'channel'",
                                .channel_len = 14,
                                .key = "k1",
                                .from = "me",
                                .data = "{\"a\":1}",
                                .len = 7 };
    source_sqlite.publish(f->source, &event);
    const struct fake_answer *answer = expect_answer(f, 0);
    assert_int_equal(answer->request, 7);
    assert_null(answer->code);
    assert_string_equal(answer->id, "p1.0");
    assert_int_equal(answer->n_events, 1); /* whoever comes with the id finds the event */
    assert_string_equal(f->host->events[0].channel, "Some 'channel'");
    assert_string_equal(f->host->events[0].key, "k1");
    assert_string_equal(f->host->events[0].from, "me");
    assert_string_equal(f->host->events[0].data, "{\"a\":1}");
    assert_string_equal(sqlite_fixture_sql(f, "SELECT typeof(payload) FROM fanwire_outbox"),
                        "text");
}

static void stores_any_bytes(void **state)
{
    static const struct {
        const char *data;
        size_t len;
        const char *type;
    } payloads[] = { { "", 0, "text" },
                     { "\0", 1, "blob" },
                     { "a\0b", 3, "blob" },
                     { "\xff\xfe", 2, "blob" },
                     { "grüße \n\r", 10, "text" } };
    struct sqlite_fixture *f = *state;
    sqlite_fixture_open(f, "");
    for (size_t i = 0; i < sizeof payloads / sizeof *payloads; i++) {
        publish_bytes(f, i, "bytes", payloads[i].data, payloads[i].len);
        assert_null(expect_answer(f, i)->code);
        assert_int_equal(f->host->events[i].len, payloads[i].len);
        assert_memory_equal(f->host->events[i].data, payloads[i].data, payloads[i].len);
        assert_string_equal(sqlite_fixture_sql(f,
                                               "SELECT typeof(payload) FROM fanwire_outbox ORDER "
                                               "BY id DESC LIMIT 1"),
                            payloads[i].type);
    }
}

static void many_at_once(void **state)
{
    struct sqlite_fixture *f = *state;
    char text[32];
    sqlite_fixture_open(f, "");
    for (unsigned i = 0; i < 3000; i++) {
        snprintf(text, sizeof text, "%u", i);
        publish(f, i, "c", text);
    }
    RUN_UNTIL(f->host, f->host->n_answers == 3000);
    assert_int_equal(f->host->n_events, 3000);
    for (unsigned i = 0; i < 3000; i++) {
        assert_int_equal(f->host->answers[i].request, i);
        assert_null(f->host->answers[i].code);
        assert_int_equal(strtoul(f->host->events[i].data, NULL, 10), i);
    }
}

static void a_trigger_may_refuse_one(void **state)
{
    struct sqlite_fixture *f = *state;
    sqlite_fixture_install(f);
    sqlite_fixture_sql(f, "CREATE TRIGGER no BEFORE INSERT ON fanwire_outbox WHEN new.payload = "
                          "'bad' BEGIN SELECT raise(ABORT, 'not this one'); END");
    sqlite_fixture_open(f, "");
    publish(f, 1, "c", "good");
    publish(f, 2, "c", "bad");
    publish(f, 3, "c", "good too");
    RUN_UNTIL(f->host, f->host->n_answers == 3);
    assert_null(f->host->answers[0].code);
    assert_string_equal(f->host->answers[1].code, "source-refused");
    assert_non_null(strstr(f->host->answers[1].message, "not this one"));
    assert_null(f->host->answers[2].code);
    sqlite_fixture_expect(f, 0, (const char *const[]){ "good", "good too", NULL });
}

static void publish_batch(struct sqlite_fixture *f, uint64_t first, const char *const *data,
                          size_t n)
{
    struct fw_publish events[1000] = { 0 };
    for (size_t i = 0; i < n; i++)
        events[i] = (struct fw_publish){ .request = first + i,
                                         .channel = "c",
                                         .channel_len = 1,
                                         .data = data[i],
                                         .len = strlen(data[i]) };
    source_sqlite.publish_batch(f->source, events, n);
}

/* What is refused takes the others of its batch back, wherever it stands, and no other publish. */
static void a_batch_is_stored_as_a_whole(void **state)
{
    static const char *const good[] = { "one", "two", "three" };
    static const char *const bad[3][3] = { { "bad", "x", "x" },
                                           { "x", "bad", "x" },
                                           { "x", "x", "bad" } };
    struct sqlite_fixture *f = *state;
    sqlite_fixture_install(f);
    sqlite_fixture_sql(f, "CREATE TRIGGER no BEFORE INSERT ON fanwire_outbox WHEN new.payload = "
                          "'bad' BEGIN SELECT raise(ABORT, 'not this one'); END");
    sqlite_fixture_open(f, "");
    publish(f, 0, "c", "before");
    for (unsigned i = 0; i < 3; i++)
        publish_batch(f, 1 + 3 * i, bad[i], 3);
    publish_batch(f, 10, good, 3);
    publish(f, 13, "c", "after");
    RUN_UNTIL(f->host, f->host->n_answers == 14);
    for (unsigned i = 0; i < 14; i++) {
        const struct fake_answer *answer = &f->host->answers[i];
        bool refused = i >= 1 && i < 10;
        assert_int_equal(answer->request, i);
        assert_int_equal(answer->code != NULL, refused);
        if (refused)
            assert_non_null(strstr(answer->message, "not this one"));
    }
    sqlite_fixture_expect(f, 0,
                          (const char *const[]){ "before", "one", "two", "three", "after", NULL });
}

static void a_batch_waits_for_a_lock_as_a_whole(void **state)
{
    static const char *batch[1000];
    struct sqlite_fixture *f = *state;
    for (size_t i = 0; i < 1000; i++)
        batch[i] = "x";
    sqlite_fixture_open(f, "");
    sqlite_fixture_sql(f, "BEGIN IMMEDIATE; INSERT INTO fanwire_outbox (channel, payload) VALUES "
                          "('c', 'theirs')");
    publish_batch(f, 0, batch, 1000);
    host_run_ms(f->host, 300);
    assert_int_equal(f->host->n_answers, 0);
    sqlite_fixture_sql(f, "COMMIT");
    RUN_UNTIL(f->host, f->host->n_answers == 1000);
    for (unsigned i = 0; i < 1000; i++) {
        assert_int_equal(f->host->answers[i].request, i);
        assert_null(f->host->answers[i].code);
    }
}

static void waits_for_a_lock(void **state)
{
    struct sqlite_fixture *f = *state;
    sqlite_fixture_open(f, "");
    sqlite_fixture_sql(f, "BEGIN IMMEDIATE; INSERT INTO fanwire_outbox (channel, payload) VALUES "
                          "('c', 'theirs')");
    publish(f, 1, "c", "ours");
    host_run_ms(f->host, 300);
    assert_int_equal(f->host->n_answers, 0);
    assert_int_equal(f->host->n_events, 0);
    sqlite_fixture_sql(f, "COMMIT");
    assert_null(expect_answer(f, 0)->code);
    sqlite_fixture_expect(f, 0, (const char *const[]){ "theirs", "ours", NULL });
    assert_int_equal(f->host->n_lost, 0);
}

/* The lock is held for longer than anybody waits: nothing is stored, and that is said. */
static void a_lock_that_lasts_is_told(void **state)
{
    struct sqlite_fixture *f = *state;
    sqlite_fixture_open(f, "");
    sqlite_fixture_sql(f, "BEGIN IMMEDIATE");
    publish(f, 1, "c", "ours");
    const struct fake_answer *answer = expect_answer(f, 0);
    assert_string_equal(answer->code, "overloaded");
    assert_non_null(strstr(answer->message, "not stored"));
    assert_int_equal(f->host->n_lost, 0); /* reading goes on */
    sqlite_fixture_insert(f, "c", "theirs");
    sqlite_fixture_sql(f, "COMMIT");
    sqlite_fixture_expect(f, 0, (const char *const[]){ "theirs", NULL });
}

static void refused_where_it_can_only_be_read(void **state)
{
    struct sqlite_fixture *f = *state;
    sqlite_fixture_install(f);
    sqlite_fixture_open(f, "?readonly=on");
    assert_non_null(strstr(f->host->log, "[read-only]"));
    publish(f, 1, "c", "x");
    const struct fake_answer *answer = expect_answer(f, 0);
    assert_string_equal(answer->code, "source-refused");
    assert_non_null(strstr(answer->message, "only read"));
    sqlite_fixture_insert(f, "c", "theirs");
    sqlite_fixture_expect(f, 0, (const char *const[]){ "theirs", NULL });
}

static void refused_before_it_is_open(void **state)
{
    struct sqlite_fixture *f = *state;
    sqlite_fixture_source(f, "");
    publish(f, 1, "c", "x");
    assert_string_equal(expect_answer(f, 0)->code, "source-down");
}

static void answered_when_it_ends(void **state)
{
    struct sqlite_fixture *f = *state;
    sqlite_fixture_open(f, "");
    sqlite_fixture_sql(f, "BEGIN IMMEDIATE");
    for (unsigned i = 0; i < 5; i++)
        publish(f, i, "c", "x");
    host_run_ms(f->host, 20);
    publish(f, 5, "c", "x");
    sqlite_fixture_destroy(f);
    assert_int_equal(f->host->n_answers, 6);
    for (unsigned i = 0; i < 6; i++)
        assert_string_equal(f->host->answers[i].code, "source-down");
    sqlite_fixture_sql(f, "COMMIT");
}

#define TEST(name)                                                                                 \
    cmocka_unit_test_setup_teardown(name, sqlite_fixture_setup, sqlite_fixture_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(stores_and_hears_it),
        TEST(stores_any_bytes),
        TEST(many_at_once),
        TEST(a_trigger_may_refuse_one),
        TEST(a_batch_is_stored_as_a_whole),
        TEST(a_batch_waits_for_a_lock_as_a_whole),
        TEST(waits_for_a_lock),
        TEST(a_lock_that_lasts_is_told),
        TEST(refused_where_it_can_only_be_read),
        TEST(refused_before_it_is_open),
        TEST(answered_when_it_ends),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
