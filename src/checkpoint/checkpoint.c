#include "checkpoint/checkpoint.h"

#include "checkpoint/pytorch.h"
#include "checkpoint/safetensors.h"
#include "core/alloc.h"
#include "core/checked.h"
#include "core/file.h"
#include "core/json.h"

#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

/* The files in which a directory may hold its weights: one, or an index of several. The first that
 * is there is taken. */
static const struct {
    const char *name;
    bool index;
} weight_files[] = {
    {"model.safetensors", false},
    {"model.safetensors.index.json", true},
    {"pytorch_model.bin", false},
    {"pytorch_model.bin.index.json", true},
};

enum {
    MAX_CONFIG_BYTES = 10 * 1024 * 1024,
    MAX_INDEX_BYTES = 100 * 1024 * 1024,
    MAX_SHARDS = 4096,
};

typedef struct {
    bg_mapping map;
    char *names;
    json_t *metadata;
    void *copies; /* tensors that are not in the file as they are */
    size_t copies_size;
} tensor_file;

struct bg_checkpoint {
    char *directory;
    char *config_path; /* NULL without a configuration, and so is config */
    json_t *config;
    tensor_file *files;
    size_t n_files;
    bg_tensor *tensors; /* file by file, in the order of their bytes */
    size_t count;
    uint32_t *slots; /* open addressing: 1 + index of a tensor, or 0 */
    size_t n_slots;  /* a power of two, at least twice count; 0 before there are tensors */
    uint64_t seed;
};

/* ---- names ----------------------------------------------------------------------------------- */

/* FNV-1a from a random start, so that a file cannot choose names that collide. */
static uint64_t hash_name(uint64_t seed, const char *name)
{
    uint64_t hash = 0xcbf29ce484222325u ^ seed;
    for (const char *p = name; *p; p++) hash = (hash ^ (unsigned char)*p) * 0x100000001b3u;
    return hash ^ hash >> 29;
}

/* The slot of that name, or the free one where it would go. */
static size_t find_slot(const bg_checkpoint *c, const char *name)
{
    size_t slot = hash_name(c->seed, name) & (c->n_slots - 1);
    while (c->slots[slot] && strcmp(c->tensors[c->slots[slot] - 1].name, name) != 0)
        slot = (slot + 1) & (c->n_slots - 1);
    return slot;
}

static bg_status index_names(bg_checkpoint *c, bg_error *err)
{
    size_t n_slots = 16;
    while (n_slots < 2 * c->count) n_slots *= 2;
    c->slots = bg_calloc(n_slots, sizeof *c->slots);
    if (!c->slots) return bg_fail_memory(err, n_slots * sizeof *c->slots, "an index of tensors");
    c->n_slots = n_slots;
    if (getrandom(&c->seed, sizeof c->seed, GRND_NONBLOCK) < 0) c->seed = (uintptr_t)c;
    for (size_t i = 0; i < c->count; i++) {
        const bg_tensor *t = &c->tensors[i];
        size_t slot = find_slot(c, t->name);
        if (c->slots[slot]) {
            const bg_tensor *other = &c->tensors[c->slots[slot] - 1];
            if (other->file_index == t->file_index)
                return bg_fail(err, BG_ERR_FORMAT,
                               "%s: tensor \"%.200s\" is there twice; the file is damaged: "
                               "download it again",
                               t->file, t->name);
            return bg_fail(
                err, BG_ERR_FORMAT,
                "%s: tensor \"%.200s\" is also in %s; the shards do not belong together: "
                "download the model again into an empty directory",
                t->file, t->name, other->file);
        }
        c->slots[slot] = (uint32_t)(i + 1);
    }
    return BG_OK;
}

/* ---- tensor files ---------------------------------------------------------------------------- */

