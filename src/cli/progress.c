#include "cli/progress.h"

#include "core/clock.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

static volatile sig_atomic_t interrupted;

static void on_signal(int number)
{
    (void)number;
    interrupted = 1;
}

void cli_catch_signals(void)
{
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART | SA_RESETHAND};
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
}

int cli_terminal_width(int fd)
{
    struct winsize size;
    if (!isatty(fd)) return 0;
    if (ioctl(fd, TIOCGWINSZ, &size) == 0 && size.ws_col) return size.ws_col;
    const char *columns = getenv("COLUMNS");
    int width = columns ? atoi(columns) : 0;
    return width > 0 && width < 10000 ? width : 80;
}

static void clear(cli_progress *progress)
{
    if (progress->drawn) fputs("\r\033[K", stderr);
    fflush(stderr);
    progress->drawn = false;
}

/* Copies at most `columns` characters of `from`; control characters become '?'. Returns how many
 * columns were filled, taking each code point for one. */
static int copy_columns(char *to, size_t size, const char *from, int columns)
{
    int used = 0;
    size_t n = 0;
    for (; *from && n + 1 < size; from++) {
        bool continuation = ((unsigned char)*from & 0xC0) == 0x80;
        if (!continuation && used++ == columns) {
            used--;
            break;
        }
        to[n++] = (unsigned char)*from < 0x20 || *from == 0x7F ? '?' : *from;
    }
    to[n] = '\0';
    return used;
}

static void format_seconds(char *out, size_t size, double seconds)
{
    unsigned long whole = seconds > 0 && seconds < 1e7 ? (unsigned long)(seconds + 0.5) : 0;
    if (whole < 60)
        snprintf(out, size, "%lu s", whole);
    else
        snprintf(out, size, "%lu:%02lu", whole / 60, whole % 60);
}

/* "12.3 of 548.1 MB, 5.2 MB/s, ", or nothing where it is not bytes that are counted. */
static void format_bytes(char *out, size_t size, const cli_progress *progress, uint64_t done,
                         uint64_t total, double elapsed)
{
    *out = '\0';
    if (strncmp(progress->stage, BG_STAGE_DOWNLOADING, strlen(BG_STAGE_DOWNLOADING)) != 0) return;
    double new_bytes = done > progress->first ? (double)(done - progress->first) : 0;
    snprintf(out, size, "%.1f of %.1f MB, %.1f MB/s, ", (double)done / 1e6, (double)total / 1e6,
             new_bytes / 1e6 / elapsed);
}

/* "nf4: perplexity, lines  [########........]  50 %  12 s left" in at most `width` columns. */
static void draw(const cli_progress *progress, uint64_t done, uint64_t total, double elapsed,
                 int width)
{
    enum { LONGEST_BAR = 40, SHORTEST_BAR = 8 };
    char right[128], bytes[80], time[32], stage[256];
    if (done > total) done = total;
    const double share = total ? (double)done / (double)total : 0;
    const uint64_t first = progress->first < done ? progress->first : 0;
    const double pace = total ? (double)(done - first) / (double)total : 0;
    format_bytes(bytes, sizeof bytes, progress, done, total, elapsed);
    if (!total || pace < 0.01) {
        format_seconds(time, sizeof time, elapsed);
        snprintf(right, sizeof right, "%s%s", bytes, time);
    } else {
        format_seconds(time, sizeof time, elapsed * (1 - share) / pace);
        snprintf(right, sizeof right, "%s%3d %%  %s left", bytes, (int)(100 * share), time);
    }
    int room = width - 1 - (int)strlen(right) - 2; /* the last column stays free: no line break */
    if (room < 1) return;
    int used = copy_columns(stage, sizeof stage, progress->stage, room);
    int bar = room - used - 4;
    if (bar > LONGEST_BAR) bar = LONGEST_BAR;
    fprintf(stderr, "\r%s  ", stage);
    if (total && bar >= SHORTEST_BAR) {
        int full = (int)(share * bar);
        fputs(progress->color ? "[\033[36m" : "[", stderr);
        for (int i = 0; i < full; i++) fputc('#', stderr);
        fputs(progress->color ? "\033[2m" : "", stderr);
        for (int i = full; i < bar; i++) fputc('.', stderr);
        fputs(progress->color ? "\033[0m]  " : "]  ", stderr);
    }
    fprintf(stderr, "%s\033[K", right);
    fflush(stderr);
}

static bool on_progress(void *context, const char *stage, uint64_t done, uint64_t total)
{
    enum { PER_SECOND = 10 };
    cli_progress *progress = context;
    if (interrupted) {
        clear(progress);
        return false;
    }
    if (strncmp(stage, BG_STAGE_NOTE, strlen(BG_STAGE_NOTE)) == 0) {
        clear(progress);
        fprintf(stderr, "bitgauge: %s\n", stage);
        return true;
    }
    if (!progress->terminal) return true;
    double now = bg_seconds();
    if (strncmp(progress->stage, stage, sizeof progress->stage - 1) != 0) {
        clear(progress);
        snprintf(progress->stage, sizeof progress->stage, "%s", stage);
        progress->began = now;
        progress->first = done;
    }
    if (now - progress->began < 1 || now - progress->drew < 1.0 / PER_SECOND) return true;
    int width = cli_terminal_width(STDERR_FILENO);
    if (width) draw(progress, done, total, now - progress->began, width);
    progress->drew = now;
    progress->drawn = true;
    return true;
}

bg_progress cli_progress_begin(cli_progress *progress)
{
    const char *term = getenv("TERM"), *no_color = getenv("NO_COLOR");
    memset(progress, 0, sizeof *progress);
    progress->terminal = isatty(STDERR_FILENO) && term && *term && strcmp(term, "dumb") != 0;
    progress->color = progress->terminal && !(no_color && *no_color);
    return (bg_progress){on_progress, progress};
}

void cli_progress_end(cli_progress *progress)
{
    clear(progress);
}

bg_status cli_find_model(const char *model, bool config_only, char **directory, bg_error *err)
{
    cli_progress progress;
    cli_catch_signals();
    bg_status status =
        bg_find_model(model, config_only, cli_progress_begin(&progress), directory, err);
    cli_progress_end(&progress);
    /* What comes after it is short, and ends as any program does. */
    signal(SIGINT, SIG_DFL);
    signal(SIGTERM, SIG_DFL);
    return status;
}
