#include "model/rope.h"

#include "core/alloc.h"
#include "core/json.h"

#include <math.h>
#include <string.h>

static const struct {
    const char *name;
    bg_rope_kind kind;
    bool needs_factor;
} kinds[] = {
    {"default", BG_ROPE_DEFAULT, false}, {"linear", BG_ROPE_LINEAR, true},
    {"llama3", BG_ROPE_LLAMA3, true},    {"yarn", BG_ROPE_YARN, true},
    {"dynamic", BG_ROPE_DEFAULT, false},
};

static bg_status parse_kind(const json_t *scaling, const char *where, bg_rope *out, bg_error *err)
{
    const char *name;
    BG_TRY(bg_json_string(scaling, "type", where, NULL, &name, err));
    BG_TRY(bg_json_string(scaling, "rope_type", where, name, &name, err));
    if (!name && json_object_get(scaling, "factor"))
        return bg_fail(err, BG_ERR_FORMAT,
                       "%s: the rope scaling has a \"factor\" but no \"rope_type\"; add it", where);
    if (!name) name = "default";
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        if (strcmp(kinds[i].name, name) != 0) continue;
        out->kind = kinds[i].kind;
        static const char *const needed[] = {"factor", "low_freq_factor", "high_freq_factor"};
        const size_t n = !kinds[i].needs_factor ? 0 : out->kind == BG_ROPE_LLAMA3 ? 3 : 1;
        for (size_t k = 0; k < n; k++)
            if (!json_is_number(json_object_get(scaling, needed[k])))
                return bg_fail(err, BG_ERR_FORMAT,
                               "%s: the \"%s\" rope scaling needs a number as its \"%s\"; correct "
                               "the file",
                               where, name, needed[k]);
        return BG_OK;
    }
    return bg_fail(
        err, BG_ERR_UNSUPPORTED,
        "%s: rope scaling \"%.32s\" is not known; bitgauge has default, linear, dynamic, "
        "llama3 and yarn",
        where, name);
}

/* The paper's factor on queries and keys for a stretch of `scale`. */
static double yarn_magnitude(double scale, double weight)
{
    return scale <= 1 ? 1 : 0.1 * weight * log(scale) + 1;
}

static bg_status parse_scaling(const json_t *scaling, const char *where, bg_rope *out,
                               bg_error *err)
{
    double mscale, mscale_all;
    BG_TRY(parse_kind(scaling, where, out, err));
    BG_TRY(bg_json_real(scaling, "original_max_position_embeddings", where, out->original_positions,
                        &out->original_positions, err));
    BG_TRY(bg_json_real(scaling, "factor", where, 1, &out->factor, err));
    BG_TRY(bg_json_real(scaling, "low_freq_factor", where, 1, &out->low_factor, err));
    BG_TRY(bg_json_real(scaling, "high_freq_factor", where, 4, &out->high_factor, err));
    BG_TRY(bg_json_real(scaling, "beta_fast", where, 32, &out->beta_fast, err));
    BG_TRY(bg_json_real(scaling, "beta_slow", where, 1, &out->beta_slow, err));
    BG_TRY(bg_json_bool(scaling, "truncate", where, true, &out->truncate, err));
    BG_TRY(bg_json_real(scaling, "mscale", where, 0, &mscale, err));
    BG_TRY(bg_json_real(scaling, "mscale_all_dim", where, 0, &mscale_all, err));
    out->attention_factor = 1;
    if (out->kind != BG_ROPE_YARN) return BG_OK;
    double magnitude = mscale != 0 && mscale_all != 0 ? yarn_magnitude(out->factor, mscale) /
                                                            yarn_magnitude(out->factor, mscale_all)
                                                      : yarn_magnitude(out->factor, 1);
    return bg_json_real(scaling, "attention_factor", where, magnitude, &out->attention_factor, err);
}

/* A number from the first of the three objects that has it. */
static bg_status real_of(const json_t *first, const json_t *second, const json_t *third,
                         const char *key, const char *where, double fallback, double *out,
                         bg_error *err)
{
    BG_TRY(bg_json_real(third, key, where, fallback, out, err));
    BG_TRY(bg_json_real(second, key, where, *out, out, err));
    return bg_json_real(first, key, where, *out, out, err);
}

/* An object of numbers and names, or nothing. */
static bg_status check_scaling(const json_t *scaling, const char *where, bg_error *err)
{
    const char *key;
    json_t *value;
    if (!scaling || json_is_null(scaling)) return BG_OK;
    if (!json_is_object(scaling))
        return bg_fail(err, BG_ERR_FORMAT,
                       "%s: the rope parameters must be an object; correct the file", where);
    json_object_foreach((json_t *)scaling, key, value)
    {
        if (json_is_object(value))
            return bg_fail(
                err, BG_ERR_UNSUPPORTED,
                "%s: rope parameters of their own for \"%.32s\" are not supported; models "
                "that have them are not, either",
                where, key);
    }
    return BG_OK;
}

