/* The table of wanted channels: asked once, answered each, lingering, lost and asked again. */
#include "interest.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define LINGER_MS 1000

/* A table, its source's answers by `on_ask`, and what it told, as text. */
struct fixture {
    struct log *log;
    struct interest in;
    struct interest_reader readers[3];
    char told[4096];
    enum { STAY_SILENT, ANSWER, REFUSE, LOSE } on_ask;
};

static void tell(struct fixture *f, const char *what, const char *name)
{
    size_t len = strlen(f->told);
    (void)snprintf(f->told + len, sizeof(f->told) - len, "%s%s %s", len ? "," : "", what, name);
}

static void on_subscribe(void *arg, struct channel *channel)
{
    struct fixture *f = arg;
    tell(f, "ask", channel->name);
    if (f->on_ask == ANSWER)
        interest_ready(&f->in, channel->name, channel->len);
    else if (f->on_ask == REFUSE)
        interest_refused(&f->in, channel->name, channel->len, CODE_SOURCE_REFUSED, "no");
    else if (f->on_ask == LOSE)
        interest_lost(&f->in);
}

static void on_unsubscribe(void *arg, struct channel *channel)
{
    tell(arg, "leave", channel->name);
}

static void on_due(void *arg, struct interest_reader *reader)
{
}

static void on_refused(void *arg, const struct want *want, enum error_code code,
                       const char *message)
{
    assert_int_equal(code, CODE_SOURCE_REFUSED);
    tell(arg, "refuse", want->channel->name);
}

static void on_settled(void *arg)
{
    tell(arg, "settled", "");
}

static const struct interest_hooks hooks = { .subscribe = on_subscribe,
                                             .unsubscribe = on_unsubscribe,
                                             .due = on_due,
                                             .refused = on_refused,
                                             .settled = on_settled };

static void expect(struct fixture *f, const char *told)
{
    assert_string_equal(f->told, told);
    f->told[0] = '\0';
}

static void setup_with(struct fixture *f, bool on_demand)
{
    *f = (struct fixture){ 0 };
    assert_int_equal(log_create(LOG_SIZE_MIN, &f->log), 0);
    assert_int_equal(log_lock_writer(f->log), 0);
    interest_init(&f->in, f->log, on_demand, LINGER_MS, &hooks, f);
    for (int i = 0; i < 3; i++)
        interest_join(&f->in, &f->readers[i]);
}

static void setup_up(struct fixture *f)
{
    setup_with(f, true);
    interest_opened(&f->in);
    interest_answer(&f->in, true);
}

static void teardown(struct fixture *f)
{
    for (int i = 0; i < 3; i++)
        interest_leave(&f->in, &f->readers[i], 0);
    interest_done(&f->in);
    assert_int_equal(f->in.n_settling, 0);
    log_close(f->log);
}

static void add(struct fixture *f, int reader, const char *name)
{
    assert_int_equal(interest_add(&f->in, &f->readers[reader], name, strlen(name), 0, 0), 0);
}

static void leave(struct fixture *f, int reader, const char *name, int64_t now_ms)
{
    interest_remove(&f->in, &f->readers[reader], name, strlen(name), now_ms);
}

static void ready(struct fixture *f, const char *name)
{
    interest_ready(&f->in, name, strlen(name));
}

/* The names of all that is due to a reader now. */
static void expect_due(struct fixture *f, int reader, const char *names)
{
    char due[4096] = "";
    for (struct want *w; (w = interest_next_due(&f->in, &f->readers[reader]));) {
        size_t len = strlen(due);
        (void)snprintf(due + len, sizeof(due) - len, "%s%s", len ? "," : "", w->channel->name);
    }
    assert_string_equal(due, names);
}

static uint64_t append(struct fixture *f)
{
    return log_append(f->log, &(struct log_event){ .channel = "x", .channel_len = 1 });
}

static void a_channel_is_asked_once_and_answered_to_each(void **state)
{
    struct fixture f;
    setup_up(&f);
    add(&f, 0, "a");
    add(&f, 1, "a");
    expect(&f, "ask a");
    expect_due(&f, 0, "");
    ready(&f, "a");
    expect_due(&f, 0, "a");
    expect_due(&f, 1, "a");
    expect_due(&f, 1, "");
    add(&f, 2, "a"); /* ready already */
    expect_due(&f, 2, "a");
    expect(&f, "");
    teardown(&f);
}

