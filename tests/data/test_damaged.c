/* Data files that are cut short or altered, and memory that runs out: an error or the same values,
 * never a crash. */
#include "core/alloc.h"
#include "core/file.h"
#include "data/reader.h"
#include "data/unpack.h"
#include "test.h"

#include <dirent.h>
#include <stdint.h>
#include <stdlib.h>

#define FIXTURES "tests/fixtures/data"

/* A number that is another for other values (FNV-1a). */
static uint64_t mix(uint64_t hash, const void *data, size_t size)
{
    for (size_t i = 0; i < size; i++) hash = (hash ^ ((const uint8_t *)data)[i]) * 0x100000001b3;
    return hash;
}

static uint64_t mix_value(uint64_t hash, const bg_value *v)
{
    hash = mix(hash, &v->kind, sizeof v->kind);
    hash = mix(hash, &v->size, sizeof v->size);
    if (v->kind == BG_VALUE_BOOL) return mix(hash, &v->boolean, sizeof v->boolean);
    if (v->kind == BG_VALUE_INT) return mix(hash, &v->integer, sizeof v->integer);
    if (v->kind == BG_VALUE_REAL) return mix(hash, &v->real, sizeof v->real);
    if (v->kind == BG_VALUE_STRING) return mix(hash, v->string, v->size);
    for (size_t i = 0; v->kind == BG_VALUE_LIST && i < v->size; i++)
        hash = mix_value(hash, &v->list[i]);
    return hash;
}

typedef struct {
    size_t n;
    uint64_t *hashes; /* (n) of each column that could be read; 0 of the others */
} summary;

/* Reads every cell of every column. */
static bg_status read_all(const void *data, size_t size, const char *name, summary *out,
                          bg_error *err)
{
    bg_table *t;
    *out = (summary){0};
    bg_status first = bg_table_open_bytes(data, size, name, &t, err);
    if (first != BG_OK) return first;
    t->max_values = 1 << 20; /* an altered count is no reason to fill the memory */
    out->n = bg_table_columns(t);
    out->hashes = calloc(out->n + 1, sizeof *out->hashes);
    for (size_t c = 0; bg_table_rows(t) <= t->max_values && c < out->n; c++) {
        const bg_column *column;
        bg_error problem = {0};
        bg_status status = bg_table_column(t, bg_table_column_name(t, c), &column, &problem);
        CHECK(status == problem.status && (status == BG_OK || *problem.message), "an error");
        if (status != BG_OK && first == BG_OK) {
            first = status;
            if (err) *err = problem;
        }
        uint64_t hash = 0xcbf29ce484222325;
        for (size_t i = 0; status == BG_OK && i < bg_table_rows(t); i++)
            hash = mix_value(hash, &column->cells[i]);
        out->hashes[c] = status == BG_OK ? hash : 0;
    }
    bg_table_close(t);
    return first;
}

/* Whether a column was read as other than it is. */
static bool differ(const summary *a, const summary *b)
{
    bool found = false;
    for (size_t i = 0; a->n == b->n && i < a->n; i++)
        found |= b->hashes[i] && a->hashes[i] != b->hashes[i];
    return found;
}

/* A few bytes of a file altered, one at a time, and the file cut off before each of them. */
static void damage(const char *name, const bg_mapping *file)
{
    enum { TRIES = 60 };
    summary sound, other;
    size_t step = file->size / TRIES + 1, wrong = 0, tries = 0, errors = 0;
    read_all(file->data, file->size, name, &sound, NULL);
    for (size_t i = 0; i < file->size; i += step, tries++) {
        /* exactly the size, so that the sanitizer sees a read behind it */
        uint8_t *copy = malloc(file->size);
        memcpy(copy, file->data, file->size);
        copy[i] ^= (uint8_t)(1u << i % 8);
        read_all(copy, file->size, name, &other, NULL);
        wrong += differ(&sound, &other);
        free(other.hashes);
        copy = realloc(copy, i ? i : 1);
        errors += read_all(copy, i, name, &other, NULL) != BG_OK;
        free(other.hashes);
        free(copy);
    }
    free(sound.hashes);
    if (!strstr(name, ".parquet")) return;
    CHECK(errors == tries, "%s: read %zu times though cut short", name, tries - errors);
    /* The pages have checksums in all files but this; their headers and the footer have none. */
    if (strcmp(name, "hub.parquet") != 0)
        CHECK(wrong <= 1, "%s: of %zu bytes altered, %zu were read as other values", name, tries,
              wrong);
}

