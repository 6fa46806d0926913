/* From configuration and picture to pixel values, against transformers' SiglipImageProcessorPil. */
#include "fixtures.h"

#include "core/alloc.h"
#include "image/processor.h"

#include <unistd.h>

static bg_image_processor parse(const char *text, size_t size)
{
    json_t *json;
    bg_image_processor p = {0};
    OK(bg_json_parse(text, size, "here", &json, &err));
    OK(bg_image_processor_parse(json, "here", &p, &err));
    json_decref(json);
    return p;
}

/* Prepares `image` and compares it with a fixture (3, height, width). */
static void check_prepared(const bg_image_processor *p, const bg_image *image,
                           const bg_tensor *expected, float tolerance)
{
    size_t width = 0, height = 0;
    OK(bg_image_processor_size(p, image, &width, &height, &err));
    bool same = expected->shape[0] == 3 && (size_t)expected->shape[1] == height &&
                (size_t)expected->shape[2] == width;
    CHECK(same, "%s: %zu × %zu", expected->name, width, height);
    if (!same) return;
    float *pixels = malloc(3 * width * height * sizeof *pixels);
    OK(bg_image_prepare(p, image, pixels, &err));
    float worst = 0;
    for (size_t i = 0; i < 3 * width * height; i++) {
        float value;
        memcpy(&value, (const uint8_t *)expected->data + sizeof value * i, sizeof value);
        worst = fmaxf(worst, fabsf(pixels[i] - value));
    }
    CHECK(worst <= tolerance, "%s: off by %g", expected->name, worst);
    free(pixels);
}

static void test_against_transformers(void)
{
    bg_image photo = fixture_image("source.", "photo");
    size_t cases = 0;
    for (size_t i = 0; i < fixtures.count; i++) {
        const bg_tensor *config = &fixtures.tensors[i];
        if (strncmp(config->name, "config.", 7) != 0) continue;
        bg_image_processor p = parse((const char *)config->data, config->bytes);
        check_prepared(&p, &photo, fixture("pixels.", config->name + 7), 0);
        cases++;
    }
    CHECK(cases == 11, "%zu", cases);
}

static void test_files(void)
{
    static const struct {
        const char *name;
        float tolerance; /* a step of the 255 that the JPEG decoder may be off by */
    } files[] = {{"square.png", 0}, {"large.jpg", 2.0F / 255 + 1e-6F}};
    bg_image_processor p;
    bg_image_processor_defaults(56, &p);
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        char path[128];
        bg_image image;
        snprintf(path, sizeof path, IMAGES "%s", files[i].name);
        OK(bg_image_open(path, &image, &err));
        check_prepared(&p, &image, fixture("prepared.", files[i].name), files[i].tolerance);
        bg_image_free(&image);
    }
}

static void check_refused(const char *text, bg_status expected, const char *says)
{
    json_t *json;
    bg_image_processor p;
    OK(bg_json_parse(text, strlen(text), "here", &json, &err));
    bg_status status = bg_image_processor_parse(json, "here", &p, &err);
    CHECK(status == expected && strncmp(err.message, "here: ", 6) == 0 && strstr(err.message, says),
          "%s: %d, %s", text, (int)status, err.message);
    json_decref(json);
}

