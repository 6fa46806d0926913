#include "report/format.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* Decimals that leave about three significant digits in the smallest number of a column. */
static int decimals_for(double least, int most)
{
    int decimals = least >= 100 ? 0 : least >= 10 ? 1 : least >= 1 ? 2 : 3;
    return decimals < most ? decimals : most;
}

bg_scale bg_scale_for(bg_unit unit, double least, double most)
{
    const double kib = 1024, mib = kib * kib, gib = kib * mib;
    switch (unit) {
    case BG_UNIT_COUNT:
        return (bg_scale){"", 1, 0, false};
    case BG_UNIT_NUMBER:
        return (bg_scale){"", 1, least >= 1000 ? 1 : least >= 100 ? 2 : 3, false};
    case BG_UNIT_BYTES:
        if (most >= 4 * gib) return (bg_scale){"GiB", gib, decimals_for(least / gib, 2), false};
        if (most >= mib / 2) return (bg_scale){"MiB", mib, decimals_for(least / mib, 1), false};
        return (bg_scale){"KiB", kib, 1, false};
    case BG_UNIT_SECONDS:
        return (bg_scale){"s", 1, decimals_for(least, least < 0.01 ? 3 : 2), false};
    case BG_UNIT_MILLISECONDS:
        return (bg_scale){"ms", 1, decimals_for(least, 3), false};
    case BG_UNIT_S_AS_MS:
        return (bg_scale){"ms", 1e-3, decimals_for(least * 1e3, 3), false};
    case BG_UNIT_JOULES:
        if (most >= 1) return (bg_scale){"J", 1, decimals_for(least, 3), false};
        return (bg_scale){"mJ", 1e-3, decimals_for(least * 1e3, 3), false};
    case BG_UNIT_RATE:
        return (bg_scale){"/s", 1, decimals_for(least, 2), false};
    case BG_UNIT_BYTE_RATE:
        if (most >= 1e9) return (bg_scale){"GB/s", 1e9, decimals_for(least / 1e9, 2), false};
        return (bg_scale){"MB/s", 1e6, decimals_for(least / 1e6, 2), false};
    case BG_UNIT_RATIO:
        return (bg_scale){"×", 1, 2, false};
    case BG_UNIT_PERCENT:
        return (bg_scale){"%", 0.01, 1, false};
    case BG_UNIT_CHANGE:
        return (bg_scale){"%", 1, 2, true};
    case BG_UNIT_POINTS:
        return (bg_scale){"points", 0.01, 1, true};
    }
    return (bg_scale){"", 1, 3, false};
}

const char *bg_show(char out[BG_CELL], double value, const bg_scale *scale)
{
    double shown = value / scale->divisor;
    if (!isfinite(shown)) {
        snprintf(out, BG_CELL, "–");
        return out;
    }
    char digits[400]; /* the longest double in %f is 309 digits before the point */
    snprintf(digits, sizeof digits, "%.*f", scale->decimals, fabs(shown));
    size_t whole = strcspn(digits, ".");
    if (whole > 18) {
        snprintf(out, BG_CELL, "%.3g", shown);
        return out;
    }
    bool zero = strspn(digits, "0.") == strlen(digits);
    const char *sign = zero ? "" : shown < 0 ? "−" : scale->sign ? "+" : "";
    size_t n = (size_t)snprintf(out, BG_CELL, "%s", sign);
    for (size_t i = 0; digits[i] && n + 2 < BG_CELL; i++) {
        if (i && i < whole && (whole - i) % 3 == 0) out[n++] = ',';
        out[n++] = digits[i];
    }
    out[n] = '\0';
    return out;
}

const char *bg_show_alone(char out[BG_CELL], double value, bg_unit unit)
{
    bg_scale scale = bg_scale_for(unit, fabs(value), fabs(value));
    if (unit == BG_UNIT_BYTES && fabs(value) < 1024) scale = (bg_scale){"bytes", 1, 0, false};
    bg_show(out, value, &scale);
    if (!isfinite(value) || !*scale.name) return out;
    size_t n = strlen(out);
    const char *space = unit == BG_UNIT_RATIO || unit == BG_UNIT_RATE ? "" : "\u00A0";
    snprintf(out + n, BG_CELL - n, "%s%s", space, scale.name);
    return out;
}
