/* What the fake NVML answers. */
#ifndef BG_TESTS_FAKE_NVML_H
#define BG_TESTS_FAKE_NVML_H

typedef struct {
    unsigned int pid;
    unsigned long long used;
    unsigned int gpu_instance, compute_instance;
} fake_nvml_process;

typedef struct {
    int init, version, energy, list; /* what the functions return */
    int unended;                     /* the version is not ended by a zero */
    unsigned long long millijoules;
    unsigned int n_processes; /* numbers from 1 on, each with a thousand bytes more */
    int opened;
} fake_nvml_state;

extern fake_nvml_state fake_nvml;

#endif