static void test_options(void)
{
    /* as older versions wrote it, with what is off or does not matter */
    static const char text[] =
        "{\"_valid_processor_keys\":[\"images\"],\"do_convert_rgb\":null,\"do_normalize\":true,"
        "\"do_rescale\":true,\"do_resize\":true,\"image_mean\":[0.5,0.5,0.5],"
        "\"image_processor_type\":\"SiglipImageProcessor\",\"image_seq_length\":1024,"
        "\"image_std\":[0.5,0.5,0.5],\"processor_class\":\"PaliGemmaProcessor\",\"resample\":3,"
        "\"rescale_factor\":0.00392156862745098,\"size\":{\"height\":448,\"width\":448},"
        "\"do_center_crop\":false,\"crop_size\":{\"height\":1,\"width\":1},\"do_pad\":null,"
        "\"data_format\":\"channels_first\",\"some_future_option\":false}";
    bg_image_processor p = parse(text, sizeof text - 1), q;
    bg_image_processor_defaults(448, &q);
    CHECK(p.width == 448 && p.height == 448 && p.shortest_edge == 0, "%zu", p.width);
    CHECK(p.image_seq_length == 1024, "%zu", p.image_seq_length);
    CHECK(p.resample == q.resample && p.rescale_factor == q.rescale_factor && p.resize &&
              p.rescale && p.normalize && p.mean[2] == 0.5 && p.std[0] == 0.5,
          "not the defaults");
    p = parse("{\"size\":30,\"default_to_square\":true}", 36);
    CHECK(p.width == 30 && p.height == 30 && p.shortest_edge == 0, "%zu", p.width);
    p = parse("{}", 2);
    CHECK(p.width == 224 && p.height == 224, "%zu", p.width);

    check_refused("[]", BG_ERR_FORMAT, "must be an object");
    check_refused("{\"do_center_crop\":true}", BG_ERR_UNSUPPORTED, "\"do_center_crop\"");
    check_refused("{\"do_pan_and_scan\":true}", BG_ERR_UNSUPPORTED, "\"do_pan_and_scan\"");
    check_refused("{\"input_data_format\":\"channels_last\"}", BG_ERR_UNSUPPORTED,
                  "\"input_data_format\"");
    check_refused("{\"data_format\":\"channels_last\"}", BG_ERR_UNSUPPORTED, "channels_last");
    check_refused("{\"image_processor_type\":\"CLIPImageProcessor\"}", BG_ERR_UNSUPPORTED,
                  "\"CLIPImageProcessor\"");
    check_refused("{\"image_processor_type\":7}", BG_ERR_FORMAT, "image_processor_type");
    check_refused("{\"size\":{\"longest_edge\":7}}", BG_ERR_UNSUPPORTED, "\"longest_edge\"");
    check_refused("{\"size\":{\"height\":7}}", BG_ERR_FORMAT, "\"size\"");
    check_refused("{\"size\":{\"height\":7,\"width\":7,\"shortest_edge\":7}}", BG_ERR_FORMAT,
                  "\"size\"");
    check_refused("{\"size\":{\"height\":7,\"width\":0}}", BG_ERR_FORMAT, "\"width\"");
    check_refused("{\"size\":{\"height\":7,\"width\":1e6}}", BG_ERR_FORMAT, "\"width\"");
    check_refused("{\"size\":\"big\"}", BG_ERR_FORMAT, "\"size\"");
    check_refused("{\"size\":[7,7]}", BG_ERR_FORMAT, "\"size\"");
    check_refused("{\"size\":-7}", BG_ERR_FORMAT, "\"size\"");
    check_refused("{\"resample\":6}", BG_ERR_FORMAT, "\"resample\"");
    check_refused("{\"do_resize\":1}", BG_ERR_FORMAT, "\"do_resize\"");
    check_refused("{\"rescale_factor\":\"1\"}", BG_ERR_FORMAT, "\"rescale_factor\"");
    check_refused("{\"image_mean\":[0.5,0.5]}", BG_ERR_FORMAT, "\"image_mean\"");
    check_refused("{\"image_mean\":[0.5,0.5,null]}", BG_ERR_FORMAT, "\"image_mean\"");
    check_refused("{\"image_mean\":[0.5,0.5,1e300]}", BG_ERR_FORMAT, "\"image_mean\"");
    check_refused("{\"image_std\":[0.5,0,0.5]}", BG_ERR_FORMAT, "\"image_std\"");
    check_refused("{\"image_seq_length\":-1}", BG_ERR_FORMAT, "\"image_seq_length\"");
}

