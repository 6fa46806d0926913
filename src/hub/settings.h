/* What the environment says about the Hub. */
#ifndef BG_HUB_SETTINGS_H
#define BG_HUB_SETTINGS_H

#include "core/error.h"

#include <stdbool.h>
#include <stddef.h>

typedef struct {
    char *endpoint;                     /* "https://huggingface.co"; no slash at its end */
    char *cache;                        /* the directory of models--ORG--NAME */
    char *token;                        /* NULL: none */
    const char *ca_file, *ca_directory; /* NULL: the system's; borrowed from the environment */
    bool offline;
} bg_hub_settings;

/* Released with bg_hub_settings_free, also when this fails. */
bg_status bg_hub_settings_read(bg_hub_settings *out, bg_error *err);
void bg_hub_settings_free(bg_hub_settings *settings);

/* How a file is downloaded. Tests make the waits short and the parts small. */
typedef struct {
    double back_off;   /* seconds before the second attempt; doubled for each after it */
    size_t part_bytes; /* a file is requested in parts of this size */
    size_t unit_bytes; /* a part is resumed at a multiple of it, of which it is one */
    int connections;   /* at most so many at a time */
    int stall_seconds; /* a connection on which nothing came for so long is given up */
} bg_hub_tuning;

enum { BG_HUB_MAX_CONNECTIONS = 16 };
extern bg_hub_tuning bg_hub_tune;

#endif
