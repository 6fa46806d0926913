/* Any bytes as an image file, and as an image processor's configuration: refused with a message, or
 * pixels that are finite numbers. */
#include "core/json.h"
#include "image/processor.h"

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max_size);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed);

/* The CRC-32 of PNG and zlib. */
static uint32_t checksum(const uint8_t *bytes, size_t n)
{
    uint32_t crc = ~UINT32_C(0);
    for (size_t i = 0; i < n; i++) {
        crc ^= bytes[i];
        for (int bit = 0; bit < 8; bit++) crc = crc >> 1 ^ (crc & 1 ? UINT32_C(0xedb88320) : 0);
    }
    return ~crc;
}

static void put_big_endian(uint8_t *to, uint32_t value)
{
    for (int i = 0; i < 4; i++) to[i] = (uint8_t)(value >> (24 - 8 * i));
}

/* A chunk of a PNG file is length, name, data, checksum: after each mutation the checksums, but for
 * one time in sixteen, are made right again, or hardly any input would get past them. */
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed)
{
    static const uint8_t signature[8] = "\x89PNG\r\n\x1a\n";
    size = LLVMFuzzerMutate(data, size, max_size);
    if (size < sizeof signature || memcmp(data, signature, sizeof signature) != 0 || seed % 16 == 0)
        return size;
    for (size_t at = sizeof signature; size - at >= 12;) {
        uint32_t length = 0;
        for (size_t i = 0; i < 4; i++) length = length << 8 | data[at + i];
        if (length > size - at - 12) break;
        put_big_endian(data + at + 8 + length, checksum(data + at + 4, length + 4));
        at += length + 12;
    }
    return size;
}

static void check(bg_status status, const bg_error *err)
{
    if (status != BG_OK && (err->status != status || !*err->message || status == BG_ERR_INTERNAL))
        abort();
}

/* A small image of every value, wider than high. */
static bg_image ramp(void)
{
    bg_image image;
    if (bg_image_create(19, 5, "fuzz", &image, NULL) != BG_OK) abort();
    for (size_t i = 0; i < 3 * 19 * 5; i++) image.rgb[i] = (uint8_t)(3 * i);
    return image;
}

static void prepare(const bg_image_processor *processor, const bg_image *image, bool finite)
{
    bg_error err = {0};
    size_t width, height;
    bg_status status = bg_image_processor_size(processor, image, &width, &height, &err);
    check(status, &err);
    if (status != BG_OK || width * height > 1 << 20) return;
    float *pixels = malloc(3 * width * height * sizeof *pixels);
    status = bg_image_prepare(processor, image, pixels, &err);
    check(status, &err);
    for (size_t i = 0; status == BG_OK && finite && i < 3 * width * height; i++)
        if (!isfinite(pixels[i])) abort();
    free(pixels);
}

static void fuzz_processor(const uint8_t *data, size_t size)
{
    json_t *json = NULL;
    bg_error err = {0};
    bg_image_processor processor;
    bg_status status = bg_json_parse((const char *)data, size, "fuzz", &json, &err);
    check(status, &err);
    if (status != BG_OK) return;
    status = bg_image_processor_parse(json, "fuzz", &processor, &err);
    check(status, &err);
    json_decref(json);
    if (status != BG_OK) return;
    bg_image image = ramp();
    /* Factors of any size make infinite numbers; that is the configuration's doing. */
    prepare(&processor, &image, false);
    bg_image_free(&image);
}

static void fuzz_file(const uint8_t *data, size_t size)
{
    bg_image image;
    bg_error err = {0};
    bg_status status = bg_image_decode(data, size, "fuzz", &image, &err);
    check(status, &err);
    if (status != BG_OK) {
        if (image.rgb) abort();
        return;
    }
    bg_image_processor processor;
    bg_image_processor_defaults(14, &processor);
    processor.resample = (bg_resample)(size % BG_RESAMPLE_COUNT);
    prepare(&processor, &image, true);
    bg_image_free(&image);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size && (data[0] == '{' || data[0] == ' '))
        fuzz_processor(data, size);
    else
        fuzz_file(data, size);
    return 0;
}
