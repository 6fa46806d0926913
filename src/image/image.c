#include "image/image.h"

#include "core/alloc.h"
#include "core/file.h"
#include "image/decode.h"

#include <string.h>

typedef struct {
    const char *name;
    size_t offset; /* of the signature */
    size_t size;
    const char *signature;
    bg_status (*decode)(const uint8_t *data, size_t size, const char *where, bg_image *image,
                        bg_error *err); /* NULL: known by name only, to say what a file is */
} image_format;

static const image_format formats[] = {
    {"PNG", 0, 8, "\x89PNG\r\n\x1a\n", bg_png_decode},
    {"JPEG", 0, 3, "\xff\xd8\xff", bg_jpeg_decode},
    {"GIF", 0, 4, "GIF8", NULL},
    {"WebP", 8, 4, "WEBP", NULL},
    {"TIFF", 0, 4, "II*\0", NULL},
    {"TIFF", 0, 4, "MM\0*", NULL},
    {"HEIF or AVIF", 4, 4, "ftyp", NULL},
    {"JPEG XL", 0, 2, "\xff\x0a", NULL},
    {"JPEG 2000", 4, 4, "jP  ", NULL},
    {"BMP", 0, 2, "BM", NULL},
    {"PDF", 0, 4, "%PDF", NULL},
};

bg_status bg_image_create(size_t width, size_t height, const char *where, bg_image *image,
                          bg_error *err)
{
    *image = (bg_image){0};
    if (width == 0 || height == 0)
        return bg_fail(err, BG_ERR_FORMAT, "%s: an image of %zu × %zu pixels is empty", where,
                       width, height);
    if (width > BG_IMAGE_MAX_EDGE || height > BG_IMAGE_MAX_EDGE ||
        height > BG_IMAGE_MAX_PIXELS / width)
        return bg_fail(err, BG_ERR_UNSUPPORTED,
                       "%s: an image of %zu × %zu pixels is more than the %d pixels (and %d on an "
                       "edge) that are read; scale it down first",
                       where, width, height, BG_IMAGE_MAX_PIXELS, BG_IMAGE_MAX_EDGE);
    image->rgb = bg_alloc_array(height, 3 * width);
    if (!image->rgb) return bg_fail_memory(err, 3 * width * height, "an image");
    image->width = width;
    image->height = height;
    return BG_OK;
}

void bg_image_free(bg_image *image)
{
    bg_free(image->rgb);
    *image = (bg_image){0};
}

bg_status bg_image_decode(const uint8_t *data, size_t size, const char *where, bg_image *image,
                          bg_error *err)
{
    *image = (bg_image){0};
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++) {
        const image_format *format = &formats[i];
        if (size < format->offset + format->size ||
            memcmp(data + format->offset, format->signature, format->size) != 0)
            continue;
        if (!format->decode)
            return bg_fail(err, BG_ERR_UNSUPPORTED,
                           "%s: a %s file, and only PNG and JPEG images are read; convert it",
                           where, format->name);
        bg_status status = format->decode(data, size, where, image, err);
        if (status != BG_OK) bg_image_free(image);
        return status;
    }
    return bg_fail(err, BG_ERR_FORMAT,
                   "%s: %s; PNG and JPEG images are read, and the name does not matter", where,
                   size ? "no image by its first bytes" : "an empty file, no image");
}

bg_status bg_image_open(const char *path, bg_image *image, bg_error *err)
{
    bg_mapping map;
    *image = (bg_image){0};
    BG_TRY(bg_map_file(path, &map, err));
    bg_status status = bg_image_decode(map.data, map.size, path, image, err);
    bg_unmap(&map);
    return status;
}
