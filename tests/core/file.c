/* Files: mapped, read, and written so that a failure leaves the old one. */
#include "test.h"

#include "core/alloc.h"
#include "core/file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static char directory[] = TEMPORARY;

static const char *path_of(const char *name)
{
    static char path[256];
    snprintf(path, sizeof path, "%s/%s", directory, name);
    return path;
}

static int count_files(const char *where)
{
    int n = 0;
    DIR *dir = opendir(where);
    for (struct dirent *entry; dir && (entry = readdir(dir));) n += entry->d_name[0] != '.';
    if (dir) closedir(dir);
    return n;
}

static void check_content(const char *path, const char *expected, size_t size)
{
    bg_mapping map;
    bg_error err = {0};
    bg_status status = bg_map_file(path, &map, &err);
    CHECK(status == BG_OK, "%s", err.message);
    if (status != BG_OK) return;
    CHECK(map.size == size && memcmp(map.data, expected, size) == 0, "%s: other content", path);
    bg_unmap(&map);
}

static void test_map(void)
{
    bg_mapping map;
    bg_error err = {0};
    const size_t size = 5 * 4096 + 17;
    char *bytes = malloc(size);
    for (size_t i = 0; i < size; i++) bytes[i] = (char)(i * 7 + i / 256);
    CHECK(bg_write_file(path_of("map"), bytes, size, &err) == BG_OK, "%s", err.message);
    CHECK(bg_map_file(path_of("map"), &map, &err) == BG_OK, "%s", err.message);
    CHECK(map.size == size && memcmp(map.data, bytes, size) == 0, "other content");
    CHECK_STRING(map.path, path_of("map"));
    /* released pages can be read again; ranges need not be of whole pages, nor inside */
    bg_mapping_release(&map, 0, size);
    bg_mapping_release(&map, 1, 1);
    bg_mapping_release(&map, 4096, 4096);
    bg_mapping_release(&map, 4095, size);
    bg_mapping_release(&map, size, 0);
    CHECK(memcmp(map.data, bytes, size) == 0, "other content after release");
    bg_unmap(&map);
    CHECK(!map.data && !map.path && !map.size, "unmapped");
    free(bytes);

    CHECK(bg_write_file(path_of("map"), "", 0, &err) == BG_OK, "%s", err.message);
    CHECK(bg_map_file(path_of("map"), &map, &err) == BG_OK, "%s", err.message);
    CHECK(map.size == 0 && map.data, "an empty file");
    bg_unmap(&map);
    unlink(path_of("map"));

    CHECK(bg_map_file(path_of("none"), &map, &err) == BG_ERR_FILE, "nothing");
    CHECK(strstr(err.message, path_of("none")) && strstr(err.message, "No such file"), "%s",
          err.message);
    CHECK(bg_map_file(directory, &map, &err) == BG_ERR_FILE, "a directory");
    CHECK(strstr(err.message, directory) && strstr(err.message, "regular"), "%s", err.message);
    CHECK(mkfifo(path_of("pipe"), 0600) == 0, "mkfifo");
    CHECK(bg_map_file(path_of("pipe"), &map, &err) == BG_ERR_FILE, "a pipe");
    unlink(path_of("pipe"));
    bg_alloc_fail_after(0);
    CHECK(bg_map_file("/proc/self/exe", &map, &err) == BG_ERR_MEMORY, "%s", err.message);
    bg_alloc_fail_after(-1);
    CHECK(!map.data, "a mapping is left");
}

