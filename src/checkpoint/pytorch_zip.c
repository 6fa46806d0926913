#include "checkpoint/pytorch_container.h"
#include "checkpoint/zip.h"
#include "core/checked.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>

#define AGAIN "; the file is damaged: download it again"

enum { MAX_PREFIX = 512, MAX_KEY = 64 };

static bool ends_with(const bg_zip_entry *entry, const char *end)
{
    size_t n = strlen(end);
    return entry->name_size >= n && memcmp(entry->name + entry->name_size - n, end, n) == 0;
}

/* All entries lie in one directory, which torch.save names after the file. */
static const bg_zip_entry *find_in(const bg_zip *zip, const char *prefix, const char *name,
                                   size_t name_size)
{
    char full[MAX_PREFIX + MAX_KEY + 16];
    int n = snprintf(full, sizeof full, "%s%.*s", prefix, (int)name_size, name);
    return bg_zip_find(zip, full, (size_t)n);
}

static bg_status find_pickle(const bg_zip *zip, const char *path, char prefix[MAX_PREFIX],
                             const bg_zip_entry **out, bg_error *err)
{
    static const char name[] = "/data.pkl";
    *out = NULL;
    for (size_t i = 0; i < zip->count; i++) {
        const bg_zip_entry *entry = &zip->entries[i];
        if (!ends_with(entry, name)) continue;
        if (*out)
            return bg_fail(err, BG_ERR_FORMAT,
                           "%s: zip archive: there are two entries data.pkl" AGAIN, path);
        *out = entry;
    }
    if (!*out)
        return bg_fail(err, BG_ERR_UNSUPPORTED,
                       "%s: is a zip archive, but none that torch.save wrote (there is no entry "
                       "data.pkl); give the checkpoint itself",
                       path);
    size_t n = (*out)->name_size - (sizeof name - 1) + 1; /* with the slash */
    if (n >= MAX_PREFIX || memchr((*out)->name, 0, n))
        return bg_fail(err, BG_ERR_FORMAT,
                       "%s: zip archive: the directory's name is %zu bytes" AGAIN, path, n);
    memcpy(prefix, (*out)->name, n);
    prefix[n] = '\0';
    return BG_OK;
}

static bg_status check_kind(const bg_zip *zip, const char *prefix, const char *path, bg_error *err)
{
    if (find_in(zip, prefix, "constants.pkl", 13))
        return bg_fail(err, BG_ERR_UNSUPPORTED,
                       "%s: is a TorchScript program, not a checkpoint; save its state_dict() with "
                       "torch.save",
                       path);
    const bg_zip_entry *order = find_in(zip, prefix, "byteorder", 9);
    if (!order || (order->size == 6 && memcmp(order->data, "little", 6) == 0)) return BG_OK;
    if (order->size == 3 && memcmp(order->data, "big", 3) == 0)
        return bg_fail(err, BG_ERR_UNSUPPORTED,
                       "%s: its numbers are big-endian; save the checkpoint again on a "
                       "little-endian machine, or as safetensors",
                       path);
    return bg_fail(err, BG_ERR_FORMAT, "%s: byteorder is neither \"little\" nor \"big\"" AGAIN,
                   path);
}

static bg_status place_storages(const bg_zip *zip, const char *prefix, const char *path,
                                const bg_pickle *pickle, bg_error *err)
{
    for (bg_storage *s = pickle->storages; s; s = s->next) {
        char name[MAX_KEY + 8];
        int n = snprintf(name, sizeof name, "data/%.*s", (int)bg_min_size(s->key_size, MAX_KEY + 1),
                         s->key);
        const bg_zip_entry *entry = NULL;
        if (s->key_size <= MAX_KEY) entry = find_in(zip, prefix, name, (size_t)n);
        if (!entry)
            return bg_fail(err, BG_ERR_FORMAT,
                           "%s: there is no entry \"%s\" for the storage of a tensor" AGAIN, path,
                           name);
        BG_TRY(bg_storage_place(s, entry->data, entry->size, path, err));
    }
    return BG_OK;
}

static bg_status load(const bg_zip *zip, const char *path, bg_pickle *out, bg_error *err)
{
    char prefix[MAX_PREFIX], where[PATH_MAX + 16];
    const bg_zip_entry *entry;
    BG_TRY(find_pickle(zip, path, prefix, &entry, err));
    BG_TRY(check_kind(zip, prefix, path, err));
    snprintf(where, sizeof where, "%s: data.pkl", path);
    BG_TRY(bg_pickle_load(entry->data, entry->size, where, out, err));
    bg_status status = place_storages(zip, prefix, path, out, err);
    if (status != BG_OK) bg_pickle_free(out);
    return status;
}

bg_status bg_pytorch_load_zip(const uint8_t *data, size_t size, const char *path, bg_pickle *out,
                              bg_error *err)
{
    bg_zip zip;
    BG_TRY(bg_zip_parse(data, size, path, &zip, err));
    bg_status status = load(&zip, path, out, err);
    bg_zip_free(&zip);
    return status;
}
