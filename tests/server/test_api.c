/* What a program sets on its server: taken, refused at once, or refused by fw_server_run(). It sees
 * the public header and the shared library alone. */
#include <fanwire/server.h>

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static void handler(struct fw_request *request, void *arg)
{
    (void)fw_request_answer(request, 204, NULL, arg, 0);
}

static int setup(void **state)
{
    struct fw_server *server;
    assert_int_equal(fw_server_new(&server, NULL), 0);
    *state = server;
    return 0;
}

static int teardown(void **state)
{
    fw_server_free(*state);
    return 0;
}

#define REFUSED(want, part, call)                                                                  \
    do {                                                                                           \
        struct fw_error err = { 0 };                                                               \
        assert_int_equal(call, want);                                                              \
        assert_int_equal(err.code, want);                                                          \
        if (!strstr(err.message, part))                                                            \
            fail_msg("\"%s\" is not in: %s", part, err.message);                                   \
    } while (0)

static void options(void **state)
{
    struct fw_server *s = *state;
    REFUSED(-EINVAL, "no option \"htttp\"", fw_server_set(s, "htttp", ":80", &err));
    REFUSED(-EINVAL, "no option \"--http\"", fw_server_set(s, "--http", ":80", &err));
    REFUSED(-EINVAL, "TLS proxy", fw_server_set(s, "tls-cert", "x", &err));
    assert_int_equal(fw_server_set(s, "http", "127.0.0.1:0", NULL), 0);
    assert_int_equal(fw_server_set(s, "dev", "", NULL), 0);
    assert_int_equal(fw_server_set(s, "source", "memory:", NULL), 0);
    assert_int_equal(fw_server_set(s, "source", "stdin:log", NULL), 0);
    fw_server_log(s, 6, "early", "nobody has a log yet: %d", 1);
}

static void applications(void **state)
{
    struct fw_server *s = *state;
    struct fw_application a = { .size = sizeof(a) };
    assert_int_equal(fw_server_application(s, &a, NULL), 0);
    a.name = "two words";
    REFUSED(-EINVAL, "two words", fw_server_application(s, &a, &err));
    a.name = "";
    REFUSED(-EINVAL, "name", fw_server_application(s, &a, &err));
    a.name = "good";
    a.n_threads = 257;
    REFUSED(-EINVAL, "256", fw_server_application(s, &a, &err));
    a.n_threads = 256;
    assert_int_equal(fw_server_application(s, &a, NULL), 0);
    a.size = 4;
    REFUSED(-EINVAL, "sizeof", fw_server_application(s, &a, &err));
}

static void routes(void **state)
{
    struct fw_server *s = *state;
    assert_int_equal(fw_server_route(s, "GET", "/a/{id}", handler, NULL, NULL), 0);
    assert_int_equal(fw_server_stream(s, "/a/{id}", "a:{id}", handler, NULL, NULL), 0);
    assert_int_equal(fw_server_asset(s, "/", "text/html", "x", 1, NULL), 0);
    assert_int_equal(fw_server_asset(s, "/empty", "text/css", NULL, 0, NULL), 0);
    REFUSED(-EEXIST, "/a/{b}", fw_server_route(s, "GET", "/a/{b}", handler, NULL, &err));
    REFUSED(-EEXIST, "/a/{b}", fw_server_stream(s, "/a/{b}", "a", handler, NULL, &err));
    REFUSED(-EEXIST, "there already", fw_server_route(s, "GET", "/", handler, NULL, &err));
    REFUSED(-EEXIST, "there already", fw_server_asset(s, "/", "text/html", "y", 1, &err));
    REFUSED(-EINVAL, "own", fw_server_route(s, "GET", "/ws/x", handler, NULL, &err));
    REFUSED(-EINVAL, "method", fw_server_route(s, "get", "/b", handler, NULL, &err));
    REFUSED(-EINVAL, "handler", fw_server_route(s, "GET", "/b", NULL, NULL, &err));
    REFUSED(-EINVAL, "channel", fw_server_stream(s, "/b/{x}", "b:{y}", handler, NULL, &err));
    REFUSED(-EINVAL, "Content-Type", fw_server_asset(s, "/b", "a\r\nb", "y", 1, &err));
    REFUSED(-EINVAL, "fixed path", fw_server_asset(s, "/{b}", "a/b", "y", 1, &err));
}

/* The exit code of a run in a process of its own, which also compares what is said. */
static int run(struct fw_server *server, const char *part)
{
    int status;
    pid_t pid = fork();
    if (pid == 0) {
        struct fw_error err = { 0 };
        int code = fw_server_run(server, 0, NULL, &err);
        _exit(strstr(err.message, part) ? code : 99);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static void what_run_refuses(void **state)
{
    struct fw_server *s = *state;
    assert_int_equal(run(s, "SOURCE is missing"), 2);
    assert_int_equal(fw_server_set(s, "source", "memory:", NULL), 0);
    assert_int_equal(fw_server_set(s, "workers", "many", NULL), 0);
    assert_int_equal(run(s, "--workers"), 2);
}

static void freeing_nothing(void **state)
{
    (void)state;
    fw_server_free(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(options, setup, teardown),
        cmocka_unit_test_setup_teardown(applications, setup, teardown),
        cmocka_unit_test_setup_teardown(routes, setup, teardown),
        cmocka_unit_test_setup_teardown(what_run_refuses, setup, teardown),
        cmocka_unit_test(freeing_nothing),
    };
    return cmocka_run_group_tests_name("api", tests, NULL, NULL);
}
