/* The log's memory: what creating makes, what the seals forbid, what attaching refuses. */
#include "child.h"
#include "layout.h"
#include "log.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static struct log *create(uint64_t size)
{
    struct log *log = NULL;
    assert_int_equal(log_create(size, &log), 0);
    assert_non_null(log);
    return log;
}

static uint64_t append(struct log *log, const char *channel, const char *text)
{
    return log_append(log, &(struct log_event){ .channel = channel,
                                                .channel_len = strlen(channel),
                                                .data = text,
                                                .len = strlen(text) });
}

/* ---- creating ---- */

static void sizes_are_rounded_up(void **state)
{
    static const uint64_t sizes[][2] = { { 0, LOG_SIZE_MIN },
                                         { 1, LOG_SIZE_MIN },
                                         { LOG_SIZE_MIN, LOG_SIZE_MIN },
                                         { LOG_SIZE_MIN + 1, 2 * LOG_SIZE_MIN },
                                         { 1000000, 1 << 20 } };
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        struct log *log = create(sizes[i][0]);
        assert_int_equal(log_size(log), sizes[i][1]);
        assert_int_equal(log_event_max(log), sizes[i][1] / 16);
        log_close(log);
    }
}

static void absurd_sizes_are_refused(void **state)
{
    struct log *log = NULL;
    assert_int_equal(log_create(UINT64_MAX, &log), -EINVAL);
    assert_int_equal(log_create(LOG_SIZE_MAX + 1, &log), -EINVAL);
    assert_null(log);
}

static void a_new_log_is_empty(void **state)
{
    struct log *log = create(0);
    char why[128] = "";
    assert_int_equal(log_tail(log), log_size(log));
    assert_int_equal(log_indexed(log), log_size(log));
    assert_int_equal(log_head(log), log_size(log));
    assert_false(log_used(log));
    assert_false(log_up(log));
    assert_int_equal(log_beat(log), 0);
    assert_int_equal(log_identity(log), 0);
    assert_int_equal(log_oldest_time_ms(log), 0);
    assert_int_equal(log_check(log, why, sizeof(why)), 0);
    log_close(log);
}

static void two_logs_have_nothing_in_common(void **state)
{
    struct log *a = create(0), *b = create(0);
    assert_int_not_equal(log_epoch(a), log_epoch(b));
    assert_int_not_equal(log_hash(a, "todos", 5), log_hash(b, "todos", 5));
    assert_int_not_equal(log_epoch(a), a->header->secret[0]);
    log_close(a);
    log_close(b);
}

static void memory_is_allocated_at_once(void **state)
{
    struct log *log = create(1 << 20);
    struct stat st;
    assert_int_equal(fstat(log_fd(log), &st), 0);
    assert_true(st.st_blocks * 512 >= st.st_size);
    log_close(log);
}

static void too_little_memory_is_an_error(void **state)
{
    const pid_t pid = fork_child();
    assert_true(pid >= 0);
    if (pid == 0) { /* a limit on file sizes stands for a full machine */
        struct log *log = NULL;
        (void)signal(SIGXFSZ, SIG_IGN);
        (void)setrlimit(RLIMIT_FSIZE, &(struct rlimit){ 4096, 4096 });
        _exit(log_create(1 << 20, &log) == -EFBIG && !log ? 0 : 1);
    }
    int status = -1;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
}

static void closing_nothing_is_allowed(void **state)
{
    log_close(NULL);
}

/* ---- seals ---- */

static void the_descriptor_does_not_leak(void **state)
{
    struct log *log = create(0);
    assert_int_equal(fcntl(log_fd(log), F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
    log_close(log);
}

static void assert_no_writable_mapping(int fd, size_t size)
{
    errno = 0;
    assert_ptr_equal(mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0), MAP_FAILED);
    assert_int_equal(errno, EPERM);
}

static void no_second_writable_mapping(void **state)
{
    struct log *log = create(0);
    char path[64];
    assert_no_writable_mapping(log_fd(log), log->map_size);
    (void)snprintf(path, sizeof(path), "/proc/self/fd/%d", log_fd(log));
    const int again = open(path, O_RDWR | O_CLOEXEC);
    assert_true(again >= 0);
    assert_no_writable_mapping(again, log->map_size);
    assert_int_equal(close(again), 0);
    assert_int_not_equal(append(log, "todos", "the first mapping still writes"), 0);
    log_close(log);
}

static void the_file_cannot_be_changed(void **state)
{
    struct log *log = create(0);
    const int fd = log_fd(log);
    const off_t size = (off_t)log->map_size;
    assert_int_equal(ftruncate(fd, 0), -1);
    assert_int_equal(errno, EPERM);
    assert_int_equal(ftruncate(fd, 2 * size), -1);
    assert_int_equal(errno, EPERM);
    assert_int_equal(pwrite(fd, "x", 1, 0), -1);
    assert_int_equal(errno, EPERM);
    assert_int_equal(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4096), -1);
    assert_int_equal(errno, EPERM);
    assert_int_equal(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE), -1);
    assert_int_equal(errno, EPERM);
    log_close(log);
}

