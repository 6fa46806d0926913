/* bg_inspect: what a checkpoint is, without running it. */
#include "checkpoint/checkpoint.h"
#include "core/alloc.h"
#include "core/error.h"
#include "core/file.h"
#include "core/json.h"
#include "core/text.h"
#include "hub/hub.h"

#include <inttypes.h>
#include <stdbool.h>
#include <string.h>

typedef struct {
    size_t parameters;     /* elements of floating-point tensors */
    size_t bytes, tensors; /* of all tensors */
    size_t bytes_of[BG_DTYPE_COUNT];
    size_t tensors_of[BG_DTYPE_COUNT];
} totals;

static totals add_up(const bg_checkpoint *c)
{
    totals sum = {.tensors = bg_checkpoint_count(c)};
    for (size_t i = 0; i < sum.tensors; i++) {
        const bg_tensor *t = bg_checkpoint_tensor(c, i);
        if (t->dtype <= BG_BF16) sum.parameters += t->bytes / bg_dtypes[t->dtype].size;
        sum.bytes += t->bytes;
        sum.bytes_of[t->dtype] += t->bytes;
        sum.tensors_of[t->dtype]++;
    }
    return sum;
}

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

/* ---- the table ------------------------------------------------------------------------------- */

/* Appends text of a file, control characters replaced, so that it cannot move the cursor; returns
 * how many columns it takes (a character counts as one). */
static size_t put_clean(bg_text *out, const char *s)
{
    size_t columns = 0;
    for (const unsigned char *p = (const unsigned char *)s; *p; p++) {
        bool c1 = p[0] == 0xC2 && p[1] >= 0x80 && p[1] < 0xA0;
        if (c1) p++;
        char byte = *p < 0x20 || *p == 0x7F || c1 ? '?' : (char)*p;
        bg_text_append(out, &byte, 1);
        columns += c1 || (*p & 0xC0) != 0x80;
    }
    return columns;
}

static void put_padded(bg_text *out, const char *s, size_t width)
{
    for (size_t columns = put_clean(out, s); columns < width; columns++) bg_text_puts(out, " ");
}

/* "123.4 MiB" */
static void put_size(bg_text *out, size_t bytes)
{
    static const char *const units[] = {"KiB", "MiB", "GiB", "TiB"};
    double value = (double)bytes / 1024;
    size_t unit = 0;
    while (value >= 1024 && unit < 3) {
        value /= 1024;
        unit++;
    }
    if (bytes < 1024)
        bg_text_printf(out, "%zu bytes", bytes);
    else
        bg_text_printf(out, "%.1f %s", value, units[unit]);
}

/* The keys that say how large a model is and of what kind, as the architectures spell them. */
static const char *const main_keys[] = {
    "architectures", "model_type", "dtype", "torch_dtype", "vocab_size",
    /* width, depth, heads */
    "hidden_size", "n_embd", "d_model", "dim", "word_embed_proj_dim", "projection_dim",
    "num_hidden_layers", "n_layer", "n_layers", "num_layers", "num_decoder_layers",
    "num_attention_heads", "n_head", "n_heads", "num_heads", "num_key_value_heads", "head_dim",
    "d_kv", "intermediate_size", "n_inner", "hidden_dim", "ffn_dim", "d_ff",
    /* positions */
    "max_position_embeddings", "n_positions", "sliding_window", "rope_theta", "rope_parameters",
    "rope_scaling", "partial_rotary_factor", "image_size", "patch_size",
    /* activation, head */
    "hidden_act", "activation_function", "activation", "hidden_activation", "feed_forward_proj",
    "tie_word_embeddings", "id2label", "quantization_config"};

/* A configuration inside another, of a model made of two. */
static const char *const parts[] = {"text_config", "vision_config"};

static bool put_value(bg_text *out, const json_t *value)
{
    char *dump;
    switch (json_typeof(value)) {
    case JSON_STRING:
        put_clean(out, json_string_value(value));
        return true;
    case JSON_ARRAY:
        for (size_t i = 0; i < json_array_size(value); i++) {
            if (i) bg_text_puts(out, ", ");
            if (!put_value(out, json_array_get(value, i))) return false;
        }
        return true;
    default:
        dump = json_dumps(value, JSON_ENCODE_ANY | JSON_REAL_PRECISION(10));
        if (dump) put_clean(out, dump);
        bg_free(dump);
        return dump != NULL;
    }
}

