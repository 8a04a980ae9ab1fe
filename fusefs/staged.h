/* Keys of ours below the mounted prefix. */
#pragma once

#define OWN_PREFIX     ".dstack-mount/"
#define LEASE_KEY      OWN_PREFIX "lease"
#define WRITERS_PREFIX OWN_PREFIX "writer/" /* + OWNER: of mounts that share the prefix */
#define PROBES_PREFIX  OWN_PREFIX "probe/"  /* + OWNER: written to learn the store's time */
#define STAGED_PREFIX  OWN_PREFIX "staged/" /* + OWNER/N */
