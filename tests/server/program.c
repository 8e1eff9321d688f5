/* A program on the server with handlers that echo, wait, crash, answer later or never: what
 * tests/e2e/test_server_api.py drives. PROGRAM_DIR names a directory of its own: while it has a
 * file "no-start", start() fails; stop() leaves "stopped" there. */
#include <fanwire/server.h>

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Handlers that wait do so until SIGUSR1 comes to the application process. */
static struct {
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    unsigned n_waiting, n_released;
    long stored;
} state = { .mutex = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER };

static struct fw_server *server;

static void path_of(char *out, size_t size, const char *name)
{
    const char *directory = getenv("PROGRAM_DIR");
    (void)snprintf(out, size, "%s/%s", directory ? directory : "/nowhere", name);
}

static void *release_by_signal(void *arg)
{
    int number;
    while (sigwait(arg, &number) == 0) {
        (void)pthread_mutex_lock(&state.mutex);
        state.n_released++;
        (void)pthread_cond_broadcast(&state.changed);
        (void)pthread_mutex_unlock(&state.mutex);
    }
    return NULL;
}

static int start(void *arg)
{
    static sigset_t usr1;
    pthread_t thread;
    char path[512];
    (void)arg;
    path_of(path, sizeof(path), "no-start");
    fw_server_log(server, 6, "starting", "a \"quoted\" word\nand a line");
    (void)sigemptyset(&usr1);
    (void)sigaddset(&usr1, SIGUSR1);
    (void)pthread_sigmask(SIG_BLOCK, &usr1, NULL);
    if (access(path, F_OK) == 0 || pthread_create(&thread, NULL, release_by_signal, &usr1) != 0)
        return -1;
    return pthread_detach(thread);
}

static void stop(void *arg)
{
    char path[512];
    (void)arg;
    path_of(path, sizeof(path), "stopped");
    FILE *file = fopen(path, "w");
    if (file)
        (void)fclose(file);
}

static long number(const char *text)
{
    return text ? strtol(text, NULL, 10) : 0;
}

static void answer_text(struct fw_request *request, const char *text)
{
    (void)fw_request_answer(request, 200, "text/plain", text, strlen(text));
}

/* ---- handlers ---- */

static void crash(struct fw_request *request, void *arg)
{
    (void)request;
    (void)arg;
    _exit(2); /* what would be a wrong configuration in another process */
}

static void crash_hard(struct fw_request *request, void *arg)
{
    (void)request;
    (void)arg;
    abort();
}

static void echo(struct fw_request *request, void *arg)
{
    size_t len;
    const void *body = fw_request_body(request, &len);
    (void)arg;
    (void)fw_request_add_header(request, "X-Method", fw_request_method(request));
    (void)fw_request_answer(request, 201, "application/octet-stream", body, len);
}

static void wait_for_release(void)
{
    (void)pthread_mutex_lock(&state.mutex);
    unsigned seen = state.n_released;
    state.n_waiting++;
    while (state.n_released == seen)
        (void)pthread_cond_wait(&state.changed, &state.mutex);
    state.n_waiting--;
    (void)pthread_mutex_unlock(&state.mutex);
}

static void wait_then_answer(struct fw_request *request, void *arg)
{
    (void)arg;
    wait_for_release();
    answer_text(request, "released");
}

static void waiting(struct fw_request *request, void *arg)
{
    char text[32];
    (void)arg;
    (void)pthread_mutex_lock(&state.mutex);
    (void)snprintf(text, sizeof(text), "%u", state.n_waiting);
    (void)pthread_mutex_unlock(&state.mutex);
    answer_text(request, text);
}

static void never(struct fw_request *request, void *arg)
{
    (void)request;
    (void)arg;
}

static void *answer_later(void *arg)
{
    answer_text(arg, "later");
    return NULL;
}

static void later(struct fw_request *request, void *arg)
{
    pthread_t thread;
    (void)arg;
    if (pthread_create(&thread, NULL, answer_later, request) == 0)
        (void)pthread_detach(thread);
}

static void big(struct fw_request *request, void *arg)
{
    size_t len = (size_t)number(fw_request_query(request, "size"));
    char *body = malloc(len + 1);
    (void)arg;
    if (body)
        memset(body, 'x', len);
    (void)fw_request_answer(request, 200, "text/plain", body, len);
    free(body);
}

/* Takes as long as a database would. */
static void take_a_while(struct fw_request *request, void *arg)
{
    (void)arg;
    (void)usleep(1000);
    answer_text(request, "done");
}

/* What was asked, as the handler sees it. */
static void tell(struct fw_request *request, void *arg)
{
    char text[4096];
    const char *q = fw_request_query(request, "q"), *header = fw_request_header(request, "x-word");
    (void)arg;
    (void)snprintf(text, sizeof(text), "%s %s a=%s b=%s q=%s x-word=%s %s",
                   fw_request_method(request), fw_request_path(request),
                   fw_request_param(request, "a"), fw_request_param(request, "b"), q ? q : "(none)",
                   header ? header : "(none)", fw_request_param(request, "c") ? "?" : ".");
    answer_text(request, text);
}