static void an_attached_mapping_stays_read_only(void **state)
{
    struct log *log = create(0), *reader = NULL;
    assert_int_equal(log_attach(log_fd(log), &reader), 0);
    assert_int_equal(mprotect(reader->header, reader->map_size, PROT_READ | PROT_WRITE), -1);
    assert_int_equal(errno, EACCES);
    log_close(reader);
    log_close(log);
}

/* ---- attaching ---- */

static void a_reader_sees_what_the_writer_does(void **state)
{
    struct log *log = create(0), *reader = NULL;
    struct log_record record;
    uint64_t buf[8];
    assert_int_equal(log_attach(log_fd(log), &reader), 0);
    assert_int_equal(log_fd(reader), -1);
    assert_int_equal(log_size(reader), log_size(log));
    assert_int_equal(log_epoch(reader), log_epoch(log));
    assert_int_equal(log_hash(reader, "todos", 5), log_hash(log, "todos", 5));

    const uint64_t off = append(log, "todos", "hello");
    log_set_up(log, true);
    log_set_beat(log, 42);
    log_set_identity(log, 7);
    assert_true(log_up(reader));
    assert_int_equal(log_beat(reader), 42);
    assert_int_equal(log_identity(reader), 7);
    assert_true(log_used(reader));
    assert_int_equal(log_peek(reader, off, &record), 1);
    assert_int_equal(log_body(reader, &record, buf), 1);
    assert_string_equal(record.channel, "todos");
    assert_string_equal((const char *)record.data, "hello");
    log_close(reader);
    log_close(log);
}

static void an_attached_log_outlives_its_descriptor(void **state)
{
    struct log *log = create(0), *reader = NULL;
    const uint64_t off = append(log, "todos", "hello");
    struct log_record record;
    assert_int_equal(log_attach(log_fd(log), &reader), 0);
    log_close(log);
    assert_int_equal(log_peek(reader, off, &record), 1);
    log_close(reader);
}

static void assert_refused(int fd)
{
    struct log *log = NULL;
    assert_true(fd >= 0);
    assert_int_equal(log_attach(fd, &log), -EPROTO);
    assert_null(log);
    assert_int_equal(close(fd), 0);
}

static void descriptors_of_other_things_are_refused(void **state)
{
    int ends[2];
    struct log *log = NULL;
    char path[] = "/tmp/fanwire-test-XXXXXX";
    assert_int_equal(log_attach(-1, &log), -EBADF);
    assert_refused(open("/dev/zero", O_RDWR | O_CLOEXEC));
    assert_refused(open("/", O_RDONLY | O_CLOEXEC));
    assert_int_equal(pipe(ends), 0);
    assert_refused(ends[0]);
    assert_refused(ends[1]);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
    assert_refused(ends[0]);
    assert_refused(ends[1]);
    const int file = mkstemp(path);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(ftruncate(file, 1 << 20), 0);
    assert_refused(file);
}

/* A memfd with the bytes of a real log, one word changed, cut to `size`, sealed by `seals`. */
static int forge(size_t word, uint64_t value, size_t size, int seals)
{
    struct log *log = create(0);
    const int fd = memfd_create("forged", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, log->header, log->map_size), log->map_size);
    assert_int_equal(pwrite(fd, &value, 8, (off_t)(8 * word)), 8);
    assert_int_equal(ftruncate(fd, (off_t)(size ? size : log->map_size)), 0);
    assert_int_equal(fcntl(fd, F_ADD_SEALS, seals), 0);
    log_close(log);
    return fd;
}

enum { WORD_MAGIC, WORD_VERSION, WORD_SIZE };