static void test_read_text(void)
{
    char *text = NULL;
    size_t size = 0;
    bg_error err = {0};
    CHECK(bg_write_file(path_of("text"), "one\0two", 7, &err) == BG_OK, "%s", err.message);
    CHECK(bg_read_text(path_of("text"), 7, &text, &size, &err) == BG_OK, "%s", err.message);
    CHECK(size == 7 && memcmp(text, "one\0two", 8) == 0, "other text, or not terminated");
    bg_free(text);
    CHECK(bg_read_text(path_of("text"), 100, &text, NULL, &err) == BG_OK, "%s", err.message);
    bg_free(text);
    CHECK(bg_read_text(path_of("text"), 6, &text, &size, &err) == BG_ERR_FORMAT, "the limit");
    CHECK(strstr(err.message, path_of("text")) && strstr(err.message, "7 bytes"), "%s",
          err.message);
    for (long n = 0; n < 2; n++) {
        bg_alloc_fail_after(n);
        CHECK(bg_read_text(path_of("text"), 7, &text, &size, &err) == BG_ERR_MEMORY, "%ld", n);
        bg_alloc_fail_after(-1);
    }
    unlink(path_of("text"));
    CHECK(bg_read_text(path_of("text"), 7, &text, &size, &err) == BG_ERR_FILE, "nothing");
}

static void test_paths(void)
{
    static const char *const cases[][3] = {
        {"a", "b", "a/b"}, {"a/", "b", "a/b"}, {"/", "b", "/b"}, {"a/b", "c/d", "a/b/c/d"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *path = bg_path_join(cases[i][0], cases[i][1]);
        CHECK_STRING(path, cases[i][2]);
        bg_free(path);
    }
    CHECK(bg_is_directory(directory) && !bg_file_exists(directory), "a directory");
    CHECK(bg_file_exists("CMakeLists.txt") && !bg_is_directory("CMakeLists.txt"), "a file");
    CHECK(!bg_file_exists(path_of("none")) && !bg_is_directory(path_of("none")), "nothing");
}

static void test_write(void)
{
    bg_error err = {0};
    const char *path = path_of("out");
    struct stat st;
    umask(022);
    CHECK(bg_write_file(path, "first", 5, &err) == BG_OK, "%s", err.message);
    check_content(path, "first", 5);
    CHECK(stat(path, &st) == 0 && (st.st_mode & 0777) == 0644, "mode %o", st.st_mode & 0777);
    /* replaced whole, its permissions kept */
    chmod(path, 0600);
    CHECK(bg_write_file(path, "2nd", 3, &err) == BG_OK, "%s", err.message);
    check_content(path, "2nd", 3);
    CHECK(stat(path, &st) == 0 && (st.st_mode & 0777) == 0600, "mode %o", st.st_mode & 0777);
    CHECK(count_files(directory) == 1, "%d files", count_files(directory));
    for (long n = 0; n < 1; n++) {
        bg_alloc_fail_after(n);
        CHECK(bg_write_file(path, "3rd", 3, &err) == BG_ERR_MEMORY, "%ld", n);
        bg_alloc_fail_after(-1);
    }
    check_content(path, "2nd", 3);
    unlink(path);

    CHECK(bg_write_file(path_of("no/such/place"), "x", 1, &err) == BG_ERR_OUTPUT, "no directory");
    CHECK(strstr(err.message, "no/such/place") && strstr(err.message, "No such file"), "%s",
          err.message);
    CHECK(bg_write_file(directory, "x", 1, &err) == BG_ERR_OUTPUT, "a directory");
    CHECK(strstr(err.message, directory), "%s", err.message);
    CHECK(bg_write_file("/dev/null", "x", 1, &err) == BG_OK, "%s", err.message);
    if (access("/dev/full", W_OK) == 0) {
        CHECK(bg_write_file("/dev/full", "x", 1, &err) == BG_ERR_OUTPUT, "/dev/full");
        CHECK(strstr(err.message, "/dev/full") && strstr(err.message, "No space"), "%s",
              err.message);
    } else {
        SKIP("/dev/full is not there");
    }
}

/* Standard output, and a pipe that is named: written to, not replaced. */
static void test_write_pipe(void)
{
    bg_error err = {0};
    char bytes[16] = "";
    CHECK(mkfifo(path_of("pipe"), 0600) == 0, "mkfifo");
    int fd = open(path_of("pipe"), O_RDWR);
    CHECK(bg_write_file(path_of("pipe"), "through", 7, &err) == BG_OK, "%s", err.message);
    CHECK(read(fd, bytes, sizeof bytes) == 7 && memcmp(bytes, "through", 7) == 0, "%s", bytes);
    close(fd);
    unlink(path_of("pipe"));

    int ends[2];
    CHECK(pipe(ends) == 0, "pipe");
    fflush(stdout);
    int saved = dup(STDOUT_FILENO);
    dup2(ends[1], STDOUT_FILENO);
    bg_status status = bg_write_file("-", "to stdout", 9, &err);
    dup2(saved, STDOUT_FILENO);
    close(saved);
    close(ends[1]);
    memset(bytes, 0, sizeof bytes);
    ssize_t n = read(ends[0], bytes, sizeof bytes);
    close(ends[0]);
    CHECK(status == BG_OK && n == 9, "%s", err.message);
    CHECK_STRING(bytes, "to stdout");
}

/* A write that fails in the middle, as on a full disk: here the limit on a file's size. In a child
 * process, for a limit once lowered stays. */
static void test_write_limit(void)
{
    enum { SIZE = 1 << 20 };
    bg_error err = {0};
    const char *path = path_of("limit");
    CHECK(bg_write_file(path, "old", 3, &err) == BG_OK, "%s", err.message);
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        char *bytes = malloc(SIZE);
        memset(bytes, 'x', SIZE);
        signal(SIGXFSZ, SIG_IGN);
        setrlimit(RLIMIT_FSIZE, &(struct rlimit){65536, 65536});
        bg_status status = bg_write_file(path, bytes, SIZE, &err);
        bool named = strstr(err.message, path) && strstr(err.message, "too large") &&
                     strstr(err.message, "unchanged");
        free(bytes);
        _exit(status != BG_ERR_OUTPUT ? 1 : named ? 0 : 2);
    }
    int status = -1;
    CHECK(child > 0 && waitpid(child, &status, 0) == child, "fork");
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0, "%d", status);
    check_content(path, "old", 3);
    CHECK(count_files(directory) == 1, "%d files: the temporary one is left",
          count_files(directory));
    unlink(path);
}

