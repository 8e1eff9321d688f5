/* Publishing through the Postgres source's command connection, against a private server. */
#include "pg_fixture.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

extern const struct fw_source_class source_postgres;

static void publish_bytes(struct pg_fixture *f, uint64_t request, const char *channel,
                          const void *data, size_t len)
{
    struct fw_publish publish = { .request = request,
                                  .channel = channel,
                                  .channel_len = strlen(channel),
                                  .data = data,
                                  .len = len };
    source_postgres.publish(f->source, &publish);
}

static void publish(struct pg_fixture *f, uint64_t request, const char *channel, const char *data)
{
    publish_bytes(f, request, channel, data, strlen(data));
}

static const struct fake_answer *expect_answer(struct pg_fixture *f, size_t i)
{
    RUN_UNTIL(f->host, f->host->n_answers > i);
    return &f->host->answers[i];
}

static const char *connections(struct pg_fixture *f)
{
    return pg_fixture_sql(f, "select count(*) from pg_stat_activity where application_name = "
                             "'fanwire'");
}

static void terminate_all(struct pg_fixture *f)
{
    pg_fixture_sql(f, "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE "
                      "application_name = 'fanwire'");
}

static void publishes_and_hears_it(void **state)
{
    struct pg_fixture *f = *state;
    pg_fixture_open(f, "");
    assert_string_equal(connections(f), "1");
    struct fw_publish event = { .request = 7,
                                .channel = "Some \"channel\"\\",
                                .channel_len = 15,
                                .key = "k\n1",
                                .from = "me",
                                .data = "{\"a\":1}",
                                .len = 7 };
    source_postgres.publish(f->source, &event);
    const struct fake_answer *answer = expect_answer(f, 0);
    assert_int_equal(answer->request, 7);
    assert_null(answer->code);
    RUN_UNTIL(f->host, f->host->n_events == 1);
    assert_string_equal(f->host->events[0].channel, "Some \"channel\"\\");
    assert_string_equal(f->host->events[0].key, "k\n1");
    assert_string_equal(f->host->events[0].from, "me");
    assert_string_equal(f->host->events[0].data, "{\"a\":1}");
    assert_string_equal(connections(f), "2");
}

static void publishes_any_bytes(void **state)
{
    static const struct {
        const char *data;
        size_t len;
    } payloads[] = {
        { "", 0 },     { "\0", 1 },          { "a\0b", 3 }, { "\xff\xfe", 2 }, { "grüße \n\r", 10 },
        { "\x1e", 1 }, { "\xed\xa0\x80", 3 }
    };
    struct pg_fixture *f = *state;
    pg_fixture_open(f, "");
    for (size_t i = 0; i < sizeof payloads / sizeof *payloads; i++) {
        publish_bytes(f, i, "bytes", payloads[i].data, payloads[i].len);
        RUN_UNTIL(f->host, f->host->n_events == i + 1);
        assert_int_equal(f->host->events[i].len, payloads[i].len);
        assert_memory_equal(f->host->events[i].data, payloads[i].data, payloads[i].len);
    }
}

/* The envelope of channel "c" takes 17 bytes: 0x1E {"channel":"c"} LF. */
static void knows_the_limit_of_notify(void **state)
{
    struct pg_fixture *f = *state;
    char data[8001];
    memset(data, 'x', sizeof data);
    pg_fixture_open(f, "");
    publish_bytes(f, 1, "c", data, 7999 - 17);
    assert_null(expect_answer(f, 0)->code);
    RUN_UNTIL(f->host, f->host->n_events == 1);
    assert_int_equal(f->host->events[0].len, 7999 - 17);
    publish_bytes(f, 2, "c", data, 7999 - 16);
    const struct fake_answer *answer = expect_answer(f, 1); /* at once: nothing was sent */
    assert_int_equal(answer->request, 2);
    assert_string_equal(answer->code, "too-large");
    assert_non_null(strstr(answer->message, "7999"));
    assert_non_null(strstr(answer->message, "outbox"));
    data[0] = '\0'; /* base64 makes it a third larger */
    publish_bytes(f, 3, "c", data, 6500);
    assert_string_equal(expect_answer(f, 2)->code, "too-large");
}