static void forged_logs_are_refused(void **state)
{
    const int all = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_FUTURE_WRITE | F_SEAL_SEAL;
    struct log *log = NULL;
    const int good = forge(WORD_MAGIC, LOG_MAGIC, 0, all);
    assert_int_equal(log_attach(good, &log), 0);
    log_close(log);
    assert_int_equal(close(good), 0);

    assert_refused(forge(WORD_MAGIC, LOG_MAGIC + 1, 0, all));
    assert_refused(forge(WORD_VERSION, LOG_VERSION + 1, 0, all));
    assert_refused(forge(WORD_SIZE, 0, 0, all));
    assert_refused(forge(WORD_SIZE, LOG_SIZE_MIN - 1, 0, all));
    assert_refused(forge(WORD_SIZE, 3 * LOG_SIZE_MIN, 0, all));
    assert_refused(forge(WORD_SIZE, 2 * LOG_SIZE_MIN, 0, all));
    assert_refused(forge(WORD_SIZE, UINT64_MAX, 0, all));
    assert_refused(forge(WORD_SIZE, UINT64_C(1) << 63, 0, all));
    assert_refused(forge(WORD_MAGIC, LOG_MAGIC, 4095, all));
    assert_refused(forge(WORD_MAGIC, LOG_MAGIC, 4096, all));
    assert_refused(forge(WORD_MAGIC, LOG_MAGIC, 1 << 20, all));
}

/* Without its seals a log could be cut under its reader, who would die of SIGBUS. */
static void unsealed_logs_are_refused(void **state)
{
    assert_refused(forge(WORD_MAGIC, LOG_MAGIC, 0, 0));
    assert_refused(forge(WORD_MAGIC, LOG_MAGIC, 0, F_SEAL_GROW | F_SEAL_SEAL));
    assert_refused(forge(WORD_MAGIC, LOG_MAGIC, 0, F_SEAL_SHRINK | F_SEAL_GROW));
}

/* ---- the writer lock ---- */

/* A child that tries the lock tells by its exit status. */
static int lock_in_child(struct log *log)
{
    const pid_t pid = fork_child();
    assert_true(pid >= 0);
    if (pid == 0)
        _exit(-log_lock_writer(log));
    int status = -1;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    return -WEXITSTATUS(status);
}

static void one_process_holds_the_writer_lock(void **state)
{
    struct log *log = create(0);
    assert_int_equal(lock_in_child(log), 0); /* its end released it */
    assert_int_equal(log_lock_writer(log), 0);
    assert_int_equal(lock_in_child(log), -EAGAIN);
    assert_int_equal(log_lock_writer(log), 0);
    log_close(log);
}

static void a_killed_writer_leaves_no_lock(void **state)
{
    struct log *log = create(0);
    int ready[2];
    char byte;
    assert_int_equal(pipe(ready), 0);
    const pid_t pid = fork_child();
    assert_true(pid >= 0);
    if (pid == 0) {
        if (log_lock_writer(log) < 0 || write(ready[1], "x", 1) != 1)
            _exit(1);
        for (;;)
            (void)pause();
    }
    assert_int_equal(read(ready[0], &byte, 1), 1);
    assert_int_equal(log_lock_writer(log), -EAGAIN);
    assert_int_equal(kill(pid, SIGKILL), 0);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
    assert_int_equal(log_lock_writer(log), 0);
    assert_int_equal(close(ready[0]), 0);
    assert_int_equal(close(ready[1]), 0);
    log_close(log);
}

static void readers_cannot_take_the_lock(void **state)
{
    struct log *log = create(0), *reader = NULL;
    assert_int_equal(log_attach(log_fd(log), &reader), 0);
    assert_int_equal(log_lock_writer(reader), -EBADF);
    log_close(reader);
    log_close(log);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sizes_are_rounded_up),
        cmocka_unit_test(absurd_sizes_are_refused),
        cmocka_unit_test(a_new_log_is_empty),
        cmocka_unit_test(two_logs_have_nothing_in_common),
        cmocka_unit_test(memory_is_allocated_at_once),
        cmocka_unit_test(too_little_memory_is_an_error),
        cmocka_unit_test(closing_nothing_is_allowed),
        cmocka_unit_test(the_descriptor_does_not_leak),
        cmocka_unit_test(no_second_writable_mapping),
        cmocka_unit_test(the_file_cannot_be_changed),
        cmocka_unit_test(an_attached_mapping_stays_read_only),
        cmocka_unit_test(a_reader_sees_what_the_writer_does),
        cmocka_unit_test(an_attached_log_outlives_its_descriptor),
        cmocka_unit_test(descriptors_of_other_things_are_refused),
        cmocka_unit_test(forged_logs_are_refused),
        cmocka_unit_test(unsealed_logs_are_refused),
        cmocka_unit_test(one_process_holds_the_writer_lock),
        cmocka_unit_test(a_killed_writer_leaves_no_lock),
        cmocka_unit_test(readers_cannot_take_the_lock),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
