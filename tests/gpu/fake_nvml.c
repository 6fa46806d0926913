/* NVML as far as bitgauge calls it, with answers that the test sets through fake_nvml. */
#include "fake_nvml.h"

#include <string.h>

__attribute__((visibility("default"))) fake_nvml_state fake_nvml;

#define EXPORTED __attribute__((visibility("default")))

EXPORTED int nvmlInit_v2(void);
EXPORTED int nvmlShutdown(void);
EXPORTED int nvmlDeviceGetHandleByPciBusId_v2(const char *address, void **device);
EXPORTED int nvmlSystemGetDriverVersion(char *version, unsigned int length);
EXPORTED int nvmlDeviceGetTotalEnergyConsumption(void *device, unsigned long long *millijoules);
EXPORTED int nvmlDeviceGetComputeRunningProcesses_v3(void *device, unsigned int *count,
                                                     fake_nvml_process *infos);

int nvmlInit_v2(void)
{
    fake_nvml.opened += fake_nvml.init == 0;
    return fake_nvml.init;
}

int nvmlShutdown(void)
{
    fake_nvml.opened--;
    return 0;
}

int nvmlDeviceGetHandleByPciBusId_v2(const char *address, void **device)
{
    *device = &fake_nvml;
    return strcmp(address, "0000:1A:00.0") == 0 ? 0 : 6 /* NVML_ERROR_NOT_FOUND */;
}

int nvmlSystemGetDriverVersion(char *version, unsigned int length)
{
    memset(version, 'v', length); /* a driver that fills it, and does not end it */
    memcpy(version, "580.65.06", fake_nvml.unended ? 9 : 10);
    return fake_nvml.version;
}

int nvmlDeviceGetTotalEnergyConsumption(void *device, unsigned long long *millijoules)
{
    *millijoules = fake_nvml.millijoules;
    return device == &fake_nvml ? fake_nvml.energy : 2;
}

int nvmlDeviceGetComputeRunningProcesses_v3(void *device, unsigned int *count,
                                            fake_nvml_process *infos)
{
    const unsigned int room = *count, n = fake_nvml.n_processes;
    *count = n;
    if (device != &fake_nvml || fake_nvml.list) return fake_nvml.list;
    if (n > room) return 7 /* NVML_ERROR_INSUFFICIENT_SIZE */;
    for (unsigned int i = 0; i < n; i++)
        infos[i] = (fake_nvml_process){.pid = i + 1, .used = i * 1000ULL};
    if (n > 9) infos[9].used = ~0ULL; /* not available */
    if (n > 11) infos[11].pid = 11;   /* twice: a GPU in parts */
    return 0;
}
