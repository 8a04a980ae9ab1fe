/* The status file of a dstack-mount. */
#pragma once

#include <glib.h>
#include <stdbool.h>

struct mount_status {
    bool ready;
    char *error;   /* NULL: none */
    char *unsaved; /* the paths that were not saved, joined; NULL: none */
};

/* A file that is not there (yet) or damaged is "not ready, no error". */
void mount_status_read(const char *path, struct mount_status *status);
void mount_status_clear(struct mount_status *status);
