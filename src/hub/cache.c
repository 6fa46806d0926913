#include "hub/cache.h"

#include "core/alloc.h"
#include "core/file.h"
#include "core/text.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

bg_status bg_cache_open(const char *directory, const bg_repo *repo, bg_cache *out, bg_error *err)
{
    char folder[512];
    bg_repo_folder(repo, folder, sizeof folder);
    *out = (bg_cache){.root = bg_path_join(directory, folder),
                      .locks = bg_print("%s/.locks/%s", directory, folder),
                      .base = bg_strdup(directory)};
    if (out->root && out->locks && out->base) return BG_OK;
    bg_cache_close(out);
    return bg_fail_memory(err, sizeof folder, "a file name");
}

void bg_cache_close(bg_cache *cache)
{
    bg_free(cache->root);
    bg_free(cache->locks);
    bg_free(cache->base);
    *cache = (bg_cache){0};
}

char *bg_cache_snapshot(const bg_cache *cache, const char *commit)
{
    return bg_print("%s/snapshots/%s", cache->root, commit);
}

char *bg_cache_file(const bg_cache *cache, const char *commit, const char *path)
{
    return bg_print("%s/snapshots/%s/%s", cache->root, commit, path);
}

static bg_status cannot(const char *what, const char *path, bg_error *err)
{
    const int problem = errno;
    const char *remedy = problem == ENOSPC || problem == EDQUOT  ? "free some space there, or "
                         : problem == EACCES || problem == EPERM ? "make it writable, or "
                                                                 : "";
    return bg_fail(err, BG_ERR_OUTPUT,
                   "%s: cannot %s: %s; %sname another cache with HF_HOME or HF_HUB_CACHE", path,
                   what, strerror(problem), remedy);
}

/* Makes the directories above `path` that are missing. */
static bg_status make_parents(const char *path, bg_error *err)
{
    char *copy = bg_strdup(path);
    if (!copy) return bg_fail_memory(err, strlen(path), "a file name");
    bg_status status = BG_OK;
    for (char *slash = copy; status == BG_OK && (slash = strchr(slash + 1, '/'));) {
        *slash = '\0';
        int problem = mkdir(copy, 0777) != 0 ? errno : 0;
        if (problem && problem != EEXIST && !bg_is_directory(copy)) {
            errno = problem;
            status = cannot("make this directory", copy, err);
        }
        *slash = '/';
    }
    bg_free(copy);
    return status;
}

/* Backup programs leave a directory with this file in it alone. */
static void tag_cache(const bg_cache *cache)
{
    static const char tag[] = "Signature: 8a477f597d28d172789f06886806bc55\n"
                              "# This directory is a cache of files from the Hugging Face Hub.\n"
                              "# See https://bford.info/cachedir/\n";
    char *path = bg_path_join(cache->base, "CACHEDIR.TAG");
    if (path && !bg_file_exists(path)) bg_write_file(path, tag, sizeof tag - 1, NULL);
    bg_free(path);
}

/* ---- revisions ------------------------------------------------------------------------------- */

/* Both questions are asked without allocating: short memory is not to look like a missing file. */

bool bg_cache_commit(const bg_cache *cache, const char *revision, char commit[41])
{
    char path[PATH_MAX], text[41] = "";
    if (bg_is_commit(revision)) {
        memcpy(commit, revision, 41);
        return true;
    }
    if (snprintf(path, sizeof path, "%s/refs/%s", cache->root, revision) >= (int)sizeof path)
        return false;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) return false;
    bool known = read(fd, text, 40) == 40 && bg_is_commit(text);
    close(fd);
    if (known) memcpy(commit, text, 41);
    return known;
}

bool bg_cache_has(const bg_cache *cache, const char *commit, const char *name)
{
    char path[PATH_MAX];
    int n = snprintf(path, sizeof path, "%s/snapshots/%s/%s", cache->root, commit, name);
    return n < (int)sizeof path && bg_file_exists(path);
}

void bg_cache_open_file(const bg_cache *cache, const char *commit, const char *name, int *fd,
                        int64_t *size, char etag[65])
{
    char path[PATH_MAX], target[PATH_MAX];
    struct stat info;
    *fd = -1;
    *size = -1;
    etag[0] = '\0';
    int n = snprintf(path, sizeof path, "%s/snapshots/%s/%s", cache->root, commit, name);
    if (n >= (int)sizeof path) return;
    *fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (*fd < 0) return;
    if (fstat(*fd, &info) == 0) *size = info.st_size;
    ssize_t length = readlink(path, target, sizeof target - 1);
    if (length <= 0) return;
    target[length] = '\0';
    const char *slash = strrchr(target, '/');
    if (!slash || !bg_etag_parse(slash + 1, etag)) etag[0] = '\0';
}

