/* What a job asks of the machine where it runs.
 *
 * shape:  0 and NULL: not asked for. A port is written "PORT", "PORT:LOCAL" or "0" (any free one):
 *         the program listens on PORT; LOCAL is where it is found on the machine when that differs.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct resources {
    unsigned cpu, gpu; /* how many */
    char *gpu_name;
    uint64_t memory_bytes, gpu_memory_bytes, shm_bytes;
    bool interruptible, local, remote;
};

void resources_clear(struct resources *resources);
void resources_copy(struct resources *to, const struct resources *from); /* TO is empty */
bool resources_asked(const struct resources *resources);

/* False when TEXT is no port. LOCAL is PORT where none is given. */
bool port_parse(const char *text, unsigned *port, unsigned *local);