static void asking_twice_answers_twice(void **state)
{
    struct fixture f;
    setup_up(&f);
    add(&f, 0, "a");
    add(&f, 0, "a");
    ready(&f, "a");
    expect_due(&f, 0, "a");
    add(&f, 0, "a");
    expect_due(&f, 0, "a");
    leave(&f, 0, "a", 0); /* once is enough */
    interest_expire(&f.in, LINGER_MS);
    expect(&f, "ask a,leave a");
    teardown(&f);
}

static void coverage_begins_where_the_source_confirms(void **state)
{
    struct fixture f;
    setup_up(&f);
    (void)append(&f);
    add(&f, 0, "a");
    (void)append(&f);
    uint64_t head = log_head(f.log);
    ready(&f, "a");
    (void)append(&f);
    struct want *w = interest_next_due(&f.in, &f.readers[0]);
    assert_true(w->channel->covered_from == head);
    add(&f, 1, "a");
    w = interest_next_due(&f.in, &f.readers[1]);
    assert_true(w->channel->covered_from == head);
    teardown(&f);
}

static void lingering_keeps_coverage_and_ends(void **state)
{
    struct fixture f;
    setup_up(&f);
    add(&f, 0, "a");
    ready(&f, "a");
    uint64_t covered = log_head(f.log);
    leave(&f, 0, "a", 100);
    interest_expire(&f.in, 100 + LINGER_MS - 1);
    (void)append(&f);
    add(&f, 0, "a");
    assert_true(interest_next_due(&f.in, &f.readers[0])->channel->covered_from == covered);
    assert_int_equal(f.in.n_lingering, 0);
    interest_expire(&f.in, 1000000);
    expect(&f, "ask a");
    leave(&f, 0, "a", 1000000);
    assert_int_equal(f.in.n_lingering, 1);
    interest_expire(&f.in, 1000000 + LINGER_MS);
    expect(&f, "leave a");
    add(&f, 0, "a"); /* forgotten: asked, and covered, anew */
    ready(&f, "a");
    assert_true(interest_next_due(&f.in, &f.readers[0])->channel->covered_from > covered);
    expect(&f, "ask a");
    teardown(&f);
}

/* Readers that came before the source knew. */
static void a_source_that_turns_out_to_hear_all_covers_everything(void **state)
{
    struct fixture f;
    setup_with(&f, true);
    add(&f, 0, "a");
    add(&f, 0, "b");
    leave(&f, 0, "b", 0);
    interest_set_on_demand(&f.in, false);
    assert_int_equal(f.in.n_lingering, 0); /* nobody wants it: forgotten */
    interest_opened(&f.in);
    interest_answer(&f.in, true);
    struct want *w = interest_next_due(&f.in, &f.readers[0]);
    assert_string_equal(w->channel->name, "a");
    assert_true(w->channel->covered_from == log_size(f.log));
    assert_null(interest_next_due(&f.in, &f.readers[0]));
    expect(&f, "");
    teardown(&f);
}

static void a_source_that_turns_out_to_need_channels_is_asked(void **state)
{
    struct fixture f;
    setup_with(&f, false);
    add(&f, 0, "a");
    interest_set_on_demand(&f.in, true);
    interest_set_on_demand(&f.in, true); /* the same is no change */
    interest_opened(&f.in);
    interest_answer(&f.in, true);
    assert_null(interest_next_due(&f.in, &f.readers[0]));
    expect(&f, "ask a");
    (void)append(&f);
    uint64_t head = log_head(f.log);
    ready(&f, "a");
    assert_true(interest_next_due(&f.in, &f.readers[0])->channel->covered_from == head);
    teardown(&f);
}

