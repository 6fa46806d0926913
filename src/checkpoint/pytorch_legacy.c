#include "checkpoint/pytorch_container.h"
#include "core/alloc.h"
#include "core/checked.h"

#include <stdlib.h>
#include <string.h>

#define AGAIN "; the file is damaged or cut short: download it again"

enum { FORMAT_VERSION = 1001 };

/* 0x1950a86a20f9469cfc6c, the first pickle. */
static const uint8_t magic[] = {0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19};

typedef struct {
    const uint8_t *data;
    size_t size, at;
    const char *path;
    bg_error *err;
} file;

/* The next pickle of the file. */
static bg_status next(file *f, bg_pickle *out)
{
    BG_TRY(bg_pickle_load(f->data + f->at, f->size - f->at, f->path, out, f->err));
    f->at += out->used;
    return BG_OK;
}

static bool is_magic(const bg_value *v)
{
    return v->kind == BG_VALUE_BIG_INT && v->size == sizeof magic &&
           memcmp(v->text, magic, sizeof magic) == 0;
}

static bg_status check_magic(file *f, const bg_value *root)
{
    if (is_magic(root)) return BG_OK;
    return bg_fail(f->err, BG_ERR_UNSUPPORTED,
                   "%s: is a Python pickle, but none that torch.save wrote; save the model's "
                   "state_dict() with torch.save, or as safetensors",
                   f->path);
}

static bg_status check_version(file *f, const bg_value *root)
{
    if (root->kind == BG_VALUE_INT && root->integer == FORMAT_VERSION) return BG_OK;
    return bg_fail(f->err, BG_ERR_UNSUPPORTED,
                   "%s: has another version of PyTorch's old format than %d; save the checkpoint "
                   "again with a newer PyTorch",
                   f->path, (int)FORMAT_VERSION);
}

static bg_status check_machine(file *f, const bg_value *root)
{
    const bg_value *little =
        root->kind == BG_VALUE_DICT ? bg_dict_find(root->items, "little_endian") : NULL;
    if (!little || little->kind != BG_VALUE_BOOL)
        return bg_fail(f->err, BG_ERR_FORMAT, "%s: does not say its byte order" AGAIN, f->path);
    if (little->integer) return BG_OK;
    return bg_fail(f->err, BG_ERR_UNSUPPORTED,
                   "%s: its numbers are big-endian; save the checkpoint again on a little-endian "
                   "machine, or as safetensors",
                   f->path);
}

/* ---- storages -------------------------------------------------------------------------------- */

static int compare_keys(const char *x, size_t x_size, const char *y, size_t y_size)
{
    int order = memcmp(x, y, bg_min_size(x_size, y_size));
    if (order) return order;
    return x_size < y_size ? -1 : x_size > y_size;
}

static int by_key(const void *x, const void *y)
{
    const bg_storage *a = *(bg_storage *const *)x, *b = *(bg_storage *const *)y;
    return compare_keys(a->key, a->key_size, b->key, b->key_size);
}

/* The first of the sorted storages that does not come before the key. */
static size_t lower_bound(bg_storage *const *sorted, size_t n, const bg_value *key)
{
    size_t low = 0;
    for (size_t high = n; low < high;) {
        size_t middle = low + (high - low) / 2;
        const bg_storage *s = sorted[middle];
        if (compare_keys(s->key, s->key_size, key->text, key->size) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* Reads the block of one storage, for all its occurrences in the pickle. */
static bg_status read_storage(file *f, const bg_value *key, bg_storage **sorted, size_t n)
{
    uint64_t numel = 0;
    size_t i = key->kind == BG_VALUE_STRING ? lower_bound(sorted, n, key) : n, bytes;
    if (i == n || compare_keys(sorted[i]->key, sorted[i]->key_size, key->text, key->size) != 0)
        return bg_fail(f->err, BG_ERR_FORMAT, "%s: lists a storage that no tensor is of" AGAIN,
                       f->path);
    if (sorted[i]->data)
        return bg_fail(f->err, BG_ERR_FORMAT, "%s: lists storage \"%.*s\" twice" AGAIN, f->path,
                       (int)bg_min_size(key->size, 64), key->text);
    if (f->size - f->at < 8)
        return bg_fail(f->err, BG_ERR_FORMAT, "%s: ends before storage \"%.*s\"" AGAIN, f->path,
                       (int)bg_min_size(key->size, 64), key->text);
    for (int k = 7; k >= 0; k--) numel = numel << 8 | f->data[f->at + (size_t)k];
    f->at += 8;
    if (!bg_mul_size((size_t)numel, bg_dtypes[sorted[i]->dtype].size, &bytes) ||
        bytes > f->size - f->at)
        return bg_fail(f->err, BG_ERR_FORMAT,
                       "%s: storage \"%.*s\" of %llu elements at byte %zu ends behind the file's "
                       "%zu bytes" AGAIN,
                       f->path, (int)bg_min_size(key->size, 64), key->text,
                       (unsigned long long)numel, f->at, f->size);
    const uint8_t *data = f->data + f->at;
    f->at += bytes;
    for (; i < n && compare_keys(sorted[i]->key, sorted[i]->key_size, key->text, key->size) == 0;
         i++)
        BG_TRY(bg_storage_place(sorted[i], data, bytes, f->path, f->err));
    return BG_OK;
}

static bg_status read_storages(file *f, const bg_value *keys, bg_pickle *pickle)
{
    size_t n = 0, i = 0;
    if (keys->kind != BG_VALUE_LIST)
        return bg_fail(f->err, BG_ERR_FORMAT, "%s: has no list of storages" AGAIN, f->path);
    for (const bg_storage *s = pickle->storages; s; s = s->next) n++;
    bg_storage **sorted = bg_alloc_array(n, sizeof *sorted);
    if (!sorted) return bg_fail_memory(f->err, n * sizeof *sorted, "storages");
    for (bg_storage *s = pickle->storages; s; s = s->next) sorted[i++] = s;
    qsort(sorted, n, sizeof *sorted, by_key);
    bg_status status = BG_OK;
    for (i = 0; i < keys->items->count && status == BG_OK; i++)
        status = read_storage(f, &keys->items->at[i], sorted, n);
    for (i = 0; i < n && status == BG_OK; i++)
        if (!sorted[i]->data)
            status = bg_fail(f->err, BG_ERR_FORMAT, "%s: storage \"%.*s\" is not there" AGAIN,
                             f->path, (int)bg_min_size(sorted[i]->key_size, 64), sorted[i]->key);
    bg_free(sorted);
    return status;
}

/* ---- the whole ------------------------------------------------------------------------------- */

bg_status bg_pytorch_load_legacy(const uint8_t *data, size_t size, const char *path, bg_pickle *out,
                                 bg_error *err)
{
    static bg_status (*const checks[])(file *, const bg_value *) = {check_magic, check_version,
                                                                    check_machine};
    file f = {.data = data, .size = size, .path = path, .err = err};
    bg_pickle pickle;
    for (size_t i = 0; i < sizeof checks / sizeof *checks; i++) {
        BG_TRY(next(&f, &pickle));
        bg_status status = checks[i](&f, &pickle.root);
        bg_pickle_free(&pickle);
        BG_TRY(status);
    }
    BG_TRY(next(&f, out));
    bg_status status = next(&f, &pickle);
    if (status == BG_OK) {
        status = read_storages(&f, &pickle.root, out);
        bg_pickle_free(&pickle);
    }
    if (status != BG_OK) bg_pickle_free(out);
    return status;
}
