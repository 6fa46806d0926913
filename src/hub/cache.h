/* The cache on disk, laid out as huggingface_hub does
 * (https://huggingface.co/docs/huggingface_hub/guides/manage-cache):
 *
 *   CACHE/models--ORG--NAME/blobs/ETAG                the files, named by their checksum
 *                           snapshots/COMMIT/PATH     relative links to them
 *                           refs/REVISION             the commit that a branch or tag was last
 *   CACHE/.locks/models--ORG--NAME/ETAG.lock          flock: one process downloads a blob
 *
 * Our own: blobs/ETAG.bitgauge, a download that is not finished (hub/transfer.h). A blob gets its
 * name by a rename, after its checksum was right and its content is on disk. */
#ifndef BG_HUB_CACHE_H
#define BG_HUB_CACHE_H

#include "core/error.h"
#include "hub/names.h"

#include <stdint.h>

typedef struct {
    char *root;  /* CACHE/models--ORG--NAME */
    char *locks; /* CACHE/.locks/models--ORG--NAME */
    char *base;  /* CACHE */
} bg_cache;

bg_status bg_cache_open(const char *directory, const bg_repo *repo, bg_cache *out, bg_error *err);
void bg_cache_close(bg_cache *cache);

/* Paths owned by the caller; NULL when out of memory. They need not exist. */
char *bg_cache_snapshot(const bg_cache *cache, const char *commit);
char *bg_cache_file(const bg_cache *cache, const char *commit, const char *path);

/* The commit that `revision` is, as far as the cache knows: itself if it is one. False: unknown. */
bool bg_cache_commit(const bg_cache *cache, const char *revision, char commit[41]);

/* Remembers it; a revision that is a commit needs no remembering. */
bg_status bg_cache_set_commit(const bg_cache *cache, const char *revision, const char *commit,
                              bg_error *err);

/* Whether the snapshot has the file (and not just a link to nowhere). */
bool bg_cache_has(const bg_cache *cache, const char *commit, const char *path);

/* Opens a file of a snapshot: *fd is -1 where there is none. *size, and the digest that the name of
 * its blob is, or "" where the file is no link to a blob. */
void bg_cache_open_file(const bg_cache *cache, const char *commit, const char *path, int *fd,
                        int64_t *size, char etag[65]);

/* A blob being made or linked: held by one process at a time. */
typedef struct {
    int lock;
    char *blob, *partial; /* paths */
} bg_blob;

/* Takes the lock of a blob without waiting: *out is then held; *busy if another process has it. */
bg_status bg_blob_take(const bg_cache *cache, const char *etag, bg_blob *out, bool *busy,
                       bg_error *err);
/* Whether it is there; with a `size` other than -1, in that size. */
bool bg_blob_ready(const bg_blob *blob, int64_t size);
/* Opens the unfinished download, made where there is none. */
bg_status bg_blob_open_partial(const bg_blob *blob, int *fd, bg_error *err);
/* Syncs `fd`, and gives the finished download its name. */
bg_status bg_blob_finish(const bg_blob *blob, int fd, bg_error *err);
void bg_blob_release(bg_blob *blob);

/* Puts the link to a blob into a snapshot. */
bg_status bg_cache_link(const bg_cache *cache, const char *commit, const char *path,
                        const char *etag, bg_error *err);

#endif