/* Whichever of the formats it is; its tensors go to the caller, the rest to the file. */
static bg_status parse(tensor_file *file, bg_tensor **tensors, size_t *count, bg_error *err)
{
    const bg_mapping *map = &file->map;
    if (bg_pytorch_detect(map->data, map->size)) {
        bg_pytorch parsed;
        BG_TRY(bg_pytorch_parse(map->data, map->size, map->path, &parsed, err));
        file->names = parsed.names;
        file->copies = parsed.copies;
        file->copies_size = parsed.copies_size;
        *tensors = parsed.tensors;
        *count = parsed.count;
    } else {
        bg_safetensors parsed;
        BG_TRY(bg_safetensors_parse(map->data, map->size, map->path, &parsed, err));
        file->names = parsed.names;
        file->metadata = parsed.metadata;
        *tensors = parsed.tensors;
        *count = parsed.count;
    }
    /* The pages of headers, read once. */
    bg_mapping_release(map, 0, map->size);
    return BG_OK;
}

/* Maps and parses one more file; c->files has room for it. */
static bg_status add_file(bg_checkpoint *c, const char *path, bg_error *err)
{
    tensor_file *file = &c->files[c->n_files];
    bg_tensor *parsed, *tensors = NULL;
    size_t count;
    BG_TRY(bg_map_file(path, &file->map, err));
    size_t index = c->n_files++;
    BG_TRY(parse(file, &parsed, &count, err));
    size_t total = c->count + count;
    if (total <= BG_SAFETENSORS_MAX_TENSORS)
        tensors = bg_realloc_array(c->tensors, total, sizeof *tensors);
    if (tensors) {
        c->tensors = tensors;
        for (size_t i = 0; i < count; i++) {
            tensors[c->count] = parsed[i];
            tensors[c->count++].file_index = index;
        }
    }
    bg_free(parsed);
    if (total > BG_SAFETENSORS_MAX_TENSORS)
        return bg_fail(err, BG_ERR_UNSUPPORTED,
                       "%s: with this file the model has %zu tensors, more than %d; use a smaller "
                       "model",
                       path, total, (int)BG_SAFETENSORS_MAX_TENSORS);
    return tensors ? BG_OK : bg_fail_memory(err, total * sizeof *tensors, "tensors");
}

static bg_status make_room(bg_checkpoint *c, size_t n_files, bg_error *err)
{
    c->files = bg_calloc(n_files, sizeof *c->files);
    return c->files ? BG_OK : bg_fail_memory(err, n_files * sizeof *c->files, "files");
}

/* ---- shards ---------------------------------------------------------------------------------- */

