#include "hub/fetch.h"

#include "core/alloc.h"
#include "hub/digest.h"
#include "hub/explain.h"
#include "hub/transfer.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

bg_status bg_hub_open(const bg_repo *repo, bg_progress progress, bg_hub *out, bg_error *err)
{
    *out = (bg_hub){.repo = *repo};
    BG_TRY(bg_hub_settings_read(&out->settings, err));
    BG_TRY(bg_cache_open(out->settings.cache, repo, &out->cache, err));
    if (out->settings.offline) return BG_OK;
    BG_TRY(bg_http_open(&out->settings, progress, &out->http, err));
    snprintf(out->http.stage, sizeof out->http.stage, "asking the Hub for %s", repo->id);
    return BG_OK;
}

void bg_hub_close(bg_hub *hub)
{
    bg_http_close(&hub->http);
    bg_cache_close(&hub->cache);
    bg_hub_settings_free(&hub->settings);
}

bg_status bg_hub_head(bg_hub *hub, const char *revision, const char *name, bg_reply *reply,
                      bg_error *err)
{
    *reply = (bg_reply){.size = -1};
    char *url = bg_repo_file_url(hub->settings.endpoint, &hub->repo, revision, name);
    if (!url) return bg_fail_memory(err, 256, "an address");
    bg_status status = bg_http_fetch(&hub->http, url, NULL, 0, reply, err);
    bg_free(url);
    BG_TRY(status);
    if (reply->status != 200 && !reply->location)
        return bg_hub_explain(&hub->settings, &hub->repo, name, reply, err);
    if (*reply->etag) return BG_OK;
    return bg_fail(err, BG_ERR_FORMAT,
                   "%s names no checksum for %s of %s (its ETag is none), so that a download could "
                   "not be checked; this is no Hub: check HF_ENDPOINT and the proxy",
                   hub->settings.endpoint, name, hub->repo.id);
}

/* ---- one file -------------------------------------------------------------------------------- */

typedef struct {
    bg_hub *hub;
    const char *commit, *name;
    const bg_reply *head;
    bg_tally *tally;
} job;

/* Waits for the lock of the blob, as another process may be downloading it. */
static bg_status take(const job *j, bg_blob *blob, bg_error *err)
{
    const double pause = 0.1;
    for (bool busy = true; busy;) {
        BG_TRY(bg_blob_take(&j->hub->cache, j->head->etag, blob, &busy, err));
        if (busy) BG_TRY(bg_http_wait(&j->hub->http, pause, err));
    }
    return BG_OK;
}

typedef struct {
    const bg_http *http;
    uint64_t size;
} checking;

static bg_status on_checked(void *context, uint64_t done, bg_error *err)
{
    const checking *c = context;
    return bg_http_report(c->http, done, c->size, err);
}

static bg_status check(const bg_hub *hub, const char *name, const char *etag, int64_t size, int fd,
                       bool *equal, bg_error *err)
{
    bg_http http = hub->http; /* the same but for the stage */
    checking c = {&http, size > 0 ? (uint64_t)size : 0};
    snprintf(http.stage, sizeof http.stage, "checking %s", name);
    return bg_digest_check(fd, etag, name, on_checked, &c, equal, err);
}

/* Downloads into `fd` what is not there yet, and checks it. What was resumed and is wrong may be
 * the fault of what was there: then all of it is read once more. */
static bg_status download(const job *j, const bg_source *source, const bg_blob *blob, int fd,
                          bg_error *err)
{
    for (bool again = true; again;) {
        const uint64_t before = j->tally->done;
        bool equal = false;
        BG_TRY(bg_transfer(&j->hub->http, source, fd, j->tally, &again, err));
        BG_TRY(check(j->hub, j->name, j->head->etag, j->head->size, fd, &equal, err));
        if (equal) return bg_blob_finish(blob, fd, err);
        j->tally->done = before;
        if (ftruncate(fd, 0) != 0) again = false;
    }
    unlink(blob->partial);
    return bg_fail(err, BG_ERR_FORMAT,
                   "%s of %s does not have the checksum that the Hub names (%s), so it was not "
                   "kept; try again, and if it happens again, the server or a proxy changes it",
                   j->name, j->hub->repo.id, j->head->etag);
}