/* The answer to the first question must not vouch for a second one. */
static void a_channel_is_not_left_before_its_answer(void **state)
{
    struct fixture f;
    setup_up(&f);
    add(&f, 0, "a");
    leave(&f, 0, "a", 0);
    interest_expire(&f.in, 10 * LINGER_MS);
    expect(&f, "ask a");
    ready(&f, "a");
    interest_expire(&f.in, 10 * LINGER_MS);
    expect(&f, "leave a");
    teardown(&f);
}

static void a_reader_that_goes_takes_all_it_wanted(void **state)
{
    struct fixture f;
    setup_up(&f);
    f.on_ask = ANSWER;
    add(&f, 0, "a");
    add(&f, 0, "b");
    add(&f, 1, "b");
    expect(&f, "ask a,ask b");
    interest_leave(&f.in, &f.readers[0], 0);
    assert_int_equal(f.in.n_lingering, 1);
    interest_expire(&f.in, LINGER_MS);
    expect(&f, "leave a");
    expect_due(&f, 1, "b");
    teardown(&f);
}

static void a_refusal_is_told_to_all_and_forgotten(void **state)
{
    struct fixture f;
    setup_up(&f);
    add(&f, 0, "a");
    add(&f, 1, "a");
    interest_refused(&f.in, "a", 1, CODE_SOURCE_REFUSED, "no");
    expect(&f, "ask a,refuse a,refuse a");
    interest_refused(&f.in, "a", 1, CODE_SOURCE_REFUSED, "no");
    ready(&f, "a");
    expect_due(&f, 0, "");
    f.on_ask = REFUSE;
    add(&f, 0, "a"); /* inside the call */
    expect(&f, "ask a,refuse a");
    teardown(&f);
}

static void nothing_is_answered_while_down(void **state)
{
    struct fixture f;
    setup_with(&f, true);
    add(&f, 0, "a");
    add(&f, 0, "b");
    expect(&f, "");
    interest_opened(&f.in);
    expect(&f, "ask a,ask b");
    ready(&f, "a");
    expect_due(&f, 0, "");
    ready(&f, "b");
    expect(&f, "settled ");
    interest_answer(&f.in, true);
    expect_due(&f, 0, "a,b");
    teardown(&f);
}

static void a_loss_asks_again_and_keeps_coverage(void **state)
{
    struct fixture f;
    setup_up(&f);
    f.on_ask = ANSWER;
    add(&f, 0, "a");
    uint64_t covered = log_head(f.log);
    expect_due(&f, 0, "a");
    add(&f, 0, "lingers");
    leave(&f, 0, "lingers", 0);
    f.on_ask = STAY_SILENT;
    expect(&f, "ask a,ask lingers");
    interest_lost(&f.in);
    (void)append(&f);
    add(&f, 1, "a"); /* a new one waits */
    expect_due(&f, 1, "");
    interest_opened(&f.in);
    expect(&f, "ask a,ask lingers");
    assert_int_equal(f.in.n_settling, 1); /* nobody waits for the one that lingers */
    ready(&f, "lingers");
    ready(&f, "a");
    expect(&f, "settled ");
    interest_answer(&f.in, true);
    expect_due(&f, 0, ""); /* it knows by down and up */
    struct want *w = interest_next_due(&f.in, &f.readers[1]);
    assert_true(w && w->channel->covered_from == covered);
    teardown(&f);
}

static void what_expires_while_down_is_just_forgotten(void **state)
{
    struct fixture f;
    setup_up(&f);
    f.on_ask = ANSWER;
    add(&f, 0, "a");
    leave(&f, 0, "a", 0);
    interest_lost(&f.in);
    interest_expire(&f.in, LINGER_MS);
    expect(&f, "ask a");
    interest_opened(&f.in);
    expect(&f, "");
    teardown(&f);
}

static void a_loss_inside_the_question_stops_asking(void **state)
{
    struct fixture f;
    setup_with(&f, true);
    add(&f, 0, "a");
    add(&f, 0, "b");
    f.on_ask = LOSE;
    interest_opened(&f.in);
    expect(&f, "ask a");
    assert_int_equal(f.in.n_settling, 0);
    f.on_ask = ANSWER;
    interest_opened(&f.in);
    expect(&f, "ask a,settled ,ask b,settled ");
    teardown(&f);
}