static void fields(struct fw_request *request, void *arg)
{
    static const char *const pairs[][2] = {
        { "X-Good", "yes" },       { "Set-Cookie", "a=1" },
        { "Set-Cookie", "b=2" },   { "Cache-Control", "max-age=60" },
        { "Content-Length", "7" }, { "connection", "close" },
        { "X Bad", "space" },      { "X-Split", "a\r\nb: c" },
        { "", "empty" },
    };
    char results[64] = "";
    (void)arg;
    for (size_t i = 0; i < sizeof(pairs) / sizeof(pairs[0]); i++) {
        int r = fw_request_add_header(request, pairs[i][0], pairs[i][1]);
        results[i] = r == 0 ? '+' : '-';
    }
    answer_text(request, results);
}

/* Looks like Cache-Control, and is not. */
static void look_alike(struct fw_request *request, void *arg)
{
    (void)arg;
    (void)fw_request_add_header(request, "X-Cache-Control", "1");
    (void)fw_request_add_header(request, "X-Word", "Cache-Control: max-age=60");
    answer_text(request, "?");
}

static void bad_status(struct fw_request *request, void *arg)
{
    (void)arg;
    (void)fw_request_answer(request, 700, NULL, NULL, 0);
}

static void problem(struct fw_request *request, void *arg)
{
    (void)arg;
    (void)fw_request_problem(request, 409, "out-of-\"stock\"", "come back");
}

static void store(struct fw_request *request, void *arg)
{
    (void)arg;
    (void)pthread_mutex_lock(&state.mutex);
    state.stored = number(fw_request_param(request, "n"));
    (void)pthread_mutex_unlock(&state.mutex);
    (void)fw_request_answer(request, 204, NULL, NULL, 0);
}

/* ---- streams ---- */

/* n messages of `size` bytes, or without n the stored number. */
static void follow(struct fw_request *request, void *arg)
{
    const char *n = fw_request_query(request, "n");
    long size = number(fw_request_query(request, "size"));
    char *message = malloc((size_t)size + 32);
    (void)arg;
    for (long i = 0; message && n && i < number(n); i++) {
        memset(message, 'a' + (int)(i % 26), (size_t)size);
        (void)fw_request_message(request, message, (size_t)size);
    }
    if (message && !n) {
        (void)pthread_mutex_lock(&state.mutex);
        int len = snprintf(message, 32, "%ld", state.stored);
        (void)pthread_mutex_unlock(&state.mutex);
        (void)fw_request_message(request, message, (size_t)len);
    }
    free(message);
    (void)fw_request_accept(request);
}

static void wait_then_accept(struct fw_request *request, void *arg)
{
    (void)arg;
    wait_for_release();
    (void)fw_request_message(request, "first", 5);
    (void)fw_request_accept(request);
}

static void refuse(struct fw_request *request, void *arg)
{
    (void)arg;
    (void)fw_request_answer(request, (unsigned)number(fw_request_param(request, "status")),
                            "text/plain", "go away", 7);
}

int main(int argc, char **argv)
{
    static const char page[] = "the program's page";
    static const struct fw_application application = {
        .size = sizeof(application), .name = "program", .n_threads = 2, .start = start, .stop = stop
    };
    static const struct {
        const char *method, *path;
        fw_handler_fn *run;
    } routes[] = {
        { "GET", "/crash", crash },
        { "GET", "/abort", crash_hard },
        { "POST", "/echo", echo },
        { "PUT", "/echo", echo },
        { "PATCH", "/echo", echo },
        { "DELETE", "/echo", echo },
        { "GET", "/wait", wait_then_answer },
        { "POST", "/wait", wait_then_answer },
        { "GET", "/waiting", waiting },
        { "GET", "/never", never },
        { "GET", "/later", later },
        { "GET", "/big", big },
        { "GET", "/slow", take_a_while },
        { "GET", "/tell/{a}/{b}", tell },
        { "GET", "/tell/fixed/{b}", problem },
        { "GET", "/fields", fields },
        { "GET", "/look-alike", look_alike },
        { "GET", "/bad-status", bad_status },
        { "POST", "/store/{n}", store },
    };
    struct fw_error err = { 0 };
    int r = fw_server_new(&server, &err);
    r = r < 0 ? r : fw_server_application(server, &application, &err);
    r = r < 0 ? r : fw_server_asset(server, "/", "text/plain", page, strlen(page), &err);
    for (size_t i = 0; r == 0 && i < sizeof(routes) / sizeof(routes[0]); i++)
        r = fw_server_route(server, routes[i].method, routes[i].path, routes[i].run, NULL, &err);
    r = r < 0 ? r : fw_server_stream(server, "/follow/{id}", "c:{id}", follow, NULL, &err);
    r = r < 0 ? r : fw_server_stream(server, "/hold/{id}", "c:{id}", wait_then_accept, NULL, &err);
    r = r < 0 ? r : fw_server_stream(server, "/refuse/{status}", "r:{status}", refuse, NULL, &err);
    int code = r < 0 ? 1 : fw_server_run(server, argc, argv, &err);
    if (err.message[0])
        (void)fprintf(stderr, "%s\n", err.message);
    fw_server_free(server);
    return code;
}
