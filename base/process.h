/* What this process takes. Any thread. */
#ifndef WITAN_BASE_PROCESS_H
#define WITAN_BASE_PROCESS_H

#include <stdint.h>

/* Memory that is resident now; 0 where the system does not say. */
uint64_t process_resident_bytes(void);

#endif
