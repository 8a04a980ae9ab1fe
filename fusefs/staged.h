/* Keys of ours below the mounted prefix. */
#pragma once

#include "storage/keys.h"

#define OWN_PREFIX     KEYS_MOUNT_DIR
#define LEASE_KEY      OWN_PREFIX "lease"
#define WRITERS_PREFIX OWN_PREFIX "writer/" /* + OWNER: of mounts that share the prefix */
#define PROBES_PREFIX  OWN_PREFIX "probe/"  /* + OWNER: written to learn the store's time */
/* + DIRECTORY + INDEX_NAME: attributes of its files (index.h). They outlive the mount. */
#define INDEX_PREFIX  KEYS_INDEX_DIR
#define INDEX_NAME    ".dstack-index"
#define STAGED_PREFIX OWN_PREFIX "staged/" /* + OWNER/N */
