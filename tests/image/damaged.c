/* Damaged, truncated and dishonest files: refused with a sentence that says which, never a picture
 * filled up with gray. The sanitizers see to the rest. */
#include "fixtures.h"

static uint8_t *copy_of(const bg_tensor *file)
{
    uint8_t *copy = malloc(file->bytes);
    memcpy(copy, file->data, file->bytes);
    return copy;
}

/* Decodes a heap copy of the bytes, so that a read beyond them is seen. */
static bg_status decode_exactly(const uint8_t *bytes, size_t size, bg_image *image)
{
    uint8_t *exact = malloc(size ? size : 1);
    memcpy(exact, bytes, size);
    bg_status status = bg_image_decode(exact, size, "here", image, &err);
    free(exact);
    return status;
}

static size_t find(const uint8_t *bytes, size_t size, const char *what, size_t n)
{
    for (size_t i = 0; i + n <= size; i++)
        if (memcmp(bytes + i, what, n) == 0) return i;
    printf("nothing found\n");
    exit(1);
}

/* Every beginning of a file, down to nothing. Only what follows the pixels may be missing. */
static void check_truncated(const char *kind, size_t signature, size_t tail)
{
    const bg_tensor *file = fixture("file.", kind);
    for (size_t size = 0; size < file->bytes; size++) {
        bg_image image;
        bg_status status = decode_exactly(file->data, size, &image);
        bool whole = size + tail >= file->bytes;
        CHECK(status == (whole ? BG_OK : BG_ERR_FORMAT), "%s at %zu of %zu: %s", kind, size,
              file->bytes, err.message);
        if (!whole && size >= signature)
            CHECK(strstr(err.message, "here: the ") && strstr(err.message, "truncated"),
                  "%s at %zu: %s", kind, size, err.message);
        bg_image_free(&image);
    }
}

static void test_truncated(void)
{
    check_truncated("png.rgb8", 8, 12); /* IEND is 12 bytes */
    check_truncated("png.gray16.interlaced", 8, 12);
    check_truncated("png.palette4.interlaced", 8, 12);
    check_truncated("jpeg.420", 3, 0);
    check_truncated("jpeg.420-progressive", 3, 0);
    check_truncated("jpeg.cmyk", 3, 0);
}

/* A JPEG that says it is at its end in the middle of its image data. */
static void test_early_end(void)
{
    static const char *const kinds[] = {"jpeg.420", "jpeg.420-progressive", "jpeg.gray"};
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        const bg_tensor *file = fixture("file.", kinds[i]);
        size_t scan = find(file->data, file->bytes, "\xff\xda", 2);
        size_t size = scan + (file->bytes - scan) / 8;
        uint8_t *copy = copy_of(file);
        memcpy(copy + size, "\xff\xd9", 2);
        bg_image image;
        CHECK(decode_exactly(copy, size + 2, &image) == BG_ERR_FORMAT, "%s", kinds[i]);
        CHECK(strstr(err.message, "truncated"), "%s", err.message);
        free(copy);
    }
}

/* One byte after the other is turned over: no crash, and an error is a whole sentence. */
static void test_flipped(void)
{
    static const char *const kinds[] = {"png.palette4", "png.rgba16.interlaced", "jpeg.422",
                                        "jpeg.420-progressive", "jpeg.ycck"};
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        const bg_tensor *file = fixture("file.", kinds[i]);
        uint8_t *copy = copy_of(file);
        size_t refused = 0;
        for (size_t at = 0; at < file->bytes; at++) {
            bg_image image;
            copy[at] ^= 0xff;
            /* Sizes of thousands of millions are refused; thousands would take their time. */
            bg_status status = decode_exactly(copy, file->bytes, &image);
            copy[at] ^= 0xff;
            if (status != BG_OK) {
                CHECK(err.status == status && status != BG_ERR_INTERNAL &&
                          strncmp(err.message, "here: ", 6) == 0,
                      "%s", err.message);
                refused++;
            }
            bg_image_free(&image);
        }
        CHECK(refused > 16, "%s: %zu", kinds[i], refused);
        free(copy);
    }
}

