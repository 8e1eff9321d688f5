/* What the doctor found, as a list, and how it is printed. */
#include "doctor_report.h"

#include "json.h"
#include "terminal.h"

#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#define FINDINGS_MAX 512
#define TEXT_MAX     8192
#define WIDTH        96
#define INDENT       11

static const char *const level_names[] = { "ok", "note", "warning", "problem" };

/* ---- the list ---- */

struct finding *report_add(struct report *report, enum level level, const char *id,
                           const char *title, ...)
{
    if (report->n == report->size) {
        size_t size = report->size ? report->size * 2 : 32;
        struct finding *grown =
            size > FINDINGS_MAX ? NULL : reallocarray(report->findings, size, sizeof(*grown));
        report->failed |= !grown;
        if (!grown)
            return NULL;
        report->findings = grown;
        report->size = size;
    }
    struct finding *finding = &report->findings[report->n++];
    *finding = (struct finding){ .level = level,
                                 .id = id,
                                 .title = buf_make(TEXT_MAX),
                                 .detail = buf_make(TEXT_MAX),
                                 .commands = buf_make(TEXT_MAX),
                                 .facts = buf_make(TEXT_MAX) };
    char text[TEXT_MAX];
    va_list args;
    va_start(args, title);
    (void)vsnprintf(text, sizeof(text), title, args);
    va_end(args);
    (void)buf_append_str(&finding->title, text);
    return finding;
}

void report_done(struct report *report)
{
    for (size_t i = 0; i < report->n; i++) {
        buf_done(&report->findings[i].title);
        buf_done(&report->findings[i].detail);
        buf_done(&report->findings[i].commands);
        buf_done(&report->findings[i].facts);
    }
    free(report->findings);
    *report = (struct report){ 0 };
}

void finding_detail(struct finding *finding, const char *format, ...)
{
    if (!finding)
        return;
    char text[TEXT_MAX];
    va_list args;
    va_start(args, format);
    (void)vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    if (finding->detail.len > 0)
        (void)buf_append_char(&finding->detail, ' ');
    (void)buf_append_str(&finding->detail, text);
}

void finding_quote(struct finding *finding, const char *text)
{
    size_t len = strlen(text);
    finding_detail(finding, "%s%s", text, len > 0 && strchr(".?!", text[len - 1]) ? "" : ".");
}

void finding_command(struct finding *finding, const char *format, ...)
{
    if (!finding)
        return;
    char text[TEXT_MAX];
    va_list args;
    va_start(args, format);
    (void)vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    (void)buf_append(&finding->commands, text, strlen(text) + 1);
}

static void put_name(struct buf *facts, const char *name)
{
    (void)buf_append_char(facts, ',');
    (void)json_append_string(facts, name, strlen(name));
    (void)buf_append_char(facts, ':');
}

void finding_text(struct finding *finding, const char *name, const char *value)
{
    if (!finding || !value)
        return;
    put_name(&finding->facts, name);
    (void)json_append_string(&finding->facts, value, strlen(value));
}

void finding_number(struct finding *finding, const char *name, int64_t value)
{
    if (!finding)
        return;
    put_name(&finding->facts, name);
    (void)buf_printf(&finding->facts, "%jd", (intmax_t)value);
}

void finding_flag(struct finding *finding, const char *name, bool value)
{
    if (!finding)
        return;
    put_name(&finding->facts, name);
    (void)buf_append_str(&finding->facts, value ? "true" : "false");
}

/* ---- what follows ---- */

bool report_has_problem(const struct report *report)
{
    for (size_t i = 0; i < report->n; i++)
        if (report->findings[i].level == LEVEL_PROBLEM)
            return true;
    return false;
}

int report_exit_code(const struct report *report, bool require_durable)
{
    if (report->unreachable)
        return 3;
    if (report->failed || report_has_problem(report))
        return 1;
    return require_durable && !report->durable ? 5 : 0;
}

/* ---- for people ---- */

static void put(FILE *out, const struct buf *text)
{
    if (text->len > 0)
        terminal_write(out, text->data, text->len);
}

static size_t columns(const char *text, size_t len)
{
    size_t n = 0;
    for (size_t i = 0; i < len; i++)
        n += ((unsigned char)text[i] & 0xC0) != 0x80;
    return n;
}

/* Breaks lines between words; the first line is indented already. */
static void put_wrapped(FILE *out, const struct buf *text, size_t indent)
{
    size_t at = indent;
    const char *p = (const char *)text->data, *end = p + text->len;
    while (p && p < end) {
        const char *space = memchr(p, ' ', (size_t)(end - p));
        size_t len = (size_t)((space ? space : end) - p), n = columns(p, len);
        if (at > indent && at + 1 + n > WIDTH) {
            (void)fprintf(out, "\n%*s", (int)indent, "");
            at = indent;
        } else if (at > indent) {
            (void)fputc(' ', out);
            at++;
        }
        terminal_write(out, p, len);
        at += n;
        p += len + 1;
    }
}