#define MANY 10000

struct counting {
    unsigned events, answers, wrong;
};

static void count_event(void *arg, const struct fw_source_event *event)
{
    struct counting *counting = arg;
    counting->wrong += strtoul(event->data, NULL, 10) != counting->events;
    counting->events++;
}

static void count_answer(void *arg, uint64_t request, const char *code)
{
    struct counting *counting = arg;
    counting->wrong += code || request != counting->answers;
    counting->answers++;
}

static void keeps_the_order_of_many(void **state)
{
    struct pg_fixture *f = *state;
    struct counting counting = { 0 };
    f->host->on_event = count_event;
    f->host->on_answer = count_answer;
    f->host->arg = &counting;
    pg_fixture_open(f, "");
    int64_t start = host_real_ms();
    for (unsigned i = 0; i < MANY; i++) {
        char data[32];
        snprintf(data, sizeof data, "%u", i);
        publish(f, i, "many", data);
    }
    RUN_UNTIL(f->host, counting.answers == MANY && counting.events == MANY);
    int64_t took = host_real_ms() - start;
    print_message("%d publishes acknowledged and heard in %d ms\n", MANY, (int)took);
    assert_int_equal(counting.wrong, 0);
    assert_string_equal(connections(f), "2");
}

/* One that the server refuses harms neither the one before nor the one after. */
static void reports_what_the_server_refuses(void **state)
{
    struct pg_fixture *f = *state;
    pg_fixture_sql(f, "CREATE DATABASE latin ENCODING 'LATIN1' TEMPLATE template0 LC_COLLATE 'C' "
                      "LC_CTYPE 'C'");
    pg_fixture_open(f, "postgres://postgres@127.0.0.1:%PORT%/latin");
    publish(f, 1, "c", "before");
    publish(f, 2, "c", "日本"); /* not in LATIN1 */
    publish(f, 3, "c", "grüße");
    assert_null(expect_answer(f, 0)->code);
    const struct fake_answer *answer = expect_answer(f, 1);
    assert_string_equal(answer->code, "source-refused");
    assert_non_null(strstr(answer->message, "LATIN1"));
    assert_null(expect_answer(f, 2)->code);
    RUN_UNTIL(f->host, f->host->n_events == 2);
    assert_string_equal(f->host->events[1].data, "grüße");
    source_postgres.destroy(f->source);
    f->source = NULL;
    pg_fixture_sql(f, "DROP DATABASE latin WITH (FORCE)");
}

static void publish_batch(struct pg_fixture *f, uint64_t first, const char *const *data, size_t n)
{
    struct fw_publish events[1000] = { 0 };
    for (size_t i = 0; i < n; i++)
        events[i] = (struct fw_publish){ .request = first + i,
                                         .channel = "c",
                                         .channel_len = 1,
                                         .data = data[i],
                                         .len = strlen(data[i]) };
    source_postgres.publish_batch(f->source, events, n);
}

/* One transaction: what is refused in the middle takes the others of its batch back, no other;
 * equal events stay as many as there were. */
static void a_batch_is_published_as_a_whole(void **state)
{
    static const char *const good[] = { "same", "same", "same" };
    static const char *const bad[] = { "one", "日本", "two" };
    struct pg_fixture *f = *state;
    pg_fixture_sql(f, "CREATE DATABASE latin ENCODING 'LATIN1' TEMPLATE template0 LC_COLLATE 'C' "
                      "LC_CTYPE 'C'");
    pg_fixture_open(f, "postgres://postgres@127.0.0.1:%PORT%/latin");
    publish(f, 1, "c", "before");
    publish_batch(f, 2, good, 3);
    publish_batch(f, 5, bad, 3);
    publish(f, 8, "c", "after");
    (void)expect_answer(f, 7);
    for (unsigned i = 0; i < 8; i++) {
        const struct fake_answer *answer = &f->host->answers[i];
        bool refused = i >= 4 && i < 7;
        assert_int_equal(answer->request, i + 1);
        assert_int_equal(answer->code != NULL, refused);
        if (refused)
            assert_non_null(strstr(answer->message, "LATIN1"));
    }
    RUN_UNTIL(f->host, f->host->n_events == 5);
    assert_string_equal(f->host->events[0].data, "before");
    assert_string_equal(f->host->events[3].data, "same");
    assert_string_equal(f->host->events[4].data, "after");
    source_postgres.destroy(f->source);
    f->source = NULL;
    pg_fixture_sql(f, "DROP DATABASE latin WITH (FORCE)");
}

