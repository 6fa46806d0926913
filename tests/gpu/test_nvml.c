/* The part of NVML that is used, against a library of the test's that goes by its name. */
#include "test.h"

#include "backend/cuda/nvml.h"
#include "core/alloc.h"
#include "gpu/fake_nvml.h"

#include <dlfcn.h>

static const char *reason;

static void test_figures(fake_nvml_state *state)
{
    size_t bytes = 0;
    double joules = 0;
    cuda_nvml *nvml = cuda_nvml_open("0000:1A:00.0", &reason);
    CHECK(nvml && !reason && state->opened == 1, "%s", reason ? reason : "not opened once");
    if (!nvml) return;
    char version[80], cut[4];
    CHECK(cuda_nvml_driver(nvml, version, sizeof version) && strcmp(version, "580.65.06") == 0,
          "\"%s\"", version);
    CHECK(cuda_nvml_driver(nvml, cut, sizeof cut) && strcmp(cut, "580") == 0, "\"%s\"", cut);
    state->unended = 1;
    CHECK(cuda_nvml_driver(nvml, version, sizeof version) && strlen(version) == 79, "\"%s\"",
          version);
    state->version = 3;
    CHECK(!cuda_nvml_driver(nvml, version, sizeof version) && !*version, "\"%s\"", version);
    state->millijoules = 123456;
    CHECK(cuda_nvml_joules(nvml, &joules) && joules == 123.456, "%g J", joules);
    state->n_processes = 12;
    CHECK(cuda_nvml_process_bytes(nvml, 3, &bytes) && bytes == 2000, "%zu", bytes);
    CHECK(cuda_nvml_process_bytes(nvml, 11, &bytes) && bytes == 10000 + 11000, "%zu", bytes);
    CHECK(!cuda_nvml_process_bytes(nvml, 10, &bytes), "its memory is not available");
    CHECK(!cuda_nvml_process_bytes(nvml, 77, &bytes), "not listed");
    state->n_processes = 1000; /* more than were asked for at first */
    CHECK(cuda_nvml_process_bytes(nvml, 901, &bytes) && bytes == 900000, "%zu", bytes);
    bg_alloc_fail_after(0);
    CHECK(!cuda_nvml_process_bytes(nvml, 901, &bytes), "no memory");
    bg_alloc_fail_after(-1);
    state->energy = state->list = 3; /* NVML_ERROR_NOT_SUPPORTED */
    CHECK(!cuda_nvml_joules(nvml, &joules), "no counter");
    CHECK(!cuda_nvml_process_bytes(nvml, 3, &bytes), "no list");
    cuda_nvml_close(nvml);
    CHECK(state->opened == 0, "closed");
}

static void check_absent(const char *address, const char *expected)
{
    cuda_nvml *nvml = cuda_nvml_open(address, &reason);
    CHECK(!nvml && reason && strcmp(reason, expected) == 0, "%s", reason ? reason : "opened");
    cuda_nvml_close(nvml);
}

static void test_absent(fake_nvml_state *state)
{
    size_t bytes;
    double joules;
    check_absent("0000:2B:00.0", "NVML does not know this GPU");
    CHECK(state->opened == 0, "closed again");
    state->init = 9; /* NVML_ERROR_DRIVER_NOT_LOADED */
    check_absent("0000:1A:00.0", "NVML does not start");
    bg_alloc_fail_after(0);
    check_absent("0000:1A:00.0", "memory ran out");
    bg_alloc_fail_after(-1);
    char version[8];
    CHECK(!cuda_nvml_process_bytes(NULL, 1, &bytes) && !cuda_nvml_joules(NULL, &joules) &&
              !cuda_nvml_driver(NULL, version, sizeof version),
          "without it nothing is told");
}

int main(void)
{
    /* The test's own stays loaded, so that its answers can be set from here. */
    void *library = dlopen("libnvidia-ml.so.1", RTLD_NOW);
    fake_nvml_state *state = library ? dlsym(library, "fake_nvml") : NULL;
    if (!state) {
        SKIP("the test's NVML is not where libraries are looked for; run it with ctest");
        return test_finish();
    }
    test_figures(state);
    test_absent(state);
    dlclose(library);
    return test_finish();
}
