/* Listening sockets: several per TCP address, refusal of a taken one, Unix sockets stale and alive.
 */
#include "listener.h"

#include <fanwire.h>

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static struct address parse(const char *text)
{
    struct address a;
    assert_int_equal(address_parse(text, &a, NULL), 0);
    return a;
}

static unsigned port_of(int fd)
{
    struct sockaddr_in in = { 0 };
    socklen_t len = sizeof(in);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&in, &len), 0);
    return ntohs(in.sin_port);
}

static void opens_a_socket_per_worker_on_one_port(void **state)
{
    struct address a = parse("127.0.0.1:0");
    struct listener l;
    struct fw_error err = { 0 };
    assert_int_equal(listener_open(&a, 4, &l, 1, &err), 1);
    assert_int_equal(l.n_fds, 4);
    unsigned port = port_of(l.fds[0]);
    assert_int_not_equal(port, 0);
    for (size_t i = 0; i < l.n_fds; i++) {
        int on = 0;
        socklen_t len = sizeof(on);
        assert_int_equal(port_of(l.fds[i]), port);
        assert_int_equal(getsockopt(l.fds[i], SOL_SOCKET, SO_ACCEPTCONN, &on, &len), 0);
        assert_int_equal(on, 1);
        assert_true(fcntl(l.fds[i], F_GETFL) & O_NONBLOCK);
        assert_true(fcntl(l.fds[i], F_GETFD) & FD_CLOEXEC);
    }
    char text[64];
    (void)snprintf(text, sizeof(text), "http://127.0.0.1:%u/", port);
    assert_string_equal(l.text, text);
    listener_close(&l);
    assert_int_equal(l.n_fds, 0);
}

/* With SO_REUSEPORT alone a second server would share the port without a word. */
static void refuses_a_port_that_another_server_has(void **state)
{
    struct address a = parse("127.0.0.1:0");
    struct listener l, second;
    struct fw_error err = { 0 };
    assert_int_equal(listener_open(&a, 2, &l, 1, NULL), 1);
    a.port = (uint16_t)port_of(l.fds[0]);
    assert_int_equal(listener_open(&a, 2, &second, 1, &err), -EADDRINUSE);
    assert_non_null(strstr(err.message, "another program listens there"));
    listener_close(&l);
    assert_int_equal(listener_open(&a, 2, &second, 1, &err), 1);
    listener_close(&second);
}