static void test_full_disk(void)
{
    enum { SIZE = 1 << 20 };
    bg_error err = {0};
    char disk[256], path[300];
    snprintf(disk, sizeof disk, "%s", path_of("disk"));
    snprintf(path, sizeof path, "%s/report", disk);
    mkdir(disk, 0700);
    if (mount("none", disk, "tmpfs", 0, "size=64k") != 0) {
        SKIP("a full disk: a small tmpfs cannot be mounted: %s", strerror(errno));
        rmdir(disk);
        return;
    }
    char *bytes = calloc(1, SIZE);
    CHECK(bg_write_file(path, "old", 3, &err) == BG_OK, "%s", err.message);
    CHECK(bg_write_file(path, bytes, SIZE, &err) == BG_ERR_OUTPUT, "a megabyte on 64 KiB");
    CHECK(strstr(err.message, path) && strstr(err.message, "No space"), "%s", err.message);
    check_content(path, "old", 3);
    CHECK(count_files(disk) == 1, "%d files: the temporary one is left", count_files(disk));
    free(bytes);
    CHECK(umount(disk) == 0, "umount: %s", strerror(errno));
    rmdir(disk);
}

int main(void)
{
    if (!mkdtemp(directory)) {
        perror(directory);
        return 1;
    }
    RUN(test_map);
    RUN(test_read_text);
    RUN(test_paths);
    RUN(test_write);
    RUN(test_write_pipe);
    RUN(test_write_limit);
    RUN(test_full_disk);
    CHECK(rmdir(directory) == 0, "%s: files are left", directory);
    return test_finish();
}
