/* What serve understands: defaults, environment, flags, and that wrong ones are refused with a
 * sentence; the URL's way out of arguments and environment. */
#include "options.h"

#include "flags.h"

#include <fanwire.h>

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define ARGS_MAX 12

/* Parses; the arguments are copies, as title_init() makes them, and freed by the next call. */
static char *args[ARGS_MAX];

static int parse(struct server_options *o, struct fw_error *err, ...)
{
    int argc = 0;
    for (size_t i = 0; i < ARGS_MAX; i++) {
        free(args[i]);
        args[i] = NULL;
    }
    args[argc++] = strdup("serve");
    va_list list;
    va_start(list, err);
    for (const char *arg; (arg = va_arg(list, const char *));)
        args[argc++] = strdup(arg);
    va_end(list);
    *err = (struct fw_error){ 0 };
    return server_options_parse(o, argc, args, err);
}

#define GOOD(o, ...)                                                                               \
    do {                                                                                           \
        struct fw_error err_;                                                                      \
        if (parse(o, &err_, __VA_ARGS__, NULL) != 0)                                               \
            fail_msg("%s", err_.message);                                                          \
    } while (0)

#define BAD(part, ...)                                                                             \
    do {                                                                                           \
        struct fw_error err_;                                                                      \
        struct server_options o_;                                                                  \
        assert_int_equal(parse(&o_, &err_, __VA_ARGS__, NULL), -EINVAL);                           \
        if (!strstr(err_.message, part))                                                           \
            fail_msg("\"%s\" is not in: %s", part, err_.message);                                  \
    } while (0)

static int clean(void **state)
{
    extern char **environ;
    for (size_t i = 0; environ[i];) {
        char name[64];
        size_t len = strcspn(environ[i], "=");
        if (strncmp(environ[i], "FANWIRE_", 8) != 0 || len >= sizeof(name)) {
            i++;
            continue;
        }
        memcpy(name, environ[i], len);
        name[len] = '\0';
        (void)unsetenv(name);
    }
    return 0;
}

static void defaults_are_the_documented_ones(void **state)
{
    struct server_options o;
    GOOD(&o, "memory:");
    assert_string_equal(o.source, "memory:");
    assert_int_equal(o.n_http, 1);
    assert_string_equal(o.http[0].host, "127.0.0.1");
    assert_int_equal(o.http[0].port, 4600);
    assert_true(o.admin_on);
    assert_int_equal(o.admin.port, 4601);
    assert_true(o.workers >= 1);
    assert_int_equal(o.retain, 64 << 20);
    assert_int_equal(o.linger_ms, 60000);
    assert_int_equal(o.log_level, FW_LOG_INFO);
    assert_false(o.log_json);
    assert_int_equal(o.settings.drain_ms, 30000);
    assert_int_equal(o.settings.send_buffer, 128 << 10);
    assert_int_equal(o.settings.head_timeout_ms, 10000);
    assert_int_equal(o.settings.heartbeat_s, 25);
    assert_string_equal(o.settings.base_path, "/");
    assert_false(o.settings.dev);
    assert_int_equal(o.settings.public_read.count, 0);
    server_options_done(&o);
}

static void flags_win_over_environment(void **state)
{
    struct server_options o;
    (void)setenv("FANWIRE_RETAIN", "1M", 1);
    (void)setenv("FANWIRE_LINGER", "5s", 1);
    (void)setenv("FANWIRE_PUBLIC", "a b:*", 1);
    (void)setenv("FANWIRE_ORIGIN", "https://a.example", 1);
    (void)setenv("FANWIRE_LOG_FORMAT", "json", 1);
    (void)setenv("FANWIRE_ECHO", "yes", 1);
    (void)setenv("FANWIRE_ADMIN", "", 1); /* empty is unset */
    GOOD(&o, "--retain", "2M", "--origin=https://b.example", "--origin", "*",
         "memory:", "--http=:0", "--http", "unix:/tmp/x");
    assert_int_equal(o.retain, 2 << 20);
    assert_int_equal(o.linger_ms, 5000);
    assert_int_equal(o.settings.public_read.count, 2);
    assert_string_equal(o.settings.public_read.items[1], "b:*");
    assert_int_equal(o.settings.origins.count, 2);
    assert_string_equal(o.settings.origins.items[0], "https://b.example");
    assert_int_equal(o.n_http, 2);
    assert_string_equal(o.http[1].path, "/tmp/x");
    assert_true(o.log_json);
    assert_true(o.settings.echo);
    assert_int_equal(o.admin.port, 4601);
    server_options_done(&o);
}

