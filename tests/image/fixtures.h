/* Reading tests/fixtures/images/images.safetensors; its README.md lists the tensors. */
#ifndef BG_TESTS_IMAGE_FIXTURES_H
#define BG_TESTS_IMAGE_FIXTURES_H

#include "checkpoint/safetensors.h"
#include "core/file.h"
#include "image/image.h"
#include "test.h"

#include <stdlib.h>

#define IMAGES "tests/fixtures/images/"

static bg_error err;
static bg_mapping fixture_bytes;
static bg_safetensors fixtures;

#define OK(call) CHECK((call) == BG_OK, "%s", err.message)

static inline void fixtures_open(void)
{
    if (bg_map_file(IMAGES "images.safetensors", &fixture_bytes, &err) != BG_OK ||
        bg_safetensors_parse(fixture_bytes.data, fixture_bytes.size, "images.safetensors",
                             &fixtures, &err) != BG_OK) {
        printf("%s\n", err.message);
        exit(1);
    }
}

static inline void fixtures_close(void)
{
    bg_safetensors_free(&fixtures);
    bg_unmap(&fixture_bytes);
}

/* The tensor called `prefix` followed by `name`; ends the test program where there is none. */
static inline const bg_tensor *fixture(const char *prefix, const char *name)
{
    char whole[128];
    snprintf(whole, sizeof whole, "%s%s", prefix, name);
    for (size_t i = 0; i < fixtures.count; i++)
        if (strcmp(fixtures.tensors[i].name, whole) == 0) return &fixtures.tensors[i];
    printf("no fixture %s\n", whole);
    exit(1);
}

/* The picture in a tensor (height, width, 3); its pixels are the fixture's. */
static inline bg_image fixture_image(const char *prefix, const char *name)
{
    const bg_tensor *t = fixture(prefix, name);
    CHECK(t->rank == 3 && t->shape[2] == 3, "%s%s", prefix, name);
    return (bg_image){
        .width = (size_t)t->shape[1], .height = (size_t)t->shape[0], .rgb = (uint8_t *)t->data};
}

/* Checks that an image has the fixture's size and, within `tolerance`, its pixels. */
static inline void check_same_image(const bg_image *image, const bg_image *expected, int tolerance,
                                    const char *name)
{
    bool same = image->width == expected->width && image->height == expected->height;
    CHECK(same, "%s: %zu × %zu", name, image->width, image->height);
    if (!same) return;
    int worst = 0;
    size_t where = 0;
    for (size_t i = 0; i < 3 * image->width * image->height; i++) {
        int difference = abs(image->rgb[i] - expected->rgb[i]);
        if (difference > worst) worst = difference, where = i;
    }
    CHECK(worst <= tolerance, "%s: off by %d at value %zu", name, worst, where);
}

#endif
