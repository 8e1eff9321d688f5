/* stdin: — lines from a pipe, a file, in pieces, too long, without an end; each in a hub of its own
 * with descriptor 0 replaced. */
#include "rig.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#define RETAIN (1u << 20)

/* Descriptor 0 becomes the reading end of a pipe; returns the writing end. */
static int pipe_in(void)
{
    int ends[2];
    assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
    assert_int_equal(dup2(ends[0], STDIN_FILENO), STDIN_FILENO);
    close(ends[0]);
    return ends[1];
}

static void file_in(const char *content, size_t len)
{
    int fd = memfd_create("input", MFD_CLOEXEC);
    assert_int_equal(write(fd, content, len), len);
    assert_int_equal(lseek(fd, 0, SEEK_SET), 0);
    assert_int_equal(dup2(fd, STDIN_FILENO), STDIN_FILENO);
    close(fd);
}

static void feed(int fd, const char *text)
{
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
}

static void lines_name_their_channel(void **state)
{
    int in = pipe_in();
    struct fw_hub *hub = open_hub("stdin:", RETAIN, 0);
    struct fw_sub *sub = open_sub(hub, "a");
    struct fw_error err;
    assert_int_equal(fw_sub_add(sub, "b c", NULL, &err), 0);
    next_step(sub, FW_READY, "a");
    next_step(sub, FW_READY, "b c");
    feed(in, "a\tone\nb c\ttwo\twith a tab\nno tab\n\n\tno channel\na\t\nother\tx\na\tlast");
    next_message(sub, "a", "one");
    next_message(sub, "b c", "two\twith a tab");
    next_message(sub, "a", "");
    nothing_next(sub);
    close(in);
    next_message(sub, "a", "last"); /* the last line has no end of its own */
    next_down(sub, "ended");
    assert_int_equal(fw_hub_publish(hub, "a", "x", 1, -1, NULL, &err), -EIO);
    assert_non_null(strstr(err.message, "not-supported"));
    fw_sub_close(sub);
    fw_hub_close(hub);
}

static void whole_lines_are_payloads_of_one_channel(void **state)
{
    int in = pipe_in();
    struct fw_hub *hub = open_hub("stdin:a%3Fb", RETAIN, 0);
    struct fw_sub *sub = open_sub(hub, "a?b");
    next_step(sub, FW_READY, "a?b");
    feed(in, "one\ttab\n\ntwo");
    feed(in, " in pieces\r\n");
    next_message(sub, "a?b", "one\ttab");
    next_message(sub, "a?b", "");
    next_message(sub, "a?b", "two in pieces\r");
    close(in);
    next_down(sub, "ended");
    fw_sub_close(sub);
    fw_hub_close(hub);
}

static void a_file_is_read_to_its_end(void **state)
{
    enum { N = 20000 };
    char *content = malloc(N * 40), text[40];
    size_t len = 0;
    for (int i = 0; i < N; i++)
        len += (size_t)sprintf(content + len, "a\tline number %d\n", i);
    file_in(content, len);
    struct fw_hub *hub = open_hub("stdin:", 8u << 20, 0);
    struct fw_sub *sub = open_sub_since(hub, "a", "oldest", 0);
    struct fw_event ev;
    int n = 0, kind;
    while ((kind = fw_sub_next(sub, &ev, PATIENCE_MS)) > 0 && n < N) {
        if (kind != FW_MESSAGE)
            continue;
        (void)snprintf(text, sizeof(text), "line number %d", n++);
        assert_string_equal(ev.data, text);
    }
    assert_int_equal(n, N);
    free(content);
    fw_sub_close(sub);
    fw_hub_close(hub);
}

/* A line larger than any event costs bounded memory and becomes a gap; the next one is whole. */
static void very_long_lines_become_gaps(void **state)
{
    int in = pipe_in();
    struct fw_hub *hub = open_hub("stdin:", RETAIN, 0);
    struct fw_sub *sub = open_sub(hub, "a");
    char *chunk = malloc(1 << 16);
    next_step(sub, FW_READY, "a");
    memset(chunk, 'x', 1 << 16);
    feed(in, "a\t");
    for (int i = 0; i < 100; i++)
        assert_int_equal(write(in, chunk, 1 << 16), 1 << 16);
    feed(in, "\na\tafter\nb");
    next_gap(sub, "a", "too-large");
    next_message(sub, "a", "after");
    for (int i = 0; i < 100; i++) /* without a tab: refused, not told */
        assert_int_equal(write(in, chunk, 1 << 16), 1 << 16);
    feed(in, "\na\tagain\n");
    next_message(sub, "a", "again");
    /* exactly the largest, over several chunks */
    size_t fits = RETAIN / 16 - 1;
    feed(in, "a\t");
    assert_int_equal(write(in, chunk, fits), fits);
    feed(in, "\n");
    assert_int_equal(next_step(sub, FW_MESSAGE, "a")->len, fits);
    free(chunk);
    close(in);
    next_down(sub, "ended");
    fw_sub_close(sub);
    fw_hub_close(hub);
}

static void a_descriptor_that_cannot_be_read_is_an_end(void **state)
{
    int fd = open("/dev/null", O_WRONLY | O_CLOEXEC);
    assert_int_equal(dup2(fd, STDIN_FILENO), STDIN_FILENO);
    close(fd);
    struct fw_hub *hub = open_hub("stdin:a", RETAIN, 0);
    struct fw_sub *sub = open_sub(hub, "a");
    struct fw_event ev;
    bool ended = false;
    while (!ended && fw_sub_next(sub, &ev, PATIENCE_MS) > 0)
        ended = ev.kind == FW_DOWN && strcmp(ev.reason, "ended") == 0;
    assert_true(ended);
    fw_sub_close(sub);
    fw_hub_close(hub);
}

/* The reading thread sits in its wait: closing must not. */
static void closing_does_not_wait_for_input(void **state)
{
    int in = pipe_in();
    for (int i = 0; i < 20; i++) {
        struct fw_hub *hub = open_hub("stdin:a", RETAIN, 0);
        if (i % 2)
            feed(in, "x\n");
        fw_hub_close(hub);
    }
    close(in);
}

static void the_descriptor_stays_blocking(void **state)
{
    int in = pipe_in();
    struct fw_hub *hub = open_hub("stdin:a", RETAIN, 0);
    struct fw_sub *sub = open_sub(hub, "a");
    next_step(sub, FW_READY, "a");
    feed(in, "x\n");
    next_message(sub, "a", "x");
    assert_false(fcntl(STDIN_FILENO, F_GETFL) & O_NONBLOCK); /* other processes share it */
    fw_sub_close(sub);
    fw_hub_close(hub);
    close(in);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lines_name_their_channel),
        cmocka_unit_test(whole_lines_are_payloads_of_one_channel),
        cmocka_unit_test(a_file_is_read_to_its_end),
        cmocka_unit_test(very_long_lines_become_gaps),
        cmocka_unit_test(a_descriptor_that_cannot_be_read_is_an_end),
        cmocka_unit_test(closing_does_not_wait_for_input),
        cmocka_unit_test(the_descriptor_stays_blocking),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
