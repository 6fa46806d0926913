/* Reading whole files: what Pillow makes of the same bytes is what must come out. */
#include "fixtures.h"

#include "core/alloc.h"

static void check_file(const bg_tensor *file, const char *kind, int tolerance)
{
    bg_image image, expected = fixture_image("rgb.", kind);
    OK(bg_image_decode(file->data, file->bytes, kind, &image, &err));
    check_same_image(&image, &expected, tolerance, kind);
    bg_image_free(&image);
    CHECK(!image.rgb && !image.width && !image.height, "%s is not empty after bg_image_free", kind);
}

/* Every file there is a fixture of that format. */
static void check_format(const char *prefix, size_t at_least, int tolerance)
{
    size_t files = 0;
    for (size_t i = 0; i < fixtures.count; i++) {
        const bg_tensor *file = &fixtures.tensors[i];
        if (strncmp(file->name, prefix, strlen(prefix)) != 0) continue;
        check_file(file, file->name + strlen("file."), tolerance);
        files++;
    }
    CHECK(files >= at_least, "only %zu files", files);
}

static void test_png(void)
{
    check_format("file.png.", 44, 0);
}

static void test_jpeg(void)
{
    check_format("file.jpeg.", 17, 1);
}

static void test_path(void)
{
    bg_image image;
    OK(bg_image_open(IMAGES "square.png", &image, &err));
    CHECK(image.width == 56 && image.height == 56, "%zu × %zu", image.width, image.height);
    bg_image_free(&image);
    OK(bg_image_open(IMAGES "large.jpg", &image, &err));
    CHECK(image.width == 640 && image.height == 426, "%zu × %zu", image.width, image.height);
    bg_image_free(&image);
    CHECK(bg_image_open("tests/fixtures/none.png", &image, &err) == BG_ERR_FILE, "%s", err.message);
    CHECK(strstr(err.message, "tests/fixtures/none.png"), "%s", err.message);
    CHECK(bg_image_open(IMAGES "make_images.py", &image, &err) == BG_ERR_FORMAT, "%s", err.message);
    CHECK(strstr(err.message, "make_images.py: no image by its first bytes"), "%s", err.message);
    CHECK(!image.rgb, "an image is left");
}

static void test_other_formats(void)
{
    static const struct {
        const char *bytes;
        size_t size;
        const char *says;
    } cases[] = {
        {"GIF89a..", 8, "a GIF file"},
        {"RIFF....WEBPVP8 ", 16, "a WebP file"},
        {"II*\0....", 8, "a TIFF file"},
        {"MM\0*....", 8, "a TIFF file"},
        {"\0\0\0\x1c"
         "ftypheic",
         12, "a HEIF or AVIF file"},
        {"BM......", 8, "a BMP file"},
        {"%PDF-1.4", 8, "a PDF file"},
        {"\x89PNG\r\n", 6, "no image by its first bytes"},
        {"\xff\xd8", 2, "no image by its first bytes"},
        {"", 0, "an empty file"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        bg_image image;
        bg_status status =
            bg_image_decode((const uint8_t *)cases[i].bytes, cases[i].size, "here", &image, &err);
        CHECK(status == BG_ERR_UNSUPPORTED || status == BG_ERR_FORMAT, "%d", (int)status);
        CHECK(strstr(err.message, cases[i].says), "\"%s\" in \"%s\"", cases[i].says, err.message);
    }
}

static void test_limits(void)
{
    bg_image image;
    OK(bg_image_create(BG_IMAGE_MAX_EDGE, 1, "here", &image, &err));
    bg_image_free(&image);
    static const size_t sizes[][2] = {{BG_IMAGE_MAX_EDGE + 1, 1},
                                      {1, BG_IMAGE_MAX_EDGE + 1},
                                      {9460, 9460},
                                      {SIZE_MAX, SIZE_MAX},
                                      {0, 5},
                                      {5, 0}};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        CHECK(bg_image_create(sizes[i][0], sizes[i][1], "here", &image, &err) != BG_OK, "%zu", i);
        CHECK(!image.rgb, "an image is left");
    }
}

/* Each allocation of bitgauge's own and of libpng's fails in turn; libjpeg has its own. */
static void test_memory(void)
{
    static const char *const kinds[] = {"png.gray16.interlaced", "png.palette4", "png.rgba16",
                                        "jpeg.420", "jpeg.cmyk"};
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        const bg_tensor *file = fixture("file.", kinds[i]);
        bg_status status = BG_ERR_MEMORY;
        for (long n = 0; status != BG_OK && n < 1000; n++) {
            bg_image image;
            bg_alloc_fail_after(n);
            status = bg_image_decode(file->data, file->bytes, kinds[i], &image, &err);
            bg_alloc_fail_after(-1);
            CHECK(status == BG_OK || status == BG_ERR_MEMORY, "%s, %ld: %s", kinds[i], n,
                  err.message);
            CHECK(status == BG_OK || !image.rgb, "an image is left");
            bg_image_free(&image);
        }
        CHECK(status == BG_OK, "%s never succeeds", kinds[i]);
    }
    bg_image image;
    bg_alloc_fail_after(0);
    CHECK(bg_image_open(IMAGES "square.png", &image, &err) == BG_ERR_MEMORY, "%s", err.message);
    bg_alloc_fail_after(-1);
}

int main(void)
{
    fixtures_open();
    RUN(test_png);
    RUN(test_jpeg);
    RUN(test_path);
    RUN(test_other_formats);
    RUN(test_limits);
    RUN(test_memory);
    fixtures_close();
    return test_finish();
}
