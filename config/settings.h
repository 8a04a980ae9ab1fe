/* $DSTACK_HOME/config.yaml: the remotes.
 *
 * errors: EINVAL, "FILE:LINE:COLUMN: …". A file that is not there is empty settings.
 * safety: no secrets are kept here; credentials come from the environment and ~/.aws.
 */
#pragma once

#include <glib.h>
#include <stdbool.h>

/* How jobs are handed to Slurm; NULL: the cluster's default. */
struct slurm_settings {
    char *partition, *interruptible_partition, *account, *qos, *time;
    char *submit_host; /* [USER@]HOST where sbatch is, over ssh; NULL: here */
    char **options;    /* more of sbatch's, as they are; NULL: none */
};
void slurm_settings_clear(struct slurm_settings *slurm);

/* EINVAL unless HOST can be handed to ssh as a destination. */
bool slurm_submit_host_check(const char *host, GError **error);

struct remote {
    char *name;
    char *storage;                     /* URL of ROOT */
    char *endpoint, *region, *profile; /* may be NULL */
    char *engine;                      /* "local", "slurm" */
    struct slurm_settings slurm;
    char *cacert;          /* a PEM file to trust instead of the system's; may be NULL */
    bool virtual_host;     /* BUCKET.HOST instead of HOST/BUCKET */
    bool unsigned_payload; /* over http, what is uploaded is not signed with its hash */
    bool is_default;
    bool is_embedded; /* nobody configured it; never saved */
};

struct settings {
    char *path;
    GPtrArray *remotes; /* struct remote* */
};

bool settings_load(struct settings *settings, GError **error);

/* Adds the remotes of TEXT; settings->path and ->remotes are set already. */
bool settings_parse(struct settings *settings, const char *text, size_t size, GError **error);

bool settings_save(const struct settings *settings, GError **error); /* whole or not at all */
void settings_clear(struct settings *settings);

struct remote *remote_new(const char *name, const char *storage);
void remote_free(struct remote *remote);

/* NAME NULL: the default one. With no remotes at all and NAME NULL, an embedded one under
 * $DSTACK_HOME/remote; *EMBEDDED says so. The settings own what is returned. */
struct remote *settings_remote(struct settings *settings, const char *name, bool *embedded,
                               GError **error);

/* Adds or replaces by name; the first remote, or one with is_default, becomes the default. */
void settings_put(struct settings *settings, struct remote *remote);

/* Takes REMOTE over and puts it into the file, beside what others put there at the same time. */
bool settings_add(struct remote *remote, GError **error);
