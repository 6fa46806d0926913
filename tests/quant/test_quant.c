/* The number formats against what bitsandbytes makes of the same tensor
 * (tests/fixtures/quant.safetensors), bit for bit. */
#include "test.h"

#include "checkpoint/checkpoint.h"
#include "core/alloc.h"
#include "quant/dynamic_map.h"
#include "quant/format.h"
#include "quant/half.h"

#include <stdlib.h>

static bg_checkpoint *fixture;

static const bg_tensor *tensor(const char *name)
{
    const bg_tensor *t = bg_checkpoint_find(fixture, name);
    CHECK(t != NULL, "%s is missing from the fixture", name);
    return t;
}

/* A fixture tensor as floats, widened. */
static float *floats(const char *name)
{
    const bg_tensor *t = tensor(name);
    if (!t) exit(1);
    size_t n = t->bytes / bg_dtypes[t->dtype].size;
    float *out = bg_alloc_array(n, sizeof *out);
    for (size_t i = 0; i < n; i++) {
        uint16_t half;
        if (t->dtype == BG_F16) {
            memcpy(&half, (const char *)t->data + 2 * i, 2);
            out[i] = bg_f16_to_f32(half);
        } else {
            memcpy(&out[i], (const char *)t->data + 4 * i, 4);
        }
    }
    return out;
}

static bg_packed encode(bg_format_id id, const float *values, size_t rows, size_t cols)
{
    bg_packed packed;
    bg_error err;
    CHECK(bg_packed_alloc(id, rows, cols, &packed, &err) == BG_OK, "%s", err.message);
    bg_formats[id].encode(&packed, values, 0, rows * cols);
    bg_packed_finish(&packed);
    return packed;
}

static void same_bytes(const void *got, const char *name)
{
    const bg_tensor *t = tensor(name);
    if (!t) return;
    size_t different = 0;
    for (size_t i = 0; i < t->bytes; i++)
        different += ((const uint8_t *)got)[i] != ((const uint8_t *)t->data)[i];
    CHECK(different == 0, "%s: %zu of %zu bytes differ", name, different, t->bytes);
}

enum { ROWS = 192, COLS = 320 };

static void test_blockwise(void)
{
    static const struct {
        bg_format_id format;
        const char *packed, *absmax, *decoded;
    } cases[] = {
        {BG_FORMAT_NF4, "nf4_64_packed", "nf4_64_absmax", "nf4_64_deq"},
        {BG_FORMAT_FP4, "fp4_64_packed", "fp4_64_absmax", "fp4_64_deq"},
        {BG_FORMAT_NF4_DQ, "nf4_dq_packed", NULL, "nf4_dq_deq"},
        {BG_FORMAT_FP4_DQ, "fp4_dq_packed", NULL, "fp4_dq_deq"},
    };
    float *w = floats("W");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        bg_packed packed = encode(cases[i].format, w, ROWS, COLS);
        same_bytes(packed.codes, cases[i].packed);
        if (cases[i].absmax) same_bytes(packed.scales, cases[i].absmax);
        /* bitsandbytes decoded to binary16. */
        float *expected = floats(cases[i].decoded), *got = bg_alloc_array(ROWS * COLS, 4);
        bg_formats[cases[i].format].decode(&packed, got, 0, ROWS * COLS);
        size_t different = 0;
        for (size_t k = 0; k < ROWS * COLS; k++)
            different += bg_f16_to_f32(bg_f32_to_f16(got[k])) != expected[k];
        CHECK(different == 0, "%s: %zu values differ", cases[i].decoded, different);
        bg_free(expected);
        bg_free(got);
        bg_packed_free(&packed);
    }
    bg_free(w);
}

