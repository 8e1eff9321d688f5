/* A worker whose application lies. The worker runs in a process of its own; the test is its client
 * and its application process, and sends what a sane one would not. */
#include "call_message.h"
#include "routes.h"
#include "worker.h"

#include <errno.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define WAIT_MS 20000

struct fixture {
    struct log *log;
    struct routes routes;
    struct settings settings;
    struct counters *counters; /* supervisor's, worker's */
    struct worker_options options;
    struct sockaddr_un http;
    socklen_t http_len;
    int calls_fd; /* listener */
    int life[2];
    int link; /* the worker's connection; -1 */
    pid_t worker;
};

/* ---- sockets ---- */

static int listen_abstract(struct sockaddr_un *ret, socklen_t *ret_len)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    *ret = (struct sockaddr_un){ .sun_family = AF_UNIX };
    *ret_len = sizeof(*ret);
    assert_true(fd >= 0);
    assert_int_equal(bind(fd, (struct sockaddr *)ret, sizeof(sa_family_t)), 0);
    assert_int_equal(listen(fd, 64), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)ret, ret_len), 0);
    return fd;
}

static void await(int fd)
{
    struct pollfd poll_fd = { .fd = fd, .events = POLLIN };
    assert_int_equal(poll(&poll_fd, 1, WAIT_MS), 1);
}

static void send_all(int fd, const void *data, size_t len)
{
    while (len) {
        ssize_t n = send(fd, data, len, MSG_NOSIGNAL);
        if (n < 0)
            return; /* the worker has had enough, which is its right */
        data = (const char *)data + n;
        len -= (size_t)n;
    }
}

/* Up to the end; NUL-terminated, owned. */
static char *receive_all(int fd)
{
    struct buf in = buf_make(32u << 20);
    ssize_t n;
    do {
        assert_int_equal(buf_reserve(&in, 65536), 0);
        await(fd);
        n = recv(fd, in.data + in.len, 65536, 0);
        in.len += n > 0 ? (size_t)n : 0;
    } while (n > 0);
    assert_int_equal(buf_append_char(&in, '\0'), 0);
    close(fd);
    return (char *)in.data;
}

/* ---- the worker ---- */

static void start_worker(struct fixture *f)
{
    f->worker = fork();
    assert_true(f->worker >= 0);
    if (f->worker)
        return;
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    close(f->calls_fd);
    close(f->life[1]);
    if (log_attach(log_fd(f->log), &f->options.log) < 0)
        _exit(1);
    _exit(worker_run(&f->options));
}

static void add_route(struct fixture *f, enum route_kind kind, const char *path)
{
    struct route route = { .kind = kind,
                           .method = (char *)"GET",
                           .path = (char *)path,
                           .channel = (char *)(kind == ROUTE_STREAM ? "c" : NULL) };
    assert_true(routes_add(&f->routes, &route, NULL) >= 0);
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    assert_int_equal(log_create(1u << 20, &f->log), 0);
    add_route(f, ROUTE_HANDLER, "/get");
    add_route(f, ROUTE_STREAM, "/stream");
    f->settings = (struct settings){
        .base_path = "/",
        .max_channels = 10,
        .head_timeout_ms = 10000,
        .heartbeat_s = 25,
        .stall_ms = 30000,
        .behind_ms = 60000,
        .routes = &f->routes,
    };
    f->counters =
        mmap(NULL, 2 * COUNTERS_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(f->counters != MAP_FAILED);
    assert_int_equal(pipe(f->life), 0);
    f->options = (struct worker_options){
        .settings = &f->settings,
        .inbox = { .sun_family = AF_UNIX, .sun_path = "/nowhere" },
        .inbox_len = sizeof(struct sockaddr_un),
        .n_listeners = 1,
        .admin_fd = -1,
        .life_fd = f->life[0],
        .counters = (void *)((char *)f->counters + COUNTERS_SIZE),
        .all = f->counters,
        .n_all = 2,
        .index = 1,
    };
    f->options.listeners[0] = listen_abstract(&f->http, &f->http_len);
    f->calls_fd = listen_abstract(&f->options.application, &f->options.application_len);
    f->link = -1;
    start_worker(f);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    int status;
    close(f->life[1]); /* the supervisor is gone: it leaves */
    assert_int_equal(waitpid(f->worker, &status, 0), f->worker);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    if (f->link >= 0)
        close(f->link);
    close(f->life[0]);
    close(f->calls_fd);
    close(f->options.listeners[0]);
    (void)munmap(f->counters, 2 * COUNTERS_SIZE);
    routes_done(&f->routes);
    log_close(f->log);
    free(f);
    return 0;
}

/* ---- the client ---- */

static int ask(struct fixture *f, const char *path)
{
    char request[256];
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&f->http, f->http_len), 0);
    int n = snprintf(request, sizeof(request),
                     "GET %s HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", path);
    send_all(fd, request, (size_t)n);
    return fd;
}

