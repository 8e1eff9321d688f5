/* HTTP/1.1: answers, problems, and what becomes of the connection afterwards. */
#include "http.h"
#include "http_session.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#define RESPONSE_KEPT_MAX (2u << 20) /* of the scratch memory that answers are made in */

/* RFC 9110 6.6.1: a server with a clock says what it shows. Made anew once a second. */
const char *http_date(struct worker *w)
{
    time_t now = w->wall_ms / 1000;
    struct tm tm;
    if (now != w->date_of && gmtime_r(&now, &tm)) {
        w->date_of = now;
        (void)strftime(w->date, sizeof(w->date), "%a, %d %b %Y %H:%M:%S GMT", &tm);
    }
    return w->date;
}

bool http_has_field(const char *fields, const char *name)
{
    size_t len = strlen(name);
    for (const char *line = fields; *line;) {
        if (strncasecmp(line, name, len) == 0 && line[len] == ':')
            return true;
        const char *end = strchr(line, '\n');
        line = end ? end + 1 : line + strlen(line);
    }
    return false;
}

void http_respond(struct worker *w, struct conn *c, unsigned status, const char *type,
                  const char *fields, const void *body, size_t len)
{
    bool keep = c->flags & CONN_KEEP && !w->draining;
    c->flags = keep ? c->flags : c->flags & ~(uint32_t)CONN_KEEP;
    struct buf *out = &w->response;
    buf_clear(out);
    buf_printf(out, "HTTP/1.1 %u %s\r\nDate: %s\r\n", status, http_status_text(status),
               http_date(w));
    if (type)
        buf_printf(out, "Content-Type: %s\r\n", type);
    if (status != 204 && status != 304)
        buf_printf(out, "Content-Length: %zu\r\n", len);
    buf_printf(out, "%sX-Content-Type-Options: nosniff\r\n%s%s\r\n", fields,
               http_has_field(fields, "Cache-Control") ? "" : "Cache-Control: no-store\r\n",
               keep ? "" : "Connection: close\r\n");
    if (!(c->flags & CONN_HEAD) && len)
        buf_append(out, body, len);
    if (out->failed) {
        conn_kill(w, c, 1011);
        return;
    }
    conn_send_large(w, c, out->data, out->len);
    if (out->cap > RESPONSE_KEPT_MAX)
        buf_done(out);
}

void http_problem(struct worker *w, struct conn *c, enum error_code code, const char *detail)
{
    http_problem_with(w, c, code, detail, "");
}

void http_problem_with(struct worker *w, struct conn *c, enum error_code code, const char *detail,
                       const char *member)
{
    count(&w->counters->rejected[code], 1);
    struct buf *body = &w->text;
    buf_clear(body);
    if (problem_body(body, code, code_status(code), detail) == 0 && *member)
        body->len--; /* its last brace comes after the member */
    if (*member)
        (void)buf_printf(body, "%s}", member);
    char fields[FIELDS_MAX + 64];
    const char *kept = c->more ? c->more->fields : "";
    bool later = code == CODE_OVERLOADED || code == CODE_SOURCE_DOWN || code == CODE_RESTART;
    (void)snprintf(fields, sizeof(fields), "%s%s", kept, later ? "Retry-After: 2\r\n" : "");
    http_respond(w, c, code_status(code), "application/problem+json", fields, body->data,
                 body->len);
}

void http_answered(struct worker *w, struct conn *c)
{
    if (c->state == CONN_DEAD)
        return;
    c->state = CONN_HTTP;
    c->flags &= ~(uint32_t)(CONN_HEAD | CONN_BODY);
    if (c->more)
        c->more->fields[0] = 0;
    if (!(c->flags & CONN_KEEP)) {
        conn_end(w, c, 1000);
        return;
    }
    c->flags &= ~(uint32_t)CONN_KEEP;
    conn_arm(w, c);
    /* The next request may be here already. Not parsed from here: answers would nest as deep as
     * requests are pipelined. With nothing more to come, reading finds the end. */
    bool more = (c->more && c->more->in.len) || c->flags & CONN_EOF;
    if (more && !list_linked(&c->readable))
        list_push(&w->readable, &c->readable);
    conn_trim(c);
}

void http_refuse(struct worker *w, struct conn *c, enum error_code code, const char *detail)
{
    http_problem(w, c, code, detail);
    http_answered(w, c);
}

void http_bad_head(struct worker *w, struct conn *c, unsigned status, const char *detail)
{
    bool large = status == 413 || status == 414 || status == 431;
    enum error_code code = large           ? CODE_TOO_LARGE
                           : status == 501 ? CODE_NOT_SUPPORTED
                                           : CODE_BAD_REQUEST;
    count(&w->counters->rejected[code], 1);
    struct buf *body = &w->text;
    buf_clear(body);
    problem_body(body, code, status, detail ? detail : http_status_text(status));
    c->flags &= ~(uint32_t)(CONN_KEEP | CONN_HEAD);
    http_respond(w, c, status, "application/problem+json", "", body->data, body->len);
    http_answered(w, c);
}