static void print_finding(const struct finding *f, FILE *out, bool colours)
{
    static const char *const codes[] = { "\033[32m", "\033[36m", "\033[33m", "\033[1;31m" };
    const char *name = level_names[f->level];
    (void)fprintf(out, "  %s%-8s%s ", colours ? codes[f->level] : "", name,
                  colours ? "\033[0m" : "");
    put_wrapped(out, &f->title, INDENT);
    (void)fputc('\n', out);
    if (f->detail.len > 0) {
        (void)fprintf(out, "%*s", INDENT, "");
        put_wrapped(out, &f->detail, INDENT);
        (void)fputc('\n', out);
    }
    for (size_t at = 0; at < f->commands.len;) {
        const char *command = (const char *)f->commands.data + at;
        struct buf line = { .data = (uint8_t *)command, .len = strlen(command) };
        (void)fprintf(out, "%*s$ ", INDENT + 2, "");
        put(out, &line);
        (void)fputc('\n', out);
        at += line.len + 1;
    }
}

static int end_of(FILE *out)
{
    return fflush(out) != 0 || ferror(out) ? -EIO : 0;
}

static void print_mode(const struct report *report, FILE *out)
{
    struct buf line = buf_make(TEXT_MAX);
    (void)buf_printf(&line, "Mode %s (%s): %s. %s.", report->mode, report->why, report->promise,
                     report->durable ? "Durable" : "Not durable");
    (void)fputc('\n', out);
    put_wrapped(out, &line, 0);
    (void)fputc('\n', out);
    buf_done(&line);
}

int report_print(const struct report *report, FILE *out, bool colours)
{
    (void)fputs("fanwire doctor ", out);
    terminal_write(out, report->source, strlen(report->source));
    (void)fputs("\n\n", out);
    for (size_t i = 0; i < report->n; i++)
        print_finding(&report->findings[i], out, colours);
    if (report->mode[0])
        print_mode(report, out);
    if (report->unreachable)
        (void)fputs("\nThe source cannot be reached.\n", out);
    else if (report->mode[0] && report_has_problem(report))
        (void)fputs("It cannot be served until the problems above are mended.\n", out);
    return end_of(out);
}

/* ---- for programs ---- */

static void put_text(struct buf *json, const char *name, const char *text, size_t len)
{
    put_name(json, name);
    (void)json_append_string(json, text, len);
}

static void put_commands(struct buf *json, const struct buf *commands)
{
    (void)buf_append_str(json, ",\"commands\":[");
    for (size_t at = 0; at < commands->len;) {
        const char *command = (const char *)commands->data + at;
        if (at > 0)
            (void)buf_append_char(json, ',');
        (void)json_append_string(json, command, strlen(command));
        at += strlen(command) + 1;
    }
    (void)buf_append_char(json, ']');
}

static void put_finding(struct buf *json, const struct finding *f)
{
    (void)buf_append_str(json, "{\"id\":");
    (void)json_append_string(json, f->id, strlen(f->id));
    put_text(json, "level", level_names[f->level], strlen(level_names[f->level]));
    put_text(json, "title", (const char *)f->title.data, f->title.len);
    put_text(json, "detail", f->detail.data ? (const char *)f->detail.data : "", f->detail.len);
    put_commands(json, &f->commands);
    if (f->facts.len > 0)
        (void)buf_append(json, f->facts.data, f->facts.len);
    (void)buf_append_char(json, '}');
}

int report_print_json(const struct report *report, FILE *out, int exit_code)
{
    struct buf json = buf_make((size_t)FINDINGS_MAX * 4 * TEXT_MAX);
    (void)buf_append_str(&json, "{\"source\":");
    (void)json_append_string(&json, report->source, strlen(report->source));
    put_text(&json, "kind", report->kind, strlen(report->kind));
    if (report->mode[0]) {
        put_text(&json, "mode", report->mode, strlen(report->mode));
        put_text(&json, "promise", report->promise, strlen(report->promise));
    } else {
        (void)buf_append_str(&json, ",\"mode\":null,\"promise\":null");
    }
    (void)buf_printf(&json, ",\"durable\":%s,\"exit\":%d,\"findings\":[",
                     report->durable ? "true" : "false", exit_code);
    for (size_t i = 0; i < report->n; i++) {
        (void)buf_append_str(&json, i > 0 ? ",\n" : "\n");
        put_finding(&json, &report->findings[i]);
    }
    (void)buf_append_str(&json, "\n]}\n");
    int r = json.failed ? -EIO : 0;
    if (r == 0)
        (void)fwrite(json.data, 1, json.len, out);
    buf_done(&json);
    return r < 0 ? r : end_of(out);
}