static bg_status fetch_blob(const job *j, const bg_blob *blob, bg_error *err)
{
    int fd = -1;
    char *url = bg_repo_file_url(j->hub->settings.endpoint, &j->hub->repo, j->commit, j->name);
    if (!url) return bg_fail_memory(err, 256, "an address");
    bg_source source = {.name = j->name,
                        .url = url,
                        .location = j->head->location ? j->head->location : j->head->url,
                        .etag = j->head->etag,
                        .size = j->head->size,
                        .repo = &j->hub->repo};
    bg_status status = bg_blob_open_partial(blob, &fd, err);
    if (status == BG_OK) status = download(j, &source, blob, fd, err);
    if (fd >= 0) close(fd);
    bg_free(url);
    return status;
}

/* *good: whether a blob that is there has its checksum. */
static bg_status verify_blob(const job *j, const bg_blob *blob, bool *good, bg_error *err)
{
    int fd = open(blob->blob, O_RDONLY | O_CLOEXEC);
    *good = false;
    if (fd < 0) return BG_OK;
    bg_status status = check(j->hub, j->name, j->head->etag, j->head->size, fd, good, err);
    close(fd);
    return status;
}

static bg_status fetch_file(const job *j, bg_error *err)
{
    bg_blob blob;
    BG_TRY(take(j, &blob, err));
    bool ready = bg_blob_ready(&blob, j->head->size);
    bg_status status = BG_OK;
    if (ready && j->hub->verify) status = verify_blob(j, &blob, &ready, err);
    if (status == BG_OK && !ready)
        status = fetch_blob(j, &blob, err);
    else if (status == BG_OK && j->head->size > 0)
        j->tally->done += (uint64_t)j->head->size;
    if (status == BG_OK)
        status = bg_cache_link(&j->hub->cache, j->commit, j->name, j->head->etag, err);
    bg_blob_release(&blob);
    return status;
}

/* ---- all of them ----------------------------------------------------------------------------- */

/* *good: whether the snapshot has a file, as far as is looked. A `size` of -1 is not known. */
static bg_status look(const bg_hub *hub, const char *commit, const char *name, int64_t size,
                      bool *good, bg_error *err)
{
    int fd;
    int64_t held;
    char etag[65];
    bg_cache_open_file(&hub->cache, commit, name, &fd, &held, etag);
    const bool there = fd >= 0;
    bg_status status = BG_OK;
    *good = there && (size < 0 || held == size);
    if (*good && hub->verify && *etag) status = check(hub, name, etag, held, fd, good, err);
    if (there) close(fd);
    if (status == BG_OK && there && !*good)
        status = bg_http_note(&hub->http, err,
                              "%s of %s is damaged in the cache, and is downloaded again", name,
                              hub->repo.id);
    return status;
}

static bg_status fetch_missing(bg_hub *hub, const char *commit, const bg_names *names,
                               bg_listed_size size, const void *context, bg_reply *heads,
                               bg_error *err)
{
    bg_tally tally = {0};
    bool known = true; /* what all of them come to */
    for (size_t i = 0; i < names->n; i++) {
        bool good;
        BG_TRY(look(hub, commit, names->items[i], size(context, names->items[i]), &good, err));
        if (good) continue;
        BG_TRY(bg_hub_head(hub, commit, names->items[i], &heads[i], err));
        if (heads[i].size > 0) tally.total += (uint64_t)heads[i].size;
        if (heads[i].size < 0) known = false;
    }
    if (!known) tally.total = 0;
    snprintf(hub->http.stage, sizeof hub->http.stage, BG_STAGE_DOWNLOADING "%s", hub->repo.id);
    for (size_t i = 0; i < names->n; i++) {
        if (!heads[i].url) continue; /* in the cache */
        job j = {hub, commit, names->items[i], &heads[i], &tally};
        BG_TRY(fetch_file(&j, err));
    }
    return BG_OK;
}

bg_status bg_hub_fetch(bg_hub *hub, const char *commit, const bg_names *names, bg_listed_size size,
                       const void *context, bg_error *err)
{
    if (names->n == 0) return BG_OK;
    bg_reply *heads = bg_calloc(names->n, sizeof *heads);
    if (!heads) return bg_fail_memory(err, names->n * sizeof *heads, "a list of files");
    bg_status status = fetch_missing(hub, commit, names, size, context, heads, err);
    for (size_t i = 0; i < names->n; i++) bg_reply_free(&heads[i]);
    bg_free(heads);
    return status;
}