static void a_batch_with_one_too_large_is_not_sent(void **state)
{
    static char large[9000];
    const char *const batch[] = { "x", large, "y" };
    struct pg_fixture *f = *state;
    memset(large, 'x', sizeof(large) - 1);
    pg_fixture_source(f, ""); /* not open: how it is published is not known yet */
    publish_batch(f, 1, batch, 3);
    source_postgres.open(f->source);
    (void)expect_answer(f, 2);
    RUN_UNTIL(f->host, f->host->n_opened == 1);
    publish_batch(f, 4, batch, 3);
    publish(f, 7, "c", "after");
    (void)expect_answer(f, 6);
    for (unsigned i = 0; i < 6; i++)
        assert_string_equal(f->host->answers[i].code, "too-large");
    assert_null(f->host->answers[6].code);
    RUN_UNTIL(f->host, f->host->n_events == 1);
    assert_string_equal(f->host->events[0].data, "after");
}

/* A connection that is lost with part of a batch sent: none of it is sent again. */
static void a_batch_is_lost_as_a_whole(void **state)
{
    static const char *batch[1000];
    struct pg_fixture *f = *state;
    for (size_t i = 0; i < 1000; i++)
        batch[i] = "x";
    pg_fixture_open(f, "");
    publish(f, 0, "c", "first");
    expect_answer(f, 0);
    publish_batch(f, 1, batch, 1000);
    publish_batch(f, 1001, batch, 1000); /* waits */
    terminate_all(f);
    expect_answer(f, 2000);
    for (unsigned n = 0; n < 2; n++) {
        const struct fake_answer *first = &f->host->answers[1 + n * 1000];
        for (unsigned i = 0; i < 1000; i++) {
            const struct fake_answer *answer = first + i;
            assert_int_equal(answer->request, 1 + n * 1000 + i);
            assert_int_equal(answer->code != NULL, first->code != NULL);
        }
    }
}

static void says_what_became_of_events_when_the_connection_breaks(void **state)
{
    struct pg_fixture *f = *state;
    pg_fixture_open(f, "");
    publish(f, 0, "c", "first");
    expect_answer(f, 0);
    for (unsigned i = 1; i <= 1000; i++)
        publish(f, i, "c", "x"); /* 256 in flight, the rest waits */
    terminate_all(f);
    expect_answer(f, 1000);
    unsigned accepted = 0, unknown = 0;
    for (unsigned i = 1; i <= 1000; i++) {
        const struct fake_answer *answer = &f->host->answers[i];
        assert_int_equal(answer->request, i);
        accepted += !answer->code;
        unknown += answer->code && strstr(answer->message, "may have been stored");
    }
    assert_int_equal(accepted + unknown, 1000); /* the rest went over a new connection */
    assert_in_range(unknown, 1, 256);
}

static void answers_at_once_when_there_is_no_server(void **state)
{
    struct pg_fixture *f = *state;
    pg_fixture_source(f, "postgres://u:hush-hush@127.0.0.1:1/db");
    publish(f, 1, "c", "x");
    const struct fake_answer *answer = expect_answer(f, 0);
    assert_string_equal(answer->code, "source-down");
    assert_non_null(strstr(answer->message, "not stored"));
    assert_non_null(strstr(answer->message, "refused"));
    assert_null(strstr(answer->message, "hush-hush"));
    publish(f, 2, "c", "x"); /* not another attempt so soon */
    assert_int_equal(f->host->n_answers, 2);
    assert_string_equal(f->host->answers[1].code, "source-down");
    host_advance(f->host, 300);
    publish(f, 3, "c", "x");
    assert_int_equal(f->host->n_answers, 2);
    expect_answer(f, 2);
}

