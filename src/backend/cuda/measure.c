/* A backend's memory, energy and clock, as it is asked for them. */
#include "backend/cuda/cuda.h"

#include "backend/cuda/nvml.h"

void cuda_usage(bg_backend *backend, bg_usage *out)
{
    cuda_backend *cuda = (cuda_backend *)backend;
    const cuda_meter *m = &cuda->meter;
    /* Before anything runs, room is held for loading alone: who asks now is done with that. */
    if (cuda->held.now[BG_USE_ACTIVATIONS] == 0) cuda_end_loading(cuda);
    cuda_meter_read(cuda);
    *out = (bg_usage){.held = cuda->held,
                      .device = {.name = cuda->name,
                                 .total = m->total,
                                 .available = m->available,
                                 .refused = cuda->refused,
                                 .no_energy = m->no_energy}};
    if (!m->known) return;
    out->device.source = m->by_process ? "nvml" : "cudaMemGetInfo";
    out->device.used = m->used;
    out->device.peak = m->peak;
}

/* ---- energy and time ------------------------------------------------------------------------- */

double cuda_joules(bg_backend *backend)
{
    double joules;
    return cuda_nvml_joules(((cuda_backend *)backend)->meter.nvml, &joules) ? joules : -1;
}

/* The time from one event to another is told in single precision: it is summed from one reading to
 * the next, so that microseconds count after hours, too. */
double cuda_device_seconds(bg_backend *backend)
{
    cuda_backend *cuda = (cuda_backend *)backend;
    cuda_meter *m = &cuda->meter;
    cudaEvent_t *mark = &m->marks[m->n_marks % 2], *before = &m->marks[(m->n_marks + 1) % 2];
    float ms = 0;
    if (cuda_flush(cuda, NULL) != BG_OK) return -1;
    cudaError_t e = *mark ? cudaSuccess : cudaEventCreate(mark);
    if (e == cudaSuccess) e = cudaEventRecord(*mark, cuda->launch.stream);
    if (e == cudaSuccess) e = cudaEventSynchronize(*mark);
    if (e == cudaSuccess && m->n_marks > 0) e = cudaEventElapsedTime(&ms, *before, *mark);
    if (e != cudaSuccess) {
        cudaGetLastError();
        return -1;
    }
    m->n_marks++;
    m->seconds += (double)ms / 1e3;
    return m->seconds;
}
