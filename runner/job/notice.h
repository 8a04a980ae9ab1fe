/* What a cloud says before it takes a machine away.
 *
 * shape:   one entry for each cloud. Which one this is stands in the machine's DMI data;
 * DSTACK_CLOUD (aws, gcp, azure, none) and DSTACK_METADATA_URL say otherwise. errors:  a metadata
 * server that does not answer is asked again; it is never the job's failure. threads: one of its
 * own.
 */
#pragma once

#include "runner/job/job_watch.h"
#include "runner/job/metadata.h"

struct notice {
    bool is_coming;
    int64_t left_ms;
};

struct cloud {
    const char *name, *vendor; /* VENDOR: how the machine's sys_vendor begins */
    const char *base;
    unsigned every_ms; /* between two questions */
    /* Asks once. */
    bool (*ask)(struct metadata *metadata, struct notice *notice, GError **error);
};

extern const struct cloud cloud_aws, cloud_gcp, cloud_azure;

/* NULL: it is none of these. */
const struct cloud *cloud_find(void);

struct notices;

/* Interrupts WATCH when the machine is to go. NULL: no cloud's machine, or no thread. */
struct notices *notices_start(struct job_watch *watch);
void notices_stop(struct notices *notices); /* takes NULL */
