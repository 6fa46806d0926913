#include "hub/files.h"

#include "core/alloc.h"
#include "core/checked.h"
#include "core/json.h"
#include "hub/names.h"

#include <string.h>

enum { MOST_SHARDS = 10000 };

const char *const bg_model_small_files[] = {
    "config.json", "generation_config.json", "preprocessor_config.json", "processor_config.json",
    /* the tokenizer, in all the ways there are */
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
    "vocab.json", "merges.txt", "vocab.txt", "tokenizer.model", "spiece.model",
    "sentencepiece.bpe.model", NULL};

/* In the order of preference. */
static const struct {
    const char *name;
    bool is_index;
} weights[] = {
    {"model.safetensors", false},
    {"model.safetensors.index.json", true},
    {"pytorch_model.bin", false},
    {"pytorch_model.bin.index.json", true},
};

void bg_names_free(bg_names *names)
{
    for (size_t i = 0; i < names->n; i++) bg_free(names->items[i]);
    bg_free(names->items);
    *names = (bg_names){0};
}

bg_status bg_names_add(bg_names *names, const char *name, bg_error *err)
{
    char **items = bg_realloc_array(names->items, names->n + 1, sizeof *items);
    if (items) names->items = items;
    char *copy = items ? bg_strdup(name) : NULL;
    if (!copy) return bg_fail_memory(err, strlen(name), "the name of a file");
    names->items[names->n++] = copy;
    return BG_OK;
}

const char *bg_model_weights(bg_file_test has, const void *context, bool *is_index)
{
    for (size_t i = 0; i < sizeof weights / sizeof *weights; i++) {
        if (!has(context, weights[i].name)) continue;
        *is_index = weights[i].is_index;
        return weights[i].name;
    }
    return NULL;
}

static bg_status add_shards(const json_t *map, const char *path, bg_names *out, bg_error *err)
{
    const char *tensor;
    json_t *value, *seen = json_object();
    bg_status status = seen ? BG_OK : bg_fail_memory(err, 256, path);
    json_object_foreach((json_t *)map, tensor, value)
    {
        const char *name = json_string_value(value);
        if (status != BG_OK) break;
        if (!name || strlen(name) != json_string_length(value) || !bg_repo_path_valid(name)) {
            status = bg_fail(err, BG_ERR_FORMAT,
                             "%s: \"%.100s\" is in a file \"%.100s\", which is no name that a file "
                             "may have; the model's files are damaged",
                             path, tensor, name ? name : "");
        } else if (!json_object_get(seen, name)) {
            if (out->n == MOST_SHARDS)
                status =
                    bg_fail(err, BG_ERR_FORMAT, "%s names more than %d files", path, MOST_SHARDS);
            else if (json_object_set_new(seen, name, json_true()) != 0)
                status = bg_fail_memory(err, 256, path);
            else
                status = bg_names_add(out, name, err);
        }
    }
    json_decref(seen);
    return status;
}

bg_status bg_model_shards(const char *path, bg_names *out, bg_error *err)
{
    const size_t limit = (size_t)64 << 20;
    json_t *index;
    BG_TRY(bg_json_load(path, limit, &index, err));
    const json_t *map = json_object_get(index, "weight_map");
    bg_status status;
    if (json_object_size(map) == 0)
        status =
            bg_fail(err, BG_ERR_FORMAT,
                    "%s: \"weight_map\" is missing or empty; the model's files are damaged", path);
    else
        status = add_shards(map, path, out, err);
    json_decref(index);
    return status;
}
