#include "core/file.h"

#include "core/alloc.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

bg_status bg_map_file(const char *path, bg_mapping *out, bg_error *err)
{
    *out = (bg_mapping){0};
    /* Not to wait where a named pipe was given in the place of a file. */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return bg_fail(err, BG_ERR_FILE, "%s: cannot open: %s; check the path and its permissions",
                       path, strerror(errno));
    struct stat st;
    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode)) {
        close(fd);
        return bg_fail(err, BG_ERR_FILE, "%s: not a regular file; name a file", path);
    }
    char *copy = bg_strdup(path);
    if (!copy) {
        close(fd);
        return bg_fail_memory(err, strlen(path) + 1, "a file name");
    }
    const void *data = "";
    if (st.st_size > 0) {
        data = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (data == MAP_FAILED) {
            bg_status status =
                bg_fail(err, BG_ERR_FILE, "%s: cannot map: %s", path, strerror(errno));
            bg_free(copy);
            close(fd);
            return status;
        }
    }
    close(fd);
    *out = (bg_mapping){.data = data, .size = (size_t)st.st_size, .path = copy};
    return BG_OK;
}

void bg_unmap(bg_mapping *mapping)
{
    if (mapping->size) munmap((void *)mapping->data, mapping->size);
    bg_free(mapping->path);
    *mapping = (bg_mapping){0};
}

/* The kernel maps a file in pages of up to 2 MiB, and some around the one that was missing: those
 * at the ends, which are a neighbour's too, are given back with the rest. Whoever reads them again
 * finds them in the page cache. */
void bg_mapping_release(const bg_mapping *mapping, size_t offset, size_t size)
{
    const size_t huge = 2 * 1024 * 1024, page = (size_t)sysconf(_SC_PAGESIZE);
    uintptr_t start = (uintptr_t)mapping->data, end = start + mapping->size;
    uintptr_t from = (start + offset) / huge * huge;
    uintptr_t to = (start + offset + size + huge - 1) / huge * huge;
    if (from < start) from = start;
    if (to > end) to = (end + page - 1) / page * page;
    if (mapping->size && from < to) madvise((void *)from, to - from, MADV_DONTNEED);
}

void bg_mapping_prefetch(const bg_mapping *mapping, size_t offset, size_t size)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE), from = offset / page * page;
    if (size && offset < mapping->size)
        madvise((void *)(mapping->data + from), offset + size - from, MADV_WILLNEED);
}

bg_status bg_read_text(const char *path, size_t limit, char **text, size_t *size, bg_error *err)
{
    bg_mapping map;
    BG_TRY(bg_map_file(path, &map, err));
    bg_status status = BG_OK;
    if (map.size > limit) {
        status = bg_fail(err, BG_ERR_FORMAT,
                         "%s: %zu bytes is more than the %zu that such a file may have", path,
                         map.size, limit);
    } else if (!(*text = bg_strndup((const char *)map.data, map.size))) {
        status = bg_fail_memory(err, map.size, path);
    } else if (size) {
        *size = map.size;
    }
    bg_unmap(&map);
    return status;
}

bool bg_file_exists(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISREG(st.st_mode);
}

bool bg_is_directory(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

char *bg_path_join(const char *directory, const char *name)
{
    size_t n = strlen(directory), size = n + strlen(name) + 2;
    char *path = bg_alloc(size);
    if (path)
        snprintf(path, size, "%s%s%s", directory, n && directory[n - 1] == '/' ? "" : "/", name);
    return path;
}

static bool write_all(int fd, const void *data, size_t size)
{
    const char *p = data;
    while (size > 0) {
        ssize_t n = write(fd, p, size);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return false;
        p += n;
        size -= (size_t)n;
    }
    return true;
}

static bg_status cannot_write(const char *path, bg_error *err)
{
    return bg_fail(err, BG_ERR_OUTPUT,
                   "%s: cannot write: %s; choose another place or free some space (a file that was "
                   "there is unchanged)",
                   path, strerror(errno));
}

static bg_status write_directly(const char *path, int fd, const void *data, size_t size,
                                bg_error *err)
{
    if (fd < 0 || !write_all(fd, data, size))
        return bg_fail(err, BG_ERR_OUTPUT, "%s: cannot write: %s", path, strerror(errno));
    return BG_OK;
}

bg_status bg_write_file(const char *path, const void *data, size_t size, bg_error *err)
{
    if (strcmp(path, "-") == 0) {
        fflush(stdout);
        return write_directly("standard output", STDOUT_FILENO, data, size, err);
    }
    struct stat st;
    bool exists = stat(path, &st) == 0;
    if (exists && !S_ISREG(st.st_mode)) {
        int fd = open(path, O_WRONLY | O_CLOEXEC);
        bg_status status = write_directly(path, fd, data, size, err);
        if (fd >= 0) close(fd);
        return status;
    }
    size_t n = strlen(path) + 16;
    char *temporary = bg_alloc(n);
    if (!temporary) return bg_fail_memory(err, n, "a file name");
    snprintf(temporary, n, "%s.XXXXXX", path);
    int fd = mkostemp(temporary, O_CLOEXEC);
    if (fd < 0) {
        bg_free(temporary);
        return cannot_write(path, err);
    }
    mode_t mask = umask(0);
    umask(mask);
    bool ok = write_all(fd, data, size) &&
              fchmod(fd, exists ? st.st_mode & 0777 : 0666 & ~mask) == 0 && fsync(fd) == 0;
    int saved = errno;
    if (close(fd) != 0 && ok) {
        ok = false;
        saved = errno;
    }
    if (ok && rename(temporary, path) != 0) {
        ok = false;
        saved = errno;
    }
    if (!ok) unlink(temporary);
    bg_free(temporary);
    errno = saved;
    return ok ? BG_OK : cannot_write(path, err);
}