bg_status bg_rope_parse(const json_t *config, const json_t *defaults, const char *where,
                        int64_t head_dim, int64_t max_positions, bg_rope *out, bg_error *err)
{
    *out = (bg_rope){.original_positions = (double)max_positions};
    const json_t *scaling = json_object_get(config, "rope_parameters");
    if (!scaling || json_is_null(scaling)) scaling = json_object_get(config, "rope_scaling");
    BG_TRY(check_scaling(scaling, where, err));
    BG_TRY(bg_json_real(config, "original_max_position_embeddings", where, out->original_positions,
                        &out->original_positions, err));
    BG_TRY(parse_scaling(scaling, where, out, err));
    double part;
    BG_TRY(real_of(scaling, config, defaults, "rope_theta", where, 10000, &out->theta, err));
    part = 1; /* only where the architecture knows of it */
    if (json_object_get(defaults, "partial_rotary_factor"))
        BG_TRY(real_of(scaling, config, defaults, "partial_rotary_factor", where, 1, &part, err));
    out->dim = part > 0 && part <= 1 ? (int64_t)((double)head_dim * part) : 0;
    if (out->dim < 2 || out->dim % 2)
        return bg_fail(err, BG_ERR_FORMAT,
                       "%s: rotary positions need an even part of each head's %lld values, not %g "
                       "of it",
                       where, (long long)head_dim, part);
    if (!(out->theta > 1 && out->theta < 1e15 && out->factor >= 1e-3 && out->factor <= 1e6 &&
          out->original_positions >= 1 && out->original_positions < 1e9 && out->low_factor > 0 &&
          out->high_factor < 1e9 && out->beta_slow > 0 && out->beta_fast > 0 &&
          out->beta_fast < 1e9 && fabs(out->attention_factor) < 1e6) ||
        (out->kind == BG_ROPE_LLAMA3 && !(out->high_factor > out->low_factor)))
        return bg_fail(err, BG_ERR_FORMAT,
                       "%s: the rotary positions make no sense (theta %g, factor %g, %g trained "
                       "positions); correct the file",
                       where, out->theta, out->factor, out->original_positions);
    return BG_OK;
}

/* Frequencies that turn less than low_factor times in the trained context are stretched, those that
 * turn more than high_factor times are not. */
static double llama3_frequency(const bg_rope *r, double frequency)
{
    double turns = r->original_positions * frequency / (2 * M_PI);
    double smooth = (turns - r->low_factor) / (r->high_factor - r->low_factor);
    if (smooth <= 0) return frequency / r->factor;
    if (smooth >= 1) return frequency;
    return (1 - smooth) * frequency / r->factor + smooth * frequency;
}

/* The dimension whose pair turns so many times in the trained context. */
static double yarn_dimension(const bg_rope *r, double turns)
{
    return (double)r->dim * log(r->original_positions / (turns * 2 * M_PI)) / (2 * log(r->theta));
}

static double yarn_frequency(const bg_rope *r, int64_t pair, double frequency)
{
    double low = yarn_dimension(r, r->beta_fast), high = yarn_dimension(r, r->beta_slow);
    if (r->truncate) {
        low = floor(low);
        high = ceil(high);
    }
    low = fmax(low, 0);
    high = fmin(high, (double)r->dim - 1);
    if (low == high) high += 0.001;
    double ramp = fmin(fmax(((double)pair - low) / (high - low), 0), 1);
    return frequency / r->factor * ramp + frequency * (1 - ramp);
}

bg_status bg_rope_table(const bg_rope *rope, size_t first, size_t positions, float *table,
                        bg_error *err)
{
    const size_t half = (size_t)rope->dim / 2;
    float *frequencies = bg_alloc_array(half, sizeof *frequencies);
    if (!frequencies) return bg_fail_memory(err, half * sizeof *frequencies, "rotary positions");
    for (size_t i = 0; i < half; i++) {
        double f = pow(rope->theta, -2 * (double)i / (double)rope->dim);
        if (rope->kind == BG_ROPE_LINEAR) f /= rope->factor;
        if (rope->kind == BG_ROPE_LLAMA3) f = llama3_frequency(rope, f);
        if (rope->kind == BG_ROPE_YARN) f = yarn_frequency(rope, (int64_t)i, f);
        frequencies[i] = (float)f;
    }
    /* Angles are products of floats, as in the models' own training code: at position 100,000 that
     * is another angle than the exact one. */
    for (size_t p = 0; p < positions; p++)
        for (size_t i = 0; i < half; i++) {
            double angle = (double)((float)(p + first) * frequencies[i]);
            table[p * 2 * half + i] = (float)(cos(angle) * rope->attention_factor);
            table[p * 2 * half + half + i] = (float)(sin(angle) * rope->attention_factor);
        }
    bg_free(frequencies);
    return BG_OK;
}
