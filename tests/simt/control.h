/*
 * How tests steer the emulator and read what it found. Not for kernels.
 *
 * Environment: SIMT_SEED=N replays the schedule of a run that printed N; SIMT_STATS=1 prints a line
 * for each launch.
 */
#ifndef WITAN_TESTS_SIMT_CONTROL_H
#define WITAN_TESTS_SIMT_CONTROL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The seed of the next launch; those after it follow from it. 0, as without a call: SIMT_SEED,
 * or 1. */
void simt_seed(uint64_t seed);

/* What happens at a fault: by default its report goes to stderr and the process aborts. Caught, the
 * launch ends with an error code and the report waits for simt_report. */
void simt_catch(bool caught);

/* The report of the fault since the last call; NULL: there was none. Valid until the next launch.
 */
const char *simt_report(void);

/* From here on, device code may not write the allocation that `p` lies in (or may again). */
void simt_protect(const void *p, bool read_only);

/* From here on the device has so many bytes; UINT64_MAX, as without a call, says nothing of what it
 * can hold. What is allocated beyond them is refused as a device refuses it. */
void simt_memory(uint64_t bytes);

/* Bytes that are allocated on the device, but for the host's pinned ones. */
uint64_t simt_allocated(void);

/* False where this thread does not record (device_record_begin). Else a copy of the argument is
 * kept, and each run of the recording calls the function with it, whose status is the run's: for
 * what tests put on a stream beside kernels. */
bool simt_record(int (*fn)(const void *arg), const void *arg, size_t bytes);

/* Counted while on (it halves the speed): what the memory system of a GPU would have been asked
 * for. A request is one load or store instruction of one warp. */
void simt_count(bool on);

struct simt_counts {
    uint64_t accesses;        /* loads and stores of single threads; counted always */
    uint64_t switches;        /* from fiber to fiber; counted always */
    uint64_t shared_requests; /* of warps */
    uint64_t shared_passes;   /* passes over the 32 banks that they take */
    uint64_t shared_ideal;    /* ... without bank conflicts */
    uint64_t global_requests; /* of warps */
    uint64_t global_sectors;  /* 32-byte sectors that they touch */
    uint64_t global_ideal;    /* ... were their bytes side by side */
    char worst_shared[160];   /* the line with most passes too many, and how many */
    char worst_global[160];   /* the line with most sectors too many, and how many */
};

/* Of the last launch. */
const struct simt_counts *simt_last_counts(void);

/* Launches of kernels since the program began. */
uint64_t simt_launches(void);

#ifdef __cplusplus
}
#endif

#endif
