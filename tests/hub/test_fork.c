/* A hub does not survive fork(): the child is told, the parent is not disturbed. */
#include "rig.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

/* What a child may try. Returns 0 or the number of what went wrong. */
static int in_child(struct fw_hub *hub, struct fw_sub *sub)
{
    struct fw_event ev;
    struct fw_error err = { 0 };
    struct fw_sub *other;
    if (fw_hub_publish(hub, "a", "x", 1, -1, NULL, &err) != -ECHILD || !strstr(err.message, "fork"))
        return 1;
    if (fw_sub_next(sub, &ev, -1) != -ECHILD || !strstr(fw_sub_error(sub), "fork"))
        return 2;
    if (fw_sub_open(hub, "a", NULL, &other, &err) != -ECHILD)
        return 3;
    if (fw_sub_add(sub, "b", NULL, &err) != -ECHILD || fw_sub_fd(sub) != -ECHILD)
        return 4;
    fw_sub_cancel(sub);
    (void)fw_sub_remove(sub, "a");
    fw_sub_close(sub);
    fw_hub_close(hub);
    /* one of its own works */
    hub = open_hub("memory:", 1 << 16, 0);
    sub = open_sub(hub, "a");
    publish(hub, "a", "mine");
    do {
        if (fw_sub_next(sub, &ev, PATIENCE_MS) <= 0)
            return 5;
    } while (ev.kind != FW_MESSAGE);
    fw_sub_close(sub);
    fw_hub_close(hub);
    return 0;
}

static void the_child_is_told_and_the_parent_goes_on(void **state)
{
    struct fw_hub *hub = open_hub("memory:", 1 << 20, 0);
    struct fw_sub *sub = open_sub(hub, "a");
    int status;
    next_step(sub, FW_READY, "a");
    publish(hub, "a", "before");
    for (int i = 0; i < 5; i++) {
        pid_t child = fork();
        if (child == 0)
            _exit(in_child(hub, sub));
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_true(WIFEXITED(status));
        assert_int_equal(WEXITSTATUS(status), 0);
    }
    next_message(sub, "a", "before");
    publish(hub, "a", "after");
    next_message(sub, "a", "after");
    nothing_next(sub);
    fw_sub_close(sub);
    fw_hub_close(hub);
}

/* A child that just lives on holds copies of all descriptors; ends must be noticed all the same. */
static void a_child_keeps_nothing_open(void **state)
{
    int gate[2], status;
    char byte;
    struct fw_hub *hub = open_hub("memory:", 1 << 16, 0);
    struct fw_sub *sub = open_sub(hub, "a");
    struct fw_event ev;
    next_step(sub, FW_READY, "a");
    assert_int_equal(pipe(gate), 0);
    pid_t child = fork();
    if (child == 0) {
        close(gate[1]);
        _exit(read(gate[0], &byte, 1) != 0);
    }
    fw_hub_close(hub);
    while (fw_sub_next(sub, &ev, PATIENCE_MS) > 0)
        ;
    assert_int_equal(fw_sub_next(sub, &ev, PATIENCE_MS), -EPIPE);
    fw_sub_close(sub);
    close(gate[1]);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    close(gate[0]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_child_is_told_and_the_parent_goes_on),
        cmocka_unit_test(a_child_keeps_nothing_open),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
