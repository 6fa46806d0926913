/* Runs one call of the Hub's client, for hub_test.py: the waits short, the parts small. Prints the
 * path that it came to, or the error; the exit code is the status.
 * With -a the call is made again and again, each time with one more allocation before memory ends.
 *   driver [-b BACK_OFF] [-p PART_BYTES] [-c CONNECTIONS] [-s STALL_SECONDS] [-a
 * FAILING_ALLOCATION] resolve NAME | config NAME | pull NAME | dataset REPO REVISION FILE */
#include "core/alloc.h"
#include "core/json.h"
#include "hub/hub.h"
#include "hub/settings.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static volatile sig_atomic_t interrupted;

static void on_signal(int number)
{
    (void)number;
    interrupted = 1;
}

static bool on_progress(void *context, const char *stage, uint64_t done, uint64_t total)
{
    (void)context;
    if (strncmp(stage, BG_STAGE_NOTE, strlen(BG_STAGE_NOTE)) == 0) fprintf(stderr, "%s\n", stage);
    if (strncmp(stage, BG_STAGE_DOWNLOADING, strlen(BG_STAGE_DOWNLOADING)) == 0 && total &&
        done > total)
        fprintf(stderr, "more done than there is: %llu of %llu\n", (unsigned long long)done,
                (unsigned long long)total);
    return !interrupted;
}

static bg_status call(int argc, char **argv, char **path, bg_error *err)
{
    const bg_progress progress = {on_progress, NULL};
    if (argc == 2 && strcmp(argv[0], "resolve") == 0)
        return bg_hub_resolve_model(argv[1], false, progress, path, err);
    if (argc == 2 && strcmp(argv[0], "config") == 0)
        return bg_hub_resolve_model(argv[1], true, progress, path, err);
    if (argc == 2 && strcmp(argv[0], "pull") == 0)
        return bg_pull(argv[1], false, progress, path, err);
    if (argc == 4 && strcmp(argv[0], "dataset") == 0)
        return bg_hub_dataset_file(argv[1], *argv[2] ? argv[2] : NULL, argv[3], progress, path,
                                   err);
    return bg_fail(err, BG_ERR_USAGE, "see the top of this file");
}

int main(int argc, char **argv)
{
    bg_error err = {0};
    char *path = NULL;
    bool failing = false;
    bg_hub_tune.back_off = 0.01;
    for (int option; (option = getopt(argc, argv, "+b:p:c:s:a")) != -1;) {
        if (option == 'b') bg_hub_tune.back_off = atof(optarg);
        if (option == 'p') bg_hub_tune.part_bytes = strtoul(optarg, NULL, 10);
        if (option == 'c') bg_hub_tune.connections = atoi(optarg);
        if (option == 's') bg_hub_tune.stall_seconds = atoi(optarg);
        if (option == 'a') failing = true;
    }
    bg_hub_tune.unit_bytes = bg_hub_tune.part_bytes / 16;
    signal(SIGINT, on_signal);
    bg_json_init();
    bg_status status = BG_ERR_MEMORY;
    for (long n = 0; status == BG_ERR_MEMORY && n < 100000; n++) {
        bg_alloc_fail_after(failing ? n : -1);
        status = call(argc - optind, argv + optind, &path, &err);
        if (!failing) break;
    }
    bg_alloc_fail_after(-1);
    if (status == BG_OK)
        printf("%s\n", path);
    else
        fprintf(stderr, "%s\n", err.message);
    bg_free(path);
    return (int)status;
}
