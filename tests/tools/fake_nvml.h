/* What a test tells tests/tools/fake_nvml.c, by its symbol `fake_nvml`. */
#ifndef WITAN_TESTS_TOOLS_FAKE_NVML_H
#define WITAN_TESTS_TOOLS_FAKE_NVML_H

#include <stdatomic.h>

enum { FAKE_UNSUPPORTED = 3, FAKE_NOT_FOUND = 6, FAKE_TIMEOUT = 10 }; /* NVML's codes */

struct fake_nvml {
    atomic_int init_error, uuid_error, pci_error; /* 0: none */
    atomic_uint power_mw, sm_mhz, memory_mhz, temperature;
    atomic_ullong energy_mj, throttle, corrected, uncorrected;
    atomic_int no_ecc;  /* this GPU does not count errors */
    atomic_int hang;    /* the next question is not answered before this is 0 again */
    atomic_int hanging; /* it is so */
    atomic_uint xids[32];
    atomic_int posted, taken; /* of them */
    atomic_int samples;       /* times that the power was asked for */
    atomic_int open;          /* inits less shutdowns */
    char uuid[64], pci[40];   /* that were asked for */
};

#endif