static int by_name(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* The index may only name files that lie beside it. */
static bool is_plain_name(const char *name)
{
    return *name && !strchr(name, '/') && !strchr(name, '\\') && strcmp(name, ".") != 0 &&
           strcmp(name, "..") != 0;
}

/* Collects the distinct shard names, borrowed from weight_map, into an array that the caller frees.
 * `seen` is an empty object. */
static bg_status list_shards(const json_t *weight_map, const char *path, json_t *seen,
                             const char ***out, size_t *n, bg_error *err)
{
    const char *tensor;
    json_t *value;
    json_object_foreach((json_t *)weight_map, tensor, value)
    {
        const char *shard = json_string_value(value);
        if (!shard || !is_plain_name(shard))
            return bg_fail(err, BG_ERR_FORMAT,
                           "%s: weight_map: the shard of tensor \"%.200s\" must be the plain name "
                           "of a file in the same directory, not \"%.100s\"; download the index "
                           "again",
                           path, tensor, shard ? shard : "(no string)");
        if (json_object_get(seen, shard)) continue;
        if (json_object_size(seen) == MAX_SHARDS)
            return bg_fail(err, BG_ERR_FORMAT,
                           "%s: weight_map: more than %d shards; download the index again", path,
                           (int)MAX_SHARDS);
        if (json_object_set_new(seen, shard, json_true()) != 0)
            return bg_fail_memory(err, strlen(shard), "the names of shards");
    }
    size_t count = json_object_size(seen);
    if (count == 0)
        return bg_fail(err, BG_ERR_FORMAT,
                       "%s: weight_map names no tensors; download the index again", path);
    const char **shards = bg_alloc_array(count, sizeof *shards);
    if (!shards) return bg_fail_memory(err, count * sizeof *shards, "the names of shards");
    json_object_foreach(seen, tensor, value) shards[(*n)++] = tensor;
    qsort(shards, count, sizeof *shards, by_name);
    *out = shards;
    return BG_OK;
}

static bg_status add_shards(bg_checkpoint *c, const char *path, const char *const *shards, size_t n,
                            bg_error *err)
{
    BG_TRY(make_room(c, n, err));
    for (size_t i = 0; i < n; i++) {
        char *shard = bg_path_join(c->directory, shards[i]);
        if (!shard) return bg_fail_memory(err, strlen(shards[i]), "a file name");
        bg_status status = BG_OK;
        if (bg_file_exists(shard))
            status = add_file(c, shard, err);
        else
            status = bg_fail(err, BG_ERR_FILE,
                             "%s: shard \"%.200s\" is not in the directory; download the missing "
                             "file",
                             path, shards[i]);
        bg_free(shard);
        BG_TRY(status);
    }
    return index_names(c, err);
}

static bg_status check_weight_map(const bg_checkpoint *c, const json_t *weight_map,
                                  const char *path, bg_error *err)
{
    const char *name;
    json_t *value;
    json_object_foreach((json_t *)weight_map, name, value)
    {
        const char *shard = json_string_value(value);
        const bg_tensor *tensor = bg_checkpoint_find(c, name);
        const char *slash = tensor ? strrchr(tensor->file, '/') : NULL;
        if (!slash || strcmp(slash + 1, shard) != 0)
            return bg_fail(
                err, BG_ERR_FORMAT,
                "%s: weight_map places tensor \"%.200s\" in shard \"%.200s\", which does "
                "not hold it; the files do not belong together: download the model again",
                path, name, shard);
    }
    return BG_OK;
}

static bg_status open_sharded(bg_checkpoint *c, const char *path, bg_error *err)
{
    json_t *index = NULL, *seen = NULL;
    const char **shards = NULL;
    size_t n = 0;
    BG_TRY(bg_json_load(path, MAX_INDEX_BYTES, &index, err));
    const json_t *weight_map = json_object_get(index, "weight_map");
    bg_status status = BG_OK;
    if (!json_is_object(weight_map))
        status = bg_fail(err, BG_ERR_FORMAT,
                         "%s: \"weight_map\" must be an object; download the index again", path);
    else if (!(seen = json_object()))
        status = bg_fail_memory(err, 64, "the names of shards");
    if (status == BG_OK) status = list_shards(weight_map, path, seen, &shards, &n, err);
    if (status == BG_OK) status = add_shards(c, path, shards, n, err);
    if (status == BG_OK) status = check_weight_map(c, weight_map, path, err);
    bg_free(shards);
    json_decref(seen);
    json_decref(index);
    return status;
}

/* ---- directories ----------------------------------------------------------------------------- */

/* Whether directory/name is a file; -1 when out of memory. */
static int has_file(const char *directory, const char *name)
{
    char *path = bg_path_join(directory, name);
    if (!path) return -1;
    int exists = bg_file_exists(path);
    bg_free(path);
    return exists;
}

/* The first of weight_files that is there, or -1; -2 when out of memory. */
static int find_weights(const char *directory)
{
    for (size_t i = 0; i < sizeof weight_files / sizeof *weight_files; i++) {
        int exists = has_file(directory, weight_files[i].name);
        if (exists) return exists < 0 ? -2 : (int)i;
    }
    return -1;
}

bool bg_checkpoint_has_weights(const char *directory)
{
    return find_weights(directory) >= 0;
}

/* Files that hold weights in a layout that this version does not read. */
static const char *const other_weights[] = {
    "tf_model.h5", "flax_model.msgpack",        "consolidated.00.pth",
    "model.onnx",  "adapter_model.safetensors", "adapter_model.bin",
};

static bg_status fail_no_weights(const char *directory, bg_error *err)
{
    for (size_t i = 0; i < sizeof other_weights / sizeof *other_weights; i++) {
        int exists = has_file(directory, other_weights[i]);
        if (exists < 0) return bg_fail_memory(err, strlen(directory), "a file name");
        if (exists)
            return bg_fail(err, BG_ERR_UNSUPPORTED,
                           "%s: the weights are in %s, and this version reads safetensors and "
                           "PyTorch's .bin alone; convert them with the Python package "
                           "transformers (from_pretrained, then save_pretrained, which writes %s)",
                           directory, other_weights[i], weight_files[0].name);
    }
    return bg_fail(err, BG_ERR_FILE,
                   "%s: there are no weights (neither %s nor %s, nor an index of either's shards); "
                   "download the model's files into this directory",
                   directory, weight_files[0].name, weight_files[2].name);
}

static bg_status open_weights(bg_checkpoint *c, bg_error *err)
{
    int found = find_weights(c->directory);
    if (found == -1) return fail_no_weights(c->directory, err);
    char *path = found < 0 ? NULL : bg_path_join(c->directory, weight_files[found].name);
    if (!path) return bg_fail_memory(err, strlen(c->directory), "a file name");
    bg_status status;
    if (weight_files[found].index) {
        status = open_sharded(c, path, err);
    } else {
        status = make_room(c, 1, err);
        if (status == BG_OK) status = add_file(c, path, err);
        if (status == BG_OK) status = index_names(c, err);
    }
    bg_free(path);
    return status;
}

static bg_status open_config(bg_checkpoint *c, bg_error *err)
{
    static const char layout[] = "a model in the Hugging Face layout is a directory with "
                                 "config.json, the weights (model.safetensors or "
                                 "pytorch_model.bin) and tokenizer.json";
    const char *directory = c->directory;
    if (bg_file_exists(directory))
        return bg_fail(err, BG_ERR_FILE, "%s: is a file, not a directory; %s", directory, layout);
    if (!bg_is_directory(directory))
        return bg_fail(err, BG_ERR_FILE,
                       "%s: there is no such directory; download the model first, and give its "
                       "path (%s)",
                       directory, layout);
    c->config_path = bg_path_join(directory, "config.json");
    if (!c->config_path) return bg_fail_memory(err, strlen(directory), "a file name");
    if (!bg_file_exists(c->config_path))
        return bg_fail(err, BG_ERR_FILE, "%s: there is no such file that can be read; %s",
                       c->config_path, layout);
    BG_TRY(bg_json_load(c->config_path, MAX_CONFIG_BYTES, &c->config, err));
    if (!json_is_object(c->config))
        return bg_fail(err, BG_ERR_FORMAT, "%s: must be a JSON object; download it again",
                       c->config_path);
    return BG_OK;
}

static bg_status create(const char *directory, size_t n, bg_checkpoint **out, bg_error *err)
{
    *out = bg_calloc(1, sizeof **out);
    if (*out) (*out)->directory = bg_strndup(directory, n);
    if (*out && (*out)->directory) return BG_OK;
    bg_checkpoint_close(*out);
    *out = NULL;
    return bg_fail_memory(err, sizeof(bg_checkpoint) + n, "a checkpoint");
}

/* Hands the checkpoint over, or closes it. */
static bg_status finish(bg_status status, bg_checkpoint *c, bg_checkpoint **out)
{
    if (status == BG_OK)
        *out = c;
    else
        bg_checkpoint_close(c);
    return status;
}

bg_status bg_checkpoint_open(const char *directory, bg_checkpoint **out, bg_error *err)
{
    bg_checkpoint *c;
    *out = NULL;
    BG_TRY(create(directory, strlen(directory), &c, err));
    bg_status status = open_config(c, err);
    if (status == BG_OK) status = open_weights(c, err);
    return finish(status, c, out);
}

bg_status bg_checkpoint_open_config(const char *directory, bg_checkpoint **out, bg_error *err)
{
    bg_checkpoint *c;
    *out = NULL;
    BG_TRY(create(directory, strlen(directory), &c, err));
    return finish(open_config(c, err), c, out);
}

bg_status bg_checkpoint_open_file(const char *path, bg_checkpoint **out, bg_error *err)
{
    bg_checkpoint *c;
    const char *slash = strrchr(path, '/');
    *out = NULL;
    BG_TRY(slash ? create(path, bg_max_size((size_t)(slash - path), 1), &c, err)
                 : create(".", 1, &c, err));
    bg_status status = make_room(c, 1, err);
    if (status == BG_OK) status = add_file(c, path, err);
    if (status == BG_OK) status = index_names(c, err);
    return finish(status, c, out);
}

void bg_checkpoint_close(bg_checkpoint *c)
{
    if (!c) return;
    for (size_t i = 0; i < c->n_files; i++) {
        bg_unmap(&c->files[i].map);
        bg_free(c->files[i].names);
        bg_free_aligned(c->files[i].copies, c->files[i].copies_size);
        json_decref(c->files[i].metadata);
    }
    bg_free(c->files);
    bg_free(c->tensors);
    bg_free(c->slots);
    json_decref(c->config);
    bg_free(c->config_path);
    bg_free(c->directory);
    bg_free(c);
}

/* ---- looking --------------------------------------------------------------------------------- */

const json_t *bg_checkpoint_config(const bg_checkpoint *c)
{
    return c->config;
}

const char *bg_checkpoint_config_path(const bg_checkpoint *c)
{
    return c->config_path;
}

const char *bg_checkpoint_directory(const bg_checkpoint *c)
{
    return c->directory;
}

size_t bg_checkpoint_count(const bg_checkpoint *c)
{
    return c->count;
}

bg_dtype bg_checkpoint_dtype(const bg_checkpoint *checkpoint, bg_dtype fallback)
{
    static const bg_dtype floats[] = {BG_F32, BG_F16, BG_BF16, BG_F64};
    uint64_t bytes[BG_DTYPE_COUNT] = {0}, most = 0;
    for (size_t i = 0; i < bg_checkpoint_count(checkpoint); i++) {
        const bg_tensor *t = bg_checkpoint_tensor(checkpoint, i);
        bytes[t->dtype] += t->bytes;
    }
    for (size_t i = 0; i < sizeof floats / sizeof *floats; i++)
        if (bytes[floats[i]] > most) {
            most = bytes[floats[i]];
            fallback = floats[i];
        }
    return fallback;
}

const bg_tensor *bg_checkpoint_tensor(const bg_checkpoint *c, size_t index)
{
    return index < c->count ? &c->tensors[index] : NULL;
}

const bg_tensor *bg_checkpoint_find(const bg_checkpoint *c, const char *name)
{
    if (!c->n_slots) return NULL;
    uint32_t found = c->slots[find_slot(c, name)];
    return found ? &c->tensors[found - 1] : NULL;
}

size_t bg_checkpoint_file_count(const bg_checkpoint *c)
{
    return c->n_files;
}

const char *bg_checkpoint_file_path(const bg_checkpoint *c, size_t index)
{
    return c->files[index].map.path;
}

size_t bg_checkpoint_file_size(const bg_checkpoint *c, size_t index)
{
    return c->files[index].map.size;
}

const json_t *bg_checkpoint_file_metadata(const bg_checkpoint *c, size_t index)
{
    return c->files[index].metadata;
}

size_t bg_checkpoint_file_bytes(const bg_checkpoint *c)
{
    size_t bytes = 0;
    for (size_t i = 0; i < c->n_files; i++) bytes += c->files[i].map.size;
    return bytes;
}

/* Where in its file a tensor lies; false where it is a copy. */
static bool place_in_file(const bg_checkpoint *c, const bg_tensor *tensor, const bg_mapping **map,
                          size_t *offset)
{
    *map = &c->files[tensor->file_index].map;
    uintptr_t from = (uintptr_t)tensor->data, start = (uintptr_t)(*map)->data;
    *offset = from - start;
    return from >= start && from - start < (*map)->size;
}

void bg_checkpoint_prefetch(const bg_checkpoint *c, const bg_tensor *tensor)
{
    const bg_mapping *map;
    size_t offset;
    if (place_in_file(c, tensor, &map, &offset)) bg_mapping_prefetch(map, offset, tensor->bytes);
}

void bg_checkpoint_release(const bg_checkpoint *c, const bg_tensor *tensor)
{
    const bg_mapping *map;
    size_t offset;
    if (place_in_file(c, tensor, &map, &offset)) bg_mapping_release(map, offset, tensor->bytes);
}
