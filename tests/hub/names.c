/* Names, ETags, addresses, and the digests of files. */
#include "hub/names.h"
#include "core/alloc.h"
#include "hub/digest.h"
#include "hub/files.h"
#include "hub/http.h"
#include "test.h"

#include <stdlib.h>
#include <unistd.h>

static void test_repositories(void)
{
    static const struct {
        const char *text, *id, *revision; /* id NULL: refused */
    } cases[] = {
        {"gpt2", "gpt2", "main"},
        {"facebook/opt-125m", "facebook/opt-125m", "main"},
        {"a_b/c.d-e@refs/pr/1", "a_b/c.d-e", "refs/pr/1"},
        {"gpt2@v1.0", "gpt2", "v1.0"},
        {"", NULL, NULL},
        {"/gpt2", NULL, NULL},
        {"gpt2/", NULL, NULL},
        {"./gpt2", NULL, NULL},
        {"../gpt2", NULL, NULL},
        {"a/b/c", NULL, NULL},
        {"a--b", NULL, NULL},
        {"a..b", NULL, NULL},
        {"-a", NULL, NULL},
        {"a.", NULL, NULL},
        {"a.git", NULL, NULL},
        {"a b", NULL, NULL},
        {"a%2fb", NULL, NULL},
        {"a\nb", NULL, NULL},
        {"gpt2@", NULL, NULL},
        {"gpt2@..", NULL, NULL},
        {"gpt2@a..b", NULL, NULL},
        {"gpt2@/a", NULL, NULL},
        {"gpt2@a/", NULL, NULL},
        {"gpt2@-a", NULL, NULL},
        {"gpt2@.a", NULL, NULL},
        {"gpt2@a/.b", NULL, NULL},
        {"gpt2@a b", NULL, NULL},
        {"gpt2@a:b", NULL, NULL},
        {"gpt2@a@b", NULL, NULL},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        bg_repo repo;
        bool good = bg_repo_parse(cases[i].text, BG_REPO_MODEL, &repo);
        CHECK(good == (cases[i].id != NULL), "\"%s\"", cases[i].text);
        if (!good || !cases[i].id) continue;
        CHECK_STRING(repo.id, cases[i].id);
        CHECK_STRING(repo.revision, cases[i].revision);
    }
    char longest[300];
    bg_repo repo;
    memset(longest, 'a', sizeof longest);
    longest[96] = '\0';
    CHECK(bg_repo_parse(longest, BG_REPO_MODEL, &repo), "96 letters");
    longest[96] = 'a';
    longest[97] = '\0';
    CHECK(!bg_repo_parse(longest, BG_REPO_MODEL, &repo), "97 letters");
    longest[97] = 'a';
    longest[1] = '@';
    longest[sizeof longest - 1] = '\0';
    CHECK(!bg_repo_parse(longest, BG_REPO_MODEL, &repo), "a long revision");
}

static void test_paths(void)
{
    static const char *const good[] = {"config.json",    "a/b.parquet", "data/x y.txt",
                                       ".gitattributes", "a/..b",       "a/b..c"};
    static const char *const bad[] = {"",     "/",     "/a",       "a/",      "a//b",  ".",
                                      "..",   "../a",  "a/..",     "a/../b",  "a/./b", "a\\b",
                                      "a\nb", "a\x7f", "\xc3\xa9", "a\x1b[2J"};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++)
        CHECK(bg_repo_path_valid(good[i]), "\"%s\"", good[i]);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        CHECK(!bg_repo_path_valid(bad[i]), "case %zu", i);
}

static void test_etags(void)
{
    static const char sha1[] = "0123456789abcdef0123456789abcdef01234567";
    char header[128], out[65];
    snprintf(header, sizeof header, "\"%s\"", sha1);
    CHECK(bg_etag_parse(header, out), "quoted");
    CHECK_STRING(out, sha1);
    snprintf(header, sizeof header, "W/\"%s\"", sha1);
    CHECK(bg_etag_parse(header, out), "weak");
    CHECK_STRING(out, sha1);
    CHECK(bg_etag_parse(sha1, out), "bare");
    CHECK(!bg_etag_parse("\"../../x\"", out), "a path");
    CHECK(!bg_etag_parse("\"\"", out), "nothing");
    CHECK(!bg_etag_parse("\"0123456789ABCDEF0123456789ABCDEF01234567\"", out), "upper case");
}

static void test_addresses(void)
{
    bg_repo repo;
    char folder[512];
    CHECK(bg_repo_parse("org/set@refs/convert/parquet", BG_REPO_DATASET, &repo), "parsed");
    char *api = bg_repo_api_url("https://h", &repo);
    char *file = bg_repo_file_url("https://h", &repo, repo.revision, "a b/c#d?e%.txt");
    char *page = bg_repo_page_url("https://h", &repo);
    CHECK_STRING(api, "https://h/api/datasets/org/set/revision/refs%2Fconvert%2Fparquet"
                      "?blobs=true");
    CHECK_STRING(file, "https://h/datasets/org/set/resolve/refs%2Fconvert%2Fparquet/"
                       "a%20b/c%23d%3Fe%25.txt");
    CHECK_STRING(page, "https://h/datasets/org/set");
    bg_repo_folder(&repo, folder, sizeof folder);
    CHECK_STRING(folder, "datasets--org--set");
    bg_free(api);
    bg_free(file);
    bg_free(page);
}

