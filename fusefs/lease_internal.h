/* What lease.c (holding it) and lease_take.c (getting it) share. Not for other files. */
#pragma once

#include "fusefs/lease.h"

#include <pthread.h>

#define BEATS_PER_TTL 4

struct lease {
    struct store *store;
    char *key;
    bool exclusive;
    unsigned ttl_ms;
    pthread_t thread;

    pthread_mutex_t beat_lock; /* one writing at a time; taken before `lock`, held across the PUT */
    char *etag;                /* guarded by beat_lock: of what we wrote last */

    pthread_mutex_t lock;
    pthread_cond_t changed;
    /* guarded by lock: */
    struct lease_record *record;
    int64_t sure_until_ms; /* nobody can have taken it before */
    uint64_t written_beat; /* of the body that was written last */
    uint64_t owed_beat;    /* of the first body that tells of the renames as they are */
    bool lost, stopping, hurry;
    bool awaited;          /* somebody waits for the next beat */
    unsigned begun, ended; /* beats of the thread, whatever came of them */
    int error;             /* why the last one failed; 0: it did not */
};

/* The record with one more beat, as it is to be written; NULL: no memory. */
char *lease_next_body(struct lease *lease);

/* Writes BODY; CONDITION as store_write's. */
bool lease_put(struct lease *lease, const char *body, const char *condition, unsigned deadline_ms,
               char **etag, GError **error);

/* Writes the next body, over our last one. ESTALE: it is not ours any more. */
bool lease_beat(struct lease *lease, GError **error);

/* Deletes the object, if it still is ours and surely stays so meanwhile. Without beats. */
void lease_give_back(struct lease *lease);

bool lease_take(struct lease *lease, const struct lease_options *options,
                struct lease_record **previous, GError **error);
