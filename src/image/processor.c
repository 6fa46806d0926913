#include "image/processor.h"

#include "core/alloc.h"
#include "core/file.h"

#include <math.h>
#include <string.h>

enum {
    CONFIG_LIMIT = 1 << 20, /* bytes of a configuration file */
    MAX_EDGE = 16384,       /* of the result; models in use take 224 to 1024 */
    DEFAULT_SIZE = 224,
};

static const char *const processor_types[] = {"SiglipImageProcessor", "SiglipImageProcessorFast",
                                              "SiglipImageProcessorPil"};

/* Options that are read below, and those that change nothing about the numbers of one image here.
 * Images are RGB from the start, whatever do_convert_rgb says: the models take nothing else. */
static const char *const known_options[] = {
    "image_processor_type",
    "do_resize",
    "size",
    "default_to_square",
    "resample",
    "do_rescale",
    "rescale_factor",
    "do_normalize",
    "image_mean",
    "image_std",
    "data_format",
    "image_seq_length",
    "do_convert_rgb",
    "crop_size",
    "pad_size",
    "processor_class",
    "device",
    "return_tensors",
    "disable_grouping",
    "_valid_processor_keys",
};

static bool listed(const char *name, const char *const *list, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (strcmp(name, list[i]) == 0) return true;
    return false;
}

static bg_status check_options(const json_t *config, const char *where, bg_error *err)
{
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)config, key, value)
    {
        if (json_is_null(value) || json_is_false(value) ||
            listed(key, known_options, sizeof known_options / sizeof *known_options))
            continue;
        return bg_fail(err, BG_ERR_UNSUPPORTED,
                       "%s: the image processor option \"%s\" is not supported; remove it if the "
                       "model does without",
                       where, key);
    }
    const char *type, *layout;
    BG_TRY(bg_json_string(config, "image_processor_type", where, processor_types[0], &type, err));
    if (!listed(type, processor_types, sizeof processor_types / sizeof *processor_types))
        return bg_fail(err, BG_ERR_UNSUPPORTED,
                       "%s: the image processor \"%s\" is not supported; %s is", where, type,
                       processor_types[0]);
    BG_TRY(bg_json_string(config, "data_format", where, "channels_first", &layout, err));
    if (strcmp(layout, "channels_first") != 0)
        return bg_fail(err, BG_ERR_UNSUPPORTED,
                       "%s: \"data_format\" is \"%s\", and the models here take channels_first",
                       where, layout);
    return BG_OK;
}

/* One edge of "size"; 0 where it is not given. */
static bg_status read_edge(const json_t *size, const char *key, const char *where, size_t *out,
                           bg_error *err)
{
    int64_t value;
    BG_TRY(bg_json_int(size, key, where, 1, MAX_EDGE, 0, false, &value, err));
    *out = (size_t)value;
    return BG_OK;
}

/* {"height", "width"}, {"shortest_edge"}, or a number: a square's edge or the shortest one. */
static bg_status read_size(const json_t *config, const char *where, bg_image_processor *p,
                           bg_error *err)
{
    static const char *const keys[] = {"height", "width", "shortest_edge"};
    const json_t *size = json_object_get(config, "size");
    if (!size || json_is_null(size)) return BG_OK;
    p->width = p->height = p->shortest_edge = 0;
    if (json_is_number(size)) {
        bool square;
        BG_TRY(bg_json_bool(config, "default_to_square", where, false, &square, err));
        BG_TRY(read_edge(config, "size", where, &p->shortest_edge, err));
        if (square) {
            p->width = p->height = p->shortest_edge;
            p->shortest_edge = 0;
        }
        return BG_OK;
    }
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)size, key, value)
    {
        if (!json_is_null(value) && !listed(key, keys, sizeof keys / sizeof *keys))
            return bg_fail(err, BG_ERR_UNSUPPORTED,
                           "%s: \"%s\" in the image processor's \"size\" is not supported; height "
                           "and width are, and shortest_edge",
                           where, key);
    }
    BG_TRY(read_edge(size, "height", where, &p->height, err));
    BG_TRY(read_edge(size, "width", where, &p->width, err));
    BG_TRY(read_edge(size, "shortest_edge", where, &p->shortest_edge, err));
    bool both = p->width && p->height, either = p->width || p->height;
    if (p->shortest_edge ? either : !both)
        return bg_fail(err, BG_ERR_FORMAT,
                       "%s: \"size\" must be {\"height\", \"width\"}, {\"shortest_edge\"} or a "
                       "number; correct the file",
                       where);
    return BG_OK;
}

/* A number, or one for each of red, green and blue. */
static bg_status read_channels(const json_t *config, const char *key, const char *where,
                               double out[3], bg_error *err)
{
    const json_t *value = json_object_get(config, key);
    if (!value || json_is_null(value)) return BG_OK;
    bool valid = json_is_number(value) || (json_is_array(value) && json_array_size(value) == 3);
    for (size_t c = 0; valid && c < 3; c++) {
        const json_t *number = json_is_array(value) ? json_array_get(value, c) : value;
        out[c] = json_number_value(number);
        valid = json_is_number(number) && isfinite((float)out[c]);
    }
    if (!valid)
        return bg_fail(err, BG_ERR_FORMAT,
                       "%s: \"%s\" must be a number or a list of three; correct the file", where,
                       key);
    return BG_OK;
}

void bg_image_processor_defaults(size_t image_size, bg_image_processor *processor)
{
    *processor = (bg_image_processor){
        .resize = true,
        .width = image_size,
        .height = image_size,
        .resample = BG_RESAMPLE_BICUBIC,
        .rescale = true,
        .rescale_factor = 1.0 / 255.0,
        .normalize = true,
        .mean = {0.5, 0.5, 0.5},
        .std = {0.5, 0.5, 0.5},
    };
}

