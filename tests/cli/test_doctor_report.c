/* The doctor's list of findings: what follows from it, and how it reads. */
#include "doctor_report.h"

#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* Owned. */
static char *printed(const struct report *report, bool json)
{
    char *text = NULL;
    size_t len = 0;
    FILE *out = open_memstream(&text, &len);
    assert_non_null(out);
    int r = json ? report_print_json(report, out, 7) : report_print(report, out, false);
    assert_int_equal(r, 0);
    assert_int_equal(fclose(out), 0);
    return text;
}

static struct report make(void)
{
    return (struct report){
        .source = "memory:", .kind = "memory", .mode = "notify", .why = "because", .promise = "much"
    };
}

static void exit_codes(void **state)
{
    struct report report = make();
    assert_int_equal(report_exit_code(&report, false), 0);
    assert_int_equal(report_exit_code(&report, true), 5);
    report.durable = true;
    assert_int_equal(report_exit_code(&report, true), 0);
    (void)report_add(&report, LEVEL_WARNING, "a", "a");
    assert_int_equal(report_exit_code(&report, true), 0);
    (void)report_add(&report, LEVEL_PROBLEM, "b", "b");
    assert_int_equal(report_exit_code(&report, true), 1);
    report.unreachable = true;
    assert_int_equal(report_exit_code(&report, true), 3);
    report_done(&report);
}

/* A server's text cannot move the cursor, nor break the JSON. */
static void hostile_texts(void **state)
{
    struct report report = make();
    struct finding *f = report_add(&report, LEVEL_NOTE, "name", "a %s \xff\x1b[2J", "b");
    finding_quote(f, "he said \"no\"\a");
    finding_quote(f, "And left!");
    finding_command(f, "rm '%s'", "\x1b");
    finding_command(f, "second");
    finding_text(f, "text", "\xfe\"");
    finding_text(f, "none", NULL);
    finding_number(f, "number", INT64_MIN);
    finding_flag(f, "flag", true);

    char *text = printed(&report, false);
    assert_null(strpbrk(text, "\x1b\a"));
    assert_non_null(strstr(text, "he said \"no\"\\x07. And left!\n"));
    assert_non_null(strstr(text, "$ second\n"));
    free(text);

    text = printed(&report, true);
    json_t *root = json_loads(text, 0, NULL);
    free(text);
    assert_non_null(root);
    json_t *first = json_array_get(json_object_get(root, "findings"), 0);
    assert_int_equal(json_integer_value(json_object_get(root, "exit")), 7);
    assert_string_equal(json_string_value(json_object_get(first, "level")), "note");
    assert_string_equal(json_string_value(json_object_get(first, "title")),
                        "a b \xEF\xBF\xBD\x1b[2J");
    assert_string_equal(json_string_value(json_object_get(first, "text")), "\xEF\xBF\xBD\"");
    assert_true(json_integer_value(json_object_get(first, "number")) == INT64_MIN);
    assert_true(json_is_true(json_object_get(first, "flag")));
    assert_null(json_object_get(first, "none"));
    assert_int_equal(json_array_size(json_object_get(first, "commands")), 2);
    json_decref(root);
    report_done(&report);
}

static void long_texts_are_wrapped(void **state)
{
    struct report report = make();
    struct finding *f = report_add(&report, LEVEL_OK, "long", "x");
    for (int i = 0; i < 60; i++)
        finding_detail(f, "wörds");
    finding_command(f, "%0200d", 1);
    char *text = printed(&report, false);
    for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n"))
        assert_true(strlen(line) < 120 || strstr(line, "$ 000"));
    free(text);
    report_done(&report);
}

/* It ends somewhere, and says that it is not whole. */
static void there_are_not_too_many(void **state)
{
    struct report report = make();
    struct finding *f = NULL;
    int n = 0;
    while ((f = report_add(&report, LEVEL_OK, "x", "x")))
        n++;
    finding_detail(f, "nowhere");
    finding_quote(f, "nowhere");
    finding_command(f, "nowhere");
    finding_text(f, "a", "b");
    finding_number(f, "a", 1);
    finding_flag(f, "a", true);
    assert_in_range(n, 100, 10000);
    assert_true(report.failed);
    assert_int_equal(report_exit_code(&report, false), 1);
    report_done(&report);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(exit_codes),
        cmocka_unit_test(hostile_texts),
        cmocka_unit_test(long_texts_are_wrapped),
        cmocka_unit_test(there_are_not_too_many),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