bg_status bg_cache_set_commit(const bg_cache *cache, const char *revision, const char *commit,
                              bg_error *err)
{
    char known[41];
    if (bg_cache_commit(cache, revision, known) && strcmp(known, commit) == 0) return BG_OK;
    char *path = bg_print("%s/refs/%s", cache->root, revision);
    if (!path) return bg_fail_memory(err, 256, "a file name");
    bg_status status = make_parents(path, err);
    if (status == BG_OK) status = bg_write_file(path, commit, strlen(commit), err);
    bg_free(path);
    return status;
}

/* ---- snapshots ------------------------------------------------------------------------------- */

bg_status bg_cache_link(const bg_cache *cache, const char *commit, const char *path,
                        const char *etag, bg_error *err)
{
    bg_text target = {0};
    bg_text_puts(&target, "../../");
    for (const char *p = path; *p; p++)
        if (*p == '/') bg_text_puts(&target, "../");
    bg_text_printf(&target, "blobs/%s", etag);
    char *link = bg_cache_file(cache, commit, path);
    char *beside = link ? bg_print("%s.%d.bitgauge", link, (int)getpid()) : NULL;
    bg_status status = BG_OK;
    if (target.failed || !beside) {
        status = bg_fail_memory(err, 256, "a file name");
    } else if ((status = make_parents(link, err)) == BG_OK) {
        /* By way of a rename: what is there may lead nowhere or be damaged, and is replaced. */
        unlink(beside);
        if (symlink(target.data, beside) != 0 || rename(beside, link) != 0) {
            status = cannot("make this link", link, err);
            unlink(beside);
        }
    }
    bg_text_free(&target);
    bg_free(link);
    bg_free(beside);
    return status;
}

/* ---- blobs ----------------------------------------------------------------------------------- */

bg_status bg_blob_take(const bg_cache *cache, const char *etag, bg_blob *out, bool *busy,
                       bg_error *err)
{
    *busy = false;
    *out = (bg_blob){.lock = -1,
                     .blob = bg_print("%s/blobs/%s", cache->root, etag),
                     .partial = bg_print("%s/blobs/%s.bitgauge", cache->root, etag)};
    char *path = bg_print("%s/%s.lock", cache->locks, etag);
    bg_status status = out->blob && out->partial && path ? make_parents(path, err)
                                                         : bg_fail_memory(err, 256, "a file name");
    if (status == BG_OK) status = make_parents(out->blob, err);
    if (status == BG_OK) {
        tag_cache(cache);
        out->lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0664);
        struct stat held, named;
        if (out->lock < 0)
            status = cannot("open this lock", path, err);
        else if (flock(out->lock, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK)
            *busy = true;
        /* Somebody may have removed the file meanwhile: then it locks nothing. A file system
         * without locks is gone on with, as a blob is only ever renamed into place. */
        else if (fstat(out->lock, &held) != 0 || stat(path, &named) != 0 ||
                 held.st_ino != named.st_ino || held.st_dev != named.st_dev)
            *busy = true;
    }
    bg_free(path);
    if (status != BG_OK || *busy) bg_blob_release(out);
    return status;
}

bool bg_blob_ready(const bg_blob *blob, int64_t size)
{
    struct stat info;
    return stat(blob->blob, &info) == 0 && S_ISREG(info.st_mode) &&
           (size < 0 || info.st_size == size);
}

bg_status bg_blob_open_partial(const bg_blob *blob, int *fd, bg_error *err)
{
    *fd = open(blob->partial, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0666);
    return *fd >= 0 ? BG_OK : cannot("write", blob->partial, err);
}

bg_status bg_blob_finish(const bg_blob *blob, int fd, bg_error *err)
{
    if (fsync(fd) != 0) return cannot("write", blob->partial, err);
    if (rename(blob->partial, blob->blob) != 0) return cannot("make this file", blob->blob, err);
    return BG_OK;
}

void bg_blob_release(bg_blob *blob)
{
    if (blob->lock >= 0) close(blob->lock);
    bg_free(blob->blob);
    bg_free(blob->partial);
    *blob = (bg_blob){.lock = -1};
}
