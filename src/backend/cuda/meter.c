/* What the driver says of this process's memory on the GPU: asked when it may have changed. */
#include "backend/cuda/cuda.h"

#include "backend/cuda/nvml.h"

#include <unistd.h>

/* Once the driver has begun to list this process, it goes on to. */
static bool listed;

cuda_nvml *cuda_nvml_of(int index, const char **reason)
{
    char address[32];
    if (cudaDeviceGetPCIBusId(address, sizeof address, index) == cudaSuccess)
        return cuda_nvml_open(address, reason);
    cudaGetLastError();
    *reason = "the GPU's PCI address is not known";
    return NULL;
}

void cuda_meter_prepare(cuda_backend *cuda)
{
    cuda_meter *m = &cuda->meter;
    size_t bytes;
    m->nvml = cuda_nvml_of(cuda->index, &m->no_energy);
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
