/* A run: what was asked for (the spec) and what became of it (the state), one JSON document under
 * runs/REPO/RUN.json.
 *
 * shape:   pending → submitted → downloading → running → uploading → done | failed
 *          stopping → stopped, aborting → aborted, interrupted → pending; the whole table stands in
 *          run_status.c, and docs/runs.md draws it.
 * units:   times in milliseconds since 1970 (UTC), 0: not yet.
 * errors:  EINVAL: not a run document (what, where); ENOTSUP: written by a newer version; EPERM: a
 *          transition that the table does not have.
 * owns:    the run owns everything in it.
 * safety:  a document is foreign bytes: names, paths and sizes are checked before anyone uses them.
 */
#pragma once

#include "config/lifetime.h"
#include "config/resources.h"
#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

enum run_status {
    RUN_PENDING,
    RUN_SUBMITTED,
    RUN_DOWNLOADING,
    RUN_RUNNING,
    RUN_UPLOADING,
    RUN_DONE,
    RUN_FAILED,
    RUN_STOPPING,
    RUN_STOPPED,
    RUN_ABORTING,
    RUN_ABORTED,
    RUN_INTERRUPTED,
    RUN_STATUSES
};

const char *run_status_name(enum run_status status);
bool run_status_parse(const char *name, enum run_status *status);
bool run_status_is_final(enum run_status status); /* done, failed, stopped, aborted */
bool run_status_may(enum run_status from, enum run_status to);

struct run_artifact {
    char *path; /* as in the workflow, without "./" and trailing slashes; may be absolute or ~/… */
    bool mount;
};

/* What another run or a tag made, placed where that run had it. */
struct run_dep {
    char *repo; /* NULL: the run's own */
    char *run;  /* the run whose artifacts they are, resolved when the run was made */
    char *path; /* the producer's artifact path */
    bool mount;
};

/* Who holds the run: enough to say, on the same machine, whether that process still lives. */
struct run_owner {
    char *host;    /* NULL: nobody yet */
    char *machine; /* boot id and PID namespace: equal means the PID can be looked at from here */
    int64_t pid;
    uint64_t start_ticks; /* of the process: a reused PID differs */
    char *work_dir;
};

struct run {
    /* spec */
    char *repo, *name;
    char *workflow, *provider, *engine;
    char *user;        /* who submitted it; NULL: not known */
    char *code_sha256; /* code/SHA256.tar.zst; NULL: no code */
    char *working_dir; /* below the code; NULL: its top */
    char **commands;   /* as written: their variables are replaced where they run */
    char **args;       /* what ${{ run.args }} stands for */
    char **env;        /* NAME=VALUE; NAME alone: its value where the runner is */
    char **ports;      /* see port_parse */
    char **cache;      /* normalised paths, kept between runs of the workflow */
    char *python;      /* the version that is wanted; NULL: any */
    char **setup;      /* commands before an IDE starts */
    char *ide_version; /* NULL: any */
    struct resources resources;
    struct lifetime lifetime;

    /* docker */
    char *image, *home_dir;
    char **entrypoint;                           /* none: the image's */
    char *registry_username, *registry_password; /* the password: ${{ secrets.NAME }}, never more */

    GPtrArray *artifacts; /* struct run_artifact* */
    GPtrArray *deps;      /* struct run_dep* */
    unsigned grace_s;     /* between SIGTERM and SIGKILL */

    /* state */
    char *id; /* random; the job's processes carry it in their environment */
    enum run_status status;
    unsigned attempt; /* from 1 */
    int exit_code;    /* -1: none yet; 128 + N for signal N */
    char *reason;     /* why it failed or what went wrong; NULL: nothing to say */
    int64_t submitted_ms, started_ms, finished_ms;
    struct run_owner owner;
    char *engine_job;  /* the engine's own name for the job; NULL: none */
    uint64_t revision; /* of the document, one more with each write */

    /* not in JSON: what its engine said when the run was last looked at (run_store_refresh) */
    char *waiting; /* for what it is in the queue; NULL: it is not known to be in one */
    unsigned rank; /* of this process, of a run on several nodes */
    bool is_idle;  /* it was interrupted, and its engine will not start it again */

    char *write_id; /* who wrote it: random, kept from a try that failed to the one that does not */
    char *etag;     /* of the object this was read from; NULL: never written. Not in JSON */
};

struct run *run_new(const char *repo, const char *name);
void run_free(struct run *run); /* takes NULL */
typedef struct run Run;
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Run, run_free)

void run_add_artifact(struct run *run, const char *path, bool mount);
void run_add_dep(struct run *run, const char *repo, const char *from, const char *path, bool mount);

/* Whether NAME can be a run's, repo's or workflow's in a key: [A-Za-z0-9._-], no leading dot,
 * 1 to 100 bytes. */
bool run_name_is_valid(const char *name);

/* Where the files of artifact PATH are, with a '/' at the end. */
char *run_artifact_prefix(const char *repo, const char *name, const char *path);

/* The document's text. */
char *run_format(const struct run *run, size_t *size);

/* REPO and NAME are what the key said: a document that names another run is refused. */
struct run *run_parse(const char *repo, const char *name, const char *data, size_t size,
                      GError **error);

int64_t run_now_ms(void);