static void a_wrong_environment_is_refused_by_its_name(void **state)
{
    (void)setenv("FANWIRE_DRAIN", "30", 1);
    BAD("FANWIRE_DRAIN", "memory:");
    (void)unsetenv("FANWIRE_DRAIN");
    (void)setenv("FANWIRE_JWT_KEY", "/etc/key", 1);
    BAD("no tokens", "memory:");
}

static void hosts_are_names(void **state)
{
    struct server_options o;
    GOOD(&o, "--host", "app.example", "--host=[::1]", "memory:");
    assert_int_equal(o.settings.hosts.count, 2);
    assert_string_equal(o.settings.hosts.items[1], "[::1]");
    server_options_done(&o);
    GOOD(&o, "--dev", "--host", "app.example");
    assert_int_equal(o.settings.hosts.count, 4);
    server_options_done(&o);
    (void)setenv("FANWIRE_HOST", "a.example b.example", 1);
    GOOD(&o, "memory:");
    assert_int_equal(o.settings.hosts.count, 2);
    server_options_done(&o);
    (void)unsetenv("FANWIRE_HOST");
    BAD("--host", "--host", "https://app.example", "memory:");
    BAD("--host", "--host", "app.example:80", "memory:");
    BAD("--host", "--host", "::1", "memory:");
    BAD("--host", "--host", "*.example", "memory:");
}

static void dev_needs_nothing_and_stays_at_home(void **state)
{
    struct server_options o;
    GOOD(&o, "--dev");
    assert_string_equal(o.source, "memory:");
    assert_true(o.settings.dev);
    assert_int_equal(o.settings.drain_ms, 0);
    server_options_done(&o);
    BAD("this machine only", "--dev", "--http", ":4600");
    BAD("this machine only", "--dev", "--http", "127.0.0.1:0", "--http", "10.0.0.1:80");
}

static void without_a_source_it_names_the_choices(void **state)
{
    struct fw_error err;
    struct server_options o;
    assert_int_equal(parse(&o, &err, NULL), -EINVAL);
    assert_non_null(strstr(err.message, "memory:"));
    assert_non_null(strstr(err.message, "stdin:"));
    assert_non_null(strstr(err.message, "postgres://"));
    BAD("one SOURCE", "memory:", "memory:");
}

static void refuses_bad_values(void **state)
{
    BAD("--retain", "--retain", "64 apples", "memory:");
    BAD("between", "--retain", "1K", "memory:");
    BAD("its unit", "--linger", "60", "memory:");
    BAD("between", "--heartbeat", "1s", "memory:");
    BAD("between", "--heartbeat", "2m", "memory:");
    BAD("not a number", "--workers", "-1", "memory:");
    BAD("between", "--workers", "100000", "memory:");
    BAD("error|warning", "--log-level", "loud", "memory:");
    BAD("HOST:PORT", "--http", "nowhere", "memory:");
    BAD("HOST:PORT", "--admin", "nowhere", "memory:");
    BAD("--base-path", "--base-path", "live", "memory:");
    BAD("--base-path", "--base-path", "/live/", "memory:");
    BAD("--base-path", "--base-path", "/a?b", "memory:");
    BAD("--public", "--public", "", "memory:");
    BAD("--public", "--public", "a\nb", "memory:");
    BAD("{sub}", "--public", "user:{sub}", "memory:");
    BAD("--origin", "--origin", "example.com", "memory:");
    BAD("--origin", "--origin", "https://a.example/", "memory:");
    BAD("--origin", "--origin", "HTTPS://a.example", "memory:");
    BAD("needs an argument", "memory:", "--retain");
    BAD("unknown option --retian", "--retian", "1M", "memory:");
    BAD("unknown option -x", "-x", "memory:");
    BAD("yes or no", "--dev=perhaps");
}