static void test_wrong_checksum(void)
{
    const bg_tensor *file = fixture("file.", "png.rgb8");
    uint8_t *copy = copy_of(file);
    bg_image image;
    copy[29] ^= 1; /* of the header */
    CHECK(decode_exactly(copy, file->bytes, &image) == BG_ERR_FORMAT, "%s", err.message);
    CHECK(strstr(err.message, "the PNG image is damaged (IHDR: CRC error)"), "%s", err.message);
    copy[29] ^= 1;
    copy[file->bytes - 13] ^= 1; /* of the image data's last chunk */
    CHECK(decode_exactly(copy, file->bytes, &image) == BG_ERR_FORMAT, "%s", err.message);
    CHECK(strstr(err.message, "IDAT: CRC error"), "%s", err.message);
    free(copy);
}

/* The size in the header, in big-endian, without the pixels to go with it. */
static void test_bombs(void)
{
    const bg_tensor *png = fixture("file.", "png.rgb8"), *jpeg = fixture("file.", "jpeg.420");
    bg_image image;
    uint8_t *copy = copy_of(jpeg);
    size_t frame = find(copy, jpeg->bytes, "\xff\xc0", 2);
    memcpy(copy + frame + 5, "\xff\xdc\xff\xdc", 4);
    CHECK(decode_exactly(copy, jpeg->bytes, &image) == BG_ERR_UNSUPPORTED, "%s", err.message);
    CHECK(strstr(err.message, "65500 × 65500 pixels is more than"), "%s", err.message);
    memcpy(copy + frame + 5, "\x10\x00\x10\x00", 4);
    CHECK(decode_exactly(copy, jpeg->bytes, &image) == BG_ERR_FORMAT, "%s", err.message);
    CHECK(strstr(err.message, "truncated"), "%s", err.message);
    copy[frame + 4] = 12; /* bits a sample */
    CHECK(decode_exactly(copy, jpeg->bytes, &image) == BG_ERR_UNSUPPORTED, "%s", err.message);
    free(copy);

    copy = copy_of(png);
    /* 20,000 × 20,000 with the checksum that belongs to it */
    memcpy(copy + 16, "\x00\x00\x4e\x20\x00\x00\x4e\x20\x08\x02\x00\x00\x00\x6c\x12\xd1\x6e", 17);
    CHECK(decode_exactly(copy, png->bytes, &image) == BG_ERR_UNSUPPORTED, "%s", err.message);
    CHECK(strstr(err.message, "20000 × 20000 pixels is more than"), "%s", err.message);
    free(copy);
}

/* The last scan of a progressive image again and again. */
static void test_many_scans(void)
{
    const bg_tensor *file = fixture("file.", "jpeg.gray-progressive");
    const uint8_t *data = file->data;
    size_t last = file->bytes - 2;
    while (memcmp(data + last, "\xff\xda", 2) != 0) last--;
    size_t scan = file->bytes - 2 - last, copies = 600;
    size_t size = last + copies * scan + 2;
    uint8_t *bytes = malloc(size);
    memcpy(bytes, data, last);
    for (size_t i = 0; i < copies; i++) memcpy(bytes + last + i * scan, data + last, scan);
    memcpy(bytes + size - 2, "\xff\xd9", 2);
    bg_image image;
    CHECK(decode_exactly(bytes, size, &image) == BG_ERR_UNSUPPORTED, "%s", err.message);
    CHECK(strstr(err.message, "more than 500 scans"), "%s", err.message);
    free(bytes);
}

int main(void)
{
    fixtures_open();
    RUN(test_truncated);
    RUN(test_early_end);
    RUN(test_flipped);
    RUN(test_wrong_checksum);
    RUN(test_bombs);
    RUN(test_many_scans);
    fixtures_close();
    return test_finish();
}