static void gives_up_connecting_after_10_s(void **state)
{
    struct pg_fixture *f = *state;
    pg_fixture_source(f, "postgres://u@hang/db");
    publish(f, 1, "c", "x");
    host_run_ms(f->host, 20);
    assert_int_equal(f->host->n_answers, 0);
    host_advance(f->host, 10100);
    assert_string_equal(expect_answer(f, 0)->code, "source-down");
}

static void publishes_without_the_listening_connection(void **state)
{
    struct pg_fixture *f = *state;
    pg_fixture_source(f, "?mode=notify");
    publish(f, 1, "c", "x");
    assert_null(expect_answer(f, 0)->code);
}

static void closes_the_command_connection_when_idle(void **state)
{
    struct pg_fixture *f = *state;
    pg_fixture_open(f, "");
    publish(f, 1, "c", "x");
    expect_answer(f, 0);
    for (int i = 0; i < 4; i++) {
        assert_string_equal(connections(f), "2");
        host_advance(f->host, 14000);
        host_run_ms(f->host, 20);
    }
    host_advance(f->host, 14000);
    host_run_ms(f->host, 50);
    for (int i = 0; i < 200 && strcmp(connections(f), "1") != 0; i++)
        host_run_ms(f->host, 10); /* the server notices in its own time */
    assert_string_equal(connections(f), "1");
    assert_int_equal(f->host->n_lost, 0);
    publish(f, 2, "c", "y");
    assert_null(expect_answer(f, 1)->code);
}

static void gives_up_a_server_that_hangs(void **state)
{
    struct pg_fixture *f = *state;
    char command[64];
    pg_fixture_source(f, "?mode=notify");
    publish(f, 1, "c", "x");
    expect_answer(f, 0);
    int pid = atoi(pg_fixture_sql(f, "select pid from pg_stat_activity where application_name = "
                                     "'fanwire' order by backend_start desc limit 1"));
    snprintf(command, sizeof command, "kill -STOP %d", pid);
    assert_int_equal(system(command), 0);
    publish(f, 2, "c", "x");
    host_run_ms(f->host, 20);
    size_t early = f->host->n_answers;
    for (int i = 0; i < 3; i++) {
        host_advance(f->host, 10000);
        host_run_ms(f->host, 20);
    }
    snprintf(command, sizeof command, "kill -CONT %d", pid);
    assert_int_equal(system(command), 0);
    assert_int_equal(early, 1);
    assert_string_equal(expect_answer(f, 1)->code, "source-down");
    assert_non_null(strstr(f->host->answers[1].message, "may have been stored"));
}

static void answers_everything_when_destroyed(void **state)
{
    struct pg_fixture *f = *state;
    pg_fixture_source(f, "?mode=notify");
    publish(f, 0, "c", "x");
    expect_answer(f, 0);
    for (unsigned i = 1; i <= 300; i++)
        publish(f, i, "c", "x");
    source_postgres.destroy(f->source);
    f->source = NULL;
    assert_int_equal(f->host->n_answers, 301);
    for (unsigned i = 1; i <= 300; i++)
        assert_string_equal(f->host->answers[i].code, "source-down");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, pg_fixture_setup, pg_fixture_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(publishes_and_hears_it),
        TEST(publishes_any_bytes),
        TEST(knows_the_limit_of_notify),
        TEST(keeps_the_order_of_many),
        TEST(reports_what_the_server_refuses),
        TEST(a_batch_is_published_as_a_whole),
        TEST(a_batch_with_one_too_large_is_not_sent),
        TEST(a_batch_is_lost_as_a_whole),
        TEST(says_what_became_of_events_when_the_connection_breaks),
        TEST(answers_at_once_when_there_is_no_server),
        TEST(gives_up_connecting_after_10_s),
        TEST(publishes_without_the_listening_connection),
        TEST(closes_the_command_connection_when_idle),
        TEST(gives_up_a_server_that_hangs),
        TEST(answers_everything_when_destroyed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
