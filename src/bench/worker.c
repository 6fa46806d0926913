#include "bench/worker.h"

#include "core/alloc.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

/* Longer than any answer: the ids and texts of thousands of generations. */
enum { MAX_LINE = 256 << 20, POLL_MS = 100 };

bg_status bg_worker_start(const char *program, const char *label, bg_worker *out, bg_error *err)
{
    *out = (bg_worker){.pid = -1, .in = -1, .out = -1, .label = label};
    int to[2] = {-1, -1}, from[2] = {-1, -1};
    if (pipe2(to, O_CLOEXEC) != 0 || pipe2(from, O_CLOEXEC) != 0) {
        bg_fail(err, BG_ERR_MEMORY, "cannot start a worker: no pipe: %s", strerror(errno));
        if (to[0] >= 0) close(to[0]);
        if (to[1] >= 0) close(to[1]);
        return BG_ERR_MEMORY;
    }
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, to[0], STDIN_FILENO);
    posix_spawn_file_actions_adddup2(&actions, from[1], STDOUT_FILENO);
    const char *path = program ? program : "/proc/self/exe";
    char *const argv[] = {"bitgauge", "worker", NULL};
    int problem = posix_spawn(&out->pid, path, &actions, NULL, argv, environ);
    posix_spawn_file_actions_destroy(&actions);
    close(to[0]);
    close(from[1]);
    out->in = to[1];
    out->out = from[0];
    if (problem == 0) return BG_OK;
    out->pid = -1;
    bg_worker_stop(out);
    return bg_fail(err, BG_ERR_FILE,
                   "%s: cannot be started as a worker: %s; name the bitgauge program", path,
                   strerror(problem));
}

void bg_worker_stop(bg_worker *worker)
{
    if (worker->in >= 0) close(worker->in);
    if (worker->out >= 0) close(worker->out);
    if (worker->pid > 0) {
        kill(worker->pid, SIGKILL);
        while (waitpid(worker->pid, NULL, 0) < 0 && errno == EINTR) {
        }
    }
    bg_free(worker->buffer);
    *worker = (bg_worker){.pid = -1, .in = -1, .out = -1};
}

/* What a worker that stopped answering died of. */
static bg_status died(bg_worker *worker, bg_error *err)
{
    int status = 0;
    pid_t pid = waitpid(worker->pid, &status, 0);
    worker->pid = -1;
    if (pid > 0 && WIFSIGNALED(status)) {
        int sig = WTERMSIG(status);
        return bg_fail(
            err, sig == SIGKILL ? BG_ERR_MEMORY : BG_ERR_INTERNAL,
            sig == SIGKILL
                ? "the worker process was killed (signal %d, %s), probably because memory "
                  "ran out; use a lower precision, a smaller batch, or free memory"
                : "the worker process died of signal %d (%s); please report this",
            sig, strsignal(sig));
    }
    return bg_fail(err, BG_ERR_INTERNAL, "the worker process ended early, with exit code %d",
                   pid > 0 ? WEXITSTATUS(status) : -1);
}

static bg_status send_line(bg_worker *worker, json_t *command, bg_error *err)
{
    char *text = json_dumps(command, JSON_COMPACT);
    if (!text) return bg_fail_memory(err, 4096, "a command");
    size_t n = strlen(text);
    text[n] = '\n'; /* in place of the final NUL: write, not a string, from here on */
    const char *p = text;
    for (n++; n > 0;) {
        ssize_t written = write(worker->in, p, n);
        if (written < 0 && errno == EINTR) continue;
        if (written <= 0) {
            bg_free(text);
            return died(worker, err);
        }
        p += written;
        n -= (size_t)written;
    }
    bg_free(text);
    return BG_OK;
}

/* What the worker last said it was at. */
typedef struct {
    char name[96];
    uint64_t done, total;
} stage_of;

static bool keep_going(const bg_worker *worker, bg_progress progress, const stage_of *at)
{
    char text[128];
    snprintf(text, sizeof text, "%s: %s", worker->label, at->name);
    return !progress.call || progress.call(progress.context, text, at->done, at->total);
}

/* The next line, as JSON. */
static bg_status receive(bg_worker *worker, const stage_of *at, bg_progress progress,
                         json_t **event, bg_error *err)
{
    for (;;) {
        char *newline = worker->size ? memchr(worker->buffer, '\n', worker->size) : NULL;
        if (newline) {
            size_t n = (size_t)(newline - worker->buffer) + 1;
            bg_status status = bg_json_parse(worker->buffer, n - 1, "worker", event, err);
            memmove(worker->buffer, worker->buffer + n, worker->size - n);
            worker->size -= n;
            return status;
        }
        if (worker->capacity - worker->size < 65536) {
            size_t capacity = worker->capacity ? 2 * worker->capacity : 1 << 17;
            char *buffer =
                capacity > MAX_LINE ? NULL : bg_realloc_array(worker->buffer, capacity, 1);
            if (!buffer) return bg_fail_memory(err, capacity, "a worker's answer");
            worker->buffer = buffer;
            worker->capacity = capacity;
        }
        struct pollfd wait = {.fd = worker->out, .events = POLLIN};
        int ready = poll(&wait, 1, POLL_MS);
        if (ready <= 0) {
            if (!keep_going(worker, progress, at))
                return bg_fail(err, BG_ERR_INTERRUPTED, "interrupted");
            continue;
        }
        ssize_t n =
            read(worker->out, worker->buffer + worker->size, worker->capacity - worker->size);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return died(worker, err);
        worker->size += (size_t)n;
    }
}

bg_status bg_worker_ask(bg_worker *worker, const char *command, json_t *arguments,
                        bg_progress progress, json_t **answer, bg_error *err)
{
    *answer = NULL;
    json_t *message = json_pack("{s:s}", "command", command);
    bg_status status = BG_OK;
    if (!message || (arguments && json_object_update(message, arguments) != 0))
        status = bg_fail_memory(err, 4096, "a command");
    json_decref(arguments);
    if (status == BG_OK) status = send_line(worker, message, err);
    json_decref(message);
    stage_of at = {0};
    snprintf(at.name, sizeof at.name, "%s", command);
    for (char *p = at.name; *p; p++)
        if (*p == '_') *p = ' ';
    while (status == BG_OK) {
        json_t *event;
        BG_TRY(receive(worker, &at, progress, &event, err));
        const char *kind = json_string_value(json_object_get(event, "event"));
        if (kind && strcmp(kind, "done") == 0) {
            *answer = json_incref(json_object_get(event, "run"));
            json_decref(event);
            return *answer ? BG_OK
                           : bg_fail(err, BG_ERR_INTERNAL, "worker: an answer without a run");
        }
        if (kind && strcmp(kind, "progress") == 0) {
            const char *text = json_string_value(json_object_get(event, "stage"));
            snprintf(at.name, sizeof at.name, "%s", text ? text : command);
            at.done = (uint64_t)json_integer_value(json_object_get(event, "done"));
            at.total = (uint64_t)json_integer_value(json_object_get(event, "total"));
            if (!keep_going(worker, progress, &at))
                status = bg_fail(err, BG_ERR_INTERRUPTED, "interrupted");
        } else if (kind && strcmp(kind, "error") == 0) {
            const char *text = json_string_value(json_object_get(event, "message"));
            bg_status code = (bg_status)json_integer_value(json_object_get(event, "status"));
            status = bg_fail(err, code ? code : BG_ERR_INTERNAL, "%s", text ? text : "no reason");
        } else {
            status = bg_fail(err, BG_ERR_INTERNAL, "worker: an answer that is not understood");
        }
        json_decref(event);
    }
    return status;
}
