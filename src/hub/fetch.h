/* Files of one commit of a repository, from the Hub into the cache. */
#ifndef BG_HUB_FETCH_H
#define BG_HUB_FETCH_H

#include "hub/cache.h"
#include "hub/files.h"
#include "hub/http.h"

typedef struct {
    bg_hub_settings settings;
    bg_repo repo;
    bg_cache cache;
    bg_http http; /* closed where the Hub is not to be asked */
    bool verify;  /* what the cache has is checked against its checksums, too */
} bg_hub;

/* Reads the environment, and opens the cache for `repo`. Released with bg_hub_close, also when this
 * fails. */
bg_status bg_hub_open(const bg_repo *repo, bg_progress progress, bg_hub *out, bg_error *err);
void bg_hub_close(bg_hub *hub);

/* What HEAD says about a file. `reply` is released by the caller, whatever this returns. */
bg_status bg_hub_head(bg_hub *hub, const char *revision, const char *name, bg_reply *reply,
                      bg_error *err);

/* The size of a file as the Hub lists it; -1: not known. */
typedef int64_t (*bg_listed_size)(const void *context, const char *name);

/* Makes every file of `names` part of the snapshot of `commit`, downloading those that are not in
 * the cache, or not in their size, or (hub->verify) not with their checksum. Each is checked
 * against its checksum before it gets its name. */
bg_status bg_hub_fetch(bg_hub *hub, const char *commit, const bg_names *names, bg_listed_size size,
                       const void *context, bg_error *err);

#endif