static void expect(int client, const char *status, const char *contains)
{
    char *answer = receive_all(client);
    if (strncmp(answer + 9, status, 3) != 0 || !strstr(answer, contains))
        fail_msg("not %s with \"%s\" but %.600s", status, contains, answer);
    free(answer);
}

/* ---- the application ---- */

static void say(struct fixture *f, const struct call_message *head, size_t n,
                const struct slice *items)
{
    struct buf out = buf_make(64u << 20);
    call_message_begin(&out, head);
    for (size_t i = 0; i < n; i++)
        call_message_add(&out, items[i].data, items[i].len);
    call_message_end(&out);
    assert_int_equal(out.failed, 0);
    send_all(f->link, out.data, out.len);
    buf_done(&out);
}

static void greet(struct fixture *f)
{
    struct call_message hello = { .type = CALL_HELLO };
    await(f->calls_fd);
    if (f->link >= 0)
        close(f->link);
    f->link = accept(f->calls_fd, NULL, NULL);
    assert_true(f->link >= 0);
    say(f, &hello, 0, NULL);
}

/* The id of the next request. */
static uint64_t next_call(struct fixture *f)
{
    uint8_t data[8192];
    size_t len = 0;
    for (;;) {
        struct call_message message;
        int64_t size = call_message_size(data, len, sizeof(data));
        assert_true(size >= 0);
        if (size > 0 && len == (size_t)size) {
            assert_int_equal(call_message_decode(data, len, &message), 0);
            assert_int_equal(message.type, CALL_REQUEST);
            return message.id;
        }
        await(f->link);
        ssize_t n = recv(f->link, data + len, sizeof(data) - len, 0);
        assert_true(n > 0);
        len += (size_t)n;
    }
}

static struct slice text(const char *s)
{
    return (struct slice){ s, strlen(s) };
}

static void answer(struct fixture *f, uint64_t id, uint16_t status, const char *fields,
                   const char *type, const char *body)
{
    struct call_message head = { .type = CALL_ANSWER, .id = id, .status = status };
    const struct slice items[] = { text(fields), text(type), text(body), text("") };
    say(f, &head, 4, items);
}

/* ---- tests ---- */

static void test_sane(void **state)
{
    struct fixture *f = *state;
    greet(f);
    int client = ask(f, "/get");
    answer(f, next_call(f), 200, "X-A: b\r\n", "text/plain", "hello");
    expect(client, "200", "\r\nX-A: b\r\n");
}

/* What would split a response in two, or is not an answer, becomes 500. */
static void test_answers_that_cannot_be_sent(void **state)
{
    struct fixture *f = *state;
    static const struct {
        uint16_t status;
        const char *fields, *type;
    } cases[] = {
        { 200, "X: a\r\n\r\nHTTP/1.1 200 OK\r\n", "" },
        { 200, "Content-Length: 1\r\n", "" },
        { 200, "X: a", "" },
        { 200, "", "text/plain\r\nX: y" },
        { 100, "", "" },
        { 600, "", "" },
    };
    greet(f);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        int client = ask(f, "/get");
        answer(f, next_call(f), cases[i].status, cases[i].fields, cases[i].type, "x");
        expect(client, "500", "urn:fanwire:error:internal");
    }
    int client = ask(f, "/get");
    struct call_message head = { .type = CALL_ANSWER, .id = next_call(f), .status = 200 };
    say(f, &head, 0, NULL);
    expect(client, "500", "urn:fanwire:error:internal");
    client = ask(f, "/get"); /* no stream */
    head = (struct call_message){ .type = CALL_ACCEPT, .id = next_call(f) };
    say(f, &head, 1, &(struct slice){ "", 0 });
    expect(client, "500", "urn:fanwire:error:internal");
}

