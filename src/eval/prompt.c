#include "eval/prompt.h"

#include "core/alloc.h"
#include "core/file.h"
#include "image/image.h"
#include "image/processor.h"
#include "tokenizer/tokenizer.h"

#include <string.h>

static bool looks(const bg_config *c)
{
    return c->encoder && c->arch->task == BG_TASK_DECODER;
}

bg_status bg_prompt_encode(const bg_config *c, const bg_tokenizer *tokenizer, const char *text,
                           bool image, int32_t **ids, size_t *n, bg_error *err)
{
    const size_t length = strlen(text);
    if (!looks(c)) return bg_tokenizer_encode(tokenizer, text, length, true, ids, n, err);
    *ids = NULL;
    char *line = bg_alloc(length + 2);
    if (!line) return bg_fail_memory(err, length, "a prompt");
    memcpy(line, text, length);
    memcpy(line + length, "\n", 2);
    int32_t *encoded;
    size_t count;
    bg_status status =
        bg_tokenizer_encode(tokenizer, line, length + 1, false, &encoded, &count, err);
    bg_free(line);
    if (status != BG_OK) return status;
    const int32_t bos = bg_tokenizer_special(tokenizer, BG_TOKEN_BOS);
    const size_t patches = image ? bg_config_patches(c->encoder) : 0;
    int32_t *all = bg_alloc_array(patches + 1 + count, sizeof *all);
    if (all) {
        *n = 0;
        while (*n < patches) all[(*n)++] = (int32_t)c->image_token_id;
        if (bos >= 0) all[(*n)++] = bos;
        memcpy(all + *n, encoded, count * sizeof *encoded);
        *n += count;
        *ids = all;
    }
    bg_ids_free(encoded);
    return all ? BG_OK : bg_fail_memory(err, (patches + count) * sizeof *all, "a prompt");
}

static bg_status open_processor(const bg_config *vision, const char *directory,
                                bg_image_processor *out, bg_error *err)
{
    static const char *const names[] = {"processor_config.json", "preprocessor_config.json"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char *path = bg_path_join(directory, names[i]);
        if (!path) return bg_fail_memory(err, strlen(directory), "a path");
        const bool there = bg_file_exists(path);
        bg_free(path);
        if (there) return bg_image_processor_open(directory, out, err);
    }
    bg_image_processor_defaults((size_t)vision->image_size, out);
    return BG_OK;
}

static bg_status prepare(const bg_config *vision, const bg_image_processor *processor,
                         const bg_image *image, const char *path, float **pixels, bg_error *err)
{
    const size_t size = (size_t)vision->image_size;
    size_t width, height;
    BG_TRY(bg_image_processor_size(processor, image, &width, &height, err));
    if (width != size || height != size || vision->num_channels != 3)
        return bg_fail(err, BG_ERR_FORMAT,
                       "%s: the model's processor makes it %zu x %zu, but its vision tower takes "
                       "%lld channels of %zu x %zu",
                       path, width, height, (long long)vision->num_channels, size, size);
    *pixels = bg_alloc_array(3 * size * size, sizeof **pixels);
    if (!*pixels) return bg_fail_memory(err, 3 * size * size * sizeof **pixels, "an image");
    bg_status status = bg_image_prepare(processor, image, *pixels, err);
    if (status == BG_OK) return BG_OK;
    bg_free(*pixels);
    *pixels = NULL;
    return status;
}

bg_status bg_prompt_image(const bg_config *c, const char *directory, const char *path,
                          float **pixels, bg_error *err)
{
    bg_image_processor processor;
    bg_image image = {0};
    *pixels = NULL;
    if (!looks(c) || c->image_token_id < 0)
        return bg_fail(err, BG_ERR_UNSUPPORTED,
                       "%s does not look at images; leave --image out or name a model that does",
                       c->architecture);
    BG_TRY(open_processor(c->encoder, directory, &processor, err));
    BG_TRY(bg_image_open(path, &image, err));
    bg_status status = prepare(c->encoder, &processor, &image, path, pixels, err);
    bg_image_free(&image);
    return status;
}
