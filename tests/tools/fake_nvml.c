/*
 * In the place of NVIDIA's management library: one GPU whose readings a test sets. Compiled with
 * FAKE_NVML_BARE it is one of an old driver: power and the older name of the clocks' reasons alone.
 */
#include "tests/tools/fake_nvml.h"

#include <stdio.h>
#include <unistd.h>

/* No header has these: worker/meter.c declares them as function pointers. */
#pragma GCC diagnostic ignored "-Wmissing-prototypes"

struct fake_nvml fake_nvml = {.power_mw = 312400, .temperature = 54, .throttle = 4};

struct event {
    void *device;
    unsigned long long type, data;
    unsigned gpu_instance, compute_instance;
};

int nvmlInit_v2(void)
{
    if (fake_nvml.init_error)
        return fake_nvml.init_error;
    atomic_fetch_add(&fake_nvml.open, 1);
    return 0;
}

int nvmlShutdown(void)
{
    atomic_fetch_sub(&fake_nvml.open, 1);
    return 0;
}

const char *nvmlErrorString(int code)
{
    return code == FAKE_NOT_FOUND ? "Not Found" : "Driver Not Loaded";
}

int nvmlDeviceGetHandleByUUID(const char *uuid, void **out)
{
    snprintf(fake_nvml.uuid, sizeof fake_nvml.uuid, "%s", uuid);
    *out = &fake_nvml;
    return fake_nvml.uuid_error;
}

int nvmlDeviceGetHandleByPciBusId_v2(const char *pci, void **out)
{
    snprintf(fake_nvml.pci, sizeof fake_nvml.pci, "%s", pci);
    *out = &fake_nvml;
    return fake_nvml.pci_error;
}

int nvmlDeviceGetPowerUsage(void *device, unsigned *out)
{
    (void)device;
    atomic_fetch_add(&fake_nvml.samples, 1);
    while (fake_nvml.hang) {
        fake_nvml.hanging = 1;
        usleep(1000);
    }
    fake_nvml.hanging = 0;
    *out = fake_nvml.power_mw;
    return 0;
}

static int throttle(unsigned long long *out)
{
    *out = fake_nvml.throttle;
    return 0;
}

#ifdef FAKE_NVML_BARE

int nvmlDeviceGetCurrentClocksThrottleReasons(void *device, unsigned long long *out)
{
    (void)device;
    return throttle(out);
}

#else

int nvmlDeviceGetCurrentClocksEventReasons(void *device, unsigned long long *out)
{
    (void)device;
    return throttle(out);
}

int nvmlDeviceGetTotalEnergyConsumption(void *device, unsigned long long *out)
{
    (void)device;
    *out = fake_nvml.energy_mj;
    return 0;
}

int nvmlDeviceGetClockInfo(void *device, int clock, unsigned *out)
{
    (void)device;
    *out = clock == 1 ? fake_nvml.sm_mhz : fake_nvml.memory_mhz;
    return clock == 1 || clock == 2 ? 0 : FAKE_UNSUPPORTED;
}

int nvmlDeviceGetTemperature(void *device, int sensor, unsigned *out)
{
    (void)device;
    *out = fake_nvml.temperature;
    return sensor == 0 ? 0 : FAKE_UNSUPPORTED;
}

int nvmlDeviceGetTotalEccErrors(void *device, int errors, int counter, unsigned long long *out)
{
    (void)device;
    *out = errors == 0 ? fake_nvml.corrected : fake_nvml.uncorrected;
    return fake_nvml.no_ecc || counter != 0 ? FAKE_UNSUPPORTED : 0;
}

int nvmlEventSetCreate(void **out)
{
    *out = &fake_nvml;
    return 0;
}

int nvmlEventSetFree(void *set)
{
    (void)set;
    return 0;
}

int nvmlDeviceRegisterEvents(void *device, unsigned long long types, void *set)
{
    (void)device;
    (void)set;
    return types == 8 ? 0 : FAKE_UNSUPPORTED;
}

int nvmlEventSetWait_v2(void *set, struct event *out, unsigned timeout_ms)
{
    (void)set;
    (void)timeout_ms;
    int i = fake_nvml.taken;
    if (i == fake_nvml.posted)
        return FAKE_TIMEOUT;
    *out = (struct event){.device = &fake_nvml, .type = 8, .data = fake_nvml.xids[i]};
    fake_nvml.taken = i + 1;
    return 0;
}

#endif