static void test_double_quantization(void)
{
    float *w = floats("W");
    static const struct {
        bg_format_id format;
        const char *codes, *absmax, *offset, *map;
    } cases[] = {
        {BG_FORMAT_NF4_DQ, "nf4_dq_absmax_u8", "nf4_dq_absmax2", "nf4_dq_offset", "nf4_dq_code2"},
        {BG_FORMAT_FP4_DQ, "fp4_dq_absmax_u8", "fp4_dq_absmax2", "fp4_dq_offset", "fp4_dq_code2"},
    };
    for (size_t i = 0; i < 2; i++) {
        bg_packed packed = encode(cases[i].format, w, ROWS, COLS);
        same_bytes(packed.scale_codes, cases[i].codes);
        same_bytes(packed.scale_absmax, cases[i].absmax);
        same_bytes(&packed.scale_offset, cases[i].offset);
        same_bytes(bg_dynamic_map(), cases[i].map);
        bg_packed_free(&packed);
    }
    bg_free(w);
}

static void test_int8(void)
{
    float *w = floats("W");
    bg_packed packed = encode(BG_FORMAT_INT8, w, ROWS, COLS);
    same_bytes(packed.codes, "int8_CB");
    same_bytes(packed.scales, "int8_SCB");
    bg_packed_free(&packed);
    bg_free(w);
}

/* Encoding in pieces, as threads do it, gives the same bytes as encoding at once. */
static void test_pieces(void)
{
    enum { R = 130, C = 40 }; /* blocks run across rows */
    float values[R * C];
    srand(1);
    for (int i = 0; i < R * C; i++) values[i] = (float)(rand() % 2001 - 1000) / 997;
    for (int id = 0; id < BG_FORMAT_COUNT; id++) {
        bg_packed whole = encode(id, values, R, C), pieces;
        bg_packed_bytes bytes;
        bg_packed_measure(id, R, C, &bytes);
        bg_error err;
        CHECK(bg_packed_alloc(id, R, C, &pieces, &err) == BG_OK, "%s", err.message);
        for (size_t row = 0; row < R; row += 64) {
            size_t n = R - row < 64 ? R - row : 64;
            bg_formats[id].encode(&pieces, values + row * C, row * C, n * C);
        }
        bg_packed_finish(&pieces);
        CHECK(memcmp(whole.codes, pieces.codes, bytes.codes) == 0, "%s", bg_formats[id].name);
        float a[C], b[C];
        bg_formats[id].decode(&whole, a, 77 * C, C);
        bg_formats[id].decode(&pieces, b, 77 * C, C);
        CHECK(memcmp(a, b, sizeof a) == 0, "%s", bg_formats[id].name);
        bg_packed_free(&whole);
        bg_packed_free(&pieces);
    }
}

/* Each format's error stays within its geometry: half the widest gap between two codes, times the
 * block's absmax (for double quantization, and for int8's rounding to binary16, a little more). */
static void test_round_trip(void)
{
    static const double bound[BG_FORMAT_COUNT] = {
        [BG_FORMAT_F32] = 0,
        [BG_FORMAT_F16] = 0x1p-11,
        [BG_FORMAT_BF16] = 0x1p-8,
        [BG_FORMAT_INT8] = 0.5 / 127 + 0x1p-10,
        [BG_FORMAT_INT8_PLAIN] = 0.5 / 127 + 0x1p-10,
        [BG_FORMAT_NF4] = 0.1520,
        [BG_FORMAT_NF4_DQ] = 0.18,
        [BG_FORMAT_FP4] = 0.1668,
        [BG_FORMAT_FP4_DQ] = 0.20,
    };
    enum { R = 8, C = 512 };
    float values[R * C], decoded[R * C];
    srand(2);
    for (int i = 0; i < R * C; i++) values[i] = (float)rand() / (float)RAND_MAX * 2 - 1;
    for (int id = 0; id < BG_FORMAT_COUNT; id++) {
        bg_packed packed = encode(id, values, R, C);
        bg_formats[id].decode(&packed, decoded, 0, R * C);
        double worst = 0;
        for (int i = 0; i < R * C; i++) worst = fmax(worst, fabs((double)decoded[i] - values[i]));
        CHECK(worst <= bound[id], "%s: error %g over %g", bg_formats[id].name, worst, bound[id]);
        bg_packed_free(&packed);
    }
}

