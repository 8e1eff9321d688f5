/* A program that is the server: a page, two routes and a stream of notes, which are kept in memory.
 * A real program opens its database in start() (struct fw_application). */
#include <fanwire/server.h>

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define N_NOTES 100

static struct {
    pthread_mutex_t mutex; /* handlers run in several threads */
    char text[N_NOTES][200];
} notes = { .mutex = PTHREAD_MUTEX_INITIALIZER };

/* The note that the path names; -1: there is none, and that was the answer. */
static int find(struct fw_request *request)
{
    const char *text = fw_request_param(request, "id");
    char same[12];
    long id = strtol(text, NULL, 10);
    (void)snprintf(same, sizeof(same), "%ld", id);
    if (id >= 0 && id < N_NOTES && strcmp(text, same) == 0) /* "07" would be another channel */
        return (int)id;
    (void)fw_request_problem(request, 404, "not-found", "notes are numbered from 0 to 99");
    return -1;
}

static void get_note(struct fw_request *request, void *arg)
{
    int id = find(request);
    if (id < 0)
        return;
    pthread_mutex_lock(&notes.mutex);
    (void)fw_request_answer(request, 200, "text/plain", notes.text[id], strlen(notes.text[id]));
    pthread_mutex_unlock(&notes.mutex);
}

static void post_note(struct fw_request *request, void *arg)
{
    size_t len;
    const char *body = fw_request_body(request, &len);
    int id = find(request);
    if (id < 0)
        return;
    pthread_mutex_lock(&notes.mutex);
    (void)snprintf(notes.text[id], sizeof(notes.text[id]), "%s", body);
    pthread_mutex_unlock(&notes.mutex);
    (void)fw_request_answer(request, 204, NULL, NULL, 0);
}

/* First the note as it is, then every event of its channel. */
static void follow_note(struct fw_request *request, void *arg)
{
    int id = find(request);
    if (id < 0)
        return;
    pthread_mutex_lock(&notes.mutex);
    (void)fw_request_message(request, notes.text[id], strlen(notes.text[id]));
    pthread_mutex_unlock(&notes.mutex);
    (void)fw_request_accept(request);
}

int main(int argc, char **argv)
{
    static const char page[] = "<!doctype html><title>Notes</title><p>There are notes.";
    struct fw_error err = { 0 };
    struct fw_server *server;
    if (fw_server_new(&server, &err) < 0 ||
        fw_server_asset(server, "/", "text/html", page, strlen(page), &err) < 0 ||
        fw_server_route(server, "GET", "/api/notes/{id}", get_note, NULL, &err) < 0 ||
        fw_server_route(server, "POST", "/api/notes/{id}", post_note, NULL, &err) < 0 ||
        fw_server_stream(server, "/api/notes/{id}", "notes:{id}", follow_note, NULL, &err) < 0)
        return fprintf(stderr, "%s\n", err.message), 1;
    int code = fw_server_run(server, argc, argv, &err);
    if (err.message[0])
        (void)fprintf(stderr, "%s\n", err.message);
    fw_server_free(server);
    return code;
}
