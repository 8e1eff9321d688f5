/* The process title, seen where others see it: /proc/PID/cmdline and environ of a real process.
 * The program starts itself with arguments and an environment that hold a secret. */
#include "title.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define SECRET "hunter2"

static size_t read_proc(const char *name, char *out, size_t size)
{
    char path[64];
    (void)snprintf(path, sizeof(path), "/proc/self/%s", name);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, out, size);
    close(fd);
    return n < 0 ? 0 : (size_t)n;
}

/* The process that is looked at. Exit code 0: all is as it should be; else which check failed. */
static int looked_at(int argc, char **argv)
{
    static char text[1 << 16];
    struct title title;
    size_t n = read_proc("cmdline", text, sizeof(text));
    if (!memmem(text, n, SECRET, strlen(SECRET)))
        return 10; /* the test itself would prove nothing */
    char **args = title_init(&title, argc, argv);
    title_set(&title, "fanwire: worker 1");
    if (argc != 3 || strcmp(args[2], "postgres://u:" SECRET "@h/d") != 0 || args[3])
        return 11;
    if (!getenv("FANWIRE_SOURCE") || !strstr(getenv("FANWIRE_SOURCE"), SECRET))
        return 12;
    n = read_proc("cmdline", text, sizeof(text));
    if (n < 17 || strcmp(text, "fanwire: worker 1") != 0)
        return 13;
    if (memmem(text, n, SECRET, strlen(SECRET)))
        return 14;
    n = read_proc("environ", text, sizeof(text));
    if (memmem(text, n, SECRET, strlen(SECRET)))
        return 15;
    n = read_proc("comm", text, sizeof(text));
    if (memcmp(text, "fanwire: worker\n", 16) != 0)
        return 16;
    title_set(&title, "x");
    n = read_proc("cmdline", text, sizeof(text));
    title_done(&title);
    return strcmp(text, "x") == 0 && !memmem(text, n, "worker", 6) ? 0 : 17;
}

static int look(char **env)
{
    static char name[] = "test", look[] = "look", url[] = "postgres://u:" SECRET "@h/d";
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        (void)execve("/proc/self/exe", (char *[]){ name, look, url, NULL }, env);
        _exit(99);
    }
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static void title_replaces_arguments_and_environment(void **state)
{
    static char source[] = "FANWIRE_SOURCE=postgres://u:" SECRET "@h/d", other[] = "A=b";
    assert_int_equal(look((char *[]){ source, other, NULL }), 0);
}

static void without_init_only_the_name_is_set(void **state)
{
    struct title title = { 0 };
    title_set(&title, "fanwire test");
    char text[64];
    size_t n = read_proc("comm", text, sizeof(text));
    assert_true(n >= 12);
    assert_memory_equal(text, "fanwire test", 12);
}

int main(int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], "look") == 0)
        return looked_at(argc, argv);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(title_replaces_arguments_and_environment),
        cmocka_unit_test(without_init_only_the_name_is_set),
    };
    return cmocka_run_group_tests_name("title", tests, NULL, NULL);
}
