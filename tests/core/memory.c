/* Allocation, checked arithmetic and the growing text buffer. */
#include "test.h"

#include "core/alloc.h"
#include "core/checked.h"
#include "core/text.h"

#include <stdint.h>
#include <stdlib.h>

static void test_checked(void)
{
    size_t out;
    CHECK(bg_mul_size(3, 4, &out) && out == 12, "3 * 4");
    CHECK(bg_mul_size(SIZE_MAX, 1, &out) && out == SIZE_MAX, "SIZE_MAX * 1");
    CHECK(bg_mul_size(SIZE_MAX, 0, &out) && out == 0, "SIZE_MAX * 0");
    CHECK(!bg_mul_size(SIZE_MAX / 2 + 1, 2, &out), "2^63 * 2");
    CHECK(!bg_mul_size((size_t)1 << 32, (size_t)1 << 32, &out), "2^32 * 2^32");
    CHECK(bg_add_size(SIZE_MAX - 1, 1, &out) && out == SIZE_MAX, "SIZE_MAX - 1 + 1");
    CHECK(!bg_add_size(SIZE_MAX, 1, &out), "SIZE_MAX + 1");
    CHECK(bg_min_size(1, 2) == 1 && bg_max_size(1, 2) == 2, "min, max");
}

static void test_overflow(void)
{
    CHECK(!bg_alloc_array((size_t)1 << 33, (size_t)1 << 33), "2^66 bytes");
    CHECK(!bg_calloc((size_t)1 << 33, (size_t)1 << 33), "2^66 bytes");
    CHECK(!bg_strndup("", SIZE_MAX), "a string of SIZE_MAX");
    char *p = bg_strdup("kept");
    CHECK(!bg_realloc_array(p, (size_t)1 << 33, (size_t)1 << 33), "2^66 bytes");
    CHECK_STRING(p, "kept"); /* still valid */
    bg_free(p);
    /* nothing is something: a pointer that can be freed, and not the sign of a failure */
    void *none[] = {bg_alloc(0), bg_calloc(0, 8), bg_alloc_array(0, 8),
                    bg_realloc_array(NULL, 0, 8)};
    for (size_t i = 0; i < 4; i++) {
        CHECK(none[i], "%zu", i);
        bg_free(none[i]);
    }
    bg_free(NULL);
    char *part = bg_strndup("abcdef", 3);
    CHECK_STRING(part, "abc");
    bg_free(part);
}

static void test_aligned(void)
{
    static const size_t sizes[] = {0,     1,     63,         64,      65,     65535,
                                   65536, 65537, 4096 * 100, 4 << 20, 5000001};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        unsigned char *p = bg_alloc_aligned(sizes[i]);
        CHECK(p && (uintptr_t)p % 64 == 0, "%zu: %p", sizes[i], (void *)p);
        size_t sum = 0;
        for (size_t k = 0; k < sizes[i]; k++) sum += p[k];
        CHECK(sum == 0, "%zu is not zeroed", sizes[i]);
        if (sizes[i]) memset(p, 1, sizes[i]);
        bg_free_aligned(p, sizes[i]);
    }
    CHECK(!bg_alloc_aligned(SIZE_MAX / 2), "half of all addresses");
    bg_free_aligned(NULL, 100);
}

static void test_injection(void)
{
    bg_alloc_fail_after(2);
    void *a = bg_alloc(1), *b = bg_calloc(1, 1), *c = bg_alloc_aligned(64), *d = bg_alloc(1);
    char *e = bg_strdup("e");
    void *f = bg_realloc_array(a, 10, 10);
    CHECK(bg_alloc_count() == 6, "%ld", bg_alloc_count());
    bg_alloc_fail_after(-1);
    CHECK(a && b, "the first two");
    CHECK(!c && !d && !e && !f, "those after");
    CHECK(bg_alloc_count() == 0, "%ld", bg_alloc_count());
    void *g = bg_alloc(1);
    CHECK(g, "afterwards");
    CHECK(bg_alloc_count() == 1, "%ld", bg_alloc_count());
    bg_free(a);
    bg_free(b);
    bg_free(g);
}

static void test_text(void)
{
    bg_text text = {0};
    CHECK(!text.data && !text.failed, "starts empty");
    bg_text_puts(&text, "");
    CHECK(text.data && text.size == 0 && text.data[0] == '\0', "an empty append");
    bg_text_printf(&text, "%d-%s", 12, "ab");
    bg_text_append(&text, "c\0d", 3);
    CHECK(text.size == 8 && memcmp(text.data, "12-abc\0d", 9) == 0, "%zu", text.size);
    bg_text_free(&text);
    CHECK(!text.data && !text.size && !text.capacity, "freed");

    /* across every growth, by every way to append */
    size_t length = 0;
    for (int i = 0; i < 20000; i++) {
        char number[16];
        int n = snprintf(number, sizeof number, "%d,", i);
        if (i % 3 == 0) bg_text_puts(&text, number);
        if (i % 3 == 1) bg_text_append(&text, number, (size_t)n);
        if (i % 3 == 2) bg_text_printf(&text, "%d,", i);
        length += (size_t)n;
    }
    CHECK(!text.failed && text.size == length && strlen(text.data) == length, "%zu", text.size);
    const char *p = text.data;
    for (int i = 0; i < 20000 && p; i++) {
        if (atoi(p) != i) CHECK(false, "number %d is wrong", i);
        p = strchr(p, ',') + 1;
    }
    bg_text_printf(&text, "%*s", 100000, "");
    CHECK(text.size == length + 100000 && text.capacity > text.size, "a large append");
    bg_text_free(&text);
}

static void test_text_failure(void)
{
    bg_text text = {0};
    bg_alloc_fail_after(1);
    for (int i = 0; i < 300; i++) bg_text_puts(&text, "x");
    CHECK(text.failed && text.size == 255, "%zu", text.size);
    size_t size = text.size;
    bg_alloc_fail_after(-1);
    bg_text_printf(&text, "%d", 1); /* does nothing, for the text has a hole already */
    CHECK(text.failed && text.size == size && strlen(text.data) == size, "%zu", text.size);
    bg_text_free(&text);
    bg_text_append(&text, "", SIZE_MAX / 2);
    CHECK(text.failed && !text.data, "half of all addresses");
    bg_text_free(&text);
}

int main(void)
{
    RUN(test_checked);
    RUN(test_overflow);
    RUN(test_aligned);
    RUN(test_injection);
    RUN(test_text);
    RUN(test_text_failure);
    return test_finish();
}
