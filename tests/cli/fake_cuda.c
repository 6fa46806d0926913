/* A CUDA backend's library without one: two GPUs that cannot be opened, or, with FAKE_NONE, none;
 * with FAKE_ABI, of another version. What the program makes of each is then testable anywhere. */
#include "backend/cuda/library.h"

#include <stdio.h>

#ifndef FAKE_ABI
#define FAKE_ABI BG_CUDA_ABI
#endif

static bg_status refuse(bg_error *err, const char *why)
{
    err->status = BG_ERR_UNSUPPORTED;
    snprintf(err->message, sizeof err->message, "%s", why);
    return BG_ERR_UNSUPPORTED;
}

static int count(bg_error *err)
{
#ifdef FAKE_NONE
    refuse(err, "no GPU can be used: the driver has none");
    return 0;
#else
    (void)err;
    return 2;
#endif
}

static bg_status describe(int index, bg_cuda_device *out, bg_error *err)
{
    *out = (bg_cuda_device){.major = 9, .multiprocessors = 1 + index};
    return err ? BG_OK : BG_ERR_INTERNAL;
}

static bg_status open_device(int index, bg_backend **out, bg_error *err)
{
    *out = NULL;
    return refuse(err, index ? "the second GPU is taken" : "the first GPU is taken");
}

__attribute__((visibility("default"))) extern const bg_cuda_library bg_cuda_library_table;
const bg_cuda_library bg_cuda_library_table = {FAKE_ABI, count, describe, open_device};
