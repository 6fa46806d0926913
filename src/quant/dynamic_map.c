#include "quant/dynamic_map.h"

#include <math.h>
#include <pthread.h>
#include <stdlib.h>

static float map[256];
static pthread_once_t map_once = PTHREAD_ONCE_INIT;

static int ascending(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

/* Seven decades from 1e-6 to 1; decade i has 2^i values of each sign, the middles of 2^i equal
 * steps between 0.1 and 1. Then 0 and 1 themselves. Steps are placed as torch.linspace places them,
 * from the nearer end and with one rounding, since the table is to be equal to the last bit. */
static void build_map(void)
{
    int n = 0;
    for (int decade = 0; decade < 7; decade++) {
        int steps = 1 << decade;
        float power = (float)pow(10, decade - 6), step = (1.0f - 0.1f) / (float)steps;
        float edges[65];
        for (int i = 0; i <= steps; i++)
            edges[i] = i < (steps + 1) / 2 ? fmaf(step, (float)i, 0.1f)
                                           : fmaf(-step, (float)(steps - i), 1.0f);
        for (int i = 0; i < steps; i++) {
            float value = power * ((edges[i] + edges[i + 1]) / 2);
            map[n++] = value;
            map[n++] = -value;
        }
    }
    map[n++] = 0;
    map[n++] = 1;
    qsort(map, (size_t)n, sizeof *map, ascending);
}

const float *bg_dynamic_map(void)
{
    pthread_once(&map_once, build_map);
    return map;
}