/* Answers to nobody are ignored: unknown, twice, to what it was not asked yet. */
static void test_answers_to_nobody(void **state)
{
    struct fixture *f = *state;
    greet(f);
    answer(f, 12345, 200, "", "", "unknown");
    int client = ask(f, "/get");
    uint64_t id = next_call(f);
    answer(f, id + 1, 200, "", "", "too early");
    answer(f, id, 200, "", "", "first");
    answer(f, id, 200, "", "", "second");
    expect(client, "200", "\r\n\r\nfirst");
    client = ask(f, "/get");
    answer(f, next_call(f), 200, "", "", "third");
    expect(client, "200", "\r\n\r\nthird");
}

/* Bytes that are no message end the link: who was asked gets 503, the next process is greeted. */
static void test_no_messages(void **state)
{
    struct fixture *f = *state;
    uint8_t bytes[3][CALL_HEAD_SIZE + 64];
    for (size_t i = 0; i < 3; i++) {
        struct buf out = buf_make(4096);
        struct call_message head = { .type = CALL_ANSWER, .status = 200 };
        call_message_begin(&out, &head);
        call_message_add(&out, "1234567890123456789012345678901234567890123456789012345678", 59);
        call_message_end(&out);
        assert_int_equal(out.len, sizeof(bytes[i]));
        memcpy(bytes[i], out.data, out.len);
        buf_done(&out);
    }
    memset(bytes[0], 0xFF, 4);           /* larger than all that is allowed */
    bytes[1][CALL_HEAD_SIZE + 1] = 0xFF; /* an item that ends beyond it */
    bytes[2][4] = CALL_REQUEST;          /* what only a worker says */
    for (size_t i = 0; i < 3; i++) {
        greet(f);
        int client = ask(f, "/get");
        (void)next_call(f);
        send_all(f->link, bytes[i], sizeof(bytes[i]));
        expect(client, "503", "the request may have been done");
    }
    greet(f);
    int client = ask(f, "/get");
    answer(f, next_call(f), 200, "", "", "again");
    expect(client, "200", "\r\n\r\nagain");
}

/* A process that dies in the middle of an answer: nothing of it is sent. */
static void test_half_an_answer(void **state)
{
    struct fixture *f = *state;
    greet(f);
    int client = ask(f, "/get");
    struct buf out = buf_make(4096);
    struct call_message head = { .type = CALL_ANSWER, .status = 200, .id = next_call(f) };
    call_message_begin(&out, &head);
    for (int i = 0; i < 4; i++)
        call_message_add(&out, "half", 4);
    call_message_end(&out);
    send_all(f->link, out.data, out.len - 1);
    buf_done(&out);
    close(f->link);
    f->link = -1;
    expect(client, "503", "the request may have been done");
}

/* Requests that were not sent whole wait for the next process. */
static void test_requests_survive(void **state)
{
    struct fixture *f = *state;
    await(f->calls_fd);
    int client = ask(f, "/get"); /* nobody has greeted */
    f->link = accept(f->calls_fd, NULL, NULL);
    close(f->link);
    f->link = -1;
    greet(f);
    answer(f, next_call(f), 200, "", "", "survived");
    expect(client, "200", "\r\n\r\nsurvived");
}

int main(void)
{
    (void)signal(SIGPIPE, SIG_IGN);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_sane, setup, teardown),
        cmocka_unit_test_setup_teardown(test_answers_that_cannot_be_sent, setup, teardown),
        cmocka_unit_test_setup_teardown(test_answers_to_nobody, setup, teardown),
        cmocka_unit_test_setup_teardown(test_no_messages, setup, teardown),
        cmocka_unit_test_setup_teardown(test_half_an_answer, setup, teardown),
        cmocka_unit_test_setup_teardown(test_requests_survive, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