static void test_shapes(void)
{
    bg_image_processor p = parse("{\"size\":{\"shortest_edge\":224}}", 30);
    static const struct {
        size_t in[2], out[2]; /* width, height */
    } cases[] = {{{640, 426}, {336, 224}},
                 {{426, 640}, {224, 336}},
                 {{1, 1}, {224, 224}},
                 {{3, 7}, {224, 522}},
                 {{1, 73}, {224, 16352}}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        size_t width, height;
        bg_image image = {.width = cases[i].in[0], .height = cases[i].in[1]};
        OK(bg_image_processor_size(&p, &image, &width, &height, &err));
        CHECK(width == cases[i].out[0] && height == cases[i].out[1], "%zu × %zu", width, height);
    }
    size_t width, height;
    bg_image line = {.width = 1000000, .height = 1};
    CHECK(bg_image_processor_size(&p, &line, &width, &height, &err) == BG_ERR_UNSUPPORTED, "%s",
          err.message);
    CHECK(bg_image_prepare(&p, &line, NULL, &err) == BG_ERR_UNSUPPORTED, "%s", err.message);
}

static void write_file(const char *directory, const char *name, const char *text)
{
    char path[256];
    snprintf(path, sizeof path, "%s/%s", directory, name);
    if (text)
        OK(bg_write_file(path, text, strlen(text), &err));
    else
        unlink(path);
}

static void test_directory(void)
{
    char directory[] = TEMPORARY;
    bg_image_processor p = {0};
    if (!mkdtemp(directory)) {
        SKIP("no temporary directory");
        return;
    }
    CHECK(bg_image_processor_open(directory, &p, &err) == BG_ERR_FILE, "%s", err.message);
    CHECK(strstr(err.message, directory) && strstr(err.message, "preprocessor_config.json"), "%s",
          err.message);
    write_file(directory, "preprocessor_config.json", "{\"size\":{\"height\":30,\"width\":40}}");
    OK(bg_image_processor_open(directory, &p, &err));
    CHECK(p.height == 30 && p.width == 40, "%zu", p.height);
    /* a processor's own file is passed over where it says nothing about images */
    write_file(directory, "processor_config.json", "{\"processor_class\":\"PaliGemmaProcessor\"}");
    OK(bg_image_processor_open(directory, &p, &err));
    CHECK(p.height == 30, "%zu", p.height);
    write_file(directory, "processor_config.json",
               "{\"image_processor\":{\"size\":{\"height\":50,\"width\":60}},"
               "\"processor_class\":\"PaliGemmaProcessor\"}");
    OK(bg_image_processor_open(directory, &p, &err));
    CHECK(p.height == 50 && p.width == 60, "%zu", p.height);
    write_file(directory, "processor_config.json", "{\"image_processor\":{\"do_pad\":true}}");
    CHECK(bg_image_processor_open(directory, &p, &err) == BG_ERR_UNSUPPORTED, "%s", err.message);
    CHECK(strstr(err.message, "processor_config.json: ") && strstr(err.message, "\"do_pad\""), "%s",
          err.message);
    write_file(directory, "processor_config.json", "{\"image_processor\":");
    CHECK(bg_image_processor_open(directory, &p, &err) == BG_ERR_FORMAT, "%s", err.message);
    for (long n = 0; n < 3; n++) {
        write_file(directory, "processor_config.json", NULL);
        bg_alloc_fail_after(n);
        CHECK(bg_image_processor_open(directory, &p, &err) == BG_ERR_MEMORY, "%ld: %s", n,
              err.message);
        bg_alloc_fail_after(-1);
    }
    write_file(directory, "preprocessor_config.json", NULL);
    rmdir(directory);
}

int main(void)
{
    fixtures_open();
    RUN(test_against_transformers);
    RUN(test_files);
    RUN(test_options);
    RUN(test_shapes);
    RUN(test_directory);
    fixtures_close();
    return test_finish();
}