static bool put_config(bg_text *out, const json_t *config, int indent)
{
    for (size_t i = 0; i < sizeof main_keys / sizeof *main_keys; i++) {
        const json_t *value = json_object_get(config, main_keys[i]);
        if (!value || json_is_null(value)) continue;
        bg_text_printf(out, "%*s%-*s  ", indent, "", 27 - indent, main_keys[i]);
        if (!put_value(out, value)) return false;
        bg_text_puts(out, "\n");
    }
    for (size_t i = 0; i < sizeof parts / sizeof *parts && indent == 2; i++) {
        const json_t *part = json_object_get(config, parts[i]);
        if (!json_is_object(part)) continue;
        bg_text_printf(out, "  %s\n", parts[i]);
        if (!put_config(out, part, 4)) return false;
    }
    return true;
}

static void put_files(bg_text *out, const bg_checkpoint *c)
{
    bg_text_puts(out, "\nFiles\n");
    for (size_t i = 0; i < bg_checkpoint_file_count(c); i++) {
        bg_text_puts(out, "  ");
        put_padded(out, base_name(bg_checkpoint_file_path(c, i)), 25);
        bg_text_printf(out, "  %zu bytes\n", bg_checkpoint_file_size(c, i));
        const char *key;
        json_t *value;
        json_object_foreach((json_t *)bg_checkpoint_file_metadata(c, i), key, value)
        {
            bg_text_puts(out, "    ");
            put_padded(out, key, 23);
            bg_text_puts(out, "  ");
            put_clean(out, json_string_value(value));
            bg_text_puts(out, "\n");
        }
    }
}

static void format_shape(bg_text *out, const bg_tensor *t)
{
    out->size = 0;
    bg_text_puts(out, "[");
    for (int i = 0; i < t->rank; i++) bg_text_printf(out, "%s%" PRId64, i ? ", " : "", t->shape[i]);
    bg_text_puts(out, "]");
}

static size_t count_columns(const char *s)
{
    size_t columns = 0;
    for (; *s; s++) columns += ((unsigned char)*s & 0xC0) != 0x80;
    return columns;
}

static void put_tensors(bg_text *out, const bg_checkpoint *c)
{
    enum { WIDEST = 72 }; /* a longer name moves its own line only */
    bg_text shape = {0};
    size_t names = 4, shapes = 5, n = bg_checkpoint_count(c);
    for (size_t i = 0; i < n; i++) {
        const bg_tensor *t = bg_checkpoint_tensor(c, i);
        size_t width = count_columns(t->name);
        format_shape(&shape, t);
        if (width > names && width <= WIDEST) names = width;
        if (!shape.failed && shape.size > shapes) shapes = shape.size;
    }
    bg_text_printf(out, "\nTensors\n  %-*s  type  %-*s  bytes\n", (int)names, "name", (int)shapes,
                   "shape");
    for (size_t i = 0; i < n; i++) {
        const bg_tensor *t = bg_checkpoint_tensor(c, i);
        format_shape(&shape, t);
        bg_text_puts(out, "  ");
        put_padded(out, t->name, names);
        bg_text_printf(out, "  %-4s  %-*s  %zu\n", bg_dtypes[t->dtype].safetensors, (int)shapes,
                       shape.failed ? "" : shape.data, t->bytes);
    }
    if (shape.failed) out->failed = true;
    bg_text_free(&shape);
}

static void put_totals(bg_text *out, const totals *sum)
{
    bg_text_printf(out, "\nTotal\n  %zu tensors, %zu parameters, ", sum->tensors, sum->parameters);
    put_size(out, sum->bytes);
    bg_text_puts(out, "\n");
    for (int i = 0; i < BG_DTYPE_COUNT; i++) {
        if (!sum->tensors_of[i]) continue;
        bg_text_printf(out, "  %-4s  %zu tensors, ", bg_dtypes[i].safetensors, sum->tensors_of[i]);
        put_size(out, sum->bytes_of[i]);
        bg_text_puts(out, "\n");
    }
}

static void write_table(bg_text *out, const char *path, const bg_checkpoint *c, const totals *sum)
{
    put_clean(out, path);
    bg_text_puts(out, "\n");
    if (bg_checkpoint_config(c)) {
        bg_text_puts(out, "\nConfiguration\n");
        if (!put_config(out, bg_checkpoint_config(c), 2)) out->failed = true;
    }
    if (bg_checkpoint_file_count(c) == 0) {
        bg_text_puts(out, "\nThere are no weights in this directory.\n");
        return;
    }
    put_files(out, c);
    put_tensors(out, c);
    put_totals(out, sum);
}

/* ---- JSON ------------------------------------------------------------------------------------ */