bg_status bg_image_processor_parse(const json_t *config, const char *where,
                                   bg_image_processor *processor, bg_error *err)
{
    bg_image_processor p;
    int64_t resample, seq_length;
    bg_image_processor_defaults(DEFAULT_SIZE, &p);
    if (!json_is_object(config))
        return bg_fail(
            err, BG_ERR_FORMAT,
            "%s: the image processor's configuration must be an object; correct the file", where);
    BG_TRY(check_options(config, where, err));
    BG_TRY(bg_json_bool(config, "do_resize", where, p.resize, &p.resize, err));
    BG_TRY(read_size(config, where, &p, err));
    BG_TRY(bg_json_int(config, "resample", where, 0, BG_RESAMPLE_COUNT - 1, p.resample, false,
                       &resample, err));
    p.resample = (bg_resample)resample;
    BG_TRY(bg_json_bool(config, "do_rescale", where, p.rescale, &p.rescale, err));
    BG_TRY(bg_json_real(config, "rescale_factor", where, p.rescale_factor, &p.rescale_factor, err));
    BG_TRY(bg_json_bool(config, "do_normalize", where, p.normalize, &p.normalize, err));
    BG_TRY(read_channels(config, "image_mean", where, p.mean, err));
    BG_TRY(read_channels(config, "image_std", where, p.std, err));
    for (int c = 0; c < 3; c++)
        if ((float)p.std[c] == 0.0F)
            return bg_fail(err, BG_ERR_FORMAT,
                           "%s: \"image_std\" has a zero, by which nothing can be divided; correct "
                           "the file",
                           where);
    BG_TRY(bg_json_int(config, "image_seq_length", where, 0, 1 << 20, 0, false, &seq_length, err));
    p.image_seq_length = (size_t)seq_length;
    *processor = p;
    return BG_OK;
}

/* Reads one file; with `nested`, its "image_processor", *found false where it has none. */
static bg_status read_file(const char *path, bool nested, bool *found,
                           bg_image_processor *processor, bg_error *err)
{
    json_t *json;
    *found = bg_file_exists(path);
    if (!*found) return BG_OK;
    BG_TRY(bg_json_load(path, CONFIG_LIMIT, &json, err));
    const json_t *config = nested ? json_object_get(json, "image_processor") : json;
    *found = config != NULL;
    bg_status status = *found ? bg_image_processor_parse(config, path, processor, err) : BG_OK;
    json_decref(json);
    return status;
}

bg_status bg_image_processor_open(const char *directory, bg_image_processor *processor,
                                  bg_error *err)
{
    static const char *const files[] = {"processor_config.json", "preprocessor_config.json"};
    bool found = false;
    for (size_t i = 0; i < sizeof files / sizeof *files && !found; i++) {
        char *path = bg_path_join(directory, files[i]);
        if (!path) return bg_fail_memory(err, strlen(directory), directory);
        bg_status status = read_file(path, i == 0, &found, processor, err);
        bg_free(path);
        if (status != BG_OK) return status;
    }
    if (found) return BG_OK;
    return bg_fail(err, BG_ERR_FILE,
                   "%s: no preprocessor_config.json, and no processor_config.json with an "
                   "\"image_processor\"; fetch one of them from where the model came from",
                   directory);
}

bg_status bg_image_processor_size(const bg_image_processor *processor, const bg_image *image,
                                  size_t *width, size_t *height, bg_error *err)
{
    *width = image->width;
    *height = image->height;
    if (!processor->resize) return BG_OK;
    if (!processor->shortest_edge) {
        *width = processor->width;
        *height = processor->height;
        return BG_OK;
    }
    size_t *shorter = *width <= *height ? width : height;
    size_t *longer = *width <= *height ? height : width;
    /* Edges are at most a million and MAX_EDGE: the product is exact, the quotient rounded once. */
    *longer = (size_t)((double)(processor->shortest_edge * *longer) / (double)*shorter);
    *shorter = processor->shortest_edge;
    if (*longer > MAX_EDGE)
        return bg_fail(err, BG_ERR_UNSUPPORTED,
                       "an image of %zu × %zu pixels becomes %zu × %zu when its shorter edge is "
                       "made %zu, more than the %d supported; cut it first",
                       image->width, image->height, *width, *height, processor->shortest_edge,
                       MAX_EDGE);
    return BG_OK;
}

/* The 256 values that a channel can have, rounded where the reference rounds. */
static void fill_values(const bg_image_processor *p, int channel, float values[256])
{
    for (int i = 0; i < 256; i++) {
        float value = p->rescale ? (float)((double)i * p->rescale_factor) : (float)i;
        if (p->normalize) value = (value - (float)p->mean[channel]) / (float)p->std[channel];
        values[i] = value;
    }
}

bg_status bg_image_prepare(const bg_image_processor *processor, const bg_image *image,
                           float *pixels, bg_error *err)
{
    size_t width, height;
    bg_image resized = {0};
    BG_TRY(bg_image_processor_size(processor, image, &width, &height, err));
    if (processor->resize) {
        BG_TRY(bg_image_resize(image, width, height, processor->resample, &resized, err));
        image = &resized;
    }
    for (int c = 0; c < 3; c++) {
        float values[256];
        fill_values(processor, c, values);
        for (size_t i = 0; i < width * height; i++) *pixels++ = values[image->rgb[3 * i + c]];
    }
    bg_image_free(&resized);
    return BG_OK;
}