static void each_fixture(void (*check)(const char *name, const bg_mapping *file))
{
    DIR *directory = opendir(FIXTURES);
    CHECK(directory, "%s", FIXTURES);
    for (const struct dirent *e; directory && (e = readdir(directory));) {
        char path[512];
        bg_mapping file;
        bg_error err = {0};
        if (*e->d_name == '.' || strcmp(e->d_name, "expected.json") == 0) continue;
        snprintf(path, sizeof path, FIXTURES "/%s", e->d_name);
        CHECK(bg_map_file(path, &file, &err) == BG_OK, "%s", err.message);
        check(e->d_name, &file);
        bg_unmap(&file);
    }
    if (directory) closedir(directory);
}

static void test_damaged(void)
{
    each_fixture(damage);
}

/* ---- memory ---------------------------------------------------------------------------------- */

/* Every allocation fails once, and all after it: many allocations, every k-th. */
static void starve(const void *data, size_t size, const char *name)
{
    bg_error err = {0};
    summary got;
    bg_alloc_fail_after(-1);
    CHECK(read_all(data, size, name, &got, &err) == BG_OK, "%s", err.message);
    free(got.hashes);
    long n = bg_alloc_count();
    CHECK(n > 1, "%s: %ld allocations", name, n);
    for (long k = 0; k < n; k += 1 + k / 20) {
        bg_alloc_fail_after(k);
        bg_status status = read_all(data, size, name, &got, &err);
        bg_alloc_fail_after(-1);
        CHECK(status == BG_ERR_MEMORY, "%s: allocation %ld of %ld failed: %d, %s", name, k, n,
              status, err.message);
        free(got.hashes);
    }
}

static void test_memory(void)
{
    static const char *const paths[] = {
        FIXTURES "/hub.parquet",
        FIXTURES "/mixed-gzip-v1-dictionary.parquet",
        FIXTURES "/old-lists.parquet",
        FIXTURES "/mixed-delta-byte-array.parquet",
        FIXTURES "/lf.csv",
        FIXTURES "/lf.tsv",
        FIXTURES "/lines.txt",
        "fuzz/corpus/data/gzip",
    };
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++) {
        bg_mapping file;
        bg_error err = {0};
        CHECK(bg_map_file(paths[i], &file, &err) == BG_OK, "%s", err.message);
        starve(file.data, file.size, paths[i]);
        bg_unmap(&file);
    }
    /* No long numbers: jansson aborts where there is no memory to take one in. */
    static const char json[] = "{\"a\":[{\"b\":1,\"c\":\"a string of some length\"}],\"d\":null}\n"
                               "{\"a\":[],\"e\":{\"f\":[[1],[2.5]],\"g\":true}}\n";
    starve(json, sizeof json - 1, "a.jsonl");
}

static void test_limits(void)
{
    static const char text[] = "a\n1\n2\n3\n";
    bg_table *t;
    bg_error err = {0};
    const bg_column *column;
    CHECK(bg_table_open_bytes(text, sizeof text - 1, "a.csv", &t, &err) == BG_OK, "%s",
          err.message);
    t->pool.limit = t->pool.total;
    t->rows = 1 << 20;
    CHECK(bg_table_column(t, "a", &column, &err) == BG_ERR_UNSUPPORTED &&
              strstr(err.message, "a.csv: its values take more than"),
          "%s", err.message);
    t->rows = t->max_values = 3;
    CHECK(bg_table_add_row(t, 0, &err) == BG_ERR_UNSUPPORTED &&
              strstr(err.message, "a.csv: more than 3 rows"),
          "%s", err.message);
    bg_table_close(t);
}

/* A page that claims to be larger than its codec can make of so few bytes takes no memory. */
static void test_bombs(void)
{
    static const uint8_t bytes[16] = {0};
    static const bg_codec codecs[] = {BG_CODEC_SNAPPY, BG_CODEC_GZIP, BG_CODEC_ZSTD};
    for (size_t i = 0; i < sizeof codecs / sizeof *codecs; i++) {
        bg_pool pool = {.limit = SIZE_MAX};
        const uint8_t *out;
        bg_error err = {0};
        CHECK(bg_unpack(&pool, codecs[i], bytes, sizeof bytes, "bomb", INT32_MAX, &out, &err) ==
                  BG_ERR_FORMAT,
              "%s", bg_codec_name(codecs[i]));
        CHECK(pool.total == 0 && strstr(err.message, bg_codec_name(codecs[i])), "%s", err.message);
        bg_pool_free(&pool);
    }
}

int main(void)
{
    RUN(test_memory);
    RUN(test_limits);
    RUN(test_bombs);
    RUN(test_damaged);
    return test_finish();
}
