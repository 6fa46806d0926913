/* What to do where a device's memory runs out: which precisions take less, and which batch fits. */
#ifndef BG_BENCH_REMEDY_H
#define BG_BENCH_REMEDY_H

#include "core/error.h"
#include "model/config.h"
#include "quant/format.h"

typedef struct {
    const bg_config *config;
    const bg_format *precision;
    double room;         /* bytes that weights may take; negative: it was not for them */
    const char *options; /* that make smaller what was asked for, or NULL */
    int fitting_batch;   /* one that was tried and fits; 0: none is known */
} bg_shortage;

/* Puts "; use ..." behind the message of an error, which says what was asked and what was free. */
void bg_explain_shortage(const bg_shortage *shortage, bg_error *err);

#endif