static void says_what_this_version_does_not_have(void **state)
{
    BAD("not in this version", "--jwt-key", "/etc/key", "memory:");
    BAD("not in this version", "--config=/etc/fanwire.ini");
    BAD("not in this version", "memory:", "--tls-cert");
    BAD("not in this version", "--user", "nobody", "memory:");
}

static void help_works_whatever_else_is_wrong(void **state)
{
    struct fw_error err;
    struct server_options o;
    (void)setenv("FANWIRE_DRAIN", "x", 1);
    assert_int_equal(parse(&o, &err, "--help", NULL), 1);
    assert_int_equal(parse(&o, &err, "memory:", "-h", NULL), 1);
}

static void mode_becomes_a_parameter_of_the_url(void **state)
{
    static const char *const cases[][2] = {
        { "postgres://h/d", "postgres://h/d?mode=notify" },
        { "postgresql://h/d?sslmode=require", "postgresql://h/d?sslmode=require&mode=notify" },
        { "postgres://h/d?mode=notify", "postgres://h/d?mode=notify" },
        { "postgres://h/d#f", "postgres://h/d?mode=notify#f" },
        { "postgres://h/d?a=b#mode=x", "postgres://h/d?a=b&mode=notify#mode=x" },
        { "postgresql+psycopg://h/d", "postgresql+psycopg://h/d?mode=notify" },
        { "postgres://u:a#b@h/d", "postgres://u:a#b@h/d?mode=notify" },
        { "postgres://u:a?b@h/d", "postgres://u:a?b@h/d?mode=notify" },
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct server_options o;
        GOOD(&o, "--mode", "notify", cases[i][0]);
        assert_string_equal(o.source, cases[i][1]);
        server_options_done(&o);
    }
    BAD("contradicts", "--mode", "notify", "postgres://h/d?x=1&mode=wal");
    BAD("postgres:// sources only", "--mode", "notify", "memory:");
    BAD("--mode", "--mode", "a&b=c", "postgres://h/d");
}

static void the_secret_leaves_arguments_and_environment(void **state)
{
    struct server_options o;
    GOOD(&o, "postgres://u:hunter2@h/d");
    assert_string_equal(o.source, "postgres://u:hunter2@h/d");
    for (size_t i = 0; i < ARGS_MAX; i++)
        assert_true(!args[i] || !strstr(args[i], "hunter2"));
    server_options_forget_source(&o);
    assert_null(o.source);
    server_options_done(&o);

    (void)setenv("FANWIRE_SOURCE", "postgres://u:hunter2@h/d", 1);
    char *variable = getenv("FANWIRE_SOURCE");
    GOOD(&o, "--echo");
    assert_string_equal(o.source, "postgres://u:hunter2@h/d");
    assert_string_equal(getenv("FANWIRE_SOURCE"), "");
    assert_string_equal(variable, "");
    server_options_done(&o);
}

static void urls_are_shown_without_secrets(void **state)
{
    static const char *const cases[][2] = {
        { "postgres://u:hunter2@h:5/d", "postgres://u@h:5/d" },
        { "postgres://u:p@ss:w/rd@h/d", "postgres://u@h/d" },
        { "postgres://u@h/d?password=hunter2", "postgres://u@h/d" },
        { "postgres://h/d", "postgres://h/d" },
        { "postgres:///d?user=u", "postgres:///d" },
        { "memory:", "memory:" },
        { "stdin:todos", "stdin:todos" },
        { "postgres://:hunter2@h", "postgres://@h" },
        { "x#hunter2", "x" },
        { "postgres://u:hunt#er2@h/d", "postgres://u@h/d" },
        { "postgres://u:hunt?er2@h/d?mode=auto", "postgres://u@h/d" },
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char out[128];
        assert_string_equal(url_redact(out, sizeof(out), cases[i][0]), cases[i][1]);
    }
}

