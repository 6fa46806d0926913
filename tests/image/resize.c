/* Resizing against Pillow's results, and sizes that nobody asks for. */
#include "fixtures.h"

#include "core/alloc.h"
#include "image/resize.h"

static void test_against_pillow(void)
{
    size_t cases = 0;
    for (size_t i = 0; i < fixtures.count; i++) {
        const char *name = fixtures.tensors[i].name;
        char source[32];
        unsigned resample;
        size_t width, height;
        if (sscanf(name, "resized.%u.%31[a-z].%zux%zu", &resample, source, &width, &height) != 4)
            continue;
        bg_image in = fixture_image("source.", source), expected = fixture_image(name, ""), out;
        OK(bg_image_resize(&in, width, height, (bg_resample)resample, &out, &err));
        check_same_image(&out, &expected, 0, name);
        bg_image_free(&out);
        cases++;
    }
    CHECK(cases == 6 * 12, "%zu", cases);
}

/* A picture of one colour stays it, whatever the sizes: weights add up to one. Sums of white pixels
 * come closest to the limit of their type. */
static void test_one_colour(void)
{
    static const size_t sizes[] = {1, 2, 3, 10, 97, 4000};
    enum { SIZES = sizeof sizes / sizeof *sizes };
    for (int i = 0; i < SIZES * SIZES; i++) {
        size_t from = sizes[i / SIZES], to = sizes[i % SIZES];
        for (int resample = 0; resample < BG_RESAMPLE_COUNT; resample++) {
            bg_image in, out;
            bool tall = resample % 2;
            OK(bg_image_create(tall ? 2 : from, tall ? from : 2, "test", &in, &err));
            memset(in.rgb, 255, 3 * 2 * from);
            OK(bg_image_resize(&in, tall ? 3 : to, tall ? to : 3, (bg_resample)resample, &out,
                               &err));
            size_t wrong = 0;
            for (size_t k = 0; k < 3 * 3 * to; k++) wrong += out.rgb[k] != 255;
            CHECK(wrong == 0, "%zu to %zu, %d: %zu wrong", from, to, resample, wrong);
            bg_image_free(&in);
            bg_image_free(&out);
        }
    }
}

static void test_extreme(void)
{
    bg_image in, out;
    OK(bg_image_create(BG_IMAGE_MAX_EDGE, 1, "test", &in, &err));
    memset(in.rgb, 200, 3 * in.width);
    for (int resample = 0; resample < BG_RESAMPLE_COUNT; resample++) {
        OK(bg_image_resize(&in, 224, 224, (bg_resample)resample, &out, &err));
        CHECK(abs(out.rgb[3 * 224 * 100] - 200) <= 1, "%d", out.rgb[3 * 224 * 100]);
        bg_image_free(&out);
    }
    CHECK(bg_image_resize(&in, 1000000, 1000, BG_RESAMPLE_BICUBIC, &out, &err) ==
              BG_ERR_UNSUPPORTED,
          "%s", err.message);
    CHECK(!out.rgb, "an image is left");
    CHECK(bg_image_resize(&in, 0, 1, BG_RESAMPLE_BICUBIC, &out, &err) != BG_OK, "no width");
    bg_image_free(&in);
}

static void test_memory(void)
{
    bg_image in = fixture_image("source.", "photo"), out;
    static const struct {
        size_t width, height;
        bg_resample resample;
    } cases[] = {{9, 9, BG_RESAMPLE_BICUBIC},
                 {40, 9, BG_RESAMPLE_BILINEAR},
                 {9, 30, BG_RESAMPLE_LANCZOS},
                 {40, 30, BG_RESAMPLE_BICUBIC},
                 {9, 9, BG_RESAMPLE_NEAREST}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        bg_status status = BG_ERR_MEMORY;
        for (long n = 0; status != BG_OK && n < 100; n++) {
            bg_alloc_fail_after(n);
            status = bg_image_resize(&in, cases[i].width, cases[i].height, cases[i].resample, &out,
                                     &err);
            bg_alloc_fail_after(-1);
            CHECK(status == BG_OK || (status == BG_ERR_MEMORY && !out.rgb), "%s", err.message);
            bg_image_free(&out);
        }
        CHECK(status == BG_OK, "never succeeds");
    }
}

int main(void)
{
    fixtures_open();
    RUN(test_against_pillow);
    RUN(test_one_colour);
    RUN(test_extreme);
    RUN(test_memory);
    fixtures_close();
    return test_finish();
}
