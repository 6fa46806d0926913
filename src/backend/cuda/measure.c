/* What the driver says of the GPU: its memory, energy and clock. */
#include "backend/cuda/cuda.h"

#include "backend/cuda/nvml.h"

#include <unistd.h>

/* Once the driver has begun to list this process, it goes on to. */
static bool listed;

void cuda_meter_prepare(cuda_backend *cuda)
{
    cuda_meter *m = &cuda->meter;
    char address[32];
    size_t bytes;
    m->no_energy = "the GPU's PCI address is not known";
    if (cudaDeviceGetPCIBusId(address, sizeof address, cuda->index) != cudaSuccess) {
        cudaGetLastError();
        return;
    }
    m->nvml = cuda_nvml_open(address, &m->no_energy);
    m->stranger = !listed && cuda_nvml_process_bytes(m->nvml, (long)getpid(), &bytes);
}

void cuda_meter_start(cuda_backend *cuda)
{
    cuda_meter *m = &cuda->meter;
    size_t bytes, total;
    double joules;
    if (m->nvml && !cuda_nvml_joules(m->nvml, &joules))
        m->no_energy = "the GPU has no energy counter that may be read";
    /* A process of this number that had memory before this one did is another's: in a container,
     * the driver's numbers may be those outside of it. */
    if (!m->stranger) listed |= cuda_nvml_process_bytes(m->nvml, (long)getpid(), &bytes);
    m->by_process = !m->stranger && listed;
    if (cudaMemGetInfo(&m->available_at_start, &total) != cudaSuccess) cudaGetLastError();
}

void cuda_meter_free(cuda_backend *cuda)
{
    cuda_meter *m = &cuda->meter;
    for (int i = 0; i < 2; i++)
        if (m->marks[i]) cudaEventDestroy(m->marks[i]);
    cuda_nvml_close(m->nvml);
}

/* ---- memory ---------------------------------------------------------------------------------- */

static bool used_bytes(const cuda_meter *m, size_t available, size_t *used)
{
    if (m->by_process) return cuda_nvml_process_bytes(m->nvml, (long)getpid(), used);
    *used = m->available_at_start > available ? m->available_at_start - available : 0;
    return m->available_at_start > 0;
}

void cuda_meter_read(cuda_backend *cuda)
{
    cuda_meter *m = &cuda->meter;
    m->read_at = cuda->held.peak;
    m->known = cudaMemGetInfo(&m->available, &m->total) == cudaSuccess &&
               used_bytes(m, m->available, &m->used);
    if (!m->known)
        cudaGetLastError();
    else if (m->used > m->peak)
        m->peak = m->used;
}

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