static void test_origins(void)
{
    static const struct {
        const char *a, *b;
        bool same;
    } cases[] = {
        {"https://h/a", "https://h/b", true},   {"https://h", "https://H:443/x", true},
        {"https://h", "http://h", false},       {"https://h", "https://h:444", false},
        {"https://h", "https://h.evil", false}, {"https://h", "https://h@evil/", false},
        {"https://h", "https://evil/h", false}, {"https://h", "no address", false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        CHECK(bg_http_same_origin(cases[i].a, cases[i].b) == cases[i].same, "%s and %s", cases[i].a,
              cases[i].b);
}

static void test_redirects(void)
{
    static const struct {
        const char *endpoint, *base, *location, *to; /* to NULL: refused */
    } cases[] = {
        {"https://h", "https://h/a/b", "/c?d", "https://h/c?d"},
        {"https://h", "https://h/a/b", "c", "https://h/a/c"},
        {"https://h", "https://h/a", "//cdn/c", "https://cdn/c"},
        {"https://h", "https://h/a", "https://user:secret@cdn/c", "https://cdn/c"},
        {"https://h", "https://h/a", "http://h/a", NULL},
        {"https://h", "https://h/a", "file:///etc/passwd", NULL},
        {"https://h", "https://h/a", "http://[", NULL},
        {"http://h", "http://h/a", "http://cdn/a", "http://cdn/a"},
        {"http://h", "http://h/a", "https://cdn/a", "https://cdn/a"},
        {"http://h", "http://h/a", "ftp://cdn/a", NULL},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const bg_hub_settings settings = {.endpoint = (char *)cases[i].endpoint};
        const bg_http http = {.settings = &settings};
        char *to = NULL;
        bg_error err;
        bg_status status = bg_http_resolve(&http, cases[i].base, cases[i].location, &to, &err);
        CHECK((status == BG_OK) == (cases[i].to != NULL), "%s", cases[i].location);
        if (to && cases[i].to) CHECK_STRING(to, cases[i].to);
        bg_free(to);
    }
}

static void test_back_off(void)
{
    double total = 0;
    for (int attempt = 1; attempt < 40; attempt++) {
        double wait = bg_http_back_off(attempt, 0);
        CHECK(wait >= 0.5 && wait <= 32, "attempt %d waits %g s", attempt, wait);
        total += attempt < BG_HTTP_ATTEMPTS ? wait : 0;
    }
    CHECK(total >= 7.5 && total <= 15, "%g s", total);
    CHECK(bg_http_back_off(1, 100) == 100, "what the server asks for");
}

static bg_status count_calls(void *context, uint64_t done, bg_error *err)
{
    (void)err;
    (void)done;
    ++*(int *)context;
    return BG_OK;
}

static void check_digest(const char *content, size_t size, const char *etag)
{
    char path[] = TEMPORARY;
    int calls = 0, fd = mkstemp(path);
    bool equal = false;
    bg_error err = {0};
    CHECK(fd >= 0 && write(fd, content, size) == (ssize_t)size, "written");
    bg_status status = bg_digest_check(fd, etag, "x", count_calls, &calls, &equal, &err);
    CHECK(status == BG_OK && equal, "%s: %s", etag, err.message);
    CHECK((calls > 0) == (size > 0), "%d", calls);
    CHECK(write(fd, "x", 1) == 1, "written");
    status = bg_digest_check(fd, etag, "x", count_calls, &calls, &equal, &err);
    CHECK(status == BG_OK && !equal, "a changed file has the digest %s", etag);
    close(fd);
    unlink(path);
}

/* As `git hash-object` and `sha256sum` print them. */
static void test_digests(void)
{
    check_digest("", 0, "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391");
    check_digest("hello\n", 6, "ce013625030ba8dba906f756967f9e9ca394464a");
    check_digest("hello\n", 6, "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03");
}

static bool has(const void *context, const char *name)
{
    char bracketed[64];
    snprintf(bracketed, sizeof bracketed, "<%s>", name);
    return strstr(context, bracketed);
}

static void test_weights(void)
{
    static const struct {
        const char *files, *chosen;
        bool is_index;
    } cases[] = {
        {"<model.safetensors><pytorch_model.bin>", "model.safetensors", false},
        {"<model.safetensors.index.json><pytorch_model.bin>", "model.safetensors.index.json", true},
        {"<pytorch_model.bin>", "pytorch_model.bin", false},
        {"<pytorch_model.bin.index.json>", "pytorch_model.bin.index.json", true},
        {"<model.gguf>", NULL, false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        bool is_index = false;
        const char *chosen = bg_model_weights(has, cases[i].files, &is_index);
        if (!cases[i].chosen) {
            CHECK(!chosen, "%s", cases[i].files);
            continue;
        }
        CHECK(chosen != NULL, "%s", cases[i].files);
        if (chosen) CHECK_STRING(chosen, cases[i].chosen);
        CHECK(is_index == cases[i].is_index, "%s", cases[i].files);
    }
}

int main(void)
{
    RUN(test_repositories);
    RUN(test_paths);
    RUN(test_etags);
    RUN(test_addresses);
    RUN(test_origins);
    RUN(test_redirects);
    RUN(test_back_off);
    RUN(test_digests);
    RUN(test_weights);
    return test_finish();
}
