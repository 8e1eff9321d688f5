/* Packets of the control inbox: what is written reads back, anything else is refused. */
#include "inbox.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

static const struct inbox_message sample = { .type = INBOX_PUBLISH,
                                             .more = true,
                                             .code = 513,
                                             .a = 0x0102030405060708,
                                             .b = 4,
                                             .texts = { { "channel", 7 }, { NULL, 0 }, { "x", 1 } },
                                             .data = "data",
                                             .len = 4 };

/* A packet exactly as long as its allocation, so that a sanitizer sees any step beyond. */
static char *packet_of(const struct inbox_message *message, size_t *ret_size)
{
    size_t head = inbox_head_size(message);
    char *buf = malloc(INBOX_REPLY_MAX);
    assert_int_equal(inbox_encode_head(buf, message), head);
    char *packet = malloc(head + message->len);
    memcpy(packet, buf, head);
    if (message->len)
        memcpy(packet + head, message->data, message->len);
    free(buf);
    *ret_size = head + message->len;
    return packet;
}

static void messages_read_back(void **state)
{
    for (int type = INBOX_HELLO; type < INBOX_N_TYPES; type++) {
        struct inbox_message in = sample, out;
        size_t size;
        in.type = (enum inbox_type)type;
        char *packet = packet_of(&in, &size);
        assert_int_equal(inbox_decode(packet, size, &out), 0);
        assert_int_equal(out.type, type);
        assert_true(out.more);
        assert_int_equal(out.code, 513);
        assert_true(out.a == in.a && out.b == in.b);
        assert_string_equal(out.texts[0].text, "channel");
        assert_string_equal(out.texts[1].text, "");
        assert_int_equal(out.texts[2].len, 1);
        assert_int_equal(out.len, 4);
        assert_memory_equal(out.data, "data", 4);
        free(packet);
    }
}

static void long_texts_are_cut(void **state)
{
    char text[INBOX_TEXT_MAX + 100], head[INBOX_REPLY_MAX];
    memset(text, 'a', sizeof(text));
    struct inbox_message in = { .type = INBOX_REFUSED, .texts = { { text, sizeof(text) } } }, out;
    size_t size = inbox_encode_head(head, &in);
    assert_int_equal(inbox_decode(head, size, &out), 0);
    assert_int_equal(out.texts[0].len, INBOX_TEXT_MAX);
}

static void every_cut_packet_is_refused(void **state)
{
    struct inbox_message out;
    size_t size;
    char *whole = packet_of(&sample, &size);
    for (size_t cut = 0; cut < size; cut++) {
        char *part = malloc(cut ? cut : 1);
        memcpy(part, whole, cut);
        assert_int_equal(inbox_decode(part, cut, &out), -EPROTO);
        free(part);
    }
    free(whole);
}

static void changed_packets_never_point_outside(void **state)
{
    size_t size;
    char *packet = packet_of(&sample, &size);
    for (size_t i = 0; i < size; i++)
        for (unsigned value = 0; value < 256; value += 5) {
            struct inbox_message out;
            char was = packet[i];
            packet[i] = (char)value;
            if (inbox_decode(packet, size, &out) == 0) {
                size_t sum = out.len;
                for (int t = 0; t < INBOX_TEXTS; t++) {
                    assert_int_equal(out.texts[t].text[out.texts[t].len], '\0');
                    sum += out.texts[t].len;
                }
                assert_true(sum < size);
                assert_ptr_equal((const char *)out.data + out.len, packet + size);
            }
            packet[i] = was;
        }
    free(packet);
}

static void unknown_types_are_refused(void **state)
{
    struct inbox_message in = sample, out;
    size_t size;
    char *packet = packet_of(&in, &size);
    packet[0] = 0;
    assert_int_equal(inbox_decode(packet, size, &out), -EPROTO);
    packet[0] = INBOX_N_TYPES;
    assert_int_equal(inbox_decode(packet, size, &out), -EPROTO);
    free(packet);
}

static void make_pair(int ends[2])
{
    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends),
                     0);
}