/* All 65536 halves survive widening and narrowing; narrowing rounds to nearest, ties to even. */
static void test_half(void)
{
    size_t different = 0;
    for (uint32_t h = 0; h < 65536; h++) {
        float f = bg_f16_to_f32((uint16_t)h), b = bg_bf16_to_f32((uint16_t)h);
        different += !isnan(f) && bg_f32_to_f16(f) != h;
        different += !isnan(b) && bg_f32_to_bf16(b) != h;
        different += isnan(f) && !isnan(bg_f16_to_f32(bg_f32_to_f16(f)));
        different += isnan(b) && !isnan(bg_bf16_to_f32(bg_f32_to_bf16(b)));
    }
    CHECK(different == 0, "%zu", different);
    CHECK(bg_f32_to_f16(1 + 0x1p-11f) == 0x3C00, "tie to even, down");
    CHECK(bg_f32_to_f16(1 + 0x3p-11f) == 0x3C02, "tie to even, up");
    CHECK(bg_f32_to_f16(65520) == 0x7C00, "rounds to infinity");
    CHECK(bg_f32_to_f16(65519) == 0x7BFF, "largest");
    CHECK(bg_f32_to_f16(0x1p-25f) == 0, "half of the least, to even");
    CHECK(bg_f32_to_f16(0x1.8p-25f) == 1, "over half of the least");
    CHECK(bg_f32_to_bf16(1 + 0x1p-8f) == 0x3F80, "tie to even, down");
    CHECK(bg_f32_to_bf16(1 + 0x3p-8f) == 0x3F82, "tie to even, up");
}

static void test_sizes(void)
{
    bg_packed_bytes b;
    CHECK(bg_packed_measure(BG_FORMAT_NF4, 3, 43, &b) && b.codes == 65 && b.scales == 12, "nf4");
    CHECK(bg_packed_measure(BG_FORMAT_NF4_DQ, 768, 768, &b) && b.codes == 294912 &&
              b.scale_codes == 9216 && b.scale_absmax == 144 && b.total == 294912 + 9216 + 148,
          "nf4-dq");
    CHECK(bg_packed_measure(BG_FORMAT_INT8, 10, 20, &b) && b.total == 240, "int8");
    CHECK(bg_packed_measure(BG_FORMAT_INT8_PLAIN, 10, 20, &b) && b.total == 240, "int8-plain");
    CHECK(!bg_packed_measure(BG_FORMAT_F32, SIZE_MAX / 2, 3, &b), "overflow is noticed");
    bg_error err;
    bg_packed p;
    CHECK(bg_packed_alloc(BG_FORMAT_F32, SIZE_MAX / 2, 3, &p, &err) == BG_ERR_MEMORY, "too large");
    for (long n = 0; n < 3; n++) {
        bg_alloc_fail_after(n);
        CHECK(bg_packed_alloc(BG_FORMAT_NF4_DQ, 64, 64, &p, &err) == BG_ERR_MEMORY, "%ld", n);
        bg_alloc_fail_after(-1);
    }
    CHECK(bg_format_by_name("nf4-dq") == &bg_formats[BG_FORMAT_NF4_DQ], "by name");
    CHECK(bg_format_by_name("nf5") == NULL, "unknown name");
}

int main(void)
{
    bg_error err;
    if (bg_checkpoint_open_file("tests/fixtures/quant.safetensors", &fixture, &err) != BG_OK) {
        printf("%s\n", err.message);
        return 1;
    }
    RUN(test_blockwise);
    RUN(test_double_quantization);
    RUN(test_int8);
    RUN(test_pieces);
    RUN(test_round_trip);
    RUN(test_half);
    RUN(test_sizes);
    bg_checkpoint_close(fixture);
    return test_finish();
}
