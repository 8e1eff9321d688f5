/* Log lines: both formats, levels, journald, untrusted values. */
#include "logline.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#define NOW_MS INT64_C(1795335302113) /* 2026-11-22T08:15:02.113Z */

static int out_fd = -1;

static struct logger logger_to_pipe(bool json, bool journal)
{
    int fds[2];
    assert_int_equal(pipe2(fds, O_CLOEXEC | O_NONBLOCK), 0);
    out_fd = fds[0];
    return (struct logger){ .fd = fds[1], .level = FW_LOG_INFO, .json = json, .journal = journal };
}

static const char *written(struct logger *logger)
{
    static char text[16384];
    ssize_t n = read(out_fd, text, sizeof(text) - 1);
    text[n > 0 ? n : 0] = '\0';
    close(out_fd);
    close(logger->fd);
    return text;
}

static void write_line(const struct logger *logger, enum fw_log_level level)
{
    struct logline line;
    logline_begin(&line, logger, level, "source", "postgres", "lost", NOW_MS);
    logline_text(&line, "code", "source-down");
    logline_int(&line, "attempt", 1);
    logline_text(&line, "msg", "server closed the \"connection\"\nlevel=error");
    logline_end(&line);
}

static void text_looks_as_documented(void **state)
{
    struct logger logger = logger_to_pipe(false, false);
    write_line(&logger, FW_LOG_WARNING);
    assert_string_equal(written(&logger),
                        "2026-11-22T08:15:02.113Z level=warning source=postgres event=lost "
                        "code=source-down attempt=1 "
                        "msg=\"server closed the \\\"connection\\\"\\nlevel=error\"\n");
}

static void under_journald_there_is_a_priority_and_no_time(void **state)
{
    struct logger logger = logger_to_pipe(false, true);
    write_line(&logger, FW_LOG_WARNING);
    assert_memory_equal(written(&logger), "<4>level=warning source=postgres event=lost ", 44);
}

static void json_is_json_with_the_same_keys(void **state)
{
    struct logger logger = logger_to_pipe(true, false);
    write_line(&logger, FW_LOG_WARNING);
    json_t *line = json_loads(written(&logger), JSON_REJECT_DUPLICATES, NULL);
    assert_non_null(line);
    assert_string_equal(json_string_value(json_object_get(line, "time")),
                        "2026-11-22T08:15:02.113Z");
    assert_string_equal(json_string_value(json_object_get(line, "level")), "warning");
    assert_string_equal(json_string_value(json_object_get(line, "source")), "postgres");
    assert_string_equal(json_string_value(json_object_get(line, "event")), "lost");
    assert_int_equal(json_integer_value(json_object_get(line, "attempt")), 1);
    assert_string_equal(json_string_value(json_object_get(line, "msg")),
                        "server closed the \"connection\"\nlevel=error");
    json_decref(line);
}

static void what_is_above_the_level_is_not_written(void **state)
{
    struct logger logger = logger_to_pipe(false, false);
    write_line(&logger, FW_LOG_DEBUG);
    assert_string_equal(written(&logger), "");
}

static void words_become_fields(void **state)
{
    struct logger logger = logger_to_pipe(false, true);
    struct logline line;
    logline_begin(&line, &logger, FW_LOG_INFO, "source", "postgres", "opened", NOW_MS);
    logline_words(&line, "mode=notify guarantee=\"live \\\"events\\\"\" and so on x=1");
    logline_end(&line);
    assert_string_equal(written(&logger), "<6>level=info source=postgres event=opened mode=notify "
                                          "guarantee=\"live \\\"events\\\"\" "
                                          "msg=\"and so on x=1\"\n");
}

static void odd_words_stay_text(void **state)
{
    static const char *const texts[] = { "=", "a", "a=\"open", "a=\"x\"y", "A=1", "", "a=\"\\" };
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        struct logger logger = logger_to_pipe(true, false);
        struct logline line;
        logline_begin(&line, &logger, FW_LOG_INFO, "source", "x", "y", NOW_MS);
        logline_words(&line, texts[i]);
        logline_end(&line);
        json_t *root = json_loads(written(&logger), 0, NULL);
        assert_non_null(root);
        const char *msg = json_string_value(json_object_get(root, "msg"));
        assert_string_equal(msg ? msg : "", texts[i]);
        json_decref(root);
    }
}

static void untrusted_bytes_make_one_line(void **state)
{
    char value[3000];
    for (size_t i = 0; i < sizeof(value); i++)
        value[i] = (char)(i % 255 + 1);
    value[sizeof(value) - 1] = '\0';
    for (int json = 0; json < 2; json++) {
        struct logger logger = logger_to_pipe(json, false);
        struct logline line;
        logline_begin(&line, &logger, FW_LOG_INFO, "source", value, "x", NOW_MS);
        logline_text(&line, "msg", value);
        logline_end(&line);
        const char *text = written(&logger);
        size_t len = strlen(text);
        assert_true(len > 100 && len < 8192);
        assert_ptr_equal(strchr(text, '\n'), text + len - 1);
        for (size_t i = 0; i + 1 < len; i++)
            assert_true((unsigned char)text[i] >= 0x20);
        json_t *root = json ? json_loads(text, 0, NULL) : json_null();
        assert_non_null(root);
        json_decref(root);
    }
}

static void a_full_pipe_does_not_block(void **state)
{
    struct logger logger = logger_to_pipe(false, false);
    for (size_t i = 0; i < 3; i++) {
        char block[1 << 16] = { 0 };
        int flags = fcntl(logger.fd, F_GETFL);
        assert_int_equal(fcntl(logger.fd, F_SETFL, flags | O_NONBLOCK), 0);
        while (write(logger.fd, block, sizeof(block)) > 0)
            ;
        assert_int_equal(fcntl(logger.fd, F_SETFL, flags & ~O_NONBLOCK), 0);
        write_line(&logger, FW_LOG_INFO); /* the test would hang here */
    }
    close(out_fd);
    close(logger.fd);
}

static void journal_is_recognised_by_its_inode(void **state)
{
    struct stat st;
    char stream[64];
    assert_int_equal(fstat(STDERR_FILENO, &st), 0);
    (void)snprintf(stream, sizeof(stream), "%ju:%ju", (uintmax_t)st.st_dev, (uintmax_t)st.st_ino);
    assert_int_equal(setenv("JOURNAL_STREAM", stream, 1), 0);
    assert_true(logger_make(FW_LOG_INFO, false).journal);
    assert_int_equal(setenv("JOURNAL_STREAM", "1:1", 1), 0);
    assert_false(logger_make(FW_LOG_INFO, false).journal);
    assert_int_equal(unsetenv("JOURNAL_STREAM"), 0);
    assert_false(logger_make(FW_LOG_INFO, false).journal);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(text_looks_as_documented),
        cmocka_unit_test(under_journald_there_is_a_priority_and_no_time),
        cmocka_unit_test(json_is_json_with_the_same_keys),
        cmocka_unit_test(what_is_above_the_level_is_not_written),
        cmocka_unit_test(words_become_fields),
        cmocka_unit_test(odd_words_stay_text),
        cmocka_unit_test(untrusted_bytes_make_one_line),
        cmocka_unit_test(a_full_pipe_does_not_block),
        cmocka_unit_test(journal_is_recognised_by_its_inode),
    };
    return cmocka_run_group_tests_name("logline", tests, NULL, NULL);
}