static void due_answers_wait_when_the_source_is_lost_first(void **state)
{
    struct fixture f;
    setup_up(&f);
    add(&f, 0, "a");
    ready(&f, "a");
    interest_lost(&f.in);
    expect_due(&f, 0, "");
    interest_opened(&f.in);
    ready(&f, "a");
    interest_answer(&f.in, true);
    expect_due(&f, 0, "a");
    teardown(&f);
}

static void an_answer_that_did_not_fit_comes_first_again(void **state)
{
    struct fixture f;
    setup_up(&f);
    f.on_ask = ANSWER;
    add(&f, 0, "a");
    add(&f, 0, "b");
    interest_put_back(interest_next_due(&f.in, &f.readers[0]));
    expect_due(&f, 0, "a,b");
    teardown(&f);
}

static void a_source_that_hears_all_is_never_asked(void **state)
{
    struct fixture f;
    setup_with(&f, false);
    add(&f, 0, "a");
    interest_opened(&f.in);
    expect_due(&f, 0, "");
    interest_answer(&f.in, true);
    struct want *w = interest_next_due(&f.in, &f.readers[0]);
    assert_true(w->channel->covered_from == log_size(f.log));
    interest_lost(&f.in);
    add(&f, 1, "a");
    expect_due(&f, 1, "");
    interest_opened(&f.in);
    interest_answer(&f.in, true);
    expect_due(&f, 1, "a");
    leave(&f, 0, "a", 0);
    leave(&f, 1, "a", 0);
    leave(&f, 1, "a", 0);
    assert_int_equal(f.in.channels.count, 0); /* nothing to linger for */
    expect(&f, "");
    teardown(&f);
}

/* 20,000 channels, three readers: a quadratic step would take minutes. */
static void many_channels_stay_cheap(void **state)
{
    struct fixture f;
    char name[32];
    setup_up(&f);
    f.on_ask = ANSWER;
    for (int i = 0; i < 20000; i++) {
        (void)snprintf(name, sizeof(name), "channel-%d", i);
        for (int r = 0; r < 3; r++)
            add(&f, r, name);
        f.told[0] = '\0';
    }
    for (int r = 0; r < 3; r++)
        while (interest_next_due(&f.in, &f.readers[r]))
            ;
    interest_lost(&f.in);
    f.on_ask = STAY_SILENT;
    interest_opened(&f.in);
    for (int i = 0; i < 20000; i++) {
        (void)snprintf(name, sizeof(name), "channel-%d", i);
        ready(&f, name);
    }
    assert_int_equal(f.in.n_settling, 0);
    for (int r = 0; r < 3; r++)
        interest_leave(&f.in, &f.readers[r], 0);
    assert_int_equal(f.in.n_lingering, 20000);
    interest_expire(&f.in, LINGER_MS);
    assert_int_equal(f.in.channels.count, 0);
    assert_int_equal(f.in.wants.count, 0);
    teardown(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_channel_is_asked_once_and_answered_to_each),
        cmocka_unit_test(asking_twice_answers_twice),
        cmocka_unit_test(coverage_begins_where_the_source_confirms),
        cmocka_unit_test(lingering_keeps_coverage_and_ends),
        cmocka_unit_test(a_channel_is_not_left_before_its_answer),
        cmocka_unit_test(a_reader_that_goes_takes_all_it_wanted),
        cmocka_unit_test(a_refusal_is_told_to_all_and_forgotten),
        cmocka_unit_test(nothing_is_answered_while_down),
        cmocka_unit_test(a_loss_asks_again_and_keeps_coverage),
        cmocka_unit_test(what_expires_while_down_is_just_forgotten),
        cmocka_unit_test(a_loss_inside_the_question_stops_asking),
        cmocka_unit_test(due_answers_wait_when_the_source_is_lost_first),
        cmocka_unit_test(an_answer_that_did_not_fit_comes_first_again),
        cmocka_unit_test(a_source_that_hears_all_is_never_asked),
        cmocka_unit_test(a_source_that_turns_out_to_hear_all_covers_everything),
        cmocka_unit_test(a_source_that_turns_out_to_need_channels_is_asked),
        cmocka_unit_test(many_channels_stay_cheap),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
