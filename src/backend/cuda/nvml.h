/* NVML, NVIDIA's management library, as far as it is needed here: it comes with the driver and is
 * loaded at run time, so every part of it may be missing. Types and constants are those of the NVML
 * API reference, "Device Queries". */
#ifndef BG_BACKEND_CUDA_NVML_H
#define BG_BACKEND_CUDA_NVML_H

#include <stdbool.h>
#include <stddef.h>

typedef struct cuda_nvml cuda_nvml;

/* The GPU at a PCI address, "0000:1A:00.0". NULL where the library, the GPU in it, or memory is
 * missing; *reason is then why, in words. */
cuda_nvml *cuda_nvml_open(const char *pci_address, const char **reason);
void cuda_nvml_close(cuda_nvml *nvml);

/* Bytes of the GPU's memory that the process `pid` has, its context and code included; false where
 * the driver does not list it. In a container the driver may list processes by numbers that are not
 * those seen here. */
bool cuda_nvml_process_bytes(cuda_nvml *nvml, long pid, size_t *bytes);
/* The driver's own version, "580.65.06", cut to `room`; empty, and false, where it does not say. */
bool cuda_nvml_driver(cuda_nvml *nvml, char *version, size_t room);
/* What the board has used since the driver was loaded; false where it does not count. */
bool cuda_nvml_joules(cuda_nvml *nvml, double *joules);

#endif