static void spreads_connections_over_the_sockets(void **state)
{
    struct address a = parse("127.0.0.1:0");
    struct listener l;
    int clients[64];
    assert_int_equal(listener_open(&a, 2, &l, 1, NULL), 1);
    struct sockaddr_in in = { .sin_family = AF_INET,
                              .sin_port = htons((uint16_t)port_of(l.fds[0])),
                              .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    for (size_t i = 0; i < 64; i++) {
        clients[i] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        assert_int_equal(connect(clients[i], (struct sockaddr *)&in, sizeof(in)), 0);
    }
    size_t accepted[2] = { 0 };
    for (size_t i = 0; i < 2; i++) {
        for (int fd; (fd = accept(l.fds[i], NULL, NULL)) >= 0; close(fd))
            accepted[i]++;
    }
    assert_int_equal(accepted[0] + accepted[1], 64);
    assert_true(accepted[0] > 0 && accepted[1] > 0);
    for (size_t i = 0; i < 64; i++)
        close(clients[i]);
    listener_close(&l);
}

static void listens_on_all_interfaces(void **state)
{
    struct address a = parse(":0");
    struct listener l;
    struct fw_error err = { 0 };
    if (listener_open(&a, 2, &l, 1, &err) != 1)
        fail_msg("%s", err.message);
    assert_int_equal(l.n_fds, 2);
    listener_close(&l);
}

static void listens_by_name(void **state)
{
    struct address a = parse("localhost:0");
    struct listener l[4];
    struct fw_error err = { 0 };
    int n = listener_open(&a, 1, l, 4, &err);
    if (n < 1)
        fail_msg("%s", err.message);
    for (int i = 0; i < n; i++) /* ::1 and 127.0.0.1 share the port that the first one got */
        assert_int_equal(l[i].port, port_of(l[0].fds[0]));
    while (n > 0)
        listener_close(&l[--n]);
    a = parse("no-such-host.invalid:0");
    assert_int_equal(listener_open(&a, 1, l, 4, &err), -EADDRNOTAVAIL);
    a = parse("192.0.2.1:0"); /* TEST-NET: nobody's */
    assert_int_equal(listener_open(&a, 1, l, 4, &err), -EADDRNOTAVAIL);
    assert_non_null(strstr(err.message, "192.0.2.1"));
}

/* ---- Unix sockets ---- */

struct place {
    char dir[64], path[80];
    struct address address;
};

static int make_place(void **state)
{
    struct place *p = calloc(1, sizeof(*p));
    (void)snprintf(p->dir, sizeof(p->dir), "/tmp/fanwire-test-XXXXXX");
    assert_non_null(mkdtemp(p->dir));
    (void)snprintf(p->path, sizeof(p->path), "%s/s", p->dir);
    char text[100];
    (void)snprintf(text, sizeof(text), "unix:%s", p->path);
    p->address = parse(text);
    *state = p;
    return 0;
}

static int remove_place(void **state)
{
    struct place *p = *state;
    (void)unlink(p->path);
    assert_int_equal(rmdir(p->dir), 0);
    free(p);
    return 0;
}

static void unix_socket_is_shared_and_removed(void **state)
{
    struct place *p = *state;
    struct listener l;
    struct stat st;
    assert_int_equal(listener_open(&p->address, 4, &l, 1, NULL), 1);
    assert_int_equal(l.n_fds, 1);
    assert_int_equal(stat(p->path, &st), 0);
    listener_close(&l);
    assert_int_equal(stat(p->path, &st), -1);
}

static void unix_socket_of_a_dead_server_is_replaced(void **state)
{
    struct place *p = *state;
    struct listener dead, l;
    assert_int_equal(listener_open(&p->address, 1, &dead, 1, NULL), 1);
    dead.path[0] = '\0'; /* dies without cleaning up */
    listener_close(&dead);
    assert_int_equal(listener_open(&p->address, 1, &l, 1, NULL), 1);
    listener_close(&l);
}

static void unix_socket_of_a_living_server_is_left_alone(void **state)
{
    struct place *p = *state;
    struct listener alive, l;
    struct fw_error err = { 0 };
    struct stat st;
    assert_int_equal(listener_open(&p->address, 1, &alive, 1, NULL), 1);
    assert_int_equal(listener_open(&p->address, 1, &l, 1, &err), -EADDRINUSE);
    assert_int_equal(stat(p->path, &st), 0);
    listener_close(&alive);
}

static void a_file_that_is_no_socket_is_left_alone(void **state)
{
    struct place *p = *state;
    struct listener l;
    struct stat st;
    int fd = open(p->path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    close(fd);
    assert_int_equal(listener_open(&p->address, 1, &l, 1, NULL), -EEXIST);
    assert_int_equal(stat(p->path, &st), 0);
}

static void a_successors_socket_is_not_removed(void **state)
{
    struct place *p = *state;
    struct listener old, l;
    struct stat st;
    assert_int_equal(listener_open(&p->address, 1, &old, 1, NULL), 1);
    assert_int_equal(unlink(p->path), 0);
    assert_int_equal(listener_open(&p->address, 1, &l, 1, NULL), 1);
    listener_close(&old);
    assert_int_equal(stat(p->path, &st), 0);
    listener_close(&l);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(opens_a_socket_per_worker_on_one_port),
        cmocka_unit_test(refuses_a_port_that_another_server_has),
        cmocka_unit_test(spreads_connections_over_the_sockets),
        cmocka_unit_test(listens_on_all_interfaces),
        cmocka_unit_test(listens_by_name),
        cmocka_unit_test_setup_teardown(unix_socket_is_shared_and_removed, make_place,
                                        remove_place),
        cmocka_unit_test_setup_teardown(unix_socket_of_a_dead_server_is_replaced, make_place,
                                        remove_place),
        cmocka_unit_test_setup_teardown(unix_socket_of_a_living_server_is_left_alone, make_place,
                                        remove_place),
        cmocka_unit_test_setup_teardown(a_file_that_is_no_socket_is_left_alone, make_place,
                                        remove_place),
        cmocka_unit_test_setup_teardown(a_successors_socket_is_not_removed, make_place,
                                        remove_place),
    };
    return cmocka_run_group_tests_name("listener", tests, NULL, NULL);
}