static void descriptors_travel(void **state)
{
    char buf[INBOX_FRAGMENT_MAX];
    int ends[2], got[2], event = eventfd(7, EFD_CLOEXEC | EFD_NONBLOCK);
    eventfd_t value;
    make_pair(ends);
    assert_int_equal(inbox_send(ends[0], &sample, &event, 1), 0);
    assert_true(inbox_receive(ends[1], buf, sizeof(buf), got) > 0);
    assert_true(got[0] >= 0);
    assert_int_equal(got[1], -1);
    assert_int_equal(eventfd_read(got[0], &value), 0);
    assert_int_equal(value, 7);
    assert_true(fcntl(got[0], F_GETFD) & FD_CLOEXEC);
    close(got[0]);
    close(event);
    close(ends[0]);
    close(ends[1]);
}

/* A reader could fill the source process's table with descriptors that nobody asked for. */
static void unwanted_descriptors_are_closed(void **state)
{
    char buf[INBOX_FRAGMENT_MAX];
    int ends[2], pipe_fds[2];
    make_pair(ends);
    assert_int_equal(pipe2(pipe_fds, O_CLOEXEC | O_NONBLOCK), 0);
    assert_int_equal(inbox_send(ends[0], &sample, &pipe_fds[1], 1), 0);
    close(pipe_fds[1]);
    assert_true(inbox_receive(ends[1], buf, sizeof(buf), NULL) > 0);
    assert_int_equal(read(pipe_fds[0], buf, 1), 0); /* no writer is left */
    close(pipe_fds[0]);
    close(ends[0]);
    close(ends[1]);
}

static void ends_and_oversize_are_told(void **state)
{
    char buf[INBOX_FRAGMENT_MAX + 1] = { 0 };
    int ends[2];
    make_pair(ends);
    assert_int_equal(inbox_receive(ends[1], buf, INBOX_FRAGMENT_MAX, NULL), -EAGAIN);
    assert_int_equal(send(ends[0], buf, sizeof(buf), 0), sizeof(buf));
    assert_int_equal(inbox_receive(ends[1], buf, INBOX_FRAGMENT_MAX, NULL), -EPROTO);
    assert_int_equal(inbox_send(ends[0], &sample, NULL, 0), 0);
    close(ends[0]);
    assert_true(inbox_receive(ends[1], buf, INBOX_FRAGMENT_MAX, NULL) > 0);
    assert_int_equal(inbox_receive(ends[1], buf, INBOX_FRAGMENT_MAX, NULL), 0);
    assert_int_equal(inbox_send(ends[1], &sample, NULL, 0), -EPIPE);
    close(ends[1]);
}

static void a_full_inbox_says_again(void **state)
{
    char buf[INBOX_FRAGMENT_MAX];
    int ends[2], r, n = 0;
    make_pair(ends);
    while ((r = inbox_send(ends[0], &sample, NULL, 0)) == 0)
        n++;
    assert_int_equal(r, -EAGAIN);
    for (; n > 0; n--)
        assert_true(inbox_receive(ends[1], buf, sizeof(buf), NULL) > 0);
    assert_int_equal(inbox_receive(ends[1], buf, sizeof(buf), NULL), -EAGAIN);
    close(ends[0]);
    close(ends[1]);
}

/* The kernel tells ECONNRESET before what the other end had sent; that is not lost. */
static void what_was_sent_before_leaving_is_read(void **state)
{
    char buf[INBOX_FRAGMENT_MAX];
    int ends[2];
    make_pair(ends);
    assert_int_equal(inbox_send(ends[1], &sample, NULL, 0), 0); /* never read by the other end */
    assert_int_equal(inbox_send(ends[0], &sample, NULL, 0), 0);
    close(ends[0]);
    assert_true(inbox_receive(ends[1], buf, sizeof(buf), NULL) > 0);
    assert_int_equal(inbox_receive(ends[1], buf, sizeof(buf), NULL), 0);
    close(ends[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(messages_read_back),
        cmocka_unit_test(long_texts_are_cut),
        cmocka_unit_test(every_cut_packet_is_refused),
        cmocka_unit_test(changed_packets_never_point_outside),
        cmocka_unit_test(unknown_types_are_refused),
        cmocka_unit_test(descriptors_travel),
        cmocka_unit_test(unwanted_descriptors_are_closed),
        cmocka_unit_test(ends_and_oversize_are_told),
        cmocka_unit_test(a_full_inbox_says_again),
        cmocka_unit_test(what_was_sent_before_leaving_is_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
