/* Publishing through the library: answers, refusals, time-outs, many threads at once. */
#include "fake_source.h"
#include "rig.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define RETAIN (1u << 20)

struct job {
    struct fw_hub *hub;
    const char *channel;
    const void *data;
    size_t len;
    int n, timeout_ms, result;
    char id[FW_POSITION_MAX + 1];
    struct fw_error err;
};

static void *run_job(void *arg)
{
    struct job *job = arg;
    for (int i = 0; i < job->n && job->result == 0; i++)
        job->result = fw_hub_publish(job->hub, job->channel, job->data, job->len, job->timeout_ms,
                                     job->id, &job->err);
    return NULL;
}

static struct job job_on(struct fw_hub *hub)
{
    return (struct job){
        .hub = hub, .channel = "a", .data = "x", .len = 1, .n = 1, .timeout_ms = PATIENCE_MS
    };
}

static void answer_with(const char *code, const char *id, int result, const char *text)
{
    struct fw_hub *hub = open_hub("plain:", RETAIN, 0);
    struct job job = job_on(hub);
    pthread_t thread;
    fake_expect("open");
    assert_int_equal(pthread_create(&thread, NULL, run_job, &job), 0);
    fake_expect("publish a");
    fake_published(code, id);
    pthread_join(thread, NULL);
    assert_int_equal(job.result, result);
    if (result == 0)
        assert_string_equal(job.id, id ? id : "");
    else
        assert_non_null(strstr(job.err.message, text));
    fw_hub_close(hub);
}

static void the_backends_word_is_passed_on(void **state)
{
    static const struct {
        const char *code, *id;
        int result;
    } cases[] = { { NULL, "p1.2.3", 0 },
                  { NULL, NULL, 0 },
                  { "too-large", NULL, -EMSGSIZE },
                  { "source-down", NULL, -EAGAIN },
                  { "source-refused", NULL, -EIO },
                  { "not-supported", NULL, -EIO },
                  { "bad-channel", NULL, -EINVAL } };
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        fake_begin((struct fake_script){ .open = true });
        answer_with(cases[i].code, cases[i].id, cases[i].result, "the test says so");
    }
}

static void no_answer_in_time_may_have_been_stored(void **state)
{
    struct fw_error err;
    fake_begin((struct fake_script){ .open = true });
    struct fw_hub *hub = open_hub("plain:", RETAIN, 0);
    assert_int_equal(fw_hub_publish(hub, "a", "x", 1, 20, NULL, &err), -ETIMEDOUT);
    assert_non_null(strstr(err.message, "may have been stored"));
    assert_int_equal(fw_hub_publish(hub, "a", "x", 1, 0, NULL, &err), -ETIMEDOUT);
    fake_published(NULL, "late"); /* for nobody */
    struct job job = job_on(hub);
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, run_job, &job), 0);
    fake_expect("open");
    for (int i = 0; i < 3; i++)
        fake_expect("publish a");
    fake_published(NULL, "its own");
    pthread_join(thread, NULL);
    assert_int_equal(job.result, 0);
    assert_string_equal(job.id, "its own");
    fw_hub_close(hub);
}

/* What one takes away from the room of 1 MiB that others wait for comes back with its answer. */
static void large_publishes_take_turns(void **state)
{
    enum { THREADS = 4, EACH = 20, LEN = 700 * 1024 };
    struct fw_hub *hub = open_hub("memory:", 64u << 20, 0);
    struct job jobs[THREADS];
    pthread_t threads[THREADS];
    char *data = calloc(1, LEN);
    for (int i = 0; i < THREADS; i++) {
        jobs[i] = job_on(hub);
        jobs[i].data = data;
        jobs[i].len = LEN;
        jobs[i].n = EACH;
        assert_int_equal(pthread_create(&threads[i], NULL, run_job, &jobs[i]), 0);
    }
    for (int i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
        assert_int_equal(jobs[i].result, 0);
    }
    free(data);
    fw_hub_close(hub);
}

static void room_that_never_comes_is_told(void **state)
{
    enum { LEN = 700 * 1024 };
    struct fw_error err;
    char *data = calloc(1, LEN);
    fake_begin((struct fake_script){ .open = true });
    struct fw_hub *hub = open_hub("plain:", 64u << 20, 0);
    struct job job = job_on(hub);
    pthread_t thread;
    job.data = data;
    job.len = LEN;
    assert_int_equal(pthread_create(&thread, NULL, run_job, &job), 0);
    fake_expect("open");
    fake_expect("publish a");
    assert_int_equal(fw_hub_publish(hub, "a", data, LEN, 30, NULL, &err), -EAGAIN);
    assert_non_null(strstr(err.message, "nothing was stored"));
    fake_published(NULL, NULL);
    pthread_join(thread, NULL);
    assert_int_equal(job.result, 0);
    free(data);
    fw_hub_close(hub);
}

static void many_threads_publish_at_once(void **state)
{
    enum { THREADS = 8, EACH = 500 };
    struct fw_hub *hub = open_hub("memory:", RETAIN, 0);
    struct fw_sub *sub = open_sub(hub, "a");
    struct job jobs[THREADS];
    pthread_t threads[THREADS];
    next_step(sub, FW_READY, "a");
    for (int i = 0; i < THREADS; i++) {
        jobs[i] = job_on(hub);
        jobs[i].n = EACH;
        assert_int_equal(pthread_create(&threads[i], NULL, run_job, &jobs[i]), 0);
    }
    for (int i = 0; i < THREADS * EACH; i++)
        next_step(sub, FW_MESSAGE, "a");
    for (int i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
        assert_int_equal(jobs[i].result, 0);
    }
    nothing_next(sub);
    fw_sub_close(sub);
    fw_hub_close(hub);
}

static void publish_as(struct fw_hub *hub, const char *key, const char *from, const char *text,
                       int expected)
{
    struct fw_error err;
    const struct fw_publish_options options = { .size = sizeof(options), .key = key, .from = from };
    assert_int_equal(fw_hub_publish_with(hub, "a", text, strlen(text), &options, PATIENCE_MS, NULL,
                                         &err),
                     expected);
}

static void a_key_makes_a_repeat_harmless(void **state)
{
    char key[257];
    struct fw_hub *hub = open_hub("memory:", RETAIN, 0);
    struct fw_sub *sub = open_sub(hub, "a");
    next_step(sub, FW_READY, "a");
    publish_as(hub, "k", "me", "one", 0);
    publish_as(hub, "k", "me", "one", 0);
    publish_as(hub, NULL, NULL, "two", 0);
    publish_as(hub, NULL, NULL, "two", 0);
    memset(key, 'k', sizeof(key));
    key[256] = '\0';
    publish_as(hub, key, NULL, "x", -EINVAL);
    publish_as(hub, "", NULL, "x", -EINVAL);
    publish_as(hub, NULL, key, "x", -EINVAL);
    key[255] = '\0';
    publish_as(hub, key, NULL, "three", 0);
    assert_string_equal(next_step(sub, FW_MESSAGE, "a")->from, "me");
    next_message(sub, "a", "two");
    next_message(sub, "a", "two");
    next_message(sub, "a", "three");
    nothing_next(sub);
    fw_sub_close(sub);
    fw_hub_close(hub);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_backends_word_is_passed_on),
        cmocka_unit_test(no_answer_in_time_may_have_been_stored),
        cmocka_unit_test(large_publishes_take_turns),
        cmocka_unit_test(room_that_never_comes_is_told),
        cmocka_unit_test(many_threads_publish_at_once),
        cmocka_unit_test(a_key_makes_a_repeat_harmless),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