static int drop_args(void **state)
{
    for (size_t i = 0; i < ARGS_MAX; i++)
        free(args[i]);
    return 0;
}

/* What a program sets stands between the environment and the command line. */
static void a_programs_own_source(void **state)
{
    (void)state;
    static const struct {
        const char *own, *given, *want;
    } cases[] = {
        { "memory:own", NULL, "memory:own" },
        { "memory:own", "memory:given", "memory:given" },
        { "", NULL, "memory:env" },
        { NULL, NULL, "memory:env" },
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct server_options o;
        struct fw_error err;
        char name[] = "serve", given[32] = "", own[32] = "";
        if (cases[i].given)
            strcpy(given, cases[i].given);
        if (cases[i].own)
            strcpy(own, cases[i].own);
        char *argv[] = { name, given, NULL };
        setenv("FANWIRE_SOURCE", "memory:env", 1);
        assert_int_equal(server_options_parse_for(&o, cases[i].own ? own : NULL,
                                                  cases[i].given ? 2 : 1, argv, &err),
                         0);
        assert_string_equal(o.source, cases[i].want);
        assert_string_equal(own, ""); /* wiped in every case */
        assert_string_equal(getenv("FANWIRE_SOURCE"), "");
        server_options_done(&o);
    }
}

static void snapshots_are_cut_in_two(void **state)
{
    struct server_options o;
    (void)setenv("FANWIRE_SNAPSHOT", "a=SELECT 1\n\nb=with t as (select 2) table t", 1);
    GOOD(&o, "sqlite:x");
    assert_int_equal(o.n_snapshots, 2);
    assert_string_equal(o.snapshots[0].channel, "a");
    assert_string_equal(o.snapshots[0].sql, "SELECT 1");
    server_options_done(&o);
    (void)unsetenv("FANWIRE_SNAPSHOT");
    GOOD(&o, "--snapshot", "todos=\n SELECT id = 1 FROM todos ; ", "sqlite:x");
    assert_int_equal(o.n_snapshots, 1);
    assert_string_equal(o.snapshots[0].sql, "SELECT id = 1 FROM todos");
    assert_string_equal(o.settings.snapshots.items[0], "todos");
    server_options_done(&o);
    BAD("write CHANNEL=SELECT", "--snapshot", "todos", "sqlite:x");
    BAD("write CHANNEL=SELECT", "--snapshot", "todos=", "sqlite:x");
    BAD("write CHANNEL=SELECT", "--snapshot", "todos=DROP TABLE todos", "sqlite:x");
    BAD("write CHANNEL=SELECT", "--snapshot", "todos=selected", "sqlite:x");
    BAD("is no channel", "--snapshot", "=SELECT 1", "sqlite:x");
    BAD("is no channel", "--snapshot", "$fanwire/a=SELECT 1", "sqlite:x");
    BAD("has two", "--snapshot", "a=SELECT 1", "--snapshot", "a=SELECT 2", "sqlite:x");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(defaults_are_the_documented_ones, clean),
        cmocka_unit_test_setup(a_programs_own_source, clean),
        cmocka_unit_test_setup(flags_win_over_environment, clean),
        cmocka_unit_test_setup(a_wrong_environment_is_refused_by_its_name, clean),
        cmocka_unit_test_setup(hosts_are_names, clean),
        cmocka_unit_test_setup(dev_needs_nothing_and_stays_at_home, clean),
        cmocka_unit_test_setup(without_a_source_it_names_the_choices, clean),
        cmocka_unit_test_setup(refuses_bad_values, clean),
        cmocka_unit_test_setup(says_what_this_version_does_not_have, clean),
        cmocka_unit_test_setup(help_works_whatever_else_is_wrong, clean),
        cmocka_unit_test_setup(mode_becomes_a_parameter_of_the_url, clean),
        cmocka_unit_test_setup(the_secret_leaves_arguments_and_environment, clean),
        cmocka_unit_test_setup(urls_are_shown_without_secrets, clean),
        cmocka_unit_test_setup(snapshots_are_cut_in_two, clean),
    };
    return cmocka_run_group_tests_name("options", tests, NULL, drop_args);
}