static void put_json(bg_text *out, const json_t *value)
{
    char *dump = json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT);
    if (dump)
        bg_text_puts(out, dump);
    else
        out->failed = true;
    bg_free(dump);
}

/* A string value; what is no UTF-8 in it (a path may be anything) is left out. */
static void put_json_string(bg_text *out, const char *s)
{
    json_t *value = json_string(s);
    if (!value) {
        bg_text ascii = {0};
        for (; *s; s++)
            if ((unsigned char)*s < 0x80) bg_text_append(&ascii, s, 1);
        value = json_string(ascii.data ? ascii.data : "");
        bg_text_free(&ascii);
    }
    if (value)
        put_json(out, value);
    else
        out->failed = true;
    json_decref(value);
}

static void write_json(bg_text *out, const char *path, const bg_checkpoint *c, const totals *sum)
{
    bg_text_puts(out, "{\n  \"path\": ");
    put_json_string(out, path);
    if (bg_checkpoint_config(c)) {
        bg_text_puts(out, ",\n  \"config\": ");
        put_json(out, bg_checkpoint_config(c));
    }
    bg_text_puts(out, ",\n  \"files\": [");
    for (size_t i = 0; i < bg_checkpoint_file_count(c); i++) {
        bg_text_puts(out, i ? ",\n    {\"name\": " : "\n    {\"name\": ");
        put_json_string(out, base_name(bg_checkpoint_file_path(c, i)));
        bg_text_printf(out, ", \"bytes\": %zu", bg_checkpoint_file_size(c, i));
        if (bg_checkpoint_file_metadata(c, i)) {
            bg_text_puts(out, ", \"metadata\": ");
            put_json(out, bg_checkpoint_file_metadata(c, i));
        }
        bg_text_puts(out, "}");
    }
    bg_text_puts(out, "],\n  \"tensors\": [");
    for (size_t i = 0; i < sum->tensors; i++) {
        const bg_tensor *t = bg_checkpoint_tensor(c, i);
        bg_text_puts(out, i ? ",\n    {\"name\": " : "\n    {\"name\": ");
        put_json_string(out, t->name);
        bg_text_printf(out, ", \"dtype\": \"%s\", \"shape\": [", bg_dtypes[t->dtype].safetensors);
        for (int k = 0; k < t->rank; k++)
            bg_text_printf(out, "%s%" PRId64, k ? ", " : "", t->shape[k]);
        bg_text_printf(out, "], \"bytes\": %zu, \"file\": ", t->bytes);
        put_json_string(out, base_name(t->file));
        bg_text_puts(out, "}");
    }
    bg_text_printf(out, "],\n  \"parameters\": %zu,\n  \"bytes_by_dtype\": {", sum->parameters);
    const char *separator = "";
    for (int i = 0; i < BG_DTYPE_COUNT; i++) {
        if (!sum->tensors_of[i]) continue;
        bg_text_printf(out, "%s\"%s\": %zu", separator, bg_dtypes[i].safetensors, sum->bytes_of[i]);
        separator = ", ";
    }
    bg_text_puts(out, "}\n}\n");
}

/* ---- both ------------------------------------------------------------------------------------ */

/* A directory with nothing but a configuration is worth a look, too. */
static bool only_config(const char *directory)
{
    char *config = bg_path_join(directory, "config.json");
    bool only = config && bg_file_exists(config) && !bg_checkpoint_has_weights(directory);
    bg_free(config);
    return only;
}

static bg_status inspect(const char *path, bool json, char **text, bg_error *err)
{
    bg_checkpoint *c = NULL;
    if (bg_file_exists(path))
        BG_TRY(bg_checkpoint_open_file(path, &c, err));
    else if (only_config(path))
        BG_TRY(bg_checkpoint_open_config(path, &c, err));
    else
        BG_TRY(bg_checkpoint_open(path, &c, err));
    bg_text out = {0};
    totals sum = add_up(c);
    (json ? write_json : write_table)(&out, path, c, &sum);
    bg_checkpoint_close(c);
    if (out.failed) {
        size_t size = out.size;
        bg_text_free(&out);
        return bg_fail_memory(err, size, "a description of the checkpoint");
    }
    *text = out.data;
    return BG_OK;
}

bg_status bg_inspect(const char *path, bool json, char **text, bg_error *err)
{
    char *found;
    *text = NULL;
    BG_TRY(bg_hub_resolve_model(path, false, (bg_progress){0}, &found, err));
    bg_status status = inspect(found, json, text, err);
    bg_free(found);
    return status;
}
