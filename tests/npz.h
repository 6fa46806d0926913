/* Reading NumPy's .npz (a zip of .npy) and .npy files: little-endian, C order, the types that the
 * recorded figures have. https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html.
 * Trusts its input, which is recorded beside the tests; what it cannot read ends the program. */
#ifndef BG_TESTS_NPZ_H
#define BG_TESTS_NPZ_H

#include "core/file.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

typedef struct {
    char type; /* 'f' or 'i' */
    size_t item, count;
    unsigned char *data; /* released with free */
} npy_array;

static inline uint32_t npy_u32(const unsigned char *p)
{
    return p[0] | p[1] << 8 | p[2] << 16 | (uint32_t)p[3] << 24;
}

static inline uint16_t npy_u16(const unsigned char *p)
{
    return (uint16_t)(p[0] | p[1] << 8);
}

static inline void npy_stop(const char *what)
{
    printf("npz: %s\n", what);
    exit(1);
}

static inline npy_array npy_parse(const unsigned char *file, size_t size)
{
    npy_array a = {0};
    if (size < 12 || memcmp(file, "\x93NUMPY", 6) != 0) npy_stop("not an .npy file");
    size_t header = file[6] == 1 ? 10 : 12;
    size_t length = file[6] == 1 ? npy_u16(file + 8) : npy_u32(file + 8);
    char text[512] = "";
    snprintf(text, sizeof text, "%.*s", (int)length, (const char *)file + header);
    const char *descr = strstr(text, "'descr': '<");
    if (!descr || strstr(text, "'fortran_order': True")) npy_stop("an array of another layout");
    a.type = descr[11];
    a.item = (size_t)atoi(descr + 12);
    a.count = (size - header - length) / a.item;
    a.data = malloc(size);
    if (!a.data) npy_stop("out of memory");
    memcpy(a.data, file + header + length, size - header - length);
    return a;
}

static inline npy_array npy_read(const char *path)
{
    bg_mapping map;
    bg_error error;
    if (bg_map_file(path, &map, &error) != BG_OK) npy_stop(error.message);
    npy_array a = npy_parse(map.data, map.size);
    bg_unmap(&map);
    return a;
}

/* The member "<key>.npy". */
static inline npy_array npz_read(const char *path, const char *key)
{
    bg_mapping map;
    bg_error error;
    if (bg_map_file(path, &map, &error) != BG_OK) npy_stop(error.message);
    const unsigned char *file = map.data, *end = file + map.size - 22;
    while (end > file && memcmp(end, "PK\5\6", 4) != 0) end--;
    const unsigned char *entry = file + npy_u32(end + 16);
    for (int n = npy_u16(end + 10); n > 0; n--) {
        size_t name = npy_u16(entry + 28), skip = name + npy_u16(entry + 30) + npy_u16(entry + 32);
        if (name == strlen(key) + 4 && memcmp(entry + 46, key, strlen(key)) == 0) {
            const unsigned char *local = file + npy_u32(entry + 42);
            const unsigned char *data = local + 30 + npy_u16(local + 26) + npy_u16(local + 28);
            size_t packed = npy_u32(entry + 20), size = npy_u32(entry + 24);
            unsigned char *plain = malloc(size);
            z_stream z = {.next_in = (unsigned char *)(uintptr_t)data,
                          .avail_in = (uInt)packed,
                          .next_out = plain,
                          .avail_out = (uInt)size};
            if (!plain) npy_stop("out of memory");
            if (npy_u16(entry + 10) == 0)
                memcpy(plain, data, size);
            else if (inflateInit2(&z, -15) != Z_OK || inflate(&z, Z_FINISH) != Z_STREAM_END)
                npy_stop("damaged");
            if (npy_u16(entry + 10) != 0) inflateEnd(&z);
            npy_array a = npy_parse(plain, size);
            free(plain);
            bg_unmap(&map);
            return a;
        }
        entry += 46 + skip;
    }
    npy_stop(key);
    return (npy_array){0};
}

static inline double npy_at(const npy_array *a, size_t i)
{
    float f;
    double d;
    int64_t n;
    int32_t k;
    _Float16 h;
    const unsigned char *p = a->data + i * a->item;
    if (a->type == 'f' && a->item == 4) return memcpy(&f, p, 4), (double)f;
    if (a->type == 'f' && a->item == 8) return memcpy(&d, p, 8), d;
    if (a->type == 'f' && a->item == 2) return memcpy(&h, p, 2), (double)h;
    if (a->item == 8) return memcpy(&n, p, 8), (double)n;
    return memcpy(&k, p, 4), (double)k;
}

#endif
