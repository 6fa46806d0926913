#include "backend/cuda/nvml.h"

#include "core/alloc.h"

#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

/* nvmlReturn_t */
enum { NVML_SUCCESS = 0, NVML_ERROR_INSUFFICIENT_SIZE = 7 };

enum { DRIVER_ROOM = 80 }; /* NVML_SYSTEM_DRIVER_VERSION_BUFFER_SIZE */

/* nvmlProcessInfo_t of nvmlDeviceGetComputeRunningProcesses_v2 and _v3. */
typedef struct {
    unsigned int pid;
    unsigned long long used; /* bytes; all ones: not available */
    unsigned int gpu_instance, compute_instance;
} process_info;

typedef void *nvml_device; /* nvmlDevice_t */

struct cuda_nvml {
    void *library;
    nvml_device device;
    int (*shutdown)(void);
    int (*driver)(char *version, unsigned int room);
    int (*energy)(nvml_device device, unsigned long long *millijoules);
    int (*processes)(nvml_device device, unsigned int *count, process_info *infos);
};

/* A function of the library; ISO C has no cast from an object's address to a function's. */
static bool find(void *library, const char *name, void *function)
{
    void *symbol = dlsym(library, name);
    memcpy(function, &symbol, sizeof symbol);
    return symbol;
}

static const char *start(cuda_nvml *nvml, const char *pci_address)
{
    int (*init)(void);
    int (*by_address)(const char *address, nvml_device *device);
    nvml->library = dlopen("libnvidia-ml.so.1", RTLD_NOW | RTLD_LOCAL);
    if (!nvml->library) return "NVML (libnvidia-ml.so.1) is missing";
    if (!find(nvml->library, "nvmlInit_v2", &init) ||
        !find(nvml->library, "nvmlShutdown", &nvml->shutdown) ||
        !find(nvml->library, "nvmlDeviceGetHandleByPciBusId_v2", &by_address))
        return "NVML lacks functions that every version has";
    if (init() != NVML_SUCCESS) {
        nvml->shutdown = NULL;
        return "NVML does not start";
    }
    if (by_address(pci_address, &nvml->device) != NVML_SUCCESS)
        return "NVML does not know this GPU";
    find(nvml->library, "nvmlSystemGetDriverVersion", &nvml->driver);
    find(nvml->library, "nvmlDeviceGetTotalEnergyConsumption", &nvml->energy);
    if (!find(nvml->library, "nvmlDeviceGetComputeRunningProcesses_v3", &nvml->processes))
        find(nvml->library, "nvmlDeviceGetComputeRunningProcesses_v2", &nvml->processes);
    return NULL;
}

cuda_nvml *cuda_nvml_open(const char *pci_address, const char **reason)
{
    cuda_nvml *nvml = bg_calloc(1, sizeof *nvml);
    *reason = nvml ? start(nvml, pci_address) : "memory ran out";
    if (!*reason) return nvml;
    cuda_nvml_close(nvml);
    return NULL;
}

void cuda_nvml_close(cuda_nvml *nvml)
{
    if (!nvml) return;
    if (nvml->shutdown) nvml->shutdown();
    if (nvml->library) dlclose(nvml->library);
    bg_free(nvml);
}

bool cuda_nvml_process_bytes(cuda_nvml *nvml, long pid, size_t *bytes)
{
    unsigned int n = 64;
    bool found = false;
    if (!nvml || !nvml->processes) return false;
    *bytes = 0;
    /* Processes may start between the answer that there are more and the next question. */
    for (int attempt = 0; attempt < 4; attempt++) {
        unsigned int room = n + 16;
        process_info *list = bg_calloc(room, sizeof *list);
        if (!list) return false;
        n = room;
        const int e = nvml->processes(nvml->device, &n, list);
        for (unsigned int i = 0; e == NVML_SUCCESS && i < n && i < room; i++) {
            if ((long)list[i].pid != pid || list[i].used == ~0ULL) continue;
            *bytes += (size_t)list[i].used; /* an entry for each part of a divided GPU */
            found = true;
        }
        bg_free(list);
        if (e != NVML_ERROR_INSUFFICIENT_SIZE || n > 1 << 16) break;
    }
    return found;
}

bool cuda_nvml_driver(cuda_nvml *nvml, char *version, size_t room)
{
    char said[DRIVER_ROOM] = "";
    *version = '\0';
    if (!nvml || !nvml->driver || nvml->driver(said, sizeof said) != NVML_SUCCESS) return false;
    snprintf(version, room, "%.*s", DRIVER_ROOM - 1, said);
    return true;
}

bool cuda_nvml_joules(cuda_nvml *nvml, double *joules)
{
    unsigned long long millijoules;
    if (!nvml || !nvml->energy || nvml->energy(nvml->device, &millijoules) != NVML_SUCCESS)
        return false;
    *joules = (double)millijoules / 1e3;
    return true;
}
